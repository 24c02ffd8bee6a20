"""Read the questions of the benchmarks from the files that their authors publish (``stages/lib/testsets``).

    gsm8k   test.jsonl                       {"question": "Janet’s ducks lay …", "answer": "… #### 18"}
    mgsm    a folder of mgsm_*.tsv, or one   Janet’s ducks lay …<TAB>18
    mmlu    a folder with test/*.csv         "Find the degree for …",0,4,2,6,B

or from the folder of downloaded benchmarks, data/eval_data, which the stage eval-data writes for lm-eval:

    manifest.json                      {"benchmarks": {"gsm8k": {"folder": "openai/gsm8k", …}, "mmlu": null}, …}
    openai/gsm8k/main/test.jsonl       {"question": "Janet’s ducks lay …", "answer": "… #### 18"}

Of a multiple-choice question the choices are left out: they are too short to identify a text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stages.lib.rows import DataError, read_json
from stages.lib.testsets.official import official_rows
from stages.lib.testsets.rows import ROWS, BenchmarkRow

REBUILD = "Run 'dvc repro eval-data' to download it again."


def read_questions(benchmark: str, path: Path) -> Iterator[str]:
    """The benchmark's questions, file by file in the order of their names.

    Raises DataError on a missing path and on a folder without the benchmark's files; with file and line, on a line that
    is not a row of the benchmark or not UTF-8.
    """
    form = FORMS[benchmark]
    advice = f"Point collect.contamination.benchmarks.{benchmark} at {form.files}, or remove that line: not checked."
    for file in _files(path, form, advice):
        for row in official_rows(benchmark, file, advice):
            yield row.question


def downloaded_folders(folder: Path) -> dict[str, Path]:
    """The folder of each benchmark that was downloaded; DataError where there is no manifest."""
    found = read_json(folder / "manifest.json", REBUILD)["benchmarks"]
    return {name: folder / facts["folder"] for name, facts in found.items() if facts}


def read_downloaded(benchmark: str, folder: Path) -> Iterator[str]:
    """The test questions of a downloaded benchmark, of all its languages or subjects.

    Raises DataError where there is none, and with file and line on a line that is not a row of the benchmark.
    """
    files = sorted(folder.glob("*/test.jsonl"))
    if not files:
        raise DataError(f"{folder}: a folder without the benchmark's test.jsonl. {REBUILD}")
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _row(line, benchmark, f"{file}:{number}").question


def _row(line: bytes, benchmark: str, where: str) -> BenchmarkRow:
    try:
        return ROWS[benchmark].model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"{where}: not a row of {benchmark}. {REBUILD}") from error


@dataclass(frozen=True)
class _Form:
    """A benchmark's files, as messages name them, and the patterns of their names; the first that matches counts."""

    files: str
    patterns: tuple[str, ...]


FORMS = {
    "gsm8k": _Form("GSM8K's official test.jsonl", ()),
    "mgsm": _Form("MGSM's folder of mgsm_*.tsv, or one of them", ("mgsm_*.tsv",)),
    "mmlu": _Form("MMLU's folder with test/*.csv", ("test/*.csv", "*.csv")),
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
