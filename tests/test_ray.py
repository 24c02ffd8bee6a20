"""run.engine: kind ray, on a real cluster of two nodes on loopback: the bytes of a local run, a node killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stages.lib.rows import write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.store.unread import unread_path
from tests.distill_runner import KEY, DistillRunner, Serve, completion, question, wait_until
from tests.test_workers import CASES, row
from tests.workspace import ROOT

pytestmark = pytest.mark.ray

# a killed node is noticed after 2 s and not after 15, and the disk counts as full, so that nothing is spilled to it
SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
    "local_fs_capacity_threshold": 0.0001,
}
Params = Callable[..., Path]
HERE = "127.0.0.2"  # Ray reads 127.0.0.1 as the machine's own address
SETTINGS = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": HERE}
# a stage that gives the cluster all rows from the first on, in small tasks
AT_ONCE = """
import runpy, sys
from stages.lib import workers
from stages.lib.cluster import tasks
workers.ALONE_S, tasks.CHUNK = 0.0, 8
stage, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = stage
runpy.run_module(stage, run_name="__main__")
"""
# an actor is asked for its report again and again, so that a report is on its way whenever the run ends
REPORTING = "from stages.lib.teacher import actors; actors.REPORT_EVERY_S = 0.001"

# results of a task and of an actor, too large for a message, that are lost with their node before they are read
LOSING = """
import sys
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from stages.lib.cluster import WorkerError
from stages.lib.cluster.connection import connected, one_line
from stages.lib.params import RayEngine

class Actor:
    def ask(self):
        return bytes(2**21)

engine = RayEngine(kind="ray", address=sys.argv[1], workers=None)
connected(engine)
there = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(sys.argv[2], soft=False)}
actor = ray.remote(Actor).options(**there).remote()
results = [ray.remote(lambda: bytes(2**21)).options(max_retries=0, **there).remote(), actor.ask.remote()]
ray.wait(results, num_returns=2, fetch_local=False)
print("ready", flush=True)
input()
for result in results:
    try:
        with one_line(engine):
            ray.get(result)
    except WorkerError as error:
        # what ActorPool.ask takes for a lost actor, whose requests the others are asked
        print(isinstance(error.__cause__, ray.exceptions.ObjectLostError), error)
"""


class Nodes:
    """A cluster on the loopback interface: a head with one CPU, which the stages connect to, and a second node."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"include_dashboard": False, "_system_config": SYSTEM}
        self._cluster = Cluster(True, head_node_args=SETTINGS | head)
        self.address = str(self._cluster.address)
        self.second = self.add()

    def add(self, **settings: Any) -> Any:
        """One more node, with one CPU."""
        return self._cluster.add_node(**SETTINGS | settings)

    def remove(self, node: Any) -> None:
        """Take a node out, dead or alive, and wait until the cluster knows."""
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.wait_for_nodes()

    def files(self) -> list[Path]:
        """All files that Ray wrote for this cluster: logs, settings, code."""
        return [path for path in Path(self._cluster.head_node.get_session_dir_path()).rglob("*") if path.is_file()]

    def close(self) -> None:
        self._cluster.shutdown()

    def engine(self, workers: int | None = None) -> dict[str, Any]:
        return {"run.engine": {"kind": "ray", "address": self.address, "workers": workers}}

    def alive(self) -> int:
        """How many nodes the cluster takes for alive."""
        return len(self._cluster.global_state._live_node_ids())

    @contextmanager
    def described(self, **other: str) -> Iterator[None]:
        """Meanwhile the cluster says other things of itself."""
        from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
        from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
        from ray._raylet import GcsClient

        client = GcsClient(address=self.address)
        before = client.internal_kv_get(CLUSTER_METADATA_KEY, KV_NAMESPACE_CLUSTER)
        client.internal_kv_put(
            CLUSTER_METADATA_KEY, json.dumps(json.loads(before) | other).encode(), True, KV_NAMESPACE_CLUSTER
        )
        yield
        client.internal_kv_put(CLUSTER_METADATA_KEY, before, True, KV_NAMESPACE_CLUSTER)

    def kill_the_second(self) -> None:
        """Kill its raylet, which is the node: its workers end with it."""
        (raylet,) = self.second.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def started() -> Iterator[Nodes]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def nodes(started: Nodes) -> Iterator[Nodes]:
    """The cluster, with two nodes again after the test."""
    yield started
    if not started.second.remaining_processes_alive():
        started.remove(started.second)
        started.second = started.add()


