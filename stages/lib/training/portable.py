"""Write a student's small files so that transformers 4 and 5, and servers built on either, read them the same way.

transformers 5 writes config.json and tokenizer_config.json in a new format. Version 4 refuses some of it, and silently
replaces the rest by its defaults. This module writes what both read:

    config.json             the published one; rope_theta and similar keys both inside rope_parameters and where
                            version 4 looks for them, dtype under both names, tied weights written explicitly
    tokenizer_config.json   the published class, additional_special_tokens as a list, the chat template
    generation_config.json  the published one; it stops at the end of a turn

    make_portable(models/filtered, student, "bfloat16")     after a student was saved by transformers 5
    readable_by_4(student, folder)                          a student that only transformers 5 reads, for openMind
"""

import json
from pathlib import Path
from typing import Any

Config = dict[str, Any]

# tokenizer classes that transformers 4 does not have; GENERIC_TOKENIZER, which it has, reads any tokenizer.json
ONLY_IN_5 = ("TokenizersBackend", "PythonBackend", "SentencePieceBackend", "MistralCommonBackend")
GENERIC_TOKENIZER = "PreTrainedTokenizerFast"
# where transformers 4 looks for theta and for the rotary share of a head, if not under their usual names
ROPE_NAMES = {
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
    "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct"),
    "modernbert-decoder": ("global_rope_theta", "partial_rotary_factor"),
}
LOCAL_ROPE_NAMES = {"modernbert-decoder": "local_rope_theta"}
ROPE_APART = ("rope_type", "rope_theta", "partial_rotary_factor")  # not part of transformers 4's rope_scaling
ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# with sampling settings beside do_sample: false, version 4 and some of 5 refuse to save the model
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


def make_portable(folder: Path, student: Path, dtype: str, tokenizer: Any) -> None:
    """Rewrite the small files of a student that was saved in ``folder``, based on those of the published student."""
    ours = _settings_of(folder if (folder / "config.json").is_file() else student)
    config = _read(student / "config.json")
    if config.get("model_type") != ours.get("model_type"):
        config = _read(folder / "config.json")  # for example the language model of a vision model
    config = portable_config(config, ours, dtype)
    config["eos_token_id"] = tokenizer.eos_token_id
    if not ours.get("quantization_config"):
        config.pop("quantization_config", None)  # the weights were dequantized when they were loaded
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", generation_config(student, tokenizer, config))
    _write(folder / "tokenizer_config.json", tokenizer_config(folder, _read(student / "tokenizer_config.json")))


def portable_config(config: Config, ours: Config, dtype: str | None) -> Config:
    """A config.json in both formats: the published one, completed with what transformers read from it (``ours``)."""
    found = {key: value for key, value in config.items() if key not in ("_name_or_path", "dtype", "torch_dtype")}
    rope = ours.get("rope_parameters")
    if rope:
        found["rope_parameters"] = rope
        for key, value in older_rope(rope, str(found.get("model_type"))).items():
            found.setdefault(key, value)
    dtype = dtype or config.get("dtype") or config.get("torch_dtype")
    found |= {"dtype": dtype, "torch_dtype": dtype} if dtype else {}
    if isinstance(ours.get("tie_word_embeddings"), bool):
        found["tie_word_embeddings"] = ours["tie_word_embeddings"]
    for key, part in found.items():  # the language model inside a multimodal model
        if isinstance(part, dict) and "model_type" in part and isinstance(ours.get(key), dict):
            found[key] = portable_config(part, ours[key], dtype)
    return found


def older_rope(rope: Config, model_type: str) -> Config:
    """The keys of transformers 4 for what version 5 has in ``rope_parameters``.

    {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0} → {"rope_theta": 1e6, "rope_scaling": {"rope_type": …}}
    {"full_attention": {…}, "sliding_attention": {…}}       → rope_theta and rope_scaling, and rope_local_base_freq
    """
    if not any(isinstance(value, dict) for value in rope.values()):
        return _older(rope, model_type)
    found = _older(rope.get("full_attention") or {}, model_type)
    local = rope.get("sliding_attention") or {}
    if "rope_theta" in local:
        found[LOCAL_ROPE_NAMES.get(model_type, "rope_local_base_freq")] = local["rope_theta"]
    return found


