"""traces: published questions, reasoning and responses from any table, as rows that convert and filter take."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.convert import main as convert
from stages.filter import main as filter_stage
from stages.lib.doctor.needs import named_downloads, named_files
from stages.lib.params import load_params
from stages.lib.params.presets import TRACE_PRESETS, preset_names, trace_preset_named
from stages.lib.rows import read_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.tables.columns import Unusable
from stages.lib.traces.rows import LeftOutTrace
from stages.lib.traces.texts import parted
from stages.traces import main
from tests.public_data import WHOLE
from tests.workspace import Workspace

Params = Callable[..., Path]
Runs = Callable[..., Result]
Read = Callable[..., tuple[list[Distilled], list[LeftOutTrace], dict[str, Any]]]

NONE: dict[str, Any] = {"answer": None, "solution": None, "id": None, "model": None}
SEPARATE = {"form": "separate", "question": "question", "reasoning": "reasoning", "response": "response"} | NONE
TAGGED = {"form": "tagged", "question": "problem", "text": "generations", "correct": []} | NONE
MESSAGES = {"form": "messages", "messages": "conversations", "system": "left_out"} | NONE
SOLVED = "<|begin_of_solution|>\n\n2\n\n<|end_of_solution|>"
QUESTIONS = (
    "Compute the sum of all positive divisors of 2016 that are not divisible by seven.",
    "A ball is thrown upwards at 20 m/s: how high does it rise above the hand that threw it?",
    "求方程 x² − 5x + 6 = 0 的所有实根之和。",
)


def s1k_rows(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with all the columns that s1K-1.1 has."""
    rows = []
    for index, question in enumerate(QUESTIONS):
        row = {
            "solution": f"Solution {index}: 6",
            "question": question,
            "cot_type": "math",
            "source_type": "qfq/openaimath",
            "metadata": "{}",
            "gemini_thinking_trajectory": "Gemini's thought",
            "gemini_attempt": "Gemini's answer",
            "deepseek_thinking_trajectory": f"R1's thought {index}",
            "deepseek_attempt": f"R1's answer {index} \\boxed{{6}}",
            "gemini_grade": "Yes",
            "gemini_grade_reason": "",
            "deepseek_grade": "Yes",
            "deepseek_grade_reason": "",
        }
        rows.append(row | (changes[index] if index < len(changes) else {}))
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(rows), path)
    return path


