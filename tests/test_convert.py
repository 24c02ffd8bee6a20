"""convert: the article's ShareGPT file, to the byte, a dataset that real readers read, and its length in tokens."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from stages.convert import CUTOFFS, Dropped, length_curve, length_metrics, main, reason_to_drop, refuse_control_tokens
from stages.lib.chat_template import control_tokens
from stages.lib.params import Markers, Tags, prompt_text
from stages.lib.rows import DataError, read_rows
from tests.public_data import ARTICLE as ARTICLE_FILES

ROOT = Path(__file__).resolve().parents[1]

TEXTS = (
    {"reasoning": "先想一想。\n\n2 加 3 是 5。", "response": "答案是 **5**。\n", "question": "2 + 3 = ?\u2028“几”？"},
    {"reasoning": "\\n is no line end", "response": "5 😀 \\boxed{5}", "question": '<b>"2 + 3"</b>\t& more'},
    {"reasoning": " spaces stay \n", "response": "\nThe answer is 5.", "question": "What is 2 + 3?"},
)

# what the article's transfer2openmind.py made of these texts
ARTICLES_DATASET = ARTICLE_FILES / "cot_dataset_openmind.json"

# the article's markers, and its answer to ensure_ascii; the embedded profile's markers are shorter
ARTICLE = {
    "convert.markers.begin_of_thought": "<|begin_of_thought|>",
    "convert.markers.end_of_thought": "<|end_of_thought|>",
    "convert.markers.begin_of_solution": "<|begin_of_solution|>",
    "convert.markers.end_of_solution": "<|end_of_solution|>",
    "convert.ascii": True,
}

MARKERS = Markers(
    begin_of_thought="<think>", end_of_thought="</think>", begin_of_solution="<answer>", end_of_solution="</answer>"
)
TAGS = Tags(role_tag="from", content_tag="value", user_tag="user", assistant_tag="assistant", system_tag="system")
ANSWER = "<think>\n\nt</think>\n\n<answer>\n\n5</answer>"


def arguments(rows_path: Path, params: Path, name: str = "unfiltered") -> list[object]:
    folder = rows_path.parent
    outs = ["--out", folder / name, "--metrics", folder / "metrics.json", "--lengths", folder / "lengths.csv"]
    return ["--rows", rows_path, *outs, "--params", params]


@pytest.fixture
def converted(
    distilled_file: Callable[..., Path], tiny_params: Callable[..., Path], runs: Callable[..., Result]
) -> Callable[..., Path]:
    """``converted(*rows, **{"convert.ascii": False})``: the dataset's folder."""

    def run(*changes: dict[str, Any], name: str = "unfiltered", **params: object) -> Path:
        rows = distilled_file(*changes)
        runs(main, *arguments(rows, tiny_params(ARTICLE | params), name))
        return rows.parent / name

    return run


def metrics_beside(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.parent / "metrics.json").read_bytes())
    return found


def test_the_dataset_is_what_the_articles_own_script_makes(converted: Callable[..., Path]) -> None:
    written = (converted(*TEXTS, **{"convert.system_prompt": "still2"}) / "unfiltered.json").read_bytes()
    expected = ARTICLES_DATASET.read_bytes()
    assert len(json.loads(expected)) == len(TEXTS)
    assert json.loads(written) == json.loads(expected)
    assert written == expected


def test_without_ascii_it_is_the_same_dataset(converted: Callable[..., Path]) -> None:
    params = {"convert.system_prompt": "still2", "convert.ascii": False}
    written = (converted(*TEXTS, **params) / "unfiltered.json").read_bytes()
    expected = ARTICLES_DATASET.read_bytes()
    assert json.loads(written) == json.loads(expected)
    assert written != expected


def test_the_file_has_the_articles_indents_markers_and_line_ends(converted: Callable[..., Path]) -> None:
    folder = converted({"reasoning": "2 加 3。", "response": "The answer is 5."})
    system = json.dumps(prompt_text("brief"))
    assert (folder / "unfiltered.json").read_text(encoding="ascii") == (
        "[\n    {\n"
        f'        "system": {system},\n'
        '        "conversations": [\n'
        '            {\n                "from": "user",\n                "value": "What is 2 + 3?"\n            },\n'
        '            {\n                "from": "assistant",\n                "value": '
        r'"<|begin_of_thought|>\n\n2 \u52a0 3\u3002<|end_of_thought|>\n\n'
        r'<|begin_of_solution|>\n\nThe answer is 5.<|end_of_solution|>"'
        "\n            }\n        ]\n    }\n]"
    )


