"""Single calls beside other processes and open batches: nothing is bought twice, and the event loop goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stages.lib.command import Interrupted
from stages.lib.params import Run, ServedTeacher, load_params
from stages.lib.replies.reading import read_body
from stages.lib.store.answer_store import GROUP_S, AnswerStore, open_store, request_key
from stages.lib.teacher.asking import AskResult, Respondent, _Asking, ask_missing, chat_request, make_plan
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.batches.journal import Batch, Item, Journal, OpenBatches
from stages.lib.teacher.spending import Spending
from tests.distill_runner import ROOT

ADDRESS = "http://127.0.0.1:9/v1"  # no server is there
TEACHER = ServedTeacher(
    kind="openai_compatible",
    base_url=ADDRESS,
    model="m",
    temperature=None,
    top_p=None,
    max_tokens=100,
    extra_body={},
)
RESPONDENT = Respondent("distill", "distill.teacher", TEACHER, "teacher")
BODY = b'{"choices": [{"message": {"role": "assistant", "content": "<think>a</think>b"}, "finish_reason": "stop"}]}'


def requests(count: int) -> list[dict[str, Any]]:
    return [chat_request(ADDRESS, TEACHER, f"question {number}", 0) for number in range(count)]


def add_batch(store: AnswerStore, asked: list[dict[str, Any]], token: str = "t0") -> Batch:
    batch = Batch(
        token=token,
        stage="distill",
        section="distill.teacher",
        endpoint=ADDRESS,
        key_variable="API_KEY",
        model="m",
        created=int(time.time()),
        requests=len(asked),
        prompt_tokens=1,
    )
    Journal(store.path).add(batch, [Item(request_key(request), request) for request in asked])
    return batch


@pytest.fixture
def run(project_params: Callable[..., Path]) -> Run:
    return load_params(project_params({})).run


def asking(store: AnswerStore, run: Run, asked: list[dict[str, Any]]) -> _Asking:
    plan = make_plan(lambda: asked, store, None)
    return _Asking(RESPONDENT, run, store, Spending(None, None, 0.0, None, 100), plan, AskResult())


def elsewhere(path: Path, script: str, *arguments: str) -> str:
    """What a script prints in another process, to which ``store`` is open."""
    begins = """
        import asyncio, sys
        from pathlib import Path
        from stages.lib.store.answer_store import open_store
        from stages.lib.teacher.batches.journal import Journal
        with open_store(Path(sys.argv[1])) as store:
    """
    text = textwrap.dedent(begins) + textwrap.indent(textwrap.dedent(script), "    ")
    command = [sys.executable, "-c", text, str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("after_s", [0.1 * GROUP_S, 3 * GROUP_S], ids=["waits for its group", "its group waits"])
def test_an_answer_that_is_not_written_yet_keeps_its_claim(tmp_path: Path, run: Run, after_s: float) -> None:
    path = tmp_path / "answers.jsonl"
    (request,) = asked = requests(1)
    key = request_key(request)

    async def cancelled(store: AnswerStore) -> None:
        one = asking(store, run, asked)
        assert store.claim(key)
        one._spending.begin(key, request)
        one._names_servers = False
        await one._unwritten.acquire()
        with store._writing:  # as while the group before is being written
            keeping = asyncio.create_task(one._keep(key, request, BODY, read_body(BODY), Endpoint(ADDRESS, "API_KEY")))
            await asyncio.sleep(after_s)
            keeping.cancel()
            await asyncio.wait([keeping])
            assert path.read_bytes() == b""
            assert elsewhere(path, "print(store.claim(sys.argv[2]))", key) == "False"

    with open_store(path) as store:
        asyncio.run(cancelled(store))
    assert elsewhere(path, "print(sys.argv[2] in store)", key) == "True"


def test_an_answer_whose_batch_ends_during_the_claim_is_not_bought_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    (request,) = asked = requests(1)
    key = request_key(request)

    class EndsNow(OpenBatches):
        def __contains__(self, key: str) -> bool:
            script = """
                journal = Journal(store.path)
                (batch,) = journal.batches()
                for item in journal.items(batch):
                    asyncio.run(store.put(item.key, item.request, b"{}"))
                journal.close(batch)
            """
            elsewhere(path, script)
            return super().__contains__(key)

    with open_store(path) as store:
        add_batch(store, asked)
        assert not store.claim(key, EndsNow(store).__contains__)
        assert key in store


@contextmanager
def working_on_batches(path: Path) -> Iterator[None]:
    """Another process works on all open batches."""
    script = """
        import sys
        from pathlib import Path
        from stages.lib.store.answer_store import open_store
        from stages.lib.teacher.batches.journal import Journal
        with open_store(Path(sys.argv[1])) as store:
            assert all(store.claim(batch.claim_key) for batch in Journal(store.path).batches())
            print("done", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        yield
        process.kill()


@pytest.mark.parametrize("budget", [None, 1e9], ids=["no budget", "budget"])
def test_waiting_for_batches_looks_at_their_folder_once_a_pass(
    budget: float | None, tmp_path: Path, project_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    price = {"input": 1.0, "cached_input": 1.0, "output": 1.0}
    served = {"distill.teacher.kind": "openai_compatible", "distill.teacher.base_url": ADDRESS}
    key = {"run.api_key_variables.teacher": "API_KEY"}
    changes = served | key | {"run.budget": budget, "run.prices.models": {"m": price}}
    run = load_params(project_params(changes)).run
    monkeypatch.setenv("API_KEY", "none")
    path, asked = tmp_path / "answers.jsonl", requests(400)
    with open_store(path) as store:
        for number in range(4):
            add_batch(store, asked[100 * number : 100 * (number + 1)], f"t{number}")
    folder, looks, real = path.with_suffix(".batches"), 0, os.scandir

    def counted_scandir(*where: Any) -> Any:
        nonlocal looks
        looks += where == (folder,)
        return real(*where)

    with working_on_batches(path), open_store(path) as store:
        monkeypatch.setattr(os, "scandir", counted_scandir)
        ctrl_c = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
        ctrl_c.start()
        try:
            with pytest.raises(Interrupted):
                ask_missing(RESPONDENT, lambda: asked, run, store, AskResult())
        finally:
            ctrl_c.cancel()
    assert 0 < looks < 100, "for 400 requests in 4 batches, five times a second"