def entry(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An entry of traces."""
    return {"source": source, "where": {}, "first": None, "samples_per_question": None} | more


def of_preset(name: str, path: Path | str | None, origin: str = "file", **more: Any) -> dict[str, Any]:
    shown = None if path is None else str(path)
    return entry({"kind": "preset", "name": name, "origin": origin, "path": shown, "split": "train"}, **more)


def of_file(path: Path, columns: dict[str, Any], gold: str | None = None, **more: Any) -> dict[str, Any]:
    told = {"columns": columns, "gold": gold, "model": "deepseek-r1"}
    return entry({"kind": "file", "path": str(path)} | told, **more)


def arguments(folder: Path, params: Path, name: str = "mine") -> list[object]:
    heldout = folder / "heldout.jsonl"
    heldout.touch()
    outs = {"rows": f"{name}.jsonl", "left-out": "left_out.jsonl", "metrics": "metrics.json"}
    paths = [part for option, file in outs.items() for part in (f"--{option}", folder / file)]
    return ["--name", name, "--heldout", heldout, *paths, "--params", params]


@pytest.fixture
def read(tmp_path: Path, project_params: Params, runs: Runs) -> Read:
    """``read(of_file(…))``: the rows, those left out, and the metrics of an entry named mine."""

    def run(
        of: dict[str, Any], changes: dict[str, Any] | None = None
    ) -> tuple[list[Distilled], list[LeftOutTrace], dict[str, Any]]:
        runs(main, *arguments(tmp_path, project_params({"traces": {"mine": of}} | (changes or {}))))
        rows = list(read_rows(tmp_path / "mine.jsonl", Distilled, ""))
        left_out = list(read_rows(tmp_path / "left_out.jsonl", LeftOutTrace, ""))
        metrics = json.loads((tmp_path / "metrics.json").read_bytes())
        assert metrics["in"] == metrics["rows"] + sum(each["count"] for each in metrics["left_out"].values())
        assert (metrics["rows"], metrics["in"]) == (len(rows), len(rows) + len(left_out))
        return rows, left_out, metrics

    return run


@pytest.fixture
def complaint(tmp_path: Path, project_params: Params, refuses: Callable[..., str]) -> Callable[[dict[str, Any]], str]:
    """``complaint(of_file(…))``: the one line with which the stage ends, without any file written."""

    def run(of: dict[str, Any]) -> str:
        line = refuses(main, *arguments(tmp_path, project_params({"traces": {"mine": of}})))
        assert not (tmp_path / "mine.jsonl").exists()
        assert not [*tmp_path.glob(".*.tmp")]
        return line

    return run


class TestTexts:
    """Reasoning and response in what a model wrote."""

    @pytest.mark.parametrize(
        ("reasoning", "text"),
        [
            ("1 + 1", "2"),
            ("", "<think>1 + 1</think>2"),
            ("", "<think>\n1 + 1\n</think>\n\n2"),
            ("", "1 + 1</think>2"),  # the opening tag is in the server's prompt
            ("<think>1 + 1</think>", "2"),
            ("", "<think>1 + 1</think><answer>2</answer>"),
            ("", f"<|begin_of_thought|>\n\n1 + 1\n\n<|end_of_thought|>\n\n{SOLVED}"),
            ("1 + 1", "<|begin_of_solution|>2<|end_of_solution|>"),
        ],
    )
    def test_every_form_gives_the_same_two_texts(self, reasoning: str, text: str) -> None:
        assert parted(reasoning, text) == ("1 + 1", "2")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("<think>1 + 1", "cut_off"),
            ("<|begin_of_thought|>\n\n1 + 1\n\n<|begin_of_solution|>2<|end_of_solution|>", "cut_off"),
            ("<|begin_of_thought|>1 + 1<|end_of_thought|><|begin_of_solution|>2", "cut_off"),
            ("<think>1 + 1</think><answer>2", "cut_off"),
            ("<think>1 + 1</think>", "no_response"),
            ("<think>1 + 1</think><answer> </answer>", "no_response"),
            ("<think>\n\n</think>2", "no_reasoning"),
            ("The answer is 2.", "no_reasoning"),
        ],
    )
    def test_one_that_is_missing_or_not_closed_is_named(self, text: str, reason: str) -> None:
        with pytest.raises(Unusable, match=f"^{reason}$"):
            parted("", text)

    def test_a_tag_in_a_sentence_of_the_answer_stays(self) -> None:
        assert parted("", "<think>1</think>Write <answer> before it.") == ("1", "Write <answer> before it.")

    def test_text_around_the_solution_is_part_of_the_response(self) -> None:
        text = "<think>1</think>So:\n\n<|begin_of_solution|>2<|end_of_solution|>\nDone."
        assert parted("", text) == ("1", "So:\n\n2\n\nDone.")


class TestRows:
    """The stage, on tables of each form."""

    def test_s1k_becomes_distilled_rows_that_say_where_they_are_from(self, tmp_path: Path, read: Read) -> None:
        read(of_preset("s1k", write_jsonl(tmp_path / "s.jsonl", s1k_rows())))
        first, *others = (tmp_path / "mine.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(first) == {
            "id": "mine-0",
            "question": QUESTIONS[0],
            "answer": None,
            "solution": "Solution 0: 6",
            "source": "s1k/train",
            "sample": 0,
            "reasoning": "R1's thought 0",
            "response": "R1's answer 0 \\boxed{6}",
            "finish_reason": "unknown",
            "model": "deepseek-r1",
            "usage": {},
        }
        assert [json.loads(line)["id"] for line in others] == ["mine-1", "mine-2"]
        assert json.loads((tmp_path / "metrics.json").read_bytes()) == {
            "table_rows": 3,
            "not_where": 0,
            "in": 3,
            "rows": 3,
            "questions": 3,
            "without_gold": 3,
            "models": {"deepseek-r1": 3},
            "left_out": {},
            "contamination": {"ngram": 13, "gsm8k": "not checked", "mgsm": "not checked", "mmlu": "not checked"},
        }

    def test_files_a_hub_and_modelscope_give_the_same_rows(self, tmp_path: Path, read: Read) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        write_jsonl(folder / "train.jsonl", s1k_rows())
        tables = {
            "jsonl": of_preset("s1k", write_jsonl(tmp_path / "source.jsonl", s1k_rows())),
            "parquet": of_preset("s1k", write_parquet(tmp_path / "source.parquet", s1k_rows())),
            "modelscope": of_preset("s1k", folder, "modelscope"),
            "hub": of_preset("s1k", folder, "hub"),
        }
        written = {}
        for name, of in tables.items():
            read(of)
            written[name] = (tmp_path / "mine.jsonl").read_bytes()
        assert len(set(written.values())) == 1, {name: text[:200] for name, text in written.items()}

    def test_a_list_of_generations_is_several_answers_of_which_params_take_some(
        self, tmp_path: Path, read: Read
    ) -> None:
        generations = ["<think>a</think>3", "<think>b</think>4", "<think>c", None, "<think>d</think>4"]
        row: dict[str, Any] = {
            "problem": "2 + 2?",
            "generations": generations,
            "answer": "4",
            "solution": "It is 4.",
            "uuid": "u",
        }
        row |= {"correctness_math_verify": [False, True, True, True, False]}
        row |= {"correctness_llama": [False, False, False, None, True]}
        path = write_jsonl(tmp_path / "r.jsonl", [row, row | {"problem": "3?", "correctness_llama": None}])
        kept, left_out, metrics = read(of_preset("openr1_math", path))
        assert [(row.id, row.sample, row.reasoning, row.response) for row in kept] == [
            ("mine-0", 1, "b", "4"),
            ("mine-0", 4, "d", "4"),
            ("mine-1", 1, "b", "4"),
        ]
        assert (kept[0].answer, kept[0].solution, kept[0].source) == ("4", "It is 4.", "openr1_math/train")
        reasons = [(row.row, row.sample, row.reason) for row in left_out]
        assert reasons[:3] == [(0, 0, "not_correct"), (0, 2, "cut_off"), (0, 3, "no_response")]
        assert metrics["left_out"] == {
            "cut_off": {"count": 2, "rows": [0, 1]},
            "no_response": {"count": 2, "rows": [0, 1]},
            "not_correct": {"count": 3, "rows": [0, 1]},
        }
        kept, left_out, metrics = read(of_preset("openr1_math", path, samples_per_question=1))
        assert [(row.id, row.sample) for row in kept] == [("mine-0", 1), ("mine-1", 1)]
        assert metrics["left_out"]["not_selected"] == {"count": 1, "rows": [0]}
        assert metrics["questions"] == 2

    def test_sharegpt_turns_without_and_with_their_system_text(self, tmp_path: Path, read: Read) -> None:
        thought = "<|begin_of_thought|>\n\nOkay, let's see.\n\n<|end_of_thought|>\n\n"
        turns = [
            {"from": "user", "value": "Return your final response within \\boxed{}. Ms. Blackwell gives an exam."},
            {"from": "assistant", "value": thought + "<|begin_of_solution|>\n\n\\boxed{76}\n\n<|end_of_solution|>"},
        ]
        path = write_jsonl(tmp_path / "b.jsonl", [{"system": "Think first.", "conversations": turns}])
        (row,), _, _ = read(of_preset("bespoke_stratos_17k", path))
        assert (row.question, row.reasoning) == (turns[0]["value"], "Okay, let's see.")
        assert (row.response, row.answer) == ("\\boxed{76}", None)
        assert (row.system, row.history) == (None, None)
        (row,), _, _ = read(of_file(path, MESSAGES | {"system": "kept"}))
        assert (row.system, row.question) == ("Think first.", turns[0]["value"])
        inside = [{"conversations": [{"from": "system", "value": "In the list."}, *turns]}]
        path = write_jsonl(tmp_path / "c.jsonl", inside)
        (row,), _, _ = read(of_file(path, MESSAGES | {"system": "kept"}))
        assert row.system == "In the list."

    def test_a_conversation_is_its_last_question_and_answer_after_earlier_turns(
        self, tmp_path: Path, read: Read
    ) -> None:
        asked, said = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>a</think>2"}
        last = {"role": "assistant", "content": "4", "reasoning_content": "b"}
        conversations: list[Any] = [
            [asked, said, {"role": "user", "content": "And 2 + 2?"}, last],
            [asked, said | {"content": "<think>a"}],
            [asked],
            [],
            "What is 1 + 1?",
            [said, asked],
            [asked, said, asked],
            [{"role": "system", "content": ""}, {"role": "user", "content": "3?"}, last],
        ]
        path = write_jsonl(tmp_path / "m.jsonl", [{"messages": each} for each in conversations])
        (row, after_a_blank), left_out, _ = read(of_file(path, MESSAGES | {"messages": "messages"}))
        assert (row.question, row.reasoning, row.response) == ("And 2 + 2?", "b", "4")
        assert [(turn.role, turn.content) for turn in row.history or ()] == [("user", "1 + 1?"), ("assistant", "2")]
        assert (after_a_blank.question, after_a_blank.system) == ("3?", None)
        assert [(each.row, each.reason) for each in left_out] == [
            (1, "cut_off"),
            (2, "no_response"),
            (3, "no_question"),
            (4, "not_messages"),
            (5, "turns_do_not_alternate"),
            (6, "no_response"),
        ]

    def test_columns_may_be_paths_and_name_the_model_and_the_id(self, tmp_path: Path, read: Read) -> None:
        row = {"q": "2?", "out": {"texts": [{"thinking": "t", "final": "2"}]}, "m": "qwq-32b", "n": 7, "gold": "#### 2"}
        path = write_jsonl(tmp_path / "p.jsonl", [row, row | {"q": "3?", "m": None, "n": 8, "gold": "two"}])
        columns = SEPARATE | {"question": "q", "reasoning": "out.texts.0.thinking", "response": "out.texts.0.final"}
        columns |= {"model": "m", "id": "n", "answer": "gold"}
        kept, _, metrics = read(of_file(path, columns, "after_hashes"))
        assert [(row.id, row.model, row.answer, row.source) for row in kept] == [
            ("7", "qwq-32b", "2", "p/rows"),
            ("8", "deepseek-r1", None, "p/rows"),
        ]
        assert metrics["models"] == {"deepseek-r1": 1, "qwq-32b": 1}
        assert metrics["without_gold"] == 1

    def test_the_articles_file_of_bought_answers_is_read(self, tmp_path: Path, read: Read) -> None:
        rows = [{"question": "有两个苹果？", "reasoning": "嗯", "answer": "答案：2"}]
        path = write_jsonl(tmp_path / "r1_distill.txt", rows)
        (row,), _, _ = read(of_preset("r1_distill", path))
        assert (row.question, row.reasoning, row.response) == ("有两个苹果？", "嗯", "答案：2")

    def test_each_row_that_holds_no_trace_is_counted_by_reason_with_its_number(
        self, tmp_path: Path, read: Read
    ) -> None:
        good = {"question": "1 + 1?", "reasoning": "t", "response": "2"}
        rows: list[dict[str, Any]] = [
            good | {"question": None},
            good | {"question": ["1 + 1?"]},
            good | {"reasoning": ""},
            good | {"reasoning": None},
            good | {"reasoning": ["t"]},
            good | {"response": " "},
            good,
            good | {"response": "3"},
            good | {"question": "5?", "response": "<answer>5"},
        ]
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        kept, left_out, metrics = read(of_file(path, SEPARATE))
        assert [row.id for row in kept] == ["mine-6"]
        assert metrics["left_out"] == {
            "cut_off": {"count": 1, "rows": [8]},
            "duplicate": {"count": 1, "rows": [7]},
            "no_question": {"count": 1, "rows": [0]},
            "no_reasoning": {"count": 2, "rows": [2, 3]},
            "no_response": {"count": 1, "rows": [5]},
            "question_not_text": {"count": 1, "rows": [1]},
            "reasoning_not_text": {"count": 1, "rows": [4]},
        }
        by_row = {row.row: row for row in left_out}
        assert (by_row[7].same_as, by_row[7].response, by_row[7].place) == ("mine-6", "3", f"{path}:8")

    def test_an_empty_list_of_generations_is_no_response(self, tmp_path: Path, read: Read) -> None:
        rows: list[dict[str, Any]] = [
            {"problem": "1?", "generations": []},
            {"problem": "2?", "generations": "<think>t</think>2"},
        ]
        kept, left_out, _ = read(of_file(write_jsonl(tmp_path / "g.jsonl", rows), TAGGED))
        assert [row.id for row in kept] == ["mine-1"]
        assert [(row.row, row.reason) for row in left_out] == [(0, "no_response")]

    def test_heldout_and_benchmark_questions_and_duplicates_are_left_out(self, tmp_path: Path, read: Read) -> None:
        changes = [{}, {"question": QUESTIONS[0].upper()}, {"question": "So: Janet has three ducks and a half ."}]
        rows = [*s1k_rows(*changes), *s1k_rows()[1:]]
        benchmark = tmp_path / "test.jsonl"
        benchmark.write_text('{"question": "Janet has three ducks and sells them.", "answer": "#### 3"}\n')
        checked = {"collect.contamination.benchmarks.gsm8k": str(benchmark), "collect.contamination.ngram": 4}
        heldout = {"id": "h-0", "question": QUESTIONS[2] + "\n", "answer": "5", "solution": None, "source": "x"}
        write_jsonl(tmp_path / "heldout.jsonl", [heldout])
        kept, left_out, metrics = read(of_preset("s1k", write_jsonl(tmp_path / "s.jsonl", rows)), checked)
        assert [row.id for row in kept] == ["mine-0", "mine-3"]
        found = [(row.id, row.reason, row.same_as) for row in left_out]
        assert found == [
            ("mine-1", "duplicate", "mine-0"),
            ("mine-2", "contaminated", None),
            ("mine-4", "in_heldout", "h-0"),
        ]
        assert [hit.ngram for hit in left_out[1].benchmark_hits] == ["janet has three ducks"]
        assert metrics["contamination"]["gsm8k"] == {"hits": 1, "questions": 1, "too_short": 0}

    def test_where_and_first_take_so_many_questions_of_the_rows_that_fit(self, tmp_path: Path, read: Read) -> None:
        rows = [
            {"problem": f"{n}?", "domain": "math" if n % 2 else "code", "generations": ["<think>t</think>1"] * 2}
            for n in range(20)
        ]
        of = of_file(write_jsonl(tmp_path / "d.jsonl", rows), TAGGED, where={"domain": "math"}, first=3)
        kept, _, metrics = read(of)
        assert [row.question for row in kept] == ["1?", "1?", "3?", "3?", "5?", "5?"]
        assert (metrics["table_rows"], metrics["not_where"], metrics["questions"]) == (6, 3, 3)


class TestRefusals:
    """What ends the stage, in one line."""

    def test_a_column_that_no_row_has_is_named_with_those_there_are(
        self, tmp_path: Path, complaint: Callable[[dict[str, Any]], str]
    ) -> None:
        older = [{"question": "q", "solution": "s", "thinking_trajectories": ["t"], "attempt": "a"}]
        line = complaint(of_preset("s1k", write_jsonl(tmp_path / "s.jsonl", older)))
        assert line == (
            "traces.mine: s1k/train has no column 'deepseek_thinking_trajectory' in 1 rows. Its columns: 'question', "
            "'solution', 'thinking_trajectories', 'attempt'. Name them in columns of traces.mine.source and "
            "traces.mine.where."
        )

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b'{"question": "q"', ":1: not JSON ("),
            (b"\xff\n", ":1: not UTF-8. Convert the file: "),
            (b"[]\n", ":1: not an object but "),
        ],
    )
    def test_a_line_that_is_no_row_is_named(
        self, content: bytes, said: str, tmp_path: Path, complaint: Callable[[dict[str, Any]], str]
    ) -> None:
        path = tmp_path / "source.jsonl"
        path.write_bytes(content)
        assert complaint(of_preset("s1k", path)).startswith(f"{path}{said}")

    def test_a_table_without_rows_and_one_without_a_trace_are_named(
        self, tmp_path: Path, complaint: Callable[[dict[str, Any]], str]
    ) -> None:
        path = tmp_path / "source.jsonl"
        path.write_bytes(b"")
        assert complaint(of_preset("s1k", path)).startswith("traces.mine: s1k/train has no rows.")
        write_jsonl(path, s1k_rows(*[{"deepseek_attempt": None}] * 3))
        assert complaint(of_preset("s1k", path)) == (
            "traces.mine: 3 rows, and no answer of them is kept (3 no_response; 0 not in where). "
            "Check columns and where."
        )

    def test_two_questions_with_one_id_are_refused(
        self, tmp_path: Path, complaint: Callable[[dict[str, Any]], str]
    ) -> None:
        row = {"question": "1?", "reasoning": "t", "response": "1", "key": "a"}
        path = write_jsonl(tmp_path / "s.jsonl", [row, row | {"question": "2?"}])
        line = complaint(of_file(path, SEPARATE | {"id": "key"}))
        assert line == f"{path}:2: the id 'a' is that of {path}:1 too. Remove columns.id."

    def test_a_file_that_is_not_there_and_a_preset_without_a_path_are_named(
        self, tmp_path: Path, complaint: Callable[[dict[str, Any]], str]
    ) -> None:
        gone = tmp_path / "gone.jsonl"
        assert complaint(of_preset("s1k", gone)).startswith(f"traces.mine.source.path: {gone}: no such file.")
        line = complaint(of_preset("distilabel", None, "hub"))
        assert "traces.mine.source.path: null, and preset distilabel names no hub of its own. Write a path." in line
        line = complaint(of_preset("s1", None, "hub"))
        assert line == "params.yaml: traces.mine.source.name: no preset 's1'. Did you mean 's1k'?"

    def test_an_entry_that_params_do_not_have_is_named(
        self, tmp_path: Path, project_params: Params, refuses: Callable[..., str]
    ) -> None:
        line = refuses(main, *arguments(tmp_path, project_params()))
        assert line == "params.yaml: traces: no entry 'mine'. Known: none."

    @pytest.mark.heavy
    def test_a_hub_that_is_out_of_reach_is_told_in_one_line_with_the_way_round(
        self, tmp_path: Path, project_params: Params
    ) -> None:
        params = project_params({"traces": {"mine": of_preset("s1k", None, "hub")}})
        command = [sys.executable, "-m", "stages.traces", *map(str, arguments(tmp_path, params))]
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}  # read when it is imported
        done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("Error: traces.mine.source.path: a hub gave no 'simplescaling/s1K-1.1' (")
        assert "take a file" in last
        assert "Traceback" not in done.stderr


class TestPresets:
    """stages/trace_presets: public sets, described and not programmed."""

    NAMES = preset_names(TRACE_PRESETS)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_row_in_the_form_of_each_set_becomes_a_trace(self, name: str, tmp_path: Path, read: Read) -> None:
        tagged = "<think>6 * 12</think>It is \\boxed{72}."
        marked = (
            "<|begin_of_thought|>6 * 12<|end_of_thought|><|begin_of_solution|>It is \\boxed{72}.<|end_of_solution|>"
        )
        published: dict[str, dict[str, Any]] = {
            "s1k": s1k_rows(
                {"deepseek_thinking_trajectory": "6 * 12", "deepseek_attempt": "It is \\boxed{72}.", "question": "How?"}
            )[0],
            "openthoughts_114k": {
                "problem": "How?",
                "deepseek_reasoning": "6 * 12",
                "deepseek_solution": "It is \\boxed{72}.",
                "ground_truth_solution": "So \\boxed{72}",
                "domain": "math",
                "source": "numina_math",
                "test_cases": None,
                "starter_code": None,
            },
            "openr1_math": {
                "problem": "How?",
                "solution": "72",
                "answer": "72",
                "uuid": "u",
                "is_reasoning_complete": [True],
                "generations": [tagged],
                "correctness_math_verify": [True],
                "correctness_llama": None,
                "finish_reasons": None,
                "messages": [],
            },
            "bespoke_stratos_17k": {
                "system": "Think.",
                "conversations": [{"from": "user", "value": "How?"}, {"from": "assistant", "value": marked}],
            },
            "distilabel": {
                "instruction": "How?",
                "generation": [tagged],
                "distilabel_metadata": [{"raw_output_text_generation_0": tagged}],
                "model_name": "deepseek-r1",
            },
            "r1_distill": {"question": "How?", "reasoning": "6 * 12", "answer": "It is \\boxed{72}."},
        }
        assert sorted(published) == self.NAMES
        (row,), _, _ = read(of_preset(name, write_jsonl(tmp_path / "row.jsonl", [published[name]])))
        assert (row.question, row.reasoning, row.response) == ("How?", "6 * 12", "It is \\boxed{72}.")
        assert row.model == "deepseek-r1"
        assert row.answer == ("72" if trace_preset_named(name, "").gold else None)


class TestRealAnswers:
    """Sky-T1's answers to MATH500: some are cut off, some have no tags."""

    def test_whole_ones_are_kept_and_filtered_by_the_rule(
        self, tmp_path: Path, development_data: Path, read: Read, project_params: Params, runs: Runs
    ) -> None:
        folder = "answers" if WHOLE else "traces"
        path = development_data / folder / "skyt1_27b_math500.jsonl"
        columns = TAGGED | {"question": "question", "text": "response", "answer": "answer"}
        kept, left_out, _ = read(of_file(path, columns, "plain"))
        reasons = Counter(row.reason for row in left_out)
        assert (len(kept), reasons) == (
            (132, {"no_reasoning": 173, "cut_off": 93}) if WHOLE else (1, {"no_reasoning": 1, "cut_off": 1})
        )
        for row in kept:
            assert "_of_thought|>" not in row.reasoning + row.response
            assert "_of_solution|>" not in row.reasoning + row.response
        outs = {name: tmp_path / f"mine_{name}.jsonl" for name in ("filtered", "rejected", "control", "disagreements")}
        options = [part for name, out in outs.items() for part in (f"--{name}", out)]
        metrics = ["--metrics", tmp_path / "filter.json", "--params", project_params()]
        runs(filter_stage, "--distilled", tmp_path / "mine.jsonl", *options, *metrics)
        counts = json.loads((tmp_path / "filter.json").read_bytes())
        assert counts["in"] == len(kept)
        assert counts["kept"] >= 0.9 * len(kept)


def test_traces_without_gold_are_counted_as_such_by_the_filter(
    tmp_path: Path, read: Read, project_params: Params, runs: Runs
) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "2?", "reasoning": "t", "response": "It is \\boxed{2}.", "gold": "2"},
        {"question": "3?", "reasoning": "t", "response": "It is \\boxed{3}.", "gold": None},
    ]
    read(of_file(write_jsonl(tmp_path / "g.jsonl", rows), SEPARATE | {"answer": "gold"}, "plain"))
    outs = [
        part for name in ("filtered", "rejected", "control", "disagreements") for part in (f"--{name}", tmp_path / name)
    ]
    metrics = ["--metrics", tmp_path / "filter.json", "--params", project_params()]
    runs(filter_stage, "--distilled", tmp_path / "mine.jsonl", *outs, *metrics)
    counts = json.loads((tmp_path / "filter.json").read_bytes())
    assert (counts["in"], counts["kept"]) == (2, 1)
    assert counts["rejected_by_reason"] == {"no_gold": 1}


