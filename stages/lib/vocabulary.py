"""Check that two models have the same vocabulary: only then are the probabilities of one those of the other's tokens.

check_same_vocabulary(student_folder, teacher_folder)    StudentError names the first token that differs
vocabulary_hash(tokenizer)                               the same for tokenizers with the same tokens

Only tokenizers are read, no weights.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.lib.students import StudentError


def check_same_vocabulary(student: Path, teacher: Path) -> None:
    """StudentError unless both tokenizers in these folders give each token the same id."""
    from transformers import AutoTokenizer

    for folder in (student, teacher):
        if not (folder / "tokenizer_config.json").is_file():  # else transformers would read the path as a hub id
            raise StudentError(f"{folder}: no tokenizer_config.json there. Name a folder with weights and tokenizer.")
    one, other = (_by_id(AutoTokenizer.from_pretrained(folder)) for folder in (student, teacher))
    differing = [token for token in sorted(one.keys() | other.keys()) if one.get(token) != other.get(token)]
    if differing:
        first = differing[0]
        raise StudentError(
            f"{teacher}: its vocabulary is not the student's ({student}): {len(differing)} of "
            f"{max(len(one), len(other))} tokens differ, the first is {first}: {other.get(first, 'none')!r:.40} "
            f"instead of {one.get(first, 'none')!r:.40}. Choose a teacher with the student's tokenizer."
        )


def vocabulary_hash(tokenizer: Any) -> str:
    """The SHA-256 of a tokenizer's tokens and their ids."""
    return hashlib.sha256(json.dumps(sorted(_by_id(tokenizer).items())).encode()).hexdigest()


def _by_id(tokenizer: Any) -> dict[int, str]:
    """Each id with its token, added tokens included."""
    return {number: token for token, number in tokenizer.get_vocab().items()}
