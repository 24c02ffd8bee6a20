"""Several nodes: which they are, that they compare their inputs, and that all of them end with one line."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from click.testing import CliRunner

from stages.lib.join import main as join
from stages.lib.params import load_params
from stages.lib.tokens.length import FittingRows
from stages.lib.trainers import llamafactory
from stages.lib.training import Job, LeftOut, Nodes, TrainingError, external
from stages.lib.training import meeting as module
from stages.lib.training.dataset import storing
from stages.lib.training.external_plan import digest
from stages.lib.training.launching import launch
from stages.lib.training.meeting import Group, facts_of, joined, lead, meeting
from stages.lib.training.nodes import first_host, nodes_of, variables_of
from tests.test_train_batches import uneven
from tests.trainings import write_sharegpt
from tests.workspace import ROOT, write_changed_params, write_plain_params

SRUN = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[07-08]"}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("NODES_TIMEOUT_S", "20")


def job_of(tmp_path: Path, student: Path, rank: int, port: int, **changes: Any) -> Job:
    own = {"train.student.kind": "path", "train.student.name": str(student)}
    path = tmp_path / f"params-{rank}.yaml"
    write_changed_params(ROOT / "params.yaml", own | changes, path)
    params = load_params(path)
    arm, place = params.arms["filtered"], Nodes(2, rank, "127.0.0.1", port)
    return Job(
        "filtered",
        uneven(3),
        student,
        params.train,
        arm,
        params.run,
        params.convert.markers,
        tmp_path,
        nodes=place,
        rows=tmp_path,
    )


def free_port() -> int:
    with closing(create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Nodes()),
        ({"NNODES": "1", "NODE_RANK": "1"}, Nodes()),
        ({"MASTER_PORT": "29500"}, Nodes()),  # of another program
        (
            {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500"},
            Nodes(3, 2, "a", 29500),
        ),
        (SRUN, Nodes(2, 1, "gpu07", 24711)),
        (SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "5"}, Nodes(2, 1, "10.0.0.7", 5)),
        (SRUN | {"NNODES": "1"}, Nodes()),
        # a job step on one node of the job
        (SRUN | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "gpu08", "SLURM_NODEID": "0"}, Nodes()),
        ({"SLURM_JOB_ID": "4711", "SLURM_NNODES": "1", "SLURM_NODELIST": "gpu07"}, Nodes()),
    ],
)
def test_the_nodes_are_those_of_torchruns_variables_or_of_slurm(variables: dict[str, str], expected: Nodes) -> None:
    assert nodes_of(variables) == expected


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NNODES": "2"}, "NODE_RANK: not set, while NNODES are. Several nodes need NNODES, NODE_RANK, MASTER_ADDR"),
        ({"NODE_RANK": "1"}, "NNODES: not set, while NODE_RANK are."),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a"}, "MASTER_PORT: not set, while MASTER_ADDR and NNODES"),
        (SRUN | {"SLURM_NODEID": ""}, "NODE_RANK: not set, .* Under Slurm, start each node with srun"),  # salloc
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "5"}, "NODE_RANK: 2, but the 2 nodes"),
        ({"NNODES": "two", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "5"}, "invalid literal .* 'two'"),
    ],
)
def test_variables_that_are_half_set_are_one_line(variables: dict[str, str], line: str) -> None:
    with pytest.raises(TrainingError, match=line):
        nodes_of(variables)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node[01-03,07]", "node01"),
        ("node[07,01-03],gpu5", "node07"),
        ("cpu3,node[01-03]", "cpu3"),
        ("gpu-a100-[1-4]", "gpu-a100-1"),
        ("r[1-2]n[2-4]", "r1n2"),
        ("host-1.cluster.local", "host-1.cluster.local"),
    ],
)
def test_the_first_host_of_slurms_list_is_node_0(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_a_program_that_starts_torchrun_is_told_the_nodes() -> None:
    assert variables_of(Nodes(), 5) == {}
    expected = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5"}
    assert variables_of(Nodes(2, 1, "10.0.0.1", 29500), 5) == expected


def test_join_is_for_the_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--arm", "filtered", "--params", str(ROOT / "params.yaml")]
    assert (
        "NODE_RANK: this is node 0, or the only one. Run 'make train' here"
        in CliRunner().invoke(join, arguments).stderr
    )
    monkeypatch.setenv("NODE_RANK", "1")
    assert "NNODES: not set" in CliRunner().invoke(join, arguments).stderr


# an arm's stage in small: here DVC is what is tested
TRAIN = """\
stages:
  train:
    foreach: ${arms}
    do:
      cmd: mkdir models/${key} && cp params.yaml models/${key}/config.json
      params: ["arms.${key}"]
      deps: ["data/sharegpt/${item.dataset}"]
      outs: ["models/${key}"]
