"""The store's way between hosts: it only ever grows, nothing comes twice, and what is no store is refused."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.teacher.store import open_store
from stages.lib.teacher.transfer import bodies, main
from tests.test_teacher_store import asking, fill, key_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the answers 0 to 9."""
    fill(tmp_path / "store" / "answers.jsonl", range(10))
    return tmp_path / "store" / "answers.jsonl"


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
    assert "1 were there (1 of them another answer, which stays)" in caplog.messages[-1]
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


@pytest.mark.parametrize("way", ["import", "export"])
def test_both_wait_for_a_run_that_writes_to_the_store(tmp_path: Path, store: Path, way: str) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(record(50))
    command = [sys.executable, "-m", "stages.lib.teacher.transfer", way, str(file), "--store", str(store)]
    with store.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert "another run writes to" in process.stderr.readline()
            assert file.read_text() == record(50)
            assert key_of(50) not in bodies(store)
            with store.open("a") as writer:
                writer.write(record(60))
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(timeout=60) == 0
    assert set(bodies(store if way == "import" else file)) >= {key_of(50), key_of(60), key_of(0)}
