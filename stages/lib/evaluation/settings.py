"""How an arm was asked: all that shapes its score besides its weights, its system text and the questions.

settings(asking)
→ {"backend": "hf", "batch_size": 50, …, "chat_template": "e2b1c0a94d37", "versions": {"lm_eval": "0.4.13", …}}

``compare`` warns where two arms differ in them. The versions are among them, and not in metrics/runs, since they shape
the score and requirements.lock pins them: with the same lock the file is the same bytes. Arms can be evaluated on two
hosts or on both sides of an upgrade, and metrics/runs is in no commit.
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
    # not benchmarks, which choose the questions, nor base_prompt, which the name of the system text tells
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
    """Twelve characters for the template that stands with the weights; None where none is used.

    Its text is hashed and not what it makes of a question: some templates write today's date.
    """
    from transformers import AutoTokenizer

    if not asking.params.chat_template:
        return None
    if asking.params.backend.kind == "local-chat-completions":
        return "the server's"
    template = AutoTokenizer.from_pretrained(str(asking.weights)).get_chat_template()
    return hashlib.sha256(template.encode()).hexdigest()[:12]
