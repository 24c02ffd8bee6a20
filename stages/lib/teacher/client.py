"""Ask the teacher by the OpenAI chat protocol: one call and its retries.

A call ends in one of four ways:

    a raw body      it holds a completion
    CallFailed      this question has no answer: its row goes to the failures
    TeacherError    no question can have one: wrong key, no credit, no such model, no server, a repeated failure
    Stopped         the run is ending

errors.py classifies a server's errors. The calls are plain POSTs through aiohttp, because raw bodies are kept and read
here: the ``openai`` client would cost several times the CPU of a call, and a second of imports (docs/teacher.md).
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from stages.lib.params import Run
from stages.lib.replies.errors import Subject
from stages.lib.replies.reading import SERVER_ERROR, Answer, BodyError, read_body
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.failures import KEPT, CallFailed, Diagnosis, RetryableFailure, TeacherError
from stages.lib.teacher.pacing import LATEST, Call, Pace
from stages.lib.teacher.spending import prompt_bytes

__all__ = ["CallFailed", "TeacherClient", "TeacherError"]

CONNECT_TIMEOUT_S = 120.0  # at many connections a busy event loop may be slow to make one
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
LONGEST_BACKOFF_S = 60.0
BYTES_A_TOKEN = 3  # a conservative estimate for English; Chinese has about 3 bytes per character
NOT_SENT = ("endpoint", "sample", "draw")  # fields of a request that only identify the stored answer

KeepUnread = Callable[[str, dict[str, Any], str, bytes], None]  # key, request, reason, body


class ServerGone(TeacherError):
    """A server cannot be reached, and was waited for as long as params allow."""


class _Unreached(Exception):
    """No connection was made: the server has not seen the call."""


class TeacherClient:
    """One async client for a whole run.

    ``waiting`` calls are between two attempts; the longest of their waits is ``longest_wait_s``. ``answered_s`` are
    the seconds of all attempts that were answered, ``latencies`` those of the latest ones. ``keep_unread`` stores a
    received body that holds no answer.
    """

    def __init__(
        self, endpoint: Endpoint, section: str, run: Run, pace: Pace, diagnosis: Diagnosis, keep_unread: KeepUnread
    ) -> None:
        self.waiting = 0
        self.longest_wait_s = 0.0
        self.answered_s = 0.0
        self.latencies: deque[float] = deque(maxlen=LATEST)
        self._endpoint = endpoint
        self._section = section
        self._run = run
        self._pace = pace
        self._diagnosis = diagnosis
        self._keep_unread = keep_unread
        self._has_answered = False
        self._tokens_an_answer = 0.0
        self._url = f"{endpoint.base_url}/chat/completions"
        self._session = aiohttp.ClientSession(
            headers=HEADERS | {"Authorization": f"Bearer {endpoint.api_key}"},
            connector=aiohttp.TCPConnector(limit=run.concurrency),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=max(run.timeout_s, CONNECT_TIMEOUT_S)),
            trust_env=not endpoint.is_here,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def ask(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """The raw body of one chat completion and its answer; raises CallFailed, TeacherError or Stopped."""
        attempt, backoff_s = 0, self._run.backoff_s
        while True:
            attempt += 1
            try:
                return await self._attempt(key, request, attempt)
            except CallFailed as failed:
                failed.attempts = attempt
                if not isinstance(failed, RetryableFailure) or attempt >= self._run.max_attempts:
                    raise
                wait_s = max(min(backoff_s + random.uniform(0, self._run.backoff_s), LONGEST_BACKOFF_S), failed.wait_s)
            await self._sleep(wait_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _sleep(self, seconds: float) -> None:
        self.waiting += 1
        self.longest_wait_s = max(self.longest_wait_s, seconds)
        try:
            await self._pace.sleep(seconds)
        finally:
            self.waiting -= 1
            self.longest_wait_s = self.longest_wait_s if self.waiting else 0.0

    async def _attempt(self, key: str, request: dict[str, Any], number: int) -> tuple[bytes, Answer]:
        """One call that reached the server. Waiting for a server that cannot be reached costs no attempt."""
        async with self._pace.call(self._expected_tokens(request)) as call:
            while True:
                try:
                    body, answer = await self._send(key, request)
                except _Unreached as error:
                    await self._wait_for_server(call, error)
                except CallFailed as failed:
                    self._has_answered = self._has_answered or failed.status is not None
                    self._pace.mark_reached()
                    if failed.subject is Subject.RATE or failed.status == 429 or failed.reason == "timeout":
                        self._pace.slow_down(call)
                    self._diagnosis.count(failed, key, number)
                    raise
                else:
                    self.latencies.append(time.monotonic() - call.began)
                    self.answered_s += self.latencies[-1]
                    self._has_answered = True
                    self._pace.mark_reached()
                    self._pace.speed_up()
                    self._diagnosis.answered()
                    call.tokens = self._learn_tokens(answer) or call.tokens
                    return body, answer

    async def _wait_for_server(self, call: Call, error: _Unreached) -> None:
        """Keep this call's slot until the next try; TeacherError when ``run.outage_s`` is over."""
        outage_s = self._pace.mark_unreachable()
        # an address that never answered is probably wrong, not temporarily down
        limit_s = self._run.outage_s if self._has_answered else min(self._run.outage_s, 3 * self._run.backoff_s)
        if outage_s >= limit_s:
            raise ServerGone(
                f"{self._endpoint.base_url}: no server has answered for {outage_s:.0f} s ({error}). Check "
                f"{self._section}.base_url in params.yaml and the network; {KEPT}"
            ) from error
        await self._pace.wait_for_retry(call, outage_s, within_s=limit_s - outage_s)

    def _expected_tokens(self, request: dict[str, Any]) -> int:
        if not self._run.tokens_per_minute:
            return 0
        return math.ceil(prompt_bytes(request) / BYTES_A_TOKEN + self._tokens_an_answer)

    def _learn_tokens(self, answer: Answer) -> int:
        """Update the running mean of the tokens per answer; return this call's tokens, for the token window."""
        counted = answer.tokens
        if not counted.completion:
            return 0
        weight = 0.1 if self._tokens_an_answer else 1.0
        self._tokens_an_answer += (counted.completion - self._tokens_an_answer) * weight
        return counted.prompt + counted.completion

    async def _send(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer]:
        """Make one HTTP call; return the raw body as received, and its answer."""
        sent = {name: value for name, value in request.items() if name not in NOT_SENT}
        if self._run.stream:
            sent |= {"stream": True, "stream_options": {"include_usage": True}}
        received: list[bytes] = []
        try:
            async with (
                asyncio.timeout(self._run.timeout_s),
                self._session.post(self._url, data=orjson.dumps(sent)) as response,
            ):
                async for chunk in response.content.iter_any():
                    received.append(chunk)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise _Unreached("no connection in time") from error
            return self._read_part(b"".join(received), RetryableFailure("timeout", None), error)
        except aiohttp.ClientConnectorError as error:
            raise _Unreached(_reason(error)) from error
        except aiohttp.ClientError as error:
            return self._read_part(b"".join(received), RetryableFailure("no_connection", None), error)
        body = b"".join(received)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise self._diagnosis.of_status(response.status, body, response.headers)
        try:
            return body, read_body(body)
        except BodyError as error:
            if body.strip() and (str(error) != SERVER_ERROR or b'"choices"' in body):  # an error alone costs nothing
                text = self._diagnosis.without_key(body.decode("utf-8", errors="surrogateescape"))
                self._keep_unread(key, request, str(error), text.encode("utf-8", errors="surrogateescape"))
            raise self._diagnosis.of_body(error, body) from error

    def _read_part(self, body: bytes, lost: Exception, cause: Exception) -> tuple[bytes, Answer]:
        """The answer in what a broken stream sent, if it is whole; else raise the error that it states, or ``lost``."""
        try:
            return body, read_body(body)
        except BodyError as error:
            raise (self._diagnosis.of_body(error, body) if str(error) == SERVER_ERROR else lost) from cause


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):  # it has no os_error
        return str(error.certificate_error)
    return error.os_error.strerror or str(error.os_error) or "no connection"
