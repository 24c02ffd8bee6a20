"""Train and evaluate the arms of a params file again with other seeds: how much do two trainings of an arm differ?

    python -m benchmarks.seeds --seeds 3,4,5
    python -m benchmarks.seeds --params profiles/ascend.yaml --seeds 3,4,5 --arms filtered,control
    python -m benchmarks.seeds --seeds 3,4,5 --arms unfiltered,filtered,control --equal-steps unfiltered

Each seed has a copy of the project in .cache/seeds/SEED with its own params.yaml. There ``dvc repro`` runs what the
seed changes, from the shared cache and the shared store of received answers: nothing finished is run again. The
differences of all seeds are written to metrics/seeds.json, which ``compare`` reads, and printed as two tables; a third
has the divergence of on-policy arms from their teachers, first and last.
docs/seeds.md says which seeds of a params file are varied, and why no paid answer is requested.
"""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from stages.lib.command import DistilleryError, one_line_errors
from stages.lib.comparison.table import interval_over, p_value, points, signed
from stages.lib.files.shards import parts_of
from stages.lib.pairs import pairs_of
from stages.lib.params import HELDOUT, Compare, Params, load_params
from stages.lib.rows import write_json
from stages.lib.statistics.evaluations import Answers, read_answers
from stages.lib.statistics.noise import error_of, over_trainings
from stages.lib.statistics.paired import paired_difference, proportion
from stages.lib.statistics.trainings import DRAWN, SAME, Seeds, scores_hash

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE = 0.95
EQUAL = "-equal-steps"
# of ROOT, what a copy does not need or makes itself
APART = {".git", ".cache", ".dvc", "data", "models", "metrics", "report", "dvc.lock", "params.yaml"}
OWN = "own"  # the params file's own run, where it is none of the seeds


class SeedsError(DistilleryError):
    """A run over seeds that cannot start or did not end."""


@dataclass(frozen=True)
class Run:
    """A seed's finished run: its params, right or wrong by arm, benchmark and question, and that by arm as a hash.

    ``divergence`` has, by on-policy arm, the mean divergence from its teacher at each step.
    """

    seed: str
    params: Params
    answers: dict[str, dict[str, Answers]]
    hashes: dict[str, str]
    heldout: bytes
    divergence: dict[str, list[float]]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--seeds", default="3,4,5", show_default=True, help="Numbers, with commas between.")
