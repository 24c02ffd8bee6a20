"""Asking for many answers: what the store lacks is asked for, and an answer counts when the store has it on the disk.

    respondent = Respondent("distill", "distill.teacher", params.distill.teacher, params.run.key_variable("teacher"))
    ask_missing(respondent, requests, params.run, store, asked := Asked())   # requests: yields every request, twice

A feeder hands what is missing to ``run.concurrency`` workers over a bounded queue; ``pacing`` lets their calls begin,
``client`` makes them, ``spending`` watches the budget. Two processes may work on one store: each claims a request
before it asks, and waits for the other's answer where it cannot. After Ctrl-C, SIGTERM or a refusal of everything
nothing new is begun and what is in flight is received and kept.
"""

import asyncio
import importlib
import logging
import os
import signal
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

from stages.lib.command import Interrupted
from stages.lib.params import Price, Run, ServedTeacher, Teacher
from stages.lib.replies.reading import Answer
from stages.lib.replies.usage import tokens
from stages.lib.store.answer_file import AnswerFile
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.client import CallFailed, TeacherClient, TeacherError
from stages.lib.teacher.draws import received
from stages.lib.teacher.failures import Diagnosis
from stages.lib.teacher.pacing import Pace, Stopped
from stages.lib.teacher.progress import LOOK_EVERY_S, Progress, Standing
from stages.lib.teacher.spending import Spending, body_cost, prompt_bytes

log = logging.getLogger("distillery.asking")

SAMPLING = ("temperature", "top_p", "max_tokens")
ELSEWHERE_S = 0.2  # between two looks for answers that another process asks for
NO_USAGE = (
    "the server states no tokens with its answers ('usage'), so what they cost is not known and run.budget cannot be "
    "kept. Set run.stream to false if it is true, else run.budget to null; what was received is kept."
)
BREATH = 1000  # stored requests that the feeder passes over before others may work

