"""What is asked: the request that an answer is stored under, the same wherever it is built."""

from typing import Any

from stages.lib.params import Teacher


def chat_request(identity: str, model_params: Teacher, messages: list[dict[str, str]], sample: int) -> dict[str, Any]:
    """All that shapes an answer; sampling values that are null are not sent and not in it."""
    sampling = {name: getattr(model_params, name) for name in ("temperature", "top_p", "max_tokens")}
    return {
        "endpoint": identity,
        "model": model_params.model,
        "messages": messages,
        **{name: value for name, value in sampling.items() if value is not None},
        "sample": sample,
    }
