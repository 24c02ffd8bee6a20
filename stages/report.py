"""Write the page: the results of the run, the counts, the loss curves, and samples to read.

In:   data/distilled.jsonl, data/filtered.jsonl, data/rejected.jsonl, data/disagreements.jsonl, data/left_out.jsonl,
      data/too_easy.jsonl, data/distill_failures.jsonl, data/preferences.jsonl, data/reviews.jsonl,
      data/eval (ARM.jsonl of each arm, and its ARM.examples.jsonl where there is one), metrics/collect.json,
      metrics/difficulty.json, metrics/distill.json, metrics/filter.json, metrics/convert (DATASET.json,
      DATASET.lengths.csv), metrics/train (ARM.json, ARM.loss.csv), metrics/compare.json
Out:  report/index.html   one file that needs no network and shows a hash of its inputs
      report/rows-1.js, … rows that a page of report.max_mb has no room for

Alone:  the command of the stage in dvc.yaml, with these files
"""

import hashlib
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.comparison.results import Arm, Comparison
from stages.lib.files.shards import parts_of
from stages.lib.page import (
    Answers,
    Dataset,
    InputFile,
    Page,
    PassRateRow,
    PassRates,
    RandomSample,
    Samples,
    Training,
    render,
    sibling,
    sibling_name,
)
from stages.lib.page.flow import (
    Part,
    Step,
    convert_step,
    difficulty_step,
    distill_step,
    dropped_parts,
    train_step,
)
from stages.lib.page.metrics import (
    CollectCounts,
    ConvertCounts,
    Described,
    DifficultyCounts,
    DistillCounts,
    Example,
    FilterCounts,
    TrainCounts,
    read_lengths,
    read_losses,
    read_metrics,
)
from stages.lib.page.packing import pack
from stages.lib.page.rows import Sources, entries
from stages.lib.page.scripts import charts
from stages.lib.page.shown import Shown, count_lines, draw_lines, read_shown
from stages.lib.page.verdicts import Worded
from stages.lib.params import Params, Report, load_params
from stages.lib.reviews import read_reviews
from stages.lib.rows import DataError, Row, RowsOf, read_rows, writing
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.filtered import Disagreement, Filtered, Rejected
from stages.lib.rows.preference import Preference
from stages.lib.rows.question import LeftOut, Question

log = logging.getLogger("distillery.report")

R = TypeVar("R", bound=Row)

BLOCK = 2**20  # bytes


@dataclass(frozen=True)
class Inputs:
    """The paths of the page's inputs; ``answers``, ``convert_metrics`` and ``train_metrics`` are folders."""

    distilled: Path
    filtered: Path
    rejected: Path
    disagreements: Path
    left_out: Path
    too_easy: Path
    failures: Path
    preferences: Path
    reviews: Path
    answers: Path
    collect_metrics: Path
    difficulty_metrics: Path
    distill_metrics: Path
    filter_metrics: Path
    convert_metrics: Path
    train_metrics: Path
    comparison: Path


@click.command(help="Write the page: the comparison, the counts, the loss curves and samples, in one HTML file.")
@click.option("--distilled", type=READ, required=True, help="The teacher's answers, read.")
@click.option("--filtered", type=READ, required=True, help="The kept ones, read.")
@click.option("--rejected", type=READ, required=True, help="The dropped ones, read.")
@click.option("--disagreements", type=READ, required=True, help="Those for people to read, read.")
@click.option("--left-out", type=READ, required=True, help="The questions that collect left out, read.")
@click.option("--too-easy", type=READ, required=True, help="The questions that difficulty left out, read.")
@click.option("--failures", type=READ, required=True, help="The questions without an answer, read.")
@click.option("--preferences", type=READ, required=True, help="What a judge preferred, read.")
@click.option("--reviews", type=READ, required=True, help="People's verdicts, read.")
@click.option("--answers", type=READ, required=True, help="The folder of the arms' answers, read.")
@click.option("--collect", "collect_metrics", type=READ, required=True, help="Counts of collect, read.")
@click.option("--difficulty", "difficulty_metrics", type=READ, required=True, help="Counts of difficulty, read.")
@click.option("--distill", "distill_metrics", type=READ, required=True, help="Counts of distill, read.")
@click.option("--filter", "filter_metrics", type=READ, required=True, help="Counts of filter, read.")
@click.option("--convert", "convert_metrics", type=READ, required=True, help="The datasets' metrics, read.")
@click.option("--train", "train_metrics", type=READ, required=True, help="The folder of the trainings' metrics, read.")
@click.option("--compare", "comparison", type=READ, required=True, help="The comparison, read.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The page, written.")
@params_option
@one_line_errors
def main(out_path: Path, params_path: Path, **paths: Path) -> None:
    params = load_params(params_path)
    page = read_page(Inputs(**paths), params)
    for old in out_path.parent.glob("rows-*.js"):
        old.unlink()
    for number, chunks in enumerate(page.rows.siblings, start=1):
        write_text(out_path.with_name(sibling_name(number)), sibling(chunks))
    write_text(out_path, render(page))
    log.info("report: %d arms, made from %d files, data %s", len(page.answers), len(page.inputs), page.data_hash[:12])
    log_rows(page, out_path, params.report)


