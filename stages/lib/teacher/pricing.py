"""What an answer costs: the tokens that its ``usage`` states, times the model's price per million of them.

    {"prompt_tokens": 40, "completion_tokens": 900, "prompt_tokens_details": {"cached_tokens": 30}}    OpenAI's layout
    {"prompt_tokens": 40, "completion_tokens": 900, "prompt_cache_hit_tokens": 30}                     DeepSeek's
    {"input_tokens": 40, "output_tokens": 900}                                                         of some gateways

Reasoning is among the completion tokens with both. What is missing, or no count, is 0.
"""

from dataclasses import dataclass
from typing import Any

from stages.lib.params import Price


@dataclass(frozen=True)
class Tokens:
    """Counts of tokens; ``cached`` are those of the prompt that the provider's own cache served."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.completion + other.completion)

    def cost(self, price: Price) -> float:
        """In the currency of the price table."""
        fresh = self.prompt - self.cached
        return (fresh * price.input + self.cached * price.cached_input + self.completion * price.output) / 1_000_000


def tokens(usage: dict[str, Any]) -> Tokens:
    """The counts in a ``usage``."""
    prompt = _count(usage.get("prompt_tokens")) or _count(usage.get("input_tokens"))
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    cached = cached or _count(usage.get("prompt_cache_hit_tokens"))
    completion = _count(usage.get("completion_tokens")) or _count(usage.get("output_tokens"))
    return Tokens(prompt, min(cached, prompt), completion)


def cost(usage: dict[str, Any], price: Price) -> float:
    """What the answer with this ``usage`` costs, in the currency of the price table."""
    return tokens(usage).cost(price)


def money(amount: float, currency: str) -> str:
    """``12.34 CNY``, and ``0.0012 CNY`` for what is less than one."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or not amount else f"{amount:.4f} {currency}"


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
