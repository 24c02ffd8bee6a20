"""What the tests of trainings share: rows, datasets, the options of the stage, and trainings by a real program."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.params import load_params, prompt_text
from stages.lib.tokens.tokenizer import aligned_tokenizer, end_of_turn
from stages.lib.training import Conversation, Job, TrainingError, external_inputs
from stages.lib.training.checkpoints import last_checkpoint
from stages.lib.training.external_tokens import OwnTokens, measured_rows
from stages.train import main as train
from tests.workspace import ROOT, write_changed_params

SYSTEM = "Think first. 先想。"
FOUR_EPOCHS = {"arms.filtered.num_train_epochs": 4.0, "train.per_device_train_batch_size": 2}
# an arm of on_policy
ON_POLICY: dict[str, Any] = {"dataset": "filtered", "num_train_epochs": 1.0, "max_steps": 6, "learning_rate": 0.01}
ON_POLICY |= {"cutoff_len": 256, "start_from": "filtered", "teacher": {"source": "unfiltered", "worked_examples": 0}}
ON_POLICY |= {"max_new_tokens": 12, "temperature": 1.0, "top_k": 0, "beta": 1.0}
ZERO2 = "profiles/deepspeed/ds_z2_config.json"


def sums(count: int) -> list[Conversation]:
    return [
        Conversation(
            SYSTEM, f"What is {n} + 5?", f"<think>\n\n{n} + 5 = {n + 5}</think>\n\n<answer>\n\n{n + 5}</answer>"
        )
        for n in range(count)
    ]


def write_sharegpt(folder: Path, rows: list[Conversation]) -> Path:
    """A dataset's folder as convert writes it."""
    folder.mkdir()
    samples = [
        {
            "system": row.system,
            "conversations": [{"from": "user", "value": row.user}, {"from": "assistant", "value": row.assistant}],
        }
        for row in rows
    ]
    (folder / f"{folder.name}.json").write_text(json.dumps(samples))
    (folder / "dataset_info.json").write_text(
        json.dumps({folder.name: {"tags": external_inputs.TAGS | {"system_tag": "s"}}})
    )
    return folder


def params_of(kind: str, path: Path, student: Path, changes: dict[str, Any] | None = None) -> Path:
    """params.yaml with a trainer on the tiny student, and these values."""
    values: dict[str, Any] = {
        "train.trainer.kind": kind,
        "train.finetuning.kind": "full",
        "train.student.kind": "path",
        "train.student.name": str(student),
        "train.system_prompt": "as_system",
        "run.threads": 1,
        "run.checkpoint_steps": None,
        "run.resume": False,
    }
    write_changed_params(ROOT / "params.yaml", values | (changes or {}), path)
    return path


def job_of(params_path: Path, out: Path, rows: list[Conversation] | None = None) -> Job:
    """A training of the arm 'filtered', not begun."""
    read = load_params(params_path)
    student, arm = Path(read.train.student.name), read.arms["filtered"]
    folder = params_path.parent / "rows"
    folder.mkdir(exist_ok=True)
    return Job("filtered", rows or sums(10), student, read.train, arm, read.run, read.convert.markers, out, rows=folder)


def stored(job: Job, folder: Path) -> Job:
    """The job with the tokens of its rows in a folder, as TRL's processes get it."""
    from stages.lib.tokens.table import tokenized
    from stages.lib.tokens.tokenizer import aligned_tokenizer

    folder.mkdir(exist_ok=True)
    job = replace(job, rows=folder)
    return replace(job, conversations=tokenized(job, aligned_tokenizer(job)).conversations)


def trained_for_real(
    tmp_path_factory: pytest.TempPathFactory, variable: str, program: Path, params: Callable[[Path], Path]
) -> Iterator[tuple[Path, Result]]:
    """A folder in which an arm was trained by a real program: four epochs of ten rows of which one is too long.

    ``params`` writes params.yaml; ``variable`` names the program.
    """
    folder = tmp_path_factory.mktemp("trained") / "a 工作, space"
    folder.mkdir()
    options = train_options(folder, params(folder / "params.yaml"), rows_of_which_one_is_too_long())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv(variable, str(program))
        yield folder, CliRunner().invoke(train, options)


def train_options(tmp_path: Path, params: Path, rows: list[Conversation] | None = None) -> list[str]:
    dataset = tmp_path / "sums"
    if not dataset.exists():
        write_sharegpt(dataset, rows or sums(10))
    options = {"dataset": dataset, "model": tmp_path / "model", "metrics": tmp_path / "model.json"}
    options |= {"left-out": tmp_path / "model.left_out.jsonl", "loss": tmp_path / "model.csv", "params": params}
    return ["--arm", "filtered", *(text for name, path in options.items() for text in (f"--{name}", str(path)))]


