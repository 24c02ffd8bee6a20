"""The dataset cards and model cards: README.md for a hub, in English and in Chinese.

Everything in them is read from params.yaml, dvc.lock, metrics/, the prompts and the rows. ``licences.yaml`` has the
licences and terms of known questions, teachers and students.

    python -m stages.lib.cards                     # every dataset and arm, in cards
    python -m stages.lib.cards --dataset filtered  # cards/dataset-filtered.md and dataset-filtered.zh.md
"""

from stages.lib.command import DistilleryError


class CardError(DistilleryError):
    """A card for which something is missing."""