"""


def test_a_node_that_joins_what_is_trained_already_ends_at_once(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dvc.repo import Repo

    caplog.set_level("INFO", "distillery")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("NODES_TIMEOUT_S", "1")
    place = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "data" / "sharegpt").mkdir(parents=True)
    for name in ("filtered", "unfiltered"):
        write_sharegpt(tmp_path / "data" / "sharegpt" / name, uneven(3))
    student = {"train.student.kind": "path", "train.student.name": str(tiny_student)}
    write_plain_params(ROOT / "params.yaml", student, tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(TRAIN)
    (tmp_path / "models").mkdir()
    Repo.init(no_scm=True).close()
    with Repo() as repo:
        repo.reproduce(["train@filtered", "train@unfiltered"])

    result = CliRunner().invoke(join, ["--arm", "filtered"])
    assert result.exit_code == 0, result.output
    said = "train: filtered: models/filtered is up to date, so node 0 has finished and there is nothing to join."
    assert said in caplog.text
    shutil.rmtree("models/filtered")  # node 0 may lack it too, and train
    assert "no node 0 at 127.0.0.1" in CliRunner().invoke(join, ["--arm", "filtered"]).stderr
    write_plain_params(tmp_path / "params.yaml", {"arms.unfiltered.cutoff_len": 500}, tmp_path / "params.yaml")
    assert "no node 0 at 127.0.0.1" in CliRunner().invoke(join, ["--arm", "unfiltered"]).stderr


# --- the meeting, over a real connection


def both(first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    """What two nodes say, the second one in a thread: its result, or the line of its error."""
    found: list[Any] = [None, None]

    def run(place: int, does: Callable[[], Any]) -> None:
        try:
            found[place] = does()
        except TrainingError as error:
            found[place] = str(error)

    thread = threading.Thread(target=run, args=(1, second))
    thread.start()
    run(0, first)
    thread.join(60)
    return found


def leading(job: Job, facts: dict[str, str]) -> Any:
    def does() -> str:
        scratch = job.out / ".cache" / "training" / "filtered" / "0123"
        scratch.mkdir(parents=True, exist_ok=True)
        with meeting(job) as group:
            lead(group, facts, scratch, None)
        return "trained"

    return does


def joining(job: Job, facts: dict[str, str], error: str = "") -> Any:
    def does() -> str:
        with meeting(job) as group, joined(group, facts) as training:
            assert training
            assert training.own.is_dir()
            if error:
                raise TrainingError(error)
        return training.own.name

    return does


def test_two_nodes_begin_and_end_together(tmp_path: Path, tiny_student: Path) -> None:
    port = free_port()
    one, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (0, 1))
    facts = facts_of(one, uneven(3), {"torch": "2.13.0"})
    assert facts == facts_of(other, uneven(3), {"torch": "2.13.0"})
    assert both(leading(one, facts), joining(other, facts)) == ["trained", "node-1"]
    assert not (tmp_path / ".cache" / "training" / "filtered" / "0123" / "node-1").exists()


def test_a_node_is_told_that_nothing_is_left_to_train(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    one, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (0, 1))

    def has_final_weights() -> float:
        began = time.monotonic()
        with meeting(one) as group:
            group.dismiss()
        return time.monotonic() - began

    def joins() -> Any:
        with meeting(other) as group, joined(group, {"rows": "other ones"}) as training:
            return training is None

    seconds, nothing = both(has_final_weights, joins)
    assert nothing
    assert seconds < 15, "it does not wait after the last one was told"
    monkeypatch.setattr(module, "LATE_S", 1.0)
    assert 1 <= has_final_weights() < 10, "nobody joined"


def test_node_0_with_final_weights_of_llamafactory_saves_them_and_the_others_end(
    tmp_path: Path, tiny_student: Path
) -> None:
    """As where a stage was killed while it saved. No program is started: /bin/true would train nothing."""
    port = free_port()
    changes = {"train.trainer.kind": "llamafactory", "train.trainer.command": "/bin/true"}
    changes |= {"train.finetuning.kind": "full"}
    one, other = (job_of(tmp_path, tiny_student, rank, port, **changes) for rank in (0, 1))
    one = replace(one, out=tmp_path / "models" / "filtered")
    with storing(tmp_path / "rows.jsonl") as file:
        for each in uneven(3):
            file.add(each)
    dataset = FittingRows(file.stored(), 120, 60, 0, LeftOut(tmp_path / "none.jsonl", 0))
    cards = external.cards_of(one, "/bin/true", [])
    versions = external.releases("/bin/true", "llamafactory")
    name = digest("llamafactory", one, uneven(3), cards, versions)
    output = tmp_path / ".cache" / "training" / "filtered" / name / "output"
    shutil.copytree(tiny_student, output)
    state = {"global_step": 4, "max_steps": 4, "epoch": 1.0, "log_history": [{"step": 4, "loss": 2.0}]}
    (output / "trainer_state.json").write_text(json.dumps(state))

    def unused(*_: Any) -> Any:
        raise AssertionError("nothing is left to train")

    def saves() -> int:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_student)
        return external.run(llamafactory.PROGRAM, one, dataset, tokenizer, unused, unused).steps

    def joins() -> bool:
        return external.join(llamafactory.PROGRAM, other, dataset, unused, unused)

    assert both(saves, joins) == [4, False]
    assert (one.out / "model.safetensors").is_file()
    assert not output.exists()


def test_a_node_with_other_inputs_is_refused_and_told_what_differs(tmp_path: Path, tiny_student: Path) -> None:
    port = free_port()
    one = job_of(tmp_path, tiny_student, 0, port)
    other = job_of(tmp_path, tiny_student, 1, port, **{"arms.filtered.learning_rate": 0.5})
    mine, theirs = facts_of(one, uneven(3), {"torch": "2.13.0"}), facts_of(other, uneven(4), {"torch": "2.12.0"})
    node_0, node_1 = both(leading(one, mine), joining(other, theirs))
    differing = "arms.filtered.learning_rate: 0.5 instead of 0.001; rows; torch: 2.12.0 instead of 2.13.0."
    assert f"differs from node 0 in {differing} Give it the same commit" in node_0
    assert node_0 in node_1


def test_checkpoints_of_several_nodes_need_a_folder_that_all_see(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARED_S", 1.0)
    port, changes = free_port(), {"run.checkpoint_steps": 5}
    one, other = (job_of(tmp_path, tiny_student, rank, port, **changes) for rank in (0, 1))
    assert both(leading(one, {}), joining(other, {})) == ["trained", "node-1"]
    elsewhere = replace(one, out=tmp_path / "its own disk")
    node_0, node_1 = both(leading(elsewhere, {}), joining(other, {}))
    assert "run.checkpoint_steps: node 1 (" in node_0
    assert "does not see " in node_0
    assert node_0 in node_1


def test_the_error_that_knows_what_went_wrong_is_the_one_on_every_node(tmp_path: Path, tiny_student: Path) -> None:
    port = free_port()
    one, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (0, 1))

    def fails() -> None:
        with meeting(one) as group:
            lead(group, {}, tmp_path, None)
            code = launch(["sleep", "60"], os.environ, tmp_path / "log", beside=group.watching)
            raise TrainingError(f"train: filtered: a process ended with exit code {code}.")

    said = "train: filtered: cuda is out of memory."
    node_0, node_1 = both(fails, joining(other, {}, said))
    assert node_0.startswith("node 1 (")
    assert node_0.endswith(said)
    assert node_1 == said


def node_0_that_resumes(tmp_path: Path, student: Path, port: int, error: str) -> None:
    """A process that begins from a checkpoint and fails a second later; without an error it is killed then."""
    job, scratch = job_of(tmp_path, student, 0, port), tmp_path / ".cache" / "training" / "filtered" / "0123"
    scratch.mkdir(parents=True)
    with suppress(TrainingError), meeting(job) as group:
        lead(group, {}, scratch, scratch / "checkpoint-5")
        time.sleep(1)
        if error:
            raise TrainingError(error)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("error", ["train: the disk is full. Free 3 GiB.", ""], ids=["failed", "killed"])
def test_a_node_that_waits_for_a_checkpoint_ends_when_node_0_does(
    tmp_path: Path, tiny_student: Path, error: str
) -> None:
    """Two processes; node 0's checkpoint never comes, and the other would look for it for 90 s."""
    port = free_port()
    process = get_context("spawn").Process(target=node_0_that_resumes, args=(tmp_path, tiny_student, port, error))
    process.start()
    job, began = job_of(tmp_path, tiny_student, 1, port), 0.0
    with pytest.raises(TrainingError) as found, meeting(job) as group, joined(group, {}) as training:
        assert training
        began = time.monotonic()
        external.see_checkpoint(job, training, group)
    assert time.monotonic() - began < 40
    process.join(30)
    line = str(found.value)
    assert "node 0" in line
    assert line.endswith(error or "See its log, then start the training again on every node.")
    assert "\n" not in line


