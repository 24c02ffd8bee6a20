"""Ask from the nodes of a Ray cluster (run.engine): actors with a ``Pool`` each, behind the interface of ``Pool``.

    pool = ActorPool(Assignment(endpoints, section, model, run, stored), stopping, keep_unread)
    body, answer, endpoint = await pool.ask(key, request)

The process that has the store claims the requests, keeps the budget and writes the answers; an actor only makes the
calls. Each has its share of the calls in flight and of the rates, so all together keep the limits of ``run``. When an
actor or its node is lost, the requests that were with it are asked again by the others, and another actor takes its
share: that costs what was in flight, and nothing that was received. A body without an answer is handed over within
``REPORT_EVERY_S``.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stages.lib.cluster import WorkerError
from stages.lib.cluster.connection import connected, last_words, one_line
from stages.lib.params import RayEngine, Run
from stages.lib.replies.errors import Subject
from stages.lib.replies.reading import Answer
from stages.lib.store.answer_file import StoreError
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.client import KeepUnread
from stages.lib.teacher.failures import CallFailed, TeacherError
from stages.lib.teacher.pacing import Pace, Stopped
from stages.lib.teacher.pool import RATES, Assignment, Pool
from stages.lib.teacher.repeats import Group

log = logging.getLogger("distillery.asking")

REPORT_EVERY_S = 1.0
LOST_IN_A_ROW = 5  # actors without an answer between them, after which the run ends
LAST_REPORT_S = 10.0
LIMITS = ("concurrency", *RATES)


@dataclass(frozen=True)
class Failed:
    """The fields of a CallFailed, which as an exception would lose them on its way."""

    reason: str
    status: int | None
    attempts: int
    message: str
    subject: Subject
    group: Group


@dataclass(frozen=True)
class Outcome:
    """What became of a request: an answer with its body and its server's address, a failure, an error, or none yet."""

    answer: Answer | None = None
    body: bytes = b""
    server: str = ""
    failed: Failed | None = None
    error: TeacherError | None = None


@dataclass(frozen=True)
class Report:
    """What an actor says of itself; the bodies without an answer and the lines of its log since the last report."""

    described: str = ""
    unread: list[tuple[str, dict[str, Any], str, bytes]] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    servers: list[dict[str, Any]] = field(default_factory=list)


class Asker:
    """An actor: a pool of the servers in a process of its own."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._unread: list[tuple[str, dict[str, Any], str, bytes]] = []
        self._log = _Lines()

    async def start(self, share: Assignment) -> None:
        """Make the pool. The keys come with this call, for what an actor is made with stays in the cluster."""
        logging.getLogger("distillery").setLevel(logging.INFO)
        logging.getLogger("distillery").addHandler(self._log)
        self._pool = Pool(share, self._stopping, self._keep_unread)

    async def ask(self, key: str, request: dict[str, Any]) -> Outcome:
        """One request, with its retries."""
        try:
            body, answer, endpoint = await self._pool.ask(key, request)
            return Outcome(answer, body, endpoint.base_url)
        except CallFailed as failed:
            fields = failed.reason, failed.status, failed.attempts, failed.message, failed.subject, failed.group
            return Outcome(failed=Failed(*fields))
        except TeacherError as error:
            return Outcome(error=TeacherError(str(error)))
        except Stopped:
            return Outcome()

    async def report(self, last: bool) -> Report:
        """What happened since the last report; the figures of all its calls in the ``last`` one."""
        unread, self._unread = self._unread, []
        lines, self._log.lines = self._log.lines, []
        if not last:
            return Report(self._pool.describe(), unread, lines)
        return Report("", unread, lines, self._pool.latencies, self._pool.facts())

    async def stop(self) -> None:
        """Begin no new call."""
        self._stopping.set()
        await self._pool.notify_all()

    def _keep_unread(self, key: str, request: dict[str, Any], reason: str, body: bytes) -> None:
        self._unread.append((key, request, reason, body))


class _Lines(logging.Handler):
    """The lines of an actor's log since its last report, with their levels."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append((record.levelno, record.getMessage()))


class _Member:
    """An actor as its run sees it: ``place`` names its share, ``assigned`` of ``most`` requests are with it."""

    def __init__(self, handle: Any, place: int, node: str, most: int) -> None:
        self.handle = handle
        self.place = place
        self.node = node
        self.most = most
        self.assigned = 0
        self.is_ready = False
        self.described = "starting"


