"""Show what the store of received answers holds and what it cost, by model and endpoint.

    python -m stages.lib.store_tools.ledger      # or: make store

In:   the store, read record by record, so that its size does not matter; the prices in params.yaml (``run.prices``)
Out:  a table. The tokens are those that each answer's ``usage`` states, the sizes those of the bodies:

    model        endpoint                     entries     size  prompt  cached  completion      cost
    deepseek-r1  https://…/compatible-mode/v1   1,000  12.3 MB  52,000       0     913,000  14.82 CNY
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click

from stages.lib.command import READ, one_line_errors, params_option
from stages.lib.params import Prices, load_params
from stages.lib.replies.reading import BodyError, read_body
from stages.lib.replies.usage import Tokens, tokens
from stages.lib.store.answer_file import files_of_hosts
from stages.lib.store.answer_store import default_path
from stages.lib.store_tools.record import Record, stored_records
from stages.lib.teacher.pricing import money, tokens_cost

HEADING = ("model", "endpoint", "entries", "size", "prompt", "cached", "completion", "cost")
TEXT_COLUMNS = 2  # the first columns, which hold text; the others hold numbers
MAX_WIDTH = 48  # the embedded teacher's identity is longer


@dataclass
class ModelTotals:
    """The answers of one model at one endpoint."""

    entries: int = 0
    size: int = 0  # bytes of the bodies
    tokens: Tokens = field(default_factory=Tokens)
    unreadable: int = 0
    uncounted: int = 0  # answers that state no tokens: imported ones, and those of some servers

    def add(self, record: Record) -> None:
        """Count one record."""
        self.entries += 1
        body = record.body.encode()
        self.size += len(body)
        try:
            usage = read_body(body).usage
        except BodyError:
            self.unreadable += 1
            return
        counted = tokens(usage)
        self.uncounted += counted == Tokens()
        self.tokens += counted


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--store", type=READ, default=None, help="Another store  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(store: Path | None, params_path: Path) -> None:
    prices = load_params(params_path).run.prices
    path = store or default_path()
    if not path.is_file():
        click.echo(f"{path}: no answers were received here yet. 'make repro' asks for the first ones.")
        return
    size = sum(each.stat().st_size for each in (path, *files_of_hosts(path)))
    click.echo("\n".join([f"{path} ({size_text(size)})", "", *report(totals_by_model(path), prices)]))


def totals_by_model(path: Path) -> dict[tuple[str, str], ModelTotals]:
    """The records of a store, counted by model and endpoint."""
    found: defaultdict[tuple[str, str], ModelTotals] = defaultdict(ModelTotals)
    for record in stored_records(path):
        request = record.request
        found[str(request.get("model", "–")), str(request.get("endpoint", "–"))].add(record)
    return dict(sorted(found.items()))


def report(found: dict[tuple[str, str], ModelTotals], prices: Prices | None) -> list[str]:
    """The lines of the table and of the remarks below it."""
    models = prices.models if prices else {}
    costs = {key: tokens_cost(totals.tokens, models[key[0]]) for key, totals in found.items() if key[0] in models}
    rows = [
        (model, shortened(endpoint), *figures(totals, _money(costs.get((model, endpoint)), prices)))
        for (model, endpoint), totals in found.items()
    ]
    total = sum_of(found.values())
    rows.append(("all", "", *figures(total, _money(sum(costs.values()) if costs else None, prices))))
    remarks = [
        (len(costs), f"Prices per million tokens of {prices.date if prices else ''} (run.prices in params.yaml)."),
        (costs and len(found) - len(costs), "The sum lacks the models that have no price."),
        (total.uncounted, f"{total.uncounted:,} answers state no tokens, so their cost is not in it."),
        (total.unreadable, f"{total.unreadable:,} bodies are unreadable: counted as entries, without tokens."),
    ]
    return [*aligned([HEADING, *rows]), "", *(text for count, text in remarks if count)]


def sum_of(some: Iterable[ModelTotals]) -> ModelTotals:
    """The totals of all models, for the last line."""
    total = ModelTotals()
    for totals in some:
        total.entries += totals.entries
        total.size += totals.size
        total.tokens += totals.tokens
        total.unreadable += totals.unreadable
        total.uncounted += totals.uncounted
    return total


def figures(totals: ModelTotals, cost: str) -> tuple[str, ...]:
    """The columns of numbers."""
    counts = (totals.tokens.prompt, totals.tokens.cached, totals.tokens.completion)
    return f"{totals.entries:,}", size_text(totals.size), *(f"{count:,}" for count in counts), cost


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Align the columns: text to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < TEXT_COLUMNS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shortened(endpoint: str) -> str:
    """An endpoint, shortened to fit its column; endpoints differ at the beginning."""
    return endpoint if len(endpoint) <= MAX_WIDTH else endpoint[: MAX_WIDTH - 1] + "…"


def size_text(size: int) -> str:
    """``12.3 MB``."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _money(amount: float | None, prices: Prices | None) -> str:
    return "no price" if amount is None or prices is None else money(amount, prices.currency)


if __name__ == "__main__":
    main()
