"""Uploading a dataset or a model with its cards to ModelScope, Modelers or a hub, through their own clients.

    python -m stages.lib.publishing dataset filtered --to hub --repo org/name --dry-run
    python -m stages.lib.publishing model filtered --to modelscope --repo org/name

Nothing goes up if a check fails (checks.py): a key in a file, an unknown licence, a teacher whose terms restrict
training, files that the commit does not give. Each check can be overruled.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stages.lib.command import DistilleryError

Kind = Literal["dataset", "model"]


class PublishingError(DistilleryError):
    """Something that must not or cannot be uploaded."""


@dataclass(frozen=True)
class Upload:
    """What goes up, and where to. ``folder`` has all files; a client may note its progress in ``state``."""

    kind: Kind
    repo: str
    folder: Path
    state: Path
    licence: str
    is_public: bool
    message: str
    token: str = field(repr=False)
