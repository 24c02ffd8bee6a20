"""What the store of received answers holds and what it cost, by model and endpoint.

    python -m stages.lib.store_tools.ledger      # or: make store

In goes the store, record by record, so that its size does not matter, and the price table of params.yaml
(``run.prices``). Tokens are those that each answer's own ``usage`` states, sizes those of the bodies:

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
from stages.lib.store.answer_store import default_path
from stages.lib.store_tools.record import Record, stored_records
from stages.lib.teacher.pricing import money, tokens_cost

HEADING = ("model", "endpoint", "entries", "size", "prompt", "cached", "completion", "cost")
WORDS = 2  # the columns that hold no number
WIDEST = 48  # the embedded teacher's identity is longer


@dataclass
class Account:
    """The answers of one model at one endpoint."""

    entries: int = 0
    size: int = 0  # bytes of the bodies
    tokens: Tokens = field(default_factory=Tokens)
    unreadable: int = 0
    uncounted: int = 0  # answers that state no tokens: imported ones, and those of some servers

    def enter(self, record: Record) -> None:
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
        click.echo(f"{path}: no answers were received here yet; 'make repro' asks for the first.")
        return
    click.echo("\n".join([f"{path} ({size_text(path.stat().st_size)})", "", *report(accounts(path), prices)]))


def accounts(path: Path) -> dict[tuple[str, str], Account]:
    """The records of a store, counted by model and endpoint."""
    found: defaultdict[tuple[str, str], Account] = defaultdict(Account)
    for record in stored_records(path):
        request = record.request
        found[str(request.get("model", "–")), str(request.get("endpoint", "–"))].enter(record)
    return dict(sorted(found.items()))


def report(found: dict[tuple[str, str], Account], prices: Prices | None) -> list[str]:
    """The table and what is to be said about it, in lines."""
    models = prices.models if prices else {}
    costs = {key: tokens_cost(account.tokens, models[key[0]]) for key, account in found.items() if key[0] in models}
    rows = [
        (model, shortened(endpoint), *figures(account, _money(costs.get((model, endpoint)), prices)))
        for (model, endpoint), account in found.items()
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


def sum_of(some: Iterable[Account]) -> Account:
    """The line beneath the others."""
    total = Account()
    for account in some:
        total.entries += account.entries
        total.size += account.size
        total.tokens += account.tokens
        total.unreadable += account.unreadable
        total.uncounted += account.uncounted
    return total


def figures(account: Account, cost: str) -> tuple[str, ...]:
    """The columns of numbers."""
    counts = (account.tokens.prompt, account.tokens.cached, account.tokens.completion)
    return f"{account.entries:,}", size_text(account.size), *(f"{count:,}" for count in counts), cost


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Words to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < WORDS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shortened(endpoint: str) -> str:
    """An endpoint that fits its column; what tells two apart stands at the beginning."""
    return endpoint if len(endpoint) <= WIDEST else endpoint[: WIDEST - 1] + "…"


def size_text(size: int) -> str:
    """``12.3 MB``."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _money(amount: float | None, prices: Prices | None) -> str:
    return "no price" if amount is None or prices is None else money(amount, prices.currency)


if __name__ == "__main__":
    main()
