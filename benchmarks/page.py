"""Measure the page of a large run in Chromium: its size, the first paint, opening the rows, searches, a 2×2 table.

    python -m benchmarks.page [--questions 1000] [--arms 5] [--benchmarks 4] [--characters 100 1000]
    python -m benchmarks.page --characters 2000 8000     # as long as R1's answers

The answers are put together from texts of benchmarks/answers.jsonl, or of another file with ``question``, ``response``
and ``answer`` in each line, with other numbers, so that no two are the same text. A search is the median of three. It
is timed from the query to the list of its rows. Beside it are the CPU time of the page's process, which other programs
do not lengthen, and the longest time that the page was blocked meanwhile.
"""

import itertools
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.measuring import machine
from stages.lib.comparison.results import Arm, Comparison
from stages.lib.page import Page, render, sibling, sibling_name
from stages.lib.page.flow import Step
from stages.lib.page.packing import MB, PackedRows, pack
from stages.lib.page.rows import Sources, entries
from stages.lib.rows.evaluated import Evaluated

HERE = Path(__file__).parent
FLAGS = ("task_stop", "no_end_marker", "unread", "other_language", "looping")
QUERIES = (
    "pencils",
    "train hours",
    '"the answer is"',
    "糖",
    "no such words at all",
    r"/\d+ pencils? left/",
    r"/(\d)\1{4}/",  # no piece of it is fixed, so all texts are read
)
ENDLESS = "/(\\w+\\s?)+$%/"


