"""Connect to the Ray cluster of run.engine, and check that its nodes run the same code with the same packages.

    cluster = connected(engine)        # once a process
    cluster.nodes                      → {"8a1f…": "10.0.0.7", …}: the addresses of the nodes that were checked
    with one_line(engine): ray.get(…)  # Ray's errors as WorkerError

The nodes get the package ``stages`` from this process (Ray's py_modules), so they need the packages of the lock and no
checkout. Every node is compared by Python, the packages whose versions can change a result, and the digest of
``stages``. Ray reports no usage statistics from here.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stages.lib.cluster import WorkerError, on_node
from stages.lib.params import RayEngine

CONNECT_S = 5.0  # to the head's port, before Ray tries for longer
SETTINGS_FRAME = 4
LOCALHOST = ("127.0.0.1", "[::1]", "localhost")
CHECK_S = 120.0  # a node unpacks the code and starts a worker
# whose versions can change a verdict, a duplicate, a length or what is asked
PACKAGES = (
    *("ray", "aiohttp", "datasketch", "jinja2", "latex2sympy2_extended", "math-verify", "numpy", "orjson", "py3langid"),
    *("pydantic", "sympy", "tenacity", "tokenizers", "transformers"),
)
SETUP = "Make the environment there from the same locks: 'make setup ray-env'."


@dataclass(frozen=True)
class Cluster:
    """The checked nodes by id, with their addresses; ``cpus`` of all; ``here``, the address of this machine's node."""

    nodes: dict[str, str]
    cpus: int
    here: str
    expected: dict[str, str]


@cache
def connected(engine: RayEngine) -> Cluster:
    """Connect to the cluster and check its nodes; WorkerError where that fails, or where a node differs."""
    ray = reached(engine)
    _connect(ray, engine)
    with one_line(engine):
        expected = on_node.described(PACKAGES)
        nodes = checked_nodes(engine, expected)
        cpus = int(ray.cluster_resources().get("CPU", 0))
        return Cluster(nodes, cpus, nodes[ray.get_runtime_context().get_node_id()], expected)


def reached(engine: RayEngine) -> Any:
    """The package ray, where a cluster listens at the address (not looked at for ``auto``); else WorkerError."""
    ray = _ray()
    _check_port(engine)
    return ray


def checked_nodes(engine: RayEngine, expected: dict[str, str]) -> dict[str, str]:
    """The nodes that are alive, by id, with their addresses; WorkerError where one differs from this process."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    probe = ray.remote(on_node.described)
    running = {}
    for node in alive:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        running[node] = probe.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(PACKAGES)
    nodes = {}
    for node, found in running.items():
        try:
            theirs = ray.get(found, timeout=CHECK_S)
        except ray.exceptions.GetTimeoutError as error:
            raise WorkerError(
                f"run.engine: the node {alive[node]} started no worker in {CHECK_S:.0f} s. Look at its logs in Ray's "
                "folder for temporary files (/tmp/ray/session_latest/logs), or take it out with 'ray stop' there."
            ) from error
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError, ray.exceptions.WorkerCrashedError):
            continue  # it was lost meanwhile
        if theirs != expected:
            raise differs(alive[node], theirs, expected)
        nodes[node] = alive[node]
    return nodes


def differs(node: str, theirs: dict[str, str], expected: dict[str, str]) -> WorkerError:
    """The error of a node with another version, or without a package."""
    name = next(name for name, ours in expected.items() if theirs.get(name) != ours)
    found, ours = theirs.get(name, on_node.ABSENT), expected[name]
    if found == on_node.ABSENT:
        return WorkerError(f"run.engine: the node {node} lacks {name} ({ours} here). {SETUP}")
    return WorkerError(f"run.engine: the node {node} has {name} {found}, and here it is {ours}. {SETUP}")


@contextmanager
def one_line(engine: RayEngine, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise Ray's own errors as WorkerError, in one line that says what to do; those of ``but`` as they are."""
    from ray import exceptions

    try:
        yield
    except but:
        raise
    except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
        raise WorkerError(
            "run.engine: the object store of a node is full, and so is the disk that it spills to. Start the nodes "
            "with more ('ray start --object-store-memory=BYTES'), free the disk, or set fewer run.engine.workers."
        ) from error
    except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError) as error:
        raise WorkerError(
            f"run.engine: a worker of {engine.address} was killed again and again on the same rows, most likely for "
            "want of memory. Give the nodes more memory, or start them with fewer CPUs ('ray start --num-cpus=N')."
        ) from error
    except exceptions.ObjectLostError as error:
        raise WorkerError(
            f"run.engine: {engine.address}: a result was lost with its node, and Ray could not compute it again. Look "
            "at the nodes with 'ray status', then run the stage again."
        ) from error
    except exceptions.LocalRayletDiedError as error:
        raise WorkerError(
            f"run.engine: {engine.address}: this machine's node of the cluster has ended. Start it again with 'ray "
            "start', then run the stage again."
        ) from error
    except exceptions.RayError as error:
        words = last_words(error)
        raise WorkerError(f"run.engine: {engine.address}: {words}. Look at the nodes with 'ray status'.") from error


def last_words(error: Exception) -> str:
    """The last line of an error that says something: of a traceback, the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")[:300]


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a line about GPUs
    try:
        import ray
    except ModuleNotFoundError as error:
        raise WorkerError(
            "run.engine: kind ray needs the package ray, which is not in this environment. Run 'make ray-env', or set "
            "kind: local."
        ) from error
    ray.cloudpickle.register_pickle_by_value(on_node)
    return ray


def _check_port(engine: RayEngine) -> None:
    """WorkerError where no gRPC server listens at the address: Ray would try for minutes, and print much."""
    from ray.util import get_node_ip_address

    if engine.address == "auto":
        return
    host, _, port = engine.address.rpartition(":")
    host = get_node_ip_address() if host in LOCALHOST else host.strip("[]")  # as Ray does
    try:
        with socket.create_connection((host, int(port)), CONNECT_S) as connection:
            _check_protocol(connection)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkerError(
            f"run.engine.address: {engine.address}: no Ray cluster there ({reason}). Start its head there with 'ray "
            f"start --head --port={port} --disable-usage-stats', or set kind: local."
        ) from error


def _check_protocol(connection: socket.socket) -> None:
    """ConnectionError unless the server begins as HTTP/2 does, with its settings (RFC 9113, 3.4 and 6.5)."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0]))
    header = connection.recv(9)
    if len(header) < 4 or header[3] != SETTINGS_FRAME:
        raise ConnectionError("another server listens there")


def _connect(ray: Any, engine: RayEngine) -> None:
    code = {"py_modules": [str(Path(__file__).resolve().parents[2])], "excludes": ["**/__pycache__"]}
    try:
        ray.init(
            address=engine.address,
            runtime_env=code,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
        )
    except Exception as error:  # Ray raises whatever it met: ConnectionError, RuntimeError, ValueError, RpcError
        raise WorkerError(_refused(engine, error)) from error


def _refused(engine: RayEngine, error: Exception) -> str:
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if "Version mismatch" in text:
        return f"run.engine.address: {engine.address}: {text.partition('Version mismatch: ')[2]}. {SETUP}"
    if "No node info found" in text or "find any running Ray instance" in text:
        return (
            f"run.engine.address: {engine.address}: this machine is no node of that cluster. Run 'ray start "
            f"--address=HEAD:PORT' here (with --num-cpus=0, it computes nothing), or set kind: local."
        )
    return (
        f"run.engine.address: {engine.address}: {text[:300].rstrip('.')}. Run 'ray status' there, or set kind: local."
    )
