"""The public data of the tests: whole files where DISTILLERY_DATA names their folder, else the samples in tests/data.

development_data / "gsm8k" / "train.jsonl"    7,473 rows, or 34 of them
1319 if WHOLE else 31                         what a test expects of each
"""

import os
from pathlib import Path

from tests.benchmark_files import write_gsm8k, write_mgsm, write_mmlu

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "data"
ARTICLE = SAMPLES / "article"
VARIABLE = "DISTILLERY_DATA"
WHOLE = bool(os.environ.get(VARIABLE))
KIND = "whole" if WHOLE else "sample"
FOLDER = Path(os.environ[VARIABLE]).resolve() if WHOLE else SAMPLES


def official(folder: Path) -> Path:
    """GSM8K, MGSM and MMLU as large as they are published: the whole files, or the samples with made-up rows behind."""
    if WHOLE:
        return FOLDER
    write_gsm8k(folder / "gsm8k")
    write_mgsm(folder / "mgsm")
    write_mmlu(folder / "mmlu")
    for sample in (*(SAMPLES / "gsm8k").glob("*.jsonl"), *(SAMPLES / "mgsm").glob("*.tsv")):
        _lay_over(sample, folder / sample.parent.name / sample.name)
    return folder


def _lay_over(sample: Path, whole: Path) -> None:
    """The sample's lines in the place of as many first ones."""
    first = sample.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(first + whole.read_bytes().splitlines(keepends=True)[len(first) :]))