def write_text(path: Path, text: str) -> None:
    """Write a file whole."""
    with writing(path) as file:
        file.write(text.encode(errors="replace"))


def log_rows(page: Page, out_path: Path, asked: Report) -> None:
    """How many rows are in the page, what lies beside it, and what is in neither."""
    rows = page.rows
    log.info("report: %d of %d rows in a page of %.1f MB", rows.inside, rows.total, out_path.stat().st_size / 1e6)
    if rows.siblings:
        log.warning(
            "report: the other rows are in %d files rows-N.js beside it: report.max_mb is %g. Copy them with the page.",
            len(rows.siblings),
            asked.max_mb,
        )
    if page.sample:
        log.warning(
            "report: of the teacher's answers and the dropped questions these are a random sample of %d of %d: "
            "report.max_rows is %d. The counts are of all.",
            page.sample.shown,
            page.sample.total,
            asked.max_rows,
        )


def read_page(inputs: Inputs, params: Params) -> Page:
    """Read all that the page shows, and check that it is from one run."""
    distilled = read_distilled(inputs.distilled)
    teaching = read_teaching(inputs, params)
    flow = read_flow(inputs)
    check_flow(flow, inputs)
    *_, asked, judged = flow
    check_rows(inputs.distilled, distilled.total, asked.out, "distill")
    check_rows(inputs.filtered, teaching.kept.total, judged.out, "filter")
    check_rows(inputs.rejected, teaching.rejected.total, judged.dropped, "filter")
    comparison = read_comparison(inputs.comparison, list(params.trained_arms))
    trainings = {name: read_training(inputs.train_metrics, name, params) for name in params.trained_arms}
    names = dict.fromkeys(training.asked.dataset for training in trainings.values())
    datasets = {name: read_dataset(inputs.convert_metrics, name) for name in names}
    students = {name: read_students(inputs.answers, name, comparison) for name in comparison.arms}
    answers = {
        name: sampled_answers(inputs.answers, name, of_arm, comparison, params) for name, of_arm in students.items()
    }
    found = entries(read_sources(inputs, teaching, students, answers))
    rows = pack(found, params.report.max_mb, len(charts()) if trainings else 0)
    people = [review for _, review in read_reviews(inputs.reviews)]
    files = hash_files(input_files(inputs, list(params.trained_arms), list(datasets)))
    return Page(
        teachers=sorted(distilled.models),
        student=PurePath(params.train.student.name).name,
        comparison=comparison,
        flow=flow,
        branches=read_branches(inputs, datasets, trainings),
        pass_rates=read_pass_rates(inputs, distilled.solved, teaching.kept.solved),
        marks=read_marks(inputs),
        reviews=read_metrics(inputs.filter_metrics, FilterCounts, rebuild("filter")).reviews,
        datasets=datasets,
        trainings=trainings,
        kept=teaching.kept.drawn(params.report.seed, params.report.samples),
        rejected=teaching.rejected.drawn(params.report.seed, params.report.samples),
        answers=answers,
        rows=rows,
        sample=teaching.sample,
        people=people,
        seed=params.report.seed,
        inputs=files,
        data_hash=hashlib.sha256("".join(f"{file.sha256}\n" for file in files).encode()).hexdigest(),
    )


@dataclass(frozen=True)
class Teaching:
    """The data files that grow with the questions to train on: the teacher's answers, and what was dropped."""

    kept: Shown[Filtered]
    rejected: Shown[Rejected]
    left_out: Shown[LeftOut]
    too_easy: Shown[Question]
    failures: Shown[Failure]

    @property
    def sample(self) -> RandomSample | None:
        """How many of the rows are shown; None where all are."""
        files: list[Shown[Any]] = [self.kept, self.rejected, self.left_out, self.too_easy, self.failures]
        shown, total = sum(map(len, files)), sum(file.total for file in files)
        return RandomSample(shown, total) if shown < total else None


