"""Keep bodies with status 200 and no answer in a file next to the store, with their requests: they may be paid for.

    {"key": "9f86d081…", "reason": "not_json", "request": {"model": "…", "messages": […], …}, "body": "…"}

A better reader, or a person, may find the answer in one. Nothing reads the file, so it may be removed at any time.
"""

import os
from pathlib import Path
from typing import Any

import orjson

from stages.lib.store.answer_file import StoreError


def unread_path(store: Path) -> Path:
    """``answers.unread.jsonl`` next to ``answers.jsonl``."""
    return store.with_name(f"{store.stem}.unread.jsonl")


def keep_unread(path: Path, key: str, request: dict[str, Any], reason: str, body: bytes) -> None:
    """Append a body. Several processes may do this at once, because each line is written in one piece."""
    text = body.decode("utf-8", errors="backslashreplace")
    line = orjson.dumps({"key": key, "reason": reason, "request": request, "body": text}) + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}. Free disk space, then run the stage again.") from error