def found_of(stage: subprocess.Popen[Any], tmp_path: Path, pattern: str) -> Path:
    """What a running stage writes in its scratch folder, as soon as it is there."""
    deadline = time.monotonic() + 300
    while not (found := sorted((tmp_path / ".cache" / "training" / "filtered").glob(pattern))):
        assert stage.poll() is None, "it ended before"
        if time.monotonic() > deadline:
            stage.kill()
            pytest.fail(f"no {pattern} within 300 s")
        time.sleep(0.002)
    return found[0]


def kill_all(stage: subprocess.Popen[Any]) -> None:
    """Kill a stage and all that it started, as a machine that goes down does."""
    started = descendants(stage.pid)
    assert started
    for pid in [stage.pid, *started]:
        os.kill(pid, signal.SIGKILL)
    stage.wait()
    for pid in started:  # until the last of its threads is dead it holds the lock
        while not is_dead(pid):
            time.sleep(0.01)


def is_dead(pid: int) -> bool:
    """Whether no thread of a process is left, or none but its first, which waits to be told of (Linux)."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended meanwhile: look again
        return False
    return all("State:\tZ" in text for text in texts)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started (Linux)."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for text in texts for child in text.split()]
    return [each for child in children for each in (child, *descendants(child))]


def error_of(result: Result, tmp_path: Path) -> str:
    """The error of a training that failed, the last line on stderr; no model may be left."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert not (tmp_path / "model").exists()
    return line.removeprefix("Error: ")


def installed(program: Path, target: str) -> Path:
    """A trainer's own program; without it the tests are skipped, but never where CI=true."""
    if not program.is_file():
        missing = f"no {program.relative_to(ROOT)}: 'make {target}' makes it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return program


def rows_of_which_one_is_too_long() -> list[Conversation]:
    """Ten rows."""
    rows = sums(10)
    rows[3] = Conversation(SYSTEM, "Why?", "so " * 2000)
    return rows


def assert_loads_and_answers(saved: Path, older_student: Path) -> Any:
    """Saved weights differ from the student's, and answer; the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, student = (AutoModelForCausalLM.from_pretrained(each) for each in (saved, older_student))
    weights, before = model.state_dict(), student.state_dict()
    assert weights.keys() == before.keys()
    assert any(not weights[name].equal(before[name]) for name in weights)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    prompt = tokenizer.apply_chat_template(sums(1)[0].messages()[:-1], add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]
    return tokenizer


def counted(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics of the training of ten rows in FOUR_EPOCHS, checked, and its run facts."""
    metrics = json.loads((folder / "model.json").read_text())
    assert (metrics["rows"], metrics["rows_too_long"], metrics["share_over_cutoff_len"]) == (9, 1, 0.1)
    assert (metrics["steps"], metrics["epochs"], metrics["effective_batch"]) == (20, 4.0, 2)
    assert metrics["last_loss"] < metrics["first_loss"]
    points = (folder / "model.csv").read_text().splitlines()[1:]
    assert [point.split(",")[0] for point in points] == [str(step) for step in range(1, 21)]
    assert metrics["tokens_trained"] < metrics["tokens_seen"]
    return metrics, json.loads((folder / "metrics" / "runs" / "train-filtered.json").read_bytes())


def killed_after_a_checkpoint(tmp_path: Path, arguments: list[str]) -> Path:
    """Start the stage, kill it and all that it started once two checkpoints are there; the newest whole one."""
    stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    output = found_of(stage, tmp_path, "*/output/checkpoint-4").parent  # then the one before is whole
    kill_all(stage)
    assert not (tmp_path / "model").exists()
    newest = last_checkpoint(output)
    assert newest is not None
    assert_curve_grew(tmp_path)
    return newest


def assert_curve_grew(tmp_path: Path, name: str = "model") -> None:
    """The loss curve of a training that was killed has the steps that it had done, each once."""
    header, *lines = (tmp_path / f"{name}.csv").read_text().splitlines()
    assert header == "step,loss,learning_rate"
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert lines