def read_teaching(inputs: Inputs, params: Params) -> Teaching:
    """Read all rows of these files, and choose those that the page shows: all, or ``report.max_rows`` of them."""
    files = [
        (inputs.filtered, "filter"),
        (inputs.rejected, "filter"),
        (inputs.left_out, "collect"),
        (inputs.too_easy, "difficulty"),
        (inputs.failures, "distill"),
    ]
    counts = [count_lines(path, rebuild(stage)) for path, stage in files]
    lines = dict(zip(files, draw_lines(counts, params.report.max_rows, params.report.seed), strict=True))

    def read(path: Path, model: type[R], stage: str) -> Shown[R]:
        return read_shown(path, model, rebuild(stage), lines[path, stage])

    return Teaching(
        kept=read(inputs.filtered, Filtered, "filter"),
        rejected=read(inputs.rejected, Rejected, "filter"),
        left_out=read(inputs.left_out, LeftOut, "collect"),
        too_easy=read(inputs.too_easy, Question, "difficulty"),
        failures=read(inputs.failures, Failure, "distill"),
    )


@dataclass
class Answered:
    """The counts of the teacher's answers: by pass rate and by the model that gave them."""

    total: int = 0
    solved: Counter[int] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)


def read_distilled(path: Path) -> Answered:
    """Count the teacher's answers, of which there must be at least one."""
    found = Answered()
    for row in read_rows(path, Distilled, rebuild("distill")):
        found.total += 1
        found.models.add(row.model)
        if row.pass_rate:
            found.solved[row.pass_rate.solved] += 1
    if not found.total:
        raise DataError(f"{path}: there is nothing in it. {rebuild('distill')}")
    return found


def rebuild(stage: str) -> str:
    """The advice for a file that cannot be used."""
    return f"Run 'dvc repro {stage}' to rebuild it."


def read_flow(inputs: Inputs) -> list[Step]:
    """The flow of the rows through the stages, from the stages' own counts."""
    collected = read_metrics(inputs.collect_metrics, CollectCounts, rebuild("collect"))
    measured = read_metrics(inputs.difficulty_metrics, DifficultyCounts, rebuild("difficulty"))
    asked = read_metrics(inputs.distill_metrics, DistillCounts, rebuild("distill"))
    judged = read_metrics(inputs.filter_metrics, FilterCounts, rebuild("filter"))
    training = Part("flow.training", collected.questions, "out")
    heldout = Part("flow.heldout", collected.heldout, "aside")
    return [
        Step(
            "collect",
            collected.taken,
            [training, heldout, *dropped_parts(collected.left_out)],
            [*contamination_remark(collected.unchecked), *texts_remark(collected.texts)],
        ),
        *([difficulty_step(measured)] if measured.asked else []),
        distill_step(asked),
        Step(
            "filter",
            judged.taken,
            [Part("flow.kept", judged.kept, "out"), *dropped_parts(judged.rejected_by_reason)],
        ),
    ]


def read_branches(inputs: Inputs, datasets: dict[str, Dataset], trainings: dict[str, Training]) -> list[Step]:
    """The flow behind the filter: the datasets as conversations, and the rows of each arm; DataError as of the flow."""
    converted = [convert_step(name, dataset.counts) for name, dataset in datasets.items()]
    for step in converted:
        check_step(step, inputs.convert_metrics / f"{step.of}.json", f"convert@{step.of}")
    trained = [train_step(name, training.seen) for name, training in trainings.items()]
    for step in trained:
        path, dataset = inputs.train_metrics / f"{step.of}.json", trainings[step.of].asked.dataset
        check_rows(path, step.taken, datasets[dataset].counts.rows, f"train@{step.of}")
    return [*converted, *trained]


def read_pass_rates(inputs: Inputs, answers: Counter[int], right: Counter[int]) -> PassRates | None:
    """The untrained student's pass rates, and how many answers each gave; None where it was not asked."""
    counts = read_metrics(inputs.difficulty_metrics, DifficultyCounts, rebuild("difficulty"))
    if not counts.asked or counts.max_solved is None:
        return None
    rows = [
        PassRateRow(solved, questions, solved <= counts.max_solved, answers[solved], right[solved])
        for solved, questions in ((int(key), count) for key, count in counts.by_solved.items())
    ]
    return PassRates(counts, rows)


