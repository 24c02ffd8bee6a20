"""Score rows with a teacher behind a server: ``/v1/completions`` with ``echo`` and ``logprobs``, as vLLM has it.

The row is sent as tokens. Each answer is checked: a server may ignore ``echo`` (llama.cpp does), or add a token at the
start. vLLM is asked to name tokens by their ids; another server's texts are the student's tokens with that text.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx2
import numpy as np
import openai

from stages.lib.command import DistilleryError, without_key
from stages.lib.logprobs import NO_TOKEN, Scored
from stages.lib.logprobs.alignment import token_bytes
from stages.lib.params import Run, Scorer
from stages.lib.teacher.backends import Endpoint

TOKEN_ID = "token_id:"  # vLLM's names of tokens with return_tokens_as_token_ids
FIX = "See docs/logprobs.md, or set score.served: null."


class ScoringError(DistilleryError):
    """A server that gives no probabilities of a row's tokens."""


class ServedScorer:
    """The ``top_k`` likeliest tokens at each place, from a server; may be used by several threads."""

    def __init__(self, where: Scorer, endpoint: Endpoint, top_k: int, run: Run, tokenizer: Any) -> None:
        self._where = where
        self._endpoint = endpoint
        self._top_k = top_k
        self._bytes = token_bytes(tokenizer)
        self._texts: dict[str, int] | None = None
        self._client = openai.OpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            max_retries=run.max_attempts - 1,
            timeout=run.timeout_s,
            http_client=openai.DefaultHttpxClient(trust_env=not endpoint.is_here),
        )

    def score(self, ids: list[int], positions: list[int]) -> Scored:
        """The likeliest tokens at these places of a row; ScoringError where the server does not give them."""
        found = self._checked(self._logprobs(ids), ids)
        top_ids = np.full((len(positions), self._top_k), NO_TOKEN, np.int32)
        logprobs = np.full((len(positions), self._top_k), -np.inf, np.float32)
        for place, position in enumerate(positions):
            pairs = [(self._id(name), value) for name, value in (found[position] or {}).items()]
            known = [(number, value) for number, value in pairs if number is not None and math.isfinite(value)]
            best = sorted(known, key=lambda pair: (-pair[1], pair[0]))[: self._top_k]
            top_ids[place, : len(best)] = [number for number, _ in best]
            logprobs[place, : len(best)] = [value for _, value in best]
        return Scored(np.array(positions, np.int32), top_ids, logprobs)

    def _logprobs(self, ids: list[int]) -> Any:
        body = {
            "model": self._where.model,
            "prompt": ids,
            "echo": True,
            "logprobs": self._top_k,
            "max_tokens": 1,  # some servers refuse 0; the token more is not read
            "temperature": 0.0,
            "return_tokens_as_token_ids": True,
        }
        try:
            response = self._client.post("/completions", body=body, cast_to=httpx2.Response)
            return json.loads(response.content)["choices"][0].get("logprobs")
        except (openai.APIError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            text = without_key(" ".join(str(error).split()), self._endpoint.api_key)
            raise ScoringError(f"{self._endpoint.base_url}/completions: {text:.200} {FIX}") from error

    def _checked(self, found: Any, ids: list[int]) -> list[dict[str, float] | None]:
        """The likeliest tokens at each place of the row; ScoringError where they are those of other tokens."""
        where = f"{self._endpoint.base_url}/completions"
        tokens, tops = ((found or {}).get(name) for name in ("tokens", "top_logprobs"))
        if not isinstance(tokens, list) or not isinstance(tops, list) or not len(ids) <= len(tokens) == len(tops):
            count = len(tokens) if isinstance(tokens, list) else 0
            raise ScoringError(
                f"{where}: probabilities of {count} tokens for a row of {len(ids)}: the server does not support echo. "
                f"{FIX}"
            )
        for place, (number, name) in enumerate(zip(ids, tokens, strict=False)):
            if self._id(name) not in (number, None):
                raise ScoringError(
                    f"{where}: the token at place {place} is {name!r:.40} instead of {number}, so the server changes "
                    f"rows or has another vocabulary. {FIX}"
                )
        if not all(isinstance(each, Mapping) and each for each in tops[1 : len(ids)]):
            raise ScoringError(f"{where}: a place without likeliest tokens, although they were asked for. {FIX}")
        return tops

    def _id(self, name: str) -> int | None:
        """A token's id; None where several tokens have that text, or none."""
        if name.startswith(TOKEN_ID):
            return int(name.removeprefix(TOKEN_ID))
        if self._texts is None:
            texts = {number: text.decode("utf-8", "replace") for number, text in self._bytes.items()}
            count = Counter(texts.values())
            self._texts = {text: number for number, text in texts.items() if count[text] == 1 and "\ufffd" not in text}
        return self._texts.get(name)
