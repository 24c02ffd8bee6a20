"""Tokenize samples by LLaMA-Factory's own code, as it would train on them; run by the python of its environment.

In, on stdin, a JSON line each:  the keys of its YAML: {"model_name_or_path": …, "template": "qwen", "cutoff_len": 1024}
                                 then samples: [{"system": …, "conversations": [{"from": "user", "value": …}, …]}, …]
Out, on stdout:                  for each line of samples: [{"ids": [9, 1], "labels": [-100, 1], "whole": true}, …]

``whole``: it cuts nothing off at cutoff_len. Its own messages go to stderr.
"""

import copy
import json
import os
import sys
from typing import Any

UNCUT = 10**9


def main() -> None:
    """Answer each line of samples."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what LLaMA-Factory prints
    processor, uncut = processors(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        answers.write(json.dumps([encoded(processor, uncut, sample) for sample in json.loads(line)]) + "\n")
        answers.flush()


def processors(keys: dict[str, Any]) -> tuple[Any, Any]:
    """LLaMA-Factory's processor of samples, and one that cuts nothing."""
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
    return first, second


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


if __name__ == "__main__":
    main()
