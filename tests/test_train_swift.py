"""The ms-swift trainer: what it writes, how it starts it, and what ms-swift trains on.

The tests marked ``swift`` use the real release 4.6.0 on the CPU (``make test-swift``). The others need no ms-swift.
What all trainers in their own environment share is tested in test_train_openmind.py.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.command import project_root
from stages.lib.params import ParamsError, load_params
from stages.lib.tokens.tokenizer import aligned_tokenizer, end_of_turn
from stages.lib.trainers import swift
from stages.lib.trainers.swift import inputs
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.training.external_tokens import measured_rows
from stages.train import main as train
from tests.trainings import (
    FOUR_EPOCHS,
    SYSTEM,
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
    sums,
    train_options,
    trained_for_real,
)
from tests.workspace import ROOT

PROGRAM = ROOT / ".venv-swift" / "bin" / "swift"
# ms-swift's training, for DeepSpeed on a CPU
UNCOMPILED = """
import sys
from swift.cli.main import parse_yaml_args
from swift.pipelines import sft_main

arguments = sys.argv[1:]
parse_yaml_args(arguments)
sft_main(arguments)
"""
# what ms-swift itself makes of a YAML: its arguments and the rows that it would train on
READ = """
import json, sys
from swift.cli.main import parse_yaml_args
from swift.pipelines.train.sft import SwiftSft
arguments = sys.argv[1:]
parse_yaml_args(arguments)
training = SwiftSft(arguments)
rows, _ = training._prepare_dataset()
read = {name: str(value) for name, value in vars(training.args).items()}
print("\\n" + json.dumps({"rows": [{"ids": r["input_ids"], "labels": r["labels"]} for r in rows], "read": read}))
"""
# a trainer's own tokens, of which one answer lacks the loss at its end
ONE_WITHOUT_END = """
from transformers import AutoTokenizer

def encoder(keys):
    tokenizer = AutoTokenizer.from_pretrained(keys["model"])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def encoded(sample):
        *turns, answer = sample["messages"]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        ids = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
        label = -100 if "What is 299 + 5?" in turns[-1]["content"] else end
        return {"ids": prompt + ids + [end], "labels": [-100] * len(prompt) + ids + [label], "whole": True}

    return encoded
