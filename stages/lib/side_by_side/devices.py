"""The groups of cards of ``DEVICES="0-3 4-7"``, and the environment of the processes that compute on one of them.

    groups_of("0-3 4-7")    → [(0, 1, 2, 3), (4, 5, 6, 7)]

On a CPU the numbers are cores, to which the processes are bound.
"""

import os
import re

from stages.lib.command import DistilleryError
from stages.lib.params import Run
from stages.lib.runtime.devices import VISIBLE, split

PORTS_APART = 10  # between the MASTER_PORT of two groups
RANGE = re.compile(r"(\d+)(?:-(\d+))?")

Group = tuple[int, ...]


class DevicesError(DistilleryError):
    """Groups of cards that cannot be used."""


def groups_of(text: str) -> list[Group]:
    """The groups, separated by spaces; each is like ``0-3`` or ``0,1,6-7``."""
    groups = [tuple(number for part in word.split(",") for number in _numbers(part, word)) for word in text.split()]
    numbers = [number for group in groups for number in group]
    for number in numbers:
        if numbers.count(number) > 1:
            raise DevicesError(f"DEVICES: {number} is named twice in '{text}'. Give each group its own cards.")
    return groups


def _numbers(part: str, word: str) -> range:
    found = RANGE.fullmatch(part)
    numbers = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not numbers:
        raise DevicesError(f'DEVICES: \'{word}\' is no group of cards. Write groups like "0-3 4-7" or "0,1 2,3".')
    return numbers


def slots(jobs: int | None, text: str, run: Run) -> list[Group]:
    """The group of each of the processes that run at once; empty ones if none are named."""
    groups = groups_of(text)
    jobs = jobs if jobs is not None else len(groups)
    if jobs < 1:
        raise DevicesError('JOBS is missing: how many stages run at once, such as JOBS=2 DEVICES="0-3 4-7".')
    if not groups:
        _refuse_shared_cards(jobs, run)
        return [()] * jobs
    if len(groups) != jobs:
        raise DevicesError(f"DEVICES: '{text}' has {len(groups)} groups for JOBS={jobs}. Name one group for each job.")
    for group in groups:
        _check_group(group, run)
    return groups


def _check_group(group: Group, run: Run) -> None:
    """DevicesError unless the group has what ``run`` needs; on a CPU, unless this process has its cores."""
    kind, first = split(run.device)
    if kind == "cpu":
        cores = sorted(os.sched_getaffinity(0))
        if lacking := sorted({*group} - {*cores}):
            raise DevicesError(f"DEVICES: this process has no core {lacking[0]}. It has {_shown(cores)}.")
    elif kind not in VISIBLE:
        raise DevicesError(f"DEVICES: run.device: '{kind}' has no variable that limits its cards. Leave DEVICES out.")
    elif len(group) < (needed := first + run.processes):
        raise DevicesError(
            f"DEVICES: a group has {len(group)} cards, but run.device and run.processes need {needed}. Lower "
            "run.processes or enlarge the groups."
        )


def _refuse_shared_cards(jobs: int, run: Run) -> None:
    has_launcher = run.launcher.train is not None or run.launcher.evaluate is not None
    if jobs > 1 and run.device != "cpu" and not has_launcher:
        raise DevicesError(
            f'JOBS={jobs}, but nothing divides the cards. Name groups of them: DEVICES="0-3 4-7". '
            "(A run.launcher may divide them instead.)"
        )


def environment(group: Group, slot: int, run: Run) -> dict[str, str]:
    """The variables that limit a process to its cards and give it its own port."""
    found = {}
    kind, _ = split(run.device)
    if group and kind in VISIBLE:
        found[VISIBLE[kind]] = ",".join(map(str, group))
    if port := os.environ.get("MASTER_PORT"):
        found["MASTER_PORT"] = str(int(port) + slot * PORTS_APART)
    return found


def bind(pid: int, group: Group, run: Run) -> None:
    """Bind a process, and all that it starts from now on, to the cores of the group; on a CPU only."""
    if group and split(run.device)[0] == "cpu":
        os.sched_setaffinity(pid, group)


def _shown(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
