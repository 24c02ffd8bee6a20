"""Read the benchmarks' official files, as their authors publish them.

    gsm8k   train.jsonl, test.jsonl          {"question": "Janet’s ducks lay …", "answer": "… #### 18"}
    mgsm    mgsm_LANGUAGE.tsv                Janet’s ducks lay …<TAB>18
            exemplars.py                     eight worked examples in each language, as Python literals
    mmlu    dev/*_dev.csv, test/*_test.csv   "Find the degree for …",0,4,2,6,B

The tables have no header (github.com/openai/grade-school-math, google-research/url-nlp, hendrycks/test). exemplars.py
is parsed and never executed.
"""

import ast
import codecs
import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.lib.rows import DataError
from stages.lib.testsets.rows import BenchmarkRow, Gsm8kRow, MgsmRow, MmluRow

Numbered = Iterator[tuple[int, BenchmarkRow | None]]
FORMS = {
    "gsm8k": "JSON with 'question' and 'answer'",
    "mgsm": "question, tab, answer",
    "mmlu": "question, four choices, letter",
}
LETTERS = "ABCD"


def official_rows(benchmark: str, file: Path, advice: str) -> Iterator[BenchmarkRow]:
    """The rows of one official file; DataError, with file and line, on a line that is not a row or not UTF-8.

    ``advice`` is the end of such a message: what to do about it.
    """
    for number, row in READERS[benchmark](_lines(file, advice), file):
        if row is None:
            raise DataError(f"{file}:{number}: not a row of {benchmark} ({FORMS[benchmark]}). {advice}")
        yield row


def _gsm8k(lines: Iterable[str], _: Path) -> Numbered:
    for number, line in enumerate(lines, start=1):
        try:
            yield number, Gsm8kRow.model_validate_json(line)
        except ValidationError:
            yield number, None


def _mgsm(lines: Iterable[str], _: Path) -> Numbered:
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip("\r\n").split("\t")  # not csv: a quotation mark is part of the text
        yield number, _mgsm_row(*fields) if len(fields) == 2 else None


def _mgsm_row(question: str, value: str) -> MgsmRow | None:
    try:
        return MgsmRow(question=question, answer=None, answer_number=int(value.replace(",", "")))
    except ValueError:  # pydantic's ValidationError is one too
        return None


def _mmlu(lines: Iterable[str], file: Path) -> Numbered:
    subject = file.stem.removesuffix("_dev").removesuffix("_test")
    reader = csv.reader(lines)
    try:
        for fields in reader:
            yield reader.line_num, _mmlu_row(subject, *fields) if len(fields) == 6 else None
    except csv.Error:
        yield reader.line_num, None


def _mmlu_row(subject: str, question: str, a: str, b: str, c: str, d: str, letter: str) -> MmluRow | None:
    try:
        return MmluRow(question=question, subject=subject, choices=[a, b, c, d], answer=LETTERS.index(letter))
    except ValueError:
        return None


READERS: dict[str, Callable[[Iterable[str], Path], Numbered]] = {"gsm8k": _gsm8k, "mgsm": _mgsm, "mmlu": _mmlu}


def exemplars(file: Path, advice: str) -> dict[str, list[MgsmRow]]:
    """MGSM's worked examples by language, from the literals of exemplars.py; DataError where they are missing."""
    try:
        literals = _literals(file)
        numbers, equations = literals["EXEMPLAR_NUMBER_ANSWERS"], literals["EXEMPLAR_EQUATION_SOLUTIONS"]
        return {
            language: [
                MgsmRow(
                    question=items[key]["q"],
                    answer=items[key]["a"],
                    answer_number=numbers[int(key) - 1],
                    equation_solution=equations[int(key) - 1],
                )
                for key in sorted(items, key=int)
            ]
            for language, items in literals["MGSM_EXEMPLARS"].items()
        }
    except (SyntaxError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: not MGSM's exemplars.py ({type(error).__name__}: {error!s:.100}). {advice}"
        ) from error


def _literals(file: Path) -> dict[str, Any]:
    """The literals that the file's top level assigns to names."""
    found = {}
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def _lines(file: Path, advice: str) -> Iterator[str]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{file}:{number}: not UTF-8 (byte at {error.start}). {advice}") from error
