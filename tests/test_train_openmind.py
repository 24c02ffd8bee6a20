"""The openMind trainer: what it writes for openMind, how it starts it, what it believes.

The tests marked ``openmind`` train for real with release 1.0.0 on the CPU (``make test-openmind``). The others need no
openMind: where a program must be started, it is a shell script that does one thing.
"""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from stages.lib.command import project_root
from stages.lib.params import OpenMind, ParamsError, load_params, prompt_text
from stages.lib.trainers.openmind import inputs
from stages.lib.trainers.openmind import tokens as openmind_tokens
from stages.lib.training import Conversation, Job, TrainingError, external, external_inputs, external_plan
from stages.lib.training.resources import Sharing, Size, stored_size
from stages.train import main as train
from tests.public_data import ARTICLE
from tests.trainings import (
    FOUR_EPOCHS,
    SYSTEM,
    ZERO2,
    assert_loads_and_answers,
    assert_resumes_to_the_same_bytes,
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
from tests.workspace import ROOT, Workspace

PROGRAM = ROOT / ".venv-openmind" / "bin" / "openmind-cli"
# in a script in openMind's place: the folder that its YAML names
OUTPUT = "out=$(dirname $2)/output"
# openMind's training, for DeepSpeed on a CPU: it would compile C++ to share memory between ranks; gloo does without
UNCOMPILED = """
import runpy
from deepspeed import ops

ops.__compatible_ops__["deepspeed_shm_comm"] = False
runpy.run_module("openmind.cli.train.run_train", run_name="__main__")
"""
Params = Callable[..., Path]

# what openMind itself makes of a YAML's dataset, by its own code
ENCODE = """
import json, sys
from openmind.flow.arguments import get_all_args
from openmind.flow.datasets.loader import get_dataset
from openmind.flow.datasets.template import TEMPLATES
from openmind.flow.model.loader import get_config, get_tokenizer
from openmind.flow.model.model_registry import get_template_type
dataset_args, model_args, training_args, finetune_args = get_all_args(sys.argv[1])
tokenizer, _ = get_tokenizer(model_args), get_config(model_args)
template = TEMPLATES[get_template_type(model_args)]
rows = get_dataset(dataset_args, training_args, finetune_args, tokenizer, template)
print(json.dumps([{"ids": row["input_ids"], "labels": row["labels"]} for row in rows]))
"""


def changed_params(path: Path, student: Path, changes: dict[str, Any] | None = None) -> Path:
    """params.yaml with openMind on the tiny student, and these values."""
    ours = {"train.system_prompt": "in_user_turn", "run.checkpoint_steps": 20000}
    return params_of("openmind", path, student, ours | (changes or {}))


@pytest.fixture
def openmind_params(tmp_path: Path, older_student: Path) -> Params:
    """``openmind_params({"train.trainer.extra": {…}})``: the path of params for openMind with these values."""
    return lambda changes=None: changed_params(tmp_path / "params.yaml", older_student, changes)


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's folder is tmp_path, as it is the repository where dvc runs the stage."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("OPENMIND_CLI", raising=False)
    monkeypatch.delenv("OPENMIND_SRC", raising=False)


@pytest.fixture
def job(tmp_path: Path, openmind_params: Params) -> Callable[..., Job]:
    """``job({"train.bf16": True}, rows=sums(3))``: a training of the arm 'filtered', not begun."""
    return lambda changes=None, rows=None: job_of(openmind_params(changes), tmp_path / "model", rows)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``program("exit 0")``: a shell script of this body as OPENMIND_CLI."""

    def write(body: str) -> Path:
        path = tmp_path / "bin" / "openmind-cli"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("OPENMIND_CLI", str(path))
        return path

    return write


def yaml_of(job: Job) -> dict[str, Any]:
    return inputs.training_yaml(job, project_root() / ".cache" / "training" / job.name)


# --- what openMind is asked


def test_the_articles_yaml_is_written_key_by_key(
    tmp_path: Path, older_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    article = YAML(typ="safe").load(ARTICLE / "train.yaml")
    monkeypatch.setenv("OPENMIND_SRC", str(tmp_path / "checkout"))
    (tmp_path / "checkout" / "examples" / "deepspeed").mkdir(parents=True)
    (tmp_path / "checkout" / article["deepspeed"]).write_text("{}")
    params = load_params(ROOT / "profiles" / "article.yaml")
    arm = params.arms["filtered"]
    markers, out = params.convert.markers, tmp_path / "model"
    asked = Job("filtered", sums(1), older_student, params.train, arm, params.run, markers, out, rows=tmp_path)
    ours = yaml_of(asked)
    paths = {"model_name_or_path", "deepspeed", "output_dir", "dataset"}
    added = {"custom_dataset_info", "logging_nan_inf_filter", "report_to"}
    assert {key: value for key, value in ours.items() if key not in paths | added} == {
        key: value for key, value in article.items() if key not in paths
    }
    assert set(ours) == {*article, *added}
    assert ours["deepspeed"].endswith(article["deepspeed"])
    # the one key that release 1.0.0 refuses is the one left out for it
    release = {"version": "1.0.0", "template": None}
    older = params.train.model_copy(update={"trainer": params.train.trainer.model_copy(update=release)})
    left_out = ours.items() - yaml_of(replace(asked, train=older)).items()
    assert left_out == {("template", "qwen")}


def test_release_1_0_0_gets_no_template(job: Callable[..., Job]) -> None:
    assert "template" not in yaml_of(job())
    git = {"version": "git", "template": "qwen"}
    assert yaml_of(job({f"train.trainer.{key}": value for key, value in git.items()}))["template"] == "qwen"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"trainer.template": "qwen"}, "release 1.0.0 refuses the key template"),
        ({"system_prompt": "as_system"}, "openMind 1.0.0 drops the system text"),
        ({"trainer.version": "git"}, "Set template: qwen"),
    ],
)
def test_what_a_version_cannot_do_is_refused_before_it_runs(
    openmind_params: Params, changes: dict[str, Any], complaint: str
) -> None:
    path = openmind_params({f"train.{key}": value for key, value in changes.items()})
    with pytest.raises(ParamsError, match=complaint):
        load_params(path)


@pytest.mark.parametrize(
    "value", [1e-5, 1e-05, 2.5e-7, 1e22, 3.0, "no", "1e5", "none", True, None, [1, "on"], "工作: a"]
)
def test_the_yaml_means_the_same_to_the_reader_that_openmind_has(value: Any) -> None:
    pyyaml = importlib.import_module("yaml")
    read = pyyaml.safe_load(external_inputs.yaml_text({"key": value}))["key"]
    assert (read, type(read)) == (value, type(value))


def test_an_epoch_or_steps_but_not_both(job: Callable[..., Job]) -> None:
    assert yaml_of(job())["num_train_epochs"] == 1.0
    assert "max_steps" not in yaml_of(job())
    steps = yaml_of(job({"arms.filtered.max_steps": 125}))
    assert (steps["max_steps"], "num_train_epochs" in steps) == (125, False)


def test_further_keys_are_added_and_none_is_set_twice(job: Callable[..., Job]) -> None:
    assert yaml_of(job({"train.trainer.extra": {"max_grad_norm": 0.5}}))["max_grad_norm"] == 0.5
    with pytest.raises(TrainingError, match="extra: learning_rate: "):
        yaml_of(job({"train.trainer.extra": {"learning_rate": 0.5}}))


def test_deepspeeds_settings_are_looked_for_here_then_in_the_checkout(
    tmp_path: Path, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"train.deepspeed": ZERO2}
    with pytest.raises(TrainingError, match=f"no file {ZERO2} in "):
        yaml_of(job(changes))
    monkeypatch.setenv("OPENMIND_SRC", str(ROOT))
    assert yaml_of(job(changes))["deepspeed"] == str(ROOT / ZERO2)
    (tmp_path / "profiles" / "deepspeed").mkdir(parents=True)
    shutil.copy(ROOT / ZERO2, tmp_path / ZERO2)
    assert yaml_of(job(changes))["deepspeed"] == str(tmp_path / ZERO2)


@pytest.mark.parametrize(
    ("prompt", "answer", "cutoff_len", "whole"),
    [
        (700, 324, 1024, True),
        (701, 324, 1024, False),
        (1473, 27, 1500, False),  # 1500 * (27 / 1500) is 26.999… in floats: openMind would cut the end token
        (1472, 27, 1500, True),
    ],
)
def test_a_row_fits_where_openmind_leaves_it_whole(prompt: int, answer: int, cutoff_len: int, whole: bool) -> None:
    assert openmind_tokens.Row(sums(1)[0], prompt, answer).fits(cutoff_len) is whole


def test_openmind_is_given_a_student_in_a_form_that_its_older_transformers_reads_and_saves(
    tmp_path: Path, older_student: Path, job: Callable[..., Job]
) -> None:
    student = tmp_path / "student"
    shutil.copytree(older_student, student)
    config = json.loads((student / "config.json").read_bytes())
    config["rope_parameters"]["rope_theta"] = 1000000.0
    (student / "config.json").write_text(json.dumps(config))
    (student / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.6}))
    given = Path(yaml_of(job({"train.student.name": str(student)}))["model_name_or_path"])
    assert given.name == "student"
    assert given != student
    assert json.loads((given / "config.json").read_bytes())["rope_theta"] == 1000000.0
    assert json.loads((given / "generation_config.json").read_bytes()) == {}
    assert (given / "model.safetensors").resolve() == student / "model.safetensors"


def test_a_student_whose_text_openmind_would_split_otherwise_is_refused(
    tmp_path: Path, tiny_student: Path, job: Callable[..., Job]
) -> None:
    """The tiny student's own tokenizer.json splits as GPT-2 does; transformers 5 gives any Qwen2 the way of Qwen2."""
    other = job({"train.student.name": str(tiny_student)})
    with pytest.raises(TrainingError, match=r"tokenizer\.json: .* evaluation would use \d+ other tokens"):
        openmind_tokens.measured_rows(other, tokenizer_with(tiny_student, "in_user_turn"))


# --- how it is started, and what is believed of it


def test_a_program_that_ends_with_0_and_wrote_nothing_has_failed_and_is_quoted(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    program(
        "echo beginning; printf '10%%\\r20%%\\r'; echo; echo '    ^^^^'; echo 'ValueError: no such card' >&2; exit 0"
    )
    result = CliRunner().invoke(train, train_options(tmp_path, openmind_params()))
    log_path = tmp_path / ".cache" / "training" / "filtered.log"
    assert error_of(result, tmp_path) == (
        f"train: openMind did not finish. {log_path} ends: beginning | 10% | 20% | ValueError: no such card"
    )
    assert "20%" in result.stderr, "its progress was to be seen while it ran"


def test_weights_before_the_last_step_are_no_success(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    state = json.dumps({"global_step": 2, "max_steps": 5, "epoch": 0.4, "log_history": []})
    program(f"{OUTPUT}; mkdir $out; touch $out/model.safetensors; echo '{state}' > $out/trainer_state.json")
    result = CliRunner().invoke(train, train_options(tmp_path, openmind_params()))
    assert error_of(result, tmp_path).startswith("train: openMind ended at step 2 of 5")


def test_the_settings_of_the_cards_reach_it_and_its_own_programs_come_first(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"ASCEND_RT_VISIBLE_DEVICES": "0,1", "NPROC_PER_NODE": "2", "NNODES": "4", "RANK": "3"}
    given |= {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501", "HCCL_CONNECT_TIMEOUT": "1800"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    path = program("env")
    CliRunner().invoke(train, train_options(tmp_path, openmind_params()))
    lines = (tmp_path / ".cache" / "training" / "filtered.log").read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    assert {name: said[name] for name in given} == given
    assert said["PATH"].split(":")[0] == str(path.parent)
    assert said["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("words", ["{} train", "{} --then --yaml_file {{yaml}}"])
def test_the_command_of_params_goes_before_the_variable(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], words: str
) -> None:
    program("echo wrong")
    other = tmp_path / "bin" / "other"
    other.write_text('#!/bin/sh\necho "asked: $*"\n')
    other.chmod(0o755)
    command = words.format(other).removesuffix(" train")
    CliRunner().invoke(train, train_options(tmp_path, openmind_params({"train.trainer.command": command})))
    said = (tmp_path / ".cache" / "training" / "filtered.log").read_text()
    (yaml,) = (tmp_path / ".cache" / "training" / "filtered").glob("*/train.yaml")
    assert (
        said
        == f"asked: {words.removeprefix('{} ').replace('{{yaml}}', str(yaml))}{'' if 'yaml' in words else f' {yaml}'}\n"
    )


def test_a_program_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, openmind_params: Params, refuses: Callable[..., str]
) -> None:
    params = openmind_params({"train.trainer.command": "no-such-openmind"})
    line = refuses(train, *train_options(tmp_path, params))
    assert "no program 'no-such-openmind'" in line
    assert "make openmind-env" in line


def test_another_release_than_params_say_is_refused(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], refuses: Callable[..., str]
) -> None:
    program("exit 0")
    (tmp_path / "lib" / "python3.10" / "site-packages" / "openmind-1.1.0.dist-info").mkdir(parents=True)
    line = refuses(train, *train_options(tmp_path, openmind_params()))
    assert line.startswith("train.trainer.version: 1.0.0, but ")
    assert "belongs to openMind 1.1.0" in line


def test_an_entry_stands_in_its_own_file_while_it_trains_and_no_longer(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    info, seen = tmp_path / "its_info.json", tmp_path / "seen.json"
    info.write_text('{"theirs": {"hub_url": "a/b"}}')
    program(f"cp {info} {seen}; cp $2 {tmp_path}/seen.yaml")
    before = info.read_bytes()
    CliRunner().invoke(train, train_options(tmp_path, openmind_params({"train.trainer.merge_into": str(info)})))
    assert set(json.loads(seen.read_text())) == {"theirs", "filtered"}
    assert "custom_dataset_info" not in (tmp_path / "seen.yaml").read_text()
    assert info.read_bytes() == before
    assert not list(tmp_path.glob("its_info.json.*"))


def test_the_backup_that_a_killed_run_left_is_what_comes_back(tmp_path: Path, job: Callable[..., Job]) -> None:
    info = tmp_path / "its_info.json"
    info.write_text('{"theirs": {}, "left_by_the_killed_run": {}}')
    (tmp_path / "its_info.json.before-distillery").write_text('{"theirs": {}}')
    (tmp_path / "dataset_info.json").write_text('{"filtered": {}}')
    settings = job({"train.trainer.merge_into": str(info)}).train.trainer
    assert isinstance(settings, OpenMind)
    with inputs.registered(settings, tmp_path):
        assert set(json.loads(info.read_text())) == {"theirs", "filtered"}
    assert info.read_text() == '{"theirs": {}}'


# --- a training that was killed


KEPT = {"run.resume": True, "run.checkpoint_steps": 2}


def of(changes: dict[str, Any], job: Callable[..., Job], **others: Any) -> str:
    """The digest of a training with these changes."""
    usual: dict[str, Any] = {"rows": sums(3), "cards": external_plan.Cards(1, None), "versions": {}}
    return external_plan.digest("openmind", job(changes), **(usual | others))


@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"train.seed": 4}, True),
        ({"arms.filtered.learning_rate": 0.5}, True),
        ({"arms.filtered.cutoff_len": 999}, True),
        ({"train.trainer.logging_steps": 9}, True),
        ({"train.trainer.extra": {"max_grad_norm": 0.5}}, True),
        ({"train.trainer.extra": {"save_total_limit": 3}}, False),
        ({"run.checkpoint_steps": 7}, False),
        ({"run.resume": True}, False),
        ({"train.trainer.command": "other-cli"}, False),
        ({"run.checkpoint_steps": None}, False),
        ({"run.concurrency": 3}, False),
    ],
)
def test_another_openmind_training_is_known_by_all_that_shapes_its_weights(
    job: Callable[..., Job], change: dict[str, Any], shapes: bool
) -> None:
    assert (of(change, job) != of({}, job)) is shapes


