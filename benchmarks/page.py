"""Measure the page of a large run in Chromium: its size, the first paint, opening the rows, a search, a 2×2 table.

    python -m benchmarks.page [--questions 1000] [--arms 5] [--benchmarks 4]

The answers are those of benchmarks/answers.jsonl, repeated with other numbers and several in a row, so that no two
are the same text.
"""

import itertools
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from stages.lib.page.packing import MB, PackedRows, pack
from stages.lib.page.rows import Sources, entries
from stages.lib.rows.evaluated import Evaluated

HERE = Path(__file__).parent
FLAGS = ("task_stop", "no_end_marker", "unread", "other_language", "looping")


@click.command(help="Measure the page of a large run in headless Chromium.")
@click.option("--questions", default=1000, show_default=True, help="Questions of each benchmark.")
@click.option("--arms", default=5, show_default=True, help="Arms, base included.")
@click.option("--benchmarks", default=4, show_default=True, help="Benchmarks.")
@click.option("--page", "page_path", default="report/index.html", show_default=True, help="Whose script is measured.")
def main(questions: int, arms: int, benchmarks: int, page_path: str) -> None:
    names = ["base", *(f"arm-{index}" for index in range(1, arms))]
    tasks = [f"benchmark-{index}" for index in range(1, benchmarks + 1)]
    students = {arm: list(answers(arm, tasks, questions)) for arm in names}
    started = time.perf_counter()
    found = list(entries(Sources([], [], [], [], [], [], [], students)))
    read = time.perf_counter()
    packed = pack(found, max_mb=1000)
    done = time.perf_counter()
    characters = sum(len(entry.row["text"]) for entry in found)
    click.echo(f"rows {packed.total:,}, {characters / packed.total:,.0f} characters of answer each")
    click.echo(f"read {read - started:.1f} s, packed {done - read:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        path.write_text(enlarged(Path(page_path).read_text(encoding="utf-8"), packed, names, tasks), encoding="utf-8")
        click.echo(f"page {path.stat().st_size / MB:.1f} MB")
        measure(path)


def answers(arm: str, tasks: list[str], questions: int) -> Iterator[Evaluated]:
    """An arm's answers: of each text the sentences in another order, with other numbers."""
    real = [json.loads(line) for line in (HERE / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    for task, index in itertools.product(tasks, range(questions)):
        draw = random.Random(f"{arm}/{task}/{index}")
        source = real[index % len(real)]
        right = draw.random() < 0.5
        parts = [varied(draw.choice(real)["response"], draw) for _ in range(draw.randint(4, 12))]
        yield Evaluated.model_validate(
            {
                "id": f"{task}-{index}",
                "benchmark": task,
                "task": task,
                "cluster": f"{task}-{index}",
                "language": None,
                "question": f"{index}. {source['question']}",
                "answer": source["answer"],
                "prompt": "",
                "response": "\n\n".join([*parts, source["response"]]),
                "prediction": source["answer"] if right else "0",
                "verdict": "right" if right else "wrong",
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


def enlarged(page: str, packed: PackedRows, arms: list[str], tasks: list[str]) -> str:
    """A page with other rows in it; its scripts, and so the hashes of its policy, stay."""
    head, rest = page.split('<script type="application/json" id="meta">', 1)
    meta: dict[str, Any] = {
        "arms": arms,
        "benchmarks": tasks,
        "unscored": [],
        "pairs": [],
        "reviews": [],
        "siblings": [],
    }
    meta |= {"inside": packed.inside, "total": packed.total}
    main = rest[rest.rindex("<script>") :]
    chunks = "\n".join(
        f'<script type="application/gzip;base64" class="rows">{chunk}</script>' for chunk in packed.chunks
    )
    return f'{head}<script type="application/json" id="meta">{json.dumps(meta)}</script>\n{chunks}\n{main}'


def measure(path: Path) -> None:
    """Open the page in Chromium and print what it took; the median of several searches."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        ready = time.perf_counter() - started
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        click.echo(f"first paint {paint:.0f} ms, all rows open after {ready * 1000:.0f} ms")
        page.click("#views a[data-view=rows]")
        for query in ("pencils", "train hours", "糖", "/\\d+ pencils? left/", "no such words at all"):
            page.fill("#search", query)
            page.wait_for_timeout(1500)
            took = page.locator("#rows-found").get_attribute("data-took")
            click.echo(f"search {query!r}: {took} ms, {page.locator('#rows-found').inner_text()}")
        started = time.perf_counter()
        page.click("#views a[data-view=flips]")
        page.wait_for_selector("#flips-table table")
        click.echo(f"2×2 table and list {1000 * (time.perf_counter() - started):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
