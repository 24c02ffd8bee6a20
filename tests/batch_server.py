"""A real server of the batch protocol, as OpenAI and DashScope have it, with faults that a test chooses.

/v1/files, /v1/files/ID/content, /v1/batches, /v1/batches/ID, /v1/batches/ID/cancel, and /v1/chat/completions.

server.reply = lambda content, attempt: (429, {"error": …})    # what a request gets; attempts count over all batches
server.answer_share = 0.5; server.ending = "expired"           # how a batch ends, and how many answers it has by then
server.looks = 5                                               # it ends when it was looked at so often
server.on["create"] = hook                                     # ``async def hook(request, respond)`` in its place
server.mangle = lambda lines: lines[:-1] + [b'{"custom']       # the lines of the output file
"""

import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.distill_runner import Server, completion

Respond = Callable[[], Awaitable[web.StreamResponse]]
Hook = Callable[[web.Request, Respond], Awaitable[web.StreamResponse]]
Reply = tuple[int, Any]
BATCH = {
    "completion_window": "24h",
    "price_factor": 0.5,
    "max_requests": 50000,
    "max_mb": 200,
    "enqueued_tokens": None,
    "poll_s": 0.01,
}
CODES = {"expired": "batch_expired", "cancelled": "batch_cancelled"}


def answer_to(content: str) -> dict[str, Any]:
    """The completion of a question: the same whether it is asked singly or in a batch."""
    message = {"role": "assistant", "reasoning_content": f"On {content[-30:]}: ü", "content": "The answer is 2."}
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "model": "served-model", "choices": [choice], "usage": usage}


def error(message: str, code: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, **more}}


async def single(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return web.json_response(answer_to(content))


class BatchServer(Server):
    """``submitted`` has the lines of each batch, ``executed`` the custom ids in the order of their execution."""

    def __init__(self) -> None:
        self.reply: Callable[[str, int], Reply] = lambda content, attempt: (200, answer_to(content))
        self.mangle: Callable[[list[bytes]], list[bytes]] = list
        self.on: dict[str, Hook] = {}
        self.looks = 2
        self.answer_share = 1.0
        self.ending = "completed"
        self.endings: list[str] = []  # of the first batches; then ``ending``
        self.refuses: Callable[[list[dict[str, Any]]], dict[str, Any] | None] = lambda lines: None
        self.files: dict[str, bytes] = {}
        self.names: list[str] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.submitted: list[list[dict[str, Any]]] = []
        self.executed: list[str] = []
        self.calls: list[str] = []
        self.held = False  # no batch ends
        super().__init__(single)

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        super()._add_routes(router)
        router.add_post("/v1/files", self._hooked("upload", self._upload))
        router.add_get("/v1/files/{id}/content", self._hooked("content", self._content))
        router.add_post("/v1/batches", self._hooked("create", self._create))
        router.add_get("/v1/batches", self._hooked("list", self._list))
        router.add_get("/v1/batches/{id}", self._hooked("look", self._look))
        router.add_post("/v1/batches/{id}/cancel", self._hooked("cancel", self._cancel))

    def _hooked(self, name: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls.append(name)
            self.keys.add(request.headers.get("Authorization", ""))
            hook = self.on.get(name)
            return await (hook(request, lambda: handler(request)) if hook else handler(request))

        return handle

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if form.get("purpose") != "batch":
            return web.json_response(error("invalid purpose"), status=400)
        file = form["file"]
        assert isinstance(file, web.FileField)
        name = f"file-{len(self.names)}"
        self.names.append(file.filename)
        self.files[name] = file.file.read()
        size = len(self.files[name])
        value = {"id": name, "object": "file", "bytes": size, "created_at": int(time.time()), "filename": file.filename}
        return web.json_response(value | {"purpose": "batch", "status": "processed"})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["input_file_id"] not in self.files or body["endpoint"] != "/v1/chat/completions":
            return web.json_response(error("invalid file or endpoint", "invalid_request_error"), status=400)
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        name = f"batch_{len(self.batches)}"
        empty = dict.fromkeys(("output_file_id", "error_file_id", "errors", "in_progress_at", "completed_at"))
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        self.batches[name] = body | empty | {"id": name, "object": "batch", "status": "validating", "looks": 0}
        self.batches[name] |= {"created_at": int(time.time()), "request_counts": counts}
        self.submitted.append(lines)
        if refused := self.refuses(lines):
            self.batches[name] |= {"status": "failed", "errors": {"object": "list", "data": [refused]}}
        return self._shown(name)

    def _shown(self, name: str) -> web.Response:
        return web.json_response({key: value for key, value in self.batches[name].items() if key != "looks"})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        names = list(self.batches)[::-1]
        first = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = names[first : first + min(int(request.query.get("limit", 20)), 2)]  # small pages, so that there are some
        data = [{key: value for key, value in self.batches[name].items() if key != "looks"} for name in page]
        return web.json_response({"object": "list", "data": data, "has_more": names[-1:] != page[-1:]})

    async def _look(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        if name not in self.batches:
            return web.json_response(error(f"no batch {name}"), status=404)
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["status"] in ("validating", "in_progress", "cancelling"):
            batch["status"] = "in_progress" if batch["status"] != "cancelling" else "cancelling"
            if batch["status"] == "cancelling":
                self._end(name, "cancelled")
            elif not self.held and batch["looks"] >= self.looks:
                self._end(name, self.endings.pop(0) if self.endings else self.ending)
        return self._shown(name)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        self.batches[request.match_info["id"]]["status"] = "cancelling"
        return self._shown(request.match_info["id"])

    def _end(self, name: str, status: str) -> None:
        batch = self.batches[name]
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        executed = math.ceil(len(lines) * (self.answer_share if status != "completed" else 1.0))
        output: list[Any] = []
        errors: list[Any] = []
        for number, line in enumerate(lines):
            key = {"id": f"batch_req_{number}", "custom_id": line["custom_id"]}
            if number < executed:
                self.executed.append(line["custom_id"])
                content = line["body"]["messages"][-1]["content"]
                self.asked.append(content)
                code, body = self.reply(content, self.asked.count(content))
                done = {"response": {"status_code": code, "request_id": "r", "body": body}, "error": None}
                (output if code == 200 else errors).append(key | done)
            else:
                reason = {"code": CODES[status], "message": "This request could not be executed in time."}
                errors.append(key | {"response": None, "error": reason})
        for field, rows in (("output_file_id", output), ("error_file_id", errors)):
            if rows:
                text = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in reversed(rows)]
                batch[field] = f"file-{name}-{field}"
                self.files[batch[field]] = b"".join(self.mangle(text) if field == "output_file_id" else text)
        batch["status"] = status
        batch["request_counts"] = {"total": len(lines), "completed": len(output), "failed": len(errors)}

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.files[request.match_info["id"]], content_type="application/octet-stream")


async def lost(request: web.Request, respond: Respond) -> web.StreamResponse:
    """Carry the call out, then break the connection before the reply."""
    await respond()
    assert request.transport
    request.transport.abort()
    return completion()
