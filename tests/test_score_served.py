"""A served teacher: the same numbers as a loaded one, checked against llama.cpp; and servers that give others.

llama.cpp's server ignores ``echo``, so a server here answers /v1/completions with the numbers that llama.cpp gives for
each beginning of the row: an implementation of its own, from the same weights, which keeps keys and values in f16.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from stages.lib.doctor import parity
from stages.lib.doctor.parity import TOLERANCE, distance
from stages.lib.logprobs.local import LocalScorer
from stages.lib.params import load_params
from stages.score import main as score
from tests.test_score import arguments
from tests.tiny_gguf import likeliest, serving, write_gguf

Params = Callable[..., Path]
Runs = Callable[..., Result]
Refuses = Callable[..., str]
Answer = Callable[[list[int]], dict[str, Any]]  # of a row's tokens: the ``logprobs`` of the echo
KEY = "sk-of-the-teacher"
TOP_K = 8


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("API_KEY", KEY)


@contextmanager
def echoing(answer: Answer) -> Iterator[str]:
    """The base_url of a server whose /v1/completions echoes the row with these probabilities."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, asked["echo"], asked["logprobs"]) == ("/v1/completions", True, TOP_K)
            assert self.headers["Authorization"] == f"Bearer {KEY}"
            body = json.dumps({"choices": [{"text": "", "index": 0, "logprobs": answer(asked["prompt"])}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def named(number: int) -> str:
    return f"token_id:{number}"


def echo(ids: list[int], tops: list[dict[int, float]]) -> dict[str, Any]:
    """As vLLM has it: nothing for the first token, and one token more than the row has."""
    more = [{named(number): value for number, value in top.items()} for top in tops]
    return {"tokens": [*map(named, ids), "token_id:0"], "top_logprobs": [None, *more]}


@pytest.fixture(scope="module")
def llama(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answer]:
    """What llama.cpp says of a row, place by place."""
    path = tmp_path_factory.mktemp("llama") / "teacher.gguf"
    write_gguf(tiny_teacher, path)
    with serving(path) as address:
        yield lambda ids: echo(ids, [likeliest(address, ids[: place + 1], TOP_K) for place in range(len(ids))])


def served(teacher: Path, url: str) -> dict[str, Any]:
    source = {"kind": "path", "name": str(teacher)}
    return {
        "score": {"kind": "teacher", "teacher": source, "served": {"base_url": url, "model": "tiny"}, "top_k": TOP_K}
        | {"dtype": "float32"},
        "arms.filtered.alpha": 0.5,
    }


def test_a_served_teacher_gives_what_a_loaded_one_gives(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, llama: Answer, runs: Runs
) -> None:
    """The stage with a server of llama.cpp's numbers and with the same weights in this process."""
    found = []
    with echoing(llama) as url:
        for changes in (served(tiny_teacher, url), served(tiny_teacher, url) | {"score.served": None}):
            runs(score, *arguments(tmp_path, tiny_params(changes)))
            found.append(pq.read_table(tmp_path / "s.parquet").to_pylist())
    for one, other in zip(*found, strict=True):
        assert (one["tokens_hash"], one["positions"]) == (other["tokens_hash"], other["positions"])
        values = [dict(zip(each["top_ids"][0], each["top_logprobs"][0], strict=True)) for each in (one, other)]
        common = values[0].keys() & values[1].keys()
        assert len(common) >= TOP_K - 1
        assert max(abs(values[0][token] - values[1][token]) for token in common) < 0.01  # measured: 0.004


def test_the_doctor_compares_both(tiny_params: Params, tiny_teacher: Path, llama: Answer) -> None:
    with echoing(llama) as url:
        params = load_params(tiny_params(served(tiny_teacher, url)))
        (found,) = parity.served_teacher(params)
    assert found.state == "ok", found
    assert "(at most 0.001 for float32)" in found.found


def local_answer(teacher: Path, change: Callable[[Any], Any] = lambda logits: logits) -> Answer:
    """The teacher's own numbers, changed as a wrong server changes them."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher)

    def answer(ids: list[int]) -> dict[str, Any]:
        with torch.no_grad():
            best = change(model(torch.tensor([ids])).logits[0]).log_softmax(-1).topk(TOP_K)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return echo(ids, [dict(zip(*pair, strict=True)) for pair in pairs])

    return answer


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits.roll(1, 0), lambda logits: logits.roll(-1, 0), lambda logits: logits / 0.9],
    ids=["one place late", "one place early", "after temperature 0.9"],
)
def test_the_doctor_finds_a_server_that_measures_something_else(
    tiny_params: Params, tiny_teacher: Path, change: Callable[[Any], Any]
) -> None:
    with echoing(local_answer(tiny_teacher, change)) as url:
        (found,) = parity.served_teacher(load_params(tiny_params(served(tiny_teacher, url))))
    assert found.state == "fail", found
    assert "docs/logprobs.md" in found.fix


def test_the_doctor_says_what_it_cannot_compare(tiny_params: Params, tmp_path: Path) -> None:
    assert not list(parity.served_teacher(load_params(tiny_params())))
    (found,) = parity.served_teacher(load_params(tiny_params(served(tmp_path / "nowhere", "http://127.0.0.1:9/v1"))))
    assert (found.state, found.found) == (
        "warn",
        "the served teacher is not compared: its weights are not on this machine",
    )


def test_the_distance_is_half_the_sum_of_the_differences(tiny_teacher: Path) -> None:
    scorer = LocalScorer(tiny_teacher, TOP_K, "float32", "cpu", 1)
    one = scorer.score([5, 6, 7, 8], [1, 2, 3])
    assert distance(one, one).largest == 0
    other = type(one)(one.positions, one.ids, np.log(np.exp(one.logprobs) * np.float32(0.9)))
    apart = distance(one, other)
    assert apart.mean == pytest.approx(0.1 * np.exp(one.logprobs).sum(axis=1).mean(), rel=1e-3)
    assert apart.mean > TOLERANCE["float32"]


def without_echo(ids: list[int]) -> dict[str, Any]:
    """llama.cpp's answer: it ignores echo, and has the generated token alone, in the chat protocol's form."""
    return {"content": [{"id": 284, "token": " and", "bytes": [32, 97], "logprob": -4.4, "top_logprobs": []}]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (without_echo, "probabilities of 0 tokens for a row of"),
        (lambda ids: None, "the server does not support echo"),
        (lambda ids: echo([1, *ids], [{0: -0.1}] * (len(ids) + 1)), "is 'token_id:1' instead of"),
        (lambda ids: echo(ids, [{}] * len(ids)), "a place without likeliest tokens"),
    ],
    ids=["llama.cpp", "none", "a token added", "none asked for"],
)
def test_an_answer_that_is_not_the_row_is_one_line(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, refuses: Refuses, answer: Answer, expected: str
) -> None:
    with echoing(answer) as url:
        said = refuses(score, *arguments(tmp_path, tiny_params(served(tiny_teacher, url))))
    assert said.startswith(f"{url}/completions: ")
    assert expected in said
    assert KEY not in said


def test_texts_of_tokens_are_found_where_a_server_has_no_ids(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, runs: Runs
) -> None:
    """A text that several tokens have, such as half a character, is left out; the row still has its others."""
    from transformers import AutoTokenizer

    tokenizer, own = AutoTokenizer.from_pretrained(tiny_teacher), local_answer(tiny_teacher)

    def in_words(ids: list[int]) -> dict[str, Any]:
        found = own(ids)
        text = {named(number): tokenizer.decode([number]) for number in range(len(tokenizer))}
        tops = [top and {text[name]: value for name, value in top.items()} for top in found["top_logprobs"]]
        return {"tokens": [text[name] for name in found["tokens"]], "top_logprobs": tops}

    with echoing(in_words) as url:
        runs(score, *arguments(tmp_path, tiny_params(served(tiny_teacher, url))))
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    known = [number for row in rows for top in row["top_ids"] for number in top if number >= 0]
    assert known
    assert not [number for number in known if "\ufffd" in tokenizer.decode([number])]


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, refuses: Refuses
) -> None:
    changes = served(tiny_teacher, "http://127.0.0.1:9/v1") | {"run.max_attempts": 1}
    assert "http://127.0.0.1:9/v1/completions: Connection error." in refuses(
        score, *arguments(tmp_path, tiny_params(changes))
    )
