"""Compare the arms by a judge's preference: which of two answers to a question is better, asked in both orders.

In:   data/eval (ARM.jsonl of each arm, its answers to the benchmark ``preference``), the judge's prompt file
Out:  data/preferences.jsonl   {"id": "q7", "first": "filtered", "second": "base", "verdict": "first",
                                "verdict_swapped": "first", "outcome": "first", …}
      metrics/prefer.json      {"judge": {"model": "…", "prompt": "impartial"}, "pairs": {"filtered_vs_base": {"n": 200,
                                "wins": 90, "losses": 40, "ties": 70, "flipped": 31, …}}}

The pairs are those of ``compare.pairs``. An arm wins a question only where both orders agree; everything else is a tie.
With ``prefer: null`` nobody is asked and both files are empty. The judge's replies are in the store of received
answers: a stopped run resumes, and a reply is never bought twice. docs/evaluation.md explains the method.

Alone:  python -m stages.prefer --answers data/eval --preferences P.jsonl --metrics M.json
"""

import logging
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.pairs import pairs_of
from stages.lib.params import PREFERENCE, Params, load_params
from stages.lib.preference.comparing import Comparing, Match
from stages.lib.preference.counting import counted
from stages.lib.rows import DataError, read_rows, write_json, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.preference import AskedJudge, Counts, Preference, PreferenceMetrics
from stages.lib.rows.question import transcript
from stages.lib.store.answer_store import default_path, open_store

log = logging.getLogger("distillery.prefer")

Answers = dict[str, Evaluated]  # of one arm, by question


@click.command(help="Have a judge compare the arms' answers in pairs, each pair in both orders.")
@click.option("--answers", "answers_path", type=READ, required=True, help="The folder of the arms' answers, read.")
@click.option("--preferences", "preferences_path", type=WRITE, required=True, help="The judge's verdicts, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--store", "store_path", type=WRITE, help="The judge's replies  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(
    answers_path: Path, preferences_path: Path, metrics_path: Path, store_path: Path | None, params_path: Path
) -> None:
    params = load_params(params_path)
    rows = preferences(answers_path, store_path or default_path(), params) if params.prefer else []
    metrics = metrics_of(rows, params)
    write_rows(preferences_path, rows, params.run.shard_rows)
    write_json(metrics_path, metrics.model_dump())
    for counts in metrics.pairs.values():
        log.info("prefer: %s", summary_line(counts))


def preferences(answers_path: Path, store_path: Path, params: Params) -> list[Preference]:
    """The judge's preference on each question of each pair."""
    assert params.prefer
    pairs = pairs_of(params.compare, ["base", *params.trained_arms], params.starts)
    names = dict.fromkeys(name for pair in pairs for name in pair)
    answers = {name: read_answers(answers_path / f"{name}.jsonl", name) for name in names}
    matches = [match for first, second in pairs for match in matches_of(first, second, answers)]
    comparing = Comparing(params.prefer, params.run)
    with ExitStack() as stack:
        stack.callback(lambda: write_run_facts(comparing))  # a run that was stopped states its cost, too
        store = stack.enter_context(open_store(store_path))
        comparing.ask(matches, store)
        return [comparing.preference(match, store) for match in matches]


def read_answers(path: Path, arm: str) -> Answers:
    """An arm's answers to ``preference``, at least one."""
    advice = f"Run 'dvc repro {'evaluate-base' if arm == 'base' else f'evaluate@{arm}'}' to rebuild it."
    found = {row.id: row for row in read_rows(path, Evaluated, advice) if row.benchmark == PREFERENCE}
    if not found:
        raise DataError(f"{path}: no answers to '{PREFERENCE}', which a judge could compare. {advice}")
    return found


def matches_of(first: str, second: str, answers: dict[str, Answers]) -> list[Match]:
    """A pair's answers side by side; DataError unless both arms were asked the same questions."""
    one, other = answers[first], answers[second]
    if one.keys() != other.keys():
        raise DataError(
            f"compare.pairs: '{first}' and '{second}' were not asked the same questions of '{PREFERENCE}'. "
            "Run 'dvc repro evaluate-base evaluate'."
        )
    return [
        Match(
            name,
            first,
            second,
            transcript(row.question, row.history, row.system),
            row.prediction or "",
            other[name].prediction or "",
        )
        for name, row in one.items()
    ]


def write_run_facts(comparing: Comparing) -> None:
    """Write what the judge cost in this run and what the store saved; no stage depends on this file."""
    write_json(project_root() / "metrics" / "runs" / "prefer.json", comparing.run_facts())


def metrics_of(rows: list[Preference], params: Params) -> PreferenceMetrics:
    """The judge and the counts of each pair."""
    judge = AskedJudge(model=params.prefer.judge.model, prompt=params.prefer.prompt) if params.prefer else None
    by_pair = groupby(rows, key=lambda row: f"{row.first}_vs_{row.second}")
    return PreferenceMetrics(judge=judge, pairs={name: counted(list(pair)) for name, pair in by_pair})


def summary_line(counts: Counts) -> str:
    """The counts of a pair in one line."""
    return (
        f"{counts.first} against {counts.second}: {counts.wins} wins, {counts.losses} losses, {counts.ties} ties "
        f"({counts.flipped} went with the position, {counts.unsure} with a verdict that could not be read)"
    )


if __name__ == "__main__":
    main()
