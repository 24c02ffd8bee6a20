"""The metadata at the head of a card, in the keys that the hubs read.

Hugging Face's keys are checked by its own client: https://huggingface.co/docs/hub/model-cards and datasets-cards.
ModelScope reads ``license``, ``tasks``, ``frameworks`` and ``tags``; Modelers ``license``, ``frameworks`` and
``library_name``. Each hub ignores the keys of the others, so there is one head for all of them.
"""

from typing import Any

from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from stages.lib.cards.content import DatasetContent, ModelContent
from stages.lib.cards.licences import Terms

TASK = "text-generation"
TAGS = ["distillation", "reasoning", "sharegpt", "distillery"]


def dataset_metadata(card: DatasetContent) -> str:
    """The YAML of a dataset's card."""
    data = DatasetCardData(
        language=card.origin.languages or None,
        annotations_creators="machine-generated",
        size_categories=card.size_category,
        source_datasets=None,
        task_categories=TASK,
        pretty_name=card.name,
        tags=TAGS,
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": card.data_files}]}],
        tasks=[TASK],
        **_licence(card.licence),
    )
    return str(data)


def model_metadata(card: ModelContent, datasets: list[str]) -> str:
    """The YAML of a model's card, with its scores as ``model-index``. ``datasets`` are ids on the hub."""
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=score.benchmark,
            dataset_name=score.benchmark,
            metric_type="accuracy",
            metric_value=round(100 * score.value, 2),
            metric_args={
                "n": score.n,
                "confidence": card.confidence,
                "low": round(100 * score.low, 2),
                "high": round(100 * score.high, 2),
            },
        )
        for score in card.scores
        if score.is_own
    ]
    data = ModelCardData(
        base_model=card.student.id,
        datasets=datasets or None,
        eval_results=results or None,
        model_name=card.name if results else None,
        language=card.dataset.origin.languages or None,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=TAGS,
        tasks=[TASK],
        frameworks=["PyTorch"],
        **_licence(card.licence),
    )
    return str(data)


def _licence(terms: Terms) -> dict[str, Any]:
    if terms.licence != "other":
        return {"license": terms.licence}
    return {"license": "other", "license_name": terms.title, "license_link": terms.source}