def test_nodes_do_not_wait_for_ever(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "distillery")
    monkeypatch.setenv("NODES_TIMEOUT_S", "1")
    monkeypatch.setattr(module, "SAYS_S", 0.5)
    port = free_port()
    one, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (0, 1))
    with pytest.raises(TrainingError, match=r"no node 0 at 127.0.0.1:\d+ within 1 s .*Run 'make train' there"):
        joining(other, {})()
    assert "yet (waited 1 of 1 s). Run 'make train' there with NODE_RANK=0." in caplog.text
    monkeypatch.setattr(module, "LOST_S", 1.0)
    with (
        closing(create_server(("", port))),
        pytest.raises(TrainingError, match=r"MASTER_PORT: what listens at 127.0.0.1:\d+ is not node 0 of a training"),
    ):
        joining(other, {})()
    with pytest.raises(TrainingError, match=r"node 1 did not join .* within 1 s .*Run 'make join ARM=filtered' there"):
        leading(one, {})()
    with (
        closing(create_server(("", port))),
        pytest.raises(TrainingError, match=f"MASTER_PORT: {port} is in use on this host"),
    ):
        leading(one, {})()


@contextmanager
def forked(does: Callable[[], Any]) -> Iterator[int]:
    """A node in a process of its own, without a second import of torch; it is killed at the end, if not before."""
    process = get_context("fork").Process(target=does)
    process.start()
    assert process.pid
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def test_a_node_that_dies_ends_the_others_in_one_line(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOST_S", 3.0)
    monkeypatch.setattr(module, "ENDED_S", 2.0)
    port = free_port()
    job, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (0, 1))

    def helps() -> None:
        with meeting(other) as group, joined(group, {"rows": "same"}):
            time.sleep(600)

    def trains(pid: int) -> None:
        with meeting(job) as group:
            lead(group, {"rows": "same"}, tmp_path, None)
            os.kill(pid, signal.SIGKILL)
            launch(["sleep", "600"], os.environ, tmp_path / "log", beside=group.watching)
            raise TrainingError("train: filtered: RuntimeError: Connection closed by peer. See the log.")

    gone = r"train: filtered: node 1 \(.*\) is gone: there is no sign of it"
    with forked(helps) as pid, pytest.raises(TrainingError, match=gone):
        trains(pid)


