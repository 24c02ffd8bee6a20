"""Measure the stage report for a hundred thousand short rows and for a million: memory, CPU time, the page's size.

    python -m benchmarks.report --rows 100000,1000000      # 4 minutes of two cores, 0.7 GB in .cache/report

Of the rows, 80 in 100 are answers of the teacher (one in four of them rejected), 15 were left out by collect and 5 have
no answer. Each figure is for ``python -m stages.report`` in a separate process with the embedded profile. Files above
``--shard-rows`` rows are folders of parts. The memory at the most rows should be at most 1.5 times that at the fewest.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, Used, machine, measured, table
from stages.lib.files.shards import writing_parts
from stages.lib.rows import write_json

FOLDER = ROOT / ".cache" / "report"
ARMS = ("base", "unfiltered", "filtered")
DATA = ("distilled", "filtered", "rejected", "disagreements", "left_out", "too_easy", "failures", "preferences")
HEADS = ["rows", "seconds", "CPU s", "CPU µs a row", "peak MB", "page MB", "beside it MB", "files"]
ASKED = 200  # questions of the evaluation
MAKE = "import sys; from benchmarks.report import make; make(sys.argv[1], *map(int, sys.argv[2:]))"


@dataclass(frozen=True)
class Measured:
    """What the stage took on this many rows, and the sizes in MB of the page and of the files beside it."""

    rows: int
    used: Used
    sizes: list[float]

    def cells(self) -> list[str]:
        """A line of the table."""
        used, (page, *beside) = self.used, self.sizes
        per_row = f"{used.cpu_s / self.rows * 1e6:.0f}"
        sizes = [f"{page:.1f}", f"{sum(beside):.1f}", str(len(self.sizes))]
        return [f"{self.rows:,}", f"{used.wall_s:.1f}", f"{used.cpu_s:.1f}", per_row, f"{used.peak_mb:.0f}", *sizes]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default="100000,1000000", show_default=True, help="How many, separated by commas.")
@click.option("--shard-rows", default=100_000, show_default=True, help="Rows of a part.")
@click.option("--max-rows", default=100_000, show_default=True, help="report.max_rows.")
def main(rows: str, shard_rows: int, max_rows: int) -> None:
    click.echo(f"{machine()}\n")
    found = [reported(int(count), shard_rows, max_rows, FOLDER) for count in rows.split(",")]
    click.echo(table(HEADS, [each.cells() for each in found]))
    fewest, most = found[0], found[-1]
    click.echo(
        f"\nMemory at {most.rows:,} rows: {most.used.peak_mb / fewest.used.peak_mb:.2f} times that at {fewest.rows:,}."
    )


def reported(count: int, shard_rows: int, max_rows: int, made: Path) -> Measured:
    """Measure the stage on this many rows. The rows are made once and stay in the folder."""
    folder = made / f"{count}-{shard_rows}"
    if not (folder / "compare.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # a process's peak includes that of the one that starts it, so this one stays small
        measured([sys.executable, "-c", MAKE, str(folder), str(count), str(shard_rows)], folder / "make.log")
    yaml = YAML()
    params: dict[str, Any] = yaml.load((ROOT / "profiles" / "embedded.yaml").read_text(encoding="utf-8"))
    params["report"]["max_rows"] = max_rows
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    files = {name.replace("_", "-"): f"{name}.jsonl" for name in (*DATA, "reviews")}
    files |= {name: f"{name}.json" for name in ("collect", "difficulty", "distill", "filter", "compare")}
    files |= {"answers": "eval", "convert": "convert", "train": "train", "out": "report/index.html"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(folder / path))]
    command = [sys.executable, "-m", "stages.report", *options, "--params", str(folder / "params.yaml")]
    used = measured(command, folder / "report.log")
    pages = [folder / "report" / "index.html", *sorted((folder / "report").glob("rows-*.js"))]
    return Measured(count, used, [page.stat().st_size / 1e6 for page in pages])


def make(path: str, count: int, shard_rows: int) -> None:
    """Write the inputs of the stage into a folder, the comparison last."""
    folder = Path(path)
    answers, left_out, failures = count * 80 // 100, count * 15 // 100, count * 5 // 100
    kept = [number for number in range(answers) if number % 4]
    rows: dict[str, Iterator[dict[str, Any]]] = {
        "distilled": map(answer, range(answers)),
        "filtered": map(judged, kept),
        "rejected": (judged(number) | {"reason": "wrong_answer"} for number in range(0, answers, 4)),
        "disagreements": (judged(number) | {"kind": "gold_suspect"} for number in range(0, answers, 100)),
        "left_out": (question(number) | LEFT_OUT for number in range(answers, answers + left_out)),
        "failures": (question(number) | FAILED for number in range(count - failures, count)),
    }
    for name in (*DATA, "reviews"):
        write(folder / f"{name}.jsonl", rows.get(name, iter(())), shard_rows)
    write_counts(folder, answers, len(kept), left_out, failures)
    write_evaluation(folder, answers, len(kept))


LEFT_OUT = {"reason": "duplicate", "same_as": "made-0", "benchmark_hits": []}
FAILED = {"sample": 0, "reason": "cut_off", "status": 200, "attempts": 1}


def question(number: int) -> dict[str, Any]:
    """A sum; no two have the same text."""
    first, second = number, number % 97
    known = {"id": f"made-{number}", "question": f"What is {first} + {second}?", "answer": str(first + second)}
    return known | {"solution": f"{first} + {second} = {first + second}", "source": "made"}


def answer(number: int) -> dict[str, Any]:
    """A short answer, one in four of them wrong."""
    asked = question(number)
    result = f"{int(asked['answer']) + (number % 4 == 0)}"
    known = {"sample": 0, "reasoning": f"{asked['question'][8:-1]} = {result}", "response": f"The answer is {result}."}
    return asked | known | {"finish_reason": "stop", "model": "none", "usage": {"completion_tokens": number % 97}}


def judged(number: int) -> dict[str, Any]:
    """The answer with the rule's verdict."""
    verdict, given = "right" if number % 4 else "wrong", answer(number)
    known = {"prediction": given["response"][14:-1], "verdict": verdict, "decided_by": "rule:phrase"}
    return given | known | {"rule_verdict": verdict, "judge_verdict": None}