def contamination_remark(unchecked: list[str]) -> list[Worded]:
    """The remark on benchmarks that were not checked: their questions may be in the training set."""
    return [("flow.unchecked", {"names": ", ".join(unchecked)})] if unchecked else []


def texts_remark(texts: dict[str, Described]) -> list[Worded]:
    """The remark on the scripts and the lengths of the questions to train on."""
    found = texts.get("questions")
    if not found or not found.characters:
        return []
    scripts = ", ".join(f"{name} {count}" for name, count in found.scripts.items())
    return [("flow.texts", {"scripts": scripts, "p50": found.characters["p50"], "p90": found.characters["p90"]})]


def read_marks(inputs: Inputs) -> FilterCounts | None:
    """The counts of the judge's marks or of the majority; None where the rule alone decided."""
    counts = read_metrics(inputs.filter_metrics, FilterCounts, rebuild("filter"))
    return counts if counts.judge_asked or counts.majority else None


def check_flow(flow: list[Step], inputs: Inputs) -> None:
    """DataError unless each stage accounts for all its rows, and took all rows of the one before.

    ``distill`` may take several samples of each question.
    """
    paths = {
        "collect": inputs.collect_metrics,
        "difficulty": inputs.difficulty_metrics,
        "distill": inputs.distill_metrics,
        "filter": inputs.filter_metrics,
    }
    for step in flow:
        check_step(step, paths[step.name], step.name)
    steps = {step.name: step for step in flow}
    if measured := steps.get("difficulty"):
        check_rows(inputs.difficulty_metrics, measured.taken, steps["collect"].out, "difficulty")
    check_rows(inputs.filter_metrics, steps["filter"].taken, steps["distill"].out, "filter")


def check_step(step: Step, path: Path, stage: str) -> None:
    """DataError unless a stage accounts for all its rows."""
    gone = sum(part.count for part in step.parts)
    if gone != step.taken:
        raise DataError(f"{path}: {step.taken} rows in, {gone} out or dropped. {rebuild(stage)}")


def check_rows(path: Path, rows: int, counted: int, stage: str) -> None:
    """DataError unless a file holds as many rows as its stage counted."""
    if rows != counted:
        raise DataError(f"{path}: {rows} rows, where {counted} were counted. {rebuild(stage)}")


def read_comparison(path: Path, names: list[str]) -> Comparison:
    """The comparison; DataError unless it compares the arms in params."""
    comparison = read_metrics(path, Comparison, rebuild("compare"))
    if list(comparison.arms) != ["base", *names]:
        found, expected = ", ".join(comparison.arms), ", ".join(["base", *names])
        raise DataError(f"{path}: compares {found}; params.yaml has {expected}. {rebuild('compare')}")
    return comparison


def read_training(folder: Path, name: str, params: Params) -> Training:
    """An arm's training: its settings, its counts and its losses."""
    advice = rebuild(f"{'train-on-policy' if name in params.on_policy else 'train'}@{name}")
    seen = read_metrics(folder / f"{name}.json", TrainCounts, advice)
    return Training(params.trained_arms[name], seen, read_losses(folder / f"{name}.loss.csv", advice))


def read_dataset(folder: Path, name: str) -> Dataset:
    """A dataset's counts and the lengths of its conversations."""
    advice = rebuild(f"convert@{name}")
    counts = read_metrics(folder / f"{name}.json", ConvertCounts, advice)
    return Dataset(counts, read_lengths(folder / f"{name}.lengths.csv", advice))


def read_sources(
    inputs: Inputs, teaching: Teaching, students: dict[str, list[Evaluated]], answers: dict[str, Answers]
) -> Sources:
    """The rows for the search, read as they are iterated; the page's samples and the audit's examples stay in it."""
    drawn = {
        name: frozenset(row.key for found in of_arm.samples.values() for row in found.drawn)
        | {f"{example.benchmark}/{example.id}" for example in of_arm.examples}
        for name, of_arm in answers.items()
    }
    disagreements = read_rows(inputs.disagreements, Disagreement, rebuild("filter"))
    answered = teaching.kept.keys | teaching.rejected.keys
    return Sources(
        kept=teaching.kept,
        rejected=teaching.rejected,
        disagreements=(row for row in disagreements if row.key in answered),
        left_out=teaching.left_out,
        too_easy=teaching.too_easy,
        failures=teaching.failures,
        preferences=RowsOf(inputs.preferences, Preference, rebuild("prefer")),
        students=students,
        drawn=drawn,
    )


