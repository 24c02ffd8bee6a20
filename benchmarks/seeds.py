"""Run the embedded profile with several seeds: does training change the score, and does filtering?

    python -m benchmarks.seeds --seeds 3,4,5
    python -m benchmarks.seeds --seeds 0 --arms unfiltered --set train.per_device_train_batch_size=2

For each seed, everything random is drawn again: training questions, held-out questions, the teacher's slips, the
control set, the order of training. There are five arms: unfiltered, filtered and the random control for one epoch, and
the latter two for as many steps as unfiltered. Each stage runs as ``dvc repro`` would run it, in .cache/seeds/;
existing results are not computed again. The differences are pooled over the questions of all seeds. Each seed's own
difference is shown too, because a pooled interval does not include the variation between trainings.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from stages.lib.comparison.table import p_value, points, signed
from stages.lib.statistics.paired import paired_difference, proportion

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE = 0.95
PAIRS = [
    ("unfiltered", "base"),
    ("filtered", "base"),
    ("control", "base"),
    ("filtered", "unfiltered"),
    ("filtered", "control"),
    ("filtered-equal-steps", "unfiltered"),
    ("filtered-equal-steps", "control-equal-steps"),
]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--seeds", default="3,4,5", show_default=True)
@click.option("--arms", default="", help="Only these arms, by name  [default: all five]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A value of params.yaml to change.")
def main(seeds: str, arms: str, settings: tuple[str, ...]) -> None:
    folders = {seed: run_seed(int(seed), arms, settings) for seed in seeds.split(",")}
    print(markdown({seed: read_scores(folder) for seed, folder in folders.items()}))


def run_seed(seed: int, arms: str, settings: tuple[str, ...]) -> Path:
    """Run the chain for one seed; return its folder."""
    params = seed_params(seed, settings)
    folder = ROOT / ".cache" / "seeds" / f"{seed}-{fingerprint(params)}"
    folder.mkdir(parents=True, exist_ok=True)
    params["arms"] = all_arms(params["arms"]["unfiltered"], steps=1)
    write_params(folder, params)
    make_datasets(folder)
    evaluate(folder, "base", None)
    for name in arms.split(",") if arms else params["arms"]:
        if params["arms"][name]["max_steps"]:  # as many as the unfiltered arm took
            steps = json.loads((folder / "train-unfiltered.json").read_text())["steps"]
            params["arms"][name]["max_steps"] = steps
            write_params(folder, params)
        train(folder, name, params["arms"][name]["dataset"])
        evaluate(folder, name, folder / "models" / name)
    return folder


def fingerprint(params: dict[str, Any]) -> str:
    """A hash of the params and of the stages' source, so that results of another version are not reused."""
    sources = b"".join(path.read_bytes() for path in sorted((ROOT / "stages").rglob("*.py")))
    return hashlib.sha256(json.dumps(params).encode() + sources).hexdigest()[:8]


def seed_params(seed: int, settings: tuple[str, ...]) -> dict[str, Any]:
    """params.yaml with all its seeds derived from this one."""
    params: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["collect"]["source"] |= {"seed": seed * 1_000_000, "heldout_seed": seed * 1_000_000 + 500_000}
    params["distill"]["teacher"]["seed"] = seed
    params["filter"]["control_seed"] = seed
    params["train"]["seed"] = seed
    params["evaluate"]["seed"] = seed
    for setting in settings:
        key, _, value = setting.partition("=")
        *path, last = key.split(".")
        section = params
        for part in path:
            section = section[part]
        section[last] = YAML(typ="safe").load(value)
    return params


def all_arms(arm: dict[str, Any], steps: int) -> dict[str, Any]:
    """The five arms, which differ only in dataset and length."""
    equal = arm | {"max_steps": steps}
    return {
        "unfiltered": arm | {"dataset": "unfiltered"},
        "filtered": arm | {"dataset": "filtered"},
        "control": arm | {"dataset": "control"},
        "filtered-equal-steps": equal | {"dataset": "filtered"},
        "control-equal-steps": equal | {"dataset": "control"},
    }


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """Write the params file for the stages of this seed."""
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)


