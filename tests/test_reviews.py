"""reviews: people's verdicts overrule the rule, are bound to the text they judged, and measure rule and judge."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from statsmodels.stats.proportion import proportion_confint

from stages.filter import main
from stages.lib.review_tools.__main__ import main as add_review
from stages.lib.reviews import text_sha256
from stages.lib.rows import read_some_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Filtered, Rejected
from tests.test_filter import NO_ANSWER, RIGHT, WRONG, arguments, ids

LI, WANG = {"who": "李雷"}, {"who": "wang"}


def review(id: str, verdict: str, when: str = "2026-11-28T09:00:00Z", **more: Any) -> str:
    """A line of data/reviews.jsonl."""
    return json.dumps({"id": id, "verdict": verdict, "comment": "", "who": "li", "when": when} | more)


@pytest.fixture
def reviewed(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> Callable[..., Path]:
    """``reviewed([RIGHT, WRONG], review("q1", "right"))``: the folder with filter's outputs."""

    def run(rows: list[dict[str, Any]], *lines: str | bytes, **params: Any) -> Path:
        path = tmp_path / "reviews.jsonl"
        path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
        changes = project_params({f"filter.{key}": value for key, value in params.items()})
        runs(main, *arguments(distilled_file(*rows), tmp_path / "out", changes), "--reviews", path)
        return tmp_path / "out"

    return run


def counts(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics").read_bytes())
    return found


def test_a_person_overrules_the_rule_in_both_directions(reviewed: Callable[..., Path]) -> None:
    out = reviewed([RIGHT, WRONG, NO_ANSWER, RIGHT], review("q0#0", "wrong"), review("q1#0", "right"))
    assert ids(out / "filtered") == ["q1", "q3"]
    kept, _ = read_some_rows(out / "filtered", Filtered, "")
    assert (kept.verdict, kept.decided_by, kept.rule_verdict) == ("right", "review", "wrong")
    rejected = read_some_rows(out / "rejected", Rejected, "")
    assert [(row.id, row.reason) for row in rejected] == [("q0", "reviewed_wrong"), ("q2", "no_answer_read")]
    found = counts(out)
    assert found["rejected_by_reason"] == {"no_answer_read": 1, "reviewed_wrong": 1}
    assert found["decided_by"]["review"] == 2
    assert found["reviews"]["changed"] == 2


@pytest.mark.parametrize(("on_unsure", "kept"), [("reject", ["q0"]), ("keep", ["q0", "q1"])])
def test_an_unsure_person_leaves_the_answer_to_on_unsure(
    on_unsure: str, kept: list[str], reviewed: Callable[..., Path]
) -> None:
    out = reviewed([RIGHT, RIGHT], review("q1#0", "unsure"), on_unsure=on_unsure)
    assert ids(out / "filtered") == kept
    assert counts(out)["rejected_by_reason"] == ({"reviewed_unsure": 1} if on_unsure == "reject" else {})


def test_without_reviews_the_outputs_are_those_of_the_rule(reviewed: Callable[..., Path]) -> None:
    out = reviewed([RIGHT, WRONG])
    assert ids(out / "filtered") == ["q0"]
    assert counts(out)["reviews"] is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param("2026-11-28T09:00:00Z", "2026-11-28T09:00:01Z", id="UTC"),
        pytest.param("2026-11-28T16:00:00+08:00", "2026-11-28T08:30:00Z", id="a later moment with an earlier clock"),
        pytest.param("2026-11-28T08:00:00", "2026-11-28T16:30:00+08:00", id="without a zone, which is UTC"),
        pytest.param("2026-11-27T23:59:59-01:00", "2026-11-28T00:59:59.5", id="a fraction of a second"),
        pytest.param("2026-11-28 09:00", "2026-11-28 09:01", id="a space and no seconds"),
        pytest.param("2026-11-28T09:00:00Z", "2026-11-28T17:00:00+08:00", id="the same moment: the later line"),
    ],
)
def test_the_latest_review_counts_in_any_order_of_lines(
    earlier: str, later: str, reviewed: Callable[..., Path]
) -> None:
    lines = [review("q0#0", "right", earlier, **LI), review("q0#0", "wrong", later, **WANG)]
    same = earlier.endswith("09:00:00Z") and later.endswith("17:00:00+08:00")
    for order in [lines] if same else [lines, lines[::-1]]:
        out = reviewed([RIGHT, RIGHT], *order)
        assert ids(out / "rejected") == ["q0"]
        found = counts(out)["reviews"]
        assert (found["lines"], found["superseded"], found["contradictory"]) == (2, 1, 1)


