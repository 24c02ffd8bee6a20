"""Whether a served teacher and the same one loaded here give the same probabilities.

distance(served, loaded)    → Distance(mean=0.004, largest=0.02)
TOLERANCE["bfloat16"]       → 0.05, for the mean

The distance at a place is the total variation, half the sum of the differences of the tokens' probabilities: 0 for the
same, 1 for distributions that share nothing. A server that is off by one place, measures after sampling, or has other
weights is far beyond the tolerance; docs/logprobs.md has what was measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.lib.command import DistilleryError
from stages.lib.doctor import Finding, fail, ok, warn
from stages.lib.doctor.disk_and_memory import GB, memory_available
from stages.lib.doctor.needs import WEIGHTS, local_student
from stages.lib.logprobs import NO_TOKEN, Scored
from stages.lib.params import FromTeacher, Params
from stages.lib.students import student_folder

TOLERANCE = {"float32": 0.001, "float16": 0.01, "bfloat16": 0.05}  # by the dtype of the arithmetic
# ordinary text, with numbers and letters outside ASCII
TEXT = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "she sell altogether? In May she sold 48/2 = 24 clips, so 48 + 24 = 72. 一共卖了 72 个夹子。"
)


SAME = "compare once where both are: 'make doctor' on a machine with the teacher's weights (docs/logprobs.md)"


def served_teacher(params: Params) -> Iterator[Finding]:
    """Compare the served teacher of ``score`` with the same weights on this machine, if it has them."""
    score = params.score
    if not isinstance(score, FromTeacher) or score.served is None:
        return
    folder = local_student(score.teacher)
    if folder is None:
        yield warn("score", "the served teacher is not compared: its weights are not on this machine", SAME)
        return
    needed, free = 2 * sum(path.stat().st_size for name in WEIGHTS for path in folder.glob(name)), memory_available()
    if free is not None and needed > free:
        yield warn(
            "score", f"the served teacher is not compared: its weights need {needed / GB:.0f} GB of memory", SAME
        )
        return
    yield compared(params, score, student_folder(score.teacher))


def compared(params: Params, score: FromTeacher, teacher: Path) -> Finding:
    """The distance of the two, against what rounding may cause."""
    from transformers import AutoTokenizer

    from stages.lib.logprobs.local import LocalScorer
    from stages.lib.logprobs.served import ServedScorer
    from stages.lib.teacher.backends.openai_compatible import endpoint_at

    assert score.served
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    places = list(range(1, len(ids)))
    try:
        endpoint = endpoint_at(score.served.base_url, params.run.key_variable("score"))
        served = ServedScorer(score.served, endpoint, score.top_k, params.run, tokenizer).score(ids, places)
    except DistilleryError as error:
        return fail("score", str(error), "fix score.served, or start the server")
    loaded = LocalScorer(teacher, score.top_k, score.dtype, params.run.device, params.run.threads).score(ids, places)
    apart, allowed = distance(served, loaded), TOLERANCE[score.dtype]
    found = (
        f"served and loaded teacher are {apart.mean:.5f} apart in the mean of {len(places)} places "
        f"(at most {allowed:g} for {score.dtype}), {apart.largest:.5f} at one"
    )
    if apart.mean > allowed:
        return fail("score", found, "serve the same weights in the dtype of score.dtype; see docs/logprobs.md")
    return ok("score", found)


@dataclass(frozen=True)
class Distance:
    """The mean distance of all places, and the largest."""

    mean: float
    largest: float


def distance(one: Scored, other: Scored) -> Distance:
    """How far the likeliest tokens of two are apart, at the same places; all other tokens count as one."""
    found = [_total_variation(*(_probabilities(each, place) for each in (one, other))) for place in range(len(one.ids))]
    return Distance(float(np.mean(found)), max(found))


def _total_variation(one: dict[int, float], other: dict[int, float]) -> float:
    # a token that is among the likeliest of one alone is in the rest of the other
    common = one.keys() & other.keys()
    differences = [abs(one[token] - other[token]) for token in common]
    rest = [1 - sum(each[token] for token in common) for each in (one, other)]
    return (sum(differences) + abs(rest[0] - rest[1])) / 2


def _probabilities(scored: Scored, place: int) -> dict[int, float]:
    pairs = zip(scored.ids[place].tolist(), np.exp(scored.logprobs[place].astype(np.float64)).tolist(), strict=True)
    return {token: probability for token, probability in pairs if token != NO_TOKEN}
