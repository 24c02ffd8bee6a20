"""Tokenize a sample by ms-swift's own code, in its environment (training/external_encode.py).

encoder({"model": …, "template": "qwen2_5", "max_length": 1024, …})    the keys of its YAML
encoded({"messages": [{"role": "user", "content": …}, …]})             → {"ids": …, "labels": …, "whole": …}
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

UNCUT = 10**9


def encoder(keys: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function for a sample, by ms-swift's template and the same one that takes any length."""
    from swift.arguments import BaseArguments

    known = {field.name for field in fields(BaseArguments)}
    args = BaseArguments(**{key: value for key, value in keys.items() if key in known}, load_args=False)
    _, tokenizer = args.get_model_processor(load_model=False)
    template, longer = args.get_template(tokenizer), args.get_template(tokenizer)
    longer.max_length = UNCUT
    for each in (template, longer):
        each.set_mode("train")
    return partial(encoded, template, longer)


def encoded(template: Any, longer: Any, sample: dict[str, Any]) -> dict[str, Any]:
    """The tokens and labels of a sample, and whether ms-swift keeps it."""
    from swift.template.base import MaxLengthError

    found = longer.encode(sample)
    try:
        whole = template.encode(sample)["input_ids"] == found["input_ids"]
    except MaxLengthError:
        whole = False
    return {"ids": found["input_ids"], "labels": found["labels"], "whole": whole}