def write(path: Path, rows: Iterator[dict[str, Any]], shard_rows: int) -> None:
    """Write rows as the stages do."""
    import orjson

    with writing_parts(path, shard_rows) as parts:
        for row in rows:
            parts.add(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def write_counts(folder: Path, answers: int, kept: int, left_out: int, failures: int) -> None:
    """The metrics of the stages before the training."""
    asked, rejected = answers + failures, answers - kept
    collected = {"in": asked + left_out, "questions": asked, "heldout": 0, "left_out": {"duplicate": left_out}}
    write_json(folder / "collect.json", collected | {"contamination": {}})
    easy: dict[str, Any] = {
        "in": asked,
        "asked": 0,
        "kept": asked,
        "too_easy": 0,
        "samples": 0,
        "max_solved": None,
        "by_solved": {},
    }
    write_json(folder / "difficulty.json", easy | {"unsure_answers": 0, "completion_tokens": 0})
    failed = {"failed_by_reason": {"cut_off": failures}}
    write_json(folder / "distill.json", {"in": asked, "distilled": answers} | failed)
    counts = {"in": answers, "kept": kept, "rejected": rejected, "rejected_by_reason": {"wrong_answer": rejected}}
    by_judge = {"right": {"not_asked": kept}, "wrong": {"not_asked": rejected}, "unsure": {}}
    write_json(folder / "filter.json", counts | {"judge_asked": 0, "rule_by_judge": by_judge})


def write_evaluation(folder: Path, answers: int, kept: int) -> None:
    """The arms' trainings, and their answers to the same questions, which do not grow with the rows."""
    for name, rows in (("unfiltered", answers), ("filtered", kept)):
        lengths = {"sum": 90 * rows, "p50": 90, "p90": 100, "p99": 110, "max": 120}
        write_json(folder / f"convert/{name}.json", {"in": rows, "rows": rows, "dropped": {}, "tokens": lengths})
        (folder / f"convert/{name}.lengths.csv").write_text("tokens,share\n80,0.0\n90,0.5\n120,1.0\n")
        trained = {"rows": rows, "rows_shortened": 0, "rows_too_long": 0, "steps": 2, "epochs": 1.0}
        write_json(folder / f"train/{name}.json", trained | {"tokens_trained": 90 * rows, "effective_batch": 8})
        (folder / f"train/{name}.loss.csv").write_text("step,loss,learning_rate\n1,1.5,0.001\n2,0.5,0.001\n")
    rights = dict(zip(ARMS, (ASKED // 4, ASKED // 2, ASKED * 3 // 4), strict=True))
    for arm, right in rights.items():
        write(folder / f"eval/{arm}.jsonl", (evaluated(number, number < right) for number in range(ASKED)), ASKED)
    arms = {arm: compared(right) for arm, right in rights.items()}
    write_json(folder / "compare.json", {"confidence": 0.95, "arms": arms, "pairs": {}, "warnings": []})


def compared(right: int) -> dict[str, Any]:
    """An arm's score."""
    share = right / ASKED
    score = {"headline": "verifier", "value": share, "low": share, "high": share, "correct": right, "n": ASKED}
    return {"training": None, "system_prompt": None, "benchmarks": {"heldout": score}}


def evaluated(number: int, is_right: bool) -> dict[str, Any]:
    """A student's answer."""
    asked = question(number)
    known = {"id": f"heldout-{number}", "benchmark": "heldout", "task": "heldout", "cluster": f"heldout-{number}"}
    said = asked["answer"] if is_right else "0"
    marks = {"verdict": "right" if is_right else "wrong", "lm_eval": is_right, "correct": is_right}
    flags = ("cut_off", "task_stop", "no_end_marker", "unread", "other_language", "looping")
    hashes = dict.fromkeys(("doc_hash", "prompt_hash", "target_hash"), "")
    text = {"language": None, "prompt": "", "response": f"The answer is {said}.", "prediction": said, "tokens": 12}
    return asked | known | text | marks | {"decided_by": "rule:phrase"} | dict.fromkeys(flags, False) | hashes


if __name__ == "__main__":
    main()
