"""What runs side by side, in DVC's own order, and that order in dvc.lock.

    plan(["train"])     → Plan(first=("collect", …, "convert@filtered"), needs={"train@filtered": (), …}, rest=(), …)

DVC appends the entry of a stage that never ran to dvc.lock. So the entries of stages that run side by side would be in
the order in which they end; ``sort_lock`` puts the new ones in the order of a serial run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.command import DistilleryError

LOCK = Path("dvc.lock")
# the stages that compute on a device of their own
GROUPS = ("train", "train-on-policy", "evaluate", "evaluate-base", "evaluate-on-policy")


class PlanError(DistilleryError):
    """DVC cannot say what to run."""


@dataclass(frozen=True)
class Plan:
    """Stages by name. ``needs`` has those that run side by side, each with those among them that it waits for.

    ``first`` and ``rest`` run one after another, before and after. ``order`` is that of a serial run.
    """

    first: tuple[str, ...]
    needs: dict[str, tuple[str, ...]]
    rest: tuple[str, ...]
    order: tuple[str, ...]


def plan(targets: list[str]) -> Plan:
    """What ``dvc repro --glob TARGETS`` would check, divided; without targets, the whole pipeline."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, plan_repro

    try:
        with Repo() as repo:
            if Path(repo.root_dir) != Path.cwd():
                raise PlanError(f"{Path.cwd()}: not the project's folder. Run this in {repo.root_dir}.")
            graph = repo.index.graph
            asked = collect_stages(repo, targets, glob=True) if targets else collect_stages(repo, ["dvc.yaml"])
            order = names(plan_repro(graph, asked))
            # the stages that each one needs, directly or through others
            needed = {each.addressing: {*names(plan_repro(graph, [each]))} - {each.addressing} for each in graph}
    except DvcException as error:
        raise PlanError(f"DVC says: {error}. Run 'make check'.") from error
    parallel = [name for name in order if name.partition("@")[0] in GROUPS]
    before = {name for each in parallel for name in needed[each]} - {*parallel}
    if any(needed[name] & {*parallel} for name in before):
        raise PlanError("dvc.yaml: a stage between training and evaluation cannot run side by side. Leave JOBS out.")
    return Plan(
        first=tuple(name for name in order if name in before),
        needs={name: tuple(each for each in parallel if each in needed[name]) for name in parallel},
        rest=tuple(name for name in order if name not in before and name not in parallel),
        order=tuple(order),
    )


def names(stages: Iterable[Any]) -> list[str]:
    """DVC's names of stages."""
    return [stage.addressing for stage in stages]


def locked_names() -> list[str]:
    """The stages in dvc.lock, in its order."""
    return list(_content().get("stages", {}))


def sort_lock(before: list[str], order: tuple[str, ...]) -> None:
    """Keep the entries that were there ``before`` where they are, and put the new ones in ``order`` after them."""
    from dvc.repo import Repo
    from dvc.utils.serialize import dump_yaml

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        content = _content()
        stages = content.get("stages", {})
        known = {name: place for place, name in enumerate([*before, *(name for name in order if name not in before)])}
        arranged = sorted(stages, key=lambda name: known.get(name, len(known)))
        if arranged != list(stages):
            content["stages"] = {name: stages[name] for name in arranged}
            dump_yaml(str(LOCK), content)


def _content() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = YAML(typ="safe").load(LOCK.read_bytes()) if LOCK.is_file() else {}
    return found
