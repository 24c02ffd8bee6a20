"""What an answer costs."""

from typing import Any

from stages.lib.params import Price


def cost(usage: dict[str, Any], price: Price) -> float:
    """Cost of one answer."""
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    prompt = prompt if isinstance(prompt, int) else 0
    completion = completion if isinstance(completion, int) else 0
    return (prompt * price.input + completion * price.output) / 1e6
