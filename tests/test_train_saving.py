"""What a training leaves: numbers that are numbers, in files that transformers 4 and 5 read as one student.

The tests marked ``transformers4`` load what ``train`` wrote with transformers 4.57, in an environment of its own
(``make test-transformers4``). Kinds of students are the real classes, made small.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.training.portable import older_rope, portable_config, readable_by_4
from stages.train import main as train
from tests.workspace import ROOT, write_changed_params

PYTHON4 = ROOT / ".venv-transformers4" / "bin" / "python"
TOLERANCE = 1e-4  # of a logit in fp32; those of the tiny students are of the size of 1
TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "s"}
TEXT = "What is 7 + 5? Think step by step. " * 20  # long enough for another theta to be seen
RATE = "learning rate {} (arms.filtered.learning_rate: 0.001)."
REFUSED_BY_SAVE = {"do_sample": False, "temperature": 0.6, "top_p": 0.9}
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 4096, "head_dim": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
# class of the model, and what its config.json says as transformers 4 wrote it
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2ForCausalLM", {"rope_theta": 1000000.0, "tie_word_embeddings": True}),
    "qwen2-yarn": ("Qwen2ForCausalLM", {"rope_theta": 50000.0, "rope_scaling": YARN, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3ForCausalLM", {"rope_theta": 5000000.0, "tie_word_embeddings": True}),
    "llama": ("LlamaForCausalLM", {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "tie_word_embeddings": True}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        {
            "rope_theta": 900000.0,
            "rope_local_base_freq": 20000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 16,
        },
    ),
    "phi": ("PhiForCausalLM", {"rope_theta": 70000.0, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}),
    "gpt_neox": ("GPTNeoXForCausalLM", {"rotary_emb_base": 30000, "rotary_pct": 0.5, "tie_word_embeddings": False}),
}


def write_sums(folder: Path, count: int = 6) -> Path:
    """A dataset's folder as convert writes it."""
    folder.mkdir(parents=True)
    samples = [
        {
            "system": "Think first.",
            "conversations": [
                {"from": "user", "value": f"What is {n} + 5?"},
                {"from": "assistant", "value": f"<think>\n\n{n} + 5</think>\n\n<answer>\n\n{n + 5}</answer>"},
            ],
        }
        for n in range(count)
    ]
    (folder / f"{folder.name}.json").write_text(json.dumps(samples))
    (folder / "dataset_info.json").write_text(json.dumps({folder.name: {"tags": TAGS}}))
    return folder


