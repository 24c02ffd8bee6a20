"""Turn samples into rows, and rows into the figures of metrics/eval/ARM.json.

rows(scored, asking)      → [Evaluated(id="zh/17", cluster="17", lm_eval=False, correct=True, …)]
figures(scored, rows, "verifier")
→ {"headline": "verifier", "value": 0.395, "stderr": 0.0346, "n": 200, "lm_eval": 0.39, …, "languages": {"zh": {…}}}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import sem

from stages.lib.answers import Verdict
from stages.lib.answers.statements import marked_solution
from stages.lib.evaluation.audit import KINDS, Audited, Flags, Generated, flags, summary
from stages.lib.evaluation.backends import Asking
from stages.lib.evaluation.results import Sample, Score, Scored
from stages.lib.evaluation.tasks import KNOWN, OWN
from stages.lib.evaluation.verifying import Asked, asked, verify
from stages.lib.rows.evaluated import Evaluated
from stages.lib.workers import map_rows

VERIFIER = ("verifier", "verifier_stderr", "if_unsure_wrong", "if_unsure_right")
Mark = Callable[[Evaluated], bool]
Count = Callable[[str], int]


def rows(scored: Scored, asking: Asking) -> list[Evaluated]:
    """A row for each sample, with the verifier's verdict and the audit's flags if it has a generated text."""
    tokens = _token_count(asking)
    questions = [_asked(sample) for sample in scored.samples]
    texts = [sample.response.text if sample.response is not None else "" for sample in scored.samples]
    verdicts = map_rows(_verdict, zip(questions, texts, strict=True))
    return [
        _row(scored.name, sample, question, verdict, asking, tokens)
        for sample, question, verdict in zip(scored.samples, questions, verdicts, strict=True)
    ]


def _asked(sample: Sample) -> Asked | None:
    return asked(sample.task, sample.doc, sample.number) if sample.response is not None else None


def _verdict(answer: tuple[Asked | None, str]) -> Verdict | None:
    question, text = answer
    return verify(question, text) if question and question.answer is not None else None


def _token_count(asking: Asking) -> Count:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(asking.weights))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _row(
    benchmark: str, sample: Sample, question: Asked | None, verdict: Verdict | None, asking: Asking, tokens: Count
) -> Evaluated:
    name = f"{sample.task}/{sample.number}"
    identity = question or Asked(name, name, _question(sample), sample.gold, None, None)
    has_gold = question is None or question.answer is not None
    right = verdict is not None and verdict.verdict == "right"
    by_verifier = verdict is not None and asking.params.headline == "verifier"
    return Evaluated(
        id=identity.id,
        benchmark=benchmark,
        task=sample.task,
        cluster=identity.cluster,
        language=identity.language,
        question=identity.question,
        history=sample.doc.get("history") or None if sample.task in OWN else None,
        system=sample.doc.get("system") or None if sample.task in OWN else None,
        answer=identity.answer,
        prompt=sample.prompt,
        response=sample.response.text if sample.response is not None else sample.choice or "",
        prediction=_prediction(sample, verdict, has_gold, asking),
        verdict=verdict.verdict if verdict else None,
        decided_by=f"rule:{verdict.rule}" if verdict and by_verifier else "lm-eval" if has_gold else "nobody",
        lm_eval=sample.lm_eval,
        correct=right if by_verifier else sample.lm_eval,
        **_audited(sample, identity, asking, tokens, verdict),
        doc_hash=sample.doc_hash,
        prompt_hash=sample.prompt_hash,
        target_hash=sample.target_hash,
    )


def _prediction(sample: Sample, verdict: Verdict | None, has_gold: bool, asking: Asking) -> str | None:
    """What is judged of an answer: its final value, or all but its reasoning where there is no gold answer."""
    if verdict:
        return verdict.prediction
    if has_gold or sample.response is None:
        return sample.choice
    return _without_reasoning(sample.response.text, asking)


def _without_reasoning(text: str, asking: Asking) -> str:
    """What a trained student writes after its reasoning, nothing where that never ended; else as the verifier reads."""
    if asking.think_end_token is None:
        start, end = marked_solution(text)
        return text[start:end].strip()
    _, ended, rest = text.rpartition(asking.think_end_token)
    return rest.partition(asking.end_marker or "\0")[0].strip() if ended else ""


def _question(sample: Sample) -> str:
    text = sample.doc.get("question")
    return text if isinstance(text, str) and text else sample.prompt


def _audited(sample: Sample, identity: Asked, asking: Asking, tokens: Count, verdict: Any) -> dict[str, Any]:
    """The tokens and the flags of a generated text; None for multiple choice."""
    if sample.response is None:
        return dict.fromkeys(("tokens", *KINDS))
    generated = Generated(
        question=identity.question,
        response=sample.response.text,
        tokens=tokens(sample.response.text) + tokens(sample.response.reasoning),
        limit=asking.params.max_gen_toks,
        language=identity.reply_language,
        stops=sample.stops,
        end_marker=asking.end_marker,
        cut_off=sample.response.cut_off,
    )
    found = flags(generated, verdict)
    return {"tokens": generated.tokens, **{kind: getattr(found, kind) for kind in KINDS}}


def audited(row: Evaluated) -> Audited:
    """The audit's view of a row with a generated text."""
    found = Flags(**{kind: getattr(row, kind) for kind in KINDS})
    return Audited(row.id, row.question, row.answer, row.response, row.tokens or 0, found, row.lm_eval, row.verdict)