def read_students(folder: Path, name: str, comparison: Comparison) -> list[Evaluated]:
    """An arm's answers, which are those that were compared."""
    path = folder / f"{name}.jsonl"
    rows = list(read_rows(path, Evaluated, rebuild("evaluate-base" if name == "base" else f"evaluate@{name}")))
    asked: dict[str, dict[str, bool | None]] = {}
    for row in rows:
        asked.setdefault(row.benchmark, {})[row.key] = row.correct
    check_answers(path, asked, comparison.arms[name])
    return rows


def sampled_answers(folder: Path, name: str, rows: list[Evaluated], comparison: Comparison, params: Params) -> Answers:
    """Samples of each benchmark's right and wrong answers of an arm, and the examples of the audit."""
    by_key = {row.key: row for row in rows}
    asked: dict[str, dict[str, bool | None]] = {}
    for row in rows:
        asked.setdefault(row.benchmark, {})[row.key] = row.correct
    samples = {}
    for benchmark, correct in asked.items():
        right, wrong, unscored = ([by_key[key] for key in keys] for keys in draw_samples(correct, params))
        count = count_right(correct) if benchmark in comparison.benchmarks else None
        samples[benchmark] = Samples(len(correct), count, right, wrong, unscored)
    examples, advice = examples_file(folder, name), rebuild("evaluate-base" if name == "base" else f"evaluate@{name}")
    return Answers(samples, list(read_rows(examples, Example, advice)) if examples.is_file() else [])


def count_right(correct: dict[str, bool | None]) -> int:
    """The number of right answers."""
    return sum(each is True for each in correct.values())


def check_answers(path: Path, asked: dict[str, dict[str, bool | None]], compared: Arm) -> None:
    """DataError unless the answers of each benchmark are those that were compared."""
    if not asked:
        raise DataError(f"{path}: there is nothing in it. {rebuild('compare')}")
    for benchmark in dict.fromkeys([*compared.benchmarks, *compared.unscored, *asked]):
        correct, score = asked.get(benchmark, {}), compared.benchmarks.get(benchmark)
        unscored = compared.unscored.get(benchmark)
        found = count_right(correct), len(correct)
        expected = (score.correct, score.n) if score else (0, unscored.n if unscored else 0)
        if found != expected:
            raise DataError(
                f"{path}: {benchmark}: {found[0]} of {found[1]} right, where {expected[0]} of {expected[1]} were "
                f"compared. {rebuild('compare')}"
            )


def draw_samples(correct: dict[str, bool | None], params: Params) -> tuple[list[str], ...]:
    """Draw keys of right answers, of wrong ones and of those without a score, as many as params say of each.

    Arms with the same questions share the order.
    """
    order = sorted(correct)
    random.Random(params.report.seed).shuffle(order)
    kinds = ([key for key in order if correct[key] is kind] for kind in (True, False, None))
    return tuple(keys[: params.report.samples] for keys in kinds)


def examples_file(folder: Path, name: str) -> Path:
    """The path of an arm's examples of the audit; the file may be missing."""
    return folder / f"{name}.examples.jsonl"


def input_files(inputs: Inputs, names: list[str], datasets: list[str]) -> list[Path]:
    """All input files of the page, in a fixed order."""
    return [
        inputs.distilled,
        inputs.filtered,
        inputs.rejected,
        inputs.disagreements,
        inputs.left_out,
        inputs.too_easy,
        inputs.failures,
        inputs.preferences,
        inputs.reviews,
        *(inputs.answers / f"{name}.jsonl" for name in ["base", *names]),
        *(path for name in ["base", *names] if (path := examples_file(inputs.answers, name)).is_file()),
        inputs.collect_metrics,
        inputs.difficulty_metrics,
        inputs.distill_metrics,
        inputs.filter_metrics,
        *(inputs.convert_metrics / f"{name}{suffix}" for name in datasets for suffix in (".json", ".lengths.csv")),
        *(inputs.train_metrics / f"{name}{suffix}" for name in names for suffix in (".json", ".loss.csv")),
        inputs.comparison,
    ]


def hash_files(paths: list[Path]) -> list[InputFile]:
    """The files with their sha256; that of a data file is of all its rows, whether it is one file or a folder."""
    return [InputFile(path.as_posix(), sha256_of(parts_of(path, "Run 'dvc repro' to rebuild it."))) for path in paths]


def sha256_of(files: list[Path]) -> str:
    """The hash of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
