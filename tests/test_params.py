"""params.yaml: the committed one is whole, and each way of being wrong is told in one line that names the key."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages import collect, convert, filter
from stages.lib.params import Params, ParamsError, Section, load_params, prompt_text, prompts

ROOT = Path(__file__).resolve().parents[1]

# the article's own prompts, to the byte: a changed letter is another experiment
ARTICLE_PROMPTS = {
    "father": "ddc4d27b2809b39d19beebb90c007c13264281201a832edf8d766a710e14f81f",
    "strict_teacher": "aba6b6b9514f9b7ce3fd423e512a15117ecde74e5c16632dc228c06dff7f030f",
    "still2": "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d",
}


def complaint(path: Path) -> str:
    """What load_params says of a file, without the file's name."""
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """params.yaml with the first occurrence of a text replaced."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_committed_params_are_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.collect.source.kind == "chain_sum"
    assert set(params.arms) == {"unfiltered", "filtered"}


# what is not there where nothing reads it, and shapes no result: the rest of the schema has no defaults
ABSENT = {f"Run.{name}" for name in ("api_key_variables", "batch", "embedded", "endpoints", "engine", "served")}
ABSENT |= {f"Run.{name}" for name in ("prices", "budget")} | {
    f"Batches.{name}" for name in ("teacher", "judge", "prefer")
}
# and the columns that a table does not have
ABSENT |= {f"Columns.{name}" for name in ("question", "answer", "solution", "id", "history", "system")}
ABSENT |= {f"_Columns.{name}" for name in ("answer", "solution", "id", "model")}
ABSENT |= {f"ApiKeyVariables.{name}" for name in ("teacher", "judge", "prefer", "score", "student")}
ABSENT |= {f"Endpoints.{name}" for name in ("teacher", "judge", "prefer", "student")}


def test_the_schema_has_no_defaults_so_that_dvc_sees_every_value() -> None:
    sections: list[type[Section]] = [Section]
    for section in sections:
        sections += section.__subclasses__()
    fields = {
        f"{each.__name__}.{name}": field
        for each in sections
        for name, field in each.model_fields.items()
        if name in each.__annotations__  # not the inherited ones
    }
    optional = {name for name, field in fields.items() if not field.is_required()}
    assert any(section is Params for section in sections)
    assert optional == ABSENT
    assert {fields[name].default for name in optional} == {None}


SIZE = "collect.train_size"
SERVED = {"distill.teacher.kind": "openai_compatible"}
BODY = "distill.teacher.extra_body"
S1K = {
    "source": {"kind": "preset", "name": "s1k", "origin": "hub", "path": None, "split": "train"},
    "where": {},
    "first": None,
    "samples_per_question": None,
}
COLUMNS: dict[str, Any] = {"form": "tagged", "question": "q", "text": "t", "correct": []}
COLUMNS |= {"answer": "a", "solution": None, "id": None, "model": None}
WRONG_VALUES = [
    pytest.param(
        {"collect.train_size": "128"}, "collect.train_size: Input should be a valid integer, not '128'", id="text"
    ),
    pytest.param(
        {"collect.train_size": 128.0}, "collect.train_size: Input should be a valid integer, not 128.0", id="float"
    ),
    pytest.param(
        {"collect.train_size": True}, "collect.train_size: Input should be a valid integer, not True", id="bool"
    ),
    pytest.param(
        {"collect.train_size": None}, "collect.train_size: Input should be a valid integer, not None", id="null"
    ),
    pytest.param(
        {"collect.train_size": -1}, "collect.train_size: Input should be greater than or equal to 1", id="negative"
    ),
    pytest.param(
        {"collect.train_size": 0}, "collect.train_size: Input should be greater than or equal to 1", id="zero"
    ),
    pytest.param({"collect.heldout_size": -1}, "collect.heldout_size: Input should be greater", id="heldout"),
    pytest.param(
        {"collect.contamination.ngram": 0}, "collect.contamination.ngram: Input should be greater", id="ngram"
    ),
    pytest.param(
        {"collect.contamination.benchmarks.mmlu": ""}, "collect.contamination.benchmarks.mmlu: String", id="no path"
    ),
    pytest.param(SERVED | {BODY: {"n": 2}}, "distill.teacher: extra_body contains 'n'", id="one choice"),
    pytest.param(
        SERVED | {BODY: {"until": float("inf")}},
        "distill.teacher.extra_body.until: ",
        id="no JSON",
    ),
    pytest.param(
        SERVED | {BODY: {"model": "x"}},
        "distill.teacher: extra_body contains 'model'",
        id="no extra",
    ),
    pytest.param({"filter.control_seed": -3}, "filter.control_seed: Input should be greater", id="seed"),
    pytest.param({"distill.max_failed_share": 1.5}, "distill.max_failed_share: Input should be less", id="share"),
    pytest.param({"compare.confidence": 95}, "compare.confidence: Input should be less than 1", id="confidence"),
    pytest.param({"arms.filtered.learning_rate": "fast"}, "arms.filtered.learning_rate: Input", id="rate"),
    pytest.param({"arms.filtered.learning_rate": 0.0}, "arms.filtered.learning_rate: Input", id="rate of zero"),
    pytest.param({"arms.filtered.learning_rate": float("inf")}, "arms.filtered.learning_rate: Input", id="infinity"),
    pytest.param({"arms.filtered.learning_rate": float("nan")}, "arms.filtered.learning_rate: Input", id="no number"),
    pytest.param(
        {"collect.source.kind": "gsm9k"},
        "collect.source.kind: 'gsm9k' is not one of chain_sum, file, hub, modelscope, preset",
        id="source",
    ),
    pytest.param(
        {"collect.source": "chain_sum"},
        "collect.source: Input should be a valid dictionary, {kind: chain_sum | file | hub | modelscope | preset, …}",
        id="a kind alone",
    ),
    pytest.param(
        {"collect.source": {"seed": 3}}, "collect.source.kind: missing. It is one of chain_sum, file,", id="no kind"
    ),
    pytest.param({"distill.prompt": "../secret"}, "distill.prompt: String should match pattern", id="path as prompt"),
    pytest.param({"convert.markers.end_of_thought": ""}, "convert.markers.end_of_thought: String", id="empty marker"),
    pytest.param({"convert.markers.end_of_thought": "<think>"}, "convert.markers: one marker is", id="equal markers"),
    pytest.param({"convert.markers.end_of_thought": "think"}, "convert.markers: one marker is", id="marker in marker"),
    pytest.param({"convert.tags.role_tag": ""}, "convert.tags.role_tag: String should have at least", id="empty tag"),
    pytest.param({"convert.tags.role_tag": "value"}, "convert.tags: role_tag and content_tag", id="one key for two"),
    pytest.param({"convert.tags.user_tag": "assistant"}, "convert.tags: user_tag, assistant_tag and", id="one speaker"),
    pytest.param(
        {"traces.s1k": S1K | {"source": {"kind": "file", "path": "x", "columns": COLUMNS, "gold": None, "model": "m"}}},
        "traces.s1k.source: gold and columns.answer need each other",
        id="a column of gold answers, and no form",
    ),
    pytest.param(
        {
            "traces.s1k": S1K
            | {"source": {"kind": "file", "path": "x", "columns": COLUMNS | {"form": "list"}, "gold": "plain"}}
        },
        "traces.s1k.source.columns.form: 'list' is not one of separate, tagged, messages.",
        id="a form of traces",
    ),
    pytest.param({"traces.s1k": S1K | {"first": 0}}, "traces.s1k.first: Input", id="no traces"),
    pytest.param(
        {"traces.s1k": S1K | {"source": {"kind": "ftp", "path": "x"}}},
        "traces.s1k.source.kind: 'ftp' is not one of file, hub, modelscope, preset.",
        id="traces from nowhere",
    ),
    pytest.param({"compare.interval": "wilson"}, "compare.interval: Input should be 'pseudo_pairs'", id="interval"),
    pytest.param({"compare.pairs": [["filtered"]]}, "compare.pairs.0: List should have at least 2", id="half a pair"),
    pytest.param({"arms": None}, "arms: Input should be a valid dictionary, not None", id="a section without keys"),
    pytest.param(
        {"filter.strategy": "jury"}, "filter.strategy: 'jury' is not one of rule, rule_audited, judge", id="strategy"
    ),
    pytest.param(
        {"filter.strategy": "judge", "filter.judge": None}, "filter.judge: Input should be a valid dict", id="no judge"
    ),
    pytest.param(
        {"filter.strategy": "rule_then_judge", "filter.audit_share": 1.5},
        "filter.audit_share: Input should be less",
        id="audit",
    ),
    pytest.param(
        {"filter.strategy": "rule_audited", "filter.audit_share": 0.0},
        "filter.audit_share: Input should be greater than 0",
        id="an audit of nothing",
    ),
    pytest.param({"filter.select": "best"}, "filter.select: Input should be 'first_correct'", id="selection"),
    pytest.param({"filter.on_unsure": "ask"}, "filter.on_unsure: Input should be 'reject' or 'keep'", id="unsure"),
    pytest.param(
        {"filter.strategy": "both", "filter.judge.kind": "openai_compatible", "filter.judge.top_p": 2.0},
        "filter.judge.top_p: Input should be less",
        id="a judge's value",
    ),
    pytest.param(
        {"train.finetuning.target_modules": 7},
        "train.finetuning.target_modules: Input should be a valid string, not 7",
        id="a union of types",
    ),
    pytest.param({"run.checkpoint_steps": -1}, "run.checkpoint_steps: Input should be greater", id="steps"),
    pytest.param({"run.prices": None}, "run.prices: null, but a key that nothing reads must be", id="null prices"),
    pytest.param(
        {"evaluate.benchmarks": ["gsm9k"]},
        "evaluate.benchmarks.0: no benchmark 'gsm9k'. Known: heldout, ",
        id="benchmark",
    ),
    pytest.param({"evaluate.benchmarks": ["heldout"] * 2}, "evaluate.benchmarks: 'heldout' is listed", id="twice"),
    pytest.param({"evaluate.benchmarks": ["lm-eval:"]}, "evaluate.benchmarks.0: no benchmark 'lm-eval:'", id="no task"),
    pytest.param({"evaluate.num_fewshot": {"heldout": 2}}, "evaluate: num_fewshot: heldout has no examples", id="own"),
    pytest.param({"evaluate.num_fewshot": {"gsm8k": 0}}, "evaluate: num_fewshot has 'gsm8k'", id="few-shot of none"),
    pytest.param({"evaluate.backend.args": {"dtype": "auto"}}, "evaluate.backend: args contains", id="twice set"),
    pytest.param(
        {"evaluate.backend.kind": "local-chat-completions", "evaluate.benchmarks": ["mmlu"]},
        "evaluate: mmlu needs log-likelihoods, which local-chat-completions does not give",
        id="no likelihoods",
    ),
    pytest.param(
        {"evaluate.backend.kind": "local-chat-completions", "evaluate.chat_template": False},
        "evaluate: local-chat-completions always asks through a chat template",
        id="chat without template",
    ),
    pytest.param({"evaluate.benchmarks": []}, "evaluate.benchmarks: List should have at least 1", id="no benchmark"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG_VALUES)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(
    changes: dict[str, Any], expected: str, project_params: Callable[..., Path]
) -> None:
    assert complaint(project_params(changes)).startswith(f": {expected}")


POLISHED: dict[str, Any] = {
    "dataset": "filtered",
    "num_train_epochs": 1.0,
    "max_steps": None,
    "learning_rate": 0.0002,
    "cutoff_len": 512,
    "start_from": "filtered",
    "teacher": {"source": "unfiltered", "worked_examples": 0},
    "max_new_tokens": 96,
    "temperature": 1.0,
    "top_k": 0,
    "beta": 1.0,
}
TEACHER = {"kind": "hub", "name": "Qwen/Qwen2.5-32B-Instruct", "revision": None}


def polished(**changes: Any) -> dict[str, Any]:
    return {"on_policy.polished": POLISHED | changes}


WRONG_NAMES = [
    pytest.param(polished(dataset="filterd"), "on_policy.polished.dataset: no dataset 'filterd'", "filtered"),
    pytest.param(polished(start_from="filterd"), "on_policy.polished.start_from: no arm 'filterd'", "filtered"),
    pytest.param(
        polished(teacher={"source": "unfilterd", "worked_examples": 0}),
        "on_policy.polished.teacher.source: no arm or teacher 'unfilterd'",
        "unfiltered",
    ),
    pytest.param({"filter_traces": ["s1"], "traces.s1k": S1K}, "filter_traces: no traces 's1'", "s1k"),
    pytest.param({"arms.filtered.dataset": "filterd"}, "arms.filtered.dataset: no dataset 'filterd'", "filtered"),
    pytest.param({"compare.pairs": [["filterd", "base"]]}, "compare.pairs: no arm 'filterd'", "filtered"),
    pytest.param({"compare.pairs": [["filtered", "bas"]]}, "compare.pairs: no arm 'bas'", "base"),
    pytest.param({"distill.prompt": "fater"}, "distill.prompt: no file stages/prompts/fater.txt", "father"),
    pytest.param(
        {"filter.strategy": "judge", "filter.judge.prompt": "strict"},
        "filter.judge.prompt: no file stages/prompts/judge/strict.txt",
        "strict_teacher",
    ),
    pytest.param({"convert.system_prompt": "stil2"}, "convert.system_prompt: no file stages/prompts/stil2", "still2"),
]


@pytest.mark.parametrize(("changes", "expected", "nearest"), WRONG_NAMES)
def test_a_name_of_nothing_is_told_with_the_nearest_one(
    changes: dict[str, Any], expected: str, nearest: str, project_params: Callable[..., Path]
) -> None:
    text = complaint(project_params(changes))
    assert text.startswith(f": {expected}")
    assert text.endswith(f"Did you mean '{nearest}'?")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"filter_traces": ["s1k"] * 2, "traces.s1k": S1K}, "filter_traces: 's1k' is listed twice."),
        ({"on_policy.filtered": POLISHED}, "on_policy.filtered: models/filtered is the folder of an arm."),
        ({"on_policy.base": POLISHED}, "on_policy.base: 'base' is the untrained student."),
        ({"teachers.filtered": TEACHER}, "teachers.filtered: models/filtered is the folder of an arm."),
        ({"teachers.big": TEACHER}, "teachers.big: no arm of on_policy has it as teacher.source."),
        (
            polished(teacher={"source": "filtered", "worked_examples": 0}),
            "on_policy.polished.teacher.source: 'filtered' is the student itself, so there is nothing to learn.",
        ),
        (polished(cutoff_len=96), "on_policy.polished: max_new_tokens: 96 leaves no token of cutoff_len: 96"),
        ({"traces.control": S1K}, "traces.control: data/control.jsonl is another file of the pipeline."),
        (
            {"traces.a": S1K, "traces.a_filtered": S1K},
            "traces.a_filtered: data/a_filtered.jsonl is another file of the pipeline.",
        ),
        (
            {
                "filter.strategy": "majority",
                "filter.min_share": 0.5,
                "distill.samples_per_question": 4,
                "traces.s1k": S1K | {"samples_per_question": 1},
                "filter_traces": ["s1k"],
            },
            "filter_traces: majority compares several answers to a question, and traces.s1k keeps one.",
        ),
    ],
)
def test_a_name_that_is_taken_already_is_refused(
    changes: dict[str, Any], expected: str, project_params: Callable[..., Path]
) -> None:
    assert complaint(project_params(changes)).startswith(f": {expected}")


def test_a_name_that_resembles_nothing_is_told_with_all_that_there_are(project_params: Callable[..., Path]) -> None:
    text = complaint(project_params({"distill.prompt": "zzz"}))
    assert re.search(r"Known: brief, father, .*still2\.$", text)


MISSPELT = [
    pytest.param("learning_rate: 0.001", "lerning_rate: 0.001", "arms.unfiltered.lerning_rate", "learning_rate"),
    pytest.param("batch_size: 50", "batchsize: 50", "evaluate.backend.batchsize", "batch_size"),
    pytest.param("    slip_share:", "    slip_shares:", "distill.teacher.slip_shares", "slip_share"),
    pytest.param(" seed: 3000000", " sede: 3000000", "collect.source.sede", "seed"),
    pytest.param("faults: {}", "faults: {rate_limits: 0.1}", "distill.teacher.faults.rate_limits", "rate_limit"),
    pytest.param("benchmarks: {}", "benchmarks: {gsm9k: x}", "collect.contamination.benchmarks.gsm9k", "gsm8k"),
    pytest.param("\nfilter:\n", "\nfiltr:\n", "filtr", "filter"),
    pytest.param("{rows: data/control", "{row: data/control", "datasets.control.row", "rows"),
]


@pytest.mark.parametrize(("old", "new", "key", "nearest"), MISSPELT)
def test_a_misspelt_key_is_told_with_the_nearest_one(
    old: str, new: str, key: str, nearest: str, tmp_path: Path
) -> None:
    text = complaint(edited(tmp_path, old, new))
    assert text.startswith(f": {key}: unknown key. Did you mean '{nearest}'?")


def test_a_key_that_nobody_knows_is_refused(project_params: Callable[..., Path]) -> None:
    assert complaint(project_params({"filter.jury": "gpt"})).startswith(": filter.jury: unknown key. ")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("    slip_share: 0.3 ", "distill.teacher.slip_share"),
        ("  control_seed: 3\n", "filter.control_seed"),
        (", confidence: 0.95", "compare.confidence"),
    ],
)
def test_a_missing_key_is_named(line: str, key: str, tmp_path: Path) -> None:
    assert complaint(edited(tmp_path, line, "")).startswith(f": {key}: missing. ")


def test_all_missing_keys_are_named(tmp_path: Path) -> None:
    path = edited(tmp_path, "  control_seed: 3\n", "")
    path.write_text(path.read_text().replace(", confidence: 0.95", ""))
    assert complaint(path).startswith(": filter.control_seed, compare.confidence: missing. ")


@pytest.mark.parametrize(
    "address", ["", "localhost:8000", "http://me:secret@127.0.0.1/v1", "http://127.0.0.1/v1?key=1"]
)
@pytest.mark.parametrize("key", ["distill.teacher", "filter.judge"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(
    key: str, address: str, project_params: Callable[..., Path]
) -> None:
    changes = {"filter.strategy": "judge", f"{key}.kind": "openai_compatible", f"{key}.base_url": address}
    assert complaint(project_params(changes)).startswith(f": {key}.base_url: ")


@pytest.mark.parametrize("strategy", ["rule", "judge", "rule_then_judge", "both"])
def test_every_strategy_of_the_filter_is_built(strategy: str, project_params: Callable[..., Path]) -> None:
    assert load_params(project_params({"filter.strategy": strategy})).filter.strategy == strategy


def test_an_arm_may_not_be_called_base(project_params: Callable[..., Path]) -> None:
    arm = {
        "dataset": "filtered",
        "num_train_epochs": 1.0,
        "max_steps": None,
        "learning_rate": 0.1,
        "cutoff_len": 8,
        "alpha": 0.0,
    }
    assert complaint(project_params({"arms.base": arm})).startswith(": arms.base: 'base' is the untrained student")


def test_a_minimum_above_its_maximum_is_refused(project_params: Callable[..., Path]) -> None:
    text = complaint(project_params({"collect.source.min_terms": 9}))
    assert text == ": collect.source: a minimum is above its maximum. Swap them."


BROKEN_YAML = [
    pytest.param("  train_size: 192", "\ttrain_size: 192", 6, id="a tab"),
    pytest.param("  train_size: 192", "  train_size: 9\n  train_size: 192", 7, id="a key twice"),
    pytest.param("  train_size: 192", "  train_size: 192: 256", 6, id="two colons"),
]


@pytest.mark.parametrize(("old", "new", "line"), BROKEN_YAML)
def test_broken_yaml_is_named_by_its_line(old: str, new: str, line: int, tmp_path: Path) -> None:
    assert complaint(edited(tmp_path, old, new)).startswith(f":{line}: not YAML (")


@pytest.mark.parametrize("content", [b"", b"- 1\n- 2\n", b"only text\n"], ids=["empty", "a list", "a text"])
def test_a_file_that_holds_no_mapping_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert complaint(path).startswith(": the file: Input should be a valid dictionary")


def test_params_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("# 参数\n".encode("gb18030"))
    assert complaint(path) == ": not UTF-8 (byte 2). Save the file as UTF-8."


def test_missing_params_are_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "params.yaml").startswith(": no such file. ")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001"])
def test_1e_3_is_a_number_as_it_is_for_dvc(text: str, tmp_path: Path) -> None:
    path = edited(tmp_path, "learning_rate: 0.001", f"learning_rate: {text}")
    assert load_params(path).arms["unfiltered"].learning_rate == 0.001


@pytest.mark.parametrize("form", [b"\xef\xbb\xbf%s", b"%s"], ids=["a byte order mark", "CRLF line ends"])
def test_params_saved_by_a_windows_editor_read_the_same(form: bytes, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(form % (ROOT / "params.yaml").read_bytes().replace(b"\n", b"\r\n"))
    assert load_params(path) == load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("stage", [collect, filter, convert], ids=lambda stage: stage.__name__.rpartition(".")[2])
def test_every_stage_checks_the_whole_file_before_it_works(
    stage: Any, tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    path = project_params({"report.sample": 3})
    options = [option.opts[0] for option in stage.main.params if option.required]
    arguments = [part for name in options for part in (name, tmp_path / name.strip("-"))]
    line = refuses(stage.main, *arguments, "--params", path)
    assert line.startswith(f"{path}: report.sample: unknown key. Did you mean 'samples'?")
    assert list(tmp_path.iterdir()) == [path]


def test_a_stage_takes_the_params_of_the_folder_that_it_is_run_in(
    project_params: Callable[..., Path],
    distilled_file: Callable[..., Path],
    runs: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = distilled_file({})
    monkeypatch.chdir(project_params({"convert.system_prompt": "step_by_step"}).parent)
    outputs = ("--out", "dataset", "--metrics", "metrics.json", "--lengths", "lengths.csv")
    runs(convert.main, "--rows", rows, *outputs)
    assert prompt_text("step_by_step").split("\n")[0] in Path("dataset/dataset.json").read_text()


@pytest.mark.parametrize(("name", "digest"), ARTICLE_PROMPTS.items())
def test_the_articles_prompts_are_its_own_to_the_byte(name: str, digest: str) -> None:
    (path,) = (ROOT / "stages" / "prompts").rglob(f"{name}.txt")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert hashlib.sha256(prompt_text(name).encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("content", "text"), [(b"one\r\ntwo\n", "one\r\ntwo\n"), ("\n问题：{question}\n".encode(), "\n问题：{question}\n")]
)
def test_a_prompt_reads_to_the_byte(content: bytes, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "PROMPTS", tmp_path)
    (tmp_path / "own.txt").write_bytes(content)
    assert prompt_text("own") == text


def test_a_prompt_that_is_not_utf8_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "PROMPTS", tmp_path)
    (tmp_path / "own.txt").write_bytes("问题".encode("gb18030"))
    with pytest.raises(ParamsError, match=r"own\.txt: not UTF-8 .*Save the prompt as UTF-8"):
        prompt_text("own")
