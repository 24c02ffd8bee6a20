"""Rows on disk: what a reader forgives, what it refuses and how, and that nothing half-written is left behind.

Bad files go through the real stages that read them, so what is tested is the line that a user sees.
"""

import json
import os
import resource
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from stages import convert, filter
from stages.lib.command import READ, one_line_errors
from stages.lib.rows import DataError, read_rows, read_some_rows, write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import Question

ROOT = Path(__file__).resolve().parents[1]
GOOD = (
    b'{"id":"q0","question":"What is 2 + 3?","answer":"5","solution":null,"source":"here","sample":0,"reasoning":"",'
    b'"response":"5","finish_reason":"stop","model":"m","usage":{}}\n'
)
SECOND = GOOD.replace(b'"q0"', b'"q1"')
FILTER_OUTPUTS = ("filtered", "rejected", "control", "disagreements", "metrics")


def filter_arguments(rows: Path, **instead: object) -> list[object]:
    folder = rows.parent
    outs = {name: folder / name for name in FILTER_OUTPUTS} | instead
    return ["--distilled", rows, "--params", ROOT / "params.yaml"] + [
        part for name, path in outs.items() for part in (f"--{name}", path)
    ]


def convert_arguments(rows: Path, **instead: object) -> list[object]:
    outs = {"out": rows.parent / "dataset", "metrics": rows.parent / "metrics"} | instead
    outs |= {"lengths": rows.parent / "lengths"}
    return ["--rows", rows, "--params", ROOT / "params.yaml"] + [
        part for name, path in outs.items() for part in (f"--{name}", path)
    ]


READERS = [
    pytest.param(filter.main, filter_arguments, id="filter"),
    pytest.param(convert.main, convert_arguments, id="convert"),
]

BAD_FILES = [
    pytest.param(GOOD + b'{"id": "q1", "question"\n', ":2: not a JSON object", id="a broken line"),
    pytest.param(GOOD + SECOND[:60], ":2: not a JSON object", id="a line cut off in the middle"),
    pytest.param(GOOD + b"\n", ":2: not a JSON object", id="an empty line"),
    pytest.param(GOOD + b"[1, 2]\n", ":2: Input should be an object", id="a list for an object"),
    pytest.param(GOOD.replace(b'"response":"5",', b""), ":1: no field 'response'", id="a missing field"),
    pytest.param(GOOD.replace(b'"sample":0', b'"sample":"0"'), ":1: field 'sample': ", id="a text for a number"),
    pytest.param(GOOD.replace(b'"answer":"5"', b'"answer":5'), ":1: field 'answer': ", id="a number for a text"),
    pytest.param(GOOD.replace(b'"answer":"5"', b'"answer":""'), ":1: field 'answer': ", id="an empty gold answer"),
    pytest.param(GOOD + SECOND + GOOD, ":3: id 'q0#0' was at ", id="an id that came before"),
    pytest.param(b"", ": there is nothing in it", id="an empty file"),
    pytest.param(GOOD.replace(b"What is", "什么是".encode("gb18030")), ":1: not UTF-8 (byte 0xca", id="GB18030"),
    pytest.param(GOOD.decode().encode("utf-16"), ":1: not UTF-8 (byte 0xff at 0)", id="UTF-16"),
    pytest.param(GOOD.replace(b"What is", b"\\ud83d"), ":1: not a JSON object", id="half a surrogate pair"),
]


@pytest.mark.parametrize(("command", "arguments"), READERS)
@pytest.mark.parametrize(("content", "complaint"), BAD_FILES)
def test_a_bad_file_is_named_by_file_and_line(
    command: click.Command,
    arguments: Callable[[Path], list[object]],
    content: bytes,
    complaint: str,
    refuses: Callable[..., str],
    tmp_path: Path,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(content)
    line = refuses(command, *arguments(rows))
    assert line.startswith(f"{rows}{complaint}")
    assert "Run 'dvc repro " in line
    assert list(tmp_path.iterdir()) == [rows]


@pytest.mark.parametrize(("command", "arguments"), READERS)
def test_a_missing_input_is_named(
    command: click.Command,
    arguments: Callable[[Path], list[object]],
    refuses: Callable[..., str],
    tmp_path: Path,
) -> None:
    rows = tmp_path / "rows.jsonl"
    assert refuses(command, *arguments(rows)).startswith(f"{rows}: no such file. Run 'dvc repro ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GOOD + SECOND.rstrip(b"\n"), id="no final newline"),
        pytest.param((GOOD + SECOND).replace(b"\n", b"\r\n"), id="CRLF line ends"),
        pytest.param(b"\xef\xbb\xbf" + GOOD + SECOND, id="a byte order mark"),
        pytest.param(GOOD.replace(b'"usage":{}', b'"usage":{},"later":1') + SECOND, id="a field of a later version"),
    ],
)
def test_harmless_differences_of_form_read_the_same(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + SECOND)
    plain = read_some_rows(path, Distilled, "")
    path.write_bytes(content)
    assert read_some_rows(path, Distilled, "") == plain


