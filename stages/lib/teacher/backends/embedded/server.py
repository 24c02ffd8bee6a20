"""The embedded teacher as a process of its own: an OpenAI-compatible server on 127.0.0.1 that solves sums.

    python -m stages.lib.teacher.backends.embedded.server --port 8000 --slip-share 0.3 --seed 3 --latency-s 0.05 \\
        --faults '{"rate_limit": 0.1, "reset": 0.05}'

Asked with the strict teacher's marking prompt it marks instead (judge.py), with a pairwise one it prefers one of two
answers (preference.py). It streams where it is asked to.
It prints its port when it listens and ends when its standard input is closed, so it never outlives who started it.
``--requests FILE`` appends the body of every request that it was sent.
"""

import asyncio
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stages.lib.command import DistilleryError, one_line_errors
from stages.lib.params import Fault, Share
from stages.lib.teacher.backends.embedded import grader, judge, preference, protocol
from stages.lib.teacher.backends.embedded.faults import Faults, damaged, shaped
from stages.lib.teacher.backends.embedded.protocol import Reply
from stages.lib.teacher.backends.embedded.solver import Worked, solve

NO_LINGER = struct.pack("ii", 1, 0)  # closing such a socket resets the connection
HANG_S = 86_400.0
ARRIVE_S = 0.05  # what was sent before a connection breaks is to be read by then


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    role: str
    content: str


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)

    include_usage: bool = False


class _ChatRequest(BaseModel):
    """What is read of a request; the rest of the protocol is accepted and changes nothing."""

    model_config = ConfigDict(strict=True)

    messages: list[_Message]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0  # another seed: another sample of the answer
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@dataclass
class ChatServer:
    """The routes of the protocol and their answers."""

    model: str
    slip_share: float
    seed: int
    latency_s: float
    faults: Faults
    requests: Path | None

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

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """Answer the last user message, with the fault that is meant for it."""
        text = await request.read()
        if self.requests:
            with self.requests.open("ab") as file:
                file.write(text.replace(b"\n", b" ") + b"\n")  # JSON escapes the line ends that mean something
        await asyncio.sleep(self.latency_s)
        return await send(request, self.reply(text))

    def reply(self, text: bytes) -> Reply:
        """What is sent for the body of a request."""
        try:
            body = _ChatRequest.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            message = f"the body is no chat request: {first['loc']}: {first['msg']}"
            return protocol.error(400, "invalid_request_error", message)
        questions = [message.content for message in body.messages if message.role == "user"]
        if not questions:
            return protocol.error(400, "invalid_request_error", "there is no message of role 'user'")
        if body.model != self.model:
            message = f"there is no model {body.model!r} here, only {self.model!r}"
            return protocol.error(404, "model_not_found", message)
        return self.answer(questions[-1], body)

    def answer(self, question: str, body: _ChatRequest) -> Reply:
        """The reply to a question that can be answered."""
        fault = self.faults.for_attempt(question)
        worked = protocol.cut(shaped(self.work(question, body.seed), fault), body.max_tokens or sys.maxsize)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            reply = protocol.streamed(self.model, question, worked, with_usage)
        else:
            reply = protocol.whole(self.model, question, worked)
        return damaged(reply, fault, question)

    def work(self, question: str, sample: int) -> Worked:
        """Mark what is to be marked, work out what is to be worked out."""
        if material := judge.material(question):
            return judge.mark(*material, self.slip_share, self.seed)
        if rubric := grader.material(question):
            return grader.grade(rubric, self.slip_share, self.seed)
        if compared := preference.answers(question):
            return preference.prefer(*compared, self.slip_share, self.seed)
        return solve(question, self.slip_share, self.seed, sample)


async def send(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Write a reply piece by piece, and leave the connection as it says."""
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = reply.content_type
    response.content_length = reply.length
    if reply.pieces or reply.ending == "whole":
        await response.prepare(request)
    for piece in reply.pieces:
        await asyncio.sleep(reply.pause_s)
        await response.write(piece)
    if reply.ending == "whole":
        await response.write_eof()
    else:
        await asyncio.sleep(HANG_S if reply.ending == "hang" else ARRIVE_S)
        break_off(request, reset=reply.ending == "reset")
    return response


def break_off(request: web.Request, reset: bool) -> None:
    """Close the connection before the answer is whole, by a reset where that is asked for."""
    transport = request.transport
    if transport and reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.abort()
    elif transport:
        transport.close()


async def serve(server: ChatServer, port: int) -> None:
    """Listen, say where, and run until standard input is closed."""
    # whoever closed standard input waits for no answer any more; 0 would mean no limit
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        raise DistilleryError(
            f"127.0.0.1:{port}: the embedded teacher cannot listen there ({error.strerror}). "
            "Set run.embedded.port to 0 for any free port."
        ) from error
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def read_shares(context: click.Context, option: click.Parameter, text: str) -> dict[Fault, float]:
    """``{"rate_limit": 0.1}``, checked as params.yaml is."""
    try:
        return TypeAdapter(dict[Fault, Share]).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@click.command(help="Serve the embedded teacher on 127.0.0.1 until standard input is closed.")
@click.option("--port", type=int, default=0, show_default=True, help="0: any free port; it is printed.")
@click.option("--model", default="chain-sum-solver", show_default=True)
@click.option("--slip-share", type=float, default=0.0, show_default=True, help="Share of questions slipped on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which questions are slipped on.")
@click.option("--latency-s", type=float, default=0.0, show_default=True, help="Seconds that an answer takes.")
@click.option("--faults", default="{}", show_default=True, callback=read_shares, help="Shares of faults, as JSON.")
@click.option("--requests", type=click.Path(path_type=Path), help="A file to append each request's body to.")
@one_line_errors
def main(
    port: int,
    model: str,
    slip_share: float,
    seed: int,
    latency_s: float,
    faults: dict[Fault, float],
    requests: Path | None,
) -> None:
    asyncio.run(serve(ChatServer(model, slip_share, seed, latency_s, Faults(faults, seed), requests), port))


if __name__ == "__main__":
    main()
