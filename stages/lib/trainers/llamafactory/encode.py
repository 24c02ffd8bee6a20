"""Tokenize a sample by LLaMA-Factory's own code, in its environment (training/external_encode.py).

encoder({"model_name_or_path": …, "template": "qwen", "cutoff_len": 1024})    the keys of its YAML
encoded({"system": …, "conversations": [{"from": "user", "value": …}, …]})    → {"ids": …, "labels": …, "whole": …}
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

UNCUT = 10**9


def encoder(keys: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function for a sample, by LLaMA-Factory's processor of samples and one that cuts nothing."""
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from llamafactory.model import load_tokenizer
    from transformers import HfArgumentParser

    model_args, data_args = HfArgumentParser([ModelArguments, DataArguments]).parse_dict(keys, allow_extra_keys=True)
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    longer = copy.copy(data_args)
    longer.cutoff_len = UNCUT
    first, second = (
        SupervisedDatasetProcessor(template=template, data_args=each, **loaded) for each in (data_args, longer)
    )
    return partial(encoded, first, second)


def encoded(processor: Any, uncut: Any, sample: dict[str, Any]) -> dict[str, Any]:
    """The tokens and labels of a sample, and whether it is not cut."""
    messages = [{"role": turn["from"], "content": turn["value"]} for turn in sample["conversations"]]
    turns = {
        "_prompt": [messages[:-1]],
        "_response": [messages[-1:]],
        "_system": [sample.get("system", "")],
        **{name: [None] for name in ("_tools", "_images", "_videos", "_audios")},
    }
    found, cut = uncut.preprocess_dataset(turns), processor.preprocess_dataset(turns)
    ids, labels = found["input_ids"][0], found["labels"][0]
    return {"ids": ids, "labels": labels, "whole": (cut["input_ids"], cut["labels"]) == ([ids], [labels])}