def test_a_byte_order_mark_further_down_is_refused(refuses: Callable[..., str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(GOOD + b"\xef\xbb\xbf" + SECOND)
    assert refuses(filter.main, *filter_arguments(rows)).startswith(f"{rows}:2: not a JSON object")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_separator_inside_a_text_is_no_line_end(
    separator: str, runs: Callable[..., Result], distilled_file: Callable[..., Path]
) -> None:
    text = f"two{separator}lines: the answer is 5"
    rows = distilled_file({"response": text}, {})
    raw = [json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in rows.open()]
    rows.write_bytes("".join(raw).encode())
    runs(filter.main, *filter_arguments(rows))
    kept = (rows.parent / "filtered").read_bytes().split(b"\n")
    assert [json.loads(line)["response"] for line in kept[:-1]] == [text, "The answer is 5."]
    assert kept[-1] == b""


def test_a_written_file_reads_back_and_writes_again_as_the_same_bytes(tmp_path: Path) -> None:
    rows = [
        Question(id="中-1", question='a "quoted"\n\u2028\ttext', answer="½", solution=None, source="here"),
        Question(id="2", question="😀", answer="5", solution="", source="here"),
    ]
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert write_rows(first, rows) == 2
    read = read_some_rows(first, Question, "")
    write_rows(second, read)
    assert read == rows
    assert second.read_bytes() == first.read_bytes()


def test_reading_takes_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"broken\n")
    assert next(read_rows(path, Distilled, "")).id == "q0"


class Hashed(str):
    """A key whose hash is chosen."""

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self)


class Alike(Question):
    """Rows whose keys all have the same hash if they are equally long."""

    @property
    def key(self) -> str:
        return Hashed(self.id)


def test_of_keys_that_stand_twice_the_first_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    ids = [*(f"q{number}" for number in range(3000)), "q7", "q2", "q7"]
    path.write_text("".join(f'{{"id": "{each}", "question": "1 + 1", "answer": "2"}}\n' for each in ids))
    with pytest.raises(DataError) as error:
        list(read_rows(path, Question, "Mend it."))
    assert str(error.value) == f"{path}:3001: id 'q7' was at {path}:8 already. Mend it."


def test_keys_that_share_a_hash_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [f'{{"id": "{number}", "question": "1 + 1", "answer": "2"}}\n' for number in range(10, 60)]
    path.write_text("".join(rows))
    assert len(list(read_rows(path, Alike, ""))) == 50
    path.write_text("".join([*rows, rows[20]]))
    with pytest.raises(DataError, match=r":51: id '30' was at .*rows\.jsonl:21 already"):
        list(read_rows(path, Alike, ""))


def test_reading_holds_a_few_bytes_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"id": "{number:0100}", "question": "q", "answer": "5"}}\n' for number in range(20_000))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path, Question, "")) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 * 60, "a dict of the keys takes four times as much"


@pytest.mark.parametrize(
    "value",
    [
        '\x00\x1f\x7f\u2028"\\/',
        "思 𝄞",
        1e-7,
        1.5e300,
        5e-324,
        -0.0,
        0.1,
        2**63,
        -(2**63),
        2**127,
        [],
        {"a": [None, True]},
    ],
)
def test_a_line_is_the_bytes_of_pydantic_s_json(value: object) -> None:
    row = Distilled.model_validate_json(GOOD).model_copy(update={"usage": {"value": value}})
    assert row.line() == row.model_dump_json().encode() + b"\n"


