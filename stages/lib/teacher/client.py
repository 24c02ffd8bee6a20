"""Asking the teacher through the ``openai`` client: one call, its retries, and what a failure means.

A call ends in one of three ways: a raw body that holds a completion; ``CallFailed`` (this question has no answer:
its row goes to the failures); ``TeacherError`` (no question can have one: wrong key, no credit, no such model).
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from stages.lib.command import DistilleryError
from stages.lib.params import Run
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.reading import BodyError, read_body

CONNECT_TIMEOUT_S = 120.0  # at many connections the event loop is too busy for the client's own 5 s
SECRET_LENGTH = 8  # a shorter key is a word for a server that wants none


class TeacherError(DistilleryError):
    """The teacher refuses us altogether, or too many of its answers failed."""


@dataclass
class CallFailed(Exception):
    """A question that got no usable body: the reason, the last HTTP status, how many calls were made."""

    reason: str
    status: int | None
    attempts: int = 1


class _Again(CallFailed):
    """A failure that may pass; ``after_s`` is what the server asked us to wait."""

    after_s: float = 0.0


class TeacherClient:
    """One async client for a whole run."""

    def __init__(self, endpoint: Endpoint, run: Run) -> None:
        self._endpoint = endpoint
        self._run = run
        self._backoff = wait_exponential_jitter(initial=run.backoff_s, max=60, jitter=run.backoff_s)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            max_retries=0,  # retries are ours: the client's own neither see a broken body nor count
            timeout=openai.Timeout(run.timeout_s, connect=max(run.timeout_s, CONNECT_TIMEOUT_S)),
            # no proxy of the environment leads to this machine itself
            http_client=openai.DefaultAioHttpClient(trust_env=not _is_this_machine(endpoint.base_url)),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, model: str, messages: list[dict[str, str]], sampling: dict[str, Any]) -> bytes:
        """The raw body of one chat completion; raises CallFailed or TeacherError."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self._run.max_attempts),
            wait=self._wait_s,
            reraise=True,
        )
        attempt_number = 0
        try:
            async for attempt in retrying:
                with attempt:
                    attempt_number += 1
                    return await self._ask_once(model, messages, sampling)
        except CallFailed as failed:
            failed.attempts = attempt_number
            raise
        raise AssertionError("tenacity either returns or raises")

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), error.after_s if isinstance(error, _Again) else 0.0)

    async def _ask_once(self, model: str, messages: list[dict[str, str]], sampling: dict[str, Any]) -> bytes:
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]  # plain mappings, as they are stored
                **sampling,
            )
            body = bytes(response.content)
            read_body(body)
        except BodyError as error:
            raise _Again(str(error), 200) from error
        except openai.APITimeoutError as error:
            raise _Again("timeout" if _is_timeout(error) else "no_connection", None) from error
        except openai.APIConnectionError as error:
            raise _Again("no_connection", None) from error
        except openai.APIStatusError as error:
            raise self._status_failure(error, model) from error
        return body

    def _status_failure(self, error: openai.APIStatusError, model: str) -> Exception:
        status = error.status_code
        # 429 with this code is an empty account, not a busy server: retrying cannot help
        if status in (401, 402, 403, 404) or error.code == "insufficient_quota":
            return TeacherError(
                f"{self._endpoint.base_url}: the teacher answers {status} for model '{model}': "
                f"{self._first_line(error)}. "
                "Check API_KEY, the account's credit and distill.teacher in params.yaml; what was received is kept."
            )
        if status in (408, 409, 425, 429) or status >= 500:
            again = _Again(f"http_{status}", status)
            again.after_s = _retry_after_s(error)
            return again
        return CallFailed("refused", status)

    def _first_line(self, error: openai.APIStatusError) -> str:
        message = str(error.message)
        if len(self._endpoint.api_key) >= SECRET_LENGTH:  # some servers say which key was wrong
            message = message.replace(self._endpoint.api_key, "(API_KEY)")
        return message.strip().split("\n")[0][:200]


def _retry_after_s(error: openai.APIStatusError) -> float:
    """What the header asks for, in seconds or as a date (RFC 9110, 10.2.3); 0 where it says neither."""
    header = error.response.headers.get("retry-after", "")
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # TypeError: a date without a time zone
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _is_timeout(error: openai.APITimeoutError) -> bool:
    # the aiohttp transport reports a reset connection as a time-out too; its own error, two below, tells them apart
    cause = error.__cause__.__cause__ if error.__cause__ else None
    return isinstance(cause, TimeoutError)


def _is_this_machine(base_url: str) -> bool:
    return urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