@click.option(
    "--params", "params_path", type=click.Path(path_type=Path), default=Path("params.yaml"), show_default=True
)
@click.option("--arms", default="", help="Arms or datasets, by name  [default: the params file's arms]")
@click.option("--equal-steps", "reference", metavar="ARM", help="Train the others for as many steps as this arm, too.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A value of the params file to change.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "metrics" / "seeds.json", show_default=True)
@one_line_errors
def main(seeds: str, params_path: Path, arms: str, reference: str | None, settings: tuple[str, ...], out: Path) -> None:
    params = chosen_params(params_path, arms, settings)
    if reference and reference not in params["arms"]:
        raise SeedsError(f"--equal-steps: '{reference}' is none of the arms {', '.join(params['arms'])}.")
    values = {seed: seed_values(params, int(seed)) for seed in seeds.split(",")}
    own = next((seed for seed, each in values.items() if each == values_of(params, [*each])), OWN)
    values = ({OWN: {}} if own == OWN else {}) | values
    runs = [run_seed(seed, each, params, reference) for seed, each in values.items()]
    write_json(out, summary(runs, own, list(seed_values(params, 0))).model_dump())
    click.echo(markdown(runs))


def chosen_params(path: Path, arms: str, settings: Sequence[str]) -> dict[str, Any]:
    """The params file with the settings and these arms alone; a dataset's name is an arm like the first, on it.

    With an on-policy arm come the arms that it starts from and learns from.
    """
    load_params(path)
    params: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    for setting in settings:
        key, _, value = setting.partition("=")
        put(params, key, YAML(typ="safe").load(value))
    like = next(iter(params["arms"].values()))
    known = params["arms"] | params["on_policy"]
    names = arms.split(",") if arms else list(known)
    for name in names:
        if name not in known and name not in params["datasets"]:
            found = ", ".join([*known, *params["datasets"]])
            raise SeedsError(f"--arms: {path} has no arm and no dataset '{name}'. It has {found}.")
    learning = {name: params["on_policy"][name] for name in names if name in params["on_policy"]}
    sources = {source for arm in learning.values() for source in (arm["start_from"], arm["teacher"]["source"])}
    before = [name for name in params["arms"] if name in sources and name not in names]
    first = [name for name in [*before, *names] if name not in learning]
    params["arms"] = {name: params["arms"].get(name) or {**like, "dataset": name} for name in first}
    params["on_policy"] = learning
    params["teachers"] = {name: model for name, model in params["teachers"].items() if name in sources}
    there, starts = ["base", *first, *learning], {name: arm["start_from"] for name, arm in learning.items()}
    pairs = pairs_of(Compare.model_validate(params["compare"]), there, starts)
    params["compare"]["pairs"] = [pair for pair in pairs if {*pair} <= {*there}]
    if not is_free(params):  # what the store has is enough; nothing more is bought for a seed
        params["run"]["offline"] = True
    return params


def put(params: dict[str, Any], key: str, value: Any) -> None:
    """Set a key that is named like ``train.seed``."""
    *path, last = key.split(".")
    section = params
    for part in path:
        section = section[part]
    section[last] = value


def is_free(params: dict[str, Any]) -> bool:
    """Whether other questions cost nothing: all models that are asked are in this project."""
    models = [params["distill"]["teacher"], params["filter"].get("judge")]
    models.append((params["collect"]["keep_hard"] or {}).get("backend"))
    return all(model["kind"] in ("embedded", "hf") for model in models if model)


def seed_values(params: dict[str, Any], seed: int) -> dict[str, int]:
    """The keys of params.yaml that a seed determines, with their values.

    The training's seed (order of the rows, dropout, LoRA's first weights) and the control's are always among them.
    Questions, and the answers of models to them, are drawn again only where they cost nothing; a source without a seed
    has the same questions for all.
    """
    values = {"train.seed": seed, "filter.control_seed": seed}
    if not is_free(params):
        return values
    for key in ("source", "heldout_source"):
        source = params["collect"][key] or {}
        if source.get("kind") == "chain_sum":
            values |= {
                f"collect.{key}.seed": seed * 1_000_000,
                f"collect.{key}.heldout_seed": seed * 1_000_000 + 500_000,
            }
        elif source.get("shuffle_seed") is not None:
            values[f"collect.{key}.shuffle_seed"] = seed
    models = {
        "collect.keep_hard.backend.seed": (params["collect"]["keep_hard"] or {}).get("backend"),
        "distill.teacher.seed": params["distill"]["teacher"],
        "filter.judge.seed": params["filter"].get("judge"),
    }
    return values | {key: seed for key, model in models.items() if model and "seed" in model}


def values_of(params: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What the params file itself has there."""
    found = {}
    for key in keys:
        section: Any = params
        for part in key.split("."):
            section = section[part]
        found[key] = section
    return found


def run_seed(seed: str, values: dict[str, int], params: dict[str, Any], reference: str | None) -> Run:
    """Run the chain with these values in its copy of the project."""
    folder = ROOT / ".cache" / "seeds" / seed
    params = json.loads(json.dumps(params))
    for key, value in values.items():
        put(params, key, value)
    lay_out(folder)
    reproduce(folder, params)
    if reference:
        add_equal_arms(folder, params, reference)
        reproduce(folder, params)
    arms = ["base", *params["arms"], *params["on_policy"]]
    answers = {arm: read_answers(folder / "metrics" / "eval" / f"{arm}.scores.csv") for arm in arms}
    hashes = {arm: scores_hash(folder / "metrics" / "eval", arm) for arm in arms}
    heldout = b"".join(part.read_bytes() for part in parts_of(folder / "data" / "heldout.jsonl", "Run it again."))
    divergence = {arm: curve_of(folder / "metrics" / "train" / f"{arm}.loss.csv") for arm in params["on_policy"]}
    return Run(seed, load_params(folder / "params.yaml"), answers, hashes, heldout, divergence)


def curve_of(path: Path) -> list[float]:
    """The loss of each step, of metrics/train/ARM.loss.csv."""
    with path.open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def lay_out(folder: Path) -> None:
    """Bring the copy of the project up to date; its results, and DVC's record of them, stay."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in tracked.split("\0") if name and name != "params.yaml" and (ROOT / name).is_file()]
    for name in names:
        if not name.startswith(("metrics/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "data" / "own", folder / "data" / "own", dirs_exist_ok=True)
    (folder / "metrics").mkdir(exist_ok=True)
    tops = {name.partition("/")[0] for name in names} | APART
    shared = [path.relative_to(ROOT) for path in ROOT.iterdir() if path.name not in tops]  # .env, weights, environments
    for made in ("data/store", ".cache/students"):
        (ROOT / made).mkdir(parents=True, exist_ok=True)
    for path in (Path("data/store"), Path(".cache/students"), *shared):
        (folder / path).parent.mkdir(exist_ok=True)
        if not (folder / path).is_symlink():
            (folder / path).symlink_to(ROOT / path)
    if not (folder / ".git").exists():  # a repository of its own, or the copy would be a part of ROOT's
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {ROOT / '.dvc' / 'cache'}\n")


def reproduce(folder: Path, params: dict[str, Any]) -> None:
    """Run what changed, up to the evaluations of the params' arms."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(params, file)
    load_params(folder / "params.yaml")
    targets = ["evaluate-base", *(f"evaluate@{arm}" for arm in params["arms"])]
    targets += [f"evaluate-on-policy@{arm}" for arm in params["on_policy"]]
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    click.echo(f"seeds: {folder.name}: dvc repro {' '.join(targets)}", err=True)
    command = ["dvc", "repro", *targets]
    if subprocess.run(command, cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, check=False).returncode:
        raise SeedsError(f"{folder}: dvc repro failed. Fix what it says, then run this again: what is finished stays.")


def add_equal_arms(folder: Path, params: dict[str, Any], reference: str) -> None:
    """One arm more for each that has other steps than the reference, and the pairs that compare them with it."""

    def steps(arm: str) -> int:
        return int(json.loads((folder / "metrics" / "train" / f"{arm}.json").read_text())["steps"])

    like = {arm: f"{arm}{EQUAL}" for arm in params["arms"] if steps(arm) != steps(reference)}
    params["arms"] |= {name: {**params["arms"][arm], "max_steps": steps(reference)} for arm, name in like.items()}
    pairs = [pair for pair in params["compare"]["pairs"] if "base" not in pair]
    equal = [[like.get(arm, arm) for arm in pair] for pair in pairs if {*pair} <= {*like, reference}]
    params["compare"]["pairs"] += [pair for pair in equal if pair not in params["compare"]["pairs"]]


def summary(runs: Sequence[Run], own: str, varied: list[str]) -> Seeds:
    """The content of metrics/seeds.json."""
    return Seeds(
        seeds=[run.seed for run in runs],
        varied=varied,
        own=next(run.hashes for run in runs if run.seed == own),
        questions={benchmark: questions(runs, benchmark) for benchmark in benchmarks(runs)},
        scores={
            arm: {name: [round(share(run.answers[arm][name]), 4) for run in runs] for name in benchmarks(runs)}
            for arm in arms(runs)
        },
        differences={
            f"{first}_vs_{second}": {name: differences(runs, first, second, name) for name in benchmarks(runs)}
            for first, second in pairs(runs)
        },
        errors={
            f"{first}_vs_{second}": {
                name: round(error(runs, paired(runs, first, second, name), name), 6) for name in benchmarks(runs)
            }
            for first, second in pairs(runs)
        },
        divergence={arm: [run.divergence[arm] for run in runs] for arm in runs[0].divergence},
    )


def benchmarks(runs: Sequence[Run]) -> list[str]:
    """The benchmarks with scores."""
    return list(runs[0].answers["base"])


def arms(runs: Sequence[Run]) -> list[str]:
    """The arms that every seed has: equal steps may need an arm of their own on one seed and not on another."""
    return [arm for arm in runs[0].answers if all(arm in run.answers for run in runs)]


def pairs(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """The pairs of the arms that every seed has."""
    for first, second in runs[0].params.compare.pairs or []:
        if {first, second} <= {*arms(runs)}:
            yield first, second


def questions(runs: Sequence[Run], benchmark: str) -> str:
    """Whether each seed has questions of its own: only held-out ones can be drawn again."""
    return DRAWN if benchmark == HELDOUT and len({run.heldout for run in runs}) > 1 else SAME


def share(answers: Answers) -> float:
    """The share of right answers."""
    return sum(answer.correct for answer in answers.values()) / len(answers)


def differences(runs: Sequence[Run], first: str, second: str, benchmark: str) -> list[float]:
    """The difference of a pair on each seed, as compare estimates it."""
    found = [paired([run], first, second, benchmark) for run in runs]
    return [round(each.difference, 4) for each in found]


def paired(runs: Sequence[Run], first: str, second: str, benchmark: str) -> Any:
    """The difference over the questions of these seeds; a question that several seeds have is one cluster."""
    apart = questions(runs, benchmark) == DRAWN
    one = [(run.seed, key, answer) for run in runs for key, answer in run.answers[first][benchmark].items()]
    other = [run.answers[second][benchmark][key].correct for run in runs for key in run.answers[first][benchmark]]
    clusters = [f"{seed}/{answer.cluster}" if apart else answer.cluster for seed, _, answer in one]
    return paired_difference([answer.correct for _, _, answer in one], other, CONFIDENCE, clusters)


def markdown(runs: Sequence[Run]) -> str:
    """The scores by arm and seed, then the differences, with an interval over trainings and one over questions."""
    heads = " | ".join(f"seed {run.seed}" for run in runs)
    lines = [f"| benchmark | arm | {heads} | all | 95 % interval |", "|---" * (len(runs) + 4) + "|"]
    for name in benchmarks(runs):
        for arm in arms(runs):
            each = " | ".join(points(share(run.answers[arm][name])) for run in runs)
            answers = [
                (f"{run.seed}/" * (questions(runs, name) == DRAWN), a)
                for run in runs
                for a in run.answers[arm][name].values()
            ]
            pooled = proportion(
                [a.correct for _, a in answers], CONFIDENCE, [f"{seed}{a.cluster}" for seed, a in answers]
            )
            interval = f"{points(pooled.low)} – {points(pooled.high)}"
            lines.append(f"| {name} | {arm} | {each} | **{points(pooled.accuracy)}** | {interval} |")
    head = " | over trainings" if len(runs) > 1 else ""
    lines += ["", f"| paired difference | benchmark | {heads} | all{head} | over questions | p | n |"]
    lines += ["|---" * (len(runs) + 6 + (len(runs) > 1)) + "|"]
    for first, second in pairs(runs):
        for name in benchmarks(runs):
            found, result = differences(runs, first, second, name), paired(runs, first, second, name)
            cells = [f"{first} − {second}", name, *map(signed, found), f"**{signed(result.difference)}**"]
            if len(runs) > 1:
                cells.append(over(found, error(runs, result, name)))
            cells += [f"{signed(result.low)} – {signed(result.high)}", p_value(result.p), str(result.n)]
            lines.append(f"| {' | '.join(cells)} |")
    if runs[0].divergence:
        lines += ["", f"| divergence from the teacher, first → last steps | {heads} |", "|---" * (len(runs) + 1) + "|"]
    for arm in runs[0].divergence:
        lines.append(f"| {arm} | {' | '.join(fall(run.divergence[arm]) for run in runs)} |")
    return "\n".join(lines)


def error(runs: Sequence[Run], pooled: Any, benchmark: str) -> float:
    """The standard error of one training's difference by its questions, from the difference over the questions of all.

    0 where all trainings have the same questions.
    """
    if questions(runs, benchmark) != DRAWN:
        return 0.0
    return float(error_of(pooled.difference, pooled.low, pooled.high, CONFIDENCE) * len(runs) ** 0.5)


def over(found: Sequence[float], error: float) -> str:
    """The interval of a difference over trainings, as compare computes it."""
    result = over_trainings(found, CONFIDENCE, error)
    return interval_over(result.low, result.high, result.spread)


def fall(curve: Sequence[float]) -> str:
    """The mean of the first steps and of the last ones, a quarter of all each."""
    few = max(1, len(curve) // 4)
    return f"{sum(curve[:few]) / few:.3f} → {sum(curve[-few:]) / few:.3f}"


if __name__ == "__main__":
    main()
