"""The LLaMA-Factory trainer: what it writes, how it starts it, and what LLaMA-Factory trains on.

The tests marked ``llamafactory`` use the real release 0.9.5 on the CPU (``make test-llamafactory``). The others need no
LLaMA-Factory. What all trainers in their own environment share is tested in test_train_openmind.py.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.command import project_root
from stages.lib.params import ParamsError, load_params
from stages.lib.trainers import llamafactory
from stages.lib.trainers.llamafactory import inputs
from stages.lib.training import Conversation, Job, TrainingError, external
from stages.lib.training.external_inputs import write_inputs
from stages.lib.training.meeting import Group, Joined
from stages.train import main as train
from tests.trainings import (
    FOUR_EPOCHS,
    ZERO2,
    Uncompiled,
    assert_leaves_whole_just_where_we_say,
    assert_loads_and_answers,
    assert_merges_an_adapter_trained_with_zero_2,
    assert_resumes_to_the_same_bytes,
    assert_trains_on_the_answers_tokens,
    conversations_of_all_kinds,
    counted,
    error_of,
    installed,
    job_of,
    killed_after_a_checkpoint,
    params_of,
    train_options,
    trained_for_real,
)
from tests.workspace import ROOT

PROGRAM = ROOT / ".venv-llamafactory" / "bin" / "llamafactory-cli"
# LLaMA-Factory's training, for DeepSpeed on a CPU
UNCOMPILED = """
from llamafactory.train.tuner import run_exp

run_exp()
"""
# what LLaMA-Factory itself makes of a YAML: its arguments and the rows that it would train on
READ = """
import json, sys
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
model_args, data_args, training_args, finetuning_args, _ = get_train_args()
loaded = load_tokenizer(model_args)
template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)["train_dataset"]
arguments = {name: str(value) for each in (model_args, data_args, training_args, finetuning_args)
             for name, value in vars(each).items()}
print("\\n" + json.dumps({"rows": [{"ids": r["input_ids"], "labels": r["labels"]} for r in rows], "read": arguments}))
"""
Params = Callable[..., Path]
changed_params = partial(params_of, "llamafactory")


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's folder is tmp_path, as it is the repository where dvc runs the stage."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name in ("LLAMAFACTORY_CLI", "OPENMIND_SRC", "FORCE_TORCHRUN", "NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def params(tmp_path: Path, older_student: Path) -> Params:
    return lambda changes=None: changed_params(tmp_path / "params.yaml", older_student, changes)


@pytest.fixture
def job(tmp_path: Path, params: Params) -> Callable[..., Job]:
    """``job({"train.bf16": True}, rows=sums(3))``: a training of the arm 'filtered', not begun."""
    return lambda changes=None, rows=None: job_of(params(changes), tmp_path / "model", rows)


def yaml_of(job: Job) -> dict[str, Any]:
    return inputs.training_yaml(job, project_root() / ".cache" / "training" / job.name)


# --- what LLaMA-Factory is asked


def test_the_yaml_names_the_dataset_the_template_and_the_params(job: Callable[..., Job]) -> None:
    changes = {"train.finetuning.kind": "lora", "train.gradient_checkpointing": False, "arms.filtered.max_steps": 7}
    keys = yaml_of(job(changes))
    scratch = project_root() / ".cache" / "training" / "filtered"
    assert keys["dataset_dir"] == str(scratch)
    assert (keys["template"], keys["lora_target"], keys["max_steps"]) == ("chatml", "all", 7)
    assert keys["disable_gradient_checkpointing"] is True
    assert (keys["report_to"], keys["save_strategy"]) == ("none", "no")
    assert not keys.keys() & {"num_train_epochs", "use_gradient_checkpointing", "lora_target_modules"}
    assert yaml_of(job({"train.trainer.extra": {"report_to": "tensorboard"}}))["report_to"] == "tensorboard"


def test_another_node_waits_for_the_checkpoint_that_node_0_resumes_from(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared disk may list it late; two nodes that resume from other steps would wait for each other for ever."""

    def joined(step: int | None) -> Joined:
        return Joined(tmp_path, tmp_path / "node-1", tmp_path / f"checkpoint-{step}" if step else None, 1234)

    external.see_checkpoint(job(), joined(None), Group(job()))
    writing = threading.Timer(1.5, write_checkpoint, (tmp_path / "output" / "checkpoint-40",))
    write_checkpoint(tmp_path / "output" / "checkpoint-20")
    writing.start()
    external.see_checkpoint(job(), joined(40), Group(job()))
    assert not writing.is_alive()
    monkeypatch.setattr(external, "LISTED_S", 0.0)
    (tmp_path / "output" / "checkpoint-60").mkdir()  # begun, and removed on node 0: LLaMA-Factory would take it
    with pytest.raises(TrainingError, match=r"node 0 sees checkpoint-60 in .* resumes from checkpoint-40\."):
        external.see_checkpoint(job(), joined(40), Group(job()))
    (tmp_path / "output" / "checkpoint-60").rmdir()
    with pytest.raises(TrainingError, match=r"node 0 sees checkpoint-40 in .* resumes from none"):
        external.see_checkpoint(job(), joined(None), Group(job()))


