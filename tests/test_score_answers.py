"""The probabilities that come with an answer: asked for, kept, and put on the student's tokens."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from stages.convert import main as convert
from stages.distill import main as distill
from stages.lib.logprobs.alignment import Alignment, Parts, matched, parts_of, token_bytes
from stages.lib.logprobs.answers import TokenLogprobs, token_logprobs
from stages.lib.params import load_params
from stages.lib.replies.reading import read_body
from stages.score import main as score
from tests.talking_student import taught
from tests.tiny_gguf import serving, write_gguf

Params = Callable[..., Path]
Runs = Callable[..., Result]
ANSWER = "<think>7 + 5 = 12</think>The answer is 12."
TOP = 4


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("API_KEY", "any word")


@pytest.fixture(scope="module")
def address(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's server with a tiny model that has learned one answer, with a thought."""
    folder = tmp_path_factory.mktemp("answers")
    write_gguf(taught(tiny_student, folder / "teacher", ANSWER), folder / "teacher.gguf")
    with serving(folder / "teacher.gguf") as found:
        yield found


def asking(address: str, **changes: Any) -> dict[str, Any]:
    teacher = {"kind": "openai_compatible", "base_url": f"{address}/v1", "model": "tiny", "temperature": 0.0}
    teacher |= {"top_p": None, "max_tokens": 64, "extra_body": {}}
    return {"distill.teacher": teacher, "distill.logprobs": TOP, "distill.max_failed_share": 0.0} | changes


def question(number: int) -> str:
    row = {"id": f"q{number}", "question": f"7 + {number} = ", "answer": "12", "solution": None, "source": "s"}
    return json.dumps(row) + "\n"


