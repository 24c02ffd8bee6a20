"""What the store holds and what it cost: every entry in one line of the table, every doubt in one beneath it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.store.answer_store import open_store, request_key
from stages.lib.store_tools.ledger import main

ROOT = Path(__file__).resolve().parents[1]
# not getrusage: its peak is also that of the process that started this one
MEMORY = "import sys; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"


def request(model: str, number: int, endpoint: str = "http://127.0.0.1/v1") -> dict[str, Any]:
    return {"endpoint": endpoint, "model": model, "messages": [{"role": "user", "content": "?"}], "sample": number}


def body(usage: object = None, length: int = 10) -> str:
    message = {"content": "5", "reasoning_content": "x" * length}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


def fill(path: Path, *answers: tuple[dict[str, Any], str]) -> None:
    with open_store(path) as store:

        async def put_all() -> None:
            await asyncio.gather(*(store.put(request_key(asked), asked, text.encode()) for asked, text in answers))

        asyncio.run(put_all())


@pytest.fixture
def table(tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]) -> Callable[[], list[str]]:
    """The lines that the command prints, with a price for the models ``r1`` and ``v3``; spaces run together."""
    price = {"input": 4.0, "cached_input": 1.0, "output": 16.0}
    prices = {"run.prices.models": {"r1": price, "v3": {**price, "output": 8.0}}, "run.prices.date": "2025-03"}

    def lines() -> list[str]:
        params = project_params(prices)
        output = runs(main, "--store", tmp_path / "answers.jsonl", "--params", params).stdout
        return [" ".join(line.split()) for line in output.splitlines() if line]

    return lines


def test_each_model_of_each_endpoint_has_its_line_and_all_have_their_sum(
    tmp_path: Path, table: Callable[[], list[str]]
) -> None:
    half = body({"prompt_tokens": 500_000, "completion_tokens": 500_000})
    cached = body({"prompt_tokens": 500_000, "completion_tokens": 0, "prompt_cache_hit_tokens": 500_000})
    fill(
        tmp_path / "answers.jsonl",
        (request("r1", 0), half),
        (request("v3", 0), half),
        (request("r1", 1), cached),
        (request("r1", 0, "http://127.0.0.2/v1"), half),
    )
    _, heading, *lines = table()
    assert heading == "model endpoint entries size prompt cached completion cost"
    assert [line.replace(" kB", "kB") for line in lines] == [
        "r1 http://127.0.0.1/v1 2 0.4kB 1,000,000 500,000 500,000 10.50 CNY",
        "r1 http://127.0.0.2/v1 1 0.2kB 500,000 0 500,000 10.00 CNY",
        "v3 http://127.0.0.1/v1 1 0.2kB 500,000 0 500,000 6.00 CNY",
        "all 4 0.7kB 2,000,000 500,000 1,500,000 26.50 CNY",
        "Prices per million tokens of 2025-03 (run.prices in params.yaml).",
    ]


def test_a_model_without_a_price_says_so_and_is_not_in_the_sum(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    million = body({"prompt_tokens": 1_000_000})
    fill(tmp_path / "answers.jsonl", (request("r1", 0), million), (request("other", 0), million))
    lines = table()
    assert lines[2].endswith("1,000,000 0 0 no price")
    assert lines[4].endswith("2,000,000 0 0 4.00 CNY")
    assert lines[6] == "The sum lacks the models that have no price."


def test_without_any_price_there_is_no_sum_of_costs(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    fill(tmp_path / "answers.jsonl", (request("other", 0), body({"prompt_tokens": 1})))
    assert [line.endswith("1 0 0 no price") for line in table()] == [False, False, True, True]


def test_what_is_not_read_or_not_counted_is_said(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    bodies = ["", "no JSON", '{"choices": []}', body(None), body({"prompt_tokens": "many"}), body({"prompt_tokens": 7})]
    fill(tmp_path / "answers.jsonl", *((request("r1", number), text) for number, text in enumerate(bodies)))
    lines = table()
    assert lines[2].startswith("r1 http://127.0.0.1/v1 6 ")
    assert " 7 0 0 " in lines[2]
    assert lines[-2:] == [
        "2 answers state no tokens, so their cost is not in it.",
        "3 bodies are unreadable: counted as entries, without tokens.",
    ]


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    (line,) = table()
    assert line.startswith(f"{tmp_path / 'answers.jsonl'}: no answers were received here yet")
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_long_endpoint_is_shortened(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    fill(tmp_path / "answers.jsonl", (request("r1", 0, "embedded:" + "x" * 300), body()))
    assert max(len(line) for line in table()[1:]) < 120


def test_a_line_that_is_no_record_is_named(
    tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, (request("r1", 0), body()))
    with path.open("a") as file:
        file.write("{}\n")
    line = refuses(main, "--store", path, "--params", project_params())
    assert line.startswith(f"{path}:2: not a record of the store")


def test_counting_disturbs_no_run_that_writes(tmp_path: Path, table: Callable[[], list[str]]) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, (request("r1", 0), body()))
    with path.open("ab") as file:
        file.write(b'{"key":"half of')
    before = path.read_bytes()
    assert table()[2].startswith("r1 http://127.0.0.1/v1 1 ")
    assert path.read_bytes() == before


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
def test_a_large_store_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    peaks = []
    for entries in (10, 2_000):
        path = tmp_path / f"{entries}.jsonl"
        fill(path, *((request("r1", number), body(length=20_000)) for number in range(entries)))
        script = f"from stages.lib.store_tools.ledger import main; main(standalone_mode=False); {MEMORY}"
        command = [sys.executable, "-c", script, "--store", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert f" {entries:,} " in done.stdout
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < peaks[0] + 10_000, "kB; the large store has 40 MB"
