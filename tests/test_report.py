"""The page: its numbers are those of its inputs, the same inputs are the same bytes, no text of a model acts in it."""

import base64
import csv
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from benchmarks.report import reported
from stages.compare import main as compare
from stages.difficulty import Rated, Tally
from stages.lib.comparison.results import Comparison
from stages.lib.comparison.table import audit_table, comparison_table
from stages.lib.comparison.warnings import sentence
from stages.lib.page import language, scripts
from stages.lib.page.charts import MOST_POINTS, Scale, interval_chart, loss_chart
from stages.lib.page.metrics import LossPoint
from stages.lib.page.packing import pack
from stages.lib.page.rows import Entry, Rank, Sources, entries
from stages.lib.page.shown import draw_lines
from stages.lib.page.verdicts import verdicts
from stages.lib.page.words import said, words
from stages.lib.rows import read_rows, write_json, write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.filtered import Filtered, Rejected
from stages.lib.rows.preference import Preference
from stages.lib.rows.question import PassRate, Question
from stages.report import main

ARMS = {
    name: {
        "dataset": name,
        "num_train_epochs": 1.0,
        "max_steps": steps,
        "learning_rate": 0.001,
        "cutoff_len": 512,
        "alpha": 0.0,
    }
    for name, steps in (("unfiltered", None), ("filtered", 22))
}
PAIRS = [["unfiltered", "base"], ["filtered", "base"], ["filtered", "unfiltered"]]
HOSTILE = (
    '</pre></details><script>alert("7" * 7)</script> {{ 7 * 7 }} {% raw %} <img src="https://example.org/x.png"> & \\'
)
INPUTS = {
    "--distilled": "data/distilled.jsonl",
    "--filtered": "data/filtered.jsonl",
    "--rejected": "data/rejected.jsonl",
    "--disagreements": "data/disagreements.jsonl",
    "--left-out": "data/left_out.jsonl",
    "--too-easy": "data/too_easy.jsonl",
    "--failures": "data/distill_failures.jsonl",
    "--preferences": "data/preferences.jsonl",
    "--reviews": "data/reviews.jsonl",
    "--answers": "data/eval",
    "--collect": "metrics/collect.json",
    "--difficulty": "metrics/difficulty.json",
    "--distill": "metrics/distill.json",
    "--filter": "metrics/filter.json",
    "--convert": "metrics/convert",
    "--train": "metrics/train",
    "--compare": "metrics/compare.json",
}
ROOT = Path(__file__).resolve().parents[1]
UNSCORED = dict.fromkeys(["answer", "verdict", "lm_eval", "correct"])
NO_SIGNS = str.maketrans("", "", "{}()[]'\",:")  # of a name of a file
VOID = {"meta", "line", "circle", "path", "rect", "br", "img", "input"}


class Parsed(HTMLParser):
    """The page as a browser takes it: its tags with their attributes, its tables' cells, and the text it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text += data
        if "small" not in self.open and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data.strip()


def distilled(index: int) -> dict[str, Any]:
    return {
        "id": f"train-{index}",
        "question": f"What is {index} + 1?",
        "answer": str(index + 1),
        "sample": 0,
        "reasoning": f"{index} and one more.",
        "response": f"The answer is {index + 1}.",
        "finish_reason": "stop",
        "model": "teacher",
        "usage": {},
    }


def questions(index: int) -> Question:
    return Question.model_validate(distilled(index))


def evaluated(index: int, correct: bool, benchmark: str, **changes: Any) -> Evaluated:
    row = {
        "id": f"{benchmark}-{index}",
        "benchmark": benchmark,
        "task": benchmark,
        "cluster": f"{benchmark}-{index}",
        "language": None,
        "question": f"What is {index} − 1?",
        "answer": str(index - 1),
        "prompt": "",
        "response": "…",
        "prediction": str(index - 1) if correct else None,
        "verdict": "right" if correct else "unsure",
        "decided_by": "rule:label",
        "lm_eval": correct,
        "correct": correct,
        "tokens": 128,
        "cut_off": not correct,
        **dict.fromkeys(["task_stop", "no_end_marker", "unread", "other_language", "looping"], False),
        **dict.fromkeys(["doc_hash", "prompt_hash", "target_hash"], ""),
    }
    return Evaluated.model_validate(row | changes)


def score(value: float, **changes: Any) -> dict[str, Any]:
    """A benchmark of metrics/eval/ARM.json, of 40 questions."""
    both = {"headline": "verifier", "value": value, "n": 40, "lm_eval": 0.0125, "verifier": value, "differ": 3}
    both |= {"if_unsure_wrong": value, "if_unsure_right": round(value + 0.2, 4)}
    audit = {"cut_off": 0.275, "task_stop": 0.0, "no_end_marker": None, "unread": 0.2, "looping": 0.0}
    return both | audit | {"other_language": None, "tokens_median": 52.5, "tokens_p95": 110.0} | changes


def write_rows_and_counts(folder: Path, rejected: int) -> None:
    """12 answers, of which some are rejected, and what the stages counted."""
    verdict: dict[str, Any] = {"verdict": "right", "decided_by": "rule", "rule_verdict": "right", "judge_verdict": None}
    judged = [Filtered(**distilled(i), prediction=str(i + 1), **verdict) for i in range(12)]
    wrong = {"verdict": "wrong", "prediction": "0", "reason": "wrong_answer"}
    write_rows(folder / "data/distilled.jsonl", [Distilled(**row.model_dump()) for row in judged])
    write_rows(folder / "data/filtered.jsonl", judged[rejected:])
    for name in ("disagreements", "left_out", "too_easy", "distill_failures", "preferences", "reviews"):
        write_rows(folder / f"data/{name}.jsonl", [])
    write_rows(folder / "data/rejected.jsonl", [Rejected(**row.model_dump() | wrong) for row in judged[:rejected]])
    left_out = {"duplicate": 0, "in_heldout": 2, "contaminated": 3}
    contamination = {"ngram": 13, "gsm8k": {"hits": 3, "questions": 9, "too_short": 0}, "mgsm": "not checked"}
    collected = {"in": 57, "questions": 12, "heldout": 40, "left_out": left_out, "overlap": 0}
    write_json(folder / "metrics/collect.json", collected | {"contamination": contamination})
    measured = Tally()
    for index in range(12):
        measured.add(Rated(questions(index)))
    write_json(folder / "metrics/difficulty.json", measured.metrics(None))
    write_json(folder / "metrics/distill.json", {"in": 12, "distilled": 12, "failed": 0, "failed_by_reason": {}})
    reasons = {"wrong_answer": rejected} if rejected else {}
    counts = {"in": 12, "kept": 12 - rejected, "rejected": rejected, "rejected_by_reason": reasons}
    table = {"right": {"not_asked": 12 - rejected}, "wrong": {"not_asked": rejected}, "unsure": {}}
    write_json(folder / "metrics/filter.json", counts | {"judge_asked": 0, "rule_by_judge": table})


def write_evaluation(folder: Path, name: str, right: int, benchmarks: Sequence[str] = ("heldout",)) -> None:
    """An arm's answers to 40 questions of each benchmark, so many of them right."""
    rows = [evaluated(index, index < right, benchmark) for benchmark in benchmarks for index in range(40)]
    rows = [row.model_copy(update=UNSCORED) if row.benchmark == "preference" else row for row in rows]
    write_rows(folder / f"data/eval/{name}.jsonl", rows)
    lines = [("question_id", "benchmark", "cluster", "correct")]
    scored = [row for row in rows if row.correct is not None]
    lines += [(row.id, row.benchmark, row.cluster, str(int(bool(row.correct)))) for row in scored]
    write_csv(folder / f"metrics/eval/{name}.scores.csv", lines)
    facts = {benchmark: score(round(right / 40, 4)) for benchmark in benchmarks if benchmark != "preference"}
    if "preference" in benchmarks:
        facts["preference"] = {"n": 40, "cut_off": 0.25, "tokens_median": 52.5, "tokens_p95": 110.0}
    system = None if name == "base" else "brief"
    write_json(folder / f"metrics/eval/{name}.json", {"system_prompt": system, "settings": {}} | facts)


