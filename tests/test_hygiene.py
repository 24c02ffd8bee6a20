"""hygiene: what counts as the same text, what as n words in a row of a benchmark, and the benchmarks' own files."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.lib.database import TemporaryDatabase
from stages.lib.hygiene.benchmarks import read_questions
from stages.lib.hygiene.contamination import BenchmarkIndex, benchmark_hits, index_questions, ngrams
from stages.lib.hygiene.duplicates import normalised
from stages.lib.rows import DataError
from stages.lib.rows.question import BenchmarkHit
from tests.public_data import WHOLE

# of GSM8K's first thousand questions, and of all, so many share n words in a row with a benchmark's questions
PUBLISHED = [
    ("gsm8k", "gsm8k/test.jsonl", 8, 1319, 0, 8, 70),
    ("gsm8k", "gsm8k/test.jsonl", 13, 1319, 0, 2, 4),
    ("mgsm", "mgsm/mgsm_en.tsv", 8, 250, 0, None, 19),
    ("mgsm", "mgsm", 8, 2750, 442, None, 19),
    ("mgsm", "mgsm", 13, 2750, 637, 0, 0),
    ("mmlu", "mmlu", 8, 14042, 1149, None, 6),
    ("mmlu", "mmlu", 13, 14042, 4210, 0, 0),
]
SAMPLE = [
    ("gsm8k", "gsm8k/test.jsonl", 8, 31, 0, 8, 8),
    ("gsm8k", "gsm8k/test.jsonl", 13, 31, 0, 3, 3),
    ("mgsm", "mgsm", 8, 132, 19, 0, 0),
    ("mmlu", "mmlu", 8, 17, 2, 1, 1),
    ("mmlu", "mmlu", 13, 17, 5, 0, 0),
]
EIGHT_WORDS = "Natalia sold clips to 48 of her friends"


class TestNormalisedText:
    """Which texts are the same question."""

    @pytest.mark.parametrize(
        "text", ["How MANY hens?", "  how many\n\thens? ", "how many\u00a0hens?", "HOW\u3000MANY\u2003HENS?"]
    )
    def test_case_and_runs_of_white_space_make_no_difference(self, text: str) -> None:
        assert normalised(text) == "how many hens?"

    @pytest.mark.parametrize("text", ["How many hens", "How many hens ?", "Howmany hens?", "How many 3 hens?"])
    def test_punctuation_numbers_and_word_boundaries_do(self, text: str) -> None:
        assert normalised(text) != "how many hens?"


class TestNgrams:
    """n words in a row."""

    def test_they_are_every_n_words_in_a_row_in_lower_case(self) -> None:
        assert list(ngrams("Ann  has\n3 Hens.", 2)) == ["ann has", "has 3", "3 hens."]

    @pytest.mark.parametrize(("n", "count"), [(1, 8), (7, 2), (8, 1), (9, 0), (100, 0)])
    def test_a_text_of_fewer_words_has_none(self, n: int, count: int) -> None:
        assert len(list(ngrams(EIGHT_WORDS, n))) == count

    def test_an_empty_text_has_none(self) -> None:
        assert list(ngrams(" \n", 1)) == []


class TestHits:
    """A training question against a benchmark."""

    @pytest.fixture
    def index(self) -> BenchmarkIndex:
        return index_questions("gsm8k", ["Too short.", f"{EIGHT_WORDS} in April.", f"Then {EIGHT_WORDS} again."], 8)

    @pytest.mark.parametrize(
        "text",
        [
            EIGHT_WORDS,
            EIGHT_WORDS.upper(),
            EIGHT_WORDS.replace(" ", " \n "),
            f"Last year {EIGHT_WORDS} and 24 to others.",
        ],
    )
    def test_n_words_in_a_row_are_one_in_any_case_and_spacing(self, index: BenchmarkIndex, text: str) -> None:
        hit = BenchmarkHit(benchmark="gsm8k", question=f"{EIGHT_WORDS} in April.", ngram=EIGHT_WORDS.lower())
        assert benchmark_hits(text, [index]) == [hit]

    @pytest.mark.parametrize(
        "text",
        [
            EIGHT_WORDS.removesuffix(" friends"),
            EIGHT_WORDS.replace("48", "49"),
            EIGHT_WORDS.replace("48 of", "48, of"),
            "Too short.",
            "",
        ],
    )
    def test_less_is_none(self, index: BenchmarkIndex, text: str) -> None:
        assert benchmark_hits(text, [index]) == []

    def test_the_index_counts_the_questions_that_it_cannot_check(self, index: BenchmarkIndex) -> None:
        assert (index.questions, index.too_short) == (3, 1)

    def test_each_benchmark_is_named_once(self, index: BenchmarkIndex) -> None:
        others = [index_questions(name, [text], 8) for name, text in (("mgsm", EIGHT_WORDS), ("mmlu", "x " * 8))]
        found = benchmark_hits(f"{EIGHT_WORDS} in April.", [index, *others])
        assert [hit.benchmark for hit in found] == ["gsm8k", "mgsm"]

    @pytest.mark.parametrize("questions", [[], ["Too short."]])
    def test_a_benchmark_without_a_long_enough_question_is_refused(self, questions: list[str]) -> None:
        with pytest.raises(DataError, match=f"none of the {len(questions)} questions of mmlu is 8 words long"):
            index_questions("mmlu", questions, 8)


FILES = {
    "gsm8k": '{"question": "A “hen”?", "answer": "#### 1"}\n{"question": "B?\\nC?", "answer": "#### 2", "x": 0}\n',
    "mgsm": 'A “hen"?\t1\nB? C?\t1,080\n',
    "mmlu": '"A “hen"", or 2?",0,4,"2, 3",6,B\n"B?\nC?",a,b,c,d,A\n',
}
TEXTS = {
    "gsm8k": ["A “hen”?", "B?\nC?"],
    "mgsm": ['A “hen"?', "B? C?"],
    "mmlu": ['A “hen", or 2?', "B?\nC?"],
}


class TestBenchmarkFiles:
    """The forms in which the benchmarks are published."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Callable[..., Path]:
        def write(content: str | bytes, name: str = "texts") -> Path:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            return path

        return write

    @pytest.mark.parametrize("benchmark", FILES)
    @pytest.mark.parametrize("form", ["plain", "byte order mark", "CRLF", "no final newline"])
    def test_the_questions_are_read_to_the_letter(self, benchmark: str, form: str, file: Callable[..., Path]) -> None:
        content = FILES[benchmark].encode()
        forms = {
            "plain": content,
            "byte order mark": b"\xef\xbb\xbf" + content,
            "CRLF": content.replace(b"\n", b"\r\n"),
            "no final newline": content.rstrip(b"\n"),
        }
        questions = list(read_questions(benchmark, file(forms[form])))
        assert [text.replace("\r\n", "\n") for text in questions] == TEXTS[benchmark]

    def test_mgsm_is_a_folder_of_languages(self, file: Callable[..., Path]) -> None:
        file("No?\t1\n", "mgsm/other.tsv")
        file("Combien ?\t1\n", "mgsm/mgsm_fr.tsv")
        english = file("How many?\t1\n", "mgsm/mgsm_en.tsv")
        assert list(read_questions("mgsm", english.parent)) == ["How many?", "Combien ?"]
        assert list(read_questions("mgsm", english)) == ["How many?"]

    def test_mmlu_is_the_test_files_of_a_folder(self, file: Callable[..., Path]) -> None:
        file("Dev?,1,2,3,4,A\n", "mmlu/dev/anatomy_dev.csv")
        file("Where?,1,2,3,4,A\n", "mmlu/test/virology_test.csv")
        anatomy = file("What?,1,2,3,4,A\n", "mmlu/test/anatomy_test.csv")
        assert list(read_questions("mmlu", anatomy.parents[1])) == ["What?", "Where?"]
        assert list(read_questions("mmlu", anatomy.parent)) == ["What?", "Where?"]
        assert list(read_questions("mmlu", anatomy)) == ["What?"]

    @pytest.mark.parametrize(
        ("benchmark", "content", "line"),
        [
            ("gsm8k", "not json\n", 3),
            ("gsm8k", '{"question": "A?"}\n', 3),
            ("gsm8k", '{"question": "", "answer": "#### 1"}\n', 3),
            ("mgsm", "A?\n", 3),
            ("mgsm", "A?\t1\t2\n", 3),
            ("mgsm", " \t1\n", 3),
            ("mgsm", "\n", 3),
            ("mmlu", "A?,1,2,3,B\n", 4),
            ("mmlu", "A?,1,2,3,4,5,B\n", 4),
            ("mmlu", ",1,2,3,4,B\n", 4),
            ("mmlu", 'A "never ending,1,2,3,4,B\n"B,1,2', 5),
            ("mmlu", f"{'A' * 200_000},1,2,3,4,B\n", 4),
        ],
    )
    def test_a_line_of_another_form_is_named(
        self, benchmark: str, content: str, line: int, file: Callable[..., Path]
    ) -> None:
        path = file(FILES[benchmark] + content)
        with pytest.raises(DataError) as caught:
            list(read_questions(benchmark, path))
        assert str(caught.value).startswith(f"{path}:{line}: not a row of {benchmark} (")
        assert f"collect.contamination.benchmarks.{benchmark}" in str(caught.value)

    @pytest.mark.parametrize("benchmark", FILES)
    def test_a_line_in_another_encoding_is_named(self, benchmark: str, file: Callable[..., Path]) -> None:
        path = file(FILES[benchmark].encode("gb18030"))
        with pytest.raises(DataError, match=r":1: not UTF-8 \(byte at \d+\)\. Point "):
            list(read_questions(benchmark, path))

    @pytest.mark.parametrize("benchmark", FILES)
    def test_a_folder_without_its_files_is_refused(self, benchmark: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"a folder without the benchmark's files. Point .*{benchmark} at"):
            list(read_questions(benchmark, tmp_path))


