"""Ask for the answers that the store lacks. An answer counts when the store has it on the disk.

    respondent = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    ask_missing(respondent, requests, params.run, store, result := AskResult())   # requests() is iterated twice

A feeder passes missing requests to ``run.concurrency`` workers over a bounded queue. ``pacing`` limits the rate of
their calls, ``client`` makes the calls, ``spending`` checks the budget. Two processes may use one store: each claims a
request before it asks, and waits for the other's answer where the request is claimed already. After Ctrl-C, SIGTERM or
an error that ends the run, no new call begins, and the answers in flight are received and kept.
"""

import asyncio
import importlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from stages.lib.command import Interrupted, stopping_loop_on_signals
from stages.lib.params import EmbeddedTeacher, Price, RayEngine, Role, Run, ServedTeacher, Teacher
from stages.lib.replies.reading import Answer
from stages.lib.store.answer_file import AnswerFile
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.store.index import Index
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.batches.beside import Beside
from stages.lib.teacher.batches.journal import OpenBatches, prefix
from stages.lib.teacher.draws import received_draws
from stages.lib.teacher.failures import CallFailed, TeacherError
from stages.lib.teacher.pacing import Stopped
from stages.lib.teacher.progress import UPDATE_EVERY_S, Progress, RunCounts
from stages.lib.teacher.sharing import SharedBudget
from stages.lib.teacher.spending import NO_USAGE, Spending, body_cost, prompt_bytes

log = logging.getLogger("distillery.asking")

SAMPLING = ("temperature", "top_p", "max_tokens")
OTHER_PROCESS_POLL_S = 0.2  # between two checks for answers that another process asks for
OTHER_HOST_POLL_S = 1.0  # the same, where each check is a call to a shared filesystem
YIELD_EVERY = 100  # requests that the feeder passes by before it yields to other tasks