"""
Params = Callable[..., Path]
changed_params = partial(params_of, "swift")


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's folder is tmp_path, as it is the repository where dvc runs the stage."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name in ("SWIFT_CLI", "OPENMIND_SRC", "NPROC_PER_NODE", "SWANLAB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def params(tmp_path: Path, older_student: Path) -> Params:
    return lambda changes=None: changed_params(tmp_path / "params.yaml", older_student, changes)


@pytest.fixture
def job(tmp_path: Path, params: Params) -> Callable[..., Job]:
    """``job({"train.bf16": True}, rows=sums(3))``: a training of the arm 'filtered', not begun."""
    return lambda changes=None, rows=None: job_of(params(changes), tmp_path / "model", rows)


def scratch_of(job: Job) -> Path:
    return project_root() / ".cache" / "training" / job.name


def yaml_of(job: Job) -> dict[str, Any]:
    return inputs.training_yaml(job, scratch_of(job))


# --- what ms-swift is asked


def test_the_yaml_names_the_dataset_the_template_and_the_params(job: Callable[..., Job]) -> None:
    changes = {"train.finetuning.kind": "lora", "train.gradient_checkpointing": False, "arms.filtered.max_steps": 7}
    asked = job(changes)
    keys = yaml_of(asked)
    assert keys["dataset"] == str(scratch_of(asked) / f"{asked.arm.dataset}.jsonl")
    assert (keys["template"], keys["target_modules"], keys["max_steps"]) == ("chatml", ["all-linear"], 7)
    assert (keys["tuner_type"], keys["max_length"]) == ("lora", asked.arm.cutoff_len)
    assert keys["gradient_checkpointing"] is False
    assert (keys["report_to"], keys["adam_beta2"], keys["fp16"]) == ("none", 0.999, False)
    assert not keys.keys() & {"num_train_epochs", "cutoff_len", "model_name_or_path", "overwrite_output_dir"}
    own = yaml_of(job({"train.trainer.extra": {"adam_beta2": 0.95, "report_to": "tensorboard"}}))
    assert (own["adam_beta2"], own["report_to"]) == (0.95, "tensorboard")
    named = yaml_of(job({"train.finetuning.kind": "lora", "train.finetuning.target_modules": "q_proj, v_proj"}))
    assert named["target_modules"] == ["q_proj", "v_proj"]


def test_the_final_weights_are_a_checkpoint_whatever_the_params_say(job: Callable[..., Job]) -> None:
    never = yaml_of(job())
    assert (never["save_steps"], never["save_only_model"]) == (inputs.NEVER, True)
    assert not never.keys() & {"save_strategy", "resume_from_checkpoint"}
    resuming = job({"run.resume": True, "run.checkpoint_steps": 5})
    assert (yaml_of(resuming)["save_steps"], yaml_of(resuming)["save_total_limit"]) == (5, 1)
    checkpoint = scratch_of(resuming) / "output" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    assert "resume_from_checkpoint" not in yaml_of(resuming)  # it is not complete
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5}')
    assert yaml_of(resuming)["resume_from_checkpoint"] == str(checkpoint)


def test_a_row_without_system_text_has_no_system_message(job: Callable[..., Job]) -> None:
    """An empty one would replace the text that a template has by default."""
    rows = [Conversation("", "Hi", "Hello!"), Conversation(SYSTEM, "Hi", "Hello!", (("Who?", "Me."),))]
    alone, several = (row["messages"] for row in inputs.samples(job(rows=rows), rows))
    assert alone == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    assert [each["role"] for each in several] == ["system", "user", "assistant", "user", "assistant"]
    moved = job({"train.system_prompt": "in_user_turn"}, rows)
    first = [*inputs.samples(moved, rows)][1]["messages"][0]
    assert (first["role"], first["content"].startswith(SYSTEM)) == ("user", True)


def test_keys_that_choose_other_rows_are_refused(params: Params) -> None:
    with pytest.raises(ParamsError, match="extra: packing, loss_scale: changes which rows or tokens are trained on"):
        load_params(params({"train.trainer.extra": {"packing": True, "loss_scale": "all"}}))


@pytest.mark.parametrize(
    ("changes", "variables", "expected"),
    [
        ({}, {}, None),
        ({}, {"NPROC_PER_NODE": "2"}, "2"),
        ({"train.deepspeed": ZERO2}, {}, "1"),
        ({"run.device": "npu"}, {"ASCEND_RT_VISIBLE_DEVICES": "0,1,2"}, "3"),
        ({"run.device": "npu"}, {"NPROC_PER_NODE": "2"}, "2"),
    ],
)
def test_torchrun_is_asked_for_as_many_processes_as_there_are_cards(
    job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    variables: dict[str, str],
    expected: str | None,
) -> None:
    """Without it, ms-swift spreads the weights over all cards that one process sees."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = job(changes | {"train.trainer.command": shutil.which("true")})
    found = swift.environment(asked, "/nowhere/bin/swift", Path("/nowhere"))
    assert (found.get("NPROC_PER_NODE"), found["MODELSCOPE_API_TOKEN"]) == (expected, "")


def test_ends_without_a_loss_are_counted_in_all_rows(tmp_path: Path, job: Callable[..., Job]) -> None:
    (tmp_path / "encode.py").write_text(ONE_WITHOUT_END)
    asked = job(rows=sums(300))
    tokenizer = aligned_tokenizer(asked)
    tokenizer.eos_token = end_of_turn(asked, tokenizer)
    own = replace(swift.TOKENS, encode=tmp_path / "encode.py")
    with pytest.raises(TrainingError, match=r"in 1 of 300 rows <\|im_end\|> has no loss"):
        measured_rows(own, asked, sys.executable, tokenizer)
    assert measured_rows(own, job(rows=sums(299)), sys.executable, tokenizer).rows == 299


