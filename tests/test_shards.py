"""The layout of data files: one file or a folder of parts, read back to the byte, and refused when a part is lost."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages import filter
from stages.lib.files import DataError, temporary_name
from stages.lib.files.repeats import IN_MEMORY, Repeats
from stages.lib.files.shards import SAME_SIZE, Form, last_line, part_rows, parts_of, writing_parts
from stages.lib.rows import read_rows, write_rows, writing_rows
from stages.lib.rows.question import Question
from stages.lib.training.dataset import ShareGpt
from tests.test_records import filter_arguments

ROOT = Path(__file__).resolve().parents[1]
ADVICE = "Run 'dvc repro collect' to rebuild it."


def questions(count: int) -> list[Question]:
    return [Question(id=f"q{number}", question=f"{number} + 1", answer=str(number + 1)) for number in range(count)]


def read(path: Path) -> list[Question]:
    return list(read_rows(path, Question, ADVICE))


def bytes_of(path: Path) -> bytes:
    return b"".join(part.read_bytes() for part in parts_of(path, ADVICE))


def names_of(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21, 35])
def test_rows_are_read_back_and_only_a_file_of_more_than_shard_rows_is_a_folder(tmp_path: Path, count: int) -> None:
    path, plain = tmp_path / "rows.jsonl", tmp_path / "plain.jsonl"
    assert write_rows(path, questions(count), 10) == count
    write_rows(plain, questions(count))
    assert path.is_file() == (count <= 10)
    assert read(path) == questions(count)
    assert bytes_of(path) == plain.read_bytes(), "the parts one after the other are the file"
    assert names_of(tmp_path) == ["plain.jsonl", "rows.jsonl"]


def test_parts_are_numbered_and_say_how_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    assert names_of(path) == [f"part-0000{number}-of-00003.jsonl" for number in range(3)]
    assert [len(part.read_bytes().splitlines()) for part in parts_of(path, ADVICE)] == [10, 10, 5]


def test_long_files_have_hundreds_of_parts_at_most(tmp_path: Path) -> None:
    sizes = [part_rows(number, 100_000) for number in range(1000)]
    assert (sizes[0], sizes[SAME_SIZE - 1], sizes[SAME_SIZE], sizes[2 * SAME_SIZE]) == (
        *(100_000, 100_000, 200_000, 400_000),
    )
    assert sum(sizes[:100]) == 10_000_000, "ten million rows: a hundred parts"
    assert sum(sizes) > 600_000_000
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(450), 1)
    assert len(names_of(path)) == SAME_SIZE + (450 - SAME_SIZE) // 2
    assert read(path) == questions(450)


def test_a_part_that_is_missing_is_named_before_a_row_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    for name in names_of(path):
        content = (path / name).read_bytes()
        (path / name).unlink()
        with pytest.raises(DataError) as error:
            next(read_rows(path, Question, ADVICE))
        assert str(error.value) == f"{path}: {name} is missing. {ADVICE}"
        (path / name).write_bytes(content)
    assert read(path) == questions(25)


@pytest.mark.parametrize(
    ("part", "kept", "says"),
    [
        (0, 110, "part-00000-of-00003.jsonl:2: not a JSON object"),
        (2, 30, "part-00002-of-00003.jsonl:1: not a JSON object"),
        (0, 9, "part-00000-of-00003.jsonl:1: not a JSON object"),
    ],
)
def test_a_part_that_was_cut_within_a_row_is_refused_in_one_line(
    tmp_path: Path, part: int, kept: int, says: str
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    file = parts_of(path, ADVICE)[part]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError) as error:
        read(path)
    assert says in str(error.value)
    assert ADVICE in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "lines", "says"), [(1, 7, "7 rows, and .*part-00000.* has 10"), (1, 0, "0 rows, and "), (2, 0, "")]
)
def test_a_part_that_was_cut_between_two_rows_is_refused(tmp_path: Path, part: int, lines: int, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    file = parts_of(path, ADVICE)[part]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:lines]))
    with pytest.raises(DataError, match=f"part-0000{part}-of-00003.jsonl: {says}"):
        read(path)


def test_a_first_part_that_was_cut_between_two_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    file = parts_of(path, ADVICE)[0]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:8]))
    with pytest.raises(DataError, match=r"part-00001-of-00003.jsonl: 10 rows, and .*part-00000-of-00003.jsonl has 8"):
        read(path)


def test_parts_of_two_writings_are_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    write_rows(path, questions(25), 10)
    write_rows(other, questions(15), 10)
    (other / "part-00001-of-00002.jsonl").rename(path / "part-00001-of-00002.jsonl")
    with pytest.raises(DataError, match=r"part-00001-of-00002.jsonl is a part of another data file"):
        read(path)


def test_a_folder_without_parts_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder without parts of a data file"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("before", [5, 25])
@pytest.mark.parametrize("after", [5, 25, 35])
def test_a_folder_takes_the_place_of_a_file_and_the_other_way_round(tmp_path: Path, before: int, after: int) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(before), 10)
    write_rows(path, questions(after), 10)
    assert read(path) == questions(after)
    assert names_of(tmp_path) == ["rows.jsonl"]


def test_a_link_into_the_cache_of_dvc_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    cached, path = tmp_path / "cached", tmp_path / "rows.jsonl"
    cached.write_text("cached")
    path.symlink_to(cached)
    write_rows(path, questions(25), 10)
    assert read(path) == questions(25)
    assert cached.read_text() == "cached"


@pytest.mark.parametrize("before", [5, 25])
def test_a_writing_that_fails_leaves_what_was_there(tmp_path: Path, before: int) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(before), 10)

    def failing() -> None:
        with writing_rows(path, 10) as writer:
            for row in questions(33):
                writer.add(row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert read(path) == questions(before)
    assert names_of(tmp_path) == ["rows.jsonl"]


def test_a_killed_writer_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    killed = (
        "import os, sys; from pathlib import Path; from stages.lib.rows import writing_rows\n"
        "from stages.lib.rows.question import Question\n"
        "with writing_rows(Path(sys.argv[1]), 10) as writer:\n"
        "    for number in range(35): writer.add(Question(id=f'q{number}', question='?', answer='1'))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed, path], cwd=ROOT, check=False).returncode == -9
    assert not path.exists()
    write_rows(path, questions(25), 10)
    assert read(path) == questions(25)


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    left = temporary_name(path) / "parts"
    left.mkdir(parents=True)
    (left / "7").write_text("half a row")
    write_rows(path, questions(25), 10)
    assert read(path) == questions(25)
    assert names_of(tmp_path) == ["rows.jsonl"]


@pytest.mark.parametrize("before", [25, 5])
def test_ctrl_c_while_the_old_rows_are_replaced_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(before), 10)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", interrupted)
        write_rows(path, questions(15), 10)
    assert read(path) == questions(before)
    assert names_of(tmp_path) == ["rows.jsonl"]


def test_rows_that_are_replaced_while_they_are_read_are_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    reading = read_rows(path, Question, ADVICE)
    found = [next(reading) for _ in range(3)]
    write_rows(path, [row.model_copy(update={"question": "new"}) for row in questions(25)], 10)
    with pytest.raises(DataError, match="it was replaced while"):
        found.extend(reading)
    assert found == questions(10)


def test_what_a_file_manager_leaves_among_the_parts_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    (path / ".DS_Store").write_bytes(b"\0")
    assert read(path) == questions(25)
    write_rows(path, questions(15), 10)
    assert read(path) == questions(15)


@pytest.mark.parametrize("name", ["rows", "rows.2026-11-28", "rows.jsonl~"])
def test_a_name_with_any_suffix_has_parts_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for count in (25, 15):
        write_rows(path, questions(count), 10)
        assert read(path) == questions(count)


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "notes"
    mine.mkdir()
    (mine / "part-00000-of-00001.jsonl").write_text("a part")
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="so nothing replaces it"):
        write_rows(mine, questions(25), 10)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_a_key_that_stands_in_two_parts_is_named_with_both_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [*questions(25), questions(3)[2]], 10)
    first, *_, last = parts_of(path, ADVICE)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == f"{last}:6: id 'q2' was at {first}:3 already. {ADVICE}"


def test_repeated_hashes_are_found_beyond_what_memory_holds() -> None:
    repeats = Repeats()
    for number in range(3 * IN_MEMORY + 5):
        repeats.add(number * 2654435761 - 2**40)
    assert repeats.found() == set()
    early, late = 7 * 2654435761 - 2**40, (2 * IN_MEMORY + 9) * 2654435761 - 2**40
    for value in (late, early, 3):
        repeats.add(value)
    assert repeats.found() == {early, late}


def test_the_library_datasets_reads_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    path = tmp_path / "rows.jsonl"
    write_rows(path, questions(25), 10)
    expected = [row.id for row in questions(25)]
    for given in ({"data_files": f"{path}/*.jsonl"}, {"data_dir": str(path)}):
        found = load_dataset("json", split="train", cache_dir=str(tmp_path / "cache"), **given)
        assert found["id"][:] == expected


STAGES: dict[str, dict[str, str]] = {  # the files of each, by option
    "collect": {"questions": "collected.jsonl", "heldout": "heldout.jsonl", "left-out": "left_out.jsonl"},
    "difficulty": {"collected": "collected.jsonl", "questions": "questions.jsonl", "too-easy": "too_easy.jsonl"},
    "distill": {"questions": "questions.jsonl", "distilled": "distilled.jsonl", "failures": "failures.jsonl"},
    "filter": {"distilled": "distilled.jsonl"}
    | {name: f"{name}.jsonl" for name in ("filtered", "rejected", "control", "disagreements")},
    "convert": {"rows": "filtered.jsonl", "out": "filtered", "lengths": "lengths.csv"},
    "traces": {"heldout": "heldout.jsonl", "rows": "own.jsonl", "left-out": "own_left_out.jsonl"},
}


def traces_of(table: Path) -> dict[str, Any]:
    """The params of a table of eleven traces, which is written."""
    rows = [{"question": f"{number} + 2?", "text": "<think>I add.</think>It is 9."} for number in range(11)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"form": "tagged", "question": "question", "text": "text", "correct": []}
    source = {"kind": "file", "path": str(table), "columns": columns, "gold": None, "model": "other"}
    return {"own": {"source": source, "where": {}, "first": None, "samples_per_question": None}}


@pytest.mark.heavy
def test_the_stages_before_the_training_write_and_read_the_same_bytes_in_parts(
    runs: Callable[..., Result], project_params: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"collect.train_size": 22, "collect.heldout_size": 6, "traces": traces_of(tmp_path / "table.jsonl")}
    more = {"distill": ("--store", tmp_path / "answers.jsonl"), "traces": ("--name", "own")}
    folders = {most: tmp_path / str(most) for most in (1000, 4)}
    for most, folder in folders.items():
        params = project_params(changes | {"run.shard_rows": most})
        for stage, files in STAGES.items():
            command = importlib.import_module(f"stages.{stage}").main
            options = [part for name, file in files.items() for part in (f"--{name}", folder / file)]
            options += ["--metrics", folder / f"{stage}.json", "--params", params]
            runs(command, *options, *more.get(stage, ()))
    names = [name for name in names_of(folders[4]) if name != "filtered"]
    assert names == [name for name in names_of(folders[1000]) if name != "filtered"]
    for name in names:
        assert bytes_of(folders[4] / name) == (folders[1000] / name).read_bytes(), name
    long = {"collected", "control", "distilled", "filtered", "heldout", "own", "questions", "rejected"}
    assert {path.stem for path in folders[4].glob("*.jsonl") if path.is_dir()} == long
    assert len(names_of(folders[4] / "filtered" / "filtered.json")) > 1
    assert [*ShareGpt(folders[4] / "filtered")] == [*ShareGpt(folders[1000] / "filtered")]


def test_a_lost_part_of_a_sharegpt_dataset_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "few"
    turn = {"conversations": [{"from": "user", "value": "1 + 1"}, {"from": "assistant", "value": "2"}]}
    with writing_parts(folder / "few.json", 2, Form(b"[", b",", b"]")) as parts:
        for _ in range(5):
            parts.add(json.dumps(turn).encode())
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant"}
    info = {"few": {"file_name": "few.json", "tags": tags | {"system_tag": "system"}}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert ShareGpt(folder).shape.rows == 5
    (folder / "few.json" / "part-00001-of-00003.json").unlink()
    with pytest.raises(DataError, match=r"few\.json: part-00001-of-00003\.json is missing"):
        [*ShareGpt(folder)]


def test_a_lost_part_stops_a_stage_with_one_line(
    refuses: Callable[..., str], distilled_file: Callable[..., Path]
) -> None:
    rows = distilled_file({})
    folder = rows.with_name("folder.jsonl")
    folder.mkdir()
    rows.rename(folder / "part-00000-of-00002.jsonl")
    line = refuses(filter.main, *filter_arguments(folder))
    assert line == f"{folder}: part-00001-of-00002.jsonl is missing. Run 'dvc repro distill' to rebuild it."


PIPELINE = """\
stages:
  rows:
    cmd: {python} -c "{code}" rows.jsonl count
    deps: [count]
    outs: [rows.jsonl]