Requests = Callable[[], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Respondent:
    """Who is asked: for which ``stage``, where params name the model (``section``), which variable holds a key."""

    stage: str
    section: str
    model: Teacher
    key_variable: str | None

    @property
    def identity(self) -> str:
        """What stands for the endpoint in the store's keys; no key and no server is needed for it."""
        return identity_of(self.model)

    def connect(self, run: Run) -> AbstractContextManager[Endpoint]:
        """The endpoint, for as long as the block lasts."""
        backend = _backend_of(self.model)
        endpoint: AbstractContextManager[Endpoint] = backend.connect(self.model, run, self.key_variable)
        return endpoint


@dataclass
class Asked:
    """What the asking came to: the figures, the failures by key, and how long it took."""

    standing: Standing = field(default_factory=Standing)
    failed: dict[str, CallFailed] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Plan:
    """What a run would do: ``calls`` in all, ``missing`` different ones to be asked.

    ``paid`` answers are in the store, all draws of a sample among them; together they cost ``stored_cost``.
    """

    calls: int
    missing: int
    paid: int
    stored_cost: float
    dearest: float | None
    prompt_bytes: int  # of the missing


def identity_of(model: Teacher) -> str:
    """What stands for a model's endpoint in the store's keys."""
    identity: str = _backend_of(model).identity(model)
    return identity


def _backend_of(model: Teacher) -> Any:
    return importlib.import_module(f"stages.lib.teacher.backends.{model.kind}")


def chat_request(identity: str, model: Teacher, content: str, sample: int) -> dict[str, Any]:
    """A user's message as it is stored; ``endpoint`` and ``sample`` are not sent, sampling values of null left out."""
    values = {name: getattr(model, name, None) for name in SAMPLING}
    sampling = {name: value for name, value in values.items() if value is not None}
    told = sampling | (model.extra_body if isinstance(model, ServedTeacher) else {})
    messages = [{"role": "user", "content": content}]
    return {"endpoint": identity, "model": model.model, "messages": messages, **told, "sample": sample}


def ask_missing(respondent: Respondent, requests: Requests, run: Run, store: AnswerStore, asked: Asked) -> None:
    """Ask for every answer that the store does not hold; ``asked`` is right at any moment, however this ends.

    With ``run.offline`` nothing is asked, no key looked for and no server started: what is missing stays so.
    Raises TeacherError (no question can have an answer, or the budget is reached), StoreError, Interrupted.
    """
    price = price_of(respondent, run)
    plan = make_plan(requests, store, price if run.budget else None)
    asked.standing = Standing(wanted=plan.calls, from_store=plan.calls - plan.missing)
    if run.offline:
        asked.standing.failed = plan.missing
    elif plan.missing:
        with respondent.connect(run) as endpoint:
            spending = Spending(price, run.budget, plan.stored_cost, plan.dearest, respondent.model.max_tokens)
            uvloop.run(_Asking(respondent.stage, run, store, spending, asked).run(requests, endpoint, respondent))


def price_of(respondent: Respondent, run: Run) -> Price | None:
    """The model's price; None where the table has none, which a budget does not allow."""
    price = run.price(respondent.model.model)
    if run.budget and not price:
        raise TeacherError(
            f"params.yaml: run.budget is set and run.prices.models has no price for '{respondent.model.model}'. "
            "Write one there, or set the budget to null."
        )
    return price


def make_plan(requests: Requests, store: AnswerFile, price: Price | None) -> Plan:
    """Go through all requests once, before any call; with a price, also see what the stored answers cost."""
    plan = Plan(calls=0, missing=0, paid=0, stored_cost=0.0, dearest=None, prompt_bytes=0)
    missing = array("Q")  # two questions with the same text share one answer
    for request in requests():
        plan.calls += 1
        key = request_key(request)
        if key not in store:
            missing.append(int(key[:16], 16))
            plan.prompt_bytes += prompt_bytes(request)
        if price:
            for body in received(request, store):
                paid = body_cost(body, price)
                plan.paid += 1
                plan.stored_cost += paid
                plan.dearest = max(plan.dearest or 0.0, paid)
    plan.missing = len(np.unique(np.frombuffer(missing, dtype=np.uint64))) if missing else 0
    return plan


class _Asking:
    """One run of the event loop: a feeder, the workers, and what ends them."""

    def __init__(self, stage: str, run: Run, store: AnswerStore, spending: Spending, asked: Asked) -> None:
        self._stage = stage
        self._run = run
        self._store = store
        self._spending = spending
        self._asked = asked
        self._refusal: Exception | None = None
        self._interrupted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue(maxsize=run.concurrency)
        self._unwritten = asyncio.Semaphore(2 * run.concurrency)  # a disk that is slower than the teacher slows it down
        self._stopping = asyncio.Event()
        self._pace = Pace(run, self._stopping)

    async def run(self, requests: Requests, endpoint: Endpoint, respondent: Respondent) -> None:
        """Ask, until nothing is missing or nothing more may be begun."""
        standing, started = self._asked.standing, time.monotonic()
        diagnosis = Diagnosis(endpoint, respondent.section, respondent.model.model, self._run, standing.from_store)
        self._client = TeacherClient(
            endpoint, respondent.section, self._run, self._pace, diagnosis, self._store.keep_unread
        )
        currency = self._run.currency if self._spending.price else None
        self._progress = Progress(self._stage, standing, currency, self._in_flight, self._run.concurrency)
        clock = asyncio.create_task(self._show_progress())
        try:
            with self._signals():
                await self._feed_and_work(requests, min(self._run.concurrency, standing.wanted - standing.done))
        finally:
            clock.cancel()
            self._progress.close()
            await self._client.close()
            self._asked.seconds = time.monotonic() - started
        if self._interrupted:
            raise Interrupted(
                f"{self._stage}: stopped; {standing.bought} answers came and are kept, "
                f"{standing.wanted - standing.done} are missing. Run the stage again to go on there."
            )
        if self._refusal:
            raise self._refusal
        standing.from_store = standing.wanted - standing.bought - standing.failed  # another process may have helped

    async def _feed_and_work(self, requests: Requests, workers: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._tasks = [group.create_task(self._feed(requests))]
                self._tasks += [group.create_task(self._work()) for _ in range(workers)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _feed(self, requests: Requests) -> None:
        """Claim what is missing and hand it out; what another process has claimed comes last."""
        elsewhere: list[tuple[str, dict[str, Any]]] = []
        try:
            passed = 0
            for request in requests():
                key = request_key(request)
                if key in self._store:
                    passed += 1
                    if passed % BREATH == 0:
                        await asyncio.sleep(0)
                elif not await self._hand_out(key, request):
                    elsewhere.append((key, request))
            while elsewhere:
                elsewhere = [(key, request) for key, request in elsewhere if not await self._settled(key, request)]
                await self._pace.rest(ELSEWHERE_S if elsewhere else 0)
        except Stopped:
            pass
        except Exception as refusal:  # the store or the requests cannot be read any more
            await self._refuse(refusal)
        await self._queue.put(None)

    async def _hand_out(self, key: str, request: dict[str, Any]) -> bool:
        """Give a request to the workers; False where somebody else is asking for it."""
        if self._stopping.is_set():
            raise Stopped
        await self._afford(request)
        if not self._store.claim(key):
            return False
        self._spending.begun(key, request)
        await self._queue.put((key, request))
        return True

    async def _settled(self, key: str, request: dict[str, Any]) -> bool:
        """Whether an answer that somebody else asked for is there, has failed, or is now ours to ask for."""
        there = key in self._asked.failed or key in self._store
        return there or await self._hand_out(key, request) or key in self._store

    async def _afford(self, request: dict[str, Any]) -> None:
        """Wait until the budget has room for this call; stop the run where it will never have."""
        while not self._spending.has_room(request):
            if not self._spending.in_flight:
                standing, currency = self._asked.standing, self._run.currency
                reached = self._spending.reached(request, currency, standing.wanted, standing.done)
                await self._refuse(TeacherError(f"{self._stage}: {reached}"))
                raise Stopped
            await self._spending.change()
            if self._stopping.is_set():
                raise Stopped

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            await self._ask_one(*item)
        self._queue.put_nowait(None)  # for the next worker

    async def _ask_one(self, key: str, request: dict[str, Any]) -> None:
        """One answer, or one failure. The next call does not wait for the disk: a task of its own keeps the answer."""
        try:
            if self._stopping.is_set():
                raise Stopped
            body, answer = await self._client.ask(key, request)
        except CallFailed as failed:
            # a copy: the exception itself holds on to its whole call
            self._asked.failed[key] = CallFailed(
                failed.reason, failed.status, failed.attempts, failed.message, failed.subject
            )
            self._asked.standing.failed += 1
            self._end(key, None)
        except Stopped:
            self._end(key, None)
        except Exception as refusal:
            await self._refuse(refusal)
            self._end(key, None)
        except asyncio.CancelledError:
            self._end(key, None)
            raise
        else:
            self._group.create_task(self._keep(key, request, body, answer))
            if self._spending.is_blind_to(answer):
                await self._refuse(TeacherError(f"{self._stage}: {NO_USAGE}"))
            await self._unwritten.acquire()

    async def _keep(self, key: str, request: dict[str, Any], body: bytes, answer: Answer) -> None:
        try:
            await self._store.put(key, request, body)
            self._count(answer)
        except Exception as refusal:
            await self._refuse(refusal)
        finally:
            self._unwritten.release()
            self._end(key, answer)

    def _end(self, key: str, answer: Answer | None) -> None:
        self._store.release(key)
        self._spending.ended(key, answer)

    async def _refuse(self, refusal: Exception) -> None:
        """Nothing more can be asked or kept. Whatever the fault, what is in flight is paid for and received first."""
        self._refusal = self._refusal or refusal
        await self._stop()

    def _count(self, answer: Answer) -> None:
        standing = self._asked.standing
        standing.bought += 1
        standing.tokens += tokens(answer.usage).completion
        standing.cost += self._spending.cost(answer)

    async def _show_progress(self) -> None:
        """By the clock, not by the answers: while all wait for a server none comes, and the user is to see why."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._progress.update()

    def _in_flight(self) -> str:
        waiting = self._client.waiting
        more = f", {waiting} waiting up to {self._client.longest_wait_s:.0f} s" if waiting else ""
        gone = ", the server cannot be reached" if self._pace.outage_began else ""
        return f"{self._pace.in_flight} in flight{more}{gone}"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        if self._interrupted:
            os._exit(Interrupted.exit_code)  # the second time: at once
        self._interrupted = True
        log.info(
            "%s: stopping; %d calls in flight get up to %g s (Ctrl-C again: leave at once)",
            self._stage,
            self._pace.in_flight,
            self._run.grace_s,
        )
        loop = asyncio.get_running_loop()
        self._stop_task = loop.create_task(self._stop())
        loop.call_later(self._run.grace_s, self._give_up)

    async def _stop(self) -> None:
        """Begin nothing new."""
        self._stopping.set()
        self._spending.wake()
        await self._pace.wake_all()

    def _give_up(self) -> None:
        for task in self._tasks:
            task.cancel()
