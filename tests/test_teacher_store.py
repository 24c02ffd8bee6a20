"""The store of received answers: what it was given it has for good, whatever ends the process that gave it."""

import asyncio
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stages.lib.teacher.store import AnswerStore, StoreError, default_path, open_store, request_key

ROOT = Path(__file__).resolve().parents[1]
REQUEST = {
    "endpoint": "http://127.0.0.1/v1",
    "model": "m",
    "messages": [{"role": "user", "content": "1 + 1"}],
    "temperature": 0.5,
    "sample": 0,
}


def asking(number: int) -> dict[str, Any]:
    return REQUEST | {"sample": number}


def key_of(number: int) -> str:
    return request_key(asking(number))


async def put(store: AnswerStore, number: int, body: bytes | None = None) -> None:
    await store.put(key_of(number), asking(number), f'{{"n": {number}}}'.encode() if body is None else body)


def fill(path: Path, numbers: range, size: int = 0) -> None:
    """A store with an answer to each number."""

    async def work(store: AnswerStore) -> None:
        await asyncio.gather(*(put(store, number, f"{number}{'x' * size}".encode()) for number in numbers))

    with open_store(path) as store:
        asyncio.run(work(store))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().removesuffix(b"\n").split(b"\n")


def with_store(path: Path, work: Callable[[AnswerStore], Awaitable[None]]) -> None:
    async def main() -> None:
        with open_store(path) as store:
            await work(store)

    asyncio.run(main())


def test_what_was_put_is_there_at_once_and_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "there" / "answers.jsonl"
    with open_store(path) as store:
        assert key_of(0) not in store
        assert len(store) == 0
        asyncio.run(put(store, 0, b'{"a": 1}'))
        assert key_of(0) in store
        assert store.body(key_of(0)) == b'{"a": 1}'
    with open_store(path) as store:
        assert len(store) == 1
        assert store.body(key_of(0)) == b'{"a": 1}'
        assert key_of(1) not in store


@pytest.mark.parametrize(
    "body",
    ["{}", "", "\n\n {} \r\n", "\u2028\u2029\x85\x0b", "🙂" * 1000, '"\\u0000\\ud83d"', "x" * 2_000_000, '\\"{key}%s'],
    ids=["object", "empty", "line ends", "unicode line ends", "emoji", "escapes", "2 MB", "quotes"],
)
def test_a_body_comes_back_to_the_byte(tmp_path: Path, body: str) -> None:
    with open_store(tmp_path / "answers.jsonl") as store:
        asyncio.run(put(store, 0, body.encode()))
        asyncio.run(put(store, 1))
    with open_store(tmp_path / "answers.jsonl") as store:
        assert store.body(key_of(0)) == body.encode()
        assert store.body(key_of(1)) == b'{"n": 1}'
    assert len(lines(tmp_path / "answers.jsonl")) == 2


def test_a_record_holds_all_that_was_asked(tmp_path: Path) -> None:
    fill(tmp_path / "answers.jsonl", range(1))
    record = json.loads((tmp_path / "answers.jsonl").read_bytes())
    assert record == {"key": key_of(0), "request": asking(0), "body": "0"}


def test_reading_and_writing_by_turns_disturb_each_other_in_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    bodies = [rng.randbytes(rng.randint(0, 9000)).hex().encode() for _ in range(60)]

    async def work(store: AnswerStore) -> None:
        for number, body in enumerate(bodies):
            await put(store, number, body)
            earlier = rng.randint(0, number)
            assert store.body(key_of(earlier)) == bodies[earlier]

    with_store(tmp_path / "answers.jsonl", work)


def test_many_answers_at_once_all_arrive_and_share_their_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fsync

    def counted_fsync(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted_fsync)
    fill(tmp_path / "answers.jsonl", range(500))
    assert 0 < syncs < 100
    with open_store(tmp_path / "answers.jsonl") as store:
        assert [store.body(key_of(number)) for number in range(500)] == [str(n).encode() for n in range(500)]


def test_a_put_returns_only_after_a_sync_that_began_with_its_record_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    safe = 0  # so many bytes were in the file when a sync began that has ended by now
    real = os.fsync

    def slow_fsync(descriptor: int) -> None:
        nonlocal safe
        size = os.fstat(descriptor).st_size
        time.sleep(rng.uniform(0, 0.01))
        real(descriptor)
        safe = max(safe, size)

    rng = random.Random(6)
    monkeypatch.setattr(os, "fsync", slow_fsync)

    async def one(store: AnswerStore, number: int) -> None:
        await asyncio.sleep(rng.uniform(0, 0.2))
        await put(store, number)
        written = path.read_bytes()[:safe]
        assert f'"{key_of(number)}"'.encode() in written
        assert written.endswith(b"\n")

    async def work(store: AnswerStore) -> None:
        await asyncio.gather(*(one(store, number) for number in range(200)))

    with_store(path, work)
    assert len(lines(path)) == 200


