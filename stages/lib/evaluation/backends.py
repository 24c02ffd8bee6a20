"""Create lm-eval's model for the chosen backend: ``hf``, ``vllm``, or a served model over HTTP.

    student_model(Asking(arm="filtered", weights=Path("models/filtered"), …))    → lm-eval's own object

It is always created without ``think_end_token``; recording.py gives the reason. ``vllm`` was never run here: no machine
with it was available.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.lib.chat_template import check_system
from stages.lib.evaluation import EvaluationError, served
from stages.lib.evaluation.served import served_models
from stages.lib.params import Evaluate, Run, ServedBackend
from stages.lib.runtime.devices import check_device, with_index
from stages.lib.students import StudentError


@dataclass(frozen=True)
class Asking:
    """An arm and the settings of its evaluation.

    - ``weights``: the folder of the arm's weights; its tokenizer is needed for a served model too. It is absolute,
      because a relative path could be a hub id, and lm-eval runs in another folder.
    - ``system``: the system text, or None.
    - ``in_user_turn``: put the system text before the first question here; the chat template does not (that of a
      trained student does).
    - ``think_end_token`` and ``end_marker``: what precedes and follows a trained student's solution; None for an arm
      without them.
    """

    arm: str
    weights: Path
    system: str | None
    in_user_turn: bool
    think_end_token: str | None
    end_marker: str | None
    params: Evaluate
    run: Run


def student_model(asking: Asking) -> Any:
    """lm-eval's model, with its weights loaded or its server checked; EvaluationError if it cannot be created."""
    backend = asking.params.backend
    makers = {"hf": _hf, "vllm": _vllm, "local-completions": _completions, "local-chat-completions": _chat}
    arguments = makers[backend.kind](asking)
    try:
        return _class(backend.kind)(**arguments | backend.args)
    except TypeError as error:
        raise EvaluationError(
            f"evaluate.backend.args: lm-eval's {backend.kind} refuses them ({error}). Fix or remove them."
        ) from error


def _class(backend: str) -> Any:
    """lm-eval's class, or our subclass of it that checks a server's responses."""
    if backend.startswith("local-"):
        from stages.lib.evaluation.served_model import CLASSES

        return CLASSES[backend]
    from lm_eval.api.registry import get_model

    return get_model(backend)


def change_batch_size(model: Any, backend: str, size: int) -> None:
    """Have lm-eval's loaded model answer so many requests at a time from now on.

    hf: so many prompts are padded to one tensor. vllm: so many are submitted together. A server: so many requests are
    in flight; what it computes together is then its own choice.
    """
    names = {"hf": "batch_size_per_gpu", "vllm": "batch_size"}
    setattr(model, names.get(backend, "at_once"), size)


def refuse_before_loading(asking: Asking) -> None:
    """EvaluationError for what can be checked before anything is loaded."""
    if asking.params.backend.kind == "vllm" and find_spec("vllm") is None:
        raise EvaluationError(
            "evaluate.backend.kind: vllm is not installed here. Install it in this environment (on Ascend vllm-ascend "
            "too), serve the model elsewhere and set local-completions, or set hf."
        )
    if isinstance(asking.params.backend, ServedBackend):
        served.check(asking.arm, served_models(asking.run))


def refuse_lost_system_text(asking: Asking) -> None:
    """EvaluationError if the chat template has no place for the system text: lm-eval would leave it out."""
    if not (asking.system and asking.params.chat_template) or asking.in_user_turn:
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(asking.weights))
    if not tokenizer.chat_template:
        return
    try:
        check_system(tokenizer, [{"role": "system", "content": asking.system}, {"role": "user", "content": "1 + 1?"}])
    except StudentError as error:
        plain = " Or set evaluate.base_prompt: plain, for the base arm without it." if asking.arm == "base" else ""
        raise EvaluationError(f"{error}{plain}") from error


def positions(weights: Path) -> int | None:
    """The model's context length in tokens (prompt and answer), from its config."""
    config = json.loads((weights / "config.json").read_bytes())
    found = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(found) if found else None


def refuse_too_long(asking: Asking) -> None:
    """EvaluationError if the answers' limit leaves no tokens for a question."""
    context, limit = positions(asking.weights), asking.params.max_gen_toks
    if context is not None and limit >= context:
        raise EvaluationError(
            f"evaluate.max_gen_toks: {limit}, but the student's context is {context} tokens. Lower it."
        )


def _hf(asking: Asking) -> dict[str, Any]:
    import torch

    check_device(asking.run.device)
    torch.set_num_threads(asking.run.threads)
    return {
        "pretrained": str(asking.weights),
        "dtype": asking.params.backend.dtype,
        "device": with_index(asking.run.device),
        "batch_size": asking.params.backend.batch_size,
        **_no_second_bos(asking),
    }


def _vllm(asking: Asking) -> dict[str, Any]:
    return {
        "pretrained": str(asking.weights),
        "dtype": asking.params.backend.dtype,
        "batch_size": asking.params.backend.batch_size,
        "seed": asking.params.seed,
        **_no_second_bos(asking),
    }


def _no_second_bos(asking: Asking) -> dict[str, Any]:
    """A chat template writes all tokens of a prompt. A second BOS token would make it differ from the trained one."""
    return {"add_bos_token": False} if asking.params.chat_template else {}


def _completions(asking: Asking) -> dict[str, Any]:
    return _served(asking, "completions") | {
        "tokenizer": str(asking.weights),
        "tokenizer_backend": "huggingface",
        # with lm-eval's default, 2048, an answer of 4096 tokens would leave nothing of the prompt
        "max_length": positions(asking.weights) or 32768,
    }


def _chat(asking: Asking) -> dict[str, Any]:
    return _served(asking, "chat/completions")


def _served(asking: Asking, path: str) -> dict[str, Any]:
    where = served_models(asking.run)
    return {
        "model": served.model_name(asking.arm, where),
        "base_url": f"{served.base_url(where)}/{path}",
        "header": served.header(where),
        "batch_size": 1,
        "num_concurrent": asking.params.backend.batch_size,
        "max_retries": asking.run.max_attempts,
        "backoff_s": asking.run.backoff_s,
        "timeout": round(asking.run.timeout_s),
        "seed": asking.params.seed,
    }
