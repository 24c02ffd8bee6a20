"""Show the open batches of the store, receive those that have ended, or end one.

    python -m stages.lib.store_tools.batches                        # or: make batches
    python -m stages.lib.store_tools.batches --cancel batch_abc     # or: make batches CANCEL=batch_abc
    python -m stages.lib.store_tools.batches --forget batch_abc     # or: make batches FORGET=batch_abc

In:   the entries next to the store (teacher/batches/journal.py); the keys from the environment or from .env
Out:  a line for each batch. What has ended goes into the store, as it does when the stage runs. A batch that a stage
      works on is left to it. Exit code 1 if one of them could not be looked at; the others are shown all the same.

``--forget`` removes an entry and asks no server, for a batch that can no longer be reached: it is bought again.
"""

import asyncio
import logging
from pathlib import Path

import click
from openai.types import Batch as RemoteBatch

from stages.lib.command import READ, DistilleryError, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.replies.server_message import message_of
from stages.lib.store.answer_store import default_path, open_store
from stages.lib.teacher.batches.journal import Batch, OpenBatches
from stages.lib.teacher.batches.receiving import refusal
from stages.lib.teacher.batches.worker import BatchWorker

log = logging.getLogger("distillery.store")

POLL_S = 60.0  # each batch is looked at once


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--cancel", metavar="BATCH", help="End this batch: what is not executed yet will not be, nor be paid.")
@click.option("--forget", metavar="BATCH", help="Remove the entry of a batch that can no longer be reached.")
@click.option("--store", type=READ, default=None, help="Another store  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(cancel: str | None, forget: str | None, store: Path | None, params_path: Path) -> None:
    path = store or default_path()
    run = load_params(params_path).run
    with open_store(path) as answers:
        open_ = OpenBatches(answers)
        worker = BatchWorker(answers, open_, run, POLL_S)
        batches = open_.batches()
        named = [named_batch(batches, name) for name in (cancel, forget) if name]
        if forget:
            forget_batch(named[-1], worker)
        elif batches:
            asyncio.run(show(named or batches, bool(cancel), worker))
        else:
            click.echo(f"{path}: no open batch")


def named_batch(batches: list[Batch], name: str) -> Batch:
    """The batch with this id; DistilleryError where there is none."""
    for batch in batches:
        if name in (batch.name, batch.token):
            return batch
    known = ", ".join(batch.name for batch in batches) or "none"
    raise DistilleryError(f"{name}: no open batch has that name. Open: {known}.")


def forget_batch(batch: Batch, worker: BatchWorker) -> None:
    """Remove an entry; DistilleryError where a stage works on its batch."""
    if not worker.take_over(batch):
        raise DistilleryError(f"{batch.name}: {batch.stage} works on it. Stop that run first.")
    worker.forget(batch)
    click.echo(f"{batch.name}: forgotten; its {batch.requests} requests are submitted again when {batch.stage} runs")


async def show(batches: list[Batch], cancel: bool, worker: BatchWorker) -> None:
    """A line for each batch; DistilleryError where one of them cannot be looked at."""
    failed = 0
    try:
        for batch in batches:
            what = f"{batch.name}: {batch.size} of {batch.stage} to {batch.model} at {batch.endpoint}"
            try:
                click.echo(f"{what}: {await visit(batch, cancel, worker)}")
            except DistilleryError as error:
                failed += 1
                click.echo(f"{what}: {error}", err=True)
    finally:
        await worker.close()
    if failed:
        raise DistilleryError(
            f"{failed} of {len(batches)} batches could not be looked at. Run the command again, or forget one that can "
            "no longer be reached: make batches FORGET=…"
        )


async def visit(batch: Batch, cancel: bool, worker: BatchWorker) -> str:
    """Cancel a batch, or receive it if it has ended; what became of it."""
    if cancel and batch.batch_id:
        return in_words(await worker.api(batch).cancel(batch))
    if not worker.take_over(batch):
        return await left_to_its_stage(batch, worker)
    found = await worker.visit(batch.token, lambda *_: None)
    if found.error:
        raise found.error
    if found.remote is None:
        return f"it was never submitted; {batch.stage} asks for its requests when it runs again"
    if found.received is None:
        return in_words(found.remote)
    reason = f" ({message_of(refusal(found.remote)).text})" if found.remote.status == "failed" else ""
    return f"{found.remote.status}{reason}; received: {found.received.text()}"


async def left_to_its_stage(batch: Batch, worker: BatchWorker) -> str:
    """The state of a batch that another process works on, or has just closed."""
    now = worker.journal.entry(batch.token)
    if now is None:
        return "closed just now; its answers are in the store"
    if now.batch_id is None:
        return f"{batch.stage} is submitting it"
    return f"{in_words(await worker.api(now).look(now))}; {batch.stage} works on it"


def in_words(remote: RemoteBatch) -> str:
    """``in_progress, 410 done, 2 failed``."""
    counts = remote.request_counts
    return f"{remote.status}, {counts.completed} done, {counts.failed} failed" if counts else remote.status


if __name__ == "__main__":
    main()
