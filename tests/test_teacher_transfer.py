"""The store's way between hosts: it only ever grows, nothing comes twice, and what is no store is refused."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.params import prompt_text
from stages.lib.store.answer_store import open_store
from stages.lib.store_tools.record import read_records
from stages.lib.store_tools.transfer import main
from tests.test_teacher_store import asking, fill, key_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the answers 0 to 9."""
    fill(tmp_path / "store" / "answers.jsonl", range(10))
    return tmp_path / "store" / "answers.jsonl"


def bodies(path: Path) -> dict[str, str]:
    """The answers of a store by their keys."""
    return {record.key: record.body for record in read_records(path)}


def record(number: int, **changes: Any) -> str:
    return json.dumps({"key": key_of(number), "request": asking(number), "body": str(number)} | changes) + "\n"


def test_an_exported_store_imports_to_the_same_bytes(
    tmp_path: Path, store: Path, runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    runs(main, "export", tmp_path / "out.jsonl", "--store", store)
    assert "10 answers added" in caplog.messages[-1]
    assert (tmp_path / "out.jsonl").read_bytes() == store.read_bytes()
    other = tmp_path / "not" / "yet" / "there.jsonl"
    runs(main, "import", tmp_path / "out.jsonl", "--store", other)
    assert other.read_bytes() == store.read_bytes()
    with open_store(other) as answers:
        assert answers.body(key_of(7)) == b"7"


def test_importing_adds_what_is_lacking_behind_what_is_there(
    tmp_path: Path, store: Path, runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "other.jsonl", range(5, 200))
    before = store.read_bytes()
    runs(main, "import", tmp_path / "other.jsonl", "--store", store)
    assert "190 answers added" in caplog.messages[-1]
    assert "5 were there" in caplog.messages[-1]
    assert store.read_bytes().startswith(before)
    assert set(bodies(store)) == {key_of(number) for number in range(200)}
    assert len(store.read_bytes().splitlines()) == 200
    grown = store.read_bytes()
    runs(main, "import", tmp_path / "other.jsonl", "--store", store)
    assert "0 answers added" in caplog.messages[-1]
    assert store.read_bytes() == grown


def test_exporting_into_a_file_keeps_what_only_the_file_has(
    tmp_path: Path, store: Path, runs: Callable[..., Result]
) -> None:
    fill(tmp_path / "file.jsonl", range(8, 12))
    before = (tmp_path / "file.jsonl").read_bytes()
    runs(main, "export", tmp_path / "file.jsonl", "--store", store)
    assert (tmp_path / "file.jsonl").read_bytes().startswith(before)
    assert set(bodies(tmp_path / "file.jsonl")) == {key_of(number) for number in range(12)}


def test_another_answer_to_the_same_request_is_counted_and_each_side_keeps_its_own(
    tmp_path: Path, store: Path, runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    file, before = tmp_path / "file.jsonl", store.read_bytes()
    file.write_text(record(3, body="another"))
    runs(main, "import", file, "--store", store)
    assert "0 answers added" in caplog.messages[-1]
    assert "1 were there (1 of them with another answer, which stays)" in caplog.messages[-1]
    assert store.read_bytes() == before
    runs(main, "export", file, "--store", store)
    assert file.read_text().startswith(record(3, body="another"))
    assert len(file.read_text().splitlines()) == 10


def test_a_key_that_stands_twice_in_a_file_is_imported_once(
    tmp_path: Path, store: Path, runs: Callable[..., Result]
) -> None:
    (tmp_path / "file.jsonl").write_text(record(50) + record(50) + record(51))
    runs(main, "import", tmp_path / "file.jsonl", "--store", store)
    assert len(store.read_bytes().splitlines()) == 12


@pytest.mark.parametrize(
    ("second_line", "says"),
    [
        (record(21)[:-1], "the file ends within this line"),
        (record(21)[:40], "the file ends within this line"),
        ("{\n", "not a record of the store"),
        ("\n", "not a record of the store"),
        ("[]\n", "not a record of the store"),
        ('{"id": "q0", "question": "1 + 1"}\n', "not a record of the store"),
        (record(21, body={"a": 1}), "not a record of the store"),
        (record(21, paid=True), "not a record of the store"),
        (record(21, key=key_of(22)), "its key is not that of its request"),
        (record(21, request=asking(22)), "its key is not that of its request"),
    ],
    ids=["no end", "torn", "not JSON", "empty", "a list", "a row", "body", "unknown field", "key", "request"],
)
def test_a_file_with_a_bad_line_is_named_and_none_of_it_is_taken(
    tmp_path: Path, store: Path, refuses: Callable[..., str], second_line: str, says: str
) -> None:
    file, before = tmp_path / "file.jsonl", store.read_bytes()
    file.write_text(record(20) + second_line)
    for way in ("import", "export"):
        assert refuses(main, way, file, "--store", store).startswith(f"{file}:2: {says}. ")
        assert file.read_text() == record(20) + second_line
        assert store.read_bytes() == before


def test_a_file_that_is_not_there_makes_no_store(tmp_path: Path, refuses: Callable[..., str]) -> None:
    assert refuses(main, "import", tmp_path / "none.jsonl", "--store", tmp_path / "new" / "store.jsonl").startswith(
        f"{tmp_path / 'none.jsonl'}: "
    )
    assert not (tmp_path / "new").exists()


def test_without_a_store_there_is_nothing_to_export(tmp_path: Path, refuses: Callable[..., str]) -> None:
    line = refuses(main, "export", tmp_path / "out.jsonl", "--store", tmp_path / "none.jsonl")
    assert line.startswith(f"{tmp_path / 'none.jsonl'}: no answers were received here.")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_store_itself_is_no_file_to_move_it_with(tmp_path: Path, store: Path, refuses: Callable[..., str]) -> None:
    before = store.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(store)
    for file in (store, tmp_path / "link.jsonl"):
        for way in ("import", "export"):
            assert "this is the store itself" in refuses(main, way, file, "--store", store)
    assert store.read_bytes() == before


@pytest.mark.heavy
def test_importing_waits_for_a_run_that_writes_to_the_store(tmp_path: Path, store: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(record(50))
    command = [sys.executable, "-m", "stages.lib.store_tools.transfer", "import", str(file), "--store", str(store)]
    with store.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert "another run writes to" in process.stderr.readline()
            assert key_of(50) not in bodies(store)
            with store.open("a") as writer:
                writer.write(record(60))
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(timeout=60) == 0
    assert set(bodies(store)) == {key_of(number) for number in (*range(10), 50, 60)}


def test_exporting_takes_what_is_whole_and_waits_for_nobody(
    tmp_path: Path, store: Path, runs: Callable[..., Result]
) -> None:
    whole = store.read_bytes()
    with store.open("a") as writer, store.with_suffix(".lock").open("a") as lock:
        writer.write(record(60)[:100])
        writer.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs(main, "export", tmp_path / "out.jsonl", "--store", store)
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert store.read_bytes() == whole + record(60)[:100].encode()


def test_the_same_request_twice_in_one_file_is_counted_as_known(
    tmp_path: Path, store: Path, runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file.jsonl").write_text(record(50) + record(50) + record(50, body="another"))
    runs(main, "import", tmp_path / "file.jsonl", "--store", store)
    assert "1 answers added" in caplog.messages[-1]
    assert "2 were there (1 of them with another answer, which stays)" in caplog.messages[-1]


# ---- the article's r1_distill.txt ----


def article_line(question: str, **changes: Any) -> str:
    """A line as the article's own program writes it."""
    return json.dumps({"question": question, "reasoning": "三加四等于七", "answer": "答案是 7"} | changes) + "\n"


@pytest.fixture
def runner(tmp_path: Path, project_params: Callable[..., Path]) -> Callable[..., list[str]]:
    """``runner("distill.prompt", "father")``: the options of a command with these params and a store of its own."""

    def options(**changes: Any) -> list[str]:
        params = project_params({"distill.prompt": "father", "distill.teacher.model": "deepseek-r1"} | changes)
        return ["--store", str(tmp_path / "answers.jsonl"), "--params", str(params)]

    return options


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Three questions, q0 to q2."""
    path = tmp_path / "questions.jsonl"
    row = {"answer": "7", "solution": None, "source": "gsm8k/train"}
    path.write_text("".join(json.dumps({"id": f"q{n}", "question": f"{n} + 4 = ?"} | row) + "\n" for n in range(3)))
    return path


def distilled(tmp_path: Path, questions: Path, options: list[str]) -> tuple[list[dict[str, Any]], int]:
    """What ``distill`` makes of the questions with this store, and how many requests its teacher got."""
    paths = [
        word for name in ("distilled", "failures", "metrics") for word in (f"--{name}", str(tmp_path / f"{name}.out"))
    ]
    command = [sys.executable, "-m", "stages.distill", "--questions", str(questions), *paths, *options]
    requests = tmp_path / "requests.jsonl"
    environment = os.environ | {"DISTILLERY_EMBEDDED_REQUESTS": str(requests), "DVC_ROOT": str(tmp_path)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    asked = len(requests.read_text().splitlines()) if requests.exists() else 0
    return [json.loads(line) for line in (tmp_path / "distilled.out").read_text().splitlines()], asked


@pytest.mark.heavy
def test_what_the_article_bought_is_not_asked_again(
    tmp_path: Path, questions: Path, runner: Callable[..., list[str]], runs: Callable[..., Result]
) -> None:
    (tmp_path / "r1_distill.txt").write_text(article_line("0 + 4 = ?") + article_line("2 + 4 = ?"))
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    rows, asked = distilled(tmp_path, questions, runner())
    assert asked == 1, "the question that the file does not have"
    assert [(row["reasoning"], row["response"]) for row in rows][::2] == [("三加四等于七", "答案是 7")] * 2
    assert (rows[0]["model"], rows[0]["finish_reason"], rows[0]["usage"]) == ("deepseek-r1", "stop", {})


def test_an_imported_answer_is_bound_to_the_question_the_prompt_and_the_teacher(
    tmp_path: Path, runner: Callable[..., list[str]], runs: Callable[..., Result]
) -> None:
    (tmp_path / "r1_distill.txt").write_text(article_line("0 + 4 = ?"))
    for changes in ({}, {"distill.prompt": "step_by_step"}, {"distill.teacher.model": "other"}, {}):
        runs(main, "import", tmp_path / "r1_distill.txt", *runner(**changes))
    (tmp_path / "r1_distill.txt").write_text(article_line("1 + 4 = ?"))
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    assert len(bodies(tmp_path / "answers.jsonl")) == 4
    first = next(read_records(tmp_path / "answers.jsonl"))
    assert first.request["messages"][0]["content"].endswith("# 来自女儿的提问\n0 + 4 = ?\n")
    assert json.loads(first.body)["imported_from"] == "r1_distill.txt"
    assert "usage" not in json.loads(first.body)


def test_an_imported_answer_of_a_compatible_endpoint_needs_no_key(
    tmp_path: Path, runner: Callable[..., list[str]], runs: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    (tmp_path / "r1_distill.txt").write_text(article_line("0 + 4 = ?"))
    teacher = {"distill.teacher.kind": "openai_compatible", "distill.teacher.base_url": "http://127.0.0.1:9/v1/"}
    runs(main, "import", tmp_path / "r1_distill.txt", *runner(**teacher))
    assert next(read_records(tmp_path / "answers.jsonl")).request["endpoint"] == "http://127.0.0.1:9/v1"


def test_a_question_that_is_the_whole_prompt_is_not_put_into_the_prompt_again(
    tmp_path: Path, runner: Callable[..., list[str]], runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    whole = prompt_text("father").replace("{question}", "0 + 4 = ?")
    for question in ("0 + 4 = ?", whole):
        (tmp_path / "r1_distill.txt").write_text(article_line(question))
        runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    assert "0 answers added" in caplog.messages[-1]


def test_rows_without_a_usable_answer_are_skipped_and_counted(
    tmp_path: Path, runner: Callable[..., list[str]], runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        article_line("1"),
        article_line("2", answer=None),
        article_line("3", reasoning=""),
        article_line("4", answer=""),
    ]
    (tmp_path / "r1_distill.txt").write_text("".join(lines))
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    assert "1 answers added" in caplog.messages[-1]
    assert "3 skipped (2 empty_response, 1 empty_reasoning)" in caplog.messages[-1]


@pytest.mark.parametrize("bad", ["{", "", "[]", '{"question": "1", "answer": "2"}', article_line("1", answer=5)[:-1]])
def test_a_bad_row_is_named_and_none_of_the_file_is_taken(
    tmp_path: Path, runner: Callable[..., list[str]], refuses: Callable[..., str], bad: str
) -> None:
    file = tmp_path / "r1_distill.txt"
    file.write_text(article_line("1") + bad + "\n" + article_line("2"))
    assert refuses(main, "import", file, *runner()).startswith(f"{file}:2: not a row of r1_distill.txt")
    assert not (tmp_path / "answers.jsonl").exists()


def test_what_was_answered_is_written_as_the_article_writes_it(
    tmp_path: Path,
    questions: Path,
    runner: Callable[..., list[str]],
    runs: Callable[..., Result],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "r1_distill.txt").write_text(
        article_line("2 + 4 = ?") + article_line("0 + 4 = ?") + article_line("else")
    )
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    out = tmp_path / "new" / "out.txt"
    runs(main, "r1-distill", out, "--questions", questions, *runner())
    assert out.read_text() == article_line("0 + 4 = ?") + article_line("2 + 4 = ?")
    assert out.read_bytes().isascii()
    assert f"2 answers written to {out}; 1 skipped (1 not_answered)" in caplog.messages[-1]


def test_answers_of_no_use_are_not_written(
    tmp_path: Path,
    questions: Path,
    runner: Callable[..., list[str]],
    runs: Callable[..., Result],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "r1_distill.txt").write_text("".join(article_line(f"{number} + 4 = ?") for number in range(3)))
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    records[0]["body"] = "no completion"
    records[1]["body"] = records[1]["body"].replace('"stop"', '"length"')
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    runs(main, "r1-distill", tmp_path / "out.txt", "--questions", questions, *runner())
    assert json.loads((tmp_path / "out.txt").read_text())["question"] == "2 + 4 = ?"
    assert "2 skipped (1 not_json, 1 cut_off)" in caplog.messages[-1]


def test_another_prompts_answers_are_not_written_as_this_ones(
    tmp_path: Path,
    questions: Path,
    runner: Callable[..., list[str]],
    runs: Callable[..., Result],
    refuses: Callable[..., str],
) -> None:
    (tmp_path / "r1_distill.txt").write_text(article_line("2 + 4 = ?"))
    runs(main, "import", tmp_path / "r1_distill.txt", *runner())
    options = ["--questions", questions, *runner(**{"distill.prompt": "step_by_step"})]
    line = refuses(main, "r1-distill", tmp_path / "out.txt", *options)
    assert line.startswith(f"{tmp_path / 'out.txt'}: not written: the store has no usable answer to these questions")
    assert not (tmp_path / "out.txt").exists()


def test_a_file_that_is_there_is_not_written_over(
    tmp_path: Path,
    questions: Path,
    runner: Callable[..., list[str]],
    runs: Callable[..., Result],
    refuses: Callable[..., str],
) -> None:
    file = tmp_path / "r1_distill.txt"
    file.write_text(article_line("2 + 4 = ?"))
    runs(main, "import", file, *runner())
    line = refuses(main, "r1-distill", file, "--questions", questions, *runner())
    assert line.startswith(f"{file}: the file exists already")
    assert file.read_text() == article_line("2 + 4 = ?")
