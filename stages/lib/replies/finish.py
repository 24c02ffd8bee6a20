"""Map any provider's ``finish_reason`` to how an answer ended.

    stop, eos, end_turn, STOP, stop_sequence         finished
    length, max_tokens, MAX_TOKENS, model_length     cut_off
    content_filter, sensitive, SAFETY, refusal       refused
    error, network_error, abort, cancelled           interrupted: the server gave up, not the model
    tool_calls, pause_turn                           not_finished

Sources: OpenAI, DeepSeek, Zhipu (``sensitive``, ``network_error``, ``model_context_window_exceeded``), Anthropic's
``stop_reason``, Gemini's ``FinishReason``, Bedrock's ``stopReason``, Mistral (``model_length``), Cohere, Together
(``eos``), TGI (``eos_token``), vLLM and SGLang (``abort``). An unknown word is classified by the parts it contains.
"""

import re
from functools import lru_cache
from typing import Literal

Ending = Literal["finished", "cut_off", "refused", "interrupted", "not_finished"]

FINISHED = re.compile(
    "stop|stopped|stop(sequence|str|word|token)|eos|eostoken|eot|end|endturn|endof(turn|text|sequence)|completed?|finish"
    "|finished|done|normal|natural|success|unknown"
)
CONTAINS: tuple[tuple[Ending, re.Pattern[str]], ...] = (  # the first match counts; separators are removed before
    ("not_finished", re.compile("tool|function|pause")),
    (
        "refused",
        re.compile(
            "filter|sensitive|refus|safety|recitation|block|prohibit|spii|guardrail|moderat|flag|policy|violat|censor"
        ),
    ),
    (
        "cut_off",
        re.compile(
            "length|maxtoken|maxoutput|maxcompletion|maxnew|maxcontext|tokenlimit|contextwindow|truncat|limitreached"
        ),
    ),
    (
        "interrupted",
        re.compile(
            "error|abort|cancel|timeout|timedout|timelimit|network|fail|interrupt|overload|unavailable|disconnect"
        ),
    ),
    ("interrupted", re.compile("exception|resource|preempt|crash|killed|incomplete")),
)


@lru_cache(64)
def ending(finish_reason: str) -> Ending:
    """How an answer with this ``finish_reason`` ended; ``unknown``, for a body that names none, is finished."""
    word = re.sub(r"[\W_]", "", finish_reason.lower().removeprefix("finish_reason_").rpartition(".")[2])
    if FINISHED.fullmatch(word):
        return "finished"
    return next((kind for kind, pattern in CONTAINS if pattern.search(word)), "not_finished")
