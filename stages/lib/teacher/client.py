"""Asking the teacher through the ``openai`` client: one call, its retries, and what a failure means.

A call ends in one of four ways: a raw body that holds a completion; ``CallFailed`` (this question has no answer: its
row goes to the failures); ``TeacherError`` (no question can have one: wrong key, no credit, no such model, nobody
there); ``Stopped`` (the run is ending).
"""

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from stages.lib.command import DistilleryError
from stages.lib.params import Run
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.pacing import Pace, Turn
from stages.lib.teacher.pricing import tokens
from stages.lib.teacher.reading import Answer, BodyError, read_body
from stages.lib.teacher.spending import prompt_bytes

CONNECT_TIMEOUT_S = 120.0  # at many connections the event loop is too busy for the client's own 5 s
LONGEST_BACKOFF_S = 60.0
SECRET_LENGTH = 8  # a shorter key is a word for a server that wants none
BYTES_A_TOKEN = 3  # a guess on the safe side for English; Chinese has about as many bytes to a character
NO_CREDIT = ("insufficient_quota", "Arrearage")  # OpenAI's with a 429, DashScope's with a 400: no retry can help
NOT_SENT = ("endpoint", "sample", "draw")  # of a request: they tell one stored answer from another


class TeacherError(DistilleryError):
    """The teacher refuses us altogether, cannot be reached, or too many of its answers failed."""


@dataclass
class CallFailed(Exception):
    """A question that got no usable body: the reason, the last HTTP status, how many calls were made."""

    reason: str
    status: int | None
    attempts: int = 1


class _Again(CallFailed):
    """A failure that may pass; ``after_s`` is what the server asked us to wait."""

    after_s: float = 0.0


class _Unreached(Exception):
    """No connection came about: the server has not seen the call."""


