"""Measure the overhead of our stage over lm-eval alone: same tiny student, questions and settings, separate processes.

    python -m benchmarks.evaluation --questions 200

The student generates 32 meaningless tokens in almost no time, so the rest is measured: the start, the cache, the second
score, the audit and the rows. Generated questions in the form of GSM8K are in .cache/benchmarks/evaluation.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, Used, machine, measured, table
from tests.tiny_student import build_tiny_student

FOLDER = ROOT / ".cache" / "benchmarks" / "evaluation"
ALONE = """
import json, sys
from pathlib import Path
import lm_eval
from lm_eval.tasks import TaskManager

student, limit, out = sys.argv[1:]
tasks = TaskManager(include_path=str(Path(lm_eval.__file__).parent / "tasks" / "gsm8k"), include_defaults=False)
results = lm_eval.simple_evaluate(
    model="hf",
    model_args={"pretrained": student, "dtype": "float32"},
    device="cpu",
    batch_size=50,
    tasks=["gsm8k"],
    task_manager=tasks,
    num_fewshot=0,
    limit=int(limit),
    gen_kwargs={"max_gen_toks": 32, "until": ["<|im_end|>"]},
    apply_chat_template=True,
)
samples = results.pop("samples")
Path(out).write_text(json.dumps({"results": results["results"], "samples": samples}, default=str))
"""


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--questions", default=200, show_default=True, help="How many are asked.")
def main(questions: int) -> None:
    click.echo(f"{machine()}\n")
    FOLDER.mkdir(parents=True, exist_ok=True)
    student, eval_data = FOLDER / "student", made_questions(FOLDER / "eval_data")
    build_tiny_student(student)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DVC_ROOT": str(FOLDER), "TQDM_DISABLE": "1"}
    offline |= {"HF_HOME": str(FOLDER / "huggingface"), "OMP_NUM_THREADS": "1"}
    code = f"import os; os.chdir({str(eval_data)!r})\n{ALONE}"
    alone = [sys.executable, "-c", code, str(student), str(questions), str(FOLDER / "alone.json")]
    ours = ours_command(student, eval_data, questions)
    rows = [
        ("lm-eval alone", measured(alone, FOLDER / "alone.log", offline)),
        ("our stage", measured(ours, FOLDER / "ours.log", offline)),
        ("our stage, all answers kept", measured(ours, FOLDER / "kept.log", offline)),
    ]
    click.echo(f"{questions} questions, 32 tokens each:\n")
    click.echo(overhead(rows))


def overhead(rows: list[tuple[str, Used]]) -> str:
    """The figures of each row, and its CPU time as a multiple of the first row's."""
    first = rows[0][1]
    lines = [
        [name, f"{used.wall_s:.1f}", f"{used.cpu_s:.1f}", f"{used.peak_mb:.0f}", f"{used.cpu_s / first.cpu_s:.2f}"]
        for name, used in rows
    ]
    return table(["way", "seconds", "CPU-s", "peak MB", "CPU, × lm-eval alone"], lines)


def ours_command(student: Path, eval_data: Path, questions: int) -> list[str]:
    """The command of the stage on GSM8K alone, after the cache was removed."""
    shutil.rmtree(FOLDER / ".cache", ignore_errors=True)
    yaml = YAML(typ="safe")
    params: dict[str, Any] = yaml.load((ROOT / "params.yaml").read_text())
    params["evaluate"] |= {"benchmarks": ["gsm8k"], "num_fewshot": {"gsm8k": 0}, "limit": questions}
    params["evaluate"] |= {"max_gen_toks": 32}
    params["evaluate"]["backend"]["batch_size"] = 50
    params["run"]["threads"] = 1
    with (FOLDER / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    row = {"id": "one", "question": "What is 2 + 3?", "answer": "5"}
    (FOLDER / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    words = ["--arm", "tiny", "--model", student, "--heldout", FOLDER / "heldout.jsonl", "--eval-data", eval_data]
    words += ["--params", FOLDER / "params.yaml"]
    for kind in ("metrics", "scores", "answers", "examples"):
        words += [f"--{kind}", FOLDER / f"tiny.{kind}"]
    return [sys.executable, "-m", "stages.evaluate", *(str(word) for word in words)]


def made_questions(folder: Path) -> Path:
    """Generated questions in the form of GSM8K, in the layout of data/eval_data."""
    data = folder / "openai" / "gsm8k"
    data.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"What is {n} + {n + 1}?", "answer": f"#### {2 * n + 1}"} for n in range(1319)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text(text)
    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("train", "test")]
    card = json.dumps({"configs": [{"config_name": "main", "data_files": files}]})
    (data / "README.md").write_text(f"---\n{card}\n---\n")
    return folder


if __name__ == "__main__":
    main()
