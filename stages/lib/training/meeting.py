"""The meeting of several nodes that train one arm: they compare their inputs, watch each other and end together.

with meeting(job) as group:             node 0 listens on its port, the others connect; alone: nothing happens
    port = lead(group, facts, …)        node 0, before the training; TrainingError if a node's facts differ
    with joined(group, facts) as …:     the others
    launch(…, beside=group.watching)    stops this node's processes when another node failed or is gone

All end with one line, that of the node that knows what went wrong. NODES_TIMEOUT_S (1800): how long they wait for each
other before the training.
"""

import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stages.lib.command import Interrupted, project_root
from stages.lib.training import Job, Nodes, TrainingError
from stages.lib.training.checkpoints import NOT_IN_DIGEST, short_hash
from stages.lib.training.dataset import Conversations, shape_of
from stages.lib.training.identity import student_identity
from stages.lib.training.launching import GRACE_S, deepspeed_file

log = logging.getLogger("distillery.train")

SHORT = 40  # characters of a fact that an error shows
TIMEOUT_S = 1800.0  # before the training: a node may still be started by hand
POLL_S = 0.2
BEAT_S = 1.0
LOST_S = 60.0  # without a sign of a node while it trains
ENDED_S = 10.0  # the same once the training has failed here
LATE_S = 60.0  # how much later than node 0 another node may begin to hear that nothing is left to train
SAYS_S = 60.0  # between two lines of a node that waits
SHARED_S = 30.0  # until a network file system shows a new file
UNEXPECTED = ("See the log", "ended with exit code", "did not finish")  # another node's failure causes these too


T = TypeVar("T")


def listens(nodes: Nodes) -> bool:
    """Whether anything answers at node 0's port."""
    try:
        socket.create_connection((nodes.address, nodes.port), 2.0).close()
    except OSError:
        return False
    return True


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """What two nodes do not share: ``rows; torch: 2.12.0 instead of 2.13.0``. Long values are hashes, not shown."""
    found = []
    for name in sorted(mine.keys() | theirs.keys()):
        one, other = mine.get(name, "none"), theirs.get(name, "none")
        if one != other:
            long = "sha256:" in one + other
            found.append(name if long else f"{name}: {other} instead of {one}")
    return "; ".join(found)


