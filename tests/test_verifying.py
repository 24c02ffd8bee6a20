"""The verifier of each benchmark: what lm-eval's documents ask, and the verdict in MGSM's eleven languages."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.lib.answers import rule_verdict
from stages.lib.answers.lexicon import lexicon
from stages.lib.answers.values import Text
from stages.lib.evaluation.verifying import Asked, asked, verify
from stages.lib.texts.languages import LANGUAGES, language_of
from tests.answers import native
from tests.public_data import WHOLE

ALLOWED = {"right": ("right",), "wrong": ("wrong", "unsure"), "unsure": ("unsure", "wrong")}
GOLDS = (3, 18, 694, 5600, 2125, 114_200, 276_000, 1_250_000)
SEPARATOR = {"de": ".", "es": ".", "fr": "\u202f", "ru": "\u00a0"}
DIGITS = {"bn": "০১২৩৪৫৬৭৮৯", "te": "౦౧౨౩౪౫౬౭౮౯", "th": "๐๑๒๓๔๕๖๗๘๙", "ja": "０１２３４５６７８９"}


def asked_in(language: str, answer: str) -> Asked:
    return Asked(f"{language}/0", "0", "?", answer, language, language)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.language}-{i}") for i, row in enumerate(native.ROWS)])
def test_an_answer_in_any_language_is_judged_as_a_person_would(row: native.Native) -> None:
    verdict = verify(asked_in(row.language, row.answer), row.response)
    assert verdict.verdict in ALLOWED[row.expected], verdict


def test_the_table_has_rows_of_each_language() -> None:
    assert set(native.FORMS) == set(LANGUAGES)


LESSONS = [pytest.param(language, text, id=language) for language, texts in native.LESSONS.items() for text in texts]


@pytest.mark.parametrize(("language", "text"), LESSONS)
def test_a_whole_answer_is_right_by_what_it_comes_to_and_by_no_number_on_the_way(language: str, text: str) -> None:
    assert verify(asked_in(language, "18"), text).verdict == "right"
    assert verify(asked_in(language, "17"), text).verdict == "wrong"
    assert all(verify(asked_in(language, str(step)), text).verdict != "right" for step in (2, 3, 4, 7, 9, 16, 1800))


@pytest.mark.parametrize(("language", "text"), LESSONS)
def test_a_whole_answer_s_language_is_told(language: str, text: str) -> None:
    assert language_of(text) == language


def task_config(language: str) -> dict[str, Any]:
    """The installed lm-eval's own configuration of an MGSM task."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.origin
    path = Path(spec.origin).parent / "tasks" / "mgsm" / "native_cot" / f"mgsm_native_cot_{language}.yaml"
    config: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("gold", GOLDS)
def test_the_sentence_that_lm_eval_looks_for_is_read_with_the_languages_own_numbers(language: str, gold: int) -> None:
    pattern = task_config(language)["filter_list"][0]["filter"][0]["regex_pattern"]
    number = f"{gold:,}".replace(",", SEPARATOR.get(language, ","))
    number = number.translate(str.maketrans("0123456789", DIGITS.get(language, "0123456789")))
    sentence = re.sub(r"\(.*\)", number, pattern)
    assert verify(asked_in(language, str(gold)), sentence).verdict == "right", sentence
    assert verify(asked_in(language, str(gold + 1)), sentence).verdict == "wrong", sentence
    assert verify(asked_in(language, str(gold / 1000)), sentence).verdict != "right", sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_repeated_question_s_numbers_do_not_hide_the_answer(development_data: Path, language: str) -> None:
    """MGSM's questions, each repeated before lm-eval's sentence with its gold answer, and with one more."""
    pattern = task_config(language)["filter_list"][0]["filter"][0]["regex_pattern"]
    lines = (
        (development_data / "mgsm" / f"mgsm_{language}.tsv")
        .read_text(encoding="utf-8")
        .splitlines()[:: 2 if WHOLE else 1]
    )
    verdicts: Counter[tuple[int, str]] = Counter()
    for text, gold in (line.rsplit("\t", 1) for line in lines):
        number = int(gold.replace(",", ""))
        for more in (0, 1):
            response = text + "\n\n" + re.sub(r"\(.*\)", str(number + more), pattern)
            question = Asked("", "", text, gold, language, language)
            verdicts[more, verify(question, response).verdict] += 1
    assert verdicts[0, "right"] == len(lines)
    assert verdicts[1, "right"] == 0
    assert verdicts[1, "wrong"] >= (0.95 if WHOLE else 0.9) * len(lines)