def test_swanlab_is_local_without_a_key(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job({"run.report_to": ["swanlab"]})
    assert yaml_of(asked)["swanlab_mode"] == "local"
    monkeypatch.setenv("SWANLAB_API_KEY", "k")
    assert yaml_of(asked)["swanlab_mode"] == "cloud"


def test_a_program_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(train, *train_options(tmp_path, params({"train.trainer.command": "no-such-swift"})))
    assert "train.trainer.kind: swift: no program 'no-such-swift'" in line
    assert "make swift-env" in line


# --- the real ms-swift


@pytest.fixture(scope="session")
def real_program() -> Path:
    """ms-swift's own program; without it the tests are skipped, but never where CI=true."""
    return installed(PROGRAM, "swift-env")


@pytest.fixture
def real(real_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIFT_CLI", str(real_program))


@pytest.fixture(scope="module")
def trained(
    real_program: Path, older_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Result]]:
    params = partial(changed_params, student=older_student, changes=FOUR_EPOCHS)
    yield from trained_for_real(tmp_path_factory, "SWIFT_CLI", real_program, params)


@pytest.mark.swift
def test_swift_trains_and_its_weights_load_and_answer(trained: tuple[Path, Result], older_student: Path) -> None:
    from transformers import AutoTokenizer

    folder, result = trained
    assert result.exit_code == 0, result.output
    tokenizer = assert_loads_and_answers(folder / "model", older_student)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(older_student).chat_template
    _, took = counted(folder)
    assert (took["versions"]["ms-swift"], took["versions"]["transformers"]) == ("4.6.0", "5.19.0")
    logs = {path.name for path in (folder / ".cache" / "training").iterdir()}
    assert logs == {"filtered.log", "filtered.tokens.log"}, "a resumed stage tokenizes anew and keeps what was logged"
    assert "{'loss" not in result.stderr


@pytest.mark.swift
@pytest.mark.usefixtures("real")
def test_a_killed_swift_resumes_and_ends_with_the_bytes_of_an_undisturbed_one(
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


def read_by_swift(job: Job, rows: list[Conversation]) -> dict[str, Any]:
    """The tokens, labels and arguments that ms-swift's own code makes of what we write for it."""
    inputs.write_inputs(job, rows, scratch_of(job))
    command = [str(PROGRAM.parent / "python"), "-c", READ, str(scratch_of(job) / "train.yaml")]
    own = swift.environment(job, str(PROGRAM), scratch_of(job))
    done = subprocess.run(command, cwd=project_root(), env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.swift
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(("system_prompt", "loss_on"), [("as_system", "every"), ("in_user_turn", "last")])
def test_swift_trains_on_the_answers_tokens_after_the_prompt_of_evaluation(
    job: Callable[..., Job], system_prompt: str, loss_on: str
) -> None:
    rows = conversations_of_all_kinds()
    changes = {"arms.filtered.cutoff_len": 4096, "train.seed": 7, "train.loss_on": loss_on}
    asked = job(changes | {"train.system_prompt": system_prompt}, rows)
    read = read_by_swift(asked, rows)
    assert_trains_on_the_answers_tokens(swift.TOKENS, PROGRAM, asked, read["rows"])
    # each key is an argument of ms-swift's own, with our value
    keys = yaml_of(asked)
    assert keys.keys() <= read["read"].keys()
    for name in ("learning_rate", "seed", "data_seed", "max_length", "weight_decay", "bf16", "adam_beta2", "fp16"):
        assert read["read"][name] == str(keys[name]), name


@pytest.mark.swift
@pytest.mark.usefixtures("real")
def test_swift_keeps_a_row_just_where_we_say(job: Callable[..., Job]) -> None:
    assert_leaves_whole_just_where_we_say(swift.TOKENS, PROGRAM, job)


@pytest.mark.swift
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train.trainer.template": "llama3"}, "train.trainer.template: llama3: ms-swift would train on '"),
        ({"train.trainer.extra": {"no_such_key": 1}}, "no_such_key"),
    ],
)
def test_what_swift_cannot_train_on_fails_with_its_reason(
    tmp_path: Path, params: Params, changes: dict[str, Any], reason: str
) -> None:
    assert reason in error_of(CliRunner().invoke(train, train_options(tmp_path, params(changes))), tmp_path)


@pytest.mark.swift
@pytest.mark.usefixtures("real")
def test_swifts_adapter_is_merged_and_trained_with_zero_2_on_two_processes(
    tmp_path: Path, older_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Uncompiled(PROGRAM, UNCOMPILED, changed_params)
    assert_merges_an_adapter_trained_with_zero_2(tmp_path, program, older_student, monkeypatch)