def facts_of(job: Job, rows: Conversations, versions: Mapping[str, str]) -> dict[str, str]:
    """What all nodes must have alike, by name: long values as hashes, so that a difference names what differs."""
    kind = job.train.trainer.kind
    settings = deepspeed_file(job.train.deepspeed)
    values: dict[str, Any] = {
        "rows": shape_of(rows).sha256,
        "student": student_identity(job.train.student)["sha256"],
        "code": _code_of(kind),
        "DeepSpeed's settings": Path(settings).read_text() if settings else None,
        "run.device": job.run.device.partition(":")[0],
        "run.processes": job.run.processes,
        "run.checkpoint_steps": job.run.checkpoint_steps,
        **{f"train.{name}": value for name, value in job.train.model_dump(exclude=NOT_IN_DIGEST).items()},
        **{f"arms.{job.name}.{name}": value for name, value in job.arm.model_dump().items()},
        **versions,
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return {name: text if len(text) <= SHORT else "sha256:" + short_hash({name: text}) for name, text in texts.items()}


def _code_of(kind: str) -> dict[str, str]:
    """The modules that train, by their path."""
    lib = Path(__file__).resolve().parents[1]
    rooms = [lib / "tokens", lib / "training", lib / "trainers" / kind]
    files = [lib / "chat_template.py", *(file for room in rooms for file in room.glob("*.py"))]
    return {str(path.relative_to(lib)): path.read_text() for path in sorted(files)}


@dataclass(frozen=True)
class Joined:
    """The training that node 0 began, as another node sees it.

    ``scratch``: its scratch folder, which nodes may share. ``own``: this node's folder in it. ``port``: of node 0, for
    the processes of the training.
    """

    scratch: Path
    own: Path
    checkpoint: Path | None
    port: int


def lead(group: "Group", facts: dict[str, str], scratch: Path, checkpoint: Path | None) -> int:
    """Begin the training on node 0: the port of its processes. TrainingError if a node has other facts."""
    port, mark = _free_port(), f"mark-{uuid.uuid4().hex}"
    if group.nodes.count > 1:
        (scratch / mark).touch()
        plan = {"digest": scratch.name, "checkpoint": checkpoint and checkpoint.name, "mark": mark, "port": port}
        group.agree(facts, plan)
        group.check_shared(scratch, plan)
    return port


@contextmanager
def joined(group: "Group", facts: dict[str, str]) -> Iterator[Joined | None]:
    """The training that node 0 begins; None if nothing was left to train. This node's folder is removed afterwards."""
    if not (plan := group.agree(facts, {})):
        yield None
        return
    job = group.job
    scratch = project_root() / ".cache" / "training" / job.name / plan["digest"]
    own = scratch / f"node-{job.nodes.rank}"
    own.mkdir(parents=True, exist_ok=True)
    try:
        group.check_shared(scratch, plan)
        yield Joined(scratch, own, scratch / plan["checkpoint"] if plan["checkpoint"] else None, plan["port"])
    finally:
        shutil.rmtree(own, ignore_errors=True)
        for folder in (scratch / "output", scratch, scratch.parent):
            with suppress(OSError):  # node 0's files are there, or it removes them now
                folder.rmdir()


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def meeting(job: Job) -> Iterator["Group"]:
    """The group of all nodes of a training. Whatever ends it on one node is the error on each."""
    if job.nodes.count == 1:
        yield Group(job)
        return
    group = _Connected(job)
    try:
        yield group
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
        line = group.end(str(error) or type(error).__name__, wait=failed)  # an interrupted node does not wait
        if failed and line != str(error):
            raise TrainingError(line) from error
        raise
    if line := group.end(""):
        raise TrainingError(line)


class Group:
    """One node alone: nothing to agree on, nobody to wait for."""

    def __init__(self, job: Job) -> None:
        self.job, self.nodes = job, job.nodes

    def agree(self, _facts: dict[str, str], plan: dict[str, Any]) -> dict[str, Any]:
        """Compare the facts; node 0's plan."""
        return plan

    def check_shared(self, _scratch: Path, _plan: dict[str, Any]) -> None:
        """TrainingError on node 0 if checkpoints need a shared folder and a node does not see it."""

    def check_others(self) -> None:
        """TrainingError if another node has failed or is gone: for a node that waits for what that one writes."""

    def dismiss(self) -> None:
        """Tell the others that node 0 has final weights already, and that they have nothing to train."""

    @contextmanager
    def watching(self, _pid: int) -> Iterator[None]:
        """Look after the other nodes while a command runs."""
        yield


class _Connected(Group):
    """This node among several. What they tell each other are keys in torch's TCPStore, which node 0 serves.

    beat/K     a count that grows while node K is alive
    facts/K    its host and its facts (JSON); sees/K: whether it sees node 0's folder
    plan       node 0's plan
    ended/K    node K has ended: its error, or nothing
    verdict    how the training ended: its error, or nothing; node K then writes left/K
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.timeout_s = float(os.environ.get("NODES_TIMEOUT_S") or TIMEOUT_S)
        self.others = [rank for rank in range(self.nodes.count) if rank != self.nodes.rank]
        self.hosts = {self.nodes.rank: socket.gethostname()}
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._stop = threading.Event()
        self.store = self._opened()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def where(self) -> str:
        """Node 0's address."""
        return f"{self.nodes.address}:{self.nodes.port}"

    def _opened(self) -> Any:
        from torch.distributed import TCPStore

        timeout = timedelta(seconds=LOST_S)
        store = partial(TCPStore, port=self.nodes.port, world_size=None, wait_for_workers=False, timeout=timeout)
        if self.nodes.rank == 0:
            try:
                return store("localhost", is_master=True)
            except RuntimeError as error:
                raise TrainingError(
                    f"MASTER_PORT: {self.nodes.port} is in use on this host. Choose another one, on every node."
                ) from error
        log.info("train: %s: node %d waits for node 0 at %s", self.job.name, self.nodes.rank, self.where)
        advice = "Run 'make train' there with NODE_RANK=0"
        return self._wait_for(lambda: self._connected(store), f"no node 0 at {self.where}", advice)

    def _connected(self, store: Callable[..., Any]) -> Any:
        """Node 0's store; None if nothing listens there, or not for long. TrainingError if it is another program."""
        if not listens(self.nodes):
            return None
        found: list[Any] = []

        def connect() -> None:
            with suppress(RuntimeError):  # torch's DistNetworkError: node 0 ended just now
                found.append(store(self.nodes.address, is_master=False))

        # torch waits for ever for a program that listens and says nothing
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(LOST_S)
        if thread.is_alive():
            raise TrainingError(
                f"MASTER_PORT: what listens at {self.where} is not node 0 of a training. Choose another port, on every "
                "node."
            )
        return found[0] if found else None

    def _wait_for(self, done: Callable[[], T], what: str, advice: str) -> T:
        """What ``done`` returns, once it is true."""
        began = said = time.monotonic()
        while not (found := done()):
            now = time.monotonic()
            if now > began + self.timeout_s:
                raise TrainingError(
                    f"train: {self.job.name}: {what} within {self.timeout_s:.0f} s (NODES_TIMEOUT_S). {advice}."
                )
            if now > said + SAYS_S:
                said, waited = now, f"waited {now - began:.0f} of {self.timeout_s:.0f} s"
                log.info("train: %s: %s yet (%s). %s.", self.job.name, what, waited, advice)
            time.sleep(POLL_S)
        return found

    def _beat(self) -> None:
        count = 0
        with suppress(RuntimeError):  # node 0 is gone: ``_gone`` finds that out
            while not self._stop.is_set():
                count += 1
                self.store.set(f"beat/{self.nodes.rank}", str(count))
                self._stop.wait(BEAT_S)

    def _read(self, key: str) -> str | None:
        """A key's value; None if it is not there."""
        return self.store.get(key).decode() if self.store.check([key]) else None

    def _gone(self, rank: int, after_s: float) -> bool:
        """Whether a node gave no sign for so long. Node 0's own store answers until it is gone."""
        now = time.monotonic()
        beat = (self._read(f"beat/{rank}") or "").encode()
        before, since = self._beats.get(rank, (b"", now))
        self._beats[rank] = beat, since if beat == before and rank in self._beats else now
        return now - self._beats[rank][1] > after_s

    def _named(self, rank: int) -> str:
        return f"node {rank} ({self.hosts[rank]})" if rank in self.hosts else f"node {rank}"

    def agree(self, facts: dict[str, str], plan: dict[str, Any]) -> dict[str, Any]:
        """Compare this node's facts with node 0's; node 0's plan, which may name what all nodes do alike."""
        mine = {"host": socket.gethostname(), "facts": facts}
        self.store.set(f"facts/{self.nodes.rank}", json.dumps(mine))
        if self.nodes.rank:
            log.info("train: %s: node %d has joined %s", self.job.name, self.nodes.rank, self.where)
            self._wait_for(self._knows_the_plan, "node 0 did not start", "See its log")
            if error := self._failed():
                raise TrainingError(error)
            agreed: dict[str, Any] = json.loads(self._read("plan") or "{}")
            return agreed
        log.info("train: %s: node 0 waits at %s for %d others", self.job.name, self.where, len(self.others))
        for rank in self.others:
            advice = f"Run 'make join ARM={self.job.name}' there with NODE_RANK={rank}"
            self._wait_for(self._has_said("facts", rank), f"node {rank} did not join {self.where}", advice)
            theirs = json.loads(self._read(f"facts/{rank}") or self._failed_node(rank))
            self.hosts[rank] = theirs["host"]
            if found := differences(facts, theirs["facts"]):
                raise TrainingError(
                    f"train: {self.job.name}: {self._named(rank)} differs from node 0 in {found}. Give it the same "
                    "commit, params.yaml, data ('make pull') and packages."
                )
        self.store.set("plan", json.dumps(plan))
        return plan

    def _knows_the_plan(self) -> bool:
        return bool(self._failed()) or self.store.check(["plan"]) or self.store.check(["verdict"])

    def _has_said(self, what: str, rank: int) -> Callable[[], bool]:
        return lambda: self.store.check([f"{what}/{rank}"]) or self.store.check([f"ended/{rank}"])

    def _failed_node(self, rank: int) -> str:
        raise TrainingError(f"{self._named(rank)}: {self._read(f'ended/{rank}')}")

    def dismiss(self) -> None:
        """Tell the others, on node 0, that nothing is left to train; wait up to LATE_S for those that begin later."""
        log.info("train: %s: nothing is left to train; node 0 tells the others", self.job.name)
        for key, value in (("plan", json.dumps({})), ("verdict", "")):
            self.store.set(key, value)
        deadline = time.monotonic() + LATE_S
        told = [f"left/{rank}" for rank in self.others]
        while not self.store.check(told) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def check_shared(self, scratch: Path, plan: dict[str, Any]) -> None:
        """TrainingError on node 0 if checkpoints need a shared folder and a node does not see it."""
        if not (self.job.run.checkpoint_steps or plan["checkpoint"]):
            return
        if self.nodes.rank:
            deadline = time.monotonic() + SHARED_S
            while not (sees := (scratch / plan["mark"]).is_file()) and time.monotonic() < deadline:
                self.check_others()
                time.sleep(POLL_S)
            self.store.set(f"sees/{self.nodes.rank}", str(int(sees)))
            return
        for rank in self.others:
            self._wait_for(self._has_said("sees", rank), f"{self._named(rank)} did not go on", "See its log")
            if (self._read(f"sees/{rank}") or self._failed_node(rank)) != "1":
                raise TrainingError(
                    f"run.checkpoint_steps: {self._named(rank)} does not see {scratch}, and each node writes a part of "
                    "a checkpoint. Put the project on a disk that all nodes share, or set it to null."
                )

    def check_others(self) -> None:
        """TrainingError, which names the node, if another one has failed or is gone."""
        try:
            for rank in self.others:
                if self._read(f"ended/{rank}"):
                    self._failed_node(rank)
                if self._gone(rank, LOST_S):
                    raise TrainingError(self._lost(rank))
        except RuntimeError as error:  # the store's server is gone, and node 0 with it
            raise TrainingError(self._lost(0)) from error

    @contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        """Stop a command's process group when another node failed or is gone; ``end`` then says which."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(pid, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, pid: int, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            try:
                stop = self._failed() or any(self._gone(rank, LOST_S) for rank in self.others)
            except RuntimeError:  # the store's server is gone, and node 0 with it
                stop = True
            if not stop or over.wait(BEAT_S):  # most processes end by themselves then
                continue
            for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)
                if over.wait(grace_s):
                    return

    def _failed(self) -> str | None:
        """The error of the training, or one that a node has told."""
        verdict = self._read("verdict") or None
        return verdict or next((text for rank in self.others if (text := self._read(f"ended/{rank}"))), None)

    def end(self, error: str, wait: bool = True) -> str:
        """Tell the others how this node ended; how the training ended on all of them."""
        try:
            self.store.set(f"ended/{self.nodes.rank}", error)
            if self.nodes.rank:
                return self._verdict(error) if wait else error
            line = self._decided(error) if error and wait else error
            self.store.set("verdict", f"{self._named(0)}: {line}" if line and line == error else line)
            self._let_go()
            return line
        except RuntimeError:  # torch's DistNetworkError: the store's server is gone
            return self._lost(0)
        finally:
            self._stop.set()
            self._thread.join()

    def _decided(self, own: str) -> str:
        """The first cause among the errors of all nodes: one that is gone, else one that knows what went wrong."""
        deadline = time.monotonic() + GRACE_S
        ended: dict[int, str] = {}
        while len(ended) < len(self.others) and time.monotonic() < deadline:
            for rank in self.others:
                text = self._read(f"ended/{rank}")
                if text is not None or not self.store.check([f"beat/{rank}"]):  # or it has not joined
                    ended[rank] = text or ""
                elif self._gone(rank, ENDED_S):
                    return self._lost(rank)
            time.sleep(POLL_S)
        told = [(f"{self._named(rank)}: {text}", text) for rank, text in sorted(ended.items()) if text]
        known = [line for line, text in [(own, own), *told] if not any(each in text for each in UNEXPECTED)]
        return known[0] if known else own

    def _verdict(self, own: str) -> str:
        """Node 0's verdict; it may save the model for long."""
        while (line := self._read("verdict")) is None:
            if self._gone(0, LOST_S):
                return self._lost(0)
            time.sleep(POLL_S)
        self.store.set(f"left/{self.nodes.rank}", "1")
        return own if not line or (own and own in line) else line

    def _let_go(self) -> None:
        """Serve the store until each node has read the verdict, or does not any more."""
        deadline = time.monotonic() + ENDED_S
        left = [f"left/{rank}" for rank in self.others if self.store.check([f"beat/{rank}"])]
        while left and not self.store.check(left) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _lost(self, rank: int) -> str:
        return (
            f"train: {self.job.name}: {self._named(rank)} is gone: there is no sign of it any more. See its log, then "
            "start the training again on every node."
        )
