"""The hash of a student's files: weights, config.json, the tokenizer's files and its chat template, in full.

15 GB take ten seconds of one core; afterwards they are in the system's cache, so that loading them is fast. Files that
a hub adds (README.md, its metadata) and the folder's name do not count, so a student has the same hash wherever it was
downloaded from.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STUDENT_FILES = (
    *("*.safetensors", "pytorch_model*.bin", "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.*"),
)
READERS = 4  # threads: hashing releases the interpreter's lock


def files_hash(path: Path) -> str:
    """A file's SHA-256; for a folder, the SHA-256 of the names and hashes of the student's files."""
    if path.is_file():
        return _sha256(path)
    files = sorted({file for pattern in STUDENT_FILES for file in path.glob(pattern) if file.is_file()})
    with ThreadPoolExecutor(READERS) as readers:
        lines = [f"{digest}  {file.name}\n" for file, digest in zip(files, readers.map(_sha256, files), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
