"""Asking the teacher through the ``openai`` client: one call, its retries, and what a failure means.

A call ends in one of four ways: a raw body that holds a completion; ``CallFailed`` (this question has no answer: its
row goes to the failures); ``TeacherError`` (no question can have one: wrong key, no credit, no such model, nobody
there, the same failure again and again); ``Stopped`` (the run is ending). Whose fault an error is, errors.py says.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from stages.lib.params import Run
from stages.lib.replies.errors import Subject
from stages.lib.replies.reading import SERVER_ERROR, Answer, BodyError, read_body
from stages.lib.replies.usage import tokens
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.failures import KEPT, Again, CallFailed, Diagnosis, TeacherError
from stages.lib.teacher.pacing import Pace, Turn
from stages.lib.teacher.spending import prompt_bytes

__all__ = ["CallFailed", "TeacherClient", "TeacherError"]

CONNECT_TIMEOUT_S = 120.0  # at many connections the event loop is too busy for the client's own 5 s
LONGEST_BACKOFF_S = 60.0
BYTES_A_TOKEN = 3  # a guess on the safe side for English; Chinese has about as many bytes to a character
NOT_SENT = ("endpoint", "sample", "draw")  # of a request: they tell one stored answer from another

KeepUnread = Callable[[str, dict[str, Any], str, bytes], None]  # key, request, reason, body


class _Unreached(Exception):
    """No connection came about: the server has not seen the call."""


class TeacherClient:
    """One async client for a whole run. ``waiting`` calls are between two attempts, the longest ``longest_wait_s``.

    ``keep_unread`` keeps a body that came and holds no answer.
    """

    def __init__(
        self, endpoint: Endpoint, section: str, run: Run, pace: Pace, diagnosis: Diagnosis, keep_unread: KeepUnread
    ) -> None:
        self.waiting = 0
        self.longest_wait_s = 0.0
        self._endpoint = endpoint
        self._section = section
        self._run = run
        self._pace = pace
        self._diagnosis = diagnosis
        self._keep_unread = keep_unread
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

    async def ask(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """The raw body of one chat completion and what was read in it; raises CallFailed, TeacherError or Stopped."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Again),
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
                    return await self._attempt(key, request, attempts)
        except CallFailed as failed:
            failed.attempts = attempts
            raise
        raise AssertionError("tenacity either returns or raises")

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), error.after_s if isinstance(error, Again) else 0.0)

    async def _rest(self, seconds: float) -> None:
        self.waiting += 1
        self.longest_wait_s = max(self.longest_wait_s, seconds)
        try:
            await self._pace.rest(seconds)
        finally:
            self.waiting -= 1
            self.longest_wait_s = self.longest_wait_s if self.waiting else 0.0

    async def _attempt(self, key: str, request: dict[str, Any], number: int) -> tuple[bytes, Answer]:
        """One call that the server saw; a server that cannot be reached is waited for, and costs no attempt."""
        async with self._pace.turn(self._expected_tokens(request)) as turn:
            while True:
                try:
                    body, answer = await self._send(key, request)
                except _Unreached as error:
                    await self._wait_for_the_server(turn, error)
                except CallFailed as failed:
                    self._heard = self._heard or failed.status is not None
                    self._pace.reached()
                    if failed.subject is Subject.RATE or failed.status == 429 or failed.reason == "timeout":
                        self._pace.slow_down(turn)
                    self._diagnosis.count(failed, key, number)
                    raise
                else:
                    self._heard = True
                    self._pace.reached()
                    self._pace.creep_back()
                    self._diagnosis.answered()
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
                f"{self._section}.base_url in params.yaml and the network; {KEPT}"
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

    async def _send(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """One HTTP call: the raw body, as it came, and what was read in it."""
        sent = {name: value for name, value in request.items() if name not in NOT_SENT}
        received: list[bytes] = []
        try:
            async with asyncio.timeout(self._run.timeout_s):
                await (self._stream(sent, received) if self._run.stream else self._receive(sent, received))
        except TimeoutError as error:
            return self._read_part(b"".join(received), Again("timeout", None), error)
        except (openai.APIConnectionError, httpx2.RequestError) as error:  # the latter midway in a stream
            return self._read_part(b"".join(received), _connection_failure(error), error)
        except openai.APIStatusError as error:
            response = error.response
            raise self._diagnosis.of_status(error.status_code, response.content, response.headers) from error
        body = b"".join(received)
        try:
            return body, read_body(body)
        except BodyError as error:
            if body.strip() and (str(error) != SERVER_ERROR or b'"choices"' in body):  # an error alone cost nothing
                text = self._diagnosis.without_key(body.decode("utf-8", errors="surrogateescape"))
                self._keep_unread(key, request, str(error), text.encode("utf-8", errors="surrogateescape"))
            raise self._diagnosis.of_body(error, body) from error

    async def _receive(self, sent: dict[str, Any], received: list[bytes]) -> None:
        # chat.completions.create() would do the same after walking through the types of all it might be given, which
        # costs a third of a call's CPU; post() is the client's documented way to an endpoint's raw response
        response = await self._client.post("/chat/completions", body=sent, cast_to=httpx2.Response)
        received.append(response.content)

    async def _stream(self, sent: dict[str, Any], received: list[bytes]) -> None:
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
            async for chunk in response.iter_bytes():
                received.append(chunk)

    def _read_part(self, body: bytes, lost: Exception, cause: Exception) -> tuple[bytes, Answer]:
        """What came before a stream was lost may be the whole answer, or say why; else it is ``lost``."""
        try:
            return body, read_body(body)
        except BodyError as error:
            raise (self._diagnosis.of_body(error, body) if str(error) == SERVER_ERROR else lost) from cause


def _connection_failure(error: openai.APIConnectionError | httpx2.RequestError) -> Exception:
    """The transport reports a reset connection as a time-out too; its own errors, further down, tell them apart."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return _Unreached(_first_reason(cause))
        if isinstance(cause, TimeoutError):
            return Again("timeout", None)
        cause = cause.__cause__
    return Again("no_connection", None)


def _first_reason(error: BaseException) -> str:
    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else "no connection in time"
    return reason or "no connection"


def _is_this_machine(base_url: str) -> bool:
    return urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
