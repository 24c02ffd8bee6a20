"""Find training questions that share n consecutive words with a benchmark question.

This is the usual check: both texts are lower-cased and split at white space, punctuation is kept, and one shared n-gram
is a hit. GPT-3's filter used n from 8 to 13 (arXiv 2005.14165, appendix C): 8 finds more, common phrases included.

    "Natalia  sold clips to 48 friends", n = 4  →  "natalia sold clips to", "sold clips to 48", "clips to 48 friends"

The check finds copied wording. It does not find a paraphrase or a translation. A text without spaces between words
(Chinese, Japanese, Thai) has few "words", so a copy is found only where it has n of them in a row.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from stages.lib.hygiene.benchmarks import downloaded_folders, read_downloaded, read_questions
from stages.lib.params import Contamination, PublicBenchmark
from stages.lib.rows import DataError
from stages.lib.rows.question import BenchmarkHit

log = logging.getLogger("distillery.hygiene")


@dataclass(frozen=True)
class BenchmarkIndex:
    """A benchmark's n-grams, each with its first question; ``too_short`` questions have no n-gram."""

    benchmark: str
    ngram: int
    question_by_ngram: dict[str, str]
    questions: int
    too_short: int

    def hit(self, found: Sequence[str]) -> BenchmarkHit | None:
        """The first n-gram of those ``found`` in a text that the benchmark has, or None."""
        if self.question_by_ngram.keys().isdisjoint(found):
            return None
        ngram = next(each for each in found if each in self.question_by_ngram)
        return BenchmarkHit(benchmark=self.benchmark, question=self.question_by_ngram[ngram], ngram=ngram)


def ngrams(text: str, n: int) -> Iterator[str]:
    """All runs of n words. A text of fewer than n words has none, so it is never a hit, not even for its own copy."""
    words = text.lower().split()
    return (" ".join(words[start : start + n]) for start in range(len(words) - n + 1))


def index_questions(benchmark: str, questions: Iterable[str], n: int) -> BenchmarkIndex:
    """Index a benchmark's questions; DataError where all are shorter than n words: nothing would be checked."""
    question_by_ngram: dict[str, str] = {}
    count = too_short = 0
    for question in questions:
        count += 1
        too_short += len(question.split()) < n
        for ngram in ngrams(question, n):
            question_by_ngram.setdefault(ngram, question)
    if count == too_short:
        raise DataError(
            f"collect.contamination: none of the {count} questions of {benchmark} is {n} words long. "
            "Lower collect.contamination.ngram, or name a file with questions in it."
        )
    return BenchmarkIndex(benchmark, n, question_by_ngram, count, too_short)


def benchmark_indexes(params: Contamination, eval_data: Path | None = None) -> list[BenchmarkIndex]:
    """The n-grams of each benchmark whose files params name or, if params say so, that is in ``eval_data``.

    A line on stderr for each other benchmark. DataError where params want those of ``eval_data`` and it is None.
    """
    indexes = []
    downloaded = _downloaded(params, eval_data)
    for benchmark in get_args(PublicBenchmark):
        if path := params.benchmarks.get(benchmark):
            indexes.append(index_questions(benchmark, read_questions(benchmark, Path(path)), params.ngram))
        elif folder := downloaded.get(benchmark):
            indexes.append(index_questions(benchmark, read_downloaded(benchmark, folder), params.ngram))
        else:
            log.warning(_not_checked(params), benchmark, benchmark)
    return indexes


def _downloaded(params: Contamination, eval_data: Path | None) -> dict[str, Path]:
    """The folders of the downloaded benchmarks; none unless params want them."""
    if not params.downloaded:
        return {}
    if eval_data is None:
        raise DataError("collect.contamination.downloaded: no folder of benchmarks. Give --eval-data data/eval_data.")
    return downloaded_folders(eval_data)


def _not_checked(params: Contamination) -> str:
    if params.downloaded:
        return (
            "contamination by %s NOT checked: it is not downloaded, and params name no files of it. "
            "Name its source in eval_data.%s"
        )
    return (
        "contamination by %s NOT checked: params name no files of it. Name them in collect.contamination.benchmarks.%s"
    )


def benchmark_hits(text: str, indexes: Sequence[BenchmarkIndex]) -> list[BenchmarkHit]:
    """One hit for each benchmark that shares an n-gram with ``text``, in the order of the indexes."""
    found = {n: list(ngrams(text, n)) for n in {index.ngram for index in indexes}}
    return [hit for index in indexes if (hit := index.hit(found[index.ngram]))]


def contamination_counts(
    hits: Counter[str], indexes: Sequence[BenchmarkIndex], params: Contamination
) -> dict[str, Any]:
    """The metrics of each benchmark: "not checked", or how many training questions share an n-gram with it.

    ``hits`` are these numbers, by benchmark.

    A question that two benchmarks share counts for both, so the sum may exceed the number of questions left out.
    """
    checked = {
        index.benchmark: {"hits": hits[index.benchmark], "questions": index.questions, "too_short": index.too_short}
        for index in indexes
    }
    return {"ngram": params.ngram} | {name: checked.get(name, "not checked") for name in get_args(PublicBenchmark)}
