"""The questions of the benchmarks, read from the files that their authors publish.

    gsm8k   test.jsonl                       {"question": "Janet’s ducks lay …", "answer": "… #### 18"}
    mgsm    a folder of mgsm_*.tsv, or one   Janet’s ducks lay …<TAB>18
    mmlu    a folder with test/*.csv         "Find the degree for …",0,4,2,6,B

The tables have no header (github.com/openai/grade-school-math, google-research/url-nlp, hendrycks/test). Of a multiple
choice only the question is read: the choices are too short to tell one text from another.
"""

import codecs
import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.records import DataError

Rows = Iterator[tuple[int, str | None]]


class _Gsm8kRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    question: str = Field(min_length=1)
    answer: str


def read_questions(benchmark: str, path: Path) -> Iterator[str]:
    """The benchmark's questions, file by file in the order of their names.

    Raises DataError on a missing path, a folder without the benchmark's files, and, with file and line, on a line that
    is no row of the benchmark or not UTF-8.
    """
    form = FORMS[benchmark]
    advice = f"Point collect.contamination.benchmarks.{benchmark} at {form.files}, or set it to null: not checked."
    for file in _files(path, form, advice):
        for line_number, question in form.read(_lines(file, advice)):
            if not (question and question.strip()):
                raise DataError(f"{file}:{line_number}: not a row of {benchmark} ({form.row}). {advice}")
            yield question


def _gsm8k(lines: Iterable[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        try:
            yield number, _Gsm8kRow.model_validate_json(line).question
        except ValidationError:
            yield number, None


def _mgsm(lines: Iterable[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip("\r\n").split("\t")  # no csv: a quotation mark is a part of the text
        yield number, fields[0] if len(fields) == 2 else None


def _mmlu(lines: Iterable[str]) -> Rows:
    reader = csv.reader(lines)
    try:
        for fields in reader:
            yield reader.line_num, fields[0] if len(fields) == 6 else None
    except csv.Error:
        yield reader.line_num, None


@dataclass(frozen=True)
class _Form:
    """A benchmark's files, for messages; their names in a folder, the first pattern that fits; a row; its reader."""

    files: str
    patterns: tuple[str, ...]
    row: str
    read: Callable[[Iterable[str]], Rows]


FORMS = {
    "gsm8k": _Form("GSM8K's official test.jsonl", (), "JSON with 'question' and 'answer'", _gsm8k),
    "mgsm": _Form("MGSM's folder of mgsm_*.tsv, or one of them", ("mgsm_*.tsv",), "question, tab, answer", _mgsm),
    "mmlu": _Form("MMLU's folder with test/*.csv", ("test/*.csv", "*.csv"), "question, four choices, letter", _mmlu),
}


def _files(path: Path, form: _Form, advice: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. {advice}")
    for pattern in form.patterns:
        if found := sorted(path.glob(pattern)):
            return found
    raise DataError(f"{path}: a folder without the benchmark's files. {advice}")


def _lines(file: Path, advice: str) -> Iterator[str]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{file}:{number}: not UTF-8 (byte at {error.start}). {advice}") from error
