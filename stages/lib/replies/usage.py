"""The tokens that an answer's ``usage`` states.

    {"prompt_tokens": 40, "completion_tokens": 900, "prompt_tokens_details": {"cached_tokens": 30}}    OpenAI's layout
    {"prompt_tokens": 40, "completion_tokens": 900, "prompt_cache_hit_tokens": 30}                     DeepSeek's
    {"input_tokens": 40, "output_tokens": 900}                                                         of some gateways

OpenAI and DeepSeek count reasoning among the completion tokens. A missing or invalid count is 0.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tokens:
    """Counts of tokens; ``cached`` are the prompt tokens that the provider's cache served."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.completion + other.completion)


def tokens(usage: dict[str, Any]) -> Tokens:
    """The counts in a ``usage``."""
    prompt = _count(usage.get("prompt_tokens")) or _count(usage.get("input_tokens"))
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    cached = cached or _count(usage.get("prompt_cache_hit_tokens"))
    completion = _count(usage.get("completion_tokens")) or _count(usage.get("output_tokens"))
    return Tokens(prompt, min(cached, prompt), completion)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