def _older(rope: Config, model_type: str) -> Config:
    theta, share = ROPE_NAMES.get(model_type, ("rope_theta", "partial_rotary_factor"))
    found = {}
    if rope.get("rope_theta") is not None:
        found[theta] = rope["rope_theta"]
    if rope.get("partial_rotary_factor") is not None:
        found[share] = rope["partial_rotary_factor"]
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = {key: value for key, value in rope.items() if key not in ROPE_APART}
    if kind == "longrope":  # Phi-3 reads only these three, and its training length beside them
        if "original_max_position_embeddings" in scaling:
            found["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
        factors = {key: value for key, value in scaling.items() if key in ("short_factor", "long_factor")}
        return found | {"rope_scaling": {"type": kind} | factors}
    if kind != "default" or scaling:
        found["rope_scaling"] = {"rope_type": kind} | scaling
    return found


def tokenizer_config(folder: Path, published: Config) -> Config:
    """The saved tokenizer_config.json with the published class, without what transformers 4 cannot read."""
    config = _older_tokenizer(_read(folder / "tokenizer_config.json"), published.get("tokenizer_class"))
    for key in (
        "add_bos_token",
        "add_eos_token",
    ):  # transformers 5 omits them, and some of 4 default to true
        if key in published:
            config[key] = published[key]
    template = folder / "chat_template.jinja"
    if template.is_file():  # older versions read it only here
        config["chat_template"] = template.read_text(encoding="utf-8")
    return config


def _older_tokenizer(config: Config, published_class: str | None) -> Config:
    known = published_class and published_class not in ONLY_IN_5
    found = {key: value for key, value in config.items() if key not in ("backend", "is_local", "local_files_only")}
    found["tokenizer_class"] = published_class if known else GENERIC_TOKENIZER
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    return found


def generation_config(student: Path, tokenizer: Any, config: Config) -> Config:
    """The published generation_config.json, extended to stop at the end of a turn; only that if none was published."""
    found = _read(student / "generation_config.json")
    before = found.get("eos_token_id", [])
    ends = [tokenizer.eos_token_id, *(before if isinstance(before, list) else [before])]
    several = [end for place, end in enumerate(ends) if end is not None and end not in ends[:place]]
    found["eos_token_id"] = several[0] if len(several) == 1 else several
    for key in ("bos_token_id", "pad_token_id"):
        token = getattr(tokenizer, key) if getattr(tokenizer, key) is not None else config.get(key)
        if token is not None and found.get(key) is None:
            found[key] = token
    return found


def readable_by_4(student: Path, folder: Path) -> Path:
    """The student's folder if transformers 4 reads and saves it; else a folder of links and rewritten small files."""
    config, tokenizer, generation = (
        _read(student / name) for name in ("config.json", "tokenizer_config.json", "generation_config.json")
    )
    rewritten = {}
    rope = config.get("rope_parameters")
    if rope and not older_rope(rope, str(config.get("model_type"))).keys() <= config.keys():
        rewritten["config.json"] = portable_config(config, _settings_of(student), None)
    if tokenizer and _older_tokenizer(tokenizer, tokenizer.get("tokenizer_class")) != tokenizer:
        rewritten["tokenizer_config.json"] = _older_tokenizer(tokenizer, tokenizer.get("tokenizer_class"))
    if not generation.get("do_sample") and any(name in generation for name in SAMPLING):
        rewritten["generation_config.json"] = {key: generation[key] for key in ENDS if key in generation}
    if not rewritten:
        return student
    folder.mkdir(parents=True, exist_ok=True)
    for path in student.iterdir():
        link = folder / path.name
        link.unlink(missing_ok=True)
        if path.is_file() and path.name not in rewritten:
            link.symlink_to(path.resolve())
    for name, content in rewritten.items():
        _write(folder / name, content)
    return folder


def published_dtype(student: Path) -> str | None:
    """The dtype in the student's config.json, under either name; None if it has none."""
    config = _read(student / "config.json")
    found = config.get("dtype") or config.get("torch_dtype") or config.get("text_config", {}).get("dtype")
    return str(found) if found else None


def _settings_of(student: Path) -> Config:
    """A student's config.json as the installed transformers reads it."""
    from transformers import AutoConfig

    found: Config = AutoConfig.from_pretrained(student).to_dict()
    return found


def _read(path: Path) -> Config:
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def _write(path: Path, content: Config) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
