"""Ask the servers of one model: each call goes to the open server with the least load for its weight.

    pool = Pool(Assignment(endpoints, section, model, run, stored), stopping, keep_unread)
    body, answer, endpoint = await pool.ask(key, request)

A server that cannot be reached, refuses everything or fails call after call is set aside: its calls go to the others,
and it is tried again with one call after 5 s, then after twice as long each time, up to 5 minutes. The run ends where
all are set aside: at once if none of them is merely unreachable, else after ``run.outage_s``. With one server, its
client alone decides.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stages.lib.params import Run
from stages.lib.replies.reading import Answer
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.client import KeepUnread, ServerGone, TeacherClient
from stages.lib.teacher.failures import KEPT, CallFailed, Diagnosis, TeacherError
from stages.lib.teacher.pacing import Pace

log = logging.getLogger("distillery.asking")

FIRST_WAIT_S = 5.0  # before a server that was set aside is tried again
LONGEST_WAIT_S = 300.0
RATES = ("requests_per_minute", "tokens_per_minute")
FAILURES = 3  # calls in a row without an answer, after which a server is set aside


class Member:
    """One server of the pool: its client, its rates and its figures. ``assigned`` calls are with it now."""

    def __init__(self, endpoint: Endpoint, section: str, pace: Pace, client: TeacherClient) -> None:
        self.endpoint = endpoint
        self.section = section
        self.pace = pace
        self.client = client
        self.assigned = 0
        self.answers = 0
        self.tokens = 0
        self.times_set_aside = 0
        self.error: TeacherError | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._wait_s = FIRST_WAIT_S

    @property
    def name(self) -> str:
        """Its host and port."""
        return urlsplit(self.endpoint.base_url).netloc

    @property
    def load(self) -> float:
        """Its load with one more call."""
        return (self.assigned + 1) / self.endpoint.weight

    @property
    def seconds_to_retry(self) -> float:
        """How long it stays set aside; 0: it is open."""
        return max(0.0, self._retry_at - time.monotonic()) if self.error else 0.0

    def takes_a_call(self) -> bool:
        """Whether it is open and has room; one that was set aside is tried with one call."""
        if self.error:
            return not self.seconds_to_retry and not self.assigned
        return self.assigned < self.pace.max_in_flight()

    def answered(self, answer: Answer) -> None:
        """Count an answer: earlier failures no longer count."""
        if self.error:
            log.info("%s: %s answers again", self.section.partition(".")[0], self.name)
        self.error, self._failures, self._wait_s = None, 0, FIRST_WAIT_S
        self.answers += 1
        self.tokens += answer.tokens.completion

    def failed(self, failed: CallFailed) -> None:
        """Count a call without an answer; set the server aside after some in a row."""
        self._failures += 1
        if self._failures >= FAILURES:
            self.set_aside(
                TeacherError(
                    f"{self.endpoint.base_url}: {self._failures} calls in a row failed ({failed.reason}); {KEPT}"
                )
            )

    def set_aside(self, error: TeacherError) -> None:
        """Give it no calls for a while; calls that were with it already change nothing."""
        if self.seconds_to_retry:
            return
        self.error, self._retry_at = error, time.monotonic() + self._wait_s
        self.times_set_aside += 1
        stage = self.section.partition(".")[0]
        log.warning("%s: %s is set aside for %.0f s: %s", stage, self.name, self._wait_s, error)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def facts(self) -> dict[str, Any]:
        """Its figures in this run, for metrics/runs."""
        return {
            "base_url": self.endpoint.base_url,
            "answers": self.answers,
            "completion_tokens": self.tokens,
            "seconds_an_answer": round(self.client.answered_s / self.answers, 3) if self.answers else None,
            "set_aside": self.times_set_aside,
        }


@dataclass(frozen=True)
class Assignment:
    """What a pool asks: the servers of one ``model``, for a ``section`` of params.yaml, within the limits of ``run``.

    ``stored`` answers were in the store at the start.
    """

    endpoints: Sequence[Endpoint]
    section: str
    model: str
    run: Run
    stored: int


class Pool:
    """The servers of one model in one run."""

    def __init__(self, assignment: Assignment, stopping: asyncio.Event, keep_unread: KeepUnread) -> None:
        self._run = assignment.run
        self._stopping = stopping
        self._changed = asyncio.Event()
        self._gone_since: float | None = None
        self._members = []
        section = assignment.section
        for endpoint in assignment.endpoints:
            own = _limits(assignment.run, endpoint, assignment.endpoints)
            pace = Pace(own, stopping)
            diagnosis = Diagnosis(endpoint, section, assignment.model, own, assignment.stored)
            client = TeacherClient(endpoint, section, own, pace, diagnosis, keep_unread)
            self._members.append(Member(endpoint, section, pace, client))

    @property
    def in_flight(self) -> int:
        """The calls in flight, to all servers."""
        return sum(member.pace.in_flight for member in self._members)

    @property
    def latencies(self) -> list[float]:
        """The seconds of the latest attempts that each server answered."""
        return [seconds for member in self._members for seconds in member.client.latencies]

    async def ask(self, key: str, request: dict[str, Any]) -> tuple[bytes, Answer, Endpoint]:
        """The raw body of one completion, its answer and its server; raises CallFailed, TeacherError or Stopped."""
        if len(self._members) == 1:
            (only,) = self._members
            return *await self._answer(only, key, request), only.endpoint
        tried: list[Member] = []
        attempts = 0
        last: CallFailed | None = None
        while True:
            member = await self._next(tried)
            if member is None:
                assert last  # a server was tried
                raise last
            try:
                return *await self._answer(member, key, request), member.endpoint
            except TeacherError as error:
                member.set_aside(error)
            except CallFailed as failed:
                attempts += failed.attempts
                failed.attempts = attempts
                if failed.group != "transient":
                    raise
                member.failed(failed)
                tried.append(member)
                last = failed

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as the run is ending."""
        await self._members[0].pace.sleep(seconds)

    async def notify_all(self) -> None:
        """Wake all calls that wait, so that they see that the run is ending."""
        self._changed.set()
        for member in self._members:
            await member.pace.notify_all()

    async def close(self) -> None:
        """Close the connections."""
        for member in self._members:
            await member.client.close()

    def describe(self) -> str:
        """``30 in flight, 2 waiting up to 60 s``; of several servers, how many calls are with each."""
        clients = [member.client for member in self._members]
        waiting = sum(client.waiting for client in clients)
        longest_s = max(client.longest_wait_s for client in clients)
        more = f", {waiting} waiting up to {longest_s:.0f} s" if waiting else ""
        if len(self._members) == 1:
            gone = ", the server cannot be reached" if self._members[0].pace.outage_began else ""
            return f"{self.in_flight} in flight{more}{gone}"
        parts = [
            f"{member.name} {'set aside' if member.seconds_to_retry else member.pace.in_flight}"
            for member in self._members
        ]
        return f"{self.in_flight} in flight ({', '.join(parts)}){more}"

    def facts(self) -> list[dict[str, Any]]:
        """Each server's figures in this run; empty where there is one server."""
        return [member.facts() for member in self._members] if len(self._members) > 1 else []

    async def _answer(self, member: Member, key: str, request: dict[str, Any]) -> tuple[bytes, Answer]:
        member.assigned += 1
        try:
            body, answer = await member.client.ask(key, request)
        finally:
            member.assigned -= 1
            self._changed.set()
        member.answered(answer)
        self._gone_since = None
        return body, answer

    async def _next(self, tried: Sequence[Member]) -> Member | None:
        """The server for a call, not one of those ``tried``; waits until one has room. None: no other is open."""
        while True:
            self._changed.clear()
            if tried and all(member in tried or member.error for member in self._members):
                return None
            free = [member for member in self._members if member not in tried and member.takes_a_call()]
            if free:
                return min(free, key=lambda member: member.load)
            if all(member.error for member in self._members):
                self._check_outage()
            await self._wait(min((wait for member in self._members if (wait := member.seconds_to_retry)), default=1.0))

    def _check_outage(self) -> None:
        """TeacherError where no server will answer, or none has answered for too long."""
        errors = [member.error for member in self._members if member.error]
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        ever = any(member.answers for member in self._members)
        if not any(isinstance(error, ServerGone) for error in errors) or not ever:
            raise errors[-1]
        if now - self._gone_since >= self._run.outage_s:
            raise TeacherError(
                f"none of the {len(errors)} servers has answered for {now - self._gone_since:.0f} s. The last error: "
                f"{errors[-1]}"
            )

    async def _wait(self, seconds: float) -> None:
        """Wait for a change, at most so long; Stopped where the run is ending."""
        await self.sleep(0)  # raises Stopped
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return


def _limits(run: Run, endpoint: Endpoint, all_: Sequence[Endpoint]) -> Run:
    """``run`` with the limits of one of its servers: its own ones, or its share by weight of those of the run."""
    if len(all_) == 1:
        return run
    share = endpoint.weight / sum(each.weight for each in all_)
    rates = {name: getattr(endpoint, name) or _part(getattr(run, name), share) for name in RATES}
    cap = {"concurrency": endpoint.concurrency or run.concurrency, "outage_s": min(run.outage_s, 3 * run.backoff_s)}
    return run.model_copy(update=rates | cap)


def _part(limit: int | None, share: float) -> int | None:
    return None if limit is None else max(1, int(limit * share))