def test_other_rows_cards_or_releases_make_another_openmind_training(tmp_path: Path, job: Callable[..., Job]) -> None:
    (tmp_path / "lib" / "python3.10" / "site-packages" / "torch-2.1.0.dist-info").mkdir(parents=True)
    versions = external.releases(str(tmp_path / "bin" / "openmind-cli"), "openmind")
    kinds: list[dict[str, Any]] = [{}, {"rows": sums(4)}, {"rows": sums(3)[::-1]}]
    kinds += [{"cards": external_plan.Cards(8, None)}, {"versions": versions}]
    assert len({of({}, job, **kind) for kind in kinds}) == len(kinds)


def test_checkpoints_are_kept_to_go_on_from_or_not_at_all(job: Callable[..., Job]) -> None:
    assert "save_total_limit" not in yaml_of(job())
    assert yaml_of(job(KEPT))["save_total_limit"] == 1
    none = yaml_of(job(KEPT | {"run.checkpoint_steps": None}))
    assert none["save_strategy"] == "no"
    assert not none.keys() & {"save_steps", "save_total_limit"}
    assert yaml_of(job(KEPT | {"train.trainer.extra": {"save_total_limit": 3}}))["save_total_limit"] == 3


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["output", "output/checkpoint-5"])
def test_a_training_that_ended_before_its_stage_was_killed_is_taken_as_it_is(
    tmp_path: Path, openmind_params: Params, older_student: Path, program: Callable[[str], Path], where: str
) -> None:
    entry = {"step": 5, "loss": 0.5, "learning_rate": 0.0}
    state = json.dumps({"global_step": 5, "max_steps": 5, "epoch": 1.0, "log_history": [entry]})
    place = f"{OUTPUT.removesuffix('output')}{where}"
    program(
        f"{place}; mkdir -p $out; cp {older_student}/* $out; echo '{state}' > $out/trainer_state.json; kill -9 $PPID"
    )
    params = openmind_params(KEPT | {"train.per_device_train_batch_size": 2})
    arguments = train_options(tmp_path, params)
    done = subprocess.run([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    abandoned = tmp_path / ".cache" / "training" / "filtered" / "0123456789abcdef"
    (abandoned / "output" / "checkpoint-5").mkdir(parents=True)
    (abandoned / "lock").touch()
    program("echo no training was needed; exit 1")
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (older_student / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "model.json").read_bytes())["steps"] == 5
    assert not (tmp_path / ".cache" / "training" / "filtered").exists(), "what killed trainings left was to go"


@pytest.mark.heavy
def test_nobody_trains_beside_an_openmind_that_outlived_its_stage(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], refuses: Callable[..., str]
) -> None:
    program(f"echo $$ > {tmp_path}/pid; exec sleep 300")
    arguments = train_options(tmp_path, openmind_params())
    stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
        assert stage.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stage.kill()
    stage.wait()
    try:
        assert "another process trains 'filtered' on the same rows and params" in refuses(train, *arguments)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


