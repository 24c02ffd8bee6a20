"""A real server of the OpenAI protocol for the tests: it serves a student's folder, one token at a time, greedily.

/v1/models, /v1/completions (texts, and log-probabilities of an echoed prompt) and /v1/chat/completions.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Completions(ThreadingHTTPServer):
    """``requests`` are the bodies that were asked, ``keys`` the Authorization headers, ``failing`` makes each a 500."""

    daemon_threads = True

    def __init__(self, student: Path, name: str, delay_s: float) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__(("127.0.0.1", 0), _Answers)
        self.tokenizer = AutoTokenizer.from_pretrained(student)
        self.model = AutoModelForCausalLM.from_pretrained(student)
        self.name = name
        self.delay_s = delay_s
        self.failing = False
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def text(self, prompt: list[int], body: dict[str, Any]) -> str:
        import torch

        ids = torch.tensor([prompt])
        limit = body.get("max_tokens", 16)
        found = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
        text: str = self.tokenizer.decode(found[0][len(prompt) :], skip_special_tokens=True)
        return text

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
        self.give({"data": [{"id": self.server.name}]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.keys.append(self.headers["Authorization"])
        server.requests.append(body)
        time.sleep(server.delay_s)
        if server.failing:
            return self.send_error(500)
        with server.one_at_a_time:
            return self.give({"choices": [self.choice(body)]})

    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.path.endswith("/chat/completions"):
            prompt = self.server.tokenizer.apply_chat_template(
                body["messages"], tokenize=True, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            return {"index": 0, "message": {"content": self.server.text(prompt, body)}}
        prompt = body["prompt"][0]
        if body.get("echo"):
            return {"index": 0, "text": "", "logprobs": self.server.echoed(prompt)}
        return {"index": 0, "text": self.server.text(prompt, body)}

    def give(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(student: Path, name: str, delay_s: float = 0.0) -> Iterator[Completions]:
    """The student behind a server on this machine, under a name."""
    with Completions(student, name, delay_s) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
