"""What transformers 4 makes of saved students: run by the python of .venv-transformers4, which has no pytest.

.venv-transformers4/bin/python tests/older_reader.py '{"messages": [[…]], "text": "…"}' FOLDER …
→ [{"version": "4.57.6", "prompts": [[1, 2]], "ids": [3], "logits": [[…]], "dtype": "float32", "tied": true, …}]
"""

import json
import sys
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def read(folder: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A student as the transformers here reads it: its prompts, its logits, its settings."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, told = AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto", output_loading_info=True)
    prompts = [
        tokenizer.apply_chat_template(each, add_generation_prompt=True, tokenize=False) for each in asked["messages"]
    ]
    ids = tokenizer(asked["text"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0].float()
    return {
        "version": transformers.__version__,
        "prompts": [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts],
        "ids": ids,
        "logits": logits.tolist(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tied": model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr(),
        "special": tokenizer.special_tokens_map,
        "generation": {key: value for key, value in model.generation_config.to_dict().items() if value},
        "missing": sorted(told["missing_keys"]),
    }


if __name__ == "__main__":
    print(json.dumps([read(folder, json.loads(sys.argv[1])) for folder in sys.argv[2:]]))