def write_preferences(folder: Path, benchmarks: Sequence[str]) -> None:
    """What a judge preferred in each pair, where the arms answered the benchmark of that name."""
    counts: dict[str, Any] = {"n": 40, "wins": 21, "losses": 6, "ties": 13, "identical": 1, "unsure": 2, "flipped": 5}
    counts |= {"flipped_share": 0.125, "flipped_to_a": 4, "longer_wins": 15, "shorter_wins": 11}
    pairs = {
        f"{first}_vs_{second}": {"first": first, "second": second, "length_correlation": 0.31} | counts
        for first, second in PAIRS
    }
    judged = {"judge": {"model": "qwen-max", "prompt": "impartial"}, "pairs": pairs}
    write_json(folder / "metrics/prefer.json", judged if "preference" in benchmarks else {"judge": None, "pairs": {}})


def write_examples(folder: Path, name: str, **changes: Any) -> None:
    """An example of each of two kinds, the same answer."""
    row = {"id": "gsm8k-1", "benchmark": "gsm8k", "question": "How many eggs?", "answer": "7", "response": "Many."}
    flags = {"tokens": 4096, "lm_eval": True, "verdict": "unsure"}
    lines = [json.dumps({"kind": kind} | row | flags | changes) for kind in ("differ_lm_eval_only", "cut_off")]
    (folder / f"data/eval/{name}.examples.jsonl").write_text("".join(f"{line}\n" for line in lines))


def write_training(folder: Path, name: str, losses: list[str]) -> None:
    """What an arm's training saw, and its loss after each step."""
    steps = 32 if name == "unfiltered" else 22
    training = {"rows": 4 * steps, "rows_shortened": 0, "rows_too_long": 0, "steps": steps, "epochs": 1.0}
    write_json(folder / f"metrics/train/{name}.json", training | {"tokens_trained": 9000, "effective_batch": 4})
    tokens = {"sum": 9000, "p50": 90, "p90": 100, "p99": 110, "max": 120}
    converted = {"in": 4 * steps, "rows": 4 * steps, "dropped": {"empty_text": 0}, "tokens": tokens}
    write_json(folder / f"metrics/convert/{name}.json", converted)
    lengths = [("tokens", "share"), ("80", "0.0"), ("90", "0.5"), ("120", "1.0")]
    write_csv(folder / f"metrics/convert/{name}.lengths.csv", lengths)
    lines = [(str(step), loss, "0.001") for step, loss in enumerate(losses, start=1)]
    write_csv(folder / f"metrics/train/{name}.loss.csv", [("step", "loss", "learning_rate"), *lines])


