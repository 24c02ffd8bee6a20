"""Show the open batches of the store, receive those that have ended, or end one.

    python -m stages.lib.store_tools.batches                        # or: make batches
    python -m stages.lib.store_tools.batches --cancel batch_abc     # or: make batches CANCEL=batch_abc
    python -m stages.lib.store_tools.batches --forget batch_abc     # or: make batches FORGET=batch_abc

In:   the entries next to the store (teacher/batches/journal.py); the keys from the environment or from .env
Out:  a line for each batch. What has ended goes into the store, as it does when the stage runs. A batch that a stage
      works on is left to it.

``--forget`` removes an entry and asks no server, for a batch that can no longer be reached: it is bought again.
"""

import asyncio
import logging
from pathlib import Path

import click

from stages.lib.command import READ, DistilleryError, one_line_errors, params_option
from stages.lib.params import Run, load_params
from stages.lib.replies.server_message import message_of
from stages.lib.store.answer_store import AnswerStore, default_path, open_store
from stages.lib.teacher.backends.openai_compatible import endpoint_at
from stages.lib.teacher.batches.api import ENDED, BatchApi
from stages.lib.teacher.batches.journal import Batch, Journal
from stages.lib.teacher.batches.receiving import Receiver, refusal
from stages.lib.teacher.failures import Diagnosis

log = logging.getLogger("distillery.store")


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
        journal = Journal(path)
        batches = journal.batches()
        named = [named_batch(batches, name) for name in (cancel, forget) if name]
        if forget:
            return forget_batch(named[-1], journal, answers)
        for batch in named or batches:
            click.echo(asyncio.run(visit(batch, bool(cancel), journal, answers, run)))
    if not batches:
        click.echo(f"{path}: no open batch")


def named_batch(batches: list[Batch], name: str) -> Batch:
    """The batch with this id; DistilleryError where there is none."""
    for batch in batches:
        if name in (batch.name, batch.token):
            return batch
    known = ", ".join(batch.name for batch in batches) or "none"
    raise DistilleryError(f"{name}: no open batch has that name. Open: {known}.")


def forget_batch(batch: Batch, journal: Journal, store: AnswerStore) -> None:
    """Remove an entry; DistilleryError where a stage works on its batch."""
    if not store.claim(batch.claim_key):
        raise DistilleryError(f"{batch.name}: {batch.stage} works on it. Stop that run first.")
    journal.close(batch)
    click.echo(f"{batch.name}: forgotten; its {batch.requests} requests are submitted again when {batch.stage} runs")


async def visit(batch: Batch, cancel: bool, journal: Journal, store: AnswerStore, run: Run) -> str:
    """Cancel a batch, or receive it if it has ended; a line on it."""
    what = f"{batch.name}: {batch.size} of {batch.stage} to {batch.model} at {batch.endpoint}"
    if batch.batch_id is None:
        return f"{what}: a run was stopped while it submitted them. Run {batch.stage} again: it looks for the batch."
    endpoint = endpoint_at(batch.endpoint, batch.key_variable)
    diagnosis = Diagnosis(endpoint, batch.section, batch.model, run, 0)
    api = BatchApi(endpoint, run, diagnosis)
    try:
        remote = await (api.cancel(batch) if cancel else api.look(batch))
        counts = remote.request_counts
        done = f", {counts.completed} done, {counts.failed} failed" if counts else ""
        if remote.status not in ENDED:
            return f"{what}: {remote.status}{done}"
        if not store.claim(batch.claim_key):
            return f"{what}: {remote.status}{done}; {batch.stage} is receiving it"
        received = await Receiver(api, diagnosis, journal, store).receive(batch, remote, lambda *_: None)
        journal.close(batch)
        store.release(batch.claim_key)
        reason = f" ({message_of(refusal(remote)).text})" if remote.status == "failed" else ""
        return f"{what}: {remote.status}{reason}; received: {received.text()}"
    finally:
        await api.close()


if __name__ == "__main__":
    main()