def distilled(tmp_path: Path, params: Path, runs: Runs) -> list[dict[str, Any]]:
    (tmp_path / "questions.jsonl").write_text("".join(map(question, range(3))))
    files = {"questions": "questions.jsonl", "distilled": "distilled.jsonl", "failures": "failures.jsonl"}
    files |= {"metrics": "distill.json", "logprobs": "logprobs.parquet", "store": "answers.jsonl"}
    runs(
        distill, "--params", params, *(each for name, file in files.items() for each in (f"--{name}", tmp_path / file))
    )
    return [json.loads(line) for line in (tmp_path / "distilled.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
def test_what_a_real_server_sends_with_its_answers_reaches_the_tokens_of_the_training(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, address: str, runs: Runs, stream: bool
) -> None:
    from transformers import AutoTokenizer

    changes = {"score.kind": "answers", "arms.filtered.alpha": 0.5, "run.stream": stream}
    params = tiny_params(asking(address, **changes))
    rows = distilled(tmp_path, params, runs)
    assert {(row["reasoning"], row["response"]) for row in rows} == {("7 + 5 = 12", "The answer is 12.")}
    kept = pq.read_table(tmp_path / "logprobs.parquet").to_pylist()
    assert [row["id"] for row in kept] == ["q0", "q1", "q2"]
    assert b"".join(kept[0]["tokens"]).startswith(ANSWER.encode())
    assert {len(top) for top in kept[0]["top_tokens"]} == {TOP}
    metrics = json.loads((tmp_path / "distill.json").read_bytes())["logprobs"]
    assert (metrics["answers"], metrics["answers_without"]) == (3, 0)

    (tmp_path / "sums").mkdir()
    paths = {"rows": "distilled.jsonl", "out": "sums", "metrics": "c.json", "lengths": "lengths.csv"}
    runs(
        convert, "--params", params, *(each for name, file in paths.items() for each in (f"--{name}", tmp_path / file))
    )
    files = {"dataset": tmp_path / "sums", "logprobs": tmp_path / "logprobs.parquet", "scores": tmp_path / "s.parquet"}
    files |= {"metrics": tmp_path / "s.json", "params": params}
    runs(score, "--arm", "filtered", *(each for name, path in files.items() for each in (f"--{name}", path)))
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    for row in pq.read_table(tmp_path / "s.parquet").to_pylist():
        assert row["reason"] is None
        best = [top[0] for top in row["top_ids"]]  # it is certain of what it has learned
        assert "7 + 5 = 12" in tokenizer.decode(best)
        assert "The answer is 12" in tokenizer.decode(best)
    counts = json.loads((tmp_path / "s.json").read_bytes())
    assert counts["rows"] == 3
    assert 0 < counts["tokens"] < counts["tokens_trained"], "the markers are not the teacher's"
    assert counts["mass"] > 0.9


def test_answers_with_and_without_are_different_answers(
    tmp_path: Path, tiny_params: Params, address: str, runs: Runs
) -> None:
    plain = tiny_params(asking(address, **{"distill.logprobs": None}))
    distilled(tmp_path, plain, runs)
    assert pq.read_table(tmp_path / "logprobs.parquet").num_rows == 0
    assert "logprobs" not in json.loads((tmp_path / "distill.json").read_bytes())
    before = (tmp_path / "answers.jsonl").read_bytes()
    assert b'"logprobs"' not in before.split(b"\n")[0].split(b'"body"')[0]
    distilled(tmp_path, tiny_params(asking(address)), runs)
    after = (tmp_path / "answers.jsonl").read_bytes()
    assert after.startswith(before), "what was received stays"
    assert len(after.splitlines()) == 6


def entry(text: str | bytes, logprob: float = -0.1, top: list[tuple[bytes, float]] | None = None) -> TokenLogprobs:
    token = text.encode() if isinstance(text, str) else text
    return TokenLogprobs(token, logprob, top or [(token, logprob)])


def as_trained(tokenizer: Any, parts: Parts) -> list[int]:
    answer = f"<think>\n\n{parts.reasoning}</think>\n\n<answer>\n\n{parts.response}</answer>"
    ids: list[int] = tokenizer(f"<|im_start|>assistant\n{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
    return ids


PARTS = Parts("Think step by step, then give the solution.", "The answer is 12. 7 + 5 = 12")


@pytest.fixture
def tokenizer(tiny_student: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_student)


def tokens_of_texts(tokenizer: Any, *texts: str) -> list[TokenLogprobs]:
    names = token_bytes(tokenizer)
    return [entry(names[number]) for text in texts for number in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_the_same_tokens_are_found_at_their_places(tokenizer: Any) -> None:
    ids = as_trained(tokenizer, PARTS)
    tokens = tokens_of_texts(tokenizer, "<think>", PARTS.reasoning, "</think>", PARTS.response, "<|im_end|>")
    found = Alignment(tokenizer, 2).scored(PARTS, ids, 0, tokens)
    assert not isinstance(found, str)
    assert [ids[place] for place in found.positions] == found.ids[:, 0].tolist()
    assert set(found.ids[:, 1]) == {-1}
    assert tokenizer.decode(found.ids[:, 0]) == PARTS.reasoning + PARTS.response


def test_without_the_thought_the_response_is_used(tokenizer: Any) -> None:
    found = Alignment(tokenizer, 2).scored(
        PARTS, as_trained(tokenizer, PARTS), 0, tokens_of_texts(tokenizer, PARTS.response)
    )
    assert not isinstance(found, str)
    assert tokenizer.decode(found.ids[:, 0]) == PARTS.response


def test_an_answer_split_into_other_tokens_is_not_used(tokenizer: Any) -> None:
    ids = as_trained(tokenizer, PARTS)
    letters = [entry(letter) for letter in PARTS.reasoning + PARTS.response]
    assert Alignment(tokenizer, 2).scored(PARTS, ids, 0, letters) == "tokens_differ"
    assert Alignment(tokenizer, 2).scored(PARTS, ids, 0, tokens_of_texts(tokenizer, "another text")) == "text_differs"


def test_cuts_inside_a_character_and_at_the_ends_do_not_count() -> None:
    text = "ab cd 你 ef gh.".encode()
    student = [
        (0, (0, 1)),
        (1, (1, 3)),
        (2, (3, 6)),
        (3, (6, 7)),
        (4, (7, 9)),
        (5, (9, 12)),
        (6, (12, 15)),
        (7, (15, 16)),
    ]
    teacher = [(0, (0, 3)), (1, (3, 6)), (2, (6, 9)), (3, (9, 12)), (4, (12, 14)), (5, (14, 16))]
    assert matched(student, teacher, text) == [(2, 1), (5, 3)]
    assert matched([(0, (0, 6)), (1, (6, 8)), (2, (8, 16))], [(n, (2 * n, 2 * n + 2)) for n in range(8)], text) is None


def test_tokens_are_their_bytes_in_each_kind_of_vocabulary(tokenizer: Any) -> None:
    names = token_bytes(tokenizer)
    text = "naïve 你好 😀\n\tThe answer<|im_end|>"
    assert b"".join(names[number] for number in tokenizer(text)["input_ids"]) == text.encode()


def test_the_likeliest_are_sorted_and_the_written_one_is_among_them(tokenizer: Any) -> None:
    parts = Parts("", "The answer is 12.")
    ids, width = as_trained(tokenizer, Parts("x", parts.response)), 3
    tokens = [
        entry(each.token, -2.0, [(b" no such token", -0.5), (b"T", -0.7), (b"a", -0.6)])
        for each in tokens_of_texts(tokenizer, parts.response)
    ]
    found = Alignment(tokenizer, width).scored(parts, ids, 0, tokens)
    assert not isinstance(found, str)
    names = token_bytes(tokenizer)
    assert [names[number] for number in found.ids[0][:2]] == [b"a", b"T"]
    assert found.ids[0, 2] == ids[found.positions[0]]
    assert np.allclose(found.logprobs[0], [-0.6, -0.7, -2.0])


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        (None, []),
        ({"content": None}, []),
        ({"content": [{"token": "a"}]}, []),
        ({"content": [{"token": "é", "logprob": -1, "bytes": None}]}, ["é".encode()]),
        # DeepSeek has the thought's tokens apart
        (
            {
                "content": [{"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []}],
                "reasoning_content": [{"token": "a", "logprob": -1.0, "bytes": [97]}],
            },
            [b"a", b"b"],
        ),
    ],
)
def test_what_a_body_has_is_read(logprobs: Any, expected: list[bytes]) -> None:
    message = {"reasoning_content": "a", "content": "b"}
    body = {"choices": [{"message": message, "finish_reason": "stop", "logprobs": logprobs}], "usage": {}}
    assert [each.token for each in token_logprobs(read_body(json.dumps(body).encode()).logprobs)] == expected


def test_a_probability_that_a_server_does_not_give_is_none() -> None:
    """DeepSeek writes -9999 for it."""
    entries = [{"token": "a", "logprob": 0.0, "top_logprobs": [{"token": "b", "logprob": -9999.0}]}]
    assert token_logprobs(entries) == [TokenLogprobs(b"a", 0.0, [])]


def test_an_answer_of_another_form_has_no_parts(project_params: Params) -> None:
    markers = load_params(project_params()).convert.markers
    assert parts_of("<think>\n\nA</think>\n\n<answer>\n\nB</answer>", markers) == Parts("A", "B")
    assert parts_of("B", markers) is None
