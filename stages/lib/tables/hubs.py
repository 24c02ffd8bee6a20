"""The rows of a dataset on a hub (HF_ENDPOINT names a mirror) or on ModelScope, or of a folder in their layout."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.lib.rows import DataError

Rows = Iterator[tuple[str, dict[str, Any]]]


def hub_rows(path: str, subset: str | None, split: str, revision: str | None, key: str) -> Rows:
    """The rows of a split, each with its place; DataError where there are none. ``key`` is where params name it."""
    return _rows("a hub", path, key, lambda: _from_hub(path, subset, split, revision))


def modelscope_rows(path: str, subset: str | None, split: str, revision: str | None, key: str) -> Rows:
    """As ``hub_rows``, from ModelScope, as the article loads its questions."""
    return _rows("ModelScope", path, key, lambda: _from_modelscope(path, subset, split, revision))


def _rows(hub: str, path: str, key: str, load: Callable[[], Iterable[Mapping[str, Any]]]) -> Rows:
    if path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():
        # a client would take the path for an id and ask the network for it
        raise DataError(f"{key}: {path}: no such folder. Name one, or a dataset's id such as OWNER/NAME.")
    try:
        rows = load()
    except Exception as error:  # the clients raise their own, requests' and datasets' errors alike
        cause = error.__cause__ or error
        raise DataError(
            f"{key}: {hub} gave no '{path}' ({type(cause).__name__}: {' '.join(str(cause).split())[:200]}). "
            "Check the id, the subset and the split; without a network, take a file or a folder of it."
        ) from error
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", dict(row)


def _from_hub(path: str, subset: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    rows: Iterable[Mapping[str, Any]] = load_dataset(path, subset, split=split, revision=revision)
    return rows


def _from_modelscope(path: str, subset: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    from modelscope.msdatasets import MsDataset

    version = {"version": revision} if revision else {}
    rows: Iterable[Mapping[str, Any]] = MsDataset.load(path, subset_name=subset, split=split, **version)
    return rows