def test_a_row_with_a_control_token_goes_on_and_is_dropped_by_convert(
    tmp_path: Path, tiny_params: Params, runs: Runs
) -> None:
    rows = s1k_rows({"deepseek_attempt": "It is 6.<|im_end|>"}, {"deepseek_thinking_trajectory": ""})
    params = tiny_params({"traces": {"mine": of_preset("s1k", write_jsonl(tmp_path / "source.jsonl", rows))}})
    runs(main, *arguments(tmp_path, params))
    out = ["--out", tmp_path / "mine", "--metrics", tmp_path / "convert.json"]
    out += ["--lengths", tmp_path / "lengths.csv"]
    runs(convert, "--rows", tmp_path / "mine.jsonl", *out, "--params", params)
    metrics = json.loads((tmp_path / "convert.json").read_bytes())
    assert (metrics["in"], metrics["rows"], metrics["dropped"]["control_token"]) == (2, 1, 1)
    assert json.loads((tmp_path / "mine" / "mine.json").read_bytes())[0]["conversations"][0]["value"] == QUESTIONS[2]


def test_the_doctor_knows_what_is_downloaded_and_which_file_must_be_there(
    tmp_path: Path, project_params: Params
) -> None:
    entries = {
        "s1k": of_preset("s1k", None, "hub"),
        "mine": of_file(tmp_path / "mine.jsonl", SEPARATE),
        "open": of_preset("openthoughts_114k", None, "modelscope"),
    }
    params = load_params(project_params({"traces": entries}))
    found = {item.key: (item.hub, item.name) for item in named_downloads(params)}
    assert found == {
        "traces.s1k.source": ("hub", "simplescaling/s1K-1.1"),
        "traces.open.source": ("modelscope", "open-thoughts/OpenThoughts-114k"),
    }
    assert dict(named_files(params))["traces.mine.source.path"] == tmp_path / "mine.jsonl"