def assert_resumes_to_the_same_bytes(
    tmp_path: Path, arguments: list[str], newest: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, metrics and loss curve are the same bytes as without the kill: no tolerance, on one machine's CPU."""
    step = newest.name.removeprefix("checkpoint-")
    caplog.set_level("INFO", "distillery")
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert f"resuming from step {step} " in caplog.text
    for path in [*(undisturbed / "model").iterdir(), *undisturbed.glob("model.*")]:
        assert path.read_bytes() == (tmp_path / path.relative_to(undisturbed)).read_bytes(), path.name
    runs = json.loads((tmp_path / "metrics" / "runs" / "train-filtered.json").read_bytes())
    assert runs["resumed_at"] == int(step)


def conversations_of_all_kinds() -> list[Conversation]:
    """Two sums, a long system text with Chinese, and several turns."""
    long = Conversation(prompt_text("still2"), "小明有 3 个苹果，又买了 4 个。How many?", "3 + 4 = 7\n\n**7**")
    several = Conversation(SYSTEM, "Goodbye", "Goodbye!", (("What is up?", "Hello!"), ("小明是谁？", "我不知道。")))
    return [*sums(2), long, several]


def assert_trains_on_the_answers_tokens(own: OwnTokens, program: Path, job: Job, seen: list[dict[str, Any]]) -> None:
    """What a trainer itself makes of a ChatML job's rows: the prompts of evaluation, and a loss on answers alone.

    ``seen`` are the rows that its own training would read, ``{"ids": …, "labels": …}``, in any order.
    """
    tokenizer = aligned_tokenizer(job)
    tokenizer.eos_token = end_of_turn(job, tokenizer)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    rows = {tuple(row["ids"]): row["labels"] for row in seen}
    assert len(rows) == job.shape.rows
    for row in job.conversations:
        answer = tokenizer(row.assistant, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] + newline
        prompt = tokenizer.apply_chat_template(row.messages()[:-1], add_generation_prompt=True, return_dict=False)
        labels = rows[(*prompt, *answer)]
        assert labels[len(prompt) :] == answer
        earlier = [label for label in labels[: len(prompt)] if label != -100]
        texts = [f"{text}<|im_end|>\n" for text in row.answers[:-1]] if job.train.loss_on == "every" else []
        assert tokenizer.decode(earlier) == "".join(texts)
        assert row.system in tokenizer.decode(prompt)
    measured = measured_rows(own, job, str(program), tokenizer)
    assert measured.tokens == sum(map(len, rows))


def assert_leaves_whole_just_where_we_say(own: OwnTokens, program: Path, job: Callable[..., Job]) -> None:
    """A row of just ``cutoff_len`` tokens fits, one more does not."""
    row = sums(1)[0]
    tokenizer = aligned_tokenizer(job())
    alone = measured_rows(own, job(rows=[row]), str(program), tokenizer)
    exact = job({"arms.filtered.cutoff_len": alone.tokens}, [row])
    assert measured_rows(own, exact, str(program), tokenizer).rows == 1
    shorter = job({"arms.filtered.cutoff_len": alone.tokens - 1}, [row])
    with pytest.raises(TrainingError, match="all 1 conversations are longer"):
        measured_rows(own, shorter, str(program), tokenizer)


@dataclass(frozen=True)
class Uncompiled:
    """A trainer for DeepSpeed on a CPU: its program, a script that trains by a YAML, and its params."""

    program: Path
    script: str
    params: Callable[..., Path]

    def command(self, folder: Path) -> str:
        """Two processes of the script. DeepSpeed would compile C++ to share memory between ranks."""
        path = folder / "uncompiled.py"
        path.write_text(
            f'from deepspeed import ops\n\nops.__compatible_ops__["deepspeed_shm_comm"] = False\n{self.script}'
        )
        return f"'{self.program.parent / 'torchrun'}' --nproc_per_node 2 '{path}' {{yaml}}"


def assert_merges_an_adapter_trained_with_zero_2(
    tmp_path: Path, own: Uncompiled, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes train an adapter; it is merged, and its modules are not the student's."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("OPENMIND_SRC", str(ROOT))
    changes: dict[str, Any] = {"train.deepspeed": ZERO2, "train.trainer.command": own.command(tmp_path)}
    changes |= {"train.finetuning.kind": "lora", "arms.filtered.max_steps": 4, "train.per_device_train_batch_size": 1}
    params = own.params(tmp_path / "params.yaml", student, changes)
    result = CliRunner().invoke(train, train_options(tmp_path, params))
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert (metrics["steps"], metrics["effective_batch"]) == (4, 2)
    assert "zero" in (tmp_path / ".cache" / "training" / "filtered.log").read_text().lower()
    assert not list((tmp_path / "model").glob("adapter*"))
    model, before = (AutoModelForCausalLM.from_pretrained(each) for each in (tmp_path / "model", student))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not model.state_dict()[name].equal(before.state_dict()[name])
