"""Difficulty: which questions the untrained student solves, in this process or on a server; nothing is asked twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import Result

from stages.collect import main as collect
from stages.difficulty import main
from stages.evaluate import main as evaluate
from stages.filter import main as filter_main
from stages.lib.chat_template import rendered
from stages.lib.difficulty.calls import verdict
from stages.lib.params import Params, load_params, prompt_text
from stages.lib.replies.reading import read_body
from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question
from tests.distill_runner import DistillRunner, Serve, Server, completion, question, wait_until
from tests.talking_student import taught

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-of-the-student-0123456789"
FILES = ("questions.jsonl", "too_easy.jsonl", "metrics.json")
ParamsFile = Callable[..., Path]
Runs = Callable[..., Result]
Refuses = Callable[..., str]


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("API_KEY", KEY)


def keep_hard(backend: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"collect.keep_hard": {"samples": 4, "max_solved": 2, "backend": backend} | changes, "run.backoff_s": 0.001}


def served(server: Server, **changes: Any) -> dict[str, Any]:
    backend = {"kind": "openai_compatible", "base_url": server.base_url, "model": "student", "temperature": 0.7}
    return keep_hard(backend | {"top_p": 0.9, "max_tokens": 64}, **changes)


def loaded(**changes: Any) -> dict[str, Any]:
    return keep_hard({"kind": "hf", "max_tokens": 24}, **changes) | {"run.threads": 1}


def sums(*answers: int) -> list[Question]:
    """Questions of which ``x`` is the answer to the x-th."""
    return [
        Question(id=f"sum-{n}", question=f"Tom had {n} pens and got {x - n}. How many pens?", answer=str(x))
        for n, x in enumerate(answers)
    ]


def options(tmp_path: Path, rows: list[Question], params: Path, out: str = "out") -> list[object]:
    write_rows(tmp_path / "collected.jsonl", rows)
    paths = zip(("--questions", "--too-easy", "--metrics"), (tmp_path / out / name for name in FILES), strict=True)
    store = tmp_path / out / "store.jsonl"
    given = ["--collected", tmp_path / "collected.jsonl", "--store", store, "--params", params]
    return [*given, *(word for pair in paths for word in pair)]


def written(tmp_path: Path, name: str, out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / out / name).read_bytes().splitlines()]


def metrics(tmp_path: Path, out: str = "out") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / out / "metrics.json").read_bytes())
    return found


def rates(tmp_path: Path, out: str = "out") -> dict[str, tuple[int, int]]:
    """Solved and unsure answers by question, of both files."""
    rows = [*written(tmp_path, "questions.jsonl", out), *written(tmp_path, "too_easy.jsonl", out)]
    return {row["id"]: (row["pass_rate"]["solved"], row["pass_rate"]["unsure"]) for row in rows}


def says(*texts: str) -> Callable[[web.Request, str, int], Any]:
    """A route whose k-th answer to a question is the k-th of these texts."""

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(reasoning_content="", content=texts[(attempt - 1) % len(texts)])

    return route


def test_without_keep_hard_the_questions_are_the_collected_ones_byte_for_byte(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    params = project_params()
    paths = {"--questions": "collected.jsonl", "--heldout": "h.jsonl", "--left-out": "l.jsonl", "--metrics": "c.json"}
    runs(collect, "--params", params, *(word for name, path in paths.items() for word in (name, tmp_path / path)))
    collected = (tmp_path / "collected.jsonl").read_bytes()
    rows = list(read_rows(tmp_path / "collected.jsonl", Question, ""))
    caplog.set_level("INFO")
    runs(main, *options(tmp_path, rows, params))
    assert f"kept all {len(rows)}" in caplog.text
    assert (tmp_path / "out" / "questions.jsonl").read_bytes() == collected
    assert b"pass_rate" not in collected
    assert not (tmp_path / "out" / "too_easy.jsonl").read_bytes()
    assert not (tmp_path / "out" / "store.jsonl").exists()
    assert metrics(tmp_path) == {
        **{
            "in": len(rows),
            "asked": 0,
            "kept": len(rows),
            "too_easy": 0,
            "samples": 0,
            "max_solved": None,
            "by_solved": {},
        },
        **{"unsure_answers": 0, "completion_tokens": 0},
    }


def test_a_served_student_is_asked_as_the_base_arm_and_its_pass_rates_decide(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = serve(says("The answer is 5.", "The answer is 5.", "The answer is 7.", "I like pens."))
    runs(main, *options(tmp_path, sums(5, 7, 9), project_params(served(server, max_solved=1))))
    assert "kept 2 of 3 (1 solved more than 1 times in 4)" in caplog.text
    assert rates(tmp_path) == {"sum-0": (2, 1), "sum-1": (1, 1), "sum-2": (0, 1)}
    assert [row["id"] for row in written(tmp_path, "questions.jsonl")] == ["sum-1", "sum-2"]
    assert written(tmp_path, "too_easy.jsonl")[0]["pass_rate"] == {"solved": 2, "unsure": 1, "samples": 4}
    assert metrics(tmp_path) == {
        **{"in": 3, "asked": 3, "kept": 2, "too_easy": 1, "samples": 4, "max_solved": 1},
        **{"by_solved": {"0": 1, "1": 1, "2": 1, "3": 0, "4": 0}, "unsure_answers": 3, "completion_tokens": 12 * 9},
    }
    assert server.keys == {f"Bearer {KEY}"}
    assert len(server.bodies) == 12
    for body in server.bodies:
        system, user = body["messages"]
        assert system == {"role": "system", "content": prompt_text("brief")}
        assert user["role"] == "user" and user["content"].startswith("Tom had ")
        sent = {name: value for name, value in body.items() if name != "messages"}
        assert sent == {"model": "student", "temperature": 0.7, "top_p": 0.9, "max_tokens": 64}
    facts = json.loads((tmp_path / "metrics" / "runs" / "difficulty.json").read_bytes())
    assert (facts["bought"], facts["from_store"]) == (12, 0)


def test_a_second_run_and_another_limit_ask_nothing(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, serve: Serve
) -> None:
    server = serve(says("The answer is 5.", "The answer is 7."))
    runs(main, *options(tmp_path, sums(5, 7, 9), project_params(served(server))))
    before = [(tmp_path / "out" / name).read_bytes() for name in FILES]
    runs(main, *options(tmp_path, sums(5, 7, 9), project_params(served(server))))
    assert [(tmp_path / "out" / name).read_bytes() for name in FILES] == before
    runs(main, *options(tmp_path, sums(5, 7, 9), project_params(served(server, max_solved=1))))
    assert [row["id"] for row in written(tmp_path, "too_easy.jsonl")] == ["sum-0", "sum-1"]
    assert len(server.bodies) == 12
    runs(main, *options(tmp_path, sums(5, 7, 9, 11), project_params(served(server, samples=5))))
    assert len(server.bodies) == 12 + 3 + 5, "one more sample of the old questions, all of the new one"


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({"evaluate.base_prompt": "plain"}, ["user"]),
        ({"train.system_prompt": "in_user_turn"}, ["user"]),
        ({"train.system_prompt": "as_system"}, ["system", "user"]),
    ],
)
def test_the_system_text_is_that_of_the_base_arm(
    changes: dict[str, Any], roles: list[str], tmp_path: Path, project_params: ParamsFile, runs: Runs, serve: Serve
) -> None:
    server = serve(says("no idea"))
    runs(main, *options(tmp_path, sums(5), project_params(served(server, samples=1, max_solved=0) | changes)))
    (body,) = server.bodies
    assert [turn["role"] for turn in body["messages"]] == roles
    together = "\n\n".join(turn["content"] for turn in body["messages"])
    text = "" if "evaluate.base_prompt" in changes else prompt_text("brief") + "\n\n"
    assert together == text + sums(5)[0].question


def test_a_refused_question_is_unsure_and_a_lost_answer_fails_the_stage_until_it_is_there(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, refuses: Refuses, serve: Serve
) -> None:
    broken = True

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if "had 0 pens" in content:
            error = {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}
            return web.json_response({"error": error}, status=400)
        if "had 1 pens" in content and broken:
            return web.json_response({"error": {"message": "try later"}}, status=503)
        return completion(content="The answer is 9.")

    server, rows = serve(route), sums(5, 7, 9)
    given = options(tmp_path, rows, project_params(served(server, samples=1, max_solved=0)))
    said = refuses(main, *given)
    assert said.startswith("difficulty: 1 answers of the student were not received (")
    assert said.endswith('"try later"). The received ones are kept. Run the stage again to ask for the rest.')
    assert not (tmp_path / "out" / "questions.jsonl").exists()
    broken, asked = False, len(server.bodies)
    runs(main, *given)
    assert rates(tmp_path) == {"sum-0": (0, 1), "sum-1": (0, 0), "sum-2": (1, 0)}
    assert len(server.bodies) == asked + 2, "the refused one, and the lost one"


def test_offline_asks_nobody(tmp_path: Path, project_params: ParamsFile, refuses: Refuses, serve: Serve) -> None:
    server = serve(says("no idea"))
    said = refuses(main, *options(tmp_path, sums(5), project_params(served(server) | {"run.offline": True})))
    assert said.startswith("difficulty: run.offline is true, and 4 answers of the student are not in the store.")
    assert not server.bodies


def start(given: list[object]) -> subprocess.Popen[str]:
    """The stage as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.difficulty", *map(str, given)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_run_asks_a_server_only_for_what_is_missing(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, serve: Serve
) -> None:
    async def slow(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        import asyncio

        await asyncio.sleep(0.05)
        return completion(content="The answer is 5.")

    server, rows = serve(slow), sums(*range(5, 35))
    given = options(tmp_path, rows, project_params(served(server) | {"run.concurrency": 2}))
    process = start(given)
    wait_until(lambda: lines(tmp_path / "out" / "store.jsonl") >= 20 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    runs(main, *given)
    assert 120 <= len(server.bodies) <= 126, "two were in flight, and up to four received and not written yet"
    assert sum(solved for solved, _ in rates(tmp_path).values()) == 4


def test_an_empty_answer_is_wrong_and_a_missing_one_unsure() -> None:
    (asked,) = sums(5)
    message = {"role": "assistant", "content": ""}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    assert verdict(asked, read_body(json.dumps(body).encode())) == "wrong"
    assert verdict(asked, None) == "unsure"


def test_a_chinese_answer_is_read_as_the_evaluation_reads_it() -> None:
    asked = Question(id="a", question="小明有5支铅笔，又买了3支铅笔。他现在一共有多少支铅笔？", answer="8")
    for text, found in (("所以，他一共有8支铅笔。", "right"), ("所以，他一共有9支铅笔。", "wrong")):
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        assert verdict(asked, read_body(json.dumps(body).encode())) == found


def test_a_question_without_gold_answer_is_one_line(
    tmp_path: Path, tiny_params: ParamsFile, refuses: Refuses, runs: Runs
) -> None:
    rows = [*sums(5), Question(id="open", question="Why?", answer=None)]
    assert refuses(main, *options(tmp_path, rows, tiny_params(loaded()))) == (
        f"{tmp_path / 'collected.jsonl'}: 1 questions have no gold answer ('open' is the first), so their difficulty "
        "cannot be measured. Set collect.keep_hard: null, or collect questions with answers."
    )
    runs(main, *options(tmp_path, rows, tiny_params()))
    assert (tmp_path / "out" / "questions.jsonl").read_bytes() == (tmp_path / "collected.jsonl").read_bytes()


def test_a_conversation_is_asked_whole_with_its_own_system_text(
    tmp_path: Path, project_params: ParamsFile, runs: Runs, serve: Serve
) -> None:
    server = serve(says("The answer is 5."))
    history = [{"role": "user", "content": "Tom has 2 pens."}, {"role": "assistant", "content": "Noted."}]
    row = {"id": "a", "question": "He gets 3. How many?", "answer": "5", "history": history, "system": "Count pens."}
    params = project_params(served(server, samples=1, max_solved=1))
    runs(main, *options(tmp_path, [Question.model_validate(row)], params))
    question = {"role": "user", "content": "He gets 3. How many?"}
    assert server.bodies[0]["messages"] == [{"role": "system", "content": "Count pens."}, *history, question]
    (kept,) = written(tmp_path, "questions.jsonl")
    assert kept == row | {"solution": None, "source": "unknown"} | {"pass_rate": kept["pass_rate"]}


def test_where_nothing_is_hard_the_stage_says_so(
    tmp_path: Path, project_params: ParamsFile, refuses: Refuses, serve: Serve
) -> None:
    server = serve(says("The answer is 5."))
    said = refuses(main, *options(tmp_path, sums(5), project_params(served(server))))
    assert said == (
        "difficulty: the student solves each of the 1 questions more than 2 times in 4. Raise "
        "collect.keep_hard.max_solved, or collect harder questions."
    )
    assert not (tmp_path / "out" / "questions.jsonl").exists()


def test_a_limit_above_the_context_is_one_line(tmp_path: Path, tiny_params: ParamsFile, refuses: Refuses) -> None:
    changes = keep_hard({"kind": "hf", "max_tokens": 1024})
    assert refuses(main, *options(tmp_path, sums(5), tiny_params(changes))) == (
        "collect.keep_hard.backend.max_tokens: 1024, but the student's context is 1024 tokens. Lower it."
    )


def test_a_student_without_chat_template_is_one_line(
    tmp_path: Path, tiny_student: Path, tiny_params: ParamsFile, refuses: Refuses
) -> None:
    shutil.copytree(tiny_student, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    changes = loaded() | {"train.student.name": str(tmp_path / "bare")}
    said = refuses(main, *options(tmp_path, sums(5), tiny_params(changes)))
    assert said.startswith(f"{tmp_path / 'bare'}: the tokenizer has no chat template.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 2, "max_solved": 3}, "collect.keep_hard: max_solved is above samples, 2. Lower it; equal, it"),
        ({"backend.temperature": 0.0}, "collect.keep_hard: at temperature 0 all samples are the same answer."),
        ({"backend.kind": "vllm"}, "collect.keep_hard.backend.kind: 'vllm' is not one of hf, openai_compatible."),
        (
            {"backend.base_url": "http://h/v1"},
            "collect.keep_hard.backend.base_url: kind hf does not read it; kind open",
        ),
        ({"most": 2}, "collect.keep_hard.most: unknown key."),
    ],
)
def test_params_that_cannot_be_meant_are_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path, project_params: ParamsFile, refuses: Refuses
) -> None:
    path = project_params(loaded())
    from ruamel.yaml import YAML

    tree = YAML().load(path)
    for key, value in changes.items():
        section = tree["collect"]["keep_hard"]
        *parts, name = key.split(".")
        for part in parts:
            section = section[part]
        section[name] = value
    YAML().dump(tree, path)
    assert refuses(main, *options(tmp_path, sums(5), path)).startswith(f"{path}: {said}")


def test_the_key_of_a_served_student_has_a_variable_and_no_other_student_has(
    project_params: ParamsFile, tmp_path: Path, refuses: Refuses
) -> None:
    text = project_params(keep_hard({"kind": "openai_compatible"})).read_text()
    assert load_params(tmp_path / "params.yaml").run.key_variable("student") == "API_KEY"
    (tmp_path / "params.yaml").write_text(text.replace('"student": "API_KEY"', '"judge": "API_KEY"'))
    said = refuses(main, *options(tmp_path, sums(5), tmp_path / "params.yaml"))
    assert "run.api_key_variables.judge: only filter.judge with kind: openai_compatible reads it" in said
    assert isinstance(load_params(project_params(loaded())), Params)


def test_the_pass_rate_goes_along_to_the_teachers_rows_and_the_filters(
    runner: DistillRunner, runs: Runs, tmp_path: Path, project_params: ParamsFile
) -> None:
    rate = {"solved": 1, "unsure": 0, "samples": 4}
    runner.ask(question(0) | {"pass_rate": rate}, question(1))
    runner.set(slip_share=0.0)
    runner.run()
    first, second = runner.distilled()
    assert first["pass_rate"] == rate
    assert "pass_rate" not in second
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("filtered", "rejected", "control", "disagreements")}
    given = [word for name, path in paths.items() for word in (f"--{name}", path)]
    distilled = runner.folder / "out" / "distilled.jsonl"
    runs(filter_main, "--distilled", distilled, *given, "--metrics", tmp_path / "f.json", "--params", project_params())
    kept = [json.loads(line) for line in paths["filtered"].read_bytes().splitlines()]
    assert [row.get("pass_rate") for row in kept] == [rate, None]


