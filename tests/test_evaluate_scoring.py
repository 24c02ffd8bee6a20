"""From judged rows to figures: what an unsure verdict does to the verifier's score."""

from typing import Any

import pytest

from stages.lib.evaluation.results import Score, Scored
from stages.lib.evaluation.scoring import figures
from stages.lib.rows.evaluated import Evaluated

ROW: dict[str, Any] = {
    "benchmark": "gsm8k",
    "task": "gsm8k",
    "question": "How many?",
    "answer": "7",
    "prompt": "How many?",
    "response": "Seven.",
    "prediction": None,
    "decided_by": "rule:none",
    "language": "en",
    "correct": False,
    "tokens": 3,
    **dict.fromkeys(["cut_off", "task_stop", "looping"], False),
    **dict.fromkeys(["no_end_marker", "other_language"]),
    **dict.fromkeys(["doc_hash", "prompt_hash", "target_hash"], ""),
}


def rows(verdicts: str, task: str = "gsm8k", lm_eval: bool = False) -> list[Evaluated]:
    """``"rwu"``: an answer that is right, one that is wrong, one that the verifier is unsure of."""
    found = {"r": "right", "w": "wrong", "u": "unsure", "-": None}
    names = [f"{task}-{number}" for number in range(len(verdicts))]
    return [
        Evaluated.model_validate(
            ROW
            | {"id": name, "cluster": name, "task": task, "verdict": found[each], "unread": each == "u"}
            | {"lm_eval": lm_eval}
        )
        for name, each in zip(names, verdicts, strict=True)
    ]


def scored(*tasks: str) -> Scored:
    return Scored("gsm8k", {task: Score(0.5, None, {}) for task in tasks}, None, [], {})


@pytest.mark.parametrize(
    ("verdicts", "score", "wrong", "right"),
    [
        ("rrww", 0.5, 0.5, 0.5),
        ("rrwu", 0.5, 0.5, 0.75),
        ("uuuu", 0.0, 0.0, 1.0),
        ("ruuwww", 0.1667, 0.1667, 0.5),
        ("----", None, None, None),
    ],
)
def test_beside_the_verifier_s_score_stand_those_with_all_unsure_wrong_and_all_right(
    verdicts: str, score: float | None, wrong: float | None, right: float | None
) -> None:
    found = figures(scored("gsm8k"), rows(verdicts), "verifier")
    assert (found["verifier"], found["if_unsure_wrong"], found["if_unsure_right"]) == (score, wrong, right)
    assert found["headline"] == ("verifier" if score is not None else "lm_eval")


def test_each_language_has_its_own() -> None:
    both = rows("rrwu", "mgsm_direct_en") + rows("ruuu", "mgsm_direct_zh")
    found = figures(scored("mgsm_direct_en", "mgsm_direct_zh"), both, "lm_eval")
    assert (found["if_unsure_wrong"], found["if_unsure_right"]) == (0.375, 0.875)
    parts = found["languages"].values()
    assert [(part["if_unsure_wrong"], part["if_unsure_right"]) for part in parts] == [(0.5, 0.75), (0.25, 1.0)]
