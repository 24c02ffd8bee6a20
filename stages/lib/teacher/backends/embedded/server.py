"""The embedded teacher as a process of its own: an OpenAI-compatible server on 127.0.0.1 that solves sums.

    python -m stages.lib.teacher.backends.embedded.server --port 8000 --slip-share 0.3 --seed 3 --latency-s 0.05

It prints its port when it listens and ends when its standard input is closed, so it never outlives who started it.
``--requests FILE`` appends the body of every request that it was sent.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.command import DistilleryError, one_line_errors
from stages.lib.teacher.backends.embedded.solver import solve


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    role: str
    content: str


class _ChatRequest(BaseModel):
    """What is read of a request; the rest of the protocol is accepted and changes nothing."""

    model_config = ConfigDict(strict=True)

    messages: list[_Message]
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None


class Classroom:
    """The routes of the protocol."""

    def __init__(self, model: str, slip_share: float, seed: int, latency_s: float, requests: Path | None) -> None:
        self.model = model
        self.slip_share = slip_share
        self.seed = seed
        self.latency_s = latency_s
        self.requests = requests

    def application(self) -> web.Application:
        """The server's routes: /v1/models and /v1/chat/completions."""
        application = web.Application(client_max_size=2**26)
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/chat/completions", self.chat_completions)
        return application

    async def models(self, request: web.Request) -> web.Response:
        """The one model there is."""
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "distillery"}
        return web.json_response({"object": "list", "data": [model]})

    async def chat_completions(self, request: web.Request) -> web.Response:
        """Work out the sum in the last user message."""
        text = await request.read()
        if self.requests:
            with self.requests.open("ab") as file:
                file.write(text.replace(b"\n", b" ") + b"\n")  # JSON escapes the line ends that mean something
        await asyncio.sleep(self.latency_s)
        try:
            body = _ChatRequest.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            return _error(400, "invalid_request_error", f"the body is no chat request: {first['loc']}: {first['msg']}")
        questions = [message.content for message in body.messages if message.role == "user"]
        if not questions:
            return _error(400, "invalid_request_error", "there is no message of role 'user'")
        if body.model != self.model:
            return _error(404, "model_not_found", f"there is no model {body.model!r} here, only {self.model!r}")
        if body.stream:
            return _error(400, "unsupported", "this teacher does not stream")
        return web.json_response(self._completion(questions[-1], body.max_tokens))

    def _completion(self, question: str, max_tokens: int | None) -> dict[str, Any]:
        worked = solve(question, self.slip_share, self.seed)
        # a word counts as a token: the reasoning is spent first, as by a reasoning model
        reasoning, response = worked.reasoning.split(" "), worked.response.split(" ")
        limit = max_tokens or sys.maxsize
        cut = len(reasoning) + len(response) > limit
        reasoning = reasoning[:limit]
        response = response[: limit - len(reasoning)]
        message = {
            "role": "assistant",
            "reasoning_content": " ".join(reasoning),
            "content": " ".join(response),
        }
        return {
            "id": "chatcmpl-embedded",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}],
            "usage": {
                "prompt_tokens": len(question.split()),
                "completion_tokens": len(reasoning) + len(response),
                "total_tokens": len(question.split()) + len(reasoning) + len(response),
                "completion_tokens_details": {"reasoning_tokens": len(reasoning)},
            },
        }


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": code, "code": code}}, status=status)


async def serve(classroom: Classroom, port: int) -> None:
    """Listen, say where, and go on until standard input is closed."""
    # whoever closed standard input waits for no answer any more; 0 would mean no limit
    runner = web.AppRunner(classroom.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        raise DistilleryError(
            f"127.0.0.1:{port}: the embedded teacher cannot listen there ({error.strerror}). "
            "Set run.embedded_port to 0 for any free port."
        ) from error
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@click.command(help="Serve the embedded teacher on 127.0.0.1 until standard input is closed.")
@click.option("--port", type=int, default=0, show_default=True, help="0: any free port; it is printed.")
@click.option("--model", default="chain-sum-solver", show_default=True)
@click.option("--slip-share", type=float, default=0.0, show_default=True, help="Share of questions slipped on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which questions are slipped on.")
@click.option("--latency-s", type=float, default=0.0, show_default=True, help="Seconds that an answer takes.")
@click.option("--requests", type=click.Path(path_type=Path), help="A file to append each request's body to.")
@one_line_errors
def main(port: int, model: str, slip_share: float, seed: int, latency_s: float, requests: Path | None) -> None:
    asyncio.run(serve(Classroom(model, slip_share, seed, latency_s, requests), port))


if __name__ == "__main__":
    main()