# --- what is reckoned and refused before it starts


def test_the_parameters_are_counted_in_the_files_of_the_student(older_student: Path, job: Callable[..., Job]) -> None:
    from transformers import AutoModelForCausalLM

    count = AutoModelForCausalLM.from_pretrained(older_student).num_parameters()
    assert stored_size(older_student, None) == Size(count, count)
    adapters_of_8 = {"kind": "lora", "r": 8, "target_modules": "all-linear"}
    lora = job({f"train.finetuning.{key}": value for key, value in adapters_of_8.items()}).train.lora
    assert lora
    # q and o 64→64, k and v 64→32, gate and up 64→128, down 128→64, in two layers
    adapters = 2 * 8 * (2 * 128 + 2 * 96 + 3 * 192)
    assert stored_size(older_student, lora) == Size(count + adapters, adapters)
    named = lora.model_copy(update={"target_modules": ["q_proj"]})
    assert stored_size(older_student, named).trained == 2 * 8 * 128


@pytest.mark.parametrize(
    ("sharing", "trained", "gib"),
    [  # of a parameter: 16 bytes as it is trained; 2 of weights and 14 shared out by ZeRO-2
        (Sharing(8, None, True), 1.0, (4, 12)),
        (Sharing(8, 1, True), 1.0, (2, 2 + 12 / 8)),
        (Sharing(8, 2, True), 1.0, (2, 14 / 8)),
        (Sharing(16, 2, True), 1.0, (2, 14 / 16)),
        (Sharing(8, 3, True), 1.0, (2 / 8, 14 / 8)),
        (Sharing(8, 2, False), 1.0, (4, 16 / 8)),
        (Sharing(1, None, True), 0.0, (2, 0)),
        (Sharing(1, None, False), 0.0, (4, 0)),
        (Sharing(8, 2, True), 0.01, (2, 0.14 / 8)),
    ],
)
def test_a_card_holds_what_zero_leaves_it(sharing: Sharing, trained: float, gib: tuple[float, float]) -> None:
    assert sharing.bytes_per_card(Size(10**6, int(trained * 10**6))) == pytest.approx([10**6 * each for each in gib])