def start(
    stage: str, *arguments: object, python: Path | str = sys.executable, before: str = ""
) -> subprocess.Popen[str]:
    command = [python, "-c", before + AT_ONCE, f"stages.{stage}", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=out, stderr=subprocess.PIPE)


def ends(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a stage said on stderr; it must end with that exit code."""
    _, said = process.communicate(timeout=180)
    assert process.returncode == code, said
    return said


def run(stage: str, *arguments: object) -> str:
    return ends(start(stage, *arguments))


def refused(stage: str, *arguments: object) -> str:
    """The one line of a stage that must fail."""
    (line,) = ends(start(stage, *arguments), 1).splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def options(folder: Path, *names: str) -> list[object]:
    return [part for name in names for part in (f"--{name}", folder / name)]


def filtering(folder: Path, rows: Path, params: Path) -> list[object]:
    names = ("filtered", "rejected", "control", "disagreements", "metrics")
    return ["--distilled", rows, *options(folder, *names), "--params", params]


def size(folder: Path) -> int:
    """The bytes of all files there, the unfinished ones too."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def answers(tmp_path: Path) -> Callable[[int], Path]:
    """``answers(100)``: a file of so many distilled rows, of real answers."""

    def write(count: int) -> Path:
        rows = (row(*each) | {"reasoning": "Let us see."} for each in enumerate(islice(cycle(CASES), count)))
        write_rows(tmp_path / f"{count}.jsonl", map(Distilled.model_validate, rows))
        return tmp_path / f"{count}.jsonl"

    return write


def local(params: Params) -> Path:
    return params({"run.engine": {"kind": "local", "workers": 1}})


@pytest.mark.parametrize("workers", [1, 3, None])
def test_the_filter_writes_the_bytes_of_a_local_run(
    workers: int | None, nodes: Nodes, answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    rows = answers(300)
    run("filter", *filtering(tmp_path / "local", rows, local(project_params)))
    run("filter", *filtering(tmp_path / "ray", rows, project_params(nodes.engine(workers))))
    assert written(tmp_path / "ray") == written(tmp_path / "local")


def test_collect_and_convert_write_the_bytes_of_a_local_run(
    nodes: Nodes, answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    lines = (ROOT / "tests" / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["question"] for line in lines]
    texts += [text.replace(text.split()[0], "Wu", 1) for text in texts[:20]]
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"question": text, "answer": "7"}) + "\n" for text in texts))
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": texts[3], "answer": "#### 7"}) + "\n")
    changes = {
        "collect.source": {
            "kind": "file",
            "path": str(source),
            "columns": {"question": "question", "answer": "answer"},
            "gold": "plain",
            "where": {},
            "shuffle_seed": None,
        },
        "collect.train_size": len(texts) - 10,
        "collect.heldout_size": 10,
        "collect.near_duplicates": {"ngram": 3, "threshold": 0.7, "permutations": 64, "seed": 3},
        "collect.contamination": {"ngram": 8, "downloaded": False, "benchmarks": {"gsm8k": str(test)}},
    }
    rows = answers(200)
    for name, engine in (("local", {"run.engine": {"kind": "local", "workers": 1}}), ("ray", nodes.engine())):
        folder, params = tmp_path / name, project_params(changes | engine)
        run("collect", *options(folder, "questions", "heldout", "left-out", "metrics"), "--params", params)
        names = ("--metrics", folder / "convert.json", "--lengths", folder / "lengths.csv")
        run("convert", "--rows", rows, "--out", folder / "set", *names, "--params", params)
    ours = written(tmp_path / "local")
    theirs = {name: text.replace(b"ray/set", b"local/set") for name, text in written(tmp_path / "ray").items()}
    assert theirs == ours
    reasons = {json.loads(line)["reason"] for line in ours["left-out"].splitlines()}
    assert reasons >= {"near_duplicate", "contaminated"}