@pytest.mark.heavy
def test_the_stages_are_there_just_where_params_name_them_and_feed_their_datasets(
    tmp_path: Path, tiny_student: Path
) -> None:
    space = Workspace.of_the_repository(tmp_path / "space", tiny_student)
    listed = space.run("dvc", "stage", "list", "--name-only")
    assert "traces" not in listed
    rows = [
        {"problem": f"{n} + {n}?", "generations": [f"<think>t</think>{2 * n}", "<think>t</think>0"]}
        for n in range(1, 9)
    ]
    columns = TAGGED | {"answer": "answer"}
    path = write_parquet(tmp_path / "source.parquet", [row | {"answer": str(2 * n)} for n, row in enumerate(rows, 1)])
    space.change(
        {
            "traces": {"mine": of_file(path, columns, "plain")},
            "filter_traces": ["mine"],
            "datasets.mine": {"rows": "data/mine.jsonl"},
            "datasets.mine_filtered": {"rows": "data/mine_filtered.jsonl"},
        }
    )
    assert space.repro("convert@mine_filtered") == {
        "eval-data",
        "collect",
        "traces@mine",
        "filter-traces@mine",
        "convert@mine_filtered",
    }
    assert space.repro("convert@mine") == {"convert@mine"}
    assert space.repro("convert@mine", "convert@mine_filtered") == set()
    counts = {
        name: json.loads((space.folder / "metrics" / name / "mine.json").read_bytes())
        for name in ("traces", "filter_traces")
    }
    assert (counts["traces"]["rows"], counts["filter_traces"]["kept"]) == (16, 8)
