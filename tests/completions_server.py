"""A real server of the OpenAI protocol for the tests: it serves a student's folder, one token at a time, greedily.

/v1/models, /v1/completions (texts, and log-probabilities of an echoed prompt) and /v1/chat/completions.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Instead = Callable[[dict[str, Any], dict[str, Any]], "Sent | dict[str, Any] | None"]


@dataclass(frozen=True)
class Sent:
    """A raw answer: body, status, further headers. ``declared`` is a Content-Length that is not the body's."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    declared: int | None = None


class Completions(ThreadingHTTPServer):
    """``requests`` are the bodies that were asked, ``keys`` the Authorization headers, ``failing`` makes each a 500.

    ``instead(request, answer)``, where set, is given what would be answered, and says what is (None: that).
    """

    daemon_threads = True

    def __init__(self, student: Path, name: str, delay_s: float) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__(("127.0.0.1", 0), _Answers)
        self.tokenizer = AutoTokenizer.from_pretrained(student)
        self.model = AutoModelForCausalLM.from_pretrained(student)
        self.listed: dict[str, Any] = {"data": [{"id": name}]}
        self.delay_s = delay_s
        self.failing = False
        self.instead: Instead | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def generated(self, prompt: list[int], body: dict[str, Any]) -> tuple[str, str]:
        """A text, and why it ended."""
        import torch

        ids = torch.tensor([prompt])
        limit = body.get("max_tokens", 16)
        found = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
        tokens = found[0][len(prompt) :]
        ended = tokens[-1].item() == self.tokenizer.eos_token_id
        return self.tokenizer.decode(tokens, skip_special_tokens=True), "stop" if ended else "length"

    def echoed(self, prompt: list[int]) -> dict[str, Any]:
        """The log-probability of each token of the prompt, and of the one token that comes after."""
        import torch

        with torch.no_grad():
            scores = torch.log_softmax(self.model(torch.tensor([prompt])).logits[0], dim=-1)
        best = scores.max(dim=-1).values.tolist()
        own = [scores[place, token].item() for place, token in enumerate(prompt[1:])]
        top = [{"likeliest": each} for each in best]
        return {"token_logprobs": [None, *own, best[-1]], "top_logprobs": [None, *top]}


class _Answers(BaseHTTPRequestHandler):
    server: Completions

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        self.give(self.server.listed)

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.keys.append(self.headers["Authorization"])
        server.requests.append(body)
        time.sleep(server.delay_s)
        if server.failing:
            return self.send_error(500)
        with server.one_at_a_time:
            answer = {"choices": self.choices(body)}
            return self.give((server.instead and server.instead(body, answer)) or answer)

    def choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        if self.path.endswith("/chat/completions"):
            prompt = self.server.tokenizer.apply_chat_template(
                body["messages"], tokenize=True, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            text, reason = self.server.generated(prompt, body)
            return [{"index": 0, "message": {"content": text}, "finish_reason": reason}]
        return [self.completion(index, prompt, body) for index, prompt in enumerate(body["prompt"])]

    def completion(self, index: int, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        if body.get("echo"):
            return {"index": index, "text": "", "logprobs": self.server.echoed(prompt), "finish_reason": "length"}
        text, reason = self.server.generated(prompt, body)
        return {"index": index, "text": text, "finish_reason": reason}

    def give(self, answer: "Sent | dict[str, Any]") -> None:
        sent = answer if isinstance(answer, Sent) else Sent(json.dumps(answer).encode())
        self.send_response(sent.status)
        for name, value in sent.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent.body) if sent.declared is None else sent.declared))
        with suppress(ConnectionError):  # whoever asked may be gone
            self.end_headers()
            self.wfile.write(sent.body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(student: Path, name: str, delay_s: float = 0.0) -> Iterator[Completions]:
    """The student behind a server on this machine, under a name."""
    with Completions(student, name, delay_s) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