def write_csv(path: Path, lines: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


@pytest.fixture
def made_run(
    tmp_path: Path,
    runs: Callable[..., Result],
    project_params: Callable[..., Path],
    built_once: Callable[..., Path],
) -> Callable[..., Path]:
    """``made_run(rejected=4, right={"base": 1})``: the folder of a run with these arms, compared by the stage.

    A run is made once and copied.
    """

    def make(rejected: int = 4, right: dict[str, int] | None = None, benchmarks: Sequence[str] = ("heldout",)) -> Path:
        shown = {"base": 1, "unfiltered": 12, "filtered": 15} if right is None else right
        name = f"run {rejected} {shown} {benchmarks}"
        kept = built_once(name.translate(NO_SIGNS), partial(build, rejected, shown, benchmarks))
        shutil.copytree(kept, tmp_path / "run", dirs_exist_ok=True)
        return tmp_path / "run"

    def build(rejected: int, right: dict[str, int], benchmarks: Sequence[str], folder: Path) -> None:
        write_rows_and_counts(folder, rejected)
        for name, count in right.items():
            write_evaluation(folder, name, count, benchmarks)
            write_training(folder, name, ["1.5000", "0.5000", "0.2500"])
        arms = {name: arm for name, arm in ARMS.items() if name in right}
        params = project_params({"arms": arms, "compare.pairs": PAIRS if len(right) == 3 else []})
        write_preferences(folder, benchmarks)
        folders = ["--eval", folder / "metrics/eval", "--train", folder / "metrics/train"]
        folders += ["--prefer", folder / "metrics/prefer.json", "--seeds", ROOT / "metrics/seeds.json"]
        out = ["--out", folder / "metrics/compare.json", "--table", folder / "metrics/compare.csv"]
        runs(compare, *folders, *out, "--params", params)

    return make


@pytest.fixture
def run(made_run: Callable[..., Path]) -> Path:
    return made_run()


@pytest.fixture
def arguments(project_params: Callable[..., Path]) -> Callable[..., list[object]]:
    """``arguments(run, {"report.seed": 4})``: what the stage is called with."""

    def build(run: Path, changes: dict[str, Any] | None = None) -> list[object]:
        params = project_params({"arms": ARMS, "compare.pairs": PAIRS} | (changes or {}))
        inputs = [part for option, path in INPUTS.items() for part in (option, run / path)]
        return [*inputs, "--out", run / "report/index.html", "--params", params]

    return build


@pytest.fixture
def page(runs: Callable[..., Result], arguments: Callable[..., list[object]]) -> Callable[..., str]:
    """``page(run, {"report.samples": 1})``: the page that the stage writes."""

    def write(run: Path, changes: dict[str, Any] | None = None) -> str:
        runs(main, *arguments(run, changes))
        return (run / "report/index.html").read_text(encoding="utf-8")

    return write


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON document, or the first row, of a file."""
    first, *rest = path.read_text().split("\n", 1) if path.suffix == ".jsonl" else [path.read_text()]
    document = json.loads(first)
    change(document)
    path.write_text("\n".join([json.dumps(document), *rest]))


@pytest.mark.parametrize("benchmarks", [["heldout"], ["heldout", "gsm8k"]])
def test_the_tables_of_the_page_are_those_of_the_comparison(
    benchmarks: list[str], made_run: Callable[..., Path], page: Callable[..., str]
) -> None:
    run = made_run(benchmarks=benchmarks)
    shown = [set(row) for row in Parsed(page(run)).rows]
    comparison = Comparison.model_validate_json((run / "metrics/compare.json").read_bytes())
    names = {*benchmarks, *(pair.name for pair in comparison.pairs.values())}  # may stand in a line above the row
    tables = f"{comparison_table(comparison)}\n{audit_table(comparison)}"
    lines = [line for line in tables.splitlines() if line.startswith("| ")]
    assert len(lines) == 3 + 3 * 3 * len(benchmarks)
    for line in lines:
        cells = {cell.strip().strip("*") for cell in line.strip("|").split("|")}
        assert any(cells - {"benchmark", *names} <= row for row in shown), line
    for name in names if len(benchmarks) > 1 else names - {"heldout"}:
        assert any(name in row for row in shown)


def test_mcnemar_s_exact_p_and_the_method_stand_with_the_differences(run: Path, page: Callable[..., str]) -> None:
    edit(
        run / "metrics/compare.json",
        lambda document: document["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"].update(mcnemar_p=None),
    )
    parsed = Parsed(page(run))
    (head,) = [row for row in parsed.rows if "paired difference" in row]
    assert head[3:6] == ["p", "exact p (McNemar)", "p (Holm)"]
    exact = {row[0]: row[4] for row in parsed.rows if row[0] in ("filtered − unfiltered", "filtered − base")}
    assert exact == {"filtered − unfiltered": "0.250", "filtered − base": "–"}  # 3 against 0
    assert "Interval and p on heldout: Student’s t after pseudo-pairs were added." in parsed.text


def sentences(comparison: Comparison) -> list[str]:
    """The verdicts in English, without their doubts."""
    shown = verdicts(comparison)
    return [f"{said(each.sentence[0], **each.sentence[1])}: {said(each.found[0], **each.found[1])}" for each in shown]


def test_the_first_sentence_says_what_was_found_in_the_words_of_the_comparison(
    run: Path, page: Callable[..., str]
) -> None:
    comparison = Comparison.model_validate_json((run / "metrics/compare.json").read_bytes())
    first, *_, last = sentences(comparison)
    assert re.fullmatch(
        r"Training on filtered instead of unfiltered moved heldout by \+7\.5 points \[.*\]: "
        r"no detectable difference at n = 40; \d+\.\d points would have shown\.",
        first,
    )
    assert re.fullmatch(
        r"Training on unfiltered moved heldout by \+27\.5 points \[.*\]: a gain that chance does not explain .*",
        last,
    )
    text = " ".join(Parsed(page(run)).text.replace(" : ", ": ").split())
    assert first.split(":")[0] in text


def test_what_makes_a_number_doubtful_stands_beside_it(run: Path) -> None:
    document = json.loads((run / "metrics/compare.json").read_bytes())
    found = document["pairs"]["filtered_vs_unfiltered"]["benchmarks"]["heldout"]
    found |= {"if_unsure_low": -0.05, "if_unsure_high": 0.2}
    for arm in document["arms"].values():
        arm["benchmarks"]["heldout"] |= {"differ": 0, "cut_off": 0.0}
    document["arms"]["filtered"]["benchmarks"]["heldout"] |= {"differ": 3, "cut_off": 0.125}
    first, *_ = verdicts(Comparison.model_validate(document))
    assert [said(key, **values) for key, values in first.doubts] == [
        "If the verifier’s unsure answers counted the other way, it would be between −5.0 and +20.0.",
        "lm-eval and the verifier score 3 answers of filtered differently.",
        "12.5\u00a0% of the answers of filtered were cut off.",
    ]


def test_both_tables_of_words_have_the_same_texts_with_the_same_places() -> None:
    english, chinese = words()["en"], words()["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        forms = [form if isinstance(form, str) else form["other"] for form in (text, chinese[key])]
        places = [set(re.findall(r"\{(\w+)\}", form)) for form in forms]
        assert places[0] == places[1], key


def test_each_score_stands_beside_the_other_and_the_base_s_beside_its_prompt(
    run: Path, page: Callable[..., str]
) -> None:
    parsed = Parsed(page(run))
    (head,) = [row for row in parsed.rows if "lm-eval" in row]
    assert head[:8] == ["arm", "rows", "steps", "score", "95 % interval", "n", "lm-eval", "verifier"]
    assert head[8] == "if unsure wrong – right"
    (filtered,) = [row for row in parsed.rows if row[:3] == ["filtered", "88", "22"] and "%" in row[3]]
    assert (filtered[3], *filtered[6:9]) == ("37.5 %", "1.2", "37.5", "37.5 – 57.5")
    assert "baseno system text" in parsed.text
    assert "System text: none (base), brief (unfiltered, filtered)." in parsed.text
    assert "The score is the verifier's." in parsed.text


def test_a_benchmark_without_generated_text_is_not_audited(run: Path, page: Callable[..., str]) -> None:
    assert 'id="audit"' in page(run)

    def unaudited(document: dict[str, Any]) -> None:
        for arm in document["arms"].values():
            found = arm["benchmarks"]["heldout"]
            nothing = dict.fromkeys([name for name, value in found.items() if name not in KEPT and value is not None])
            found.update(nothing)

    KEPT = {"headline", "value", "low", "high", "n", "correct", "lm_eval"}
    edit(run / "metrics/compare.json", unaudited)
    html = page(run)
    assert 'id="audit"' not in html
    assert "#audit" not in html


def test_a_benchmark_of_several_languages_is_shown_by_language(run: Path, page: Callable[..., str]) -> None:
    languages = {"zh": {"value": 0.41, "n": 20}, "sw": {"value": 0.13, "n": 20}}
    edit(
        run / "metrics/compare.json",
        lambda document: document["arms"]["base"]["benchmarks"]["heldout"].update(languages=languages),
    )
    parsed = Parsed(page(run))
    assert ["benchmark", "arm", "all", "zh", "sw"] in parsed.rows
    assert ["heldout", "base", "2.5", "41.0", "13.0"] in parsed.rows
    assert ["heldout", "filtered", "37.5", "–", "–"] in parsed.rows


def test_examples_of_the_audit_stand_under_their_arm(run: Path, page: Callable[..., str]) -> None:
    assert "Audit: " not in Parsed(page(run)).text
    write_examples(run, "filtered", question="Wie viele Eier?")
    parsed = Parsed(page(run))
    assert parsed.text.count("Wie viele Eier?") == 2
    assert "Audit: differ lm eval only" in parsed.text
    assert "Audit: cut off" in parsed.text
    assert str(run / "data/eval/filtered.examples.jsonl") in parsed.text


def test_rows_that_were_shortened_or_left_out_stand_beside_those_trained_on(
    run: Path, page: Callable[..., str]
) -> None:
    edit(run / "metrics/train/filtered.json", lambda seen: seen.update(rows=85, rows_shortened=5, rows_too_long=3))
    text = Parsed(page(run)).text
    assert "855 shortened+ 3 left out" in text
    assert text.count("left out") == 1


def test_the_noise_of_the_measure_stands_under_the_interval(run: Path, page: Callable[..., str]) -> None:
    path = run / "metrics" / "compare.json"
    comparison = json.loads(path.read_text())
    (found, *_) = comparison["pairs"]["filtered_vs_base"]["benchmarks"].values()
    arm = {"batch_size": 7, "n": 50, "flipped": 2, "net": 0.04, "differ": 9}
    found["churn"] = {"first": arm, "second": arm, "alone": 0.0392, "alone_at_most": 0.0893}
    seeds = {"seeds": ["3", "4", "5"], "differences": [0.1, 0.2, 0.3], "questions": "the same"}
    found["trainings"] = seeds | {"mean": 0.2, "low": -0.05, "high": 0.45}
    path.write_text(json.dumps(comparison))
    html = page(run)
    for shown in ("churn alone ±3.9 (≤ 8.9)", "over trainings +20.0, −5.0 – +45.0 (3 seeds)"):
        assert html.count(f">{shown}</span></small>") == 1
    assert {"report.churn_note", "report.trainings_note"} <= set(re.findall(r'data-word="([^"]+)"', html))


def test_warnings_of_the_comparison_stand_on_the_page(run: Path, page: Callable[..., str]) -> None:
    warnings = Comparison.model_validate_json((run / "metrics/compare.json").read_bytes()).warnings
    assert warnings
    html = page(run)
    assert all(sentence(warning) in Parsed(html).text for warning in warnings)
    assert f'data-word="warning.{warnings[0].code}" data-values=' in html, "the script puts it into Chinese"


def test_the_page_says_where_every_row_went(run: Path, page: Callable[..., str]) -> None:
    text = Parsed(page(run)).text
    assert "12 questions to train on" in text
    assert "40 held out for the evaluation" in text
    assert "2 dropped: in the held-out set" in text
    assert "3 dropped: contaminated" in text
    assert "8 kept" in text
    assert "4 dropped: wrong answer" in text


def test_the_page_says_which_benchmarks_nobody_looked_for(run: Path, page: Callable[..., str]) -> None:
    assert "Contamination: not checked against mgsm." in Parsed(page(run)).text
    clean = {"hits": 0, "questions": 9, "too_short": 0}
    edit(run / "metrics/collect.json", lambda counts: counts["contamination"].update(gsm8k=clean, mgsm=clean))
    assert "Contamination" not in Parsed(page(run)).text


def test_the_page_says_the_scripts_and_the_lengths_of_the_questions(run: Path, page: Callable[..., str]) -> None:
    assert "Scripts:" not in Parsed(page(run)).text
    lengths = {"shortest": 9, "p50": 217, "p90": 361, "p99": 526, "longest": 985}
    questions = {"scripts": {"han": 4, "latin": 8}, "characters": lengths}
    edit(run / "metrics/collect.json", lambda counts: counts.update(texts={"questions": questions}))
    assert "Scripts: han 4, latin 8. Characters: median 217, 90 % at most 361." in Parsed(page(run)).text


def test_pass_rates_stand_in_a_table_where_the_student_was_asked(run: Path, page: Callable[..., str]) -> None:
    assert "Pass rates" not in Parsed(page(run)).text
    counts = {"in": 12, "asked": 12, "kept": 9, "too_easy": 3, "samples": 2, "max_solved": 1, "unsure_answers": 4}
    write_json(
        run / "metrics/difficulty.json", counts | {"by_solved": {"0": 7, "1": 2, "2": 3}, "completion_tokens": 900}
    )
    solved = {f"train-{index}": index % 3 // 2 for index in range(12)}
    for name, model in (("distilled", Distilled), ("filtered", Filtered), ("rejected", Rejected)):
        path = run / f"data/{name}.jsonl"
        rows = [
            row.model_copy(update={"pass_rate": PassRate(solved=solved[row.id], unsure=0, samples=2)})
            for row in read_rows(path, model, "")
        ]
        write_rows(path, rows)
    parsed = Parsed(page(run))
    assert "9 hard enough for the teacher" in parsed.text
    assert "3 dropped: too easy, solved more than 1 times in 2" in parsed.text
    first = parsed.rows.index(["solved", "questions", "share", "", "the teacher’s answers", "kept by filter"])
    assert parsed.rows[first + 1 : first + 4] == [
        ["0 of 2", "7", "58.3 %", "kept", "8", "5"],
        ["1 of 2", "2", "16.7 %", "kept", "4", "3"],
        ["2 of 2", "3", "25.0 %", "too easy", "–", "–"],
    ]
    assert "unsure of 4 of 24 answers" in " ".join(parsed.text.split())


def test_rule_and_judge_stand_in_a_table_where_a_judge_was_asked(run: Path, page: Callable[..., str]) -> None:
    assert "Rule and judge" not in Parsed(page(run)).text
    table = {"right": {"right": 7, "wrong": 1}, "wrong": {"unsure": 1, "wrong": 2}, "unsure": {"not_asked": 1}}
    edit(run / "metrics/filter.json", lambda counts: counts.update(judge_asked=11, rule_by_judge=table))
    parsed = Parsed(page(run))
    assert "11 of 12 answers were marked by the judge" in parsed.text
    heads = ["the rule says", "judge: right", "judge: wrong", "judge: unsure", "not asked"]
    assert parsed.rows[(first := parsed.rows.index(heads)) + 1 : first + 4] == [
        ["right", "7", "1", "0", "0"],
        ["wrong", "0", "2", "1", "0"],
        ["unsure", "0", "0", "0", "1"],
    ]


def test_what_the_judge_contradicts_stands_below_with_its_interval(run: Path, page: Callable[..., str]) -> None:
    table = {"right": {"right": 7, "wrong": 1, "not_asked": 72}, "wrong": {"not_asked": 4}, "unsure": {}}
    right = {"verdicts": 80, "marked": 8, "contradicted": 1, "share": 0.125, "low": 0.0032, "high": 0.5265}
    wrong = {"verdicts": 4, "marked": 0, "contradicted": 0, "share": None, "low": None, "high": None}
    found = {"confidence": 0.95, "interval": "Clopper-Pearson", "right": right, "wrong": wrong}
    edit(
        run / "metrics/filter.json",
        lambda counts: counts.update(judge_asked=8, rule_by_judge=table, judge_contradicts=found),
    )
    parsed = Parsed(page(run))
    heads = ["the rule says", "marked by the judge", "contradicted", "share", "95 % interval", "so many of all"]
    assert parsed.rows[(first := parsed.rows.index(heads)) + 1 : first + 3] == [
        ["right", "8 of 80", "1", "12.5 %", "0.3 – 52.6", "0 – 42"],
        ["wrong", "0 of 4", "0", "–", "–", "–"],
    ]
    assert "Clopper-Pearson" in parsed.text


def test_peoples_reviews_stand_in_a_table_with_the_errors_of_rule_and_judge(
    run: Path, page: Callable[..., str]
) -> None:
    assert "People’s reviews" not in Parsed(page(run)).text
    none = {"reviewed": 0, "false": 0, "share": None, "low": None, "high": None}
    right = {"reviewed": 8, "false": 1, "share": 0.125, "low": 0.0224, "high": 0.4709}
    lines = {"lines": 14, "duplicates": 1, "superseded": 1, "outdated": 2, "no_such_answer": 0}
    answers = {"answers": 10, "right": 7, "wrong": 2, "unsure": 1, "changed": 1, "contradictory": 1, "without_hash": 0}
    errors = {"rule": {"right": right, "wrong": none}, "judge": {"right": none, "wrong": none}}
    found = lines | answers | {"confidence": 0.95, "interval": "Wilson"} | errors
    edit(run / "metrics/filter.json", lambda counts: counts.update(reviews=found))
    parsed = Parsed(page(run))
    heads = ["verdict", "reviewed", "false", "share", "95 % interval"]
    assert parsed.rows[parsed.rows.index(heads) + 1] == ["rule: right", "8", "1", "12.5 %", "2.2 – 47.1"]
    assert "People contradict each other on 1" in parsed.text
    assert "Reviews of an older text, not applied: 2." in parsed.text
    assert "do not exist" not in parsed.text


def test_the_same_inputs_give_the_same_bytes_in_another_process(
    run: Path, page: Callable[..., str], arguments: Callable[..., list[object]]
) -> None:
    first = page(run)
    command = [sys.executable, "-m", "stages.report", *map(str, arguments(run))]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert (run / "report/index.html").read_text(encoding="utf-8") == first


def test_the_page_is_named_by_the_hashes_of_its_inputs(run: Path, page: Callable[..., str]) -> None:
    parsed = Parsed(page(run))
    titles = [attributes["title"] or "" for _, attributes in parsed.tags if "title" in attributes]
    name, *sums = titles
    files = [str(run / path) for path in INPUTS.values() if path.endswith((".json", ".jsonl"))]
    assert {hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files} < set(sums)
    assert len(sums) == len(files) + 3 + 2 * 2 + 2 * 2
    assert name == hashlib.sha256("".join(f"{sha256}\n" for sha256 in sums).encode()).hexdigest()
    edit(run / "data/eval/filtered.jsonl", lambda row: row.update(response="another"))
    assert name not in page(run)


def test_hostile_text_is_shown_and_does_nothing(run: Path, page: Callable[..., str]) -> None:
    everything = {"report.samples": 40}
    write_examples(run, "base")

    def warned(text: str) -> dict[str, Any]:
        return {"code": "setting", "arms": ["base"], "values": {"setting": text, "values": text}}

    edit(run / "metrics/compare.json", lambda document: document["warnings"].append(warned("plain")))
    plain = [tag for tag, _ in Parsed(page(run, everything)).tags]
    for name in ("filtered", "rejected"):
        edit(run / f"data/{name}.jsonl", lambda row: row.update(question=HOSTILE, reasoning=HOSTILE, response=HOSTILE))
    for name in ("base", "filtered"):
        edit(
            run / f"data/eval/{name}.jsonl",
            lambda row: row.update(question=HOSTILE, response=HOSTILE, prediction=HOSTILE),
        )
    write_examples(run, "base", question=HOSTILE, response=HOSTILE, answer=HOSTILE)
    edit(run / "metrics/compare.json", lambda document: document["warnings"][-1].update(warned(HOSTILE)))
    parsed = Parsed(page(run, everything))
    assert [tag for tag, _ in parsed.tags if tag != "p"] == [tag for tag in plain if tag != "p"]
    assert parsed.text.count(HOSTILE) >= 17
    assert not parsed.open


def test_the_page_refers_to_nothing_outside_itself(run: Path, page: Callable[..., str]) -> None:
    html = page(run).replace(scripts.charts(), "")
    for tag, attributes in Parsed(html).tags:
        assert tag not in ("link", "img", "iframe", "object", "base"), tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#"), attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html
    assert "@import" not in html


def test_no_script_runs_but_those_that_the_policy_names(run: Path, page: Callable[..., str]) -> None:
    html = page(run)
    (policy,) = [attributes["content"] or "" for _, attributes in Parsed(html).tags if "http-equiv" in attributes]
    found = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found]
    assert found[1] == scripts.charts()
    assert len(found) == 3
    sources = " ".join(f"'sha256-{each}'" for each in hashes)
    assert policy.startswith(f"default-src 'none'; script-src {sources}; ")
    assert "unsafe" not in policy.split("style-src")[0]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", found[0] + found[2]
    )


def test_echarts_is_the_vendored_build_and_stays_out_where_nothing_is_drawn_or_rows_lie_beside(
    run: Path, page: Callable[..., str]
) -> None:
    folder = Path(scripts.__file__).parent / "echarts"
    sha256 = hashlib.sha256((folder / "echarts.min.js").read_bytes()).hexdigest()
    assert sha256 in (folder / "README.md").read_text(encoding="utf-8")
    assert scripts.charts() in page(run)
    assert scripts.charts() not in page(run, {"report.max_mb": 0.001})


def test_each_link_of_the_page_leads_somewhere(run: Path, page: Callable[..., str]) -> None:
    tags = Parsed(page(run)).tags
    links = {(attributes["href"] or "").removeprefix("#") for _, attributes in tags if "href" in attributes}
    links -= {"report", "flips", "rows"}  # views
    assert links <= {attributes.get("id") for _, attributes in tags}
    assert "training" in links


def test_as_many_samples_of_each_kind_as_params_say_and_the_seed_draws_them(
    run: Path, page: Callable[..., str]
) -> None:
    def drawn(seed: int) -> list[str]:
        html = page(run, {"report.samples": 3, "report.seed": seed})
        return [line for line in html.splitlines() if "<dt>id</dt>" in line]

    kinds = [
        "kept",
        "rejected",
        "unfiltered right",
        "unfiltered wrong",
        "filtered right",
        "filtered wrong",
        "base wrong",
    ]
    one_right_answer_of_base = 1
    assert len(drawn(3)) == 3 * len(kinds) + one_right_answer_of_base
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_the_arms_are_sampled_on_the_same_questions(made_run: Callable[..., Path], page: Callable[..., str]) -> None:
    run = made_run(right={"base": 0, "unfiltered": 0, "filtered": 0})
    lines = [line for line in page(run).splitlines() if "<dt>id</dt><dd>heldout" in line]
    assert len(lines) == 30
    assert lines[:10] == lines[10:20] == lines[20:]


def test_chinese_text_says_that_it_is_chinese(run: Path, page: Callable[..., str]) -> None:
    edit(run / "data/rejected.jsonl", lambda row: row.update(question="小明有几个苹果？"))
    assert '<span class="question" dir="auto" lang="zh-Hans">小明有几个苹果？</span>' in page(run)
    assert [language(text) for text in ("答案是 7", "答えは7です", "The answer is 7.")] == ["zh-Hans", "ja", "en"]


def test_a_sample_shows_the_earlier_turns_and_the_rows_own_system_text(run: Path, page: Callable[..., str]) -> None:
    everything = {"report.samples": 40}
    assert "Earlier: user" not in page(run, everything)
    turns = [{"role": "user", "content": "小明有 3 个？"}, {"role": "assistant", "content": HOSTILE}]
    edit(run / "data/filtered.jsonl", lambda row: row.update(history=turns, system="Be brief."))
    edit(run / "data/eval/base.jsonl", lambda row: row.update(history=turns))
    parsed = Parsed(page(run, everything))
    for title in ("Earlier: user", "Earlier: assistant"):
        assert parsed.text.count(title) == 2
    assert parsed.text.count("System text of the row") == parsed.text.count("Be brief.") == 1
    assert parsed.text.count(HOSTILE) == parsed.text.count("小明有 3 个？") == 2


def test_a_run_without_rejected_rows_has_a_page(made_run: Callable[..., Path], page: Callable[..., str]) -> None:
    text = Parsed(page(made_run(rejected=0))).text
    assert "The filter rejected no answer." in text
    assert "none dropped" in text


def test_a_run_without_trainings_has_a_page(made_run: Callable[..., Path], page: Callable[..., str]) -> None:
    run = made_run(right={"base": 1})
    html = page(run, {"arms": {}, "compare.pairs": []})
    assert 'id="training"' not in html
    assert "No two arms were compared." in Parsed(html).text


def test_a_curve_of_one_step_and_a_loss_that_diverged_have_a_page(run: Path, page: Callable[..., str]) -> None:
    write_training(run, "unfiltered", ["1.5"])
    write_training(run, "filtered", ["nan", "inf"])
    text = Parsed(page(run)).text
    assert "1.500 → 1.500" in text
    assert "nan → inf" in text


@pytest.mark.parametrize(
    "name",
    [
        *(path for path in INPUTS.values() if path.endswith((".json", ".jsonl"))),
        "data/eval/base.jsonl",
        "data/eval/filtered.jsonl",
        "metrics/train/filtered.json",
        "metrics/train/unfiltered.loss.csv",
    ],
)
def test_a_missing_input_is_one_line(
    name: str, run: Path, refuses: Callable[..., str], arguments: Callable[..., list[object]]
) -> None:
    (run / name).unlink()
    said = refuses(main, *arguments(run))
    advice = "'git checkout " if name == "data/reviews.jsonl" else "Run 'dvc repro "
    assert said.startswith(f"{run / name}: no such file. {advice}")
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("metrics/compare.json", "{", ": not JSON"),
        ("metrics/compare.json", '{"confidence": 0.95}', ": no field 'arms'"),
        ("data/eval/base.examples.jsonl", '{"id": "a", "kind": "cut_off"}\n', ":1: no field 'benchmark'"),
        ("metrics/collect.json", "[]", ": Input should be"),
        ("metrics/filter.json", '{"in": "all"}', ": field 'in': Input should be a valid integer"),
        ("metrics/train/filtered.loss.csv", "step,loss\n1,0.5\n2,low\n", ":3: field 'loss': Input should be"),
        ("metrics/train/filtered.loss.csv", "step,rate\n1,0.5\n", ":2: no field 'loss'"),
        ("metrics/train/filtered.loss.csv", "step,loss,learning_rate\n", ": there is no step in it"),
        ("data/eval/base.jsonl", "", ": there is nothing in it"),
        ("data/rejected.jsonl", '{"id": "a"}\n', ":1: no field 'question'"),
    ],
)
def test_a_broken_input_is_one_line(
    name: str,
    content: str,
    complaint: str,
    run: Path,
    refuses: Callable[..., str],
    arguments: Callable[..., list[object]],
) -> None:
    (run / name).write_text(content)
    said = refuses(main, *arguments(run))
    assert said.startswith(f"{run / name}{complaint}"), said
    assert "Run 'dvc repro " in said


def test_a_file_in_parts_has_the_page_of_one_file(run: Path, page: Callable[..., str]) -> None:
    whole = page(run)
    path = run / "data/rejected.jsonl"
    write_rows(path, list(read_rows(path, Rejected, "")), 3)
    assert len(list(path.iterdir())) == 2
    assert page(run) == whole


def test_of_more_rows_than_max_rows_the_page_has_a_random_sample_and_says_so(
    run: Path, page: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    everything = packed_rows(page(run))
    remark = re.compile(r"random sample: (\d+) of (\d+)")
    assert not remark.findall(Parsed(page(run, {"report.max_rows": 12})).text), "there are 12 rows"
    sampled = page(run, {"report.max_rows": 6})
    assert remark.findall(Parsed(sampled).text) == [("6", "12")] * 2, "beside the counts, and beside the search"
    assert "a random sample of 6 of 12: report.max_rows is 6" in caplog.text
    assert page(run, {"report.max_rows": 6}) == sampled
    rows = packed_rows(sampled)
    assert [row for row in rows if row["kind"] == "student"] == [row for row in everything if row["kind"] == "student"]
    teachers = [row["id"] for row in rows if row["kind"] != "student"]
    assert len(teachers) == 6
    assert set(teachers) < {row["id"] for row in everything}
    assert samples_of_teacher(sampled) == set(teachers)
    for name in ("kept", "rejected"):
        assert f'<li><i class="{"out" if name == "kept" else "dropped"}"></i>{8 if name == "kept" else 4} ' in sampled
    others = [packed_rows(page(run, {"report.max_rows": 6, "report.seed": seed})) for seed in range(5)]
    assert len({str([row["id"] for row in each if row["kind"] != "student"]) for each in others}) > 1


@pytest.mark.slow  # half a minute
def test_twenty_times_the_rows_take_the_memory_of_those_that_are_shown(tmp_path: Path) -> None:
    few, many = (reported(count, 1000, 2500, tmp_path).used.peak_mb for count in (2500, 50_000))
    assert many < 1.2 * few


def test_a_page_of_max_mb_has_the_rows_of_the_first_ranks_and_its_siblings_the_others_each_after_its_question() -> None:
    draw = random.Random(0)
    texts = [draw.randbytes(300_000).hex() for _ in range(24)]  # no packing shortens them below a half
    rows = [evaluated(index, index % 8 == 0, "heldout", response=text) for index, text in enumerate(texts)]
    found = [
        Entry({"id": row.id}, {"kind": "student", "text": row.response}, Rank(2 - index // 8))
        for index, row in enumerate(rows)
    ]
    whole = pack(iter(found), 20)
    assert (len(whole.siblings), whole.inside, whole.total) == (0, 24, 24)
    packed = pack(iter(found), 2)
    assert (packed.inside, packed.total) == (4, 24)
    groups = [packed.chunks, *packed.siblings]
    assert len(groups) == 1 + len(packed.siblings) > 3
    assert groups[1:] == list(packed.siblings), "they are read as often as asked"
    assert all(sum(map(len, group)) <= 2_000_000 for group in groups)
    lines = [
        line for group in groups for chunk in group for line in json.loads(gzip.decompress(base64.b64decode(chunk)))
    ]
    assert [line["id"] for line in lines if "id" in line] == [
        rows[index].id for index in [*range(16, 24), *range(8, 16), *range(8)]
    ]
    between = pack(iter(found), whole_mb := sum(map(len, whole.chunks)) / 1e6 + 0.1, charts=500_000)
    assert (between.inside, len(between.siblings), between.leave_room) == (24, 0, False), whole_mb
    assert pack(iter(found), whole_mb + 0.5, charts=500_000).leave_room
    questions: dict[int, str] = {}
    answers = {}
    for line in lines:
        if "kind" in line:
            answers[questions[line["q"]]] = line["text"]
        else:
            questions[line["q"]] = line["id"]
    assert len(questions) == 24
    assert answers == {row.id: row.response for row in rows}


def test_the_page_has_first_what_the_arms_differ_in_then_what_was_dropped(run: Path) -> None:
    rejected = list(read_rows(run / "data/rejected.jsonl", Rejected, ""))
    kept = list(read_rows(run / "data/filtered.jsonl", Filtered, ""))
    both = {"filtered": [evaluated(0, True, "gsm8k"), evaluated(1, True, "gsm8k")]}
    students = both | {"base": [evaluated(0, True, "gsm8k"), evaluated(1, False, "gsm8k")]}
    asked = {"id": "p", "question": "q", "first": "filtered", "second": "base"}
    said = {"first_answer": "a", "second_answer": "b", "verdict": "first", "verdict_swapped": "first"}
    preference = Preference.model_validate(asked | said | {"outcome": "first"})
    found = entries(Sources(kept[:1], rejected[:1], [], [], [], [], [preference], students))
    ranks = [(entry.row["kind"], entry.row.get("arm") or "", entry.rank.name) for entry in found]
    assert sorted(ranks) == [
        ("kept", "", "OTHER"),
        ("preference", "filtered", "OTHER"),
        ("rejected", "", "DROPPED"),
        ("student", "base", "COMPARED"),
        ("student", "base", "OTHER"),
        ("student", "filtered", "COMPARED"),
        ("student", "filtered", "OTHER"),
    ]


def packed_rows(html: str) -> list[dict[str, Any]]:
    """The rows that the page's script opens, each with the text of its question."""
    chunks = re.findall(r'class="rows">([^<]+)<', html)
    entries = [entry for chunk in chunks for entry in json.loads(gzip.decompress(base64.b64decode(chunk)))]
    questions = {entry["q"]: entry["question"] for entry in entries if "question" in entry}
    return [entry | {"q": questions[entry["q"]]} for entry in entries if "kind" in entry]


def samples_of_teacher(html: str) -> set[str]:
    """The keys of the teacher's answers that a reader without a script sees."""
    return {f"{name}#0" for name in re.findall(r"<dt>id</dt><dd>(train-\d+)", html)}


def test_flags_of_disagreement_stand_on_the_rows_of_a_sample(run: Path, page: Callable[..., str]) -> None:
    rows = [json.loads(line) for line in (run / "data/filtered.jsonl").read_bytes().splitlines()]
    lines = [json.dumps(row | {"kind": "gold_suspect"}) for row in rows]
    (run / "data/disagreements.jsonl").write_text("".join(f"{line}\n" for line in lines))
    kept = [row for row in packed_rows(page(run, {"report.max_rows": 6})) if row["kind"] == "kept"]
    assert kept
    assert all(row["flags"] == ["gold_suspect"] for row in kept)


def test_each_line_is_as_likely_as_any_other_to_be_shown() -> None:
    totals, most = [7, 0, 3], 4
    assert draw_lines(totals, 10, seed=1) == [range(7), range(0), range(3)]
    drawn: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        lines = draw_lines(totals, most, seed)
        found = [(file, line) for file, total in enumerate(totals) for line in range(total) if line in lines[file]]
        assert len(found) == most
        drawn.update(found)
    assert len(drawn) == 10
    assert all(abs(count - 1200) < 4 * (3000 * 0.4 * 0.6) ** 0.5 for count in drawn.values())


def test_files_of_different_runs_make_no_page(
    made_run: Callable[..., Path], refuses: Callable[..., str], arguments: Callable[..., list[object]]
) -> None:
    run = made_run()
    edit(run / "metrics/filter.json", lambda counts: counts.update(kept=9))
    assert "filter.json: 12 rows in, 13 out or dropped. Run 'dvc repro filter'" in refuses(main, *arguments(run))
    made_run()
    rows = (run / "data/rejected.jsonl").read_text().splitlines(keepends=True)
    (run / "data/rejected.jsonl").write_text("".join(rows[1:]))
    assert "rejected.jsonl: 3 rows, where 4 were counted. Run 'dvc repro filter'" in refuses(main, *arguments(run))
    made_run()
    edit(run / "data/eval/filtered.jsonl", lambda row: row.update(correct=False))
    assert "heldout: 14 of 40 right, where 15 of 40 were compared. Run 'dvc repro compare'" in refuses(
        main, *arguments(run)
    )


def test_answers_to_another_benchmark_than_was_compared_make_no_page(
    made_run: Callable[..., Path], refuses: Callable[..., str], arguments: Callable[..., list[object]]
) -> None:
    run = made_run(benchmarks=["heldout", "gsm8k"])
    write_evaluation(run, "filtered", 15, ["heldout"])
    assert "filtered.jsonl: gsm8k: 0 of 0 right, where 15 of 40 were compared." in refuses(main, *arguments(run))
    write_evaluation(run, "filtered", 15, ["heldout", "gsm8k", "mmlu"])
    assert "filtered.jsonl: mmlu: 15 of 40 right, where 0 of 0 were compared." in refuses(main, *arguments(run))


def test_an_arm_that_was_not_compared_is_refused(
    run: Path, refuses: Callable[..., str], arguments: Callable[..., list[object]]
) -> None:
    said = refuses(main, *arguments(run, {"arms": ARMS | {"control": ARMS["filtered"]}}))
    assert "compares base, unfiltered, filtered; params.yaml has base, unfiltered, filtered, control." in said


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 31.4], ["0", "10", "20", "30", "40"]),
        ([-1.2, 3.9], ["−2", "0", "2", "4"]),
        ([0.0, 0.0], ["0.0", "0.2"]),
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.0, 1.6563], ["0.0", "0.5", "1.0", "1.5", "2.0"]),
        ([0.0, 1000.0], ["0", "200", "400", "600", "800", "1000"]),
        ([100.0, 100.0], ["100", "120"]),
    ],
)
def test_a_scale_has_round_ticks_and_holds_its_values(values: list[float], labels: list[str]) -> None:
    scale = Scale.around(values)
    assert [tick.label for tick in scale.ticks] == labels
    assert [scale.ticks[0].at, scale.ticks[-1].at] == [0, 100]
    assert all(0 <= scale.at(value) <= 100 for value in values)