@pytest.mark.parametrize(
    ("line", "sharing"),
    [
        ("4, ZeRO-2", Sharing(4, 2, True)),
        ("8, ZeRO-2", Sharing(8, 2, True)),
        ("16, ZeRO-2", Sharing(16, 2, True)),
        ("any number, no DeepSpeed", Sharing(8, None, True)),
    ],
)
def test_the_docs_have_the_memory_that_is_reckoned_for_a_7b(line: str, sharing: Sharing) -> None:
    parameters = 7_615_616_512  # Qwen2.5-7B
    weights, states = sharing.bytes_per_card(Size(parameters, parameters))
    text = (ROOT / "docs" / "ascend.md").read_text()
    row = next(each for each in text.splitlines() if each.startswith(f"| {line} |"))
    assert f"| {(weights + states) / 2**30:.1f} GiB" in row
    assert row.endswith(f"| {weights / 2**30:.1f} |")


@pytest.mark.parametrize(
    ("changes", "cards", "steps", "checkpoints"),
    [
        ({"arms.filtered.max_steps": 125, "run.checkpoint_steps": 20000}, 8, 125, 1),
        ({"arms.filtered.max_steps": 125, "run.checkpoint_steps": 20}, 8, 125, 7),
        (KEPT | {"arms.filtered.max_steps": 125, "run.checkpoint_steps": 20}, 8, 125, 2),
        ({"arms.filtered.max_steps": 125, "run.checkpoint_steps": None}, 8, 125, 0),
        ({"arms.filtered.max_steps": 125, "train.trainer.extra": {"save_strategy": "no"}}, 8, 125, 0),
        ({"arms.filtered.num_train_epochs": 3.0, "train.trainer.extra": {"save_strategy": "epoch"}}, 8, 375, 3),
        ({"run.checkpoint_steps": 20000}, 8, 125, 1),
        ({"run.checkpoint_steps": 20000, "train.gradient_accumulation_steps": 4}, 8, 31, 1),
        ({"train.trainer.extra": {"dataloader_drop_last": True}}, 2000, 0, 0),
    ],
)
def test_steps_and_checkpoints_are_counted_as_the_trainer_does(
    job: Callable[..., Job], changes: dict[str, Any], cards: int, steps: int, checkpoints: int
) -> None:
    ours = {"train.per_device_train_batch_size": 1, "train.gradient_accumulation_steps": 1}
    planned = job(ours | {"arms.filtered.num_train_epochs": 1.0} | changes)
    assert external_plan.planned_steps(planned, 1000, cards) == steps
    assert external_plan.checkpoints_at_once(planned, steps) == checkpoints