@click.command(help="Measure the page of a large run in headless Chromium.")
@click.option("--questions", default=1000, show_default=True, help="Questions of each benchmark.")
@click.option("--arms", default=5, show_default=True, help="Arms, base included.")
@click.option("--benchmarks", default=4, show_default=True, help="Benchmarks.")
@click.option(
    "--characters", default=(100, 1000), show_default=True, type=(int, int), help="Of an answer, at least and at most."
)
@click.option(
    "--texts", default=HERE / "answers.jsonl", type=click.Path(path_type=Path), help="Of which answers are made."
)
@click.option("--max-mb", default=20.0, show_default=True, help="report.max_mb.")
def main(questions: int, arms: int, benchmarks: int, characters: tuple[int, int], texts: Path, max_mb: float) -> None:
    click.echo(machine())
    names = ["base", *(f"arm-{index}" for index in range(1, arms))]
    tasks = [f"benchmark-{index}" for index in range(1, benchmarks + 1)]
    real = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    students = {arm: list(answers(arm, tasks, questions, characters, real)) for arm in names}
    found = list(entries(Sources([], [], [], [], [], [], [], students)))
    started = time.perf_counter()
    packed = pack(found, max_mb)
    done = time.perf_counter()
    mean = sum(len(entry.row["text"]) for entry in found) / packed.total
    click.echo(f"rows {packed.total:,}, {mean:,.0f} characters of answer each; {packed.inside:,} in the page")
    click.echo(f"packed in {done - started:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        path.write_text(render(page(packed, names, tasks)), encoding="utf-8")
        for number, chunks in enumerate(packed.siblings, start=1):
            path.with_name(sibling_name(number)).write_text(sibling(chunks))
        beside = sum(each.stat().st_size for each in path.parent.glob("*.js")) / MB
        click.echo(f"page {path.stat().st_size / MB:.1f} MB, beside it {beside:.1f} MB")
        measure(path)


def answers(
    arm: str, tasks: list[str], questions: int, characters: tuple[int, int], real: list[dict[str, Any]]
) -> Iterator[Evaluated]:
    """An arm's answers: texts in another order, with other numbers, up to a length that is drawn."""
    for task, index in itertools.product(tasks, range(questions)):
        draw = random.Random(f"{arm}/{task}/{index}")
        source = real[index % len(real)]
        right = draw.random() < 0.5
        last, length = source["response"], draw.randint(*characters)
        parts: list[str] = []
        while sum(map(len, parts)) + len(last) < length:
            parts.append(varied(draw.choice(real)["response"], draw))
        yield Evaluated.model_validate(
            {
                "id": f"{task}-{index}",
                "benchmark": task,
                "task": task,
                "cluster": f"{task}-{index}",
                "language": None,
                "question": f"{index}. {source['question']}",
                "answer": str(source["answer"]),
                "prompt": "",
                "response": "\n\n".join([*parts, last])[-length:],
                "prediction": str(source["answer"]) if right else "0",
                "verdict": None,  # no part of the answer is marked: the rule's time is that of benchmarks/workers.py
                "decided_by": "rule:label",
                "lm_eval": right,
                "correct": right,
                "tokens": draw.randint(40, 4000),
                "cut_off": draw.random() < 0.02,
                **dict.fromkeys(FLAGS, False),
                **dict.fromkeys(["doc_hash", "prompt_hash", "target_hash"], ""),
            }
        )


def varied(text: str, draw: random.Random) -> str:
    """The text with other numbers."""
    return re.sub(r"\d+", lambda found: str(draw.randrange(10 ** min(len(found[0]), 6))), text)


def page(packed: PackedRows, arms: list[str], tasks: list[str]) -> Page:
    """A page with nothing but these rows."""
    of_task = {"headline": "verifier", "value": 0.5, "low": 0.4, "high": 0.6, "correct": 0, "n": 1}
    arm = {"training": None, "system_prompt": None, "benchmarks": dict.fromkeys(tasks, of_task)}
    compared = {name: Arm.model_validate(arm) for name in arms}
    return Page(
        teachers=["none"],
        student="none",
        comparison=Comparison(confidence=0.95, arms=compared, pairs={}, warnings=[]),
        flow=[Step("collect", 1, [])],
        branches=[],
        pass_rates=None,
        marks=None,
        reviews=None,
        datasets={},
        trainings={},
        kept=[],
        rejected=[],
        answers={},
        rows=packed,
        sample=None,
        people=[],
        seed=0,
        inputs=[],
        data_hash="0" * 64,
    )


def measure(path: Path) -> None:
    """Open the page in Chromium and print what it took."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page()
        started = time.perf_counter()
        shown.goto(path.as_uri(), wait_until="commit")
        shown.wait_for_selector("html[data-ready]", timeout=120_000)
        ready = time.perf_counter() - started
        paint = shown.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        click.echo(f"first paint {paint:.0f} ms, the rows of the page open after {ready * 1000:.0f} ms")
        if shown.locator("#siblings").count():
            started = time.perf_counter()
            shown.click("#siblings")
            shown.wait_for_selector("#siblings[hidden]", state="attached", timeout=300_000)
            click.echo(f"the other rows open after {time.perf_counter() - started:.1f} s")
        shown.click("#views a[data-view=rows]")
        processes = browser.new_browser_cdp_session()
        searched(shown, processes, "first search")  # once the worker has all rows
        for query in QUERIES:
            took = [searched(shown, processes, query + " " * turn) for turn in range(3)]
            click.echo(f"search {query}: {line(took)}, {shown.locator('#rows-found').inner_text()}")
        ended = searched(shown, processes, ENDLESS)
        click.echo(f"search {ENDLESS}: {line([ended])}, {shown.locator('#search-error').inner_text()[:40]}")
        started = time.perf_counter()
        shown.click("#views a[data-view=flips]")
        shown.wait_for_selector("#flips-table table")
        click.echo(f"2×2 table and list {1000 * (time.perf_counter() - started):.0f} ms")
        browser.close()


@dataclass(frozen=True)
class Took:
    """Milliseconds: from a query to its rows; the longest gap between two ticks of the page; CPU of its threads."""

    wall: float
    blocked: float
    cpu: float


def line(took: list[Took]) -> str:
    """The medians."""
    wall, blocked, cpu = (
        median(each) for each in zip(*((one.wall, one.blocked, one.cpu) for one in took), strict=True)
    )
    return f"{wall:.0f} ms, CPU {cpu:.0f} ms, page blocked for {blocked:.0f} ms"


def cpu_ms(processes: Any) -> float:
    """The CPU time so far of the page's process: the page's thread, the search's and those that draw."""
    found = processes.send("SystemInfo.getProcessInfo")["processInfo"]
    return 1000 * float(sum(each["cpuTime"] for each in found if each["type"] == "renderer"))


def searched(shown: Any, processes: Any, query: str) -> Took:
    """Time one search. The page keeps the last result, so a repeated query must be written in another way."""
    shown.fill("#search", "")
    shown.wait_for_timeout(500)
    shown.evaluate(
        """() => {
          delete document.getElementById("rows-found").dataset.took;
          window.longest = 0;
          let before = performance.now();
          clearInterval(window.ticking);
          window.ticking = setInterval(() => {
            window.longest = Math.max(window.longest, performance.now() - before);
            before = performance.now();
          }, 5);
        }"""
    )
    before = cpu_ms(processes)
    shown.fill("#search", query)
    shown.wait_for_selector("#rows-found[data-took]", state="attached", timeout=120_000)
    used = cpu_ms(processes) - before
    return Took(
        float(shown.locator("#rows-found").get_attribute("data-took")), float(shown.evaluate("window.longest")), used
    )


if __name__ == "__main__":
    main()