@pytest.mark.heavy
def test_a_loaded_student_gets_the_prompt_of_the_base_arm(
    tmp_path: Path, tiny_student: Path, project_params: ParamsFile, runs: Runs
) -> None:
    from transformers import AutoTokenizer

    student = taught(tiny_student, tmp_path / "student", "The answer is 3")
    changes = {"train.student.kind": "path", "train.student.name": str(student), "evaluate.max_gen_toks": 12}
    params = project_params(loaded(samples=2, max_solved=1) | changes)
    rows = sums(3, 7, 3, 9)
    runs(main, *options(tmp_path, rows, params))
    assert rates(tmp_path) == {"sum-0": (2, 0), "sum-1": (0, 0), "sum-2": (2, 0), "sum-3": (0, 0)}
    assert [row["id"] for row in written(tmp_path, "questions.jsonl")] == ["sum-1", "sum-3"]
    assert metrics(tmp_path)["completion_tokens"] == 8 * read_tokens(tmp_path)
    outputs = {"metrics": "e.json", "scores": "e.csv", "answers": "e.jsonl", "examples": "x.jsonl"}
    paths = [word for name, file in outputs.items() for word in (f"--{name}", tmp_path / file)]
    runs(evaluate, "--arm", "base", "--heldout", tmp_path / "collected.jsonl", *paths, "--params", params)
    tokenizer = AutoTokenizer.from_pretrained(student)
    asked = [record["request"]["messages"] for record in records(tmp_path)][::2]
    evaluated = list(read_rows(tmp_path / "e.jsonl", Evaluated, ""))
    assert [rendered(tokenizer, messages, opened=True) for messages in asked] == [row.prompt for row in evaluated]
    assert [row.correct for row in evaluated] == [True, False, True, False]


