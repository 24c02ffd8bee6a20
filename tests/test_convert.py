"""convert: the article's ShareGPT file, to the byte, and a dataset that real readers read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.convert import main
from stages.lib.params import prompt_text

TEXTS = (
    {"reasoning": "先想一想。\n\n2 加 3 是 5。", "response": "答案是 **5**。\n", "question": "2 + 3 = ?\u2028“几”？"},
    {"reasoning": "", "response": "5 😀 \\boxed{5}", "question": '<b>"2 + 3"</b>\t& more'},
    {"reasoning": " spaces stay \n", "response": "\nThe answer is 5.", "question": "What is 2 + 3?"},
)

# the article's markers, and its answer to ensure_ascii; the embedded profile's markers are shorter
ARTICLE = {
    "convert.markers.begin_of_thought": "<|begin_of_thought|>",
    "convert.markers.end_of_thought": "<|end_of_thought|>",
    "convert.markers.begin_of_solution": "<|begin_of_solution|>",
    "convert.markers.end_of_solution": "<|end_of_solution|>",
    "convert.ascii": True,
}


def arguments(rows_path: Path, params: Path, name: str = "unfiltered") -> list[object]:
    folder = rows_path.parent
    return ["--rows", rows_path, "--out", folder / name, "--metrics", folder / "metrics.json", "--params", params]


def as_the_article_writes_it(rows_path: Path, out: Path) -> None:
    """The article's own script (转换成sharegpt格式), which names the teacher's text 'answer'."""
    system = prompt_text("still2")
    dataset = []
    for line in rows_path.open(encoding="utf-8"):
        row = json.loads(line)
        row["answer"] = row["response"]
        sample: dict[str, Any] = {
            "system": system,
            "conversations": [{"from": "user", "value": ""}, {"from": "assistant", "value": ""}],
        }
        sample["conversations"][0]["value"] = row["question"]
        sample["conversations"][1]["value"] = (
            "<|begin_of_thought|>\n\n"
            + row["reasoning"]
            + "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
            + row["answer"]
            + "<|end_of_solution|>"
        )
        dataset.append(sample)
    with out.open("w") as file:
        json.dump(dataset, file, indent=4)


@pytest.fixture
def converted(
    distilled_file: Callable[..., Path], project_params: Callable[..., Path], runs: Callable[..., Result]
) -> Callable[..., Path]:
    """``converted(*rows, **{"convert.ascii": False})``: the dataset's folder."""

    def run(*changes: dict[str, Any], name: str = "unfiltered", **params: object) -> Path:
        rows = distilled_file(*changes)
        runs(main, *arguments(rows, project_params(ARTICLE | params), name))
        return rows.parent / name

    return run


def test_the_dataset_is_the_articles_to_the_byte(converted: Callable[..., Path], tmp_path: Path) -> None:
    folder = converted(*TEXTS, **{"convert.system_prompt": "still2"})
    as_the_article_writes_it(tmp_path / "distilled.jsonl", tmp_path / "article.json")
    written = (folder / "unfiltered.json").read_bytes()
    assert json.loads(written) == json.loads((tmp_path / "article.json").read_bytes())
    assert written == (tmp_path / "article.json").read_bytes()


def test_the_markers_and_line_ends_stand_where_the_article_has_them(converted: Callable[..., Path]) -> None:
    folder = converted({"reasoning": "Two and three.", "response": "The answer is 5."})
    (sample,) = json.loads((folder / "unfiltered.json").read_bytes())
    assert list(sample) == ["system", "conversations"]
    assert sample["system"] == prompt_text("brief")
    user, assistant = sample["conversations"]
    assert user == {"from": "user", "value": "What is 2 + 3?"}
    assert assistant["value"] == (
        "<|begin_of_thought|>\n\nTwo and three.<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\nThe answer is 5.<|end_of_solution|>"
    )


def test_the_same_rows_give_the_same_bytes(converted: Callable[..., Path]) -> None:
    first = {path.name: path.read_bytes() for path in converted(*TEXTS).iterdir()}
    second = {path.name: path.read_bytes() for path in converted(*TEXTS).iterdir()}
    assert first == second
    assert sorted(first) == ["dataset_info.json", "unfiltered.json"]


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
    markers = {
        "begin_of_thought": "<think>",
        "end_of_thought": "</think>",
        "begin_of_solution": "<answer>",
        "end_of_solution": "</answer>",
    }
    folder = converted(
        {"reasoning": "r", "response": "5"}, **{f"convert.markers.{name}": text for name, text in markers.items()}
    )
    (sample,) = json.loads((folder / "unfiltered.json").read_bytes())
    assert sample["conversations"][1]["value"] == "<think>\n\nr</think>\n\n<answer>\n\n5</answer>"


@pytest.mark.parametrize("field", ["reasoning", "response"])
@pytest.mark.parametrize(
    "marker", ["<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"]
)
def test_a_marker_inside_a_text_is_refused_with_the_row(
    field: str,
    marker: str,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    rows = distilled_file({}, {field: f"before{marker}after"})
    line = refuses(main, *arguments(rows, project_params(ARTICLE)))
    assert line.startswith(f"{rows}: row 'q1#0' holds the marker {marker}. ")
    assert not (rows.parent / "unfiltered").exists()
    assert not (rows.parent / "metrics.json").exists()


def test_the_counts_are_of_rows_and_characters(converted: Callable[..., Path]) -> None:
    folder = converted(
        {"reasoning": "一二三", "response": "5"},
        {"reasoning": "12345", "response": "55"},
        {"reasoning": "", "response": "5" * 10},
    )
    assert json.loads((folder.parent / "metrics.json").read_bytes()) == {
        "rows": 3,
        "reasoning_chars_median": 3,
        "response_chars_median": 2,
    }


def test_dataset_info_leads_to_every_text_of_the_file(converted: Callable[..., Path]) -> None:
    folder = converted({}, name="filtered-2")
    info = json.loads((folder / "dataset_info.json").read_bytes())
    assert list(info) == ["filtered-2"]
    entry = info["filtered-2"]
    assert entry["formatting"] == "sharegpt"
    (sample,) = json.loads((folder / entry["file_name"]).read_bytes())
    tags = entry["tags"]
    assert sample[entry["columns"]["system"]] == prompt_text("brief")
    turns = {turn[tags["role_tag"]]: turn[tags["content_tag"]] for turn in sample[entry["columns"]["messages"]]}
    assert turns[tags["user_tag"]] == "What is 2 + 3?"
    assert "The answer is 5." in turns[tags["assistant_tag"]]


def test_the_datasets_library_reads_the_file(
    converted: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    file = converted(*TEXTS) / "unfiltered.json"
    loaded = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == json.loads(file.read_bytes())


def test_filtered_rows_convert_like_distilled_ones(converted: Callable[..., Path]) -> None:
    verdict = {"prediction": "5", "verdict": "right", "decided_by": "rule:phrase"}
    plain = (converted(*TEXTS) / "unfiltered.json").read_bytes()
    judged = (converted(*[text | verdict for text in TEXTS]) / "unfiltered.json").read_bytes()
    assert judged == plain
