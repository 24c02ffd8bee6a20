"""The hash of a student's files: weights, config.json, the tokenizer's files and its chat template, read whole.

15 GB take ten seconds of one core, and are then in the system's cache for whoever loads them. What a hub adds
(README.md, its own bookkeeping) does not count, so a student has one hash wherever it was downloaded from; nor does the
folder's name.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHAPING = (
    *("*.safetensors", "pytorch_model*.bin", "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.*"),
)
READERS = 4  # hashing lets other threads run


def files_hash(path: Path) -> str:
    """A file's SHA-256; a folder's is of the names and the SHA-256 of the files that shape a student."""
    if path.is_file():
        return _sha256(path)
    files = sorted({file for pattern in SHAPING for file in path.glob(pattern) if file.is_file()})
    with ThreadPoolExecutor(READERS) as readers:
        lines = [f"{digest}  {file.name}\n" for file, digest in zip(files, readers.map(_sha256, files), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
