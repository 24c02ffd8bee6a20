"""The rows that ``filter`` writes: answers with a verdict, kept or rejected.

a distilled row's fields, and {"prediction": "72", "verdict": "right", "decided_by": "rule:boxed", …}
"""

from typing import Literal

from stages.lib.rows.distilled import Distilled


class Filtered(Distilled):
    """A distilled row that was judged: the ``prediction`` read from it, the ``verdict`` and what decided.

    ``rule_verdict`` and ``judge_verdict`` are what each said, whoever decided; None where the judge was not asked.
    """

    prediction: str | None
    verdict: Literal["right", "wrong", "unsure"]
    decided_by: str
    rule_verdict: Literal["right", "wrong", "unsure"]
    judge_verdict: Literal["right", "wrong", "unsure"] | None


class Rejected(Filtered):
    """A judged row that was dropped, and why.

    Nobody could judge it where the rule read no answer (``no_answer_read``) or the judge gave no mark that can be read
    (``no_mark_read``); ``not_selected``: fit to be kept, but another answer to its question is. ``reviewed_wrong``: a
    person said so; ``reviewed_unsure``: a person could not say.
    """

    reason: Literal[
        "wrong_answer",
        "no_answer_read",
        "no_mark_read",
        "disagreement",
        "not_selected",
        "reviewed_wrong",
        "reviewed_unsure",
    ]


class Disagreement(Filtered):
    """A judged row for people to read.

    ``rule_against_judge``: one says right and the other wrong; ``gold_suspect``: both are sure that the answer is not
    the gold one, which may be the gold one's fault.
    """

    kind: Literal["rule_against_judge", "gold_suspect"]