class TeacherClient:
    """One async client for a whole run. ``waiting`` calls are between two attempts, the longest ``longest_wait_s``."""

    def __init__(self, endpoint: Endpoint, section: str, run: Run, pace: Pace) -> None:
        self.waiting = 0
        self.longest_wait_s = 0.0
        self._endpoint = endpoint
        self._section = section
        self._run = run
        self._pace = pace
        self._heard = False
        self._tokens_an_answer = 0.0
        self._backoff = wait_exponential_jitter(multiplier=run.backoff_s, max=LONGEST_BACKOFF_S, jitter=run.backoff_s)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            max_retries=0,  # retries are ours: the client's own neither see a broken body nor count
            timeout=openai.Timeout(run.timeout_s, connect=max(run.timeout_s, CONNECT_TIMEOUT_S)),
            # no proxy of the environment leads to this machine itself
            http_client=openai.DefaultAioHttpClient(
                trust_env=not _is_this_machine(endpoint.base_url), limits=httpx2.Limits(max_connections=run.concurrency)
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """The raw body of one chat completion and what was read in it; raises CallFailed, TeacherError or Stopped."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self._run.max_attempts),
            wait=self._wait_s,
            sleep=self._rest,
            reraise=True,
        )
        attempts = 0
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    return await self._attempt(request)
        except CallFailed as failed:
            failed.attempts = attempts
            raise
        raise AssertionError("tenacity either returns or raises")

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), error.after_s if isinstance(error, _Again) else 0.0)

    async def _rest(self, seconds: float) -> None:
        self.waiting += 1
        self.longest_wait_s = max(self.longest_wait_s, seconds)
        try:
            await self._pace.rest(seconds)
        finally:
            self.waiting -= 1
            self.longest_wait_s = self.longest_wait_s if self.waiting else 0.0

    async def _attempt(self, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """One call that the server saw; a server that cannot be reached is waited for, and costs no attempt."""
        async with self._pace.turn(self._expected_tokens(request)) as turn:
            while True:
                try:
                    body, answer = await self._send(request)
                except _Unreached as error:
                    await self._wait_for_the_server(turn, error)
                except CallFailed as failed:
                    self._heard = self._heard or failed.status is not None
                    self._pace.reached()
                    if failed.status == 429 or failed.reason == "timeout":
                        self._pace.slow_down(turn)
                    raise
                else:
                    self._heard = True
                    self._pace.reached()
                    self._pace.creep_back()
                    turn.tokens = self._learn_tokens(answer) or turn.tokens
                    return body, answer

    async def _wait_for_the_server(self, turn: Turn, error: _Unreached) -> None:
        """Hold this call's place until the next look; TeacherError when ``run.outage_s`` is over."""
        lost_s = self._pace.not_reached()
        # an address that never answered is more likely wrong than down
        patience_s = self._run.outage_s if self._heard else min(self._run.outage_s, 3 * self._run.backoff_s)
        if lost_s >= patience_s:
            raise TeacherError(
                f"{self._endpoint.base_url}: nobody answers there ({error}) since {lost_s:.0f} s. Check "
                f"{self._section}.base_url in params.yaml and the network; what was received is kept."
            ) from error
        await self._pace.look_again(turn, lost_s, within_s=patience_s - lost_s)

    def _expected_tokens(self, request: dict[str, Any]) -> int:
        if not self._run.tokens_per_minute:
            return 0
        return math.ceil(prompt_bytes(request) / BYTES_A_TOKEN + self._tokens_an_answer)

    def _learn_tokens(self, answer: Answer) -> int:
        """A running mean of what answers come to, for the window of tokens."""
        counted = tokens(answer.usage)
        if not counted.completion:
            return 0
        weight = 0.1 if self._tokens_an_answer else 1.0
        self._tokens_an_answer += (counted.completion - self._tokens_an_answer) * weight
        return counted.prompt + counted.completion

    async def _send(self, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """One HTTP call: the raw body, as it came, and what was read in it."""
        sent = {name: value for name, value in request.items() if name not in NOT_SENT}
        try:
            async with asyncio.timeout(self._run.timeout_s):
                body = await (self._streamed(sent) if self._run.stream else self._whole(sent))
            return body, read_body(body)
        except BodyError as error:
            raise _Again(str(error), 200) from error
        except TimeoutError as error:
            raise _Again("timeout", None) from error
        except (openai.APIConnectionError, httpx2.RequestError) as error:  # the latter midway in a stream
            raise _connection_failure(error) from error
        except openai.APIStatusError as error:
            raise self._status_failure(error, request["model"]) from error

    async def _whole(self, sent: dict[str, Any]) -> bytes:
        # chat.completions.create() would do the same after walking through the types of all it might be given, which
        # costs a third of a call's CPU; post() is the client's documented way to an endpoint's raw response
        response = await self._client.post("/chat/completions", body=sent, cast_to=httpx2.Response)
        return response.content

    async def _streamed(self, sent: dict[str, Any]) -> bytes:
        """The server's events as they came; the client's own parsing of them costs ten times the CPU."""
        told = {name: value for name, value in sent.items() if name not in ("model", "messages")}
        streaming = self._client.chat.completions.with_streaming_response.create(
            model=sent["model"],
            messages=sent["messages"],
            stream=True,
            stream_options={"include_usage": True},
            extra_body=told,
        )
        async with streaming as response:
            return b"".join([chunk async for chunk in response.iter_bytes()])

    def _status_failure(self, error: openai.APIStatusError, model: str) -> Exception:
        status = error.status_code
        if status in (401, 402, 403, 404) or error.code in NO_CREDIT or _is_no_model(error):
            return TeacherError(
                f"{self._endpoint.base_url}: the server answers {status} for model '{model}': "
                f"{self._first_line(error)}. Check {self._endpoint.key_variable}, the account's credit and "
                f"{self._section} in params.yaml; what was received is kept."
            )
        if status in (408, 409, 425, 429) or status >= 500:
            again = _Again(f"http_{status}", status)
            again.after_s = _retry_after_s(error)
            return again
        return CallFailed("refused", status)

    def _first_line(self, error: openai.APIStatusError) -> str:
        message = str(error.message)
        if len(self._endpoint.api_key) >= SECRET_LENGTH:  # some servers say which key was wrong
            message = message.replace(self._endpoint.api_key, "(the key)")
        message = message.removeprefix(f"Error code: {error.status_code} - ")  # the client's words, not the server's
        return message.strip().split("\n")[0][:200].rstrip(".")


def _is_no_model(error: openai.APIStatusError) -> bool:
    """DeepSeek says 'Model Not Exist' with a plain 400, others have a code of their own for it."""
    return error.code in ("model_not_found", "invalid_model") or "model not exist" in str(error.message).lower()


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


def _connection_failure(error: openai.APIConnectionError | httpx2.RequestError) -> Exception:
    """The transport reports a reset connection as a time-out too; its own errors, further down, tell them apart."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return _Unreached(_first_reason(cause))
        if isinstance(cause, TimeoutError):
            return _Again("timeout", None)
        cause = cause.__cause__
    return _Again("no_connection", None)


def _first_reason(error: BaseException) -> str:
    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else "no connection in time"
    return reason or "no connection"


def _is_this_machine(base_url: str) -> bool:
    return urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
