"""Rows on the workers of a Ray cluster: tasks of some rows each, whose results come back in the rows' order.

Ray runs a task again where its worker or its node is lost (``RETRIES`` times), and computes a result again that was
lost with a node. This process keeps the rows of the tasks that run and the results that wait for earlier ones, not
more: ``AHEAD`` tasks for each worker.
"""

import logging
import uuid
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

from stages.lib.cluster import WorkerError, on_node
from stages.lib.cluster.connection import Cluster, connected, differs, one_line
from stages.lib.params import RayEngine

T = TypeVar("T")
U = TypeVar("U")

log = logging.getLogger("distillery.workers")

CHUNK = 64  # rows of a task where the stage names no number; a task costs a millisecond or two
AHEAD = 4
RETRIES = 3  # of a task whose worker was killed
PATIENCE_S = 30.0  # without a result, before a line says what is waited for


def map_on_ray(
    function: Callable[[T], U], rows: Iterator[T], engine: RayEngine, chunk: int | None = None
) -> Iterator[U]:
    """Yield ``function(row)`` for each row, in their order; the first one connects. WorkerError as in connection.py.

    A task has ``chunk`` rows, by default CHUNK.
    """
    first = list(islice(rows, 1))
    if first:
        cluster = connected(engine)
        with one_line(engine):
            yield from _Tasks(function, chain(first, rows), cluster, engine, chunk or CHUNK).results()


class _Tasks:
    """The tasks of one function: those that run, and the results that wait for earlier ones."""

    def __init__(
        self, function: Callable[[T], U], rows: Iterator[T], cluster: Cluster, engine: RayEngine, size: int
    ) -> None:
        import ray

        if not cluster.cpus:
            raise WorkerError(
                f"run.engine: {engine.address}: none of its {len(cluster.nodes)} nodes has a CPU. Add one with 'ray "
                "start --address=HEAD:PORT'."
            )
        self._ray = ray
        self._cluster = cluster
        self._workers = engine.workers or cluster.cpus
        self._chunks = iter(lambda: list(islice(rows, size)), [])
        self._task = ray.remote(on_node.apply).options(num_cpus=1, max_retries=RETRIES)
        self._name = uuid.uuid4().hex
        self._function = ray.put(function)
        self._running: dict[Any, int] = {}
        self._done: dict[int, list[Any]] = {}

    def results(self) -> Iterator[Any]:
        """The results of all rows, in their order."""
        given = place = 0
        try:
            while True:
                while len(self._running) < self._workers and given - place < AHEAD * self._workers:
                    if (chunk := next(self._chunks, None)) is None:
                        break
                    # in a list, so that Ray passes the reference and not the function
                    task = self._task.remote(self._cluster.expected, self._name, [self._function], chunk)
                    self._running[task] = given
                    given += 1
                if place == given:
                    return
                while place not in self._done:
                    self._receive()
                yield from self._done.pop(place)
                place += 1
        finally:
            for task in self._running:
                self._ray.cancel(task, force=True)

    def _receive(self) -> None:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=PATIENCE_S)
        if not ready:
            free = self._ray.available_resources().get("CPU", 0)
            log.info("no result of the cluster for %.0f s: %g of its CPUs are free", PATIENCE_S, free)
        for task in ready:
            kind, value = self._ray.get(task)
            place = self._running.pop(task)
            if kind == "error":
                raise value
            if kind == "differs":
                raise differs("that joined during the run", value, self._cluster.expected)
            self._done[place] = value