def trained(folder: Path, student: Path, changes: dict[str, Any] | None = None, name: str = "model") -> Result:
    """The stage, run in a folder on that student; its model is ``folder / name``."""
    dataset = folder / "sums"
    if not dataset.is_dir():
        write_sums(dataset)
    ours: dict[str, Any] = {"train.student.kind": "path", "train.student.name": str(student), "run.threads": 1}
    ours |= {"train.finetuning.kind": "full", "arms.filtered.max_steps": 2, "arms.filtered.cutoff_len": 1024}
    write_changed_params(ROOT / "params.yaml", ours | (changes or {}), folder / "params.yaml")
    paths = {"dataset": dataset, "model": folder / name, "metrics": folder / f"{name}.json"}
    paths |= {"left-out": folder / f"{name}.l.jsonl", "loss": folder / f"{name}.csv", "params": folder / "params.yaml"}
    options = [text for option, path in paths.items() for text in (f"--{option}", str(path))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        return CliRunner().invoke(train, ["--arm", "filtered", *options])


def error_of(result: Result, folder: Path) -> str:
    """The one line of a training that failed; no model may be left."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    assert not (folder / "model").exists()
    assert not list(folder.glob(".model*"))
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def student_like(student: Path, folder: Path, **changes: Mapping[str, Any]) -> Path:
    """A copy of a student; ``changes`` are by file: ``config={"rope_theta": 1e6}``."""
    shutil.copytree(student, folder)
    for name, change in changes.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(
            json.dumps({key: value for key, value in (content | dict(change)).items() if value is not None})
        )
    return folder


# --- a training whose numbers are none


@pytest.fixture
def spoilt(tmp_path: Path, tiny_student: Path) -> Callable[..., Path]:
    """``spoilt("model.norm.weight", value)``: the tiny student with one number of a tensor replaced.

    ``untied``: its head is a tensor of its own, as the embeddings were.
    """

    def make(tensor: str, value: float, row: int = -1, untied: bool = False) -> Path:
        from safetensors.torch import load_file, save_file

        folder = student_like(tiny_student, tmp_path / "student")
        tensors = load_file(folder / "model.safetensors")
        if untied:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
            student_like(folder, tmp_path / "untied", config={"tie_word_embeddings": False})
            shutil.copy(tmp_path / "untied" / "config.json", folder)
        tensors[tensor][row].view(-1)[-1] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_ends_the_training_at_its_step(
    tmp_path: Path, spoilt: Callable[..., Path], kind: str, value: float
) -> None:
    student = spoilt("model.layers.0.mlp.down_proj.weight", value)
    line = error_of(trained(tmp_path, student, {"train.finetuning.kind": kind}), tmp_path)
    assert line == (
        f"train: filtered: the loss is nan at step 1, {RATE.format(0)} The student's own weights contain one too "
        f"(model.layers.0.mlp.down_proj.weight). Download {student} again."
    )


def test_a_learning_rate_that_blows_the_weights_up_is_told_with_its_step(tmp_path: Path, tiny_student: Path) -> None:
    changes = {"arms.filtered.learning_rate": 1e38, "arms.filtered.max_steps": 6, "train.warmup_ratio": 0.0}
    line = error_of(trained(tmp_path, tiny_student, changes), tmp_path)
    assert line.startswith("train: filtered: the loss is ")
    assert "(arms.filtered.learning_rate: 1e+38)" in line


def test_weights_that_hold_none_are_no_model_where_no_loss_shows_it(
    tmp_path: Path, spoilt: Callable[..., Path]
) -> None:
    """The embedding of the exclamation mark, which stands in no row."""
    student = spoilt("model.embed_tokens.weight", float("nan"), row=3, untied=True)
    line = error_of(trained(tmp_path, student), tmp_path)
    assert line == (
        f"train: filtered: after step 2 the weights contain nan or inf (model.embed_tokens.weight), "
        f"{RATE.format(0.001)} The student's own weights contain one too (model.embed_tokens.weight). "
        f"Download {student} again."
    )


@pytest.mark.heavy
def test_numbers_too_large_for_the_type_they_are_saved_in_are_no_model(
    tmp_path: Path, spoilt: Callable[..., Path]
) -> None:
    student = spoilt("model.layers.0.mlp.up_proj.weight", 70000.0)
    assert trained(tmp_path, student, name="fits").exit_code == 0
    line = error_of(trained(tmp_path, student, {"train.save_dtype": "float16"}), tmp_path)
    assert line.startswith("train: filtered: after step 2 the weights contain nan or inf (model.layers.0.mlp.up_proj")
    assert "train.save_dtype" in line


# --- a saved student


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.heavy)])
def test_settings_of_generation_that_transformers_refuses_to_save_are_kept(
    tmp_path: Path, tiny_student: Path, kind: str
) -> None:
    student = student_like(tiny_student, tmp_path / "student", generation_config=REFUSED_BY_SAVE)
    result = trained(tmp_path, student, {"train.finetuning.kind": kind, "run.checkpoint_steps": 1})
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "model" / "generation_config.json").read_bytes())
    assert saved == json.loads((student / "generation_config.json").read_bytes())
    assert saved.items() >= REFUSED_BY_SAVE.items()


@pytest.mark.parametrize(
    ("published", "asked", "saved"),
    [
        ("bfloat16", "auto", "bfloat16"),
        pytest.param("float16", "auto", "float16", marks=pytest.mark.heavy),
        pytest.param("float32", "auto", "float32", marks=pytest.mark.heavy),
        pytest.param("bfloat16", "float32", "float32", marks=pytest.mark.heavy),
        ("float32", "bfloat16", "bfloat16"),
    ],
)
@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.heavy)])
def test_weights_are_saved_as_published_or_as_params_say(
    tmp_path: Path, tiny_student: Path, kind: str, published: str, asked: str, saved: str
) -> None:
    from safetensors.torch import load_file

    student = in_dtype(tiny_student, tmp_path / "student", published)
    result = trained(tmp_path, student, {"train.finetuning.kind": kind, "train.save_dtype": asked})
    assert result.exit_code == 0, result.output
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{saved}"}
    assert tensors.keys() == load_file(student / "model.safetensors").keys(), "tied weights were to stay tied"
    config = json.loads((tmp_path / "model" / "config.json").read_bytes())
    assert (config["dtype"], config["torch_dtype"]) == (saved, saved)


def test_each_tensor_keeps_the_type_that_it_was_published_in(tmp_path: Path, tiny_student: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    student = in_dtype(tiny_student, tmp_path / "student", "bfloat16")
    tensors = load_file(student / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, student / "model.safetensors", metadata={"format": "pt"})
    assert trained(tmp_path, student).exit_code == 0
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert [name for name, tensor in saved.items() if tensor.dtype == torch.float32] == ["model.norm.weight"]


def in_dtype(student: Path, folder: Path, dtype: str) -> Path:
    """A copy of a student with its weights in another type, as a config of transformers 4 names it."""
    import torch
    from safetensors.torch import load_file, save_file

    student_like(student, folder, config={"torch_dtype": dtype, "dtype": None})
    tensors = load_file(folder / "model.safetensors")
    other = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    save_file(other, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("model_type", "rope", "expected"),
    [
        ("qwen2", {"rope_type": "default", "rope_theta": 1e6}, {"rope_theta": 1e6}),
        (
            "llama",
            {"rope_theta": 5e5, **LLAMA3},
            {"rope_theta": 5e5, "rope_scaling": LLAMA3},
        ),
        (
            "phi",
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        (
            "gpt_neox",
            {"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.25},
            {"rotary_emb_base": 2e4, "rotary_pct": 0.25},
        ),
        (
            "phi3",
            {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0],
                "long_factor": [2.0],
                "original_max_position_embeddings": 4096,
            },
            {
                "rope_theta": 1e4,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
            },
        ),
        (
            "gemma3_text",
            {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            {
                "rope_theta": 1e6,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "rope_local_base_freq": 1e4,
            },
        ),
        (
            "qwen2_vl_text",
            {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        ),
    ],
)
def test_every_form_of_rope_is_said_where_transformers_4_looks(
    model_type: str, rope: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert older_rope(rope, model_type) == expected


def test_a_language_model_inside_another_is_said_in_both_forms_too() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    text = {"model_type": "qwen2", "rope_parameters": rope, "tie_word_embeddings": True}
    found = portable_config({"model_type": "some_vl", "text_config": text}, {"text_config": text}, "bfloat16")
    assert found["text_config"].items() >= {"rope_theta": 1e6, "torch_dtype": "bfloat16"}.items()


def test_a_student_as_transformers_4_published_it_needs_no_other_form(tmp_path: Path, tiny_student: Path) -> None:
    config = {"rope_theta": 10000.0, "rope_parameters": None}
    tokenizer = {"tokenizer_class": "Qwen2Tokenizer", "backend": None}
    generation = {"do_sample": True, "temperature": 0.7}
    files: dict[str, Any] = {"config": config, "tokenizer_config": tokenizer, "generation_config": generation}
    student = student_like(tiny_student, tmp_path / "student", **files)
    assert readable_by_4(student, tmp_path / "other") == student
    student = student_like(tiny_student, tmp_path / "five", tokenizer_config={"extra_special_tokens": ["<|im_start|>"]})
    other = readable_by_4(student, tmp_path / "other")
    assert json.loads((other / "config.json").read_bytes())["rope_theta"] == 10000.0
    read = json.loads((other / "tokenizer_config.json").read_bytes())
    assert read["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (read["additional_special_tokens"], "extra_special_tokens" in read) == (["<|im_start|>"], False)
    assert (other / "model.safetensors").resolve() == student / "model.safetensors"


# --- read by transformers 4


@dataclass(frozen=True)
class Read:
    """A saved student, as transformers 4 and transformers 5 read it."""

    folder: Path
    four: dict[str, Any]
    five: dict[str, Any]

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_bytes())
        return found


@pytest.fixture(scope="session")
def python4() -> Path:
    """The python of transformers 4; without it the tests are skipped, but never where CI=true."""
    if not PYTHON4.is_file():
        missing = f"no {PYTHON4.relative_to(ROOT)}: 'make transformers4-env' makes it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return PYTHON4


def read_by_both(python4: Path, *folders: Path) -> list[Read]:
    from tests.older_reader import read

    messages = [{"role": "system", "content": "Think first."}, {"role": "user", "content": "1 + 1?"}]
    asked = {"messages": [messages, messages[1:]], "text": TEXT}
    script = [str(ROOT / "tests" / "older_reader.py"), json.dumps(asked)]
    done = subprocess.run([str(python4), *script, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    older = json.loads(done.stdout.splitlines()[-1])
    return [Read(folder, four, read(str(folder), asked)) for folder, four in zip(folders, older, strict=True)]


def assert_read_alike(read: Read, tolerance: float = TOLERANCE) -> None:
    four, five = read.four, read.five
    assert four["version"].startswith("4.57.")
    assert four["ids"] == five["ids"]
    assert four["prompts"] == five["prompts"]
    assert apart(four["logits"], five["logits"]) < tolerance
    for what in ("dtype", "tied", "missing"):
        assert four[what] == five[what]
    assert four["missing"] == []
    for name, token in four["special"].items():
        assert five["special"].get(name, token) == token
    for name in ("eos_token_id", "pad_token_id", "do_sample", "temperature"):
        assert four["generation"].get(name) in (five["generation"].get(name), 1.0)  # 1.0: a default of version 4


def apart(one: list[list[float]], other: list[list[float]]) -> float:
    """The largest difference of two logits."""
    pairs = zip(one, other, strict=True)
    return max(abs(a - b) for mine, yours in pairs for a, b in zip(mine, yours, strict=True))


def student_of(kind: str, tokenizer: Path, folder: Path, form: int) -> Path:
    """A small student of a real class, its config.json in the form of transformers 4 or of 5."""
    import transformers

    name, settings = KINDS[kind]
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("model.*", "config.json", "generation_*"))
    model_class = getattr(transformers, name)
    ids = {"vocab_size": 299, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None}
    transformers.set_seed(1)
    config = model_class.config_class(**SIZES | ids | settings)
    model = model_class(config)
    for parameter in model.parameters():
        parameter.data *= 3  # so that its logits are of some size and its attention looks somewhere
    model.save_pretrained(folder)
    if form == 4:
        older = {"model_type": config.model_type, "architectures": [name], **SIZES, **ids, **settings}
        (folder / "config.json").write_text(json.dumps(older | {"torch_dtype": "float32", "hidden_act": "silu"}))
        if kind == "gemma3_text":
            older["hidden_activation"] = "gelu_pytorch_tanh"
        if kind in ("phi", "gpt_neox"):
            (folder / "config.json").write_text(json.dumps(older | {"torch_dtype": "float32"}))
    return folder


@pytest.fixture(scope="module")
def read_kinds(
    tiny_student: Path, python4: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], tuple[Read, Read]]:
    """Each kind of student in both forms, trained; as it is read, and as it would be without its theta."""
    folders = {}
    for kind, form in product(KINDS, (4, 5)):
        folder = tmp_path_factory.mktemp("kind")
        result = trained(folder, student_of(kind, tiny_student, folder / "student", form))
        assert result.exit_code == 0, (kind, form, result.output)
        without = dict.fromkeys(("rope_theta", "rotary_emb_base", "rope_parameters"))
        folders[kind, form] = folder / "model", student_like(folder / "model", folder / "wrong", config=without)
    read = iter(read_by_both(python4, *(folder for pair in folders.values() for folder in pair)))
    return {name: (next(read), next(read)) for name in folders}


@pytest.mark.transformers4
@pytest.mark.parametrize("form", [4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_4_and_5_read_one_student(
    read_kinds: dict[tuple[str, int], tuple[Read, Read]], kind: str, form: int
) -> None:
    read, without_theta = read_kinds[kind, form]
    assert_read_alike(read)
    theta = KINDS[kind][1].get("rope_theta", KINDS[kind][1].get("rotary_emb_base"))
    rope = read.config()["rope_parameters"]
    assert theta == rope.get("full_attention", rope)["rope_theta"]
    assert theta in (read.config().get("rope_theta"), read.config().get("rotary_emb_base"))
    assert apart(without_theta.four["logits"], read.five["logits"]) > 10 * TOLERANCE, "theta was not to be seen"


@pytest.mark.transformers4
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_transformers_4_reads_a_published_qwen_in_bf16_with_its_own_tokens(
    tmp_path: Path, older_student: Path, python4: Path, kind: str
) -> None:
    bf16 = in_dtype(older_student, tmp_path / "bf16", "bfloat16")
    tokenizer = {"extra_special_tokens": ["<|im_start|>"], "add_bos_token": False}
    files: dict[str, Any] = {"tokenizer_config": tokenizer, "generation_config": REFUSED_BY_SAVE}
    student = student_like(bf16, tmp_path / "student", **files)
    result = trained(tmp_path, student, {"train.finetuning.kind": kind})
    assert result.exit_code == 0, result.output
    (read,) = read_by_both(python4, tmp_path / "model")
    assert_read_alike(read, tolerance=0.05)  # bf16 has 8 bits
    assert read.four["dtype"] == "bfloat16"
    assert read.four["tied"]
    assert read.four["special"]["additional_special_tokens"] == ["<|im_start|>"]
    assert read.four["generation"]["temperature"] == 0.6
    assert not read.four["generation"].get("do_sample")
    saved = json.loads((tmp_path / "model" / "tokenizer_config.json").read_bytes())
    assert saved["tokenizer_class"] == "Qwen2Tokenizer"


# --- a second round


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_trained_student_is_trained_again(tmp_path: Path, tiny_student: Path, kind: str) -> None:
    changes = {"train.finetuning.kind": kind}
    first = trained(tmp_path, tiny_student, changes, name="first")
    assert first.exit_code == 0, first.output
    again = trained(tmp_path, tmp_path / "first", changes, name="second")
    assert again.exit_code == 0, again.output
    one, two = (json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("first", "second"))
    assert two["first_loss"] < one["first_loss"]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