def test_the_same_rows_give_the_same_bytes(converted: Callable[..., Path]) -> None:
    first = {path.name: path.read_bytes() for path in converted(*TEXTS).iterdir()}
    second = {path.name: path.read_bytes() for path in converted(*TEXTS).iterdir()}
    assert first == second
    assert sorted(first) == ["dataset_info.json", "dropped.jsonl", "unfiltered.json"]


def test_non_ascii_is_escaped_as_in_the_article(converted: Callable[..., Path]) -> None:
    written = (converted(*TEXTS, **{"convert.ascii": True}) / "unfiltered.json").read_bytes()
    assert written.isascii()
    assert b"\\u5148\\u60f3" in written


def test_non_ascii_is_written_as_it_is_where_params_say_so(converted: Callable[..., Path]) -> None:
    escaped = json.loads((converted(*TEXTS) / "unfiltered.json").read_bytes())
    written = (converted(*TEXTS, **{"convert.ascii": False}) / "unfiltered.json").read_bytes()
    assert "先想一想".encode() in written
    assert b"\\u5148" not in written
    assert json.loads(written) == escaped


def test_other_markers_are_taken_from_params(converted: Callable[..., Path]) -> None:
    markers = {f"convert.markers.{name}": text for name, text in MARKERS.model_dump().items()}
    folder = converted({"reasoning": "r", "response": "5"}, **markers)
    (sample,) = json.loads((folder / "unfiltered.json").read_bytes())
    assert sample["conversations"][1]["value"] == "<think>\n\nr</think>\n\n<answer>\n\n5</answer>"


def test_other_tags_are_taken_from_params_into_the_file_and_its_description(converted: Callable[..., Path]) -> None:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "human", "assistant_tag": "gpt"}
    folder = converted({}, **{f"convert.tags.{name}": text for name, text in tags.items()})
    (sample,) = json.loads((folder / "unfiltered.json").read_bytes())
    user, assistant = sample["conversations"]
    assert user == {"role": "human", "content": "What is 2 + 3?"}
    assert (list(assistant), assistant["role"]) == (["role", "content"], "gpt")
    info = json.loads((folder / "dataset_info.json").read_bytes())
    assert info["unfiltered"]["tags"] == tags | {"system_tag": "system"}


@pytest.mark.parametrize("field", ["question", "reasoning", "response"])
@pytest.mark.parametrize("marker", [text for name, text in ARTICLE.items() if "markers" in name])
def test_a_row_with_a_marker_in_its_text_is_dropped_into_a_file(
    field: str, marker: object, converted: Callable[..., Path]
) -> None:
    folder = converted({}, {field: f"before{marker}after"}, {})
    (dropped,) = read_rows(folder / "dropped.jsonl", Dropped, "")
    assert (dropped.id, dropped.reason) == ("q1", "marker_in_text")
    assert getattr(dropped, field) == f"before{marker}after"
    assert len(json.loads((folder / "unfiltered.json").read_bytes())) == 2
    metrics = metrics_beside(folder)
    assert (metrics["in"], metrics["rows"], metrics["dropped"]["marker_in_text"]) == (3, 2, 1)


@pytest.mark.parametrize("field", ["question", "reasoning", "response"])
def test_a_row_without_a_text_is_dropped_into_a_file(field: str, converted: Callable[..., Path]) -> None:
    folder = converted({field: " \n"}, {})
    (dropped,) = read_rows(folder / "dropped.jsonl", Dropped, "")
    assert (dropped.id, dropped.reason) == ("q0", "empty_text")
    counts = {"turns_do_not_alternate": 0, "marker_in_text": 0, "empty_text": 1, "control_token": 0}
    assert metrics_beside(folder)["dropped"] == counts


def test_a_system_text_with_a_control_token_is_refused(tiny_student: Path) -> None:
    from transformers import AutoTokenizer

    control = control_tokens(AutoTokenizer.from_pretrained(tiny_student), MARKERS)
    refuse_control_tokens("Write <|begin_of_thought|> first.", control, "own")
    with pytest.raises(
        DataError, match=r"stages/prompts/own\.txt: contains <\|im_end\|>, which the student reads as a control token"
    ):
        refuse_control_tokens("End with <|im_end|>.", control, "own")


def test_the_system_text_may_name_the_markers(converted: Callable[..., Path]) -> None:
    folder = converted({}, **{"convert.system_prompt": "still2"})
    assert "<|begin_of_thought|>" in prompt_text("still2")
    assert (folder / "dropped.jsonl").read_bytes() == b""


