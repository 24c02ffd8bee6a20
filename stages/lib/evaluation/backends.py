"""lm-eval's model of the chosen backend, made from params: ``hf``, ``vllm``, or a served model over HTTP.

    student_model(Asking(arm="filtered", weights=Path("models/filtered"), …))    → lm-eval's own object

It is always made without ``think_end_token``: recording.py says why. ``vllm`` was never run by us: no machine with it
was available.
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
    """An arm and all that its asking depends on.

    ``weights`` is the folder of the arm's weights (its tokenizer is needed for a served model too), absolute, for a
    relative path could be a hub's id and would be looked for where lm-eval works; ``system`` the system text or None.
    ``in_user_turn``: the system text goes before the first question here, and not by the chat template (a trained
    student is saved with one that does it). ``think_end_token`` stands before a trained student's solution,
    ``end_marker`` after it, both None for an arm that was not asked to write them.
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
    """The model to ask, its weights loaded or its server looked at; EvaluationError where it cannot be had."""
    backend = asking.params.backend
    makers = {"hf": _hf, "vllm": _vllm, "local-completions": _completions, "local-chat-completions": _chat}
    arguments = makers[backend.kind](asking)
    try:
        return _class(backend.kind)(**arguments | backend.args)
    except TypeError as error:
        raise EvaluationError(
            f"evaluate.backend.args: lm-eval's {backend.kind} refuses them ({error}). Mend or remove them."
        ) from error


def _class(backend: str) -> Any:
    """lm-eval's class, or the one of ours over it that checks what a server sends."""
    if backend.startswith("local-"):
        from stages.lib.evaluation.served_model import CLASSES

        return CLASSES[backend]
    from lm_eval.api.registry import get_model

    return get_model(backend)


def refuse_before_loading(asking: Asking) -> None:
    """EvaluationError for what can be seen before anything is loaded."""
    if asking.params.backend.kind == "vllm" and find_spec("vllm") is None:
        raise EvaluationError(
            "evaluate.backend.kind: vllm is not installed here. Install it in this environment (on Ascend vllm-ascend "
            "too), serve the model elsewhere and take local-completions, or take hf."
        )
    if isinstance(asking.params.backend, ServedBackend):
        served.check(asking.arm, served_models(asking.run))


def refuse_lost_system_text(asking: Asking) -> None:
    """EvaluationError where the chat template has no place for the system text: lm-eval would leave it out."""
    if not (asking.system and asking.params.chat_template) or asking.in_user_turn:
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(asking.weights))
    if not tokenizer.chat_template:
        return
    try:
        check_system(tokenizer, [{"role": "system", "content": asking.system}, {"role": "user", "content": "1 + 1?"}])
    except StudentError as error:
        plain = " Or ask the base arm without it, by evaluate.base_prompt: plain." if asking.arm == "base" else ""
        raise EvaluationError(f"{error}{plain}") from error


def positions(weights: Path) -> int | None:
    """How many tokens the model can hold, prompt and answer together, as its config says."""
    config = json.loads((weights / "config.json").read_bytes())
    found = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(found) if found else None


def refuse_too_long(asking: Asking) -> None:
    """EvaluationError where the limit of an answer leaves no room for a question."""
    room, limit = positions(asking.weights), asking.params.max_gen_toks
    if room is not None and limit >= room:
        raise EvaluationError(
            f"evaluate.max_gen_toks: {limit}, but the student holds {room} tokens, the question included. Set it lower."
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
    """A chat template writes all tokens of a prompt: with a tokenizer's own before it, it is not the one trained."""
    return {"add_bos_token": False} if asking.params.chat_template else {}


def _completions(asking: Asking) -> dict[str, Any]:
    return _served(asking, "completions") | {
        "tokenizer": str(asking.weights),
        "tokenizer_backend": "huggingface",
        # lm-eval's own 2048 would cut every prompt away to make room for an answer of 4096
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