@pytest.mark.parametrize(
    ("variables", "words", "count"),
    [
        ({}, [], 1),
        ({"NPROC_PER_NODE": "8"}, [], 8),
        ({"NPROC_PER_NODE": "8", "NNODES": "2"}, [], 16),
        ({"ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3"}, [], 4),
        ({"ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3", "NNODES": "2"}, [], 8),
        ({"NPROC_PER_NODE": "8"}, ["--nproc_per_node", "2"], 2),
        ({}, ["--nproc-per-node=2"], 2),
    ],
)
def test_the_cards_are_those_that_torchrun_will_use(
    job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    words: list[str],
    count: int,
) -> None:
    for name in ("NPROC_PER_NODE", "NNODES", "ASCEND_RT_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = external.cards_of(job({"run.device": "npu"}), "/nowhere/openmind-cli", words)
    assert found == external_plan.Cards(count, None)


def beside(program: Path, body: str) -> None:
    """A shell script as the python of openMind's environment."""
    path = program.with_name("python")
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_each_cards_memory_is_said_and_too_little_refused(
    tmp_path: Path,
    openmind_params: Params,
    program: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "distillery")
    monkeypatch.delenv("NPROC_PER_NODE", raising=False)
    path = program("exit 0")
    beside(path, f"echo warming up; echo 4 {2**30}")
    arguments = train_options(tmp_path, openmind_params({"run.device": "npu", "train.bf16": True}))
    CliRunner().invoke(train, arguments)
    assert "at least 0.00 GiB on each of 4 cards (weights 0.00, " in caplog.text
    assert "each has 1.0 GiB" in caplog.text
    beside(path, "echo 4 1000000")
    line = error_of(CliRunner().invoke(train, arguments), tmp_path)
    assert line.startswith("train: filtered needs 0.0 GiB on each of 4 cards for weights, gradients and optimizer")
    assert "set train.deepspeed: " in line


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"arms.filtered.max_steps": 10**9, "run.checkpoint_steps": 1},
            "checkpoints. Free disk space, or set run.checkpoint_steps: null",
        ),
        (
            {"train.trainer.extra": {"dataloader_drop_last": True}, "train.per_device_train_batch_size": 99},
            "no training step: ",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_openmind_starts(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], changes: dict[str, Any], complaint: str
) -> None:
    program("echo started; exit 1")
    line = error_of(CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes))), tmp_path)
    assert complaint in line
    assert not (tmp_path / ".cache" / "training" / "filtered").exists()
    assert not (tmp_path / ".cache" / "training" / "filtered.log").exists()