def test_every_stop_string_is_the_word_before_a_question() -> None:
    """What the audit counts as a task's own stop is what lm-eval's few-shot examples begin with."""
    for language in LANGUAGES:
        config = task_config(language)
        assert config["generation_kwargs"]["until"][0] in config["doc_to_text"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_thought_is_left_out_in_every_language(language: str) -> None:
    text = "<|begin_of_thought|>The answer is 17.<|end_of_thought|><|begin_of_solution|>18<|end_of_solution|>"
    assert verify(asked_in(language, "18"), text).verdict == "right"
    assert verify(asked_in(language, "17"), text).verdict != "right"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,5", ["1.5"]),
        ("0,125", ["0.125"]),
        ("12,3456", ["12.3456"]),
        ("1234,567", ["1234.567"]),
        ("1.234,50", ["1234.50"]),
        ("1.234.567", ["1234567"]),
        ("1.234.567,89", ["1234567.89"]),
        ("1,234,567", ["1234567"]),
        ("1,234.50", ["1234.50"]),
        ("1'234", ["1234"]),
        ("1.234", ["1234", "1.234"]),
        ("1,234", ["1234", "1.234"]),
        ("0.125", ["0.125"]),
        ("3.14", ["3.14"]),
        ("0{,}5", ["0.5"]),
        ("1.234.", ["1234", "1.234"]),
    ],
)
def test_a_separator_is_read_as_it_must_be_or_in_both_ways(text: str, values: list[str]) -> None:
    (found,) = Text(text, lexicon("de", False)).values(0, len(text))
    assert [str(float(each)) for each in (found.value, found.other) if each is not None] == [
        str(float(v)) for v in values
    ]


@pytest.mark.parametrize("language", ["de", "sw", "te"])
def test_an_english_answer_has_the_same_verdict_whatever_language_it_was_asked_in(
    development_data: Path, language: str
) -> None:
    path = development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()[:: 4 if WHOLE else 1]]
    for row in rows:
        gold, solution = row["ground_truth"].rpartition("A: ")[2], row["6b_verification"]["solution"]
        plain = rule_verdict(row["question"], solution, gold).verdict
        there = verify(Asked("", "", row["question"], gold, language, language), solution).verdict
        assert there == plain, solution


class TestAsked:
    MGSM: dict[str, Any] = {"question": "几个？", "answer": None, "answer_number": 18, "equation_solution": None}  # noqa: RUF012

    @pytest.mark.parametrize("task", ["mgsm_native_cot_zh", "mgsm_direct_zh"])
    def test_an_mgsm_question_shares_its_cluster_with_its_translations(self, task: str) -> None:
        assert asked(task, self.MGSM, 17) == Asked("zh/17", "17", "几个？", "18", "zh", "zh")
        german = asked(task.replace("zh", "de"), self.MGSM, 17)
        assert german and (german.id, german.cluster) == ("de/17", "17")

    def test_an_english_chain_of_thought_is_expected_in_english(self) -> None:
        question = asked("mgsm_en_cot_zh", self.MGSM, 17)
        assert question and (question.id, question.language, question.reply_language) == ("en_cot_zh/17", "zh", "en")

    @pytest.mark.parametrize("task", ["gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot"])
    def test_a_gsm8k_question_is_known_by_its_number(self, task: str) -> None:
        doc = {"question": "How many?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018"}
        assert asked(task, doc, 17) == Asked("gsm8k-test-17", "gsm8k-test-17", "How many?", "1,018", "en", "en")

    def test_a_heldout_question_has_its_own_name_and_language(self) -> None:
        doc = {"id": "chain-5", "question": "小明和小红一共有多少个苹果？", "answer": "5", "solution": None}
        assert asked("heldout", doc, 3) == Asked("chain-5", "chain-5", doc["question"] or "", "5", "zh", "zh")

    @pytest.mark.parametrize("task", ["mmlu_anatomy", "mgsm_direct_es_spanish_bench", "arc_easy", "gsm8k_platinum"])
    def test_a_task_without_a_verifier_asks_nothing(self, task: str) -> None:
        assert asked(task, {"question": "?"}, 0) is None