def test_a_person_who_changes_his_mind_contradicts_nobody(reviewed: Callable[..., Path]) -> None:
    lines = [review("q0#0", "wrong", "2026-11-28T09:00:00Z"), review("q0#0", "right", "2026-11-28T09:05:00Z")]
    found = counts(reviewed([RIGHT], *lines))["reviews"]
    assert (found["contradictory"], found["superseded"], found["right"]) == (0, 1, 1)


def test_a_review_of_an_older_text_is_counted_and_not_applied(
    reviewed: Callable[..., Path], distilled_file: Callable[..., Path]
) -> None:
    (older,) = read_some_rows(distilled_file(WRONG, name="older.jsonl"), Distilled, "")
    stale = review("q0#0", "wrong", "2026-11-28T10:00:00Z", text_sha256=text_sha256(older))
    out = reviewed([RIGHT], stale)
    assert ids(out / "filtered") == ["q0"]
    found = counts(out)["reviews"]
    assert (found["outdated"], found["answers"], found["changed"]) == (1, 0, 0)
    out = reviewed([WRONG, RIGHT], stale, review("q0#0", "right", "2026-11-28T09:00:00Z"))
    assert ids(out / "rejected") == ["q0"]
    assert counts(out)["reviews"]["without_hash"] == 0


def test_the_hash_covers_what_a_person_reads_but_not_the_gold_answer(distilled_file: Callable[..., Path]) -> None:
    changes: list[dict[str, Any]] = [{}, {"answer": "6"}, {"solution": None}, {"model": "other"}, {"response": "5"}]
    changes += [{"reasoning": "2 and 3 more is 5.T", "response": "he answer is 5."}, {"question": "2 + 3?"}]
    hashes = [text_sha256(row) for row in read_some_rows(distilled_file(*changes), Distilled, "")]
    assert len(set(hashes[:4])) == 1
    assert len(set(hashes)) == 4


def test_of_several_answers_the_key_names_one(reviewed: Callable[..., Path]) -> None:
    samples = [RIGHT | {"id": "q0", "sample": number} for number in range(3)]
    out = reviewed(samples, review("q0#1", "wrong"))
    assert [row.key for row in read_some_rows(out / "rejected", Rejected, "")] == ["q0#1"]
    assert counts(out)["questions_by_right_share"] == {"2/3": 1}


def test_the_id_of_a_question_names_its_only_answer(reviewed: Callable[..., Path]) -> None:
    out = reviewed([RIGHT, RIGHT | {"id": '题一 “a"b”', "sample": 0}], review('题一 “a"b”', "wrong"))
    assert ids(out / "rejected") == ['题一 “a"b”']


