"""lm-eval's served models, with every response checked by ``bodies.py`` before it is scored or cached.

    CLASSES["local-completions"](model="filtered", base_url="http://127.0.0.1:8000/v1/completions", backoff_s=0.5, …)

A retryable error is retried, up to ``max_retries`` attempts in total. Any other error stops all requests with NoAnswer;
the answers so far are cached. With one request in flight at a time, lm-eval sends other stop strings. Here all requests
use the same code, so the number in flight changes no request.
"""

import asyncio
import copy
import logging
from typing import Any

import aiohttp
from lm_eval.models.api_models import TemplateAPI
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from lm_eval.models.utils import chunks
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter
from tqdm import tqdm

from stages.lib.command import without_key
from stages.lib.evaluation.bodies import NoAnswer, answers, likelihoods, status_error
from stages.lib.evaluation.served import sent_key

log = logging.getLogger("distillery.evaluate")

LONGEST_WAIT_S = 60.0  # a longer Retry-After is an error


class _Checked(TemplateAPI):  # type: ignore[misc]  # lm-eval has no types
    """What both classes change in lm-eval's; ``backoff_s`` is the wait before the second attempt."""

    def __init__(self, *, backoff_s: float, num_concurrent: int, **arguments: Any) -> None:
        super().__init__(num_concurrent=max(2, num_concurrent), **arguments)  # for 1, lm-eval would use its other code
        self.at_once = num_concurrent
        self._backoff = wait_exponential_jitter(initial=backoff_s, max=LONGEST_WAIT_S, jitter=backoff_s)
        self._logged: set[str] = set()

    async def get_batched_requests(
        self,
        requests: list[Any],
        cache_keys: list[Any],
        *,
        generate: bool = True,
        ctxlens: list[int] | None = None,
        gen_kwargs: dict[str, Any] | None = None,
    ) -> list[list[Any]]:
        """The answers of each batch, in order; NoAnswer for the first batch that fails."""
        in_flight, size = asyncio.Semaphore(self.at_once), self._batch_size
        lengths = ctxlens or [0] * len(requests)
        batches = zip(chunks(requests, size), chunks(cache_keys, size), chunks(lengths, size), strict=True)
        connector = aiohttp.TCPConnector(limit=self.at_once, ssl=self.verify_certificate)
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        with tqdm(total=len(requests), desc="Requesting API") as bar:
            try:
                async with (
                    aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                    asyncio.TaskGroup() as group,
                ):
                    asked = [
                        group.create_task(self._ask(session, in_flight, batch, generate, gen_kwargs, bar))
                        for batch in batches
                    ]
            except ExceptionGroup as failed:  # the first error, which cancelled the other requests
                raise self._without_key(failed.exceptions[0]) from None
        return [task.result() for task in asked]

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        in_flight: asyncio.Semaphore,
        batch: tuple[list[Any], list[Any], list[int]],
        generate: bool,
        gen_kwargs: dict[str, Any] | None,
        bar: Any,
    ) -> list[Any]:
        """Send one batch until it is answered or has no attempts left; cache each answer."""
        messages, keys, lengths = batch
        payload = self._create_payload(
            self.create_message(messages), generate=generate, gen_kwargs=copy.deepcopy(gen_kwargs), seed=self._seed
        )
        found: list[Any] = []
        async for attempt in self._attempts():
            with attempt:
                async with in_flight:
                    body = await self._body(session, payload)
                if generate:
                    found = [tuple(answer) for answer in answers(body, len(messages))]
                else:
                    checked = likelihoods(body, messages, lengths)
                    found = self.parse_logprobs(outputs=checked, tokens=messages, ctxlens=lengths)
        for key, answer in zip(keys, found, strict=True):
            if key is not None:
                self.cache_hook.add_partial("generate_until" if generate else "loglikelihood", key, answer)
        bar.update(len(messages))
        return found

    def _attempts(self) -> AsyncRetrying:
        return AsyncRetrying(
            stop=stop_after_attempt(self.max_retries),
            wait=self._wait_s,
            retry=retry_if_exception(lambda error: isinstance(error, NoAnswer) and error.retryable),
            before_sleep=self._log_once,
            reraise=True,
        )

    def _wait_s(self, state: RetryCallState) -> float:
        return max(self._backoff(state), _error(state).after_s)

    def _log_once(self, state: RetryCallState) -> None:
        message = str(self._without_key(_error(state)))
        if message not in self._logged:
            self._logged.add(message)
            log.info("evaluate: %s: no answer (%s), retrying", self.base_url, message)

    def _without_key(self, error: Exception) -> Exception:
        return NoAnswer(without_key(str(error), sent_key(self.header))) if isinstance(error, NoAnswer) else error

    async def _body(self, session: aiohttp.ClientSession, payload: dict[str, Any]) -> bytes:
        """The body of a successful response; NoAnswer for any other status, and for an incomplete response."""
        try:
            async with session.post(self.base_url, json=payload, headers=self.header) as response:
                body = await response.read()
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {self.timeout} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}") from error
        if not response.ok:
            failed = status_error(response.status, body, _seconds(response.headers.get("Retry-After", "")))
            failed.retryable = failed.retryable and failed.after_s <= LONGEST_WAIT_S
            raise failed
        return body


def _error(state: RetryCallState) -> NoAnswer:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, NoAnswer) else NoAnswer(str(error))


def _seconds(header: str) -> float:
    """The seconds in Retry-After; 0 if it names a date: then the backoff applies."""
    return float(header) if header.strip().isdigit() else 0.0


class CheckedCompletions(_Checked, LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
    """``local-completions``: prompts as tokens, and log-probabilities."""


class CheckedChat(_Checked, LocalChatCompletion):  # type: ignore[misc]  # lm-eval has no types
    """``local-chat-completions``: messages."""


CLASSES = {"local-completions": CheckedCompletions, "local-chat-completions": CheckedChat}
