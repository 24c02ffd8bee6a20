"""Compute what an answer costs: its tokens (replies/usage.py) times the model's price per million tokens."""

from stages.lib.params import Price
from stages.lib.replies.usage import Tokens


def tokens_cost(counts: Tokens, price: Price) -> float:
    """The cost of these tokens, in the currency of the price table."""
    fresh = counts.prompt - counts.cached
    return (fresh * price.input + counts.cached * price.cached_input + counts.completion * price.output) / 1_000_000


def money(amount: float, currency: str) -> str:
    """``12.34 CNY``; an amount below one has four decimals: ``0.0012 CNY``."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or not amount else f"{amount:.4f} {currency}"