def test_a_node_that_is_killed_in_the_middle_costs_no_row(
    nodes: Nodes, answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    rows = answers(6000)
    run("filter", *filtering(tmp_path / "local", rows, local(project_params)))
    stage = start("filter", *filtering(tmp_path / "ray", rows, project_params(nodes.engine())))
    wait_until(lambda: size(tmp_path / "ray") > 10**5, 120)
    nodes.kill_the_second()
    ends(stage)
    assert written(tmp_path / "ray") == written(tmp_path / "local")


async def later(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    """A tenth of a second, so that there are calls in flight."""
    await asyncio.sleep(0.1)
    return completion(content=f"It is {len(content)}.")


def start_distill(runner: DistillRunner, out: str, before: str = "") -> subprocess.Popen[str]:
    return start("distill", *runner.arguments(out), before=before)


def test_a_result_that_is_lost_with_its_node_before_it_is_read_is_one_line(nodes: Nodes) -> None:
    command = [sys.executable, "-c", LOSING, nodes.address, nodes.second.node_id]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stdout
        assert next(line for line in process.stdout if line == "ready\n")
        nodes.kill_the_second()
        said, _ = process.communicate("\n", timeout=180)
    lost = f"True run.engine: {nodes.address}: a result was lost with its node, and Ray could not compute it again. "
    assert said.count(lost) == 2, said


def test_distill_on_two_nodes_makes_the_rows_of_a_local_run_and_asks_each_question_once(
    nodes: Nodes, runner: DistillRunner
) -> None:
    """Of the embedded teacher, whose server is that of the stage."""
    runner.set(concurrency=10, latency_s=0.1)
    runner.ask(*(question(number) for number in range(60)))
    runner.settings |= nodes.engine()
    said = ends(start_distill(runner, "ray"))
    assert f"distill: 2 workers of the cluster {nodes.address} ask\n" in said
    assert "60 of 60 answered (0 from the store, 60 bought)" in said
    assert len(runner.requested()) == len(set(runner.requested())) == 60
    same_as_local(runner)


def same_as_local(runner: DistillRunner) -> None:
    """A local run with an empty store makes the same rows."""
    runner.settings["run.engine"] = {"kind": "local", "workers": None}
    runner.store.rename(runner.store.with_name("other.jsonl"))
    runner.run("local")
    assert runner.outputs("ray") == runner.outputs("local")


def test_an_actor_s_node_that_is_killed_costs_what_it_had_in_flight(
    nodes: Nodes, runner: DistillRunner, serve: Serve
) -> None:
    first, gate = 50, threading.Event()

    async def held(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        """After the first calls, none is answered until some requests were asked again."""
        number = len(server.asked)
        while number > first and not gate.is_set():
            await asyncio.sleep(0.02)
        return await later(request, content, attempt)

    server = serve(held)
    runner.use(server)
    runner.set(concurrency=10)
    runner.ask(*(question(number, f"Question {number}?") for number in range(100)))
    runner.settings |= nodes.engine()
    stage = start_distill(runner, "ray")
    wait_until(lambda: len(server.asked) == first + 10 and runner.stored() == first, 60)
    nodes.kill_the_second()
    wait_until(lambda: len(server.asked) == first + 15, 60)
    gate.set()
    said = ends(stage)
    assert re.search(
        r"^distill: worker [12] on 127.0.0.2 was lost: 5 requests are asked again by the others$", said, re.M
    )
    assert len(server.asked) == 105
    assert runner.stored() == 100
    assert server.keys == {f"Bearer {KEY}"}
    assert nodes.files(), "Ray's own files of this cluster"
    assert not [path for path in nodes.files() if KEY.encode() in path.read_bytes()]
    same_as_local(runner)


async def once_without_an_answer(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    """As ``later``, but for a body that holds no answer to question 3 at first."""
    if "Question 3?" in content and attempt == 1:
        return web.json_response({"choices": []})
    return await later(request, content, attempt)


def test_a_stage_that_is_stopped_keeps_what_its_actors_receive_and_the_bodies_without_an_answer(
    nodes: Nodes, runner: DistillRunner, serve: Serve
) -> None:
    server = serve(once_without_an_answer)
    runner.use(server)
    runner.set(concurrency=6)
    runner.ask(*(question(number, f"Question {number}?") for number in range(300)))
    runner.settings |= nodes.engine()
    stage = start_distill(runner, "ray")
    wait_until(lambda: runner.stored() > 20, 60)
    stage.send_signal(signal.SIGINT)
    said = ends(stage, 130)
    assert f"distill: stopped; {runner.stored()} answers were received and are kept" in said
    assert len(server.asked) == runner.stored() + 1 < 300
    (unread,) = runner.store.parent.glob("*.unread.jsonl")
    (line,) = unread.read_text(encoding="utf-8").splitlines()
    assert "Question 3?" in line


def test_bodies_without_an_answer_that_are_on_their_way_when_the_run_ends_are_kept(
    nodes: Nodes, runner: DistillRunner, serve: Serve
) -> None:
    sent = []

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        """No answer to the last question; the bodies take longer to their store than the failure to the run."""
        if "Question 5?" not in content:
            return completion(content="It is 5.")
        await asyncio.sleep(1)
        sent.append(content)
        return web.json_response({"choices": [], "padding": "x" * 2**21})

    runner.use(serve(route))
    runner.set(concurrency=6, max_failed_share=0.5)
    runner.ask(*(question(number, f"Question {number}?") for number in range(6)))
    runner.settings |= nodes.engine()
    said = ends(start_distill(runner, "ray", REPORTING))
    assert "5 of 6 answered" in said
    assert sent
    lines = unread_path(runner.store).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(sent)


@pytest.mark.parametrize("count", [5, 300])
def test_a_body_that_cannot_be_kept_ends_the_run_at_once_and_at_its_end(
    count: int, nodes: Nodes, runner: DistillRunner, serve: Serve
) -> None:
    server = serve(once_without_an_answer)
    runner.use(server)
    runner.set(concurrency=6)
    runner.ask(*(question(number, f"Question {number}?") for number in range(count)))
    unread_path(runner.store).mkdir(parents=True)
    runner.settings |= nodes.engine()
    said = ends(start_distill(runner, "ray"), 1)
    unread = unread_path(runner.store)
    assert said.splitlines()[-1] == f"Error: {unread}: Is a directory. Free disk space, then run the stage again."
    assert runner.stored() == len(server.asked) - 1 < 250


def test_an_address_without_a_cluster_is_one_line(
    answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    rows, server = answers(100), HTTPServer((HERE, 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever).start()
    reasons = {f"{HERE}:9": "Connection refused", f"{HERE}:{server.server_port}": "another server listens there"}
    try:
        for address, reason in reasons.items():
            params = project_params({"run.engine": {"kind": "ray", "address": address, "workers": None}})
            said = refused("filter", *filtering(tmp_path / "out", rows, params))
            assert said.startswith(
                f"run.engine.address: {address}: no Ray cluster there ({reason}). Start its head there"
            )
    finally:
        server.shutdown()
        server.server_close()
    assert not list((tmp_path / "out").rglob("*"))


def test_the_doctor_tells_an_address_with_a_cluster_from_one_without(nodes: Nodes, project_params: Params) -> None:
    lines = {}
    for address in (nodes.address, f"{HERE}:9"):
        params = project_params({"run.engine": {"kind": "ray", "address": address, "workers": None}})
        command = [sys.executable, "-m", "stages.lib.doctor", "--params", str(params)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True
        )
        (lines[address],) = (line.split(maxsplit=2) for line in done.stdout.splitlines() if " cluster " in line[:20])
    assert lines[nodes.address] == ["ok", "cluster", f"{nodes.address}: listens"]
    state, _, found = lines[f"{HERE}:9"]
    assert state == "fail"
    assert found == f"run.engine.address: {HERE}:9: no Ray cluster there (Connection refused)"


def environment_without(package: str, folder: Path) -> Path:
    """A Python environment with all packages but one; its folder of packages."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in (entry for each in sys.path if each.endswith("site-packages") for entry in Path(each).iterdir()):
        if entry.name.partition("-")[0] != package and entry.suffix != ".pth" and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return packages


@contextmanager
def third_node(nodes: Nodes, python: Path) -> Iterator[None]:
    """One more node, of another environment."""
    command = [str(python), "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += [
        f"--address={nodes.address}",
        f"--node-ip-address={HERE}",
        "--num-cpus=1",
        "--object-store-memory=80000000",
    ]
    before, log = nodes.alive(), subprocess.DEVNULL
    environment = os.environ | {"PYTHONPATH": ""}
    node = subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)
    try:
        wait_until(lambda: nodes.alive() > before, 60)
        yield
    finally:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        wait_until(lambda: nodes.alive() == before, 60)


def test_a_node_without_a_package_or_with_another_version_is_one_line(
    nodes: Nodes, answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    ours, advice = version("math-verify"), "Make the environment there from the same locks: 'make setup ray-env'."
    packages = environment_without("math_verify", tmp_path / "bare")
    with third_node(nodes, tmp_path / "bare" / "bin" / "python"):
        arguments = filtering(tmp_path / "out", answers(100), project_params(nodes.engine()))
        said = refused("filter", *arguments)
        assert said == f"run.engine: the node 127.0.0.2 lacks math-verify ({ours} here). {advice}"
        metadata = packages / "math_verify-0.8.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: math-verify\nVersion: 0.8.0\n")
        said = refused("filter", *arguments)
        assert said == f"run.engine: the node 127.0.0.2 has math-verify 0.8.0, and here it is {ours}. {advice}"
    assert not list((tmp_path / "out").rglob("*"))


def test_a_cluster_of_another_ray_is_one_line(
    nodes: Nodes, answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    with nodes.described(ray_version="2.55.0"):
        said = refused("filter", *filtering(tmp_path / "out", answers(100), project_params(nodes.engine())))
    assert said.startswith(f"run.engine.address: {nodes.address}: The cluster was started with: Ray: 2.55.0 Python: 3.")
    assert "Ray: 2.60.0" in said
    assert said.endswith("Make the environment there from the same locks: 'make setup ray-env'.")


def test_a_full_object_store_is_one_line_and_leaves_no_half_written_file(
    nodes: Nodes, tmp_path: Path, project_params: Params
) -> None:
    """Eight rows of 12 MB are a task, and more than a node's store has."""
    large = row(0, CASES[0]) | {"reasoning": "Let us see. " * 2**20}
    rows = (Distilled.model_validate(large | {"id": f"q{number}"}) for number in range(9))
    write_rows(tmp_path / "rows.jsonl", rows)
    said = refused("filter", *filtering(tmp_path / "out", tmp_path / "rows.jsonl", project_params(nodes.engine())))
    assert said.startswith(
        "run.engine: the object store of a node is full, and so is the disk that it spills to. Start"
    )
    assert not list((tmp_path / "out").rglob("*"))


def test_a_stage_without_ray_is_one_line(
    answers: Callable[[int], Path], tmp_path: Path, project_params: Params
) -> None:
    environment_without("ray", tmp_path / "bare")
    params = project_params({"run.engine": {"kind": "ray", "address": "auto", "workers": None}})
    python = tmp_path / "bare" / "bin" / "python"
    stage = start("filter", *filtering(tmp_path / "out", answers(100), params), python=python)
    assert ends(stage, 1) == (
        "Error: run.engine: kind ray needs the package ray, which is not in this environment. Run 'make ray-env', or "
        "set kind: local.\n"
    )
