"""The audit: loops, the language of an answer, the flags of one answer, the shares and examples of many."""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from stages.lib.answers import Verdict
from stages.lib.evaluation.audit import KINDS, Audited, Flags, Generated, examples, flags, own_stops, summary
from stages.lib.texts.languages import LANGUAGES, language_of
from stages.lib.texts.looping import loops
from tests.answers import lessons_en, lessons_zh
from tests.public_data import WHOLE

RIGHT = Verdict("right", "18", "phrase")
UNSURE = Verdict("unsure", None, "none")
GENERATED = Generated("How much?", "She makes 9 * 2 = 18 dollars. The answer is 18.", 20, 100, "en", (), None)
CLEAN = Flags(False, False, None, False, False, False)
ROW = Audited("q0", "How much?", "18", "The answer is 18.", 20, CLEAN, lm_eval=True, verdict="right")
LOOPS = {
    "a word": "So it is " + "the " * 40,
    "a line": "First, 16 - 3 = 13.\n" + "She sells 9 eggs a day.\n" * 6,
    "a sentence": "Let us see. " + "Wait, let me check that again, for it may be wrong. " * 4,
    "a sign": "The answer is " + "!" * 80,
    "digits": "The answer is 0." + "3" * 200,
    "Chinese": "一共有多少个呢？" + "所以我们再来算一遍，看看对不对。" * 5,
    "a Thai word": "คำตอบคือ " + "อีกครั้ง" * 20,
    "a paragraph": "Start. " + "\n\n".join([str.join(" ", (f"word{n}" for n in range(200)))] * 4),
    "lines with a counter": "".join(f"Step {n}: add 3 to the sum.\n" for n in range(1, 30)),
    "sums that grow": "".join(f"{n} + 3 = {n + 3}\n" for n in range(10, 90, 3)),
    "cut within the piece": ("He walks to school and back. " * 9)[:-11],
    "before its marker": "Wait, once more. " * 8 + "<|end_of_solution|>",
}
NO_LOOPS = {
    "nothing": "",
    "a number": "1000000000000",
    "a table": "".join(f"7 × {n} = {7 * n}\n" for n in range(1, 10)) + "So 7 × 9 = 63. The answer is 63.",
    "a short list": "Day 1: 12 eggs\nDay 2: 12 eggs\nDay 3: 12 eggs\n",
    "a sum of many terms": "The total is 12 + 14 + 9 + 8 + 15 + 22 + 31 + 4",
    "what was left again": "Wait, once more. " * 20 + "I have it now: Natalia sold 72 clips, so the answer is 72.",
    "twice": "Natalia sold 24 clips in May, which is half as many as in April. " * 2,
}


class TestLoops:
    @pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
    def test_a_text_that_ends_in_a_loop_is_found(self, text: str) -> None:
        assert loops(text)

    @pytest.mark.parametrize("text", NO_LOOPS.values(), ids=NO_LOOPS.keys())
    def test_a_text_that_goes_on_is_none(self, text: str) -> None:
        assert not loops(text)

    def test_no_lesson_is_a_loop(self) -> None:
        assert not any(loops(lesson[3]) for lesson in lessons_en.LESSONS + lessons_zh.LESSONS)

    def test_no_solution_of_gsm8k_is_a_loop_whole_or_cut(self, development_data: Path) -> None:
        lines = (development_data / "gsm8k" / "train.jsonl").read_bytes().splitlines()
        cut = random.Random(0)
        for text in (json.loads(line)["answer"] for line in lines[::4]):
            assert not loops(text)
            assert not loops(text[: cut.randrange(len(text))])

    def test_of_the_answers_of_four_models_the_five_that_loop_are_found(self, development_data: Path) -> None:
        path = development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl"
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        texts = [value["solution"] for row in rows for value in row.values() if isinstance(value, dict)]
        found = [text for text in texts if loops(text)]
        assert (len(texts), len(found)) == (5276 if WHOLE else 64, 5)
        assert all(not text.splitlines()[-1].startswith("A:") for text in found)  # none came to an answer

    @pytest.mark.parametrize("text", ["a" * 16_000, ("x" * 1999 + "y") * 8, "ab" * 3_000 + "c" * 3_000])
    def test_a_long_text_is_told_at_once(self, text: str) -> None:
        started = time.process_time()
        for _ in range(5):
            loops(text)
        assert (time.process_time() - started) / 5 < 0.05  # measured: 2 to 3 ms


