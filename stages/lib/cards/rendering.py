"""The cards as Markdown, in both languages: the templates of ``en`` and ``zh``, filled."""

import json
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from stages.lib.cards.content import DatasetContent, ModelContent
from stages.lib.cards.licences import Terms
from stages.lib.cards.metadata import dataset_metadata, model_metadata
from stages.lib.cards.origin import Origin
from stages.lib.comparison.table import p_value, signed
from stages.lib.comparison.warnings import sentence
from stages.lib.params import EmbeddedTeacher, Params

Language = Literal["en", "zh"]
HERE = Path(__file__).parent
FILE_NAMES: dict[Language, str] = {"en": "README.md", "zh": "README.zh-CN.md"}


def dataset_card(card: DatasetContent, language: Language) -> str:
    """The dataset's card. Only README.md has the metadata: the hubs read no other file."""
    own = {
        "settings": _yaml(card.settings),
        "not_checked": _not_checked(card),
        "same_text_only": card.run.params.collect.near_duplicates is None,
        "teacher_is_program": _is_program(card.run.params, card.origin),
    }
    body = _filled("dataset.md.j2", language, {"card": card} | own)
    return _with_head(dataset_metadata(card), body) if language == "en" else body


def model_card(card: ModelContent, language: Language, datasets: list[str]) -> str:
    """The model's card; ``datasets`` are the ids on the hub of what it was trained on."""
    params = card.run.params
    own = {
        "settings": _yaml(card.settings),
        "teachers": ", ".join(teacher.name for teacher in card.teachers),
        "interval": f"{card.confidence * 100:g} %",
        "measured_on": ", ".join(f"{score.benchmark} (n = {score.n})" for score in card.scores if score.is_own) or "–",
        "question": _question(card.dataset),
        "markers": params.convert.markers,
        "max_new_tokens": params.evaluate.max_gen_toks,
        "teacher_is_program": _is_program(params, card.dataset.origin),
    }
    body = _filled("model.md.j2", language, {"card": card} | own)
    return _with_head(model_metadata(card, datasets), body) if language == "en" else body


def _filled(template: str, language: Language, values: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE / language),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["sentence"] = sentence
    environment.filters["tojson_plain"] = lambda text: json.dumps(text, ensure_ascii=False)
    words = YAML(typ="safe").load((HERE / "words.yaml").read_bytes())[language]

    def reasons(left_out: dict[str, int]) -> str:
        named = [f"{number} {words['reasons'].get(why, why.replace('_', ' '))}" for why, number in left_out.items()]
        return str(words["separator"].join(named) or words["none"])

    def licence_name(terms: Terms) -> str:
        return str(words["licences"].get(terms.shown, terms.shown))

    own = {
        "chosen": words["chosen"],
        "step_name": lambda name: words["steps"][name],
        "finding": lambda name: words["findings"].get(name, name),
        "reasons": reasons,
        "licence_name": licence_name,
        "number": _number,
        "percent": lambda share: words["none"] if share is None else f"{_number(share)} %",
        "signed": signed,
        "p_value": p_value,
    }
    return environment.get_template(template).render(own | values)


def _number(share: float) -> str:
    return f"{100 * share:.1f}"


def _with_head(metadata: str, body: str) -> str:
    return f"---\n{metadata.strip()}\n---\n\n{body}"


def _yaml(settings: dict[str, Any]) -> str:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.width = 110
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(settings, text)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def _question(dataset: DatasetContent) -> str:
    """The question of the dataset's first row."""
    tags = dataset.run.params.convert.tags
    turns = json.loads(dataset.example)["conversations"] if dataset.example.endswith("}") else []
    return next((str(turn[tags.content_tag]) for turn in turns if turn[tags.role_tag] == tags.user_tag), "…")


def _not_checked(card: DatasetContent) -> list[str]:
    path = f"traces/{card.origin.traces}.json" if card.origin.traces else "collect.json"
    found = (card.run.metrics(path) or {}).get("contamination", {})
    return [name for name, result in found.items() if result == "not checked"]


def _is_program(params: Params, origin: Origin) -> bool:
    return origin.prompt is not None and isinstance(params.distill.teacher, EmbeddedTeacher)
