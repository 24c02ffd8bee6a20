"""The rows of JSONL, JSON, CSV, TSV and Parquet files: one, a glob, or a URL of s3://, oss:// or another of fsspec's.

    file_rows("data/own/*.csv", "collect.source.path")
    # ("data/own/a.csv:2", {"question": "…", "answer": "72"}), …

A place is FILE:LINE, and FILE[NUMBER] (from 0) where a file has no lines. A file with ``.gz``, ``.bz2``, ``.xz`` or
``.zst`` after the format's suffix is unpacked.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import orjson

from stages.lib.rows import DataError

Rows = Iterator[tuple[str, dict[str, Any]]]
PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
LONGEST_FIELD = 2**31 - 1  # csv's own limit of 128 KiB is less than some reasoning


def file_rows(path: str, key: str) -> Rows:
    """Each row with its place, the files in the order of their names; ``key`` is where params name the path.

    DataError where there is no such file, a file is in no known format, or a row is not one.
    """
    filesystem, files = _files(path, key)
    for file in files:
        suffixes = PurePosixPath(file).suffixes
        packed = PACKED.get(suffixes[-1]) if suffixes else None
        suffix = "".join(suffixes[-2:-1] if packed else suffixes[-1:])
        if suffix not in READERS:
            raise DataError(
                f"{key}: {file}: the format {suffix or 'without a suffix'} is not read. Known: {KNOWN}. "
                "Save a spreadsheet as CSV UTF-8."
            )
        with filesystem.open(file, "rb", compression=packed) as data:
            yield from READERS[suffix](data, _shown(path, file))


def _files(path: str, key: str) -> tuple[Any, list[str]]:
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        files = sorted(filesystem.glob(inner)) if any(sign in path for sign in "*?[") else [inner]
        found = [file for file in files if filesystem.isfile(file)]
        if not found and filesystem.isdir(inner):
            raise DataError(f"{key}: {path}: a folder. Name a file, or all of a kind: {path.rstrip('/')}/*.csv.")
    except DataError:
        raise
    except Exception as error:  # each of fsspec's filesystems raises its own errors
        raise DataError(
            f"{key}: {path}: {type(error).__name__}: {error!s:.200}. Check the path and its keys."
        ) from error
    if not found:
        raise DataError(f"{key}: {path}: no such file. A path is from the project's folder, or a URL such as s3://….")
    return filesystem, found


def _shown(path: str, file: str) -> str:
    """The file as params name it: fsspec makes local paths absolute."""
    return path if PurePosixPath(path).name == PurePosixPath(file).name else file


def _jsonl(data: BinaryIO, file: str) -> Rows:
    for number, line in enumerate(data, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            yield f"{file}:{number}", _object(_parsed(text, f"{file}:{number}"), f"{file}:{number}")


def _json(data: BinaryIO, file: str) -> Rows:
    """A list of objects, or an object with one such list in it."""
    content = _parsed(data.read().removeprefix(b"\xef\xbb\xbf"), file)
    lists = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else [content]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise DataError(f"{file}: neither a list of rows nor an object with one. Write a list, or JSONL.")
    for number, row in enumerate(lists[0]):
        yield f"{file}[{number}]", _object(row, f"{file}[{number}]")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in str(error):
            raise _not_utf8(where) from error
        raise DataError(f"{where}: not JSON ({error}). Correct it.") from error


def _not_utf8(where: str) -> DataError:
    return DataError(f"{where}: not UTF-8. Convert the file: iconv -f GB18030 -t UTF-8 OLD > NEW (or from UTF-16, …).")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not an object but {str(value)[:40]!r}. A row is an object of columns.")
    return value


def _csv(data: BinaryIO, file: str, delimiter: str = ",") -> Rows:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.TextIOWrapper(data, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{file}: empty. Its first line names the columns.")
        if len(header) == 1 and (other := next((sign for sign in ";\t" if sign in header[0]), None)):
            raise DataError(f"{file}:1: columns are separated by {other!r}. Save it with commas, or as .tsv with tabs.")
        while True:
            line = reader.line_num + 1
            fields = next(reader, None)
            if fields is None:
                return
            if len(fields) not in (0, len(header)):
                raise DataError(
                    f"{file}:{line}: {len(fields)} fields, and the header has {len(header)}. Quote a field that holds "
                    f"{delimiter!r} or a line break."
                )
            if fields:
                yield f"{file}:{line}", dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: not CSV ({error}). Correct that line.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{file}:{reader.line_num + 1}") from error


def _tsv(data: BinaryIO, file: str) -> Rows:
    yield from _csv(data, file, delimiter="\t")


def _parquet(data: BinaryIO, file: str) -> Rows:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(data).iter_batches()
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                yield f"{file}[{number}]", row
                number += 1
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole Parquet file ({error!s:.200}). Copy it again.") from error


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".txt": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
KNOWN = ", ".join(f"{name} (JSONL)" if name == ".txt" else name for name in READERS)