class ActorPool:
    """The actors of one run, used as ``Pool`` is; ``run.engine`` is a RayEngine."""

    def __init__(self, assignment: Assignment, stopping: asyncio.Event, keep_unread: KeepUnread) -> None:
        engine = assignment.run.engine
        assert isinstance(engine, RayEngine)
        self._engine = engine
        self._cluster = connected(engine)
        self._endpoints = {endpoint.base_url: endpoint for endpoint in assignment.endpoints}
        self._keep_unread = keep_unread
        self._pace = Pace(assignment.run, stopping)
        self._stopping = stopping
        self._stage = assignment.section.partition(".")[0]
        self._changed = asyncio.Event()
        self._error: WorkerError | None = None
        self._not_kept: StoreError | None = None
        self._lost = 0
        self._reports: list[Report] = []
        nodes = self._nodes()
        number = most_actors(engine.workers or len(nodes), assignment)
        self._shares = parts(assignment, number)
        self._starts: set[asyncio.Task[None]] = set()
        self._receiving: set[asyncio.Task[None]] = set()
        self._clock = asyncio.create_task(self._report_often())
        self._members: list[_Member] = []
        for place in range(number):
            self._add(place, nodes[place % len(nodes)])
        log.info("%s: %d workers of the cluster %s ask", self._stage, number, engine.address)

    @property
    def in_flight(self) -> int:
        """The requests that are with an actor."""
        return sum(member.assigned for member in self._members)

    @property
    def latencies(self) -> list[float]:
        """The seconds of the latest attempts that were answered, but of actors that were lost."""
        return [seconds for report in self._reports for seconds in report.latencies]

    async def ask(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer, Endpoint]:
        """As ``Pool.ask``; a request that was with a lost actor is asked again. WorkerError where none can be kept."""
        from ray.exceptions import ObjectLostError, RayActorError

        lost = RayActorError, ObjectLostError
        while True:
            member = await self._next()
            member.assigned += 1
            try:
                with one_line(self._engine, but=lost):
                    return self._result(await member.handle.ask.remote(key, request))
            except lost as error:
                self._replace(member, error)
            finally:
                member.assigned -= 1
                self._changed.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as the run is ending."""
        await self._pace.sleep(seconds)

    async def notify_all(self) -> None:
        """Have all actors begin no new call."""
        self._changed.set()
        for member in self._members:
            if member.is_ready:
                member.handle.stop.remote()

    async def close(self) -> None:
        """Receive the last reports, and end the actors; StoreError where a body without an answer was not kept."""
        import ray

        for task in (self._clock, *self._starts):
            task.cancel()
        members, self._members = self._members, []  # a lost one is not replaced any more
        ready = [member for member in members if member.is_ready]
        for member in ready:
            _spawn(self._receive(member, last=True), self._receiving)
        try:
            # the earlier reports, too: what is on its way is with no actor any more
            await asyncio.wait_for(asyncio.gather(*self._receiving), LAST_REPORT_S)
        except TimeoutError:
            pass
        finally:
            for member in members:
                ray.kill(member.handle)
        if len(self._reports) < len(ready):
            log.warning("%s: not all workers made their last report in %.0f s", self._stage, LAST_REPORT_S)
        if self._not_kept:
            raise self._not_kept

    def describe(self) -> str:
        """``worker 1 on 10.0.0.7: 15 in flight, 2 waiting up to 60 s; worker 2 on …``."""
        return "; ".join(f"{self._name(member)}: {member.described}" for member in self._members)

    def facts(self) -> list[dict[str, Any]]:
        """Each server's figures in this run, of all actors; empty where there is one server."""
        found = [facts for report in self._reports for facts in report.servers]
        return [summed([each for each in found if each["base_url"] == url]) for url in _urls(found)]

    def _result(self, outcome: Outcome) -> tuple[bytes, Answer, Endpoint]:
        self._lost = 0
        if outcome.answer:
            return outcome.body, outcome.answer, self._endpoints[outcome.server]
        if outcome.failed:
            each = outcome.failed
            failed = CallFailed(each.reason, each.status, each.attempts, each.message, each.subject, each.group)
            raise failed
        raise outcome.error or Stopped

    async def _next(self) -> _Member:
        """The actor for a request: that with the fewest. Waits until one has room; Stopped where the run is ending."""
        while True:
            self._changed.clear()
            if error := self._not_kept or self._error:
                raise error
            if self._stopping.is_set():
                raise Stopped
            free = [member for member in self._members if member.is_ready and member.assigned < member.most]
            if free:
                return min(free, key=lambda member: member.assigned)
            await self._changed.wait()

    def _nodes(self) -> list[str]:
        """The checked nodes that are alive, by id; of servers on this machine, only this machine's."""
        import ray

        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        local = any(endpoint.is_here for endpoint in self._endpoints.values())
        here = {node for node, address in self._cluster.nodes.items() if address == self._cluster.here or not local}
        found = [node for node in self._cluster.nodes if node in alive & here]
        if not found:
            raise WorkerError(f"run.engine: {self._engine.address}: no node is left to ask from. Run the stage again.")
        return found

    def _add(self, place: int, node: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        most = self._shares[place].run.concurrency
        # at once, with room for reports
        actor = ray.remote(Asker).options(num_cpus=0, max_concurrency=most + 16, scheduling_strategy=strategy)
        member = _Member(actor.remote(), place, node, most)
        self._members.append(member)
        _spawn(self._start(member), self._starts)

    async def _start(self, member: _Member) -> None:
        from ray.exceptions import ActorUnschedulableError, RayActorError

        try:
            with one_line(self._engine, but=(RayActorError, ActorUnschedulableError)):
                await member.handle.start.remote(self._shares[member.place])
            member.is_ready = True
        except (RayActorError, ActorUnschedulableError) as error:
            self._replace(member, error)
        except WorkerError as error:
            self._error = error
        self._changed.set()

    def _replace(self, member: _Member, error: Exception) -> None:
        """Another actor for the share of a lost one, on a node where one works."""
        import ray

        if member not in self._members:  # another of its requests has noticed
            return
        ray.kill(member.handle)  # one that is only out of reach must not ask on
        self._members.remove(member)
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW:
            self._error = WorkerError(
                f"run.engine: {self._lost} workers in a row were lost before an answer came ({last_words(error)}). "
                "Look at the nodes' memory and logs, then run the stage again; received answers are kept."
            )
        else:
            words = f"{member.assigned} requests are asked again by the others"
            log.warning("%s: %s was lost: %s", self._stage, self._name(member), words)
            try:
                self._add(member.place, self._node_for_another())
            except WorkerError as none_left:
                self._error = none_left
        self._changed.set()

    def _node_for_another(self) -> str:
        """A node with a working actor, for one of a lost node may be called alive for a while."""
        nodes = self._nodes()
        working = {member.node for member in self._members if member.is_ready}
        return next((node for node in nodes if node in working), nodes[0])

    def _name(self, member: _Member) -> str:
        return f"worker {member.place + 1} on {self._cluster.nodes[member.node]}"

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            for member in self._members:
                if member.is_ready:
                    _spawn(self._receive(member, last=False), self._receiving)

    async def _receive(self, member: _Member, last: bool) -> None:
        from ray.exceptions import RayError

        try:
            report: Report = await member.handle.report.remote(last)
        except RayError as error:
            self._replace(member, error)
            return
        for unread in report.unread:
            try:
                self._keep_unread(*unread)
            except StoreError as error:  # it ends the run; the others may still find room
                self._not_kept = error
                self._changed.set()
        for level, line in report.lines:
            log.log(level, "%s", line)
        member.described = report.described
        if last:
            self._reports.append(report)


def _spawn(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def most_actors(wanted: int, assignment: Assignment) -> int:
    """So many actors that each has at least one call in flight and one a minute, of each server."""
    limited = (assignment.run, *assignment.endpoints)
    limits: list[int | None] = [getattr(each, name) for each in limited for name in LIMITS]
    return min(wanted, *(limit for limit in limits if limit is not None))


def parts(assignment: Assignment, number: int) -> list[Assignment]:
    """The shares of so many actors; their limits add up to those of the run and of each server."""
    found = []
    for place in range(number):
        servers = [replace(endpoint, **_limits(endpoint, place, number)) for endpoint in assignment.endpoints]
        own = assignment.run.model_copy(update=_limits(assignment.run, place, number))
        found.append(replace(assignment, endpoints=servers, run=own))
    return found


def _limits(of: Run | Endpoint, place: int, number: int) -> dict[str, Any]:
    limits = {name: getattr(of, name) for name in LIMITS}
    return {name: (limit + place) // number for name, limit in limits.items() if limit is not None}


def _urls(facts: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(each["base_url"] for each in facts))


def summed(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one server from several actors; the mean is over all answers."""
    found = {name: sum(each[name] for each in facts) for name in ("answers", "completion_tokens", "set_aside")}
    timed = [(each["answers"], each["seconds_an_answer"]) for each in facts if each["seconds_an_answer"] is not None]
    answers = sum(count for count, _ in timed)
    mean = round(sum(count * seconds for count, seconds in timed) / answers, 3) if answers else None
    return {"base_url": facts[0]["base_url"], **found, "seconds_an_answer": mean}