def records(tmp_path: Path, out: str = "out") -> list[dict[str, Any]]:
    return written(tmp_path, "store.jsonl", out)


def read_tokens(tmp_path: Path) -> int:
    """The tokens of each answer, which are the same ones."""
    (number,) = {json.loads(record["body"])["usage"]["completion_tokens"] for record in records(tmp_path)}
    return int(number)


@pytest.mark.heavy
def test_a_killed_generation_resumes_and_ends_as_if_it_had_not_been_killed(
    tmp_path: Path, tiny_params: ParamsFile, runs: Runs
) -> None:
    changes = keep_hard({"kind": "hf", "max_tokens": 400, "batch_size": 4}) | {"run.threads": 1}
    given = options(tmp_path, sums(*range(5, 15)), tiny_params(changes))
    process = start(given)
    store = tmp_path / "out" / "store.jsonl"
    wait_until(lambda: lines(store) >= 8 or process.poll() is not None, within_s=180)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    held = store.read_bytes()
    assert 8 <= held.count(b"\n") < 40
    runs(main, *given)
    assert store.read_bytes().startswith(held), "what was generated is not generated again"
    runs(main, *options(tmp_path, sums(*range(5, 15)), tmp_path / "params.yaml", "whole"))
    assert [record["key"] for record in records(tmp_path)] == [record["key"] for record in records(tmp_path, "whole")]
    assert records(tmp_path) == records(tmp_path, "whole")
    texts = {json.loads(record["body"])["choices"][0]["message"]["content"] for record in records(tmp_path)}
    assert len(texts) == 40, "samples of one question differ"


@pytest.mark.heavy
def test_smollm2_solves_some_sums_of_two_numbers(tmp_path: Path, project_params: ParamsFile, runs: Runs) -> None:
    """The student of the embedded profile, as it is published."""
    backend = {"kind": "hf", "temperature": 0.7, "top_p": 0.95, "max_tokens": 32, "batch_size": 12}
    changes = keep_hard(backend, samples=3, max_solved=1) | {"run.threads": 1}
    rows = [
        Question(id=f"q{n}", question=f"What is {n} + {n}?", answer=str(2 * n)) for n in (1, 2, 3, 5, 17, 38, 64, 89)
    ]
    runs(main, *options(tmp_path, rows, project_params(changes)))
    found = metrics(tmp_path)
    assert found["asked"] == found["kept"] + found["too_easy"] == 8
    assert found["too_easy"] > 0
    assert found["kept"] > 0
    assert found["completion_tokens"] > 24
