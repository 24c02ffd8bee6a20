"""A choice holds what its kind reads and nothing else, ``run`` what some choice reads: told both ways in one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.lib.params import Params, ParamsError, load_params

ROOT = Path(__file__).resolve().parents[1]
ARTICLE, EMBEDDED = (ROOT / "profiles" / f"{name}.yaml" for name in ("article", "embedded"))


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., str]:
    """``said(ARTICLE, {"run.embedded": {…}})``: what is wrong with a profile after just these changes; None removes."""

    def say(profile: Path, changes: dict[str, Any]) -> str:
        params = YAML(typ="safe").load(profile.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
            if value is None:
                del section[name]
        path = tmp_path / "params.yaml"
        with path.open("w") as file:
            YAML(typ="safe").dump(params, file)
        with pytest.raises(ParamsError) as caught:
            load_params(path)
        text = str(caught.value)
        assert "\n" not in text
        return text.removeprefix(f"{path}: ").partition(" (and ")[0]

    return say


FOREIGN = [
    pytest.param(
        EMBEDDED,
        {"distill.teacher.base_url": "http://127.0.0.1:8000/v1"},
        "distill.teacher.base_url: kind embedded does not read it; kind openai_compatible does. "
        "Remove the key, or set kind: openai_compatible.",
        id="a teacher's address",
    ),
    pytest.param(
        ARTICLE,
        {"distill.teacher.slip_share": 0.3},
        "distill.teacher.slip_share: kind openai_compatible does not read it; kind embedded does. "
        "Remove the key, or set kind: embedded.",
        id="a teacher's slips",
    ),
    pytest.param(
        ARTICLE,
        {"filter.judge.faults": {}},
        "filter.judge.faults: kind openai_compatible does not read it; kind embedded does. "
        "Remove the key, or set kind: embedded.",
        id="a judge's faults",
    ),
    pytest.param(
        EMBEDDED,
        {"filter.judge": {"kind": "embedded"}},
        "filter.judge: strategy rule does not read it; strategy rule_audited, judge, both, rule_then_judge or "
        "judge_rubric does. Remove the key, or set strategy: rule_audited, judge, both, rule_then_judge or "
        "judge_rubric.",
        id="a judge of the rule alone",
    ),
    pytest.param(
        ARTICLE,
        {"filter.audit_share": 0.1},
        "filter.audit_share: strategy judge does not read it; strategy rule_audited or rule_then_judge does. "
        "Remove the key, or set strategy: rule_audited or rule_then_judge.",
        id="an audit of a judge",
    ),
    pytest.param(
        ARTICLE,
        {"collect.source.seed": 3},
        "collect.source.seed: kind preset does not read it; kind chain_sum does. "
        "Remove the key, or set kind: chain_sum.",
        id="a seed of GSM8K",
    ),
    pytest.param(
        EMBEDDED,
        {"train.student.revision": "v1"},
        "train.student.revision: kind package does not read it; kind modelscope, modelers or hub does. "
        "Remove the key, or set kind: modelscope, modelers or hub.",
        id="a package's revision",
    ),
    pytest.param(
        ARTICLE,
        {"train.trainer.packing": True},
        "train.trainer.packing: kind openmind does not read it; kind trl does. Remove the key, or set kind: trl.",
        id="openMind's packing",
    ),
    pytest.param(
        ARTICLE,
        {"train.finetuning.r": 16},
        "train.finetuning.r: kind full does not read it; kind lora does. Remove the key, or set kind: lora.",
        id="a rank of all weights",
    ),
    pytest.param(
        ARTICLE,
        {"run.embedded": {"latency_s": 0.0, "port": 0}},
        "run.embedded: only distill.teacher, filter.judge or prefer.judge with kind: embedded reads it. "
        "Remove the key.",
        id="an embedded server without an embedded model",
    ),
    pytest.param(
        ARTICLE,
        {"run.served": {"base_url": "http://127.0.0.1:8000/v1", "model": "{arm}", "api_key_variable": "KEY"}},
        "run.served: only evaluate.backend with kind: local-completions or local-chat-completions reads it. "
        "Remove the key.",
        id="served models that nobody asks",
    ),
    pytest.param(
        EMBEDDED,
        {"run.api_key_variables": {"teacher": "API_KEY"}},
        "run.api_key_variables.teacher: only distill.teacher with kind: openai_compatible reads it. Remove the key.",
        id="a key of the embedded teacher",
    ),
    pytest.param(
        EMBEDDED,
        {"run.api_key_variables": {}},
        "run.api_key_variables: empty. Remove it.",
        id="no key at all",
    ),
    pytest.param(
        EMBEDDED,
        {"run.budget": 3.0},
        "run.budget: needs the currency of run.prices, which is absent. Write prices, or remove the budget.",
        id="a budget without prices",
    ),
]
LACKING = [
    pytest.param(
        EMBEDDED,
        {"run.embedded": None},
        "run.embedded: missing, and distill.teacher, filter.judge or prefer.judge with kind: embedded reads it. "
        "Write it, for example {latency_s: 0.05, port: 0}.",
        id="an embedded model without its server",
    ),
    pytest.param(
        ARTICLE,
        {"run.api_key_variables": {"teacher": "API_KEY"}},
        "run.api_key_variables.judge: missing, and filter.judge with kind: openai_compatible reads it. "
        "Write it, for example API_KEY.",
        id="a judge without a key",
    ),
    pytest.param(
        ARTICLE,
        {"run.api_key_variables": None},
        "run.api_key_variables.teacher: missing, and distill.teacher with kind: openai_compatible reads it. "
        "Write it, for example API_KEY.",
        id="a teacher without a key",
    ),
    pytest.param(
        EMBEDDED,
        {"evaluate.backend.kind": "local-completions"},
        "run.served: missing, and evaluate.backend with kind: local-completions or local-chat-completions reads it. "
        'Write it, for example {base_url: http://127.0.0.1:8000/v1, model: "{arm}", api_key_variable: OPENAI_API_KEY}.',
        id="served models at no address",
    ),
    pytest.param(
        ARTICLE,
        {"run.budget": None},
        "run.budget: missing beside run.prices. Write budget: null for none.",
        id="prices without a budget",
    ),
    pytest.param(
        EMBEDDED,
        {"filter.strategy": "judge"},
        "filter.judge: missing. The file must have every value; 'git diff' shows what was removed.",
        id="a strategy without its judge",
    ),
    pytest.param(
        ARTICLE,
        {"train.trainer.extra": None},
        "train.trainer.extra: missing. The file must have every value; 'git diff' shows what was removed.",
        id="a key of the chosen kind",
    ),
]


@pytest.mark.parametrize(("profile", "changes", "expected"), FOREIGN)
def test_a_key_that_the_chosen_kind_does_not_read_is_refused_with_the_kind_that_would(
    profile: Path, changes: dict[str, Any], expected: str, said: Callable[..., str]
) -> None:
    assert said(profile, changes) == expected


@pytest.mark.parametrize(("profile", "changes", "expected"), LACKING)
def test_a_key_that_the_chosen_kind_reads_is_missed(
    profile: Path, changes: dict[str, Any], expected: str, said: Callable[..., str]
) -> None:
    assert said(profile, changes) == expected


@pytest.mark.parametrize("profile", [ARTICLE, EMBEDDED], ids=["article", "embedded"])
def test_params_go_to_another_process_and_back(profile: Path) -> None:
    params = load_params(profile)
    assert Params.model_validate_json(params.model_dump_json()) == params


def test_a_misspelt_key_of_a_choice_is_told_with_the_nearest_of_its_kind(said: Callable[..., str]) -> None:
    text = said(ARTICLE, {"distill.teacher.temprature": 0.6})
    assert text == "distill.teacher.temprature: unknown key. Did you mean 'temperature'?"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("distill.teacher.extra_body", {"a": {"b": float("inf")}}, "distill.teacher.extra_body.a.b: "),
        ("distill.teacher.extra_body", {"a": [1, float("nan")]}, "distill.teacher.extra_body.a.1: "),
        ("filter.judge.model", 7, "filter.judge.model: Input should be a valid string, not 7."),
        ("train.trainer.logging_steps", "often", "train.trainer.logging_steps: Input should be a valid integer"),
        ("evaluate.backend.dtype", "int8", "evaluate.backend.dtype: Input should be 'float32', "),
        ("evaluate.backend.args", {"dtype": "auto"}, "evaluate.backend: args contains 'dtype', which other keys set."),
    ],
)
def test_the_key_of_an_error_is_that_of_the_file_without_the_tags_of_unions(
    key: str, value: Any, expected: str, said: Callable[..., str]
) -> None:
    assert said(ARTICLE, {key: value}).startswith(expected)


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh-CN.md", "docs/teacher.md", "docs/filter.md", "docs/your-data.md", "docs/traces.md"]
)
def test_what_a_page_says_to_write_is_valid_in_the_committed_params(page: str, tmp_path: Path) -> None:
    yaml = YAML(typ="safe")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    examples = [yaml.load(each) for each in blocks if "kind: " in each]
    assert examples
    for block in examples:
        params = yaml.load(EMBEDDED.read_text(encoding="utf-8"))
        for name, section in block.items():
            params[name] = section if isinstance(section, list) else params[name] | section
        if "distill" in block:
            del params["run"]["embedded"]
        with (tmp_path / "params.yaml").open("w") as file:
            yaml.dump(params, file)
        load_params(tmp_path / "params.yaml")
