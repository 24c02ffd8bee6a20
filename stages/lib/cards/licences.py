"""Licences and terms of questions, teachers and students: what ``licences.yaml`` knows, and what a person says."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

TABLE = Path(__file__).with_name("licences.yaml")
SHOWN_TABLE = "stages/lib/cards/licences.yaml"
UNKNOWN: Literal["unknown"] = "unknown"
Kind = Literal["questions", "teachers", "students"]
Training = Literal["allowed", "conditions", "forbidden", "unknown"]


class Known(BaseModel):
    """An entry of licences.yaml. ``id`` is the name on a hub; without it, the name that params give."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    names: list[str]
    id: str | None = None
    licence: str
    title: str | None = None
    training: Literal["allowed", "conditions", "forbidden"] | None = None
    source: str

    def is_of(self, name: str) -> bool:
        """Whether the entry is about what has that name."""
        spoken = (name, name.rstrip("/").rpartition("/")[2])
        return any(re.fullmatch(pattern, each, re.IGNORECASE) for pattern in self.names for each in spoken)


class Terms(BaseModel):
    """The licence of one thing, where that is stated, and for a teacher whether its outputs may be trained on.

    ``licence`` is an identifier of the hubs or ``unknown``. ``title`` names a licence that is ``other``.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    id: str
    licence: str
    title: str | None
    source: str | None
    training: Training

    @property
    def shown(self) -> str:
        """The licence as a reader knows it."""
        return self.title or self.licence

    @property
    def is_known(self) -> bool:
        """Whether there is a licence."""
        return self.licence != UNKNOWN


def terms_of(kind: Kind, name: str) -> Terms:
    """The terms of what has that name; ``unknown`` ones if licences.yaml has no such entry."""
    for known in _table()[kind]:
        if known.is_of(name):
            training: Training = known.training or UNKNOWN
            return Terms(
                name=name,
                id=known.id or name,
                licence=known.licence,
                title=known.title,
                source=known.source,
                training=training,
            )
    return Terms(name=name, id=name, licence=UNKNOWN, title=None, source=None, training=UNKNOWN)


def unknown_licence(questions: Terms) -> Terms:
    """The same without a licence: a file of one's own that happens to have the name of a public set."""
    return questions.model_copy(update={"licence": UNKNOWN, "title": None, "source": None, "id": questions.name})


def with_training(teachers: Iterable[Terms], training: Training) -> list[str]:
    """The names of the teachers whose terms say that of training on their outputs."""
    return [teacher.name for teacher in teachers if teacher.training == training]


@lru_cache(maxsize=1)
def _table() -> dict[Kind, list[Known]]:
    written = YAML(typ="safe").load(TABLE.read_bytes())
    return {kind: [Known.model_validate(entry) for entry in entries] for kind, entries in written.items()}