def test_an_interval_stands_where_its_numbers_say() -> None:
    chart = interval_chart([(-0.1, 0.0, 0.3)], with_zero=True)
    whisker = chart.whiskers[0]
    assert (whisker.low, whisker.dot, whisker.high) == (0, 25, 100)
    assert [tick.at for tick in chart.scale.ticks if tick.is_zero] == [25]


def test_a_long_loss_curve_is_thinned_to_means_and_says_so() -> None:
    chart = loss_chart({"arm": [LossPoint(step=step, loss=1 + step % 2) for step in range(1, 2001)]})
    assert chart is not None
    assert chart.is_thinned
    assert chart.curves["arm"].path.count(",") <= MOST_POINTS
    short = loss_chart({"arm": [LossPoint(step=1, loss=0.5)]})
    assert short is not None
    assert not short.is_thinned


def test_the_majority_and_a_rubric_have_tables_of_their_own(run: Path, page: Callable[..., str]) -> None:
    none: dict[str, dict[str, int]] = {"right": {}, "wrong": {}, "unsure": {}}
    majority = {"questions": 12, "decided": 9, "undecided": 3, "largest_share": {"0.50": 3, "0.75": 9}}
    edit(run / "metrics/filter.json", lambda counts: counts.update(rule_by_judge=none, majority=majority))
    parsed = Parsed(page(run))
    assert "9 of 12 questions have a majority" in parsed.text
    assert ["questions", "3", "9"] in parsed.rows
    rubric = {"right": 9, "wrong": 2, "unsure": 1, "scores": {"4": 2, "8": 9}}
    edit(run / "metrics/filter.json", lambda counts: counts.update(majority=None, rubric=rubric, judge_asked=12))
    parsed = Parsed(page(run))
    assert "9 answers meet it, 2 do not, 1 marks could not be read" in parsed.text
    assert ["answers", "2", "9"] in parsed.rows
    assert "Rule and judge" not in parsed.text


