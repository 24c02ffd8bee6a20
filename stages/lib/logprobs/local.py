"""Score rows with a teacher that this process loads: one forward pass a row, without padding.

So the values of a row do not depend on the rows beside it. Of several cards, transformers places some layers on each.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.logprobs import Scored
from stages.lib.runtime.devices import check_device

PLACES_AT_ONCE = 512  # whose logarithms over the whole vocabulary are in memory


class LocalScorer:
    """A loaded teacher: the ``top_k`` likeliest tokens at each place."""

    def __init__(self, teacher: Path, top_k: int, dtype: str, device: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        check_device(device)
        torch.set_num_threads(threads)
        # a device without a number: all visible cards
        placed: Any = {"": device} if device == "cpu" or ":" in device else "auto"
        self._model = AutoModelForCausalLM.from_pretrained(teacher, dtype=getattr(torch, dtype), device_map=placed)
        self._model.eval()
        self._top_k = top_k

    def score(self, ids: list[int], positions: list[int]) -> Scored:
        """The likeliest tokens at these places of a row, each given the tokens before it."""
        import torch

        with torch.inference_mode():
            row = torch.tensor([ids], device=self._model.device)
            logits = self._model(input_ids=row, use_cache=False).logits[0]
            before = torch.tensor(positions, device=logits.device) - 1  # the logits there predict the token at a place
            found = [
                torch.log_softmax(logits[places].float(), dim=-1).topk(min(self._top_k, logits.shape[-1]), dim=-1)
                for places in before.split(PLACES_AT_ONCE)
            ]
        tops, logprobs = (torch.cat([getattr(each, name) for each in found]) for name in ("indices", "values"))
        return Scored(np.array(positions, np.int32), tops.cpu().numpy().astype(np.int32), logprobs.cpu().numpy())