def test_the_id_of_a_question_with_several_answers_is_refused(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text(review("q9", "right") + "\n" + review("q0", "wrong") + "\n")
    rows = distilled_file(RIGHT | {"id": "q0"}, RIGHT | {"id": "q0", "sample": 1})
    said = refuses(main, *arguments(rows, tmp_path / "out", project_params()), "--reviews", path)
    assert said == (f"{path}:2: 'q0' is a question with 2 answers. Name the one that was reviewed, for example 'q0#0'.")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_id_that_looks_like_a_key_is_one(reviewed: Callable[..., Path]) -> None:
    """The question q#1 has the answer q#1#0, and the second answer to q has the key q#1."""
    rows = [RIGHT | {"id": "q#1", "sample": 0}, RIGHT | {"id": "q", "sample": 0}, RIGHT | {"id": "q", "sample": 1}]
    out = reviewed(rows, review("q#1", "wrong"))
    assert [row.key for row in read_some_rows(out / "rejected", Rejected, "")] == ["q#1"]


def test_a_review_of_no_answer_is_counted_and_said(
    reviewed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    names = ("gone-1#0", "q0#4", "gone-2#0", "gone-3#0", "q0#0")
    out = reviewed([RIGHT], *[review(name, "right") for name in names])
    assert "filter: reviews of answers that do not exist: gone-1#0, gone-2#0, gone-3#0 and 1 more" in caplog.text
    assert counts(out)["reviews"]["no_such_answer"] == 4


def test_every_line_is_counted_where_it_went(
    reviewed: Callable[..., Path], distilled_file: Callable[..., Path]
) -> None:
    (older,) = read_some_rows(distilled_file(WRONG, name="older.jsonl"), Distilled, "")
    lines = [review("q0#0", "right"), review("q0#0", "right"), review("q0#0", "wrong", "2026-11-28T11:00:00Z")]
    lines += [review("q1#0", "right", text_sha256=text_sha256(older)), review("q8#0", "wrong"), review("q1", "unsure")]
    found = counts(reviewed([RIGHT, RIGHT, RIGHT], *lines))["reviews"]
    assert {name: found[name] for name in list(found)[:5]} == {
        "lines": 6,
        "duplicates": 1,
        "superseded": 1,
        "outdated": 1,
        "no_such_answer": 1,
    }
    assert found["answers"] == found["right"] + found["wrong"] + found["unsure"] == 2


def test_files_of_any_editor_are_read(reviewed: Callable[..., Path]) -> None:
    """A byte order mark, CRLF, empty lines, a last line without an end, fields of later versions, no who."""
    bare = json.dumps({"id": "q1#0", "verdict": "wrong", "when": "2026-11-28T09:00:00Z", "colour": "red"}).encode()
    said = review("q0#0", "wrong", comment='他说：“结果是\u20285”，\n"不对"\r\n', who="李雷").encode()
    quoted = json.loads(said)["comment"]
    out = reviewed([RIGHT, RIGHT, RIGHT], b"\xef\xbb\xbf" + said + b"\r", b"\r", b"  ", bare)
    assert "结果是" in quoted
    assert ids(out / "filtered") == ["q2"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "q0#0", "verdict": "right"', "not a JSON object"),
        (b"<<<<<<< HEAD", "not a JSON object"),
        (b'{"id": "q0#0", "when": "2026-11-28T09:00:00Z"}', "no field 'verdict'"),
        (b'{"id": "q0#0", "verdict": "right"}', "no field 'when'"),
        (review("q0#0", "Right").encode(), "field 'verdict': Input should be 'right', 'wrong' or 'unsure'"),
        (review("q0#0", "right", "28.11.2026").encode(), "field 'when'"),
        (review("q0#0", "right", "yesterday").encode(), "field 'when'"),
        (b'{"id": "q0#0", "verdict": "right", "when": 1764320400}', "field 'when'"),
        (review("", "right").encode(), "field 'id'"),
        ('{"id": "q0#0", "verdict": "right", "comment": "对"}'.encode("gb18030"), "not UTF-8 (byte 0xb6 at"),
    ],
)
def test_a_bad_line_is_named(
    line: bytes,
    said: str,
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(review("q0#0", "right").encode() + b"\n" + line + b"\n")
    found = refuses(main, *arguments(distilled_file(RIGHT), tmp_path / "out", project_params()), "--reviews", path)
    assert found.startswith(f"{path}:2: {said}")
    assert found.endswith("Correct that line, or remove it.")


def test_a_missing_file_is_named(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    path = tmp_path / "none.jsonl"
    said = refuses(main, *arguments(distilled_file(RIGHT), tmp_path / "out", project_params()), "--reviews", path)
    assert said == f"{path}: no such file. 'git checkout {path}' restores it; an empty file has no reviews."


def test_rule_and_judge_are_measured_against_people(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> None:
    """The embedded judge marks the last number: it calls "The answer is 5. No, …" by what comes last."""
    judge: dict[str, Any] = {"kind": "embedded", "model": "chain-sum-solver", "max_tokens": None, "slip_share": 0.0}
    judge |= {"seed": 3, "faults": {}, "prompt": "strict_teacher"}
    params = project_params({"filter.strategy": "both", "filter.judge": judge, "filter.control_seed": 3})
    rows = distilled_file(*[RIGHT] * 6, *[WRONG] * 3, NO_ANSWER)
    path = tmp_path / "reviews.jsonl"
    verdicts = {"q0": "wrong", "q1": "right", "q2": "right", "q3": "unsure", "q6": "right", "q7": "wrong"}
    path.write_text("".join(f"{review(id, verdict)}\n" for id, verdict in verdicts.items()))
    store = ["--store", tmp_path / "answers.jsonl"]
    runs(main, *arguments(rows, tmp_path / "out", params), "--reviews", path, *store)
    found = counts(tmp_path / "out")["reviews"]
    low, high = proportion_confint(1, 3, method="wilson")
    right = {"reviewed": 3, "false": 1, "share": 0.3333, "low": round(low, 4), "high": round(high, 4)}
    assert found["rule"]["right"] == found["judge"]["right"] == right
    assert (found["rule"]["wrong"]["reviewed"], found["rule"]["wrong"]["false"]) == (2, 1)
    assert (
        counts(tmp_path / "out")["judge_asked"] == 10
    )  # a review changes neither what the judge is asked nor its mark


def test_published_labels_as_reviews_give_the_errors_of_the_rule(
    development_data: Path, reviewed: Callable[..., Path]
) -> None:
    """GPT-3's solutions of GSM8K, with their authors' labels as reviews."""
    with (development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl").open() as lines:
        published = [json.loads(line) for line in islice(lines, 200)]
    answers = [
        ({"question": row["question"], "answer": row["ground_truth"].rpartition("A: ")[2].strip()}, row[name])
        for row in published
        for name in row
        if isinstance(row[name], dict)
    ]
    rows = [changes | {"response": solution["solution"], "reasoning": ""} for changes, solution in answers]
    labels = ["right" if solution["is_correct"] else "wrong" for _, solution in answers]
    out = reviewed(rows, *[review(f"q{number}#0", label) for number, label in enumerate(labels)])
    assert ids(out / "filtered") == [f"q{number}" for number, label in enumerate(labels) if label == "right"]
    found = counts(out)["reviews"]
    assert found["answers"] == len(rows) == found["right"] + found["wrong"]
    assert found["rule"]["right"]["false"] == 0
    assert found["rule"]["wrong"]["false"] == 0


def test_the_command_adds_a_verdict_that_is_bound_to_the_text(
    tmp_path: Path, distilled_file: Callable[..., Path], runs: Callable[..., Result], reviewed: Callable[..., Path]
) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(review("q1#0", "right").encode())  # its last line has no end
    rows = distilled_file(RIGHT, WRONG)
    runs(add_review, "q0", "wrong", "--who", "李雷", "--comment", "“5”\n?", "--distilled", rows, "--reviews", path)
    _, added = (json.loads(line) for line in path.read_bytes().splitlines())
    assert (added["id"], added["who"], added["comment"]) == ("q0#0", "李雷", "“5”\n?")
    lines = path.read_bytes().splitlines()
    assert ids(reviewed([RIGHT, WRONG], *lines) / "filtered") == ["q1"]
    assert ids(reviewed([RIGHT | {"response": "**5**"}, WRONG], *lines) / "filtered") == ["q0", "q1"]


def test_the_command_refuses_an_answer_that_it_does_not_find(
    tmp_path: Path, distilled_file: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    rows = distilled_file(RIGHT, RIGHT | {"id": "q0", "sample": 1})
    paths = ["--distilled", rows, "--reviews", tmp_path / "reviews.jsonl"]
    advice = "Give an id, '#' and a sample's number."
    assert refuses(add_review, "q7", "right", *paths) == f"{rows}: 'q7' names no answers. {advice}"
    said = refuses(add_review, "q0", "right", *paths)
    assert said == f"{rows}: 'q0' names 2 answers. Its answers are q0#0, q0#1. {advice}"
    assert not (tmp_path / "reviews.jsonl").exists()
