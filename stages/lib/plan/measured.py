"""Yields and lengths that a run of the same settings measured, from its metrics.

measured(Path("metrics"), params, Path("params.yaml"))    → {"yield.right": Unit(low=0.58, mid=0.66, …), …}
"""

from pathlib import Path
from typing import Any

from stages.lib.params import Params, load_params
from stages.lib.plan.units import Unit
from stages.lib.rows import read_json

SAME = ("collect", "distill", "filter", "convert")  # sections that shape them, the number of questions aside
CONFIDENCE = 0.95


def measured(metrics: Path, params: Params, made_with: Path) -> dict[str, Unit]:
    """The units that the metrics give; empty if there are none, or if they were made with other settings."""
    if not _is_same(params, made_with) or not (metrics / "filter.json").is_file():
        return {}
    files = [metrics / f"{name}.json" for name in ("collect", "difficulty", "distill", "filter")]
    collect, difficulty, distill, kept = (read_json(path, "Run 'dvc repro' to rebuild it.") for path in files)
    requests, answered = distill["in"], distill["distilled"]
    heldout = collect["in"] - collect["questions"] - sum(collect["left_out"].values())
    found = {
        "yield.collected": _share(collect["questions"], collect["in"] - heldout - _of_heldout(collect, params)),
        "yield.answered": _share(answered, requests),
        "yield.right": _share(kept["kept"], kept["in"]),
        "prompt_tokens": _mean(distill["prompt_tokens"], requests),
        "answer_tokens": _mean(distill["completion_tokens"], requests),
    }
    if difficulty["asked"]:
        found["yield.hard"] = _share(difficulty["kept"], difficulty["in"])
    if kept["judge_asked"]:
        found["yield.judged"] = _share(kept["judge_asked"], kept["in"])
    rows, tokens = _converted(metrics, params)
    if rows:
        found["row_tokens"] = _mean(tokens, rows)
    return {name: unit for name, unit in found.items() if unit}


def _is_same(params: Params, made_with: Path) -> bool:
    """Whether the settings are those of the file that the metrics belong to."""
    if not made_with.is_file():
        return False
    other = load_params(made_with)
    return all(_settings(params, name) == _settings(other, name) for name in SAME)


def _settings(params: Params, section: str) -> dict[str, Any]:
    return {name: value for name, value in getattr(params, section).model_dump().items() if name != "train_size"}


def _of_heldout(collect: dict[str, Any], params: Params) -> int:
    """Questions left out among the held-out ones: what params asked for and the stage did not write."""
    return max(0, params.collect.heldout_size - int(collect["heldout"]))


def _converted(metrics: Path, params: Params) -> tuple[int, int]:
    """Rows and tokens of the teacher's answers as conversations."""
    for name, dataset in params.datasets.items():
        path = metrics / "convert" / f"{name}.json"
        if dataset.rows == "data/distilled.jsonl" and path.is_file():
            found = read_json(path, "Run 'dvc repro convert' to rebuild it.")
            return found["rows"], found["tokens"]["sum"]
    return 0, 0


def _share(count: int, of: int) -> Unit | None:
    from stages.lib.statistics.shares import wilson_interval

    if not of:
        return None
    low, high = wilson_interval(count, of, CONFIDENCE)
    source = f"metrics of a run: {count} of {of}, with the 95 % interval of the share"
    return Unit(low=min(low, count / of), mid=count / of, high=max(high, count / of), kind="measured", source=source)


def _mean(total: int, count: int) -> Unit | None:
    if not count:
        return None
    value = total / count
    return Unit(
        low=value, mid=value, high=value, kind="measured", source=f"metrics of a run: {total:,} of {count:,} rows"
    )
