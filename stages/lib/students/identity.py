"""Which weights a student is, said so that another machine can check it: name, revision and a hash of its files.

Out, for metrics/train/ARM.json:

    {"name": "Qwen/Qwen2.5-7B-Instruct", "revision": "a09a35458c70…", "sha256": "5e7f…"}

The hash is of the weights, config.json and the tokenizer's files as they were published, read whole: 15 GB take ten
seconds of one core and lie in the system's cache for the trainer. What a hub adds (README.md, its own bookkeeping) does
not count, so that a student has one hash wherever it was fetched from; nor does the folder it lies in.
"""

import hashlib
import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.lib.params import Student

SHAPING = (
    *("*.safetensors", "pytorch_model*.bin", "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.*"),
)
READERS = 4  # hashing lets other threads run


def student_identity(student: Student) -> dict[str, str | None]:
    """The student's name, its revision as params have it (None: the newest, or none) and the hash of its files."""
    name = Path(student.name).name if student.kind == "path" else student.name  # a path is this machine's alone
    return {"name": name, "revision": student.revision, "sha256": hash_of(published(student))}


def published(student: Student) -> Path:
    """The student's file or folder before anything was made of it; a source that converts says which that is."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    found: Path = source.published(student) if hasattr(source, "published") else source.folder(student)
    return found


def hash_of(path: Path) -> str:
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