class TestLanguages:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_question_of_mgsm_is_told(self, development_data: Path, language: str) -> None:
        lines = (development_data / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
        assert {language_of(line.rpartition("\t")[0]) for line in lines} == {language}

    @pytest.mark.parametrize(
        ("text", "language"),
        [
            ("The answer is 18 dollars.", "en"),
            ("Die Antwort lautet 18 Dollar.", "de"),
            ("Kwa hivyo jibu ni dola 18 kwa siku.", "sw"),
            ("答えは全部で18ドルです。", "ja"),
            ("所以她每天赚 18 美元。", "zh"),
            ("Ответ: 18 долларов", "ru"),
            ("উত্তর হল 18 ডলার।", "bn"),
            ("**所以** Janet 每天卖 9 个鸭蛋，一共赚 $18$ 美元。", "zh"),
            ("She pays $5 for one and for two she pays $10.", "en"),
            ("안녕하세요, 답은 십팔입니다. 감사합니다.", "other"),
            ("18", None),
            ("The answer is 18.", None),
            (r"$$\text{the whole of it is a formula}$$ \boxed{18}", None),
            ("```python\nfor apple in basket: print(apple)\n```", None),
            ("<|begin_of_solution|>48 + 24 = 72<|end_of_solution|>", None),
            ("Она зарабатывает, and she spends all of it at once", None),
            ("", None),
        ],
    )
    def test_a_short_text_is_told_by_its_prose_or_not_at_all(self, text: str, language: str | None) -> None:
        assert language_of(text) == language

    def test_sixteen_letters_are_enough_and_seldom_misread(self, development_data: Path) -> None:
        asked = told = wrong = 0
        for language in ("de", "en", "es", "fr", "sw"):
            text = (development_data / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8")
            pieces = [" ".join(line.split()[4:9]) for line in text.splitlines()]
            found = [each for each in map(language_of, pieces) if each]
            asked += len(pieces)
            told += len(found)
            wrong += sum(each != language for each in found)
        assert told > 0.72 * asked
        assert wrong / told < 0.01

    def test_the_library_is_loaded_only_for_a_text_in_latin_letters(self) -> None:
        code = (
            "import sys; from stages.lib.texts.languages import language_of\n"
            "assert language_of('所以她每天赚十八美元。') == 'zh' and 'py3langid' not in sys.modules\n"
            "assert language_of('Natalia sold these clips.') == 'en' and 'py3langid' in sys.modules"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestFlags:
    def of(self, verdict: Verdict | None = RIGHT, **changes: Any) -> Flags:
        return flags(replace(GENERATED, **changes), verdict)

    def test_a_clean_answer_has_none(self) -> None:
        assert self.of() == CLEAN

    def test_an_answer_is_cut_off_where_its_tokens_reach_the_limit(self) -> None:
        assert self.of(tokens=100).cut_off
        assert not self.of(tokens=90).cut_off
        assert self.of(tokens=4060, limit=4096).cut_off, "as counted in the text, which may split into fewer"
        assert not self.of(tokens=4000, limit=4096).cut_off

    @pytest.mark.parametrize(("text", "stopped"), [("18\n\nQuestion: How many?", True), ("The question: 18", False)])
    def test_a_stop_string_of_the_task_is_found_anywhere_in_the_generation(self, text: str, stopped: bool) -> None:
        assert self.of(response=text, stops=("Question:", "问题：")).task_stop is stopped

    def test_a_stop_string_within_the_thought_counts_too(self) -> None:
        text = "<|begin_of_thought|>Question: what is asked?<|end_of_thought|><|begin_of_solution|>18"
        assert self.of(response=text, stops=("Question:",)).task_stop

    def test_the_end_of_the_turn_is_no_stop_of_the_task_s_own(self) -> None:
        assert own_stops(["问题：", "</s>", "<|im_end|>"]) == ("问题：",)

    def test_the_end_marker_is_missed_only_where_one_is_written(self) -> None:
        marker = "<|end_of_solution|>"
        assert self.of(end_marker=marker).no_end_marker is True
        assert self.of(end_marker=marker, response=f"18{marker}").no_end_marker is False
        assert self.of(end_marker=None).no_end_marker is None

    def test_an_answer_is_unread_where_the_verifier_is_unsure(self) -> None:
        assert self.of(UNSURE).unread is True
        assert self.of(None).unread is None

    def test_the_solution_s_language_counts_and_not_the_thought_s(self) -> None:
        text = "<think>She sells nine eggs, so two dollars each.</think>所以她每天一共赚了 18 美元。"
        assert self.of(response=text, language="zh").other_language is False
        assert self.of(response=text, language="en").other_language is True

    def test_a_language_is_not_flagged_where_none_can_be_told(self) -> None:
        assert self.of(response="18").other_language is None
        assert self.of(language=None).other_language is None

    def test_a_loop_is_flagged(self) -> None:
        assert self.of(response=LOOPS["a line"]).looping


class TestSummary:
    def flagged(self, **values: Any) -> Audited:
        return replace(ROW, flags=replace(CLEAN, **values))

    def test_shares_are_of_all_rows(self) -> None:
        rows = [self.flagged(cut_off=True, other_language=None), ROW, ROW, self.flagged(other_language=True)]
        found = summary(rows)
        assert (found["cut_off"], found["other_language"], found["looping"]) == (0.25, 0.25, 0.0)

    def test_a_flag_that_arises_nowhere_is_null(self) -> None:
        assert summary([ROW])["no_end_marker"] is None

    def test_the_keys_are_always_the_same(self) -> None:
        keys = ["differ", *KINDS, "tokens_median", "tokens_p95"]
        unscored = replace(ROW, lm_eval=None, verdict=None)
        assert [list(summary(rows)) for rows in ([ROW], [unscored])] == [keys, keys]
        assert summary([unscored])["differ"] is None

    def test_the_two_scores_differ_both_ways_and_unsure_is_not_right(self) -> None:
        rows = [ROW, replace(ROW, verdict="wrong"), replace(ROW, verdict="unsure"), replace(ROW, lm_eval=False)]
        assert summary(rows)["differ"] == 3

    def test_lengths_are_the_median_and_the_95th_percentile(self) -> None:
        found = summary([replace(ROW, tokens=n) for n in range(1, 102)])
        assert (found["tokens_median"], found["tokens_p95"]) == (51.0, 96.0)


class TestExamples:
    ROWS = tuple(
        replace(
            ROW,
            id=f"q{n}",
            lm_eval=n % 2 == 0,
            verdict="right" if n % 3 == 0 else "unsure",
            flags=replace(CLEAN, cut_off=n < 3, unread=n % 3 != 0),
        )
        for n in range(60)
    )

    def test_there_are_five_of_each_kind_or_all_there_are(self) -> None:
        found = {kind: len(list(rows)) for kind, rows in groupby(examples(self.ROWS, seed=1), lambda row: row["kind"])}
        assert found == {"differ_lm_eval_only": 5, "differ_verifier_only": 5, "cut_off": 3, "unread": 5}

    def test_each_shows_its_kind(self) -> None:
        for row in examples(self.ROWS, seed=1):
            if row["kind"] == "differ_lm_eval_only":
                assert row["lm_eval"] and row["verdict"] != "right"
            if row["kind"] == "differ_verifier_only":
                assert not row["lm_eval"] and row["verdict"] == "right"

    def test_the_seed_draws_the_same_again_and_another_seed_others(self) -> None:
        assert examples(self.ROWS, seed=1) == examples(self.ROWS, seed=1)
        assert examples(self.ROWS, seed=1) != examples(self.ROWS, seed=2)

    def test_they_can_be_written_as_json(self) -> None:
        assert json.loads(json.dumps(examples(self.ROWS, seed=1)))[0]["question"] == "How much?"


def test_the_document_tells_of_every_flag_and_kind_of_example() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    names = [*summary([ROW]), *{row["kind"] for row in examples(TestExamples.ROWS, seed=1)}]
    assert [name for name in names if f"`{name}`" not in text] == []