def test_rows_that_are_all_dropped_are_an_error_and_leave_nothing(
    distilled_file: Callable[..., Path], tiny_params: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    rows = distilled_file({"response": "<|end_of_thought|>"}, {"reasoning": " "})
    line = refuses(main, *arguments(rows, tiny_params(ARTICLE)))
    assert line.startswith(f"{rows}: no row makes a valid conversation (2 dropped: 1 marker_in_text, 1 empty_text). ")
    assert not (rows.parent / "unfiltered").exists()
    assert not (rows.parent / "metrics.json").exists()


def turns(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"system": "", "conversations": [{"from": speaker, "value": text} for speaker, text in pairs]}


FLAWS = [
    pytest.param(turns(("user", "q"), ("assistant", ANSWER)), None, id="whole"),
    pytest.param(turns(("user", "q")), "turns_do_not_alternate", id="no answer"),
    pytest.param(turns(), "turns_do_not_alternate", id="no turn"),
    pytest.param(turns(("assistant", ANSWER), ("user", "q")), "turns_do_not_alternate", id="the wrong way round"),
    pytest.param(turns(("user", "q"), ("user", ANSWER)), "turns_do_not_alternate", id="two of the user's"),
    pytest.param(turns(("human", "q"), ("gpt", ANSWER)), "turns_do_not_alternate", id="other tags"),
    pytest.param(turns(("user", "q"), ("assistant", "5")), "marker_in_text", id="no markers"),
    pytest.param(turns(("user", "q"), ("assistant", ANSWER + "</answer>")), "marker_in_text", id="one too many"),
    pytest.param(
        turns(("user", "q"), ("assistant", "<answer>5</answer><think>t</think>")), "marker_in_text", id="solution first"
    ),
    pytest.param(turns(("user", "a <think> b"), ("assistant", ANSWER)), "marker_in_text", id="in the question"),
    pytest.param(turns(("user", "\n"), ("assistant", ANSWER)), "empty_text", id="no question"),
    pytest.param(turns(("user", "q"), ("assistant", ANSWER.replace("t<", "<"))), "empty_text", id="no thought"),
    pytest.param(turns(("user", "q"), ("assistant", ANSWER.replace("5", " "))), "empty_text", id="no solution"),
]


@pytest.mark.parametrize(("sample", "reason"), FLAWS)
def test_what_is_wrong_with_a_conversation_is_found_before_it_is_written(
    sample: dict[str, Any], reason: str | None
) -> None:
    assert reason_to_drop(sample, MARKERS, TAGS) == reason


def test_lengths_are_of_the_whole_rendered_template_in_the_students_tokens(
    converted: Callable[..., Path], tiny_student: Path
) -> None:
    from transformers import AutoTokenizer

    folder = converted({}, {"reasoning": "2 and 3 more is 5. " * 50})
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    lengths = []
    for sample in json.loads((folder / "unfiltered.json").read_bytes()):
        user, assistant = (turn["value"] for turn in sample["conversations"])
        text = (
            f"<|im_start|>system\n{sample['system']}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            f"<|im_start|>assistant\n{assistant}<|im_end|>\n"
        )
        lengths.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    metrics = metrics_beside(folder)
    assert metrics["tokens"]["sum"] == sum(lengths)
    assert (metrics["tokens"]["p50"], metrics["tokens"]["max"]) == (lengths[0], lengths[1])
    assert metrics["share_over_tokens"]["512"] == 0.5


def test_the_lengths_are_those_that_the_training_sees(
    converted: Callable[..., Path], tiny_params: Callable[..., Path], runs: Callable[..., Result], tmp_path: Path
) -> None:
    from stages.train import main as train

    folder = converted(*TEXTS)
    outs = ["--model", tmp_path / "m", "--metrics", tmp_path / "train.json", "--loss", tmp_path / "loss.csv"]
    outs += ["--left-out", tmp_path / "left_out.jsonl"]
    params = tiny_params({"arms.filtered.num_train_epochs": 1.0, "arms.filtered.cutoff_len": 2048})
    runs(train, "--arm", "filtered", "--dataset", folder, *outs, "--params", params)
    assert metrics_beside(folder)["tokens"]["sum"] == json.loads((tmp_path / "train.json").read_bytes())["tokens_seen"]


def test_percentiles_are_lengths_that_occur_and_shares_count_what_is_longer() -> None:
    assert length_metrics(Counter([*range(1, 100), 5000])) == {
        "tokens": {"sum": 9950, "p50": 50, "p90": 90, "p99": 99, "max": 5000},
        "share_over_tokens": {str(cutoff): 0.01 if cutoff < 5000 else 0.0 for cutoff in CUTOFFS},
    }
    assert length_metrics(Counter([128]))["share_over_tokens"]["128"] == 0.0, "cutoff_len itself is not too long"
    assert length_metrics(Counter([129]))["share_over_tokens"]["128"] == 1.0


def test_the_curve_of_the_lengths_has_a_point_for_each_hundredth_of_the_conversations() -> None:
    header, *lines = length_curve(Counter([*range(1, 200), 5000])).splitlines()
    assert (header, len(lines)) == ("tokens,share", 101)
    assert (lines[0], lines[1], lines[50], lines[99], lines[100]) == (
        "1,0.0",
        "2,0.01",
        "100,0.5",
        "198,0.99",
        "5000,1.0",
    )
    assert set(length_curve(Counter([7])).splitlines()[1:]) == {f"7,{share / 100}" for share in range(101)}


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_cutoff_len_of_every_arm_is_one_whose_share_is_told(path: Path) -> None:
    arms = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["arms"]
    assert {arm["cutoff_len"] for arm in arms.values()} <= set(CUTOFFS)


@pytest.mark.heavy
def test_the_packaged_student_gives_its_tokenizer_without_converting_its_weights(
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    runs(main, *arguments(distilled_file({}), project_params()))
    counted = metrics_beside(tmp_path / "unfiltered")
    kept = [path.name for path in (tmp_path / ".cache" / "students").rglob("*") if path.is_file()]
    assert "tokenizer.json" in kept
    assert not [name for name in kept if name.endswith(".safetensors")]
    runs(main, *arguments(distilled_file({}), project_params()))
    assert metrics_beside(tmp_path / "unfiltered") == counted, "the kept tokenizer is the package's"


def test_a_student_that_is_not_there_is_named_and_nothing_is_written(
    distilled_file: Callable[..., Path], project_params: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    rows = distilled_file({})
    nowhere = rows.parent / "nowhere"
    params = project_params({"train.student.kind": "path", "train.student.name": str(nowhere)})
    assert refuses(main, *arguments(rows, params)).startswith(f"{nowhere}: no tokenizer_config.json there. ")
    assert not (rows.parent / "unfiltered").exists()


def test_dataset_info_leads_openmind_and_llama_factory_to_every_text_of_the_file(
    converted: Callable[..., Path],
) -> None:
    folder = converted({}, name="filtered-2")
    info = json.loads((folder / "dataset_info.json").read_bytes())
    assert list(info) == ["filtered-2"]
    entry = info["filtered-2"]
    assert entry["formatting"] == "sharegpt"
    assert Path(entry["local_path"]) == folder  # openMind: local_path/file_name
    assert "/" not in entry["file_name"]  # LLaMA-Factory: dataset_dir/file_name
    (sample,) = json.loads((folder / entry["file_name"]).read_bytes())
    tags = entry["tags"]
    assert sample[entry["columns"]["system"]] == prompt_text("brief")
    turns = {turn[tags["role_tag"]]: turn[tags["content_tag"]] for turn in sample[entry["columns"]["messages"]]}
    assert turns[tags["user_tag"]] == "What is 2 + 3?"
    assert "The answer is 5." in turns[tags["assistant_tag"]]


def test_the_entry_has_the_fields_of_the_articles_one(converted: Callable[..., Path]) -> None:
    folder = converted({}, name="DS_r1_answer")
    ours = json.loads((folder / "dataset_info.json").read_bytes())
    article = json.loads((ARTICLE_FILES / "dataset_info_entry.json").read_bytes())
    ours["DS_r1_answer"]["local_path"] = article["DS_r1_answer"]["local_path"]
    assert ours == article


def test_the_datasets_library_reads_the_file(
    converted: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    file = converted(*TEXTS) / "unfiltered.json"
    loaded = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == json.loads(file.read_bytes())


def test_filtered_rows_convert_like_distilled_ones(converted: Callable[..., Path]) -> None:
    verdict = {"prediction": "5", "verdict": "right", "decided_by": "rule:label"}
    plain = (converted(*TEXTS) / "unfiltered.json").read_bytes()
    judged = (converted(*[text | verdict for text in TEXTS]) / "unfiltered.json").read_bytes()
    assert judged == plain
