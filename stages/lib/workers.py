"""Apply a function to many rows on all cores that this process may use, or on a Ray cluster (run.engine).

    list(map_rows(by_rule, rows, params.run.engine))   → [by_rule(row) for row in rows]

The results are those of one process, in the order of the rows, whatever the engine and the number of workers; so
dvc.yaml does not list this module among the deps. ``map_rows`` is the only way to the workers of both engines.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from stages.lib.cluster import WorkerError
from stages.lib.params import Engine, RayEngine

T = TypeVar("T")
U = TypeVar("U")

ALONE_S = 5.0  # workers take a second or more to start: what is done by then needs none
LOADING_S = 0.1  # of a row that takes longer: it loads what later rows find loaded
CHUNK = 16  # rows that a worker takes at once
CHUNKS_AHEAD = 4  # for each worker; memory does not grow with the number of rows


def map_rows(
    function: Callable[[T], U], rows: Iterable[T], engine: Engine | None = None, chunk: int | None = None
) -> Iterator[U]:
    """Yield ``function(row)`` for each row, in their order.

    Function, rows and results must be picklable. Each worker unpickles the function once, so it may hold what it
    loaded. Without an engine, and with a local one that names no number, there is a worker for each core that this
    process may use (``taskset``, Slurm and containers limit them). A worker takes ``chunk`` rows at once: by
    default CHUNK, and more on a cluster; 1 is for a row that is many itself. Rows of the first seconds are computed in
    this process, and all of them where one local worker would. Raises what the function raises, and WorkerError where a
    worker was killed or the cluster cannot be used.
    """
    processes = (engine.workers if engine else None) or cores()
    on_cluster = isinstance(engine, RayEngine)
    rows, spent = iter(rows), 0.0
    while (processes < 2 and not on_cluster) or spent < ALONE_S:
        for row in islice(rows, 1):
            started = time.perf_counter()
            result = function(row)
            spent += min(time.perf_counter() - started, LOADING_S)
            yield result
            break
        else:
            return
    if isinstance(engine, RayEngine):
        from stages.lib.cluster.tasks import map_on_ray

        yield from map_on_ray(function, rows, engine, chunk)
    else:
        yield from _in_workers(function, rows, processes, chunk or CHUNK)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_workers(function: Callable[[T], U], rows: Iterator[T], processes: int, size: int) -> Iterator[U]:
    # spawn: a fork of a process with threads, as torch's, may hang
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, _start, (function,))
    pending: deque[Future[list[U]]] = deque()
    try:
        while chunk := list(islice(rows, size)):
            pending.append(executor.submit(_apply, chunk))
            if len(pending) > CHUNKS_AHEAD * processes:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"one of {processes} worker processes was killed, most likely for want of memory. Free memory, or run on "
            "fewer cores (run.engine: {kind: local, workers: 1})."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_of_worker: list[Callable[[Any], Any]] = []  # in a worker, its function


def _start(function: Callable[[Any], Any]) -> None:
    """In a worker: Ctrl-C is its parent's, and it ends with its parent, however that ends."""
    _of_worker.append(function)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _apply(rows: list[Any]) -> list[Any]:
    (function,) = _of_worker
    return [function(row) for row in rows]