"""
WRITE = (
    "import sys; from pathlib import Path; from stages.lib.rows import write_rows; "
    "from stages.lib.rows.question import Question; "
    "write_rows(Path(sys.argv[1]), (Question(id=str(n), question='?', answer='1') "
    "for n in range(int(Path(sys.argv[2]).read_text()))), 10)"
)


@pytest.mark.heavy
def test_dvc_sees_one_output_whether_it_is_a_file_or_a_folder(tmp_path: Path) -> None:
    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    dvc("init", "--no-scm", "-q")
    (tmp_path / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable, code=WRITE))
    path, counts = tmp_path / "rows.jsonl", tmp_path / "count"
    for count in (5, 25, 8):
        counts.write_text(str(count))
        dvc("repro", "-q")
        assert len(read(path)) == count
        assert path.is_dir() == (count > 10)
        assert "up to date" in dvc("status")
    counts.write_text("25")
    dvc("repro", "-q")
    shutil.rmtree(path)
    dvc("checkout", "-q")
    assert [row.id for row in read(path)] == [str(number) for number in range(25)], "restored from the cache"


@pytest.mark.parametrize("rows", [[b"a"], [b"a", b"b" * 200_000], [b"a" * 200_000, b"b"], [b"a", b"b", b"c", b"d"]])
def test_the_last_line_is_found_from_the_end(tmp_path: Path, rows: list[bytes]) -> None:
    with writing_parts(tmp_path / "x.jsonl", 3) as parts:
        for row in rows:
            parts.add(row + b"\n")
    assert last_line(tmp_path / "x.jsonl", "") == rows[-1]
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert last_line(tmp_path / "empty.jsonl", "") == b""
