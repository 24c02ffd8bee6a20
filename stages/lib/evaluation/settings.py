"""The settings of an evaluation: what determines an arm's score besides its weights, system text and questions.

settings(asking)
→ {"backend": "hf", "batch_size": 50, …, "chat_template": "e2b1c0a94d37", "versions": {"lm_eval": "0.4.13", …}}

``compare`` warns if two arms differ in them. They include the versions, because those affect the score and
requirements.lock pins them: with the same lock, the file has the same bytes. metrics/runs would not do: it is not
committed, and arms may be evaluated on two hosts or before and after an upgrade.
"""

import hashlib
from typing import Any

from stages.lib.evaluation.backends import Asking
from stages.lib.runtime.versions import versions

_HERE = ("lm_eval", "transformers", "torch", "accelerate")
_SERVED = ("lm_eval", "transformers")  # the server's own versions cannot be seen from here
_LIBRARIES = {"hf": _HERE, "vllm": (*_HERE, "vllm"), "local-completions": _SERVED, "local-chat-completions": _SERVED}


def settings(asking: Asking) -> dict[str, Any]:
    """The arm's settings, plain values that JSON can hold."""
    params, backend = asking.params, asking.params.backend
    libraries = _LIBRARIES[backend.kind]
    # without benchmarks, which choose the questions, and base_prompt, which the system text's name implies
    return {
        "headline": params.headline,
        "backend": backend.kind,
        "backend_args": backend.args,
        "chat_template": chat_template(asking),
        "num_fewshot": params.num_fewshot,
        "batch_size": backend.batch_size,
        "max_gen_toks": params.max_gen_toks,
        "limit": params.limit,
        "dtype": backend.dtype,
        "seed": params.seed,
        # 2.13.0+cpu and 2.13.0+cu130 are builds of one version, and the lock names neither
        "versions": {name: found.partition("+")[0] for name, found in versions(libraries).items()},
    }


def chat_template(asking: Asking) -> str | None:
    """The first 12 hex digits of the SHA-256 of the weights' chat template; None if none is used.

    The template is hashed, not its output, because some templates write today's date.
    """
    from transformers import AutoTokenizer

    if not asking.params.chat_template:
        return None
    if asking.params.backend.kind == "local-chat-completions":
        return "the server's"
    template = AutoTokenizer.from_pretrained(str(asking.weights)).get_chat_template()
    return hashlib.sha256(template.encode()).hexdigest()[:12]