def test_a_row_without_a_gold_answer_shows_what_is_known(run: Path, page: Callable[..., str]) -> None:
    path = run / "data/filtered.jsonl"
    rows = [json.loads(line) | {"answer": None, "score": 8.0} for line in path.read_bytes().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parsed = Parsed(page(run))
    assert "score 8" in " ".join(parsed.text.split())
    assert "None" not in parsed.text


@pytest.mark.parametrize("benchmarks", [["preference"], ["heldout", "preference"]])
def test_the_judges_preference_is_on_the_page(
    benchmarks: list[str], made_run: Callable[..., Path], page: Callable[..., str]
) -> None:
    folder = made_run(benchmarks=benchmarks)
    shown = Parsed(page(folder, {"report.samples": 2}))
    cells = ["21", "6", "13", "40", "5 (12.5 %)", "4", "2", "15 : 11", "+0.31"]
    for first, second in PAIRS:
        assert [f"{first} − {second}", *cells] in shown.rows
    assert "Judge: qwen-max, prompt impartial." in shown.text
    words, several = " ".join(shown.text.split()), len(benchmarks) > 1
    assert words.count("preference: 40 answers" if several else " 40 answers") == 3
    assert words.count("preference: Answers 2 of 40" if several else "Answers 2 of 40") == 3
    (first, *_) = sentences(Comparison.model_validate_json((folder / "metrics/compare.json").read_bytes()))
    if benchmarks == ["preference"]:
        assert first.startswith("A judge preferred filtered to unfiltered by +37.5 points of all questions [")
    else:
        assert first.startswith("Training on filtered instead of unfiltered moved heldout by ")