Requests = Callable[[], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Respondent:
    """The model that a ``stage`` asks: its ``section`` of params.yaml, and the ``role`` that run has a key for."""

    stage: str
    section: str
    model: Teacher
    role: Role

    def identity(self, run: Run) -> str:
        """Identifies the model's endpoint in the store's keys; needs no API key and no server."""
        return run.name(self.role) or identity_of(self.model)

    def read_aliases(self, answers: AnswerFile, run: Run) -> None:
        """Find answers that are stored under another name or address of the endpoint, too (run.endpoints)."""
        own = self.identity(run)
        others = [identity_of(self.model), *(alias.rstrip("/") for alias in run.aliases(self.role))]
        answers.read_aliases({alias: own for alias in others if alias != own})

    def connect(self, run: Run) -> AbstractContextManager[list[Endpoint]]:
        """The endpoints, open until the ``with`` block ends."""
        backend = _backend_of(self.model)
        endpoints: AbstractContextManager[list[Endpoint]] = backend.connect(self.model, run, self.role)
        return endpoints


@dataclass
class AskResult:
    """The result of a run: its counts, the failures by key, its seconds, and those of the latest answers.

    ``servers`` has the figures of each of several servers, ``hosts`` the largest number of hosts at work at once.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    failed: dict[str, CallFailed] = field(default_factory=dict)
    seconds: float = 0.0
    latencies: Sequence[float] = ()
    servers: list[dict[str, Any]] = field(default_factory=list)
    hosts: int = 1


@dataclass
class Plan:
    """What a run would do: ``calls`` in total, ``missing`` distinct ones that it would make.

    ``stored`` answers are in the store, all draws of a sample included; together they cost ``stored_cost``.
    """

    calls: int
    stored: int
    stored_cost: float
    highest_cost: float | None
    prompt_bytes: int  # of the missing calls
    keys: Index = field(default_factory=Index)  # of the missing calls

    @property
    def missing(self) -> int:
        """How many distinct calls the run would make."""
        return len(self.keys)

    def lacks(self, key: str) -> bool:
        """Whether the answer to a key was missing."""
        return bool(self.keys.offsets(bytes.fromhex(key)))


def identity_of(model: Teacher) -> str:
    """Identifies a model's endpoint in the store's keys."""
    identity: str = _backend_of(model).identity(model)
    return identity


def _backend_of(model: Teacher) -> Any:
    return importlib.import_module(f"stages.lib.teacher.backends.{model.kind}")


def chat_request(identity: str, model: Teacher, content: str | list[dict[str, str]], sample: int) -> dict[str, Any]:
    """The request for a user message, or for a conversation that ends with one, as the store keeps it.

    ``endpoint`` and ``sample`` are not sent. Sampling settings that are null are left out. The embedded teacher, which
    draws nothing at random, is sent the number of a further sample as the protocol's ``seed``.
    """
    values = {name: getattr(model, name, None) for name in SAMPLING}
    sampling = {name: value for name, value in values.items() if value is not None}
    settings = sampling | (model.extra_body if isinstance(model, ServedTeacher) else {})
    if sample and isinstance(model, EmbeddedTeacher):
        settings["seed"] = sample
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return {"endpoint": identity, "model": model.model, "messages": messages, **settings, "sample": sample}


def ask_missing(respondent: Respondent, requests: Requests, run: Run, store: AnswerStore, result: AskResult) -> None:
    """Ask for every answer that the store lacks; ``result`` is correct at any time, however this function ends.

    With ``run.offline`` nothing is asked, no key is read and no server is started, so missing answers stay missing.
    With an entry in ``run.batch`` they are asked in batches (batches/), which may take a day. Without one, those that
    are in an open batch are received from it, and the others are asked by single calls meanwhile.
    Raises TeacherError (no question can have an answer, or the budget is reached), StoreError, Interrupted.
    """
    price = price_of(respondent, run)
    respondent.read_aliases(store, run)
    plan = make_plan(requests, store, price if run.budget else None)
    result.counts = RunCounts(total=plan.calls, from_store=plan.calls - plan.missing)
    if run.offline:
        result.counts.failed = plan.missing
    elif plan.missing:
        import uvloop

        with respondent.connect(run) as endpoints:
            spending = Spending(price, run.budget, plan.stored_cost, plan.highest_cost, respondent.model.max_tokens)
            if run.batch_of(respondent.role):
                return _ask_in_batches(respondent, requests, run, endpoints[0], store, spending, result)
            asking = _Asking(respondent, run, store, spending, plan, result)
            uvloop.run(asking.run(requests, endpoints))


def _ask_in_batches(
    respondent: Respondent,
    requests: Requests,
    run: Run,
    endpoint: Endpoint,
    store: AnswerStore,
    spending: Spending,
    result: AskResult,
) -> None:
    import uvloop

    from stages.lib.teacher.batches.running import Batching, BatchJob  # it takes a second

    settings, started = run.batch_of(respondent.role), time.monotonic()
    assert settings
    job = BatchJob(respondent.stage, respondent.section, respondent.model.model, endpoint, run, settings)
    try:
        batching = Batching(job, store, OpenBatches(store), spending, result.counts, result.failed)
        uvloop.run(batching.run(requests))
    finally:
        result.seconds = time.monotonic() - started


def price_of(respondent: Respondent, run: Run) -> Price | None:
    """The model's price; None where the table has none, which a budget does not allow."""
    price = run.price(respondent.model.model, respondent.role)
    if run.budget and not price:
        raise TeacherError(
            f"params.yaml: run.budget is set and run.prices.models has no price for '{respondent.model.model}'. "
            "Write one there, or set the budget to null."
        )
    return price


def make_plan(requests: Requests, store: AnswerFile, price: Price | None) -> Plan:
    """Iterate over all requests once, before any call; with a price, also sum up the cost of the stored answers."""
    plan = Plan(calls=0, stored=0, stored_cost=0.0, highest_cost=None, prompt_bytes=0)
    for request in requests():
        plan.calls += 1
        key = request_key(request)
        if key not in store:
            if not plan.lacks(key):  # two questions with the same text share one answer
                plan.keys.add(bytes.fromhex(key), plan.calls)
            plan.prompt_bytes += prompt_bytes(request)
        if price:
            for draw in received_draws(request, store):
                paid = body_cost(draw.body, price)
                plan.stored += 1
                plan.stored_cost += paid
                plan.highest_cost = max(plan.highest_cost or 0.0, paid)
    return plan


class _Asking:
    """One run of the event loop: a feeder, the workers, and what ends them."""

    def __init__(
        self, respondent: Respondent, run: Run, store: AnswerStore, spending: Spending, plan: Plan, result: AskResult
    ) -> None:
        self._respondent = respondent
        self._stage = respondent.stage
        self._run = run
        self._store = store
        self._spending = spending
        self._result = result
        self._error: Exception | None = None
        self._interrupted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue(maxsize=run.concurrency)
        self._unwritten = asyncio.Semaphore(2 * run.concurrency)  # a disk that is slower than the teacher slows it down
        self._stopping = asyncio.Event()
        self._in_batches = OpenBatches(store)
        self._budget = SharedBudget(
            store, self._in_batches, spending, respondent.section, plan.lacks, self._add_arrived
        )
        self._beside = Beside(
            self._stage, respondent.section, run, store, self._in_batches, plan.lacks, self._budget.count
        )

    async def run(self, requests: Requests, endpoints: list[Endpoint]) -> None:
        """Ask until no answer is missing or no new call may begin."""
        # these import aiohttp, which a run from the store does not need
        from stages.lib.teacher.pool import Assignment

        if isinstance(self._run.engine, RayEngine):
            from stages.lib.teacher.actors import ActorPool as Pool
        else:
            from stages.lib.teacher.pool import Pool  # type: ignore[assignment]

        counts, started = self._result.counts, time.monotonic()
        section, model = self._respondent.section, self._respondent.model.model
        self._names_servers = bool(self._run.servers(self._respondent.role))
        assignment = Assignment(endpoints, section, model, self._run, counts.from_store)
        self._pool = Pool(assignment, self._stopping, self._store.keep_unread)
        currency = self._run.currency if self._spending.price else None
        self._progress = Progress(self._stage, counts, currency, self._describe, self._run.concurrency)
        clock = asyncio.create_task(self._show_progress())
        try:
            with stopping_loop_on_signals(self._interrupt):
                await self._feed_and_work(requests, min(self._run.concurrency, counts.total - counts.done))
        finally:
            clock.cancel()
            self._progress.close()
            try:
                await self._pool.close()
            finally:
                self._result.seconds = time.monotonic() - started
                self._result.latencies = self._pool.latencies
                self._result.servers = self._pool.facts()
        if self._interrupted:
            raise Interrupted(
                f"{self._stage}: stopped; {counts.bought} answers were received and are kept, "
                f"{counts.total - counts.done} are missing. Run the stage again to resume."
            )
        if self._error:
            raise self._error
        counts.from_store = counts.total - counts.bought - counts.failed  # another process may have helped

    async def _feed_and_work(self, requests: Requests, workers: int) -> None:
        try:
            async with self._beside.receiving(), asyncio.TaskGroup() as group:
                self._group = group
                self._tasks = [group.create_task(self._feed(requests))]
                self._tasks += [group.create_task(self._work()) for _ in range(workers)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _feed(self, requests: Requests) -> None:
        """Claim missing requests and hand them out; what another process or a batch has comes last."""
        try:
            left = await self._pass_on((request_key(request), request) for request in requests())
            while left:
                for key, _ in left:
                    self._beside.check(key)
                await self._pool.sleep(self._poll_s)
                left = await self._pass_on(left)
        except Stopped:
            pass
        except Exception as error:  # the store or the requests cannot be read any more
            await self._fail(error)
        await self._queue.put(None)

    async def _pass_on(self, asked: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
        """Hand out what is free of these requests; return what is neither stored nor failed nor handed out."""
        in_batches = self._in_batches.keys()  # looked up once: a look at the journal for each would stop the event loop
        self._store.refresh()  # after the journal: what leaves it then is in the store
        left: list[tuple[str, dict[str, Any]]] = []
        for number, (key, request) in enumerate(asked, start=1):
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if key in self._store or key in self._result.failed:
                continue
            if prefix(key) in in_batches or not await self._hand_out(key, request):
                left.append((key, request))
        return left

    async def _hand_out(self, key: str, request: dict[str, Any]) -> bool:
        """Give a request to the workers; False where another process or worker is asking for it."""
        if self._stopping.is_set():
            raise Stopped
        if self._run.budget is None:
            if not self._store.claim(key, self._in_batches.__contains__):
                return False
            self._spending.begin(key, request)
        elif not await self._reserve(key, request):
            return False
        await self._queue.put((key, request))
        return True

    async def _reserve(self, key: str, request: dict[str, Any]) -> bool:
        """Claim a request when the budget has room for it; stop the run where it never will."""
        while True:
            async with self._budget.turn(self._pool.sleep) as elsewhere:
                if key in self._store:
                    return False
                if self._spending.has_room(request, elsewhere):
                    if not self._store.claim(key, self._in_batches.__contains__):
                        return False
                    self._spending.begin(key, request)
                    self._budget.state()
                    return True
            if elsewhere.calls:
                self._beside.check()
                await self._pool.sleep(OTHER_PROCESS_POLL_S)
            elif self._spending.in_flight:
                await self._spending.wait_for_change()
            else:
                counts, currency = self._result.counts, self._run.currency
                text = self._spending.budget_message(request, currency, counts.total, counts.done)
                await self._fail(TeacherError(f"{self._stage}: {text}"))
            if self._stopping.is_set():
                raise Stopped

    def _add_arrived(self) -> None:
        self._result.counts.from_store += 1

    @property
    def _poll_s(self) -> float:
        return OTHER_HOST_POLL_S if self._store.mode == "leases" else OTHER_PROCESS_POLL_S

    def _describe(self) -> str:
        """The calls in flight, the requests in batches, and the hosts, where there are several."""
        hosts = f", {self._store.hosts} hosts" if self._store.hosts > 1 else ""
        return f"{self._pool.describe()}{self._beside.describe()}{hosts}"

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            await self._ask_one(*item)
        self._queue.put_nowait(None)  # for the next worker

    async def _ask_one(self, key: str, request: dict[str, Any]) -> None:
        """Get one answer or one failure. A separate task stores the answer, so the next call need not wait for it."""
        try:
            if self._stopping.is_set():
                raise Stopped
            body, answer, endpoint = await self._pool.ask(key, request)
        except CallFailed as failed:
            # a copy: the exception itself keeps its whole call in memory
            self._result.failed[key] = CallFailed(
                failed.reason, failed.status, failed.attempts, failed.message, failed.subject
            )
            self._result.counts.failed += 1
            self._end(key, None)
        except Stopped:
            self._end(key, None)
        except Exception as error:
            await self._fail(error)
            self._end(key, None)
        except asyncio.CancelledError:
            self._end(key, None)
            raise
        else:
            self._group.create_task(self._keep(key, request, body, answer, endpoint))
            if self._spending.lacks_usage(answer):
                await self._fail(TeacherError(f"{self._stage}: {NO_USAGE}"))
            await self._unwritten.acquire()

    async def _keep(self, key: str, request: dict[str, Any], body: bytes, answer: Answer, endpoint: Endpoint) -> None:
        # the request names the address in params; where run.endpoints names others, the record names the server too
        server = endpoint.base_url if self._names_servers else None
        try:
            await self._store.put(key, request, body, server)
        except Exception as error:
            await self._fail(error)
        else:
            self._count(answer)
            self._end(key, answer)
        finally:
            # without put's word, the record may be written when the store is closed: the claim is kept until then
            self._unwritten.release()

    def _end(self, key: str, answer: Answer | None) -> None:
        self._store.release(key)
        self._spending.end(key, answer)
        self._budget.state()

    async def _fail(self, error: Exception) -> None:
        """End the run with this error. Calls in flight are already paid for, so they are received first."""
        self._error = self._error or error
        await self._stop()

    def _count(self, answer: Answer) -> None:
        counts = self._result.counts
        counts.bought += 1
        counts.tokens += answer.tokens.completion
        counts.cost += self._spending.cost(answer)

    async def _show_progress(self) -> None:
        """Update by time and not by answer: while all calls wait for a server, the user must see why."""
        while True:
            await asyncio.sleep(UPDATE_EVERY_S)
            self._budget.count_arrived()
            self._result.hosts = max(self._result.hosts, self._store.hosts)
            self._progress.update()

    def _interrupt(self) -> None:
        self._interrupted = True
        log.info(
            "%s: stopping; %d calls in flight get up to %g s (Ctrl-C again: exit immediately)",
            self._stage,
            self._pool.in_flight,
            self._run.grace_s,
        )
        loop = asyncio.get_running_loop()
        self._stop_task = loop.create_task(self._stop())
        loop.call_later(self._run.grace_s, self._cancel_tasks)

    async def _stop(self) -> None:
        """Begin no new call."""
        self._stopping.set()
        self._spending.notify()
        await self._pool.notify_all()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