def student_like(older_student: Path, folder: Path, file: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the student in which one JSON file is changed."""
    shutil.copytree(older_student, folder)
    content = json.loads((folder / file).read_bytes())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def test_a_student_that_openmind_has_no_template_for_is_refused(
    tmp_path: Path, older_student: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    program("exit 0")
    llama = student_like(older_student, tmp_path / "llama", "config.json", lambda c: c.update(model_type="llama"))
    arguments = train_options(tmp_path, openmind_params({"train.student.name": str(llama)}))
    line = error_of(CliRunner().invoke(train, arguments), tmp_path)
    assert line.startswith(f"{llama}/config.json: openMind 1.0.0 has a template for qwen2 only, not for llama. ")


def test_a_student_without_the_templates_tokens_is_refused(tiny_student: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    openmind_tokens.check_turns(tiny_student, tokenizer)
    tokens = tokenizer.added_tokens_decoder
    other = SimpleNamespace(
        added_tokens_decoder={number: t for number, t in tokens.items() if "im_start" not in str(t)}
    )
    with pytest.raises(TrainingError, match=r"no token <\|im_start\|>, which openMind's template qwen writes"):
        openmind_tokens.check_turns(tiny_student, other)


def test_missing_weights_are_named_before_openmind_starts(
    tmp_path: Path, older_student: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    program("exit 0")
    student = tmp_path / "student"
    shutil.copytree(older_student, student, ignore=shutil.ignore_patterns("*.safetensors"))
    arguments = train_options(tmp_path, openmind_params({"train.student.name": str(student)}))
    assert "weight files are missing" in error_of(CliRunner().invoke(train, arguments), tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 61.27 GiB total capacity)",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "OSError: [Errno 12] Cannot allocate memory",
        "traceback : Signal 9 (SIGKILL) received by PID 4711",
    ],
)
def test_memory_that_ran_out_in_openmind_names_the_params_to_turn(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path], said: str
) -> None:
    program(f"echo beginning; cat <<'END'\n{said}\nEND")
    line = error_of(CliRunner().invoke(train, train_options(tmp_path, openmind_params())), tmp_path)
    assert line.startswith("train: filtered: openMind ran out of memory (see ")
    for param in ("per_device_train_batch_size", "finetuning.kind: lora", "arms.filtered.cutoff_len"):
        assert param in line


@pytest.mark.heavy
def test_no_worker_outlives_a_stopped_stage(
    tmp_path: Path, openmind_params: Params, program: Callable[[str], Path]
) -> None:
    program(f"sleep 300 & echo $! > {tmp_path}/worker; wait")
    command = [sys.executable, "-m", "stages.train", *train_options(tmp_path, openmind_params())]
    stage = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "worker").exists() and (tmp_path / "worker").read_text().strip()):
        assert stage.poll() is None, stage.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stage.send_signal(signal.SIGTERM)
    _, said = stage.communicate(timeout=60)
    assert stage.returncode == 130
    assert said.splitlines()[-1].startswith("Error: train: stopped, with all its processes.")
    worker = int((tmp_path / "worker").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(worker, 0)
            time.sleep(0.05)


# --- the prompt of training is the prompt of evaluation


def tokenizer_with(student: Path, system_prompt: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = openmind_tokens.chat_template(system_prompt)
    return tokenizer


@pytest.mark.parametrize(
    ("system_prompt", "expected"),
    [
        ("as_system", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        (
            "in_user_turn",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nS\n\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_a_system_text_stands_where_it_was_trained(older_student: Path, system_prompt: str, expected: str) -> None:
    tokenizer = tokenizer_with(older_student, system_prompt)
    question = {"role": "user", "content": "Q"}
    with_system = [{"role": "system", "content": "S"}, question]
    assert tokenizer.apply_chat_template(with_system, tokenize=False, add_generation_prompt=True) == expected
    plain = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    assert plain == expected.replace("S\n\n", "").replace("system\nS", "system\nYou are a helpful assistant.")


@pytest.mark.parametrize("system_prompt", ["as_system", "in_user_turn"])
def test_a_few_shot_prompt_has_the_system_text_once_before_its_first_question(
    older_student: Path, system_prompt: str
) -> None:
    tokenizer = tokenizer_with(older_student, system_prompt)
    first, second = sums(2)
    shots = [*first.messages(), {"role": "user", "content": second.user}]
    few = tokenizer.apply_chat_template(shots, tokenize=False, add_generation_prompt=True)
    assert few.startswith(tokenizer.apply_chat_template(first.messages(), tokenize=False))
    assert few.endswith(f"<|im_start|>user\n{second.user}<|im_end|>\n<|im_start|>assistant\n")
    assert few.count(SYSTEM) == 1


# --- the real openMind


@pytest.fixture(scope="session")
def real_program() -> Path:
    """openMind's own program; without it the tests are skipped, but never where CI=true."""
    return installed(PROGRAM, "openmind-env")


@pytest.fixture
def real(real_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENMIND_CLI", str(real_program))


@pytest.fixture(scope="module")
def trained(
    real_program: Path, older_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Result]]:
    params = partial(changed_params, student=older_student, changes=FOUR_EPOCHS)
    yield from trained_for_real(tmp_path_factory, "OPENMIND_CLI", real_program, params)


@pytest.mark.openmind
def test_openmind_trains_and_its_weights_load_and_answer(trained: tuple[Path, Result], older_student: Path) -> None:
    folder, result = trained
    assert result.exit_code == 0, result.output
    saved = folder / "model"
    assert_loads_and_answers(saved, older_student)
    assert str(older_student) not in (saved / "config.json").read_text(), "a path of the machine"
    assert {path.name for path in saved.iterdir()} <= {
        *("model.safetensors", "config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }


@pytest.mark.openmind
def test_openminds_training_is_counted(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    metrics, took = counted(folder)
    assert metrics["student"]["name"] == "student"
    assert took["versions"]["openmind"] == "1.0.0"
    assert took["versions"]["transformers"] == "4.45.2", "openMind's and not ours"
    assert took["peak_memory_mib"] > 100


@pytest.mark.openmind
def test_openminds_log_stays_and_its_scratch_folder_goes(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert [path.name for path in (folder / ".cache" / "training").iterdir()] == ["filtered.log"]
    assert "***** Running training *****" in (folder / ".cache" / "training" / "filtered.log").read_text()
    assert "***** Running training *****" in result.stderr
    assert "{'loss': " in (folder / ".cache" / "training" / "filtered.log").read_text()
    assert "{'" not in result.stderr


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_a_killed_openmind_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, trained: tuple[Path, Result], older_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tolerance is none, as long as it is one machine's CPU: weights, metrics and loss curve are the same bytes."""
    undisturbed, _ = trained
    changes = FOUR_EPOCHS | {"run.resume": True, "run.checkpoint_steps": 2}
    params = changed_params(tmp_path / "params.yaml", older_student, changes)
    shutil.copytree(undisturbed / "sums", tmp_path / "sums")
    arguments = train_options(tmp_path, params)
    newest = killed_after_a_checkpoint(tmp_path, arguments)
    torn = newest.parent / "checkpoint-99"  # as where it is killed while it writes one
    shutil.copytree(newest, torn)
    (torn / "trainer_state.json").unlink()
    assert_resumes_to_the_same_bytes(tmp_path, arguments, newest, undisturbed, caplog)
    assert [path.name for path in (tmp_path / ".cache" / "training").iterdir()] == ["filtered.log"]


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_gives_the_same_bytes_again(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    before = {path: path.read_bytes() for path in [*(folder / "model").iterdir(), *folder.glob("model.*")]}
    shutil.rmtree(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        result = CliRunner().invoke(train, train_options(folder, folder / "params.yaml"))
    assert result.exit_code == 0, result.output
    assert {path for path in before if path.read_bytes() != before[path]} == set()


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_dvc_trains_with_openmind_and_lm_eval_asks_with_the_prompt_of_training(
    tmp_path: Path, older_student: Path
) -> None:
    workspace = Workspace.of_the_repository(tmp_path / "space", older_student)
    changes = {"train.trainer.kind": "openmind", "train.system_prompt": "in_user_turn", "train.finetuning.kind": "full"}
    workspace.change(changes)
    assert {"convert@filtered", "train@filtered", "evaluate@filtered"} <= workspace.repro("evaluate@filtered")
    trained_on = json.loads((workspace.folder / "data" / "sharegpt" / "filtered" / "filtered.json").read_bytes())
    system = trained_on[0]["system"]
    assert system
    for line in (workspace.folder / "data" / "eval" / "filtered.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["prompt"] == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{system}\n\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"
        )
    workspace.change({"train.trainer.extra": {"max_grad_norm": 0.5}})
    assert "train@filtered" in workspace.run("dvc", "status", "train@filtered")


def encoded(job: Job, rows: list[Conversation]) -> list[dict[str, list[int]]]:
    """The tokens and labels that openMind's own code makes of what we write for it."""
    scratch = project_root() / ".cache" / "training" / job.name
    inputs.write_inputs(job, rows, scratch)
    command = [str(PROGRAM.parent / "python"), "-c", ENCODE, str(scratch / "train.yaml")]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, list[int]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_trains_on_the_answers_tokens_after_the_prompt_of_evaluation(
    job: Callable[..., Job], older_student: Path
) -> None:
    long = Conversation(prompt_text("still2"), "小明有 3 个苹果，又买了 4 个。How many?", "3 + 4 = 7\n\n**7**")
    several = Conversation("", "Goodbye", "Goodbye!", (("What is up?", "Hello!"), ("小明是谁？", "我不知道。\n")))
    rows = [*sums(2), long, several, replace(several, system=SYSTEM)]
    tokenizer = tokenizer_with(older_student, "in_user_turn")
    for row, seen in zip(rows, encoded(job({"arms.filtered.cutoff_len": 4096}), rows), strict=True):
        answer = tokenizer(row.assistant, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        prompt = tokenizer.apply_chat_template(row.messages()[:-1], add_generation_prompt=True, return_dict=False)
        assert seen["ids"] == prompt + answer
        assert seen["labels"] == [-100] * len(prompt) + answer
        shot = {"role": "user", "content": "And 1 + 1?"}
        few = tokenizer.apply_chat_template([*row.messages(), shot], add_generation_prompt=True, return_dict=False)
        assert few[: len(seen["ids"])] == seen["ids"], "a few-shot prompt does not begin as training did"


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_itself_writes_each_later_question_twice(
    job: Callable[..., Job], older_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why ``train.loss_on: every`` is refused for several turns. If this fails, openMind was repaired."""
    turns = [("user", "What is up?"), ("assistant", "Hello!"), ("user", "Goodbye"), ("assistant", "Bye!")]
    native = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    monkeypatch.setattr(inputs, "sample", lambda conversation, system_prompt: native)
    tokenizer = tokenizer_with(older_student, "in_user_turn")
    (seen,) = encoded(job({"arms.filtered.cutoff_len": 4096}), sums(1))
    text = tokenizer.decode(seen["ids"])
    assert "Hello!<|im_end|>Goodbye\n<|im_start|>user\nGoodbye<|im_end|>\n<|im_start|>assistant\nBye!" in text
    trained = tokenizer.decode([label for label in seen["labels"] if label != -100])
    assert trained == "Hello!<|im_end|>Bye!<|im_end|>"


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_leaves_a_row_whole_just_where_we_say(job: Callable[..., Job], older_student: Path) -> None:
    row = sums(1)[0]
    tokens = len(encoded(job(), [row])[0]["ids"])
    tokenizer = tokenizer_with(older_student, "in_user_turn")
    for cutoff_len in range(tokens - 1, tokens + 2):
        shorter = job({"arms.filtered.cutoff_len": cutoff_len}, [row])
        whole = len(encoded(shorter, [row])[0]["ids"]) == tokens
        if whole:
            assert openmind_tokens.measured_rows(shorter, tokenizer).tokens == tokens
        else:
            with pytest.raises(TrainingError, match="all 1 conversations are longer"):
                openmind_tokens.measured_rows(shorter, tokenizer)


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train.trainer.extra": {"no_such_key": 1}}, "not used by the HfArgumentParser: ['no_such_key']"),
        (
            {"train.trainer.version": "git", "train.trainer.template": "qwen"},
            "not used by the HfArgumentParser: ['template']",
        ),
    ],
)
def test_a_yaml_that_openmind_refuses_fails_with_its_last_words(
    tmp_path: Path, openmind_params: Params, changes: dict[str, Any], reason: str
) -> None:
    line = error_of(CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes))), tmp_path)
    assert line.startswith("train: openMind did not finish. ")
    assert reason in line


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_takes_the_entry_from_its_own_file_and_no_last_checkpoint_is_written(
    tmp_path: Path, openmind_params: Params, real_program: Path
) -> None:
    info = next(real_program.parents[1].glob("lib/python*/site-packages/openmind/flow/configs/dataset_info.json"))
    before = info.read_bytes()
    changes = {"train.trainer.merge_into": str(info), "run.checkpoint_steps": None}
    result = CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes)))
    assert result.exit_code == 0, result.output
    assert info.read_bytes() == before
    assert "checkpoint-" not in (tmp_path / ".cache" / "training" / "filtered.log").read_text()


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openminds_adapter_is_merged_into_the_weights(
    tmp_path: Path, openmind_params: Params, older_student: Path
) -> None:
    from transformers import AutoModelForCausalLM

    changes = {"train.finetuning.kind": "lora", "arms.filtered.max_steps": 2, "train.trainer.logging_steps": 3}
    result = CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes)))
    assert result.exit_code == 0, result.output
    assert not list((tmp_path / "model").glob("adapter*"))
    model, student = (AutoModelForCausalLM.from_pretrained(each) for each in (tmp_path / "model", older_student))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not model.state_dict()[name].equal(student.state_dict()[name])
    assert json.loads((tmp_path / "model.json").read_text())["first_loss"] > 0


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_what_openmind_trained_is_trained_again_and_keeps_what_was_published(
    tmp_path: Path, openmind_params: Params, older_student: Path, kind: str
) -> None:
    """A student in bf16, with another theta in the form of transformers 5, whose settings of generation do not save."""
    from tests.test_train_saving import REFUSED_BY_SAVE, in_dtype

    student = in_dtype(older_student, tmp_path / "student", "bfloat16")
    config = json.loads((student / "config.json").read_bytes())
    config["rope_parameters"]["rope_theta"] = 1000000.0
    (student / "config.json").write_text(json.dumps(config))
    (student / "generation_config.json").write_text(json.dumps(REFUSED_BY_SAVE))
    losses = []
    for name in (student, tmp_path / "first"):
        changes = FOUR_EPOCHS | {"train.student.name": str(name), "train.finetuning.kind": kind}
        result = CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes)))
        assert result.exit_code == 0, result.output
        losses.append(json.loads((tmp_path / "model.json").read_bytes())["first_loss"])
        (tmp_path / "model").rename(tmp_path / ("first" if name == student else "second"))
    assert losses[1] < losses[0]
    for saved in (tmp_path / "first", tmp_path / "second"):
        config = json.loads((saved / "config.json").read_bytes())
        assert (config["rope_theta"], config["rope_parameters"]["rope_theta"]) == (1000000.0, 1000000.0)
        assert (config["dtype"], config["torch_dtype"], config["tie_word_embeddings"]) == ("bfloat16", "bfloat16", True)
        assert json.loads((saved / "generation_config.json").read_bytes()).items() >= REFUSED_BY_SAVE.items()
        tokenizer = json.loads((saved / "tokenizer_config.json").read_bytes())
        assert tokenizer["tokenizer_class"] == "Qwen2Tokenizer"
        assert tokenizer["chat_template"] == openmind_tokens.chat_template("in_user_turn")


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_a_loss_of_openminds_that_is_no_number_is_no_model(
    tmp_path: Path, openmind_params: Params, older_student: Path
) -> None:
    from safetensors.torch import load_file, save_file

    student = tmp_path / "student"
    shutil.copytree(older_student, student)
    tensors = load_file(student / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("inf")
    save_file(tensors, student / "model.safetensors", metadata={"format": "pt"})
    params = openmind_params({"train.student.name": str(student)})
    line = error_of(CliRunner().invoke(train, train_options(tmp_path, params)), tmp_path)
    assert line.startswith("train: filtered: the loss is nan at step 1, learning rate ")
    assert "(arms.filtered.learning_rate: 0.001). The student's own weights contain one too" in line


@pytest.mark.openmind
@pytest.mark.usefixtures("real")
def test_openmind_trains_with_zero_2_on_two_processes(
    tmp_path: Path, openmind_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("OPENMIND_SRC", str(ROOT))
    (tmp_path / "uncompiled.py").write_text(UNCOMPILED)
    torchrun = f"'{PROGRAM.parent / 'torchrun'}' --nproc_per_node 2 '{tmp_path / 'uncompiled.py'}' --yaml_file {{yaml}}"
    changes: dict[str, Any] = {"train.deepspeed": ZERO2, "train.trainer.command": torchrun}
    changes |= {"arms.filtered.max_steps": 4, "train.per_device_train_batch_size": 1}
    result = CliRunner().invoke(train, train_options(tmp_path, openmind_params(changes)))
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert (metrics["steps"], metrics["effective_batch"]) == (4, 2)
    assert metrics["last_loss"] < metrics["first_loss"]
    assert "zero" in (tmp_path / ".cache" / "training" / "filtered.log").read_text().lower()
    assert not (tmp_path / "compiled").exists(), "minutes of compiling, and a lock that a killed run leaves"
