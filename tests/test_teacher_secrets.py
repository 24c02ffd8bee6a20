"""The key: it goes to the server in the header that is meant for it, and to no file and no line otherwise."""

import pytest
from aiohttp import web

from tests.distill_runner import KEY, DistillRunner, Serve, completion, question


@pytest.mark.heavy
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_key_is_nowhere_after_a_run_with_faults(runner: DistillRunner, serve: Serve, stream: bool) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        sent = request.headers["Authorization"]
        statuses = {"11 +": 400, "12 +": 429, "13 +": 500, "14 +": 503}
        for start, status in statuses.items():
            if start in content:
                return web.json_response({"error": {"message": f"{sent} may not"}}, status=status)
        if "15 +" in content:
            return web.Response(text=f"<html>{sent}", content_type="text/html")
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(stream=stream, max_failed_share=0.9)
    runner.ask(*(question(number) for number in range(20)))
    with runner.start() as stage:
        said = "".join(stage.communicate(timeout=60))
    assert stage.returncode == 0, said
    assert {row["reason"] for row in runner.failures()} == {"refused", "http_429", "http_500", "http_503", "not_json"}
    runner.set(max_failed_share=0.0)
    with runner.start("failed") as stage:
        said += "".join(stage.communicate(timeout=60))
    assert stage.returncode == 1
    server.close()
    runner.ask(question(30))
    with runner.start("unreachable") as stage:
        said += "".join(stage.communicate(timeout=60))
    assert "no server has answered for " in said
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in said
    files = [path for path in runner.folder.rglob("*") if path.is_file()]
    assert {"answers.jsonl", "distill_failures.jsonl", "metrics.json", "distill.json"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
