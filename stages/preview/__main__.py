"""Show a few questions as they would be trained, and what the whole run would cost: ``make preview N=5``.

    python -m stages.preview --count 5 [--params profiles/article.yaml] [--store S.jsonl] [--full]

In:   params.yaml; the store of received answers
Out:  text on stdout; new answers in the store. Files of the stages are in a temporary folder, .cache/preview-…, which
      is removed at the end: data/, metrics/, models/ and dvc.lock stay as they are.

A failed answer takes one line. If the judge or the student fails, the preview shows the rest and then the error.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from stages.lib.command import READ, WRITE, DistilleryError, Interrupted, one_line_errors, project_root
from stages.lib.params import load_params
from stages.lib.rows.distilled import Distilled
from stages.lib.store.answer_store import default_path
from stages.preview.chain import Trained, Verdicts, collect, distill, judge, train_texts
from stages.preview.estimate import estimate
from stages.preview.text import Page, show_call, show_estimate, show_teacher

R = TypeVar("R")


@click.command(
    help="Take a few questions through collect, distill, filter and convert, print them as they would be trained, and "
    "estimate requests, cost and time of the whole run. Their answers go to the store, so the whole run does not ask "
    "for them again. Nothing else is written."
)
@click.option("--count", "-n", type=click.IntRange(min=1), default=5, show_default=True, help="Questions to take.")
@click.option("--params", "params_path", type=READ, default=Path("params.yaml"), show_default=True, help="Parameters.")
@click.option("--store", "store_path", type=WRITE, help="Received answers  [default: data/store/answers.jsonl]")
@click.option("--full", is_flag=True, help="Print every reasoning whole, not only its beginning and its end.")
@one_line_errors
def main(count: int, params_path: Path, store_path: Path | None, full: bool) -> None:
    params = load_params(params_path)
    store_path = store_path or default_path()
    errors: list[DistilleryError] = []
    with work_folder() as folder:
        questions = collect(params_path, store_path, folder)
        preview = distill(params, questions, count, store_path, folder)
        rows = [call.row for call in preview.calls if isinstance(call.row, Distilled)]
        if rows:
            preview.judged = noting(errors, lambda: judge(params, rows, store_path), Verdicts())
            nothing: dict[str, Trained | str] = {}
            preview.trained = noting(errors, lambda: train_texts(params, rows), nothing)
    page = Page(full)
    show_teacher(page, params)
    ids = list(dict.fromkeys(call.question.id for call in preview.calls))
    for call in preview.calls:
        show_call(page, call, f"{ids.index(call.question.id) + 1} of {len(ids)}", preview, params)
    show_estimate(page, estimate(preview, params), str(store_path))
    if errors:
        raise errors[0]


def noting(errors: list[DistilleryError], step: Callable[[], R], otherwise: R) -> R:
    """The result of a step; where it fails, ``otherwise``, and its error for the end: what was bought is shown."""
    try:
        return step()
    except Interrupted:
        raise
    except DistilleryError as error:
        errors.append(error)
        return otherwise


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder; in .cache, because /tmp may be small."""
    parent = project_root() / ".cache"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="preview-", dir=parent) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