def write_checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 1}')


def test_keys_that_choose_other_rows_are_refused(params: Params) -> None:
    with pytest.raises(ParamsError, match="extra: packing: changes which rows or tokens are trained on"):
        load_params(params({"train.trainer.extra": {"packing": True}}))


@pytest.mark.parametrize(
    ("changes", "variables", "expected"),
    [
        ({}, {}, (None, None, 1)),
        ({}, {"NPROC_PER_NODE": "2"}, (None, "2", 1)),
        ({}, {"NPROC_PER_NODE": "2", "FORCE_TORCHRUN": "1"}, ("1", "2", 2)),
        ({"train.deepspeed": ZERO2}, {}, ("1", "1", 1)),
        ({"train.deepspeed": ZERO2}, {"NPROC_PER_NODE": "2"}, ("1", "2", 2)),
        ({"train.deepspeed": ZERO2, "run.device": "npu"}, {}, ("1", None, 1)),
    ],
)
def test_torchrun_is_asked_for_where_deepspeed_needs_it(
    job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    variables: dict[str, str],
    expected: tuple[str | None, str | None, int],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = job(changes)
    found = llamafactory.environment(asked, "/nowhere/bin/llamafactory-cli", Path("/nowhere"))
    processes = llamafactory.processes_on_cpu(asked)
    assert (found.get("FORCE_TORCHRUN"), found.get("NPROC_PER_NODE"), processes) == expected


def test_a_program_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(train, *train_options(tmp_path, params({"train.trainer.command": "no-such-factory"})))
    assert "train.trainer.kind: llamafactory: no program 'no-such-factory'" in line
    assert "make llamafactory-env" in line


def test_a_program_without_its_python_is_refused(
    tmp_path: Path, params: Params, refuses: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMAFACTORY_CLI", shutil.which("true") or "true")
    alone = tmp_path / "bin" / "llamafactory-cli"
    alone.parent.mkdir()
    alone.write_text("#!/bin/sh\nexit 0\n")
    alone.chmod(0o755)
    line = refuses(train, *train_options(tmp_path, params({"train.trainer.command": str(alone)})))
    assert f"no python beside {alone}" in line


# --- the real LLaMA-Factory


@pytest.fixture(scope="session")
def real_program() -> Path:
    """LLaMA-Factory's own program; without it the tests are skipped, but never where CI=true."""
    return installed(PROGRAM, "llamafactory-env")


@pytest.fixture
def real(real_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAFACTORY_CLI", str(real_program))


@pytest.fixture(scope="module")
def trained(
    real_program: Path, older_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Result]]:
    params = partial(changed_params, student=older_student, changes=FOUR_EPOCHS)
    yield from trained_for_real(tmp_path_factory, "LLAMAFACTORY_CLI", real_program, params)


@pytest.mark.llamafactory
def test_llamafactory_trains_and_its_weights_load_and_answer(trained: tuple[Path, Result], older_student: Path) -> None:
    from transformers import AutoTokenizer

    folder, result = trained
    assert result.exit_code == 0, result.output
    tokenizer = assert_loads_and_answers(folder / "model", older_student)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(older_student).chat_template


@pytest.mark.llamafactory
def test_llamafactorys_training_is_counted(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    _, took = counted(folder)
    assert (took["versions"]["llamafactory"], took["versions"]["transformers"]) == ("0.9.5", "5.6.0")
    logs = {path.name for path in (folder / ".cache" / "training").iterdir()}
    assert logs == {"filtered.log", "filtered.tokens.log"}, "a resumed stage tokenizes anew and keeps what was logged"


@pytest.mark.llamafactory
def test_the_steps_of_llamafactory_are_in_its_log_and_not_on_stderr(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert "{'loss': " in (folder / ".cache" / "training" / "filtered.log").read_text()
    assert "{'loss" not in result.stderr


@pytest.mark.llamafactory
@pytest.mark.usefixtures("real")
def test_a_killed_llamafactory_resumes_and_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, trained: tuple[Path, Result], older_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tolerance is none, as long as it is one machine's CPU: weights, metrics and loss curve are the same bytes."""
    undisturbed, _ = trained
    changes = FOUR_EPOCHS | {"run.resume": True, "run.checkpoint_steps": 2}
    params = changed_params(tmp_path / "params.yaml", older_student, changes)
    shutil.copytree(undisturbed / "sums", tmp_path / "sums")
    arguments = train_options(tmp_path, params)
    newest = killed_after_a_checkpoint(tmp_path, arguments)
    assert_resumes_to_the_same_bytes(tmp_path, arguments, newest, undisturbed, caplog)


def read_by_llamafactory(job: Job, rows: list[Conversation]) -> dict[str, Any]:
    """The tokens, labels and arguments that LLaMA-Factory's own code makes of what we write for it."""
    scratch = project_root() / ".cache" / "training" / job.name
    write_inputs(job, inputs.samples(job, rows), scratch, inputs.training_yaml(job, scratch))
    command = [str(PROGRAM.parent / "python"), "-c", READ, str(scratch / "train.yaml")]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.llamafactory
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(("system_prompt", "loss_on"), [("as_system", "every"), ("in_user_turn", "last")])
def test_llamafactory_trains_on_the_answers_tokens_after_the_prompt_of_evaluation(
    job: Callable[..., Job], system_prompt: str, loss_on: str
) -> None:
    rows = conversations_of_all_kinds()
    changes = {"arms.filtered.cutoff_len": 4096, "train.seed": 7, "train.loss_on": loss_on}
    asked = job(changes | {"train.system_prompt": system_prompt}, rows)
    read = read_by_llamafactory(asked, rows)
    assert_trains_on_the_answers_tokens(llamafactory.TOKENS, PROGRAM, asked, read["rows"])
    # each key is an argument of LLaMA-Factory's own, with our value
    keys = yaml_of(asked)
    assert keys.keys() <= read["read"].keys()
    for name in ("learning_rate", "seed", "cutoff_len", "per_device_train_batch_size", "bf16", "logging_steps"):
        assert read["read"][name] == str(keys[name]), name


@pytest.mark.llamafactory
@pytest.mark.usefixtures("real")
def test_llamafactory_leaves_a_row_whole_just_where_we_say(job: Callable[..., Job]) -> None:
    assert_leaves_whole_just_where_we_say(llamafactory.TOKENS, PROGRAM, job)


@pytest.mark.llamafactory
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train.trainer.template": "ernie"}, "train.trainer.template: ernie: LLaMA-Factory would train on '"),
        ({"train.trainer.template": "no_such"}, "Template no_such does not exist."),
        ({"train.trainer.extra": {"no_such_key": 1}}, "no_such_key"),
    ],
)
def test_what_llamafactory_cannot_train_on_fails_with_its_reason(
    tmp_path: Path, params: Params, changes: dict[str, Any], reason: str
) -> None:
    assert reason in error_of(CliRunner().invoke(train, train_options(tmp_path, params(changes))), tmp_path)


@pytest.mark.llamafactory
@pytest.mark.usefixtures("real")
def test_llamafactorys_adapter_is_merged_and_trained_with_zero_2_on_two_processes(
    tmp_path: Path, older_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Uncompiled(PROGRAM, UNCOMPILED, changed_params)
    assert_merges_an_adapter_trained_with_zero_2(tmp_path, program, older_student, monkeypatch)
