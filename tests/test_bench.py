"""The benchmark of asking: its ideal is the least time, its mock keeps the drawn times, each way is answered."""

import time
import urllib.request
from itertools import islice
from pathlib import Path

import click
import pytest

from benchmarks.measuring import measured, remove_rows, rows_in, table
from benchmarks.mock_teacher import latencies, mock_teacher
from benchmarks.teacher import OURS, TWICE, WAYS, BenchmarkRun, Load, ideal_wall_s
from stages.lib.files.shards import writing_parts


@pytest.mark.parametrize(
    ("drawn", "workers", "wall"),
    [
        ([], 3, 0.0),
        ([1.0, 1.0, 1.0], 1, 3.0),
        ([1.0, 1.0, 1.0], 2, 2.0),
        ([1.0, 1.0, 1.0], 9, 1.0),
        ([3.0, 1.0, 1.0, 1.0], 2, 3.0),
        ([1.0, 1.0, 1.0, 3.0], 2, 4.0),  # in the order in which they are drawn
    ],
)
def test_the_ideal_gives_each_question_to_the_first_worker_that_is_free(
    drawn: list[float], workers: int, wall: float
) -> None:
    assert ideal_wall_s(drawn, workers) == wall


def test_latencies_are_drawn_by_the_seed_around_the_median() -> None:
    drawn = list(islice(latencies(1.0, 0.7, seed=2), 2001))
    assert drawn == list(islice(latencies(1.0, 0.7, seed=2), 2001))
    assert drawn != list(islice(latencies(1.0, 0.7, seed=3), 2001))
    assert sorted(drawn)[1000] == pytest.approx(1.0, abs=0.1)
    assert set(islice(latencies(0.2, 0.0, seed=2), 9)) == {0.2}


def test_the_mock_keeps_the_times_that_were_drawn_and_says_what_it_saw() -> None:
    with mock_teacher(0.1, 0.7, seed=2) as teacher:
        for latency in islice(latencies(0.1, 0.7, seed=2), 5):
            started = time.monotonic()
            urllib.request.urlopen(f"{teacher.base_url}/chat/completions", data=b"{}").read()
            assert latency - 0.002 < time.monotonic() - started < latency + 1
    assert (teacher.seen["answered"], teacher.seen["most_at_once"]) == (5, 1)


@pytest.mark.heavy
@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_answered_whatever_it_asks(way: str, tmp_path: Path) -> None:
    run = BenchmarkRun(tmp_path)
    run.startup_cpu_s[way] = 0.0
    row = run.row(Load("at once", 0.0, 0.0, 4), way, asked=20)
    assert (row.answered, row.seen["answered"]) == (20, 20)
    assert 1 <= row.seen["most_at_once"] <= row.concurrency
    assert row.used.wall_s > row.seen["asking_s"] > 0
    assert run.cpu_ms(row) == pytest.approx(row.used.cpu_s / 19 * 1000)
    assert (tmp_path / "store.jsonl").exists() == (way in (OURS, TWICE))


def test_a_command_that_fails_ends_the_benchmark_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="exit code 3: the reason"):
        measured(["sh", "-c", "echo begun; echo the reason >&2; exit 3"], tmp_path / "log")


@pytest.mark.parametrize("shard_rows", [None, 2])
def test_rows_are_counted_and_removed_in_one_file_and_in_parts(shard_rows: int | None, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with writing_parts(path, shard_rows) as parts:
        for number in range(5):
            parts.add(b'{"id": "%d"}\n' % number)
    assert path.is_dir() == bool(shard_rows)
    assert rows_in(path) == 5
    remove_rows(path)
    assert not path.exists()
    remove_rows(path)


def test_a_table_is_markdown_with_even_columns() -> None:
    assert table(["way", "n"], [["ours", "1"], ["raw", "1,000"]]).splitlines() == [
        "| way  | n     |",
        "| ---- | ----- |",
        "| ours | 1     |",
        "| raw  | 1,000 |",
    ]