@pytest.mark.parametrize("begun", [True, False])
def test_a_node_whose_node_0_dies_ends_in_one_line(tmp_path: Path, tiny_student: Path, begun: bool) -> None:
    """While it trains, or before it has told its plan."""
    port = free_port()
    job, other = (job_of(tmp_path, tiny_student, rank, port) for rank in (1, 0))

    def leads() -> None:
        with meeting(other) as group:
            if begun:
                lead(group, {"rows": "same"}, tmp_path, None)
            time.sleep(600)

    def trains(pid: int) -> None:
        with meeting(job) as group:
            if not begun:
                threading.Timer(1.0, os.kill, [pid, signal.SIGKILL]).start()
            with joined(group, {"rows": "same"}):
                os.kill(pid, signal.SIGKILL)
                launch(["sleep", "600"], os.environ, tmp_path / "log", beside=group.watching)

    gone = "train: filtered: node 0 is gone: there is no sign of it any more"
    with forked(leads) as pid, pytest.raises(TrainingError, match=gone):
        trains(pid)


def test_one_node_alone_opens_no_port(tmp_path: Path, tiny_student: Path) -> None:
    job = replace(job_of(tmp_path, tiny_student, 0, 0), nodes=Nodes())
    with meeting(job) as group:
        assert type(group) is Group
        lead(group, {}, tmp_path, None)
    assert not list(tmp_path.glob("mark-*"))
