"""Compare verdicts on labelled answers, and their time: our rule, math-verify, lm-eval, and simple rules.

In:   the labelled answers below $DISTILLERY_DATA (answers/*.jsonl with question, response, answer, label; GSM8K's
      gsm8k_model_solutions/example_model_solutions.jsonl), or --rows FILE; else the few in benchmarks/answers.jsonl
Out:  Markdown: for each set a table of label → verdict with the time per row; for all sets the scores of the verifier
      and of lm-eval, with both kinds of errors (docs/evaluation.md shows it)

A row whose label is null (unclear) is left out. A method that reads only numbers is unsure of any other gold answer.

    DISTILLERY_DATA=../data python -m benchmarks.answers
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
from ruamel.yaml import YAML

from benchmarks.measuring import machine, table
from stages.lib.answers import rule_verdict

OWN = Path(__file__).with_suffix(".jsonl")
LABELS, VERDICTS = ("right", "wrong"), ("right", "wrong", "unsure")
NUMBER = re.compile(r"(?:(?<![\w)\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
FINAL_ANSWER = re.compile(rf"final answer\W{{0,12}}(?:boxed\{{)?\W{{0,3}}?({NUMBER.pattern})", re.IGNORECASE)
OURS, LM_EVAL = "rule_verdict", "lm-eval, flexible-extract"


@dataclass(frozen=True)
class Labelled:
    """A response with a label, right or wrong, from a person who read it."""

    question: str
    response: str
    answer: str
    label: str


Method = Callable[[Labelled], str]


@dataclass(frozen=True)
class Measured:
    """The results of a method on a set: counts by label and verdict, and the seconds of each row."""

    found: Counter[tuple[str, str]]
    seconds: list[float]

    @property
    def score(self) -> float:
        """The share of answers with the verdict right."""
        return self._verdicts("right") / self.found.total()

    @property
    def if_unsure_right(self) -> float:
        """The same share if all unsure ones were right."""
        return self.score + self._verdicts("unsure") / self.found.total()

    def _verdicts(self, verdict: str) -> int:
        return sum(self.found[label, verdict] for label in LABELS)


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", "path", type=click.Path(path_type=Path, exists=True), help="A file of labelled answers, read.")
@click.option("--limit", type=click.IntRange(1), help="Rows of each set, from the start  [default: all]")
def main(path: Path | None, limit: int | None) -> None:
    click.echo(machine())
    results = {}
    for name, rows in sets(path, os.environ.get("DISTILLERY_DATA")).items():
        results[name] = {method: measured(make(), rows[:limit]) for method, make in METHODS.items()}
        click.echo(f"\n{name}\n\n{confusion(results[name])}")
    click.echo(f"\nscores\n\n{scores(results)}")


def sets(path: Path | None, data: str | None) -> dict[str, list[Labelled]]:
    """The labelled answers by the name of their file; ClickException where there are none."""
    if path or not data:
        chosen = path or OWN
        found = {chosen.stem: list(labelled(chosen))}
    else:
        folder = Path(data)
        found = {each.stem: list(labelled(each)) for each in sorted((folder / "answers").glob("*.jsonl"))}
        published = folder / "gsm8k_model_solutions" / "example_model_solutions.jsonl"
        found["gpt3_gsm8k"] = list(solutions(published)) if published.is_file() else []
    found = {name: rows for name, rows in found.items() if rows}
    if not found:
        where = path or f"DISTILLERY_DATA={data}"
        raise click.ClickException(f"{where}: no labelled answers there. Name a file of them with --rows.")
    return found


def labelled(path: Path) -> Iterator[Labelled]:
    """The labelled rows of a file; ClickException where one lacks question, response, answer or label."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            found = Labelled(row["question"], row["response"], str(row["answer"]), row["label"])
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f"{path}:{number}: not a labelled answer ({error!r}).") from error
        if found.label in LABELS:
            yield found


def solutions(path: Path) -> Iterator[Labelled]:
    """The answers of four GPT-3 models to GSM8K's test questions, which the authors published with labels."""
    for row in map(json.loads, path.read_bytes().splitlines()):
        answer = row["ground_truth"].rpartition("A:")[2].strip()
        for each in row.values():
            if isinstance(each, dict):
                yield Labelled(row["question"], each["solution"], answer, "right" if each["is_correct"] else "wrong")


def ours() -> Method:
    """The rule of filter and evaluation."""
    return lambda row: rule_verdict(row.question, row.response, row.answer).verdict


def math_verify() -> Method:
    """math-verify with its defaults and time-outs; unsure where it finds no answer or cannot read the gold one."""
    from math_verify import parse, verify  # type: ignore[import-untyped]

    def judge(row: Labelled) -> str:
        text = row.answer.strip()
        gold, found = parse(text if "$" in text else f"${text}$"), parse(row.response)
        return "unsure" if not gold or not found else "right" if verify(gold, found) else "wrong"

    return judge