def test_writing_that_fails_midway_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("the old file")

    def rows() -> Iterator[Question]:
        yield Question(id="1", question="q", answer="5")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, rows())
    assert path.read_text() == "the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "data" / "deep" / "rows.jsonl"
    write_rows(path, [Question(id="1", question="q", answer="5")])
    assert path.is_file()


@pytest.fixture
def full_device(tmp_path: Path) -> Iterator[Path]:
    """A name for /dev/full in a folder of our own: code that replaced it would replace the link, not the device."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    yield link
    assert link.is_symlink()
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("output", ["filtered", "rejected", "control", "metrics"])
def test_filter_names_the_output_for_which_there_is_no_space(
    output: str, full_device: Path, refuses: Callable[..., str], distilled_file: Callable[..., Path]
) -> None:
    rows = distilled_file({}, {"response": "The answer is 6."})
    line = refuses(filter.main, *filter_arguments(rows, **{output: full_device}))
    assert line.startswith(f"{full_device}: No space left on device. ")
    assert not (rows.parent / "metrics").exists()


@pytest.mark.parametrize("output", ["metrics", "out"])
def test_convert_names_the_output_for_which_there_is_no_space(
    output: str, full_device: Path, refuses: Callable[..., str], distilled_file: Callable[..., Path]
) -> None:
    rows = distilled_file({})
    dataset = rows.parent / "dataset"
    if output == "out":
        dataset.mkdir()
        (dataset / "dataset.json").symlink_to(full_device)
        line = refuses(convert.main, *convert_arguments(rows))
        assert line.startswith(f"{dataset / 'dataset.json'}: No space left on device. ")
    else:
        line = refuses(convert.main, *convert_arguments(rows, metrics=full_device))
        assert line.startswith(f"{full_device}: No space left on device. ")


def test_a_device_is_written_to_and_never_replaced(refuses: Callable[..., str], full_device: Path) -> None:
    @click.command()
    @click.option("--out", type=READ)
    @one_line_errors
    def write(out: Path) -> None:
        write_rows(out, [Question(id="1", question="q", answer="5")])

    assert refuses(write, "--out", "/dev/full").startswith("/dev/full: No space left on device")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_pipe_takes_rows_as_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_rows(pipe, [Question(id="1", question="q", answer="5")])
        output, _ = reader.communicate()
    assert json.loads(output)["id"] == "1"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_disk_that_fills_up_leaves_the_old_output_and_no_half_of_a_new_one(
    distilled_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Python would leave cut modules behind
    rows = distilled_file(*[{}] * 100)
    filtered = rows.parent / "filtered"
    filtered.write_text("the old file")
    command = [sys.executable, "-m", "stages.filter", *map(str, filter_arguments(rows))]
    run = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"Error: {filtered}: File too large. ")
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""
    assert filtered.read_text() == "the old file"
    assert sorted(path.name for path in rows.parent.iterdir()) == ["distilled.jsonl", "filtered"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_named(
    refuses: Callable[..., str], distilled_file: Callable[..., Path]
) -> None:
    rows = distilled_file({})
    locked = rows.parent / "locked"
    locked.mkdir(mode=0o500)
    line = refuses(filter.main, *filter_arguments(rows, filtered=locked / "filtered.jsonl"))
    assert str(locked) in line
    assert "Permission denied" in line


def test_an_output_below_a_file_is_named(refuses: Callable[..., str], distilled_file: Callable[..., Path]) -> None:
    rows = distilled_file({})
    line = refuses(filter.main, *filter_arguments(rows, filtered=rows / "filtered.jsonl"))
    assert line.startswith(f"{rows}")
    assert "Not a directory" in line or "File exists" in line


def test_a_folder_given_for_an_output_file_is_named(
    refuses: Callable[..., str], distilled_file: Callable[..., Path]
) -> None:
    rows = distilled_file({})
    folder = rows.parent / "folder"
    folder.mkdir()
    line = refuses(filter.main, *filter_arguments(rows, filtered=folder))
    assert line.startswith(f"{folder}: a folder, but not of a data file's parts alone")
    assert folder.is_dir()


def test_a_refused_stage_prints_one_line_and_nothing_else_as_a_process_too(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(GOOD + b"broken\n")
    command = [sys.executable, "-m", "stages.filter", *map(str, filter_arguments(rows))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(f"Error: {rows}:2: ")
    assert len(run.stderr.splitlines()) == 1
