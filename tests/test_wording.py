"""wording: scripts and lengths of questions, and near-duplicates that are verified by exact similarity."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.near_duplicates import found_and_missed, jaccard, sharing_pairs
from stages.lib.params import NearDuplicateParams
from stages.lib.wording.description import described
from stages.lib.wording.near_duplicates import MOST_IN_BAND, NearDuplicates, Sketches, banding, shingles
from stages.lib.wording.scripts import script_of
from tests.public_data import WHOLE

JOSIE = (
    "Josie received $50 as a gift. She plans to buy two cassette tapes that cost $9 each and a headphone set that "
    "costs $25. How much money will she have left?"
)
AMANDA = JOSIE.replace("Josie", "Amanda")  # both are in GSM8K
APPLES = "Ann has {} apples in her basket and gives half of them to her sister who eats one. How many stay?"
TAPES = (
    "Josie收到50元作为礼物。她打算买两盘磁带，每盘9元，再买一副25元的耳机。她还剩下多少钱？",
    "Amanda收到50元作为礼物。她打算买两盘磁带，每盘9元，再买一副25元的耳机。她还剩下多少钱？",
)


def near_params(**changes: float) -> NearDuplicateParams:
    """The params that docs name, changed."""
    return NearDuplicateParams.model_validate(
        {"ngram": 5, "threshold": 0.8, "permutations": 128, "seed": 3} | changes, strict=False
    )


def nearest(first: str, second: str, **changes: float) -> float | None:
    """The similarity under which the second text is near to the first."""
    texts, sketches = NearDuplicates(near_params(**changes)), Sketches(near_params(**changes))
    texts.add("first", sketches(first))
    found = texts.nearest(sketches(second))
    return found.similarity if found else None


class TestScripts:
    """A cheap view of the language."""

    @pytest.mark.parametrize(
        ("text", "script"),
        [
            ("Natalia sold 48 clips.", "latin"),
            ("小明有5个苹果。", "han"),
            ("已知 $\\frac{a}{b} = 2$，求 a 的值。", "han"),
            ("ナタリアは48個のクリップを売りました。", "kana"),
            ("東京から大阪まで500kmあります。", "kana"),
            ("Наталья продала 48 заколок.", "cyrillic"),
            ("นาตาเลียขายกิ๊บ 48 ตัว", "thai"),
            ("나탈리아는 클립을 팔았다.", "hangul"),
            ("48 + 24 = ?", "none"),
            ("", "none"),
        ],
    )
    def test_the_script_of_most_of_a_text(self, text: str, script: str) -> None:
        assert script_of(text) == script

    def test_each_language_of_mgsm_has_its_script(self, development_data: Path) -> None:
        scripts = dict.fromkeys(("de", "en", "es", "fr", "sw"), "latin")
        scripts |= {"bn": "bengali", "ja": "kana", "ru": "cyrillic", "te": "telugu", "th": "thai", "zh": "han"}
        for language, script in scripts.items():
            lines = (development_data / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
            assert described(line.split("\t")[0] for line in lines)["scripts"] == {script: len(lines)}

    def test_lengths_are_those_of_texts(self) -> None:
        found = described("x" * length for length in range(1, 201))
        assert found["characters"] == {"shortest": 1, "p50": 100, "p90": 180, "p99": 198, "longest": 200}
        assert described([]) == {"scripts": {}, "characters": None}


class TestShingles:
    """What a text is compared by."""

    def test_words_of_latin_script_and_characters_of_han(self) -> None:
        assert shingles("Ann has 3 hens.", 3) == {"ann has 3", "has 3 hens"}
        assert shingles("小明有5个苹果。", 3) == {"小 明 有", "明 有 5", "有 5 个", "5 个 苹", "个 苹 果"}

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("Ann has 3 hens.", "ann  HAS\n3 hens"),
            ("小明有５个苹果，对吗？", "小明有5个苹果对吗"),
            ("He said: “3 hens!”", 'He said "3 hens"'),
        ],
    )
    def test_case_width_and_punctuation_make_no_difference(self, first: str, second: str) -> None:
        assert shingles(first, 3) == shingles(second, 3)

    @pytest.mark.parametrize(
        ("first", "second"),
        [("x^2 + 3x - 1 = 0", "x^2 - 3x + 1 = 0"), ("costs 1.5 in all", "costs 15 in all"), ("a < b < c", "a > b > c")],
    )
    def test_symbols_and_numbers_do(self, first: str, second: str) -> None:
        assert jaccard(shingles(first, 3), shingles(second, 3)) < 0.5

    def test_a_text_shorter_than_a_shingle_is_one(self) -> None:
        assert shingles("How many?", 5) == {"how many"}
        assert nearest("How many?", "how many") == 1.0
        assert nearest("How many?", "How much?") is None

    def test_the_signs_inside_a_word_do_not_part_it(self) -> None:
        assert shingles("नमस्ते दुनिया", 1) == {"नमस्ते", "दुनिया"}


class TestNearDuplicates:
    """A text against those before it."""

    def test_a_changed_name_is_nearly_the_same(self) -> None:
        found = nearest(JOSIE, AMANDA)
        assert found == jaccard(shingles(JOSIE, 5), shingles(AMANDA, 5))
        assert 0.9 < found < 1

    def test_chinese_is_compared_by_character(self) -> None:
        first, second = TAPES
        found = nearest(first, second)
        assert found and found > 0.9
        assert nearest(first, JOSIE) is None

    def test_a_threshold_above_the_similarity_finds_nothing(self) -> None:
        assert nearest(JOSIE, AMANDA, threshold=0.94) is None
        similarity = jaccard(shingles(JOSIE, 5), shingles(AMANDA, 5))
        assert nearest(JOSIE, AMANDA, threshold=similarity) == similarity

    def test_a_collision_of_hashes_leaves_out_nothing(self) -> None:
        """With bands of one row, which share a value easily, candidates are many and hits only the real ones."""
        texts, sketches = NearDuplicates(near_params(threshold=0.05)), Sketches(near_params(threshold=0.05))
        words = [f"w{number}" for number in range(40)]
        pairs = list(combinations(range(0, 40, 4), 2))
        for number, (start, stop) in enumerate(pairs):
            text = " ".join(words[start:stop])
            texts.add(str(number), sketches(text))
        for number, (start, stop) in enumerate(pairs):
            text = " ".join(words[start:stop])
            found = texts.nearest(sketches(text))
            assert (found and found.similarity, found and found.id) == (1.0, str(number))
        other = "nothing of all this is in any of the texts before"
        assert texts.nearest(sketches(other)) is None

    def test_the_most_similar_one_is_named_and_of_equals_the_earliest(self) -> None:
        texts, sketches = NearDuplicates(near_params(threshold=0.5)), Sketches(near_params(threshold=0.5))
        for id, text in (("far", JOSIE + " Or more, if she sells all?"), ("b", AMANDA), ("c", AMANDA + "!")):
            texts.add(id, sketches(text))
        found = texts.nearest(sketches(AMANDA))
        assert found and (found.id, found.similarity) == ("b", 1.0)

    def test_a_text_of_a_template_is_compared_with_the_first_ones_and_a_line_says_so_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All share the start, which is under the threshold; so the time for each stays the same."""
        texts, sketches = NearDuplicates(near_params()), Sketches(near_params())
        for number in range(300):
            sketch = sketches(APPLES.format(number))
            assert texts.nearest(sketch) is None
            texts.add(str(number), sketch)
        (line,) = caplog.messages
        assert f"is like more than {MOST_IN_BAND} questions before it" in line
        for number in (7, 200):
            found = texts.nearest(sketches(APPLES.format(number).replace("stay?", "remain?")))
            assert found and found.id == str(number)

    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
    def test_a_pair_at_the_threshold_is_missed_rarely(self, threshold: float) -> None:
        bands, rows = banding(threshold, 128)
        assert (1 - threshold**rows) ** bands <= 0.001
        assert bands * rows <= 128

    @pytest.mark.parametrize("threshold", [0.5, 0.8])
    def test_gsm8k_s_near_duplicates_are_those_of_an_exact_comparison(
        self, threshold: float, development_data: Path
    ) -> None:
        lines = (development_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        some = lines[2000:3000] + lines[6600:6800] if WHOLE else lines
        texts = [json.loads(line)["question"] for line in some]
        _, exact, found, missed, wrongly = found_and_missed(texts, sharing_pairs(texts), threshold)
        assert exact == found
        assert (missed, wrongly) == ("0", "0")
        assert int(found) >= WHOLE  # Josie and Amanda