def lm_eval_flexible() -> Method:
    """The filter and the comparison of the installed lm-eval's gsm8k, which calls wrong what it cannot read.

    It compares texts, and GSM8K writes whole numbers without decimals, so a gold 12.0 is passed as 12.
    """
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    from stages.lib.evaluation.tasks import folder_of_tasks

    task = YAML(typ="safe").load(folder_of_tasks() / "gsm8k" / "gsm8k.yaml")
    (steps,) = [each["filter"] for each in task["filter_list"] if each["name"] == "flexible-extract"]
    extract = RegexFilter(**{key: value for key, value in steps[0].items() if key != "function"})
    (metric,) = task["metric_list"]
    settings = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def judge(row: Labelled) -> str:
        ((prediction,),) = extract.apply([[row.response]], [{}])
        gold = re.sub(r"\.0+$", "", row.answer.strip())
        found = exact_match_hf_evaluate(predictions=[prediction], references=[gold], **settings)
        return "right" if found["exact_match"] else "wrong"

    return judge


def last_number(row: Labelled) -> str:
    """Take the last number of the text as the answer."""
    return _compared(numbers(row.response)[-1:], row)


def last_bold_number(row: Labelled) -> str:
    """Take the last number in bold as the answer."""
    return _compared(_bold(row)[-1:], row)


def sketch(row: Labelled) -> str:
    """Right where the gold value is the last bold one or follows "Final Answer"; wrong where it occurs nowhere."""
    gold = gold_number(row)
    if gold is None:
        return "unsure"
    after_label = [number for text in FINAL_ANSWER.findall(row.response) for number in numbers(text)]
    if gold in _bold(row)[-1:] or gold in after_label:
        return "right"
    return "unsure" if gold in numbers(row.response) else "wrong"


def _bold(row: Labelled) -> list[Fraction]:
    """The last number of each text in bold that has one."""
    return [numbers(text)[-1] for text in BOLD.findall(row.response) if numbers(text)]


def _compared(found: Sequence[Fraction], row: Labelled) -> str:
    gold = gold_number(row)
    return "unsure" if gold is None or not found else "right" if found[0] == gold else "wrong"


def gold_number(row: Labelled) -> Fraction | None:
    """A gold answer that is only a number, a currency or per cent sign aside; None for any other."""
    text = row.answer.strip().strip("$%").strip()
    return numbers(text)[0] if NUMBER.fullmatch(text) else None


def numbers(text: str) -> list[Fraction]:
    """Every number written in digits."""
    return [Fraction(each.replace(",", "")) for each in NUMBER.findall(text)]


METHODS: dict[str, Callable[[], Method]] = {
    OURS: ours,
    "math-verify": math_verify,
    LM_EVAL: lm_eval_flexible,
    "last bold number": lambda: last_bold_number,
    "last number": lambda: last_number,
    "sketch": lambda: sketch,
}


def measured(method: Method, rows: Sequence[Labelled]) -> Measured:
    """Judge and time each row, after one row that is not timed, because some modules load at first use."""
    method(rows[0])
    found: Counter[tuple[str, str]] = Counter()
    seconds = []
    for row in rows:
        started = time.perf_counter()
        verdict = method(row)
        seconds.append(time.perf_counter() - started)
        found[row.label, verdict] += 1
    return Measured(found, seconds)


def confusion(results: dict[str, Measured]) -> str:
    """One line per method: counts by label and verdict, and the milliseconds per row."""
    pairs = [(label, verdict) for label in LABELS for verdict in VERDICTS]
    heads = ["method", *(f"{label} → {verdict}" for label, verdict in pairs), "median ms", "p95 ms"]
    lines = []
    for method, each in results.items():
        times = [f"{np.percentile(each.seconds, share) * 1000:.3f}" for share in (50, 95)]
        lines.append([method, *(str(each.found[pair]) for pair in pairs), *times])
    return table(heads, lines)


def scores(results: dict[str, dict[str, Measured]]) -> str:
    """One line per set: the true score, then the scores of the verifier and of lm-eval, each with both errors."""
    errors = ["wrong called right", "right not called right"]
    heads = ["answers", "n", "right", "verifier", "if unsure right", *errors, "lm-eval", *errors]
    lines = []
    for name, methods in results.items():
        verifier, lm_eval = methods[OURS], methods[LM_EVAL]
        true = sum(count for (label, _), count in verifier.found.items() if label == "right") / verifier.found.total()
        lines.append(
            [
                *(name, str(verifier.found.total()), _percent(true)),
                *(_percent(verifier.score), _percent(verifier.if_unsure_right), *_errors(verifier)),
                *(_percent(lm_eval.score), *_errors(lm_eval)),
            ]
        )
    return table(heads, lines)


def _errors(each: Measured) -> list[str]:
    missed = each.found["right", "wrong"] + each.found["right", "unsure"]
    return [str(each.found["wrong", "right"]), str(missed)]


def _percent(share: float) -> str:
    return f"{share * 100:.1f}"


if __name__ == "__main__":
    main()