class TestThePublishedTexts:
    """GSM8K's training set against the published benchmarks."""

    @pytest.fixture
    def training(self, development_data: Path) -> list[str]:
        lines = (development_data / "gsm8k" / "train.jsonl").read_bytes().splitlines()
        return [json.loads(line)["question"] for line in lines]

    @pytest.mark.parametrize(
        ("benchmark", "path", "n", "questions", "too_short", "in_thousand", "in_all"),
        PUBLISHED if WHOLE else SAMPLE,
    )
    def test_these_many_questions_share_n_words_in_a_row(
        self,
        benchmark: str,
        path: str,
        n: int,
        questions: int,
        too_short: int,
        in_thousand: int | None,
        in_all: int,
        training: list[str],
        development_data: Path,
    ) -> None:
        index = index_questions(benchmark, read_questions(benchmark, development_data / path), n)
        found = [number for number, text in enumerate(training) if benchmark_hits(text, [index])]
        assert (index.questions, index.too_short) == (questions, too_short)
        assert len(found) == in_all
        if in_thousand is not None:
            assert sum(number < 1000 for number in found) == in_thousand

    def test_every_hit_can_be_read_in_both_texts(self, training: list[str], development_data: Path) -> None:
        index = index_questions("gsm8k", read_questions("gsm8k", development_data / "gsm8k" / "test.jsonl"), 8)
        hits = [(text, hit) for text in training for hit in benchmark_hits(text, [index])]
        for text, hit in hits:
            assert len(hit.ngram.split()) == 8
            assert hit.ngram in " ".join(text.lower().split())
            assert hit.ngram in " ".join(hit.question.lower().split())

    def test_a_benchmark_hits_each_of_its_own_questions(self, development_data: Path) -> None:
        questions = list(read_questions("gsm8k", development_data / "gsm8k" / "test.jsonl"))
        index = index_questions("gsm8k", questions, 13)
        assert all(benchmark_hits(text, [index]) for text in questions)

    @pytest.mark.heavy
    def test_all_of_it_takes_seconds(self, training: list[str], development_data: Path) -> None:
        started = time.monotonic()
        paths = {"gsm8k": "gsm8k/test.jsonl", "mgsm": "mgsm", "mmlu": "mmlu"}
        indexes = [index_questions(name, read_questions(name, development_data / paths[name]), 8) for name in paths]
        for text in training:
            benchmark_hits(text, indexes)
        assert time.monotonic() - started < 30  # 1 s on an idle machine


def test_a_full_disk_is_one_line() -> None:
    database = TemporaryDatabase("CREATE TABLE seen (text TEXT)")
    database.change("PRAGMA max_page_count = 2", ())
    with pytest.raises(DataError, match=r"^temporary database: database or disk is full\. Free space in the folder"):
        database.change("INSERT INTO seen VALUES (?)", ["long" * 10_000])
    with pytest.raises(DataError, match=r"^temporary database: database or disk is full\. "):
        next(database.rows("SELECT * FROM seen", ()), None)
