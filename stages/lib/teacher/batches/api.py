"""The calls of a batch API, through the ``openai`` client: upload, submit, find, look, cancel, download.

OpenAI and DashScope (https://help.aliyun.com/en/model-studio/batch-interfaces-compatible-with-openai/) have the same
calls. A failing call is repeated, as for single answers: a 429 or a 5xx up to ``run.max_attempts`` times, a server that
cannot be reached for ``run.outage_s``; one that never answered, shortly. A call that submits is the exception: where
its reply does not say whether there is a batch now, the batch is looked for before it is submitted again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import httpx2
import openai
from openai.types import Batch as RemoteBatch

from stages.lib.command import without_key
from stages.lib.params import Batch as Settings
from stages.lib.params import Run
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.batches.journal import Batch
from stages.lib.teacher.batches.lines import URL
from stages.lib.teacher.failures import KEPT, CallFailed, Diagnosis, RetryableFailure, TeacherError

log = logging.getLogger("distillery.asking")

ENDED = ("completed", "failed", "expired", "cancelled")
LONGEST_BACKOFF_S = 60.0
CLOCK_DIFFERENCE_S = 86_400  # between this machine and the server
LOOK_AGAIN_S = 5.0
MAY_BE_DONE = (408, 409)  # a time limit of a server in front, a conflict with what was there already
PAGE = 100  # the most batches that the server lists in one reply
NAME = "distillery"

T = TypeVar("T")


class NotSubmitted(TeacherError):
    """A batch that the server certainly does not have: its file was not uploaded, or submitting it was refused."""


class Unanswered(Exception):
    """The reply to a call that submits was lost, or says nothing: it may have been carried out."""


class BatchApi:
    """The batch API of one endpoint."""

    def __init__(self, endpoint: Endpoint, run: Run, diagnosis: Diagnosis) -> None:
        self._endpoint = endpoint
        self._run = run
        self._diagnosis = diagnosis
        self._has_answered = False
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            max_retries=0,
            timeout=run.timeout_s,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not endpoint.is_here),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def upload(self, path: Path, name: str) -> str:
        """Upload a file of requests under a name; return its id. NotSubmitted where that fails."""

        async def call() -> str:
            with path.open("rb") as file:
                created = await self._client.files.create(file=(f"{name}.jsonl", file), purpose="batch")
            return self._checked(created).id

        try:
            return await self._repeated("upload the requests", call)
        except TeacherError as error:
            raise NotSubmitted(str(error)) from error

    async def submit(self, batch: Batch, settings: Settings) -> str:
        """Submit an uploaded file as a batch, once; return the batch's id. NotSubmitted where it is refused."""
        wait_s = self._run.backoff_s
        for attempt in range(1, self._run.max_attempts + 1):
            try:
                return await self._create(batch, settings)
            except Unanswered as error:
                if found := await self.find(batch):
                    return found
                if attempt == self._run.max_attempts:
                    raise TeacherError(
                        f"{self._endpoint.base_url}: no reply to a submitted batch ({error}), and none with its file "
                        f"is listed. Run the stage again: it looks for the batch first; {KEPT}"
                    ) from error
            except TeacherError as error:
                raise error if attempt > 1 else NotSubmitted(str(error)) from error
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_BACKOFF_S)
        raise AssertionError("the last attempt returns or raises")

    async def _create(self, batch: Batch, settings: Settings) -> str:
        async def call() -> str:
            try:
                created = await self._client.batches.create(
                    input_file_id=batch.file_id or "",
                    endpoint=cast(Any, URL),
                    completion_window=cast(Any, settings.completion_window),  # DashScope has longer ones than OpenAI
                    metadata={"ds_name": f"{NAME}-{batch.stage}", NAME: batch.token},  # for the server's console
                )
            except (openai.APIConnectionError, ValueError) as error:  # the latter: half a reply is no JSON
                raise Unanswered(self._text(error)) from error
            except openai.APIStatusError as error:
                if error.status_code in MAY_BE_DONE or error.status_code >= 500:
                    raise Unanswered(f"status {error.status_code}") from error
                raise
            name: str | None = getattr(created, "id", None)
            if not name:  # such as the page of a server in front
                raise Unanswered("no reply of a batch API")
            return name

        return await self._repeated("submit a batch", call)

    async def find(self, batch: Batch) -> str | None:
        """The batch that was made of this file; looks twice, because a new batch may not be listed at once."""
        for look in range(2):
            if look:
                await asyncio.sleep(min(10 * self._run.backoff_s, LOOK_AGAIN_S))
            if found := await self._repeated("list the batches", lambda: self._listed(batch)):
                log.info("%s: the batch %s was submitted already; the run goes on with it", batch.stage, found)
                return found
        return None

    async def _listed(self, batch: Batch) -> str | None:
        async for each in self._checked(await self._client.batches.list(limit=PAGE), "data"):
            if each.input_file_id == batch.file_id:
                return each.id
            created: Any = each.created_at  # some servers have texts here
            if isinstance(created, int) and created < batch.created - CLOCK_DIFFERENCE_S:  # the newest come first
                return None
        return None

    async def look(self, batch: Batch) -> RemoteBatch:
        """The state of a batch."""
        found = await self._repeated(
            "look at a batch", lambda: self._client.batches.retrieve(batch.batch_id or ""), batch
        )
        return self._checked(found)

    async def cancel(self, batch: Batch) -> RemoteBatch:
        """Cancel a batch: requests that are not executed yet will not be."""
        return await self._repeated("cancel a batch", lambda: self._client.batches.cancel(batch.batch_id or ""), batch)

    async def download(self, file_id: str, path: Path, batch: Batch) -> Path:
        """Write a file of the server to ``path``."""

        async def call() -> Path:
            with path.open("wb") as file:
                async with self._client.files.with_streaming_response.content(file_id) as response:
                    async for chunk in response.iter_bytes():
                        file.write(chunk)
            return path

        return await self._repeated("download a result", call, batch)

    def _checked(self, reply: T, field: str = "id") -> T:
        """What a call returned, where it is what the protocol says: a web page with status 200 has no such field."""
        if getattr(reply, field, None) is None:
            raise TeacherError(
                f"{self._endpoint.base_url}: no reply of a batch API. Check the address; if the server has no batch "
                f"API, remove the entry in run.batch; {KEPT}"
            )
        return reply

    async def _repeated(self, what: str, call: Callable[[], Awaitable[T]], batch: Batch | None = None) -> T:
        """The result of a call that changes nothing, or that may be made twice; TeacherError where it has none."""
        attempts, gone_since, wait_s = 0, None, self._run.backoff_s
        while True:
            try:
                result = await call()
            except (openai.APIConnectionError, httpx2.HTTPError) as error:  # the latter while a file is downloaded
                gone_since = gone_since or monotonic()
                # an address that never answered is probably wrong, not temporarily down
                limit_s = self._run.outage_s if self._has_answered else min(self._run.outage_s, 3 * self._run.backoff_s)
                if monotonic() - gone_since >= limit_s:
                    raise TeacherError(
                        f"{self._endpoint.base_url}: no server has answered for {monotonic() - gone_since:.0f} s "
                        f"({self._text(error)}). Submitted batches go on there. Check the network and run the stage "
                        f"again; {KEPT}"
                    ) from error
                asked_s = 0.0
            except ValueError as error:  # half a reply is no JSON
                attempts += 1
                if attempts >= self._run.max_attempts:
                    raise self._refused(what, CallFailed("not_json", 200, message=self._text(error))) from error
                asked_s = 0.0
            except openai.APIStatusError as error:
                self._has_answered, gone_since, attempts = True, None, attempts + 1
                if error.status_code in (404, 405):
                    raise self._missing(what, batch, error) from error
                failed = self._diagnosis.of_status(
                    error.status_code, error.response.content, cast(Any, error.response.headers)
                )
                if not isinstance(failed, RetryableFailure) or attempts >= self._run.max_attempts:
                    raise self._refused(what, failed) from error
                asked_s = failed.wait_s
            else:
                self._has_answered = True
                return result
            await asyncio.sleep(max(wait_s, asked_s))
            wait_s = min(2 * wait_s, LONGEST_BACKOFF_S)

    def _missing(self, what: str, batch: Batch | None, error: openai.APIStatusError) -> TeacherError:
        where = f"{self._endpoint.base_url}: could not {what}: the server answers {error.status_code}"
        if batch:
            return TeacherError(
                f"{where} for {batch.name}: {self._text(error)}. Was it made with another key than "
                f"{self._endpoint.key_variable}? 'make batches FORGET={batch.name}' has its answers bought again."
            )
        return TeacherError(f"{where}. Does it have a batch API? If not, remove the entry in run.batch; {KEPT}")

    def _refused(self, what: str, failed: CallFailed | TeacherError) -> TeacherError:
        if isinstance(failed, TeacherError):
            return failed
        return TeacherError(
            f"{self._endpoint.base_url}: could not {what}: the server answers {failed.status}: "
            f"{failed.message.rstrip('.。') or 'no message'}. Submitted batches go on there. Run the stage again when "
            f"it works; {KEPT}"
        )

    def _text(self, error: Exception) -> str:
        cause = error.__cause__ or error
        return without_key(" ".join((str(cause) or type(cause).__name__).split()), self._endpoint.api_key)[:200]