def make_datasets(folder: Path) -> None:
    """Run collect → difficulty → distill → filter → convert."""
    names = ("collected", "questions", "too_easy", "heldout", "left_out", "distilled", "failures")
    rows = {name: folder / f"{name}.jsonl" for name in names}
    kept = {name: folder / f"{name}.jsonl" for name in ("filtered", "rejected", "control", "disagreements")}
    collected = {name: rows[name] for name in ("heldout", "left_out")}
    stage(folder, "collect", {"questions": rows["collected"], **collected})
    stage(folder, "difficulty", {name: rows[name] for name in ("collected", "questions", "too_easy")})
    stage(folder, "distill", {name: rows[name] for name in ("questions", "distilled", "failures")})
    stage(folder, "filter", {"distilled": rows["distilled"], **kept})
    for name, path in (("unfiltered", rows["distilled"]), ("filtered", kept["filtered"]), ("control", kept["control"])):
        stage(folder, "convert", {"rows": path, "out": folder / "sharegpt" / name}, f"convert-{name}")


def train(folder: Path, name: str, dataset: str) -> None:
    """Run one arm's training."""
    stage(folder, "train", training(folder, name, dataset), f"train-{name}")


def training(folder: Path, name: str, dataset: str) -> dict[str, Any]:
    """The options of the stage train, without params and metrics."""
    paths = {"dataset": folder / "sharegpt" / dataset, "model": folder / "models" / name}
    return {"arm": name, **paths, "left-out": folder / f"{name}.left_out.jsonl", "loss": folder / f"{name}.loss.csv"}


def evaluate(folder: Path, name: str, model: Path | None) -> None:
    """Run one arm's evaluation."""
    stage(folder, "evaluate", evaluation(folder, name, model), f"evaluate-{name}")


def evaluation(folder: Path, name: str, model: Path | None) -> dict[str, Any]:
    """The options of the stage evaluate, without params and metrics."""
    made = {"scores": ".scores.csv", "answers": ".jsonl", "examples": ".examples.jsonl"}
    paths = {option: folder / f"{name}{suffix}" for option, suffix in made.items()}
    return {"arm": name, "heldout": folder / "heldout.jsonl", **paths, **({"model": model} if model else {})}


def stage(folder: Path, name: str, options: dict[str, Any], log: str = "") -> None:
    """Run one stage as a process with its own log file, unless its metrics exist already."""
    log = log or name
    if (folder / f"{log}.json").exists():
        return
    options |= {"metrics": folder / f"{log}.json", "params": folder / "params.yaml"}
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    print(f"{folder.name}: {log}", file=sys.stderr)
    with (folder / f"{log}.log").open("w") as output:
        command = [sys.executable, "-m", f"stages.{name}", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, env=environment, check=False).returncode:
            raise click.ClickException(f"{folder / log}.log: the stage failed; its last lines say why.")


def read_scores(folder: Path) -> dict[str, list[bool]]:
    """Right or wrong, by arm, in the order of the questions."""
    scores = {}
    for path in sorted(folder.glob("*.scores.csv")):
        with path.open() as file:
            scores[path.name.removesuffix(".scores.csv")] = [row["correct"] == "1" for row in csv.DictReader(file)]
    return scores


def markdown(seeds: dict[str, dict[str, list[bool]]]) -> str:
    """Accuracy by arm and seed, then the differences over all seeds."""
    arms = [arm for arm in ["base", *all_arms({}, 0)] if all(arm in scores for scores in seeds.values())]
    lines = [
        f"| arm | {' | '.join(f'seed {seed}' for seed in seeds)} | all | 95 % interval |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    for arm in arms:
        pooled = proportion([right for scores in seeds.values() for right in scores[arm]], CONFIDENCE)
        each = " | ".join(points(share(scores[arm])) for scores in seeds.values())
        interval = f"{points(pooled.low)} – {points(pooled.high)}"
        lines.append(f"| {arm} | {each} | **{points(pooled.accuracy)}** | {interval} |")
    lines += [
        "",
        f"| paired difference | {' | '.join(f'seed {seed}' for seed in seeds)} | all | 95 % interval | p | n |",
    ]
    lines += ["|---" * (len(seeds) + 5) + "|"]
    for first, second in PAIRS:
        if first in arms and second in arms:
            both = [[right for scores in seeds.values() for right in scores[arm]] for arm in (first, second)]
            result = paired_difference(both[0], both[1], CONFIDENCE)
            interval = f"{signed(result.low)} – {signed(result.high)}"
            each = " | ".join(signed(share(scores[first]) - share(scores[second])) for scores in seeds.values())
            found = f"{each} | **{signed(result.difference)}** | {interval} | {p_value(result.p)} | {result.n}"
            lines.append(f"| {first} − {second} | {found} |")
    return "\n".join(lines)


def share(right: list[bool]) -> float:
    """The share of True."""
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
