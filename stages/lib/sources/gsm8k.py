"""GSM8K, from ModelScope (a dataset id, or a local folder in its layout) or from the official JSONL file.

A row of the source is ``{"question": "…", "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\n#### 72"}``
(github.com/openai/grade-school-math). The gold ``answer`` is what follows ``####``, without thousands separators;
``solution`` is the source's whole text.
"""

import codecs
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.params import Collect, Gsm8k
from stages.lib.rows import UNPROTECT, DataError
from stages.lib.rows.question import Question


class _SourceRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    question: str = Field(min_length=1)
    answer: str


def candidates(params: Collect) -> Iterator[Question]:
    """The first ``params.train_size`` questions of the split."""
    return islice(_questions(params), params.train_size)


def heldout(params: Collect) -> Iterator[Question]:
    """The last ``params.heldout_size`` questions of the split: the same ones, whatever ``train_size`` is."""
    return iter(deque(_questions(params), maxlen=params.heldout_size))


def _questions(params: Collect) -> Iterator[Question]:
    source = params.source
    assert isinstance(source, Gsm8k)  # its kind has chosen this module
    rows = _from_jsonl(Path(source.path)) if source.origin == "jsonl" else _from_modelscope(source)
    for index, (where, row) in enumerate(rows):
        yield _question(row, f"gsm8k-{source.split}-{index}", f"gsm8k/{source.split}", where)


def _from_jsonl(path: Path) -> Iterator[tuple[str, _SourceRow]]:
    advice = "Point collect.source.path at GSM8K's official train.jsonl."
    if not path.is_file():
        raise DataError(f"{path}: no such file. {advice}")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield f"{path}:{number}", _SourceRow.model_validate_json(text)
            except ValidationError as error:
                raise DataError(f"{path}:{number}: not a row of GSM8K ({_complaint(error)}). {advice}") from error


def _from_modelscope(params: Gsm8k) -> Iterator[tuple[str, _SourceRow]]:
    """``MsDataset.load``, as the article calls it: ``path`` is OWNER/NAME, or a folder, which must then be there."""
    if params.path.startswith(("/", ".", "~")) and not Path(params.path).expanduser().is_dir():
        # the client would take the path for an id and ask the network for it
        raise DataError(f"{params.path}: no such folder. Point collect.source.path at a folder in ModelScope's layout.")
    from modelscope.msdatasets import MsDataset

    try:
        dataset: Iterable[Mapping[str, Any]] = MsDataset.load(params.path, subset_name="main", split=params.split)
    except Exception as error:  # the client raises its own, requests' and datasets' errors alike
        raise DataError(
            f"collect.source.path: ModelScope gave no '{params.path}' ({type(error).__name__}: {error!s:.200}). "
            "Without a network, name a local folder in ModelScope's layout, or set origin: jsonl."
        ) from error
    for index, row in enumerate(dataset):
        where = f"{params.path}[{index}]"
        try:
            yield where, _SourceRow.model_validate(row)
        except ValidationError as error:
            raise DataError(
                f"{where}: not a row of GSM8K ({_complaint(error)}). Point collect.source.path at GSM8K itself."
            ) from error


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"field '{first['loc'][0]}': {first['msg']}" if first["loc"] else first["msg"]


def _question(row: _SourceRow, id: str, source: str, where: str) -> Question:
    worked, found, final = row.answer.rpartition("####")
    answer = final.strip().replace(",", "")
    if not (found and answer and worked.strip()):
        raise DataError(f"{where}: the gold answer has no '#### N' line. {UNPROTECT}, and correct or remove the row.")
    return Question(id=id, question=row.question, answer=answer, solution=row.answer, source=source)