def test_what_a_killed_process_was_told_is_stored_is_stored(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from tests.test_teacher_store import open_store, put
        async def one(store, first):
            for number in range(first, 10**9, 8):
                await put(store, number, b"x" * 3000)
                print(number, flush=True)
        async def main():
            with open_store(__import__("pathlib").Path(sys.argv[1])) as store:
                await asyncio.gather(*(one(store, first) for first in range(8)))
        asyncio.run(main())
    """)
    path = tmp_path / "answers.jsonl"
    rng = random.Random()
    told = set()
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            told.add(int(process.stdout.readline()))
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            told |= {int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        with open_store(path) as store:
            assert all(store.body(key_of(number)) == b"x" * 3000 for number in told)
    assert len(told) > 3


@pytest.mark.parametrize("size", [0, 200_000], ids=["short", "longer than a read"])
def test_a_torn_last_line_is_cut_wherever_it_was_torn(tmp_path: Path, size: int) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(3), size)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in [*range(last, min(len(whole) - 1, last + 300)), len(whole) - 2]:
        path.write_bytes(whole[:end])
        with open_store(path) as store:
            assert len(store) == 2
            assert key_of(2) not in store
            asyncio.run(put(store, 2, f"2{'x' * size}".encode()))
        assert path.read_bytes() == whole


def test_a_last_record_that_lacks_its_line_end_alone_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(3), 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with open_store(path) as store:
        assert len(store) == 3
    assert path.read_bytes() == whole


def test_a_store_that_is_nothing_but_a_torn_line_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for torn in (b"{", b'{"key":"' + b"0" * 200_000):
        path.write_bytes(torn)
        with open_store(path) as store:
            assert len(store) == 0
        assert path.read_bytes() == b""


@pytest.mark.parametrize("text", [b"x", b"notes\nand more", b'{"id": "1", "question": "1 + 1"}', b"\x00" * 100])
def test_a_file_that_is_no_store_loses_nothing_of_its_last_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "notes.txt").write_bytes(text)
    with pytest.raises(StoreError, match=f"^{tmp_path / 'notes.txt'}: "), open_store(tmp_path / "notes.txt"):
        pass
    assert (tmp_path / "notes.txt").read_bytes() == text


@pytest.mark.parametrize(
    "bad",
    [b"", b"{}", b"null", b"[]", b"{", b'{"key": 5, "body": "b"}', b'{"key": "xyz", "body": "b"}', b'{"key": "00"}'],
)
def test_a_broken_line_in_the_middle_is_named_and_nothing_is_changed(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(3))
    good = lines(path)
    path.write_bytes(b"\n".join([good[0], bad, good[1], good[2]]) + b"\n")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=rf"^{path}:2: ") as caught, open_store(path):
        pass
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_device_is_refused_and_stays_a_device() -> None:
    with pytest.raises(StoreError, match=r"^/dev/full: "), open_store(Path("/dev/full")):
        pass
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert not Path("/dev/full.lock").exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^{tmp_path}: "), open_store(tmp_path):
        pass


def test_a_pipe_is_refused_without_waiting_for_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match=f"^{tmp_path / 'pipe'}: "), open_store(tmp_path / "pipe"):
        pass


def test_a_full_disk_ends_every_put_and_leaves_whole_records_only(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.test_teacher_store import open_store, put
        async def one(store, number):
            await asyncio.sleep(0.001 * (number % 7))
            try:
                # the last ones are small enough for the room that is left
                await put(store, number, b"x" * (900 if number < 40 else 1))
            except Exception as error:
                print(number, type(error).__name__, error)
            else:
                print(number, "stored")
        async def main():
            with open_store(Path(sys.argv[1])) as store:
                await asyncio.gather(*(one(store, number) for number in range(60)))
        asyncio.run(main())
    """)
    path = tmp_path / "answers.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert ended.returncode == 0, ended.stderr
    said = {int(number): rest for number, rest in (line.split(" ", 1) for line in ended.stdout.splitlines())}
    assert set(said) == set(range(60)), "a put that neither returned nor raised"
    stored = [number for number, rest in said.items() if rest == "stored"]
    refused = {rest for rest in said.values() if rest != "stored"}
    assert 10 < len(stored) < 60
    assert [rest.startswith(f"StoreError {path}: ") for rest in refused] == [True], refused
    assert path.stat().st_size <= 20_000
    assert all(json.loads(line) for line in lines(path))
    with open_store(path) as store:
        assert [store.body(key_of(n)) for n in stored] == [b"x" * (900 if n < 40 else 1) for n in stored]


def test_a_second_writer_waits_for_the_first_and_has_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    found: list[int] = []

    def second() -> None:
        with open_store(path) as store:
            found.append(len(store))

    thread = threading.Thread(target=second)
    with open_store(path) as store:
        thread.start()
        asyncio.run(put(store, 0))
        thread.join(0.3)
        assert found == []
        asyncio.run(put(store, 1))
    thread.join(10)
    assert found == [2]


def test_the_torn_line_of_a_writer_at_work_is_not_cut_by_another(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(1))

    def second() -> None:
        with open_store(path):
            pass

    thread = threading.Thread(target=second)
    with open_store(path):
        with path.open("ab") as file:
            file.write(b'{"key":"half of')
        thread.start()
        thread.join(0.3)
        assert path.read_bytes().endswith(b'{"key":"half of')
    thread.join(10)
    assert path.read_bytes().endswith(b"}\n")


def test_the_key_does_not_depend_on_the_order_of_the_fields() -> None:
    assert request_key(dict(reversed(REQUEST.items()))) == request_key(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "http://127.0.0.2/v1"},
        {"model": "n"},
        {"messages": [{"role": "user", "content": "1 + 1 "}]},
        {"messages": [{"role": "system", "content": "1 + 1"}]},
        {"temperature": 0.6},
        {"top_p": 0.5},
        {"max_tokens": 5},
        {"sample": 1},
    ],
)
def test_the_key_depends_on_all_that_shapes_the_answer(change: dict[str, Any]) -> None:
    assert request_key(REQUEST | change) != request_key(REQUEST)


def test_the_key_is_the_same_in_every_version() -> None:
    """A changed key would buy every answer again."""
    assert request_key(REQUEST) == "df1386a19e94a55adb0db9543e898a34cde56570199fb164b9ec226b9b185cbd"


def test_the_default_is_in_the_main_project_also_from_a_temporary_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert default_path() == tmp_path / "data" / "store" / "answers.jsonl"
    monkeypatch.delenv("DVC_ROOT")
    assert default_path() == ROOT / "data" / "store" / "answers.jsonl"
