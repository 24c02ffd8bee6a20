"""lm-eval's own command on the published benchmarks: the same numbers as the stage's, to the last digit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.lib.params import prompt_text
from tests.benchmark_arms import ROOT, Arm
from tests.public_data import official
from tests.talking_student import taught
from tests.test_evaluate_benchmarks import ANATOMY, ZH, gathered
from tests.workspace import write_changed_params

TASKS = {"gsm8k": "gsm8k", ZH: "mgsm_native_cot_zh", ANATOMY: "mmlu_anatomy"}
ASKED = {
    "evaluate.benchmarks": list(TASKS),
    "evaluate.num_fewshot": {"gsm8k": 0},  # five examples are more than the tiny student can hold
    "evaluate.limit": 20,
    "evaluate.max_gen_toks": 64,
    "evaluate.backend.batch_size": 4,
    "evaluate.seed": 7,
    "run.threads": 1,
}


@pytest.fixture(scope="module")
def student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tiny_student, tmp_path_factory.mktemp("taught") / "student")


@pytest.fixture(scope="module")
def eval_data(development_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gathered(official(tmp_path_factory.mktemp("official")), tmp_path_factory.mktemp("gathered"))


@pytest.fixture(scope="module")
def arm(eval_data: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Arm:
    arm = Arm(tmp_path_factory.mktemp("arm"))
    write_changed_params(ROOT / "params.yaml", ASKED, arm.folder / "params.yaml")
    done = arm.run(arm.arguments(arm.folder / "params.yaml", student, eval_data))
    assert done.returncode == 0, done.stderr[-3000:]
    return arm


def by_command(task: str, student: Path, eval_data: Path, arm: Arm) -> dict[str, Any]:
    """``python -m lm_eval run`` in the folder of gathered questions, and the results that it wrote."""
    out = arm.folder / task
    model = ["--model", "hf", "--model_args", f"pretrained={student},dtype=float32,think_end_token=<answer>"]
    prompt = ["--apply_chat_template", "--system_instruction", prompt_text("brief")]
    answer = ["--gen_kwargs", "max_gen_toks=64", 'until=["<|im_end|>"]', "--seed", "7"]
    size = ["--limit", "20", "--batch_size", "4", "--device", "cpu", "--output_path", str(out)]
    shots = ["--num_fewshot", "0"] if task == "gsm8k" else []
    command = [sys.executable, "-m", "lm_eval", "run", "--tasks", task, *model, *prompt, *answer, *size, *shots]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, cwd=eval_data, env=arm.environment(offline), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = out.rglob("results_*.json")
    results: dict[str, Any] = json.loads(written.read_bytes())["results"]
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "task"), TASKS.items())
def test_lm_evals_own_command_gives_the_same_numbers_to_the_last_digit(
    benchmark: str, task: str, arm: Arm, student: Path, eval_data: Path
) -> None:
    found = by_command(task, student, eval_data, arm)
    assert arm.facts["lm_eval"][benchmark] == found
    numbers = [value for value in found[task].values() if isinstance(value, float)]
    assert numbers
    assert any(value > 0 for value in numbers), "a comparison of noughts would say little"