def figures(scored: Scored, found: Sequence[Evaluated], headline: str) -> dict[str, Any]:
    """The figures of a benchmark: over all of it, and for each language, or for each task if it has several.

    Only the audit where no answer is right or wrong.
    """
    if all(row.correct is None for row in found):
        return {"n": len(found), **_summary(found)}
    only = next(iter(scored.lm_eval.values())) if len(scored.lm_eval) == 1 else None
    whole = _part(found, scored.group or only or _mean(scored.lm_eval.values(), found), headline)
    if only is not None or scored.group is not None:
        return whole
    parts = {
        _label(scored.name, task): _part([row for row in found if row.task == task], score, headline)
        for task, score in scored.lm_eval.items()
    }
    return whole | {"languages" if scored.name in KNOWN else "tasks": parts}


def _label(benchmark: str, task: str) -> str:
    return task.rpartition("_")[2] if benchmark in KNOWN else task


def _mean(scores: Iterable[Score], found: Sequence[Evaluated]) -> Score:
    """The mean over the questions of several tasks without an average by lm-eval; its error is by problem."""
    others: dict[str, list[float]] = {}
    for score in scores:
        for name, value in score.others.items():
            others.setdefault(name, []).append(value)
    return Score(
        float(np.mean([bool(row.lm_eval) for row in found])),
        standard_error(found, lambda row: bool(row.lm_eval)),
        {name: float(np.mean(values)) for name, values in others.items()},
    )


def _part(found: Sequence[Evaluated], score: Score, headline: str) -> dict[str, Any]:
    verified = all(row.verdict is not None for row in found)
    lm_eval = {"lm_eval": _rounded(score.value), "lm_eval_stderr": _rounded(score.stderr)}
    verifier = _verifier(found) if verified else dict.fromkeys(VERIFIER)
    counts = headline if verified else "lm_eval"
    chosen = lm_eval | verifier
    return {
        "headline": counts,
        "value": chosen[counts],
        "stderr": chosen[f"{counts}_stderr"],
        "n": len(found),
        **lm_eval,
        **{name: _rounded(value) for name, value in sorted(score.others.items())},
        **verifier,
        **_summary(found),
    }


def _verifier(found: Sequence[Evaluated]) -> dict[str, float | None]:
    """The verifier's score, which counts unsure verdicts as wrong, and the bounds of the true score.

    It is not known which unsure answers are right. A perfect verifier would score between all of them wrong and all of
    them right.
    """
    right: Mark = lambda row: row.verdict == "right"  # noqa: E731  # it is used twice
    score = float(np.mean([right(row) for row in found]))
    unsure = float(np.mean([row.verdict == "unsure" for row in found]))
    return dict(zip(VERIFIER, map(_rounded, (score, standard_error(found, right), score, score + unsure)), strict=True))


def _summary(found: Sequence[Evaluated]) -> dict[str, Any]:
    if any(row.tokens is None for row in found):
        return dict.fromkeys(("differ", *KINDS, "tokens_median", "tokens_p95"))
    return summary([audited(row) for row in found])


def standard_error(found: Sequence[Evaluated], mark: Mark) -> float | None:
    """The standard error of the mean, from the means of independent clusters; None for fewer than two clusters."""
    clusters: dict[str, list[bool]] = {}
    for row in found:
        clusters.setdefault(row.cluster, []).append(mark(row))
    means = [float(np.mean(marks)) for marks in clusters.values()]
    return float(sem(means)) if len(means) > 1 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def tables(scored: Sequence[Scored]) -> Mapping[str, Any]:
    """lm-eval's own numbers, not rounded, by benchmark."""
    return {each.name: each.table for each in scored}
