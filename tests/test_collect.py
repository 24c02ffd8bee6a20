"""collect: the same questions every time, none of them in both sets, every one accounted for, GSM8K to the letter."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from click.testing import Result

from stages.collect import Tally, main, separate
from stages.eval_data import main as eval_data
from stages.lib.hygiene.contamination import index_questions
from stages.lib.params import NearDuplicateParams
from stages.lib.rows import DataError
from stages.lib.rows.question import LeftOut, Question
from tests.public_data import WHOLE
from tests.public_data import official as as_published

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ("questions", "heldout", "left-out", "metrics")

GSM8K_ROWS = [
    {"question": "Ann has 3 hens, Bob 4. How many?", "answer": "3 + 4 = <<3+4=7>>7 hens.\n#### 7"},
    {"question": "A farm sells 3 × 360 eggs.\nHow many?", "answer": "3 * 360 = <<3*360=1080>>1,080\n#### 1,080"},
    {"question": "It is 2° and gets 5° colder.", "answer": "2 - 5 = <<2-5=-3>>-3\n#### -3"},
    {"question": "What's half of 5?", "answer": "5 / 2 = <<5/2=2.5>>2.5\n#### 2.5"},
]


def arguments(folder: Path, params: Path) -> list[object]:
    return [*(part for name in OUTPUTS for part in (f"--{name}", folder / name)), "--params", params]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def texts(path: Path) -> list[str]:
    return [row["question"] for row in rows(path)]


def gsm8k(path: object, size: int, heldout: int, **changes: object) -> dict[str, object]:
    """The changes to params.yaml that take GSM8K from a file."""
    return {
        "collect.source.kind": "preset",
        "collect.source.origin": "file",
        "collect.source.path": str(path),
        "collect.train_size": size,
        "collect.heldout_size": heldout,
    } | {key.replace("__", "."): value for key, value in changes.items()}


def question(name: str, text: str) -> Question:
    return Question(id=name, question=text, answer="5")


class TestEmbeddedSource:
    """Generated sums."""

    @pytest.fixture
    def collected(
        self, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> Callable[..., Path]:
        def run(name: str, **changes: object) -> Path:
            folder = tmp_path / name
            params: dict[str, object] = {"collect.train_size": 20, "collect.heldout_size": 15}
            params |= {"collect.source.max_terms": 4, "collect.source.max_digits": 2}  # no two sums alike
            params |= {f"collect.{key.replace('__', '.')}": value for key, value in changes.items()}
            runs(main, *arguments(folder, project_params(params)))
            return folder

        return run

    def test_the_same_params_give_the_same_bytes(self, collected: Callable[..., Path]) -> None:
        first, second = collected("first"), collected("second")
        assert (first / "questions").stat().st_size > 0
        for name in OUTPUTS:
            assert (first / name).read_bytes() == (second / name).read_bytes()

    def test_another_seed_gives_other_questions(self, collected: Callable[..., Path]) -> None:
        first, second = collected("first"), collected("second", source__seed=1)
        assert not set(texts(first / "questions")) & set(texts(second / "questions"))

    def test_a_larger_set_begins_with_the_smaller_one(self, collected: Callable[..., Path]) -> None:
        small, large = collected("small", train_size=20), collected("large", train_size=40)
        assert (large / "questions").read_bytes().startswith((small / "questions").read_bytes())
        assert (large / "heldout").read_bytes() == (small / "heldout").read_bytes()
        assert len(rows(large / "questions")) == 40

    def test_the_gold_answer_is_the_sum(self, collected: Callable[..., Path]) -> None:
        for row in rows(collected("out") / "questions"):
            (sum_text,) = re.findall(r"problem: (.+) =", row["question"])
            terms = re.findall(r"([+-]?) ?(\d+)", sum_text)
            assert int(row["answer"]) == sum(-int(number) if sign == "-" else int(number) for sign, number in terms)
            assert row["solution"] == f"{sum_text} = {row['answer']}"

    def test_no_heldout_question_is_trained_on_and_none_stands_twice(self, collected: Callable[..., Path]) -> None:
        # sums of two terms of one digit: so few that the two sets must meet
        folder = collected(
            "out", train_size=60, heldout_size=60, source__min_terms=2, source__max_terms=2, source__max_digits=1
        )
        training, heldout = texts(folder / "questions"), texts(folder / "heldout")
        assert len(set(training)) == len(training)
        assert len(set(heldout)) == len(heldout)
        assert not set(training) & set(heldout)
        assert json.loads((folder / "metrics").read_bytes())["overlap"] == 0

    def test_every_question_that_came_in_is_counted_where_it_went(self, collected: Callable[..., Path]) -> None:
        folder = collected(
            "out", train_size=60, heldout_size=60, source__min_terms=2, source__max_terms=2, source__max_digits=1
        )
        metrics = json.loads((folder / "metrics").read_bytes())
        left_out = rows(folder / "left-out")
        reasons = [row["reason"] for row in left_out]
        assert metrics["in"] == 120
        assert metrics["questions"] == len(rows(folder / "questions"))
        assert metrics["heldout"] == len(rows(folder / "heldout"))
        assert metrics["left_out"] == {
            "duplicate": reasons.count("duplicate"),
            "near_duplicate": 0,
            "in_heldout": reasons.count("in_heldout"),
            "near_heldout": 0,
            "contaminated": 0,
            "control_token": 0,
        }
        assert all(reasons.count(reason) for reason in ("duplicate", "in_heldout"))
        assert metrics["questions"] + metrics["heldout"] + len(left_out) == 120
        kept = {row["id"]: row["question"] for name in ("questions", "heldout") for row in rows(folder / name)}
        assert all(kept[row["same_as"]] == row["question"] for row in left_out)

    @pytest.mark.parametrize("distance", [-19, 0, 1, 19])
    def test_seeds_that_lie_too_close_are_refused(
        self, distance: int, tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        seeds = {"collect.source.seed": 100, "collect.source.heldout_seed": 100 + distance}
        params = project_params({"collect.train_size": 20, "collect.heldout_size": 15} | seeds)
        line = refuses(main, *arguments(tmp_path / "out", params))
        assert "collect.source: seed 100 and heldout_seed" in line
        assert "are less than 20 apart" in line
        assert not (tmp_path / "out").exists()

    def test_seeds_as_far_apart_as_the_sets_are_large_are_taken(self, collected: Callable[..., Path]) -> None:
        folder = collected("out", source__seed=100, source__heldout_seed=120)
        assert len(rows(folder / "heldout")) == 15

    def test_no_heldout_questions_may_be_asked_for(self, collected: Callable[..., Path]) -> None:
        folder = collected("out", heldout_size=0)
        assert (folder / "heldout").read_bytes() == b""
        assert len(rows(folder / "questions")) == 20


class Separated:
    """The rows of ``separate`` by where they go."""

    def __init__(self, rows: Iterable[tuple[str, Question]]) -> None:
        placed = list(rows)
        self.questions, self.heldout = (
            [row for place, row in placed if place == of] for of in ("questions", "heldout")
        )
        self.left_out = [row for _, row in placed if isinstance(row, LeftOut)]


def separated(*of: Any, **more: Any) -> Separated:
    return Separated(separate(*of, **more))


class TestSeparating:
    """Duplicates and overlap, on questions written out."""

    def test_a_duplicate_is_left_out_with_the_id_that_it_repeats(self) -> None:
        collected = separated([question("a", "2 + 3?"), question("b", "2  +\n3?"), question("c", "4?")], [], [])
        assert [each.id for each in collected.questions] == ["a", "c"]
        assert [(each.id, each.reason, each.same_as) for each in collected.left_out] == [("b", "duplicate", "a")]

    def test_case_and_white_space_do_not_make_another_question(self) -> None:
        collected = separated([question("a", "How MANY?"), question("b", " how many?\u00a0")], [], [])
        assert [each.id for each in collected.questions] == ["a"]

    def test_a_heldout_question_stays_held_out_and_leaves_the_training_set(self) -> None:
        collected = separated([question("a", "2 + 3?"), question("b", "4?")], [question("h", "2 + 3?")], [])
        assert [each.id for each in collected.heldout] == ["h"]
        assert [each.id for each in collected.questions] == ["b"]
        assert [(each.id, each.reason, each.same_as) for each in collected.left_out] == [("a", "in_heldout", "h")]

    def test_a_heldout_question_that_comes_twice_is_asked_once(self) -> None:
        collected = separated([], [question("g", "2 + 3?"), question("h", "2 + 3?")], [])
        assert [each.id for each in collected.heldout] == ["g"]
        assert [(each.id, each.reason) for each in collected.left_out] == [("h", "duplicate")]

    def test_a_benchmark_question_is_left_out_of_the_training_set_alone(self) -> None:
        index = index_questions("mmlu", ["What is 2 + 3 in all?"], 5)
        copies = [question(name, "Ann asks: what IS 2 + 3 ?") for name in ("a", "b")]
        collected = separated(
            [*copies, question("c", "What is 2 + 4 in all?")], [question("h", "is 2 + 3 in")], [index]
        )
        assert [each.id for each in collected.questions] == ["c"]
        assert [each.id for each in collected.heldout] == ["h"]
        # both copies for the same reason: a same_as would name a question that is not there
        reasons = [(each.id, each.reason, each.same_as) for each in collected.left_out]
        assert reasons == [("a", "contaminated", None), ("b", "contaminated", None)]
        (hit,) = collected.left_out[0].benchmark_hits
        assert (hit.benchmark, hit.question, hit.ngram) == ("mmlu", "What is 2 + 3 in all?", "what is 2 + 3")

    def test_a_question_that_got_lost_is_a_fault(self) -> None:
        tally = Tally()
        tally.add("questions", question("a", "2 + 3?"))
        with pytest.raises(DataError, match="2 questions in, 1 written"):
            tally.check(received=2)

    def test_a_question_in_both_sets_is_a_fault(self) -> None:
        tally = Tally()
        tally.add("heldout", question("h", "2 + 3?"))
        tally.add("questions", question("a", "2  + 3?"))
        with pytest.raises(DataError, match="1 questions are in both sets"):
            tally.check(received=2)


class TestGsm8kFromJsonl:
    """The official file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in GSM8K_ROWS), encoding="utf-8")
        return path

    def test_rows_become_questions_with_their_solution_verbatim(
        self, file: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        runs(main, *arguments(tmp_path, project_params(gsm8k(file, size=3, heldout=1))))
        questions = rows(tmp_path / "questions")
        assert questions[1] == {
            "id": "gsm8k-train-1",
            "question": GSM8K_ROWS[1]["question"],
            "answer": "1080",
            "solution": GSM8K_ROWS[1]["answer"],
            "source": "gsm8k/train",
        }
        assert [row["answer"] for row in questions] == ["7", "1080", "-3"]
        assert [(row["id"], row["answer"]) for row in rows(tmp_path / "heldout")] == [("gsm8k-train-3", "2.5")]

    def test_the_split_stands_in_id_and_source(
        self, file: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        runs(main, *arguments(tmp_path, project_params(gsm8k(file, 1, 0, collect__source__split="test"))))
        assert [(row["id"], row["source"]) for row in rows(tmp_path / "questions")] == [("gsm8k-test-0", "gsm8k/test")]

    @pytest.mark.parametrize("form", ["byte order mark", "CRLF", "no final newline"])
    def test_harmless_differences_of_form_read_the_same(
        self, form: str, file: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        params = project_params(gsm8k(file, size=3, heldout=1))
        runs(main, *arguments(tmp_path / "plain", params))
        content = file.read_bytes()
        forms = {
            "byte order mark": b"\xef\xbb\xbf" + content,
            "CRLF": content.replace(b"\n", b"\r\n"),
            "no final newline": content.rstrip(b"\n"),
        }
        file.write_bytes(forms[form])
        runs(main, *arguments(tmp_path / "changed", params))
        assert (tmp_path / "changed" / "questions").read_bytes() == (tmp_path / "plain" / "questions").read_bytes()
        assert (tmp_path / "changed" / "heldout").read_bytes() == (tmp_path / "plain" / "heldout").read_bytes()

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b'{"question": "a?", "answer"\n', "not JSON ("),
            (b'["a?", "#### 5"]\n', "not an object but "),
            ('{"question": "问", "answer": "w\\n#### 1"}\n'.encode("gb18030"), "not UTF-8. Convert the file: iconv"),
        ],
    )
    def test_a_line_that_is_no_row_is_named_by_file_and_line(
        self,
        content: bytes,
        complaint: str,
        file: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
    ) -> None:
        file.write_bytes(file.read_bytes() + content)
        line = refuses(main, *arguments(tmp_path / "out", project_params(gsm8k(file, size=5, heldout=0))))
        assert line.startswith(f"{file}:5: {complaint}")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"question": "a?"}, "no_answer"),
            ({"question": "", "answer": "w\n#### 1"}, "no_question"),
            ({"question": ["a?"], "answer": "w\n#### 1"}, "question_not_text"),
            ({"question": "a?", "answer": 5}, "answer_not_after_hashes"),
            ({"question": "a?", "answer": "five"}, "answer_not_after_hashes"),
            ({"question": "a?", "answer": "w\n#### "}, "answer_not_after_hashes"),
        ],
    )
    def test_a_row_without_a_question_or_its_gold_answer_is_counted_and_named(
        self,
        row: dict[str, object],
        reason: str,
        file: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        file.write_text(json.dumps(row) + "\n" + file.read_text())
        runs(main, *arguments(tmp_path / "out", project_params(gsm8k(file, size=3, heldout=1))))
        assert [row["id"] for row in rows(tmp_path / "out" / "questions")] == [f"gsm8k-train-{n}" for n in (1, 2, 3)]
        found = json.loads((tmp_path / "out" / "metrics").read_bytes())["source"]
        unusable = {reason: {"count": 1, "rows": [0]}}
        assert found == {"rows": 5, "not_where": 0, "usable": 4, "unusable": unusable}
        assert f"collect: gsm8k: 1 of 5 rows left out: {reason} ({file}:1)" in caplog.messages

    def test_a_missing_file_is_named(
        self, tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        params = project_params(gsm8k(tmp_path / "nowhere.jsonl", size=5, heldout=0))
        line = refuses(main, *arguments(tmp_path / "out", params))
        assert line.startswith(f"collect.source.path: {tmp_path / 'nowhere.jsonl'}: no such file")

    @pytest.mark.parametrize(("size", "heldout"), [(5, 0), (3, 2), (4, 1), (1000, 0)])
    def test_more_questions_than_there_are_is_refused_with_both_numbers(
        self,
        size: int,
        heldout: int,
        file: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
    ) -> None:
        line = refuses(main, *arguments(tmp_path / "out", project_params(gsm8k(file, size, heldout))))
        assert line.startswith(f"collect: {size + heldout} questions are asked for, and gsm8k has 4 in 4 rows. Lower ")
        assert not (tmp_path / "out").exists()

    def test_an_empty_file_has_no_questions(
        self, file: Path, tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        file.write_bytes(b"")
        line = refuses(main, *arguments(tmp_path / "out", project_params(gsm8k(file, size=1, heldout=0))))
        assert "gsm8k has no rows" in line


class TestContamination:
    """Training questions against the benchmarks' texts."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in GSM8K_ROWS), encoding="utf-8")
        return path

    @pytest.fixture
    def texts(self, tmp_path: Path) -> dict[str, object]:
        """Each benchmark's files, with the first training question in GSM8K and MGSM, and the params that name them."""
        folder = tmp_path / "benchmarks"
        (folder / "mmlu" / "test").mkdir(parents=True)
        (folder / "gsm8k.jsonl").write_text(json.dumps(GSM8K_ROWS[0] | {"question": "Ann has 3 hens, bob 4."}) + "\n")
        (folder / "mgsm_en.tsv").write_text("Is it so that ann  has 3 hens, Bob 4. ?\t7\nHow many?\t1\n")
        (folder / "mmlu" / "test" / "birds_test.csv").write_text('"How many eggs, then, does a hen lay?",1,2,3,4,A\n')
        paths = {"gsm8k": folder / "gsm8k.jsonl", "mgsm": folder, "mmlu": folder / "mmlu"}
        return {f"collect.contamination.benchmarks.{name}": str(path) for name, path in paths.items()}

    def test_a_hit_is_left_out_with_both_texts_and_counted_by_benchmark(
        self,
        file: Path,
        texts: dict[str, object],
        tmp_path: Path,
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
    ) -> None:
        changes = gsm8k(file, 3, 1) | texts | {"collect.contamination.ngram": 6}
        runs(main, *arguments(tmp_path / "out", project_params(changes)))
        (row,) = rows(tmp_path / "out" / "left-out")
        hit = {"ngram": "ann has 3 hens, bob 4."}
        assert row == {
            "id": "gsm8k-train-0",
            "question": GSM8K_ROWS[0]["question"],
            "answer": "7",
            "solution": GSM8K_ROWS[0]["answer"],
            "source": "gsm8k/train",
            "reason": "contaminated",
            "same_as": None,
            "benchmark_hits": [
                {"benchmark": "gsm8k", "question": "Ann has 3 hens, bob 4."} | hit,
                {"benchmark": "mgsm", "question": "Is it so that ann  has 3 hens, Bob 4. ?"} | hit,
            ],
        }
        assert [row["id"] for row in rows(tmp_path / "out" / "questions")] == ["gsm8k-train-1", "gsm8k-train-2"]
        metrics = json.loads((tmp_path / "out" / "metrics").read_bytes())
        assert {reason: count for reason, count in metrics["left_out"].items() if count} == {"contaminated": 1}
        assert metrics["in"] == metrics["questions"] + metrics["heldout"] + 1 == 4
        assert metrics["contamination"] == {
            "ngram": 6,
            "gsm8k": {"hits": 1, "questions": 1, "too_short": 0},
            "mgsm": {"hits": 1, "questions": 2, "too_short": 1},
            "mmlu": {"hits": 0, "questions": 1, "too_short": 0},
        }

    def test_a_benchmark_that_is_not_at_hand_is_named_on_stderr_and_in_the_metrics(
        self, file: Path, texts: dict[str, object], tmp_path: Path, project_params: Callable[..., Path]
    ) -> None:
        changes = gsm8k(file, 3, 1) | {"collect.contamination.ngram": 6}
        changes |= {key: path for key, path in texts.items() if key.endswith(".mgsm")}
        command = [sys.executable, "-m", "stages.collect", *map(str, arguments(tmp_path, project_params(changes)))]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        first, second, last = run.stderr.splitlines()
        assert first.startswith("contamination by gsm8k NOT checked: params name no files of it. ")
        assert second.startswith("contamination by mmlu NOT checked: params name no files of it. ")
        assert last.startswith(
            "collect: 2 questions, 1 held out, 1 left out (0 duplicate, 0 near_duplicate, 0 in_heldout, "
            "0 near_heldout, 1 contaminated,"
        )
        found = json.loads((tmp_path / "metrics").read_bytes())["contamination"]
        assert (found["gsm8k"], found["mgsm"]["hits"], found["mmlu"]) == ("not checked", 1, "not checked")

    @pytest.mark.parametrize("benchmark", ["gsm8k", "mgsm", "mmlu"])
    def test_a_missing_path_is_named_and_nothing_is_written(
        self,
        benchmark: str,
        file: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
    ) -> None:
        path = tmp_path / "nowhere"
        changes = gsm8k(file, 3, 1) | {f"collect.contamination.benchmarks.{benchmark}": str(path)}
        line = refuses(main, *arguments(tmp_path / "out", project_params(changes)))
        assert line.startswith(f"{path}: no such file or folder. Point collect.contamination.benchmarks.{benchmark} at")
        assert not (tmp_path / "out").exists()

    def test_downloaded_benchmarks_are_checked_as_their_official_files_are(
        self,
        development_data: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """GSM8K and MGSM in the form that eval-data writes for lm-eval: the same hits, and MMLU is not there."""
        official = as_published(tmp_path / "official")
        folder = {
            name: {"origin": "folder", "path": str(official / name), "revision": None} for name in ("gsm8k", "mgsm")
        }
        changes: dict[str, Any] = {"eval_data": folder}
        out = ["--out", tmp_path / "eval_data", "--metrics", tmp_path / "eval_data.json"]
        runs(eval_data, *out, "--params", project_params(changes))
        changes |= gsm8k(development_data / "gsm8k" / "train.jsonl", 1000 if WHOLE else 34, heldout=0)
        changes |= {"collect.contamination.ngram": 8}
        named = {f"collect.contamination.benchmarks.{name}": str(official / name) for name in ("gsm8k", "mgsm")}
        named["collect.contamination.benchmarks.gsm8k"] += "/test.jsonl"
        runs(main, *arguments(tmp_path / "named", project_params(changes | named)))
        caplog.clear()
        downloaded = changes | {"collect.contamination.downloaded": True}
        given = ["--eval-data", tmp_path / "eval_data"]
        runs(main, *arguments(tmp_path / "downloaded", project_params(downloaded)), *given)
        for name in OUTPUTS:
            assert (tmp_path / "downloaded" / name).read_bytes() == (tmp_path / "named" / name).read_bytes()
        found = json.loads((tmp_path / "downloaded" / "metrics").read_bytes())["contamination"]
        assert found["gsm8k"]["hits"] == 8
        assert found["mgsm"]["questions"] == 2750
        assert found["mmlu"] == "not checked"
        assert "contamination by mmlu NOT checked: it is not downloaded, and params name no files of it" in caplog.text

    def test_downloaded_benchmarks_that_are_not_there_are_named(
        self, file: Path, tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        params = project_params(gsm8k(file, 3, 1) | {"collect.contamination.downloaded": True})
        said = refuses(main, *arguments(tmp_path / "out", params))
        assert said.endswith("no folder of benchmarks. Give --eval-data data/eval_data.")
        folder = tmp_path / "eval_data"
        said = refuses(main, *arguments(tmp_path / "out", params), "--eval-data", folder)
        assert said == f"{folder}/manifest.json: no such file. Run 'dvc repro eval-data' to download it again."
        (folder / "a" / "main").mkdir(parents=True)
        manifest = {"benchmarks": {"gsm8k": {"folder": "a"}, "mgsm": None, "mmlu": None}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        said = refuses(main, *arguments(tmp_path / "out", params), "--eval-data", folder)
        assert said.startswith(f"{folder}/a: a folder without the benchmark's test.jsonl.")
        (folder / "a" / "main" / "test.jsonl").write_text('{"question": "x", "answer": "1"}\n{"question": 1}\n')
        said = refuses(main, *arguments(tmp_path / "out", params), "--eval-data", folder)
        assert said.startswith(f"{folder}/a/main/test.jsonl:2: not a row of gsm8k.")


class TestNearDuplicates:
    """Questions with nearly the same wording."""

    NEAR: ClassVar[dict[str, object]] = {"ngram": 5, "threshold": 0.8, "permutations": 128, "seed": 3}
    JOSIE = (
        "Josie received $50 as a gift. She plans to buy two cassette tapes that cost $9 each and a headphone set that "
        "costs $25. How much money will she have left?"
    )

    @pytest.fixture
    def near_file(self, tmp_path: Path) -> Path:
        """Josie, Amanda, another question, Bea, and Cem: all but the third are nearly the same; two are held out."""
        names = ["Josie", "Amanda", None, "Bea", "Cem"]
        questions = [self.JOSIE.replace("Josie", name) if name else "How many legs have 12 cats?" for name in names]
        path = tmp_path / "near.jsonl"
        path.write_text("".join(json.dumps({"question": text, "answer": "#### 7"}) + "\n" for text in questions))
        return path

    def test_a_question_near_to_an_earlier_one_is_left_out_with_the_similarity(
        self, near_file: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        changes = gsm8k(near_file, 5, 0) | {"collect.near_duplicates": self.NEAR}
        runs(main, *arguments(tmp_path, project_params(changes)))
        left_out = rows(tmp_path / "left-out")
        assert [row["id"] for row in rows(tmp_path / "questions")] == ["gsm8k-train-0", "gsm8k-train-2"]
        assert {(row["reason"], row["same_as"], row["similarity"]) for row in left_out} == {
            ("near_duplicate", "gsm8k-train-0", 0.9355)
        }
        metrics = json.loads((tmp_path / "metrics").read_bytes())
        assert metrics["left_out"]["near_duplicate"] == 3
        assert metrics["texts"]["questions"]["scripts"] == {"latin": 2}
        assert metrics["texts"]["heldout"]["characters"] is None

    def test_a_training_question_near_to_a_held_out_one_is_left_out_and_held_out_ones_stay(
        self, near_file: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        changes = gsm8k(near_file, 3, 2) | {"collect.near_duplicates": self.NEAR}
        runs(main, *arguments(tmp_path, project_params(changes)))
        assert [row["id"] for row in rows(tmp_path / "heldout")] == ["gsm8k-train-3", "gsm8k-train-4"]
        assert [row["id"] for row in rows(tmp_path / "questions")] == ["gsm8k-train-2"]
        left_out = rows(tmp_path / "left-out")
        assert [(row["reason"], row["same_as"]) for row in left_out] == [("near_heldout", "gsm8k-train-3")] * 2

    def test_the_same_text_is_a_duplicate_and_not_a_near_one(self) -> None:
        near = NearDuplicateParams.model_validate(self.NEAR)
        first, same = question("a", self.JOSIE), question("b", self.JOSIE.upper())
        assert [row.reason for row in separated([first, same], [], [], near=near).left_out] == ["duplicate"]
        assert [row.reason for row in separated([same], [first], [], near=near).left_out] == ["in_heldout"]

    def test_two_processes_with_other_hash_seeds_write_the_same_bytes(
        self, near_file: Path, tmp_path: Path, project_params: Callable[..., Path]
    ) -> None:
        params = project_params(gsm8k(near_file, 3, 2) | {"collect.near_duplicates": self.NEAR})
        for seed in ("1", "2"):
            command = [sys.executable, "-m", "stages.collect", *map(str, arguments(tmp_path / seed, params))]
            subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        for name in OUTPUTS:
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


class TestThePublishedGsm8k:
    """The published training set, or a sample of it."""

    @pytest.fixture
    def published(self, development_data: Path) -> Path:
        return development_data / "gsm8k" / "train.jsonl"

    def test_all_rows_arrive_with_their_final_answer_and_their_solution(
        self, published: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        count = 7473 if WHOLE else 34
        runs(main, *arguments(tmp_path, project_params(gsm8k(published, size=count, heldout=0))))
        given = [json.loads(line) for line in published.read_bytes().splitlines()]
        questions = rows(tmp_path / "questions")
        assert len(questions) == len(given) == count
        assert [row["id"] for row in questions] == [f"gsm8k-train-{index}" for index in range(count)]
        assert [row["question"] for row in questions] == [row["question"] for row in given]
        assert [row["solution"] for row in questions] == [row["answer"] for row in given]
        # the reading of the set's own authors (grade_school_math/dataset.py)
        official = [re.findall(r"#### (\-?[0-9\.\,]+)", row["answer"])[-1].replace(",", "") for row in given]
        assert [row["answer"] for row in questions] == official
        assert all(official)
        thousands = questions[345 if WHOLE else 26]
        assert thousands["solution"].endswith("#### 1,080")
        assert thousands["answer"] == "1080"

    def test_the_first_are_asked_as_the_article_does_and_the_last_are_held_out(
        self, published: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        size, heldout = (1000, 200) if WHOLE else (20, 5)
        runs(main, *arguments(tmp_path, project_params(gsm8k(published, size, heldout))))
        given = [json.loads(line)["question"] for line in published.read_bytes().splitlines()]
        assert texts(tmp_path / "questions") == given[:size]
        assert texts(tmp_path / "heldout") == given[-heldout:]

    @pytest.mark.parametrize(
        ("size", "ngram", "hits"),
        [(1000, 8, 8), (1000, 13, 2), (7473, 8, 70), (7473, 13, 4)] if WHOLE else [(24, 8, 0), (34, 8, 8), (34, 13, 3)],
    )
    def test_questions_of_the_test_set_are_left_out(
        self,
        size: int,
        ngram: int,
        hits: int,
        published: Path,
        tmp_path: Path,
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
    ) -> None:
        changes = gsm8k(published, size, heldout=0) | {"collect.contamination.ngram": ngram}
        changes["collect.contamination.benchmarks.gsm8k"] = str(published.with_name("test.jsonl"))
        runs(main, *arguments(tmp_path, project_params(changes)))
        metrics = json.loads((tmp_path / "metrics").read_bytes())
        assert metrics["contamination"]["gsm8k"] == {"hits": hits, "questions": 1319 if WHOLE else 31, "too_short": 0}
        assert sum(metrics["left_out"].values()) == metrics["left_out"]["contaminated"] == hits
        assert metrics["questions"] == len(rows(tmp_path / "questions")) == size - hits
        assert len(rows(tmp_path / "left-out")) == hits


class TestGsm8kFromModelScope:
    """The real ``MsDataset.load``, as a process of its own: the client fixes its cache folder when it is imported."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """GSM8K's layout there: a README.md that lists the configs, each a folder with a Parquet file per split."""
        import pyarrow
        from pyarrow import parquet

        folder = tmp_path / "gsm8k"
        configs = []
        for config in ("main", "socratic"):
            (folder / config).mkdir(parents=True)
            configs.append(f"- config_name: {config}\n  data_files:\n")
            for split in ("train", "test"):
                given = GSM8K_ROWS if (config, split) == ("main", "train") else GSM8K_ROWS[:1]
                parquet.write_table(
                    pyarrow.Table.from_pylist(given), folder / config / f"{split}-00000-of-00001.parquet"
                )
                configs.append(f"  - split: {split}\n    path: {config}/{split}-*\n")
        (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{''.join(configs)}---\n# GSM8K\n")
        return folder

    @staticmethod
    def collect(tmp_path: Path, params: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "stages.collect", *map(str, arguments(tmp_path / "out", params))]
        caches = {name: str(tmp_path / "caches") for name in ("MODELSCOPE_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")}
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | caches | offline | environment, capture_output=True, text=True
        )

    @pytest.mark.heavy
    def test_a_local_folder_gives_the_same_questions_as_the_official_file(
        self, folder: Path, tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
    ) -> None:
        file = tmp_path / "train.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in GSM8K_ROWS), encoding="utf-8")
        runs(main, *arguments(tmp_path / "jsonl", project_params(gsm8k(file, size=3, heldout=1))))
        changes = gsm8k(folder, size=3, heldout=1, collect__source__origin="modelscope")
        run = self.collect(tmp_path, project_params(changes))
        assert run.returncode == 0, run.stderr
        assert len(rows(tmp_path / "out" / "questions")) == 3
        for name in OUTPUTS:
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "jsonl" / name).read_bytes()

    @pytest.mark.heavy
    def test_a_folder_with_other_columns_is_refused(
        self, folder: Path, tmp_path: Path, project_params: Callable[..., Path]
    ) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist([{"prompt": "a?", "answer": "w\n#### 1"}])
        parquet.write_table(table, folder / "main" / "train-00000-of-00001.parquet")
        changes = gsm8k(folder, size=1, heldout=0, collect__source__origin="modelscope")
        changes["collect.source.path"] = "./gsm8k"
        run = self.collect(tmp_path, project_params(changes))
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        assert run.stderr.splitlines()[-1].startswith("Error: collect.source.path: ModelScope gave no './gsm8k' (")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("path", ["./nowhere", "../nowhere/gsm8k", "/nowhere/gsm8k", "~/nowhere/gsm8k"])
    def test_a_missing_folder_is_named_without_asking_the_network(
        self,
        path: str,
        tmp_path: Path,
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        changes = gsm8k(path, size=1, heldout=0, collect__source__origin="modelscope")
        line = refuses(main, *arguments(tmp_path / "out", project_params(changes)))
        assert line.startswith(f"collect.source.path: {path}: no such folder. ")

    @pytest.mark.heavy
    def test_an_id_that_the_hub_does_not_know_is_named(
        self, tmp_path: Path, project_params: Callable[..., Path]
    ) -> None:
        changes = gsm8k("nobody/gsm8k", size=1, heldout=0, collect__source__origin="modelscope")
        with empty_hub() as address:
            run = self.collect(tmp_path, project_params(changes), MODELSCOPE_ENDPOINT=address)
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        last = run.stderr.splitlines()[-1]
        assert last.startswith("Error: collect.source.path: ModelScope gave no 'nobody/gsm8k' (")
        assert last.endswith("without a network, take a file or a folder of it.")
        assert not (tmp_path / "out").exists()


@contextmanager
def empty_hub() -> Iterator[str]:
    """The address of a server that has nothing."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"Code": 10010205001, "Message": "not found", "Success": false}')

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_question_with_a_literal_control_token_is_left_out_of_both_sets_and_counted(
    tmp_path: Path, tiny_params: Callable[..., Path], runs: Callable[..., Result]
) -> None:
    """Four training questions and two held-out ones, of which one of each holds what the student takes for a token."""
    texts = ["What is 1 + 1?", "Is 1 < 2 [or 3]?", "What does <|im_end|> mean?", "What is |2|?"]
    texts += ["What is 4 + 4?", "Repeat: <|endoftext|>"]
    lines = [json.dumps({"question": text, "answer": f"so\n#### {n}"}) + "\n" for n, text in enumerate(texts)]
    (tmp_path / "own.jsonl").write_text("".join(lines))
    changes = gsm8k(tmp_path / "own.jsonl", 4, 2)
    runs(main, *arguments(tmp_path, tiny_params(changes)))
    left_out = rows(tmp_path / "left-out")
    assert [row["reason"] for row in left_out] == ["control_token", "control_token"]
    assert {row["question"] for row in left_out} == {texts[2], texts[5]}
    metrics = json.loads((tmp_path / "metrics").read_bytes())
    assert (metrics["questions"], metrics["heldout"], metrics["left_out"]["control_token"]) == (3, 1, 2)


def test_no_tokenizer_is_loaded_for_questions_that_can_hold_no_token(
    tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
) -> None:
    """The host that asks the teacher may have no student."""
    nowhere = {"train.student.kind": "path", "train.student.name": str(tmp_path / "nowhere")}
    runs(main, *arguments(tmp_path, project_params(nowhere)))
