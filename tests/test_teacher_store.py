"""The store of received answers: what it was given it has for good, whatever ends the process that gave it."""

import asyncio
import errno
import fcntl
import hashlib
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
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stages.lib.files import DataError
from stages.lib.store.answer_store import AnswerStore, StoreError, default_path, open_store, request_key
from stages.lib.store.index import Index

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


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files that were synced, a descriptor for each time."""
    real = os.fsync
    synced: list[int] = []

    def counted_fsync(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted_fsync)
    return synced


def test_many_answers_at_once_all_arrive_and_share_their_syncs(tmp_path: Path, syncs: list[int]) -> None:
    fill(tmp_path / "answers.jsonl", range(500))
    assert 0 < len(syncs) < 100
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


def test_a_full_disk_ends_every_put_and_leaves_whole_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Python would leave cut modules behind
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


@contextmanager
def another_process(path: Path, work: str) -> Iterator[subprocess.Popen[str]]:
    """A process that opens the store, does this work, says so in a line, and then holds it open until it is killed."""
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.test_teacher_store import key_of, open_store, put
        with open_store(Path(sys.argv[1])) as store:
            exec(sys.argv[2])
            print("done", flush=True)
            sys.stdin.read()
    """)
    command = [sys.executable, "-c", script, str(path), work]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n", process.stderr and process.stderr.read()
        yield process
        process.kill()


def test_two_processes_share_a_store_and_each_finds_what_the_other_put(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_store(path) as store:
        asyncio.run(put(store, 0))
        with another_process(path, "assert key_of(0) in store; asyncio.run(put(store, 1)); asyncio.run(put(store, 2))"):
            assert key_of(1) not in store
            assert store.refresh() == 2
            assert store.refresh() == 0
            assert store.body(key_of(1)) == b'{"n": 1}'
            asyncio.run(put(store, 3))
            assert [key_of(number) in store for number in range(5)] == [True] * 4 + [False]
    assert len(lines(path)) == 4


def test_what_another_process_puts_is_known_after_the_next_own_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_store(path) as store, another_process(path, "asyncio.run(put(store, 1))"):
        asyncio.run(put(store, 2))
        assert store.body(key_of(1)) == b'{"n": 1}'
        assert len(store) == 2


def test_a_key_that_another_process_asks_for_is_not_to_be_had_until_that_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_store(path) as store:
        with another_process(path, "assert store.claim(key_of(1)); assert store.claim(key_of(2))"):
            assert not store.claim(key_of(1))
            assert key_of(1) not in store
            assert store.claim(key_of(3))
            with another_process(path, "assert [store.claim(key_of(n)) for n in (1, 2, 3, 4)] == [False] * 3 + [True]"):
                pass
        # killed: what it claimed is free at once
        assert store.claim(key_of(1))
        store.release(key_of(1))
        with another_process(path, "assert [store.claim(key_of(n)) for n in (1, 2, 3)] == [True, True, False]"):
            pass


def test_one_process_claims_a_key_once_as_well(tmp_path: Path) -> None:
    with open_store(tmp_path / "answers.jsonl") as store:
        assert store.claim(key_of(1))
        assert not store.claim(key_of(1))
        store.release(key_of(1))
        store.release(key_of(1))
        assert store.claim(key_of(1))


def test_a_claim_that_comes_after_the_answer_finds_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_store(path) as store:
        work = "assert store.claim(key_of(1)); asyncio.run(put(store, 1)); store.release(key_of(1))"
        with another_process(path, work):
            assert key_of(1) not in store
            assert not store.claim(key_of(1))
            assert store.body(key_of(1)) == b'{"n": 1}'
        with another_process(path, "assert not store.claim(key_of(1)); assert key_of(1) in store"):
            pass


@pytest.mark.heavy
def test_processes_at_once_put_each_answer_once_though_some_are_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.test_teacher_store import key_of, open_store, put
        async def one(store, waiting):
            while waiting:
                number = waiting.pop(0)
                if store.claim(key_of(number)):
                    await asyncio.sleep(0.02)
                    await put(store, number, b"x" * 3000)
                    print(number, flush=True)
                    store.release(key_of(number))
                elif key_of(number) not in store:
                    waiting.append(number)
                    await asyncio.sleep(0.001)
        async def main(waiting):
            with open_store(Path(sys.argv[1])) as store:
                await asyncio.gather(*(one(store, waiting) for _ in range(8)))
        asyncio.run(main(list(range(400))))
    """)
    path = tmp_path / "answers.jsonl"
    command = [sys.executable, "-c", script, str(path)]
    doomed, others = (
        [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)] for _ in range(2)
    )
    for process in doomed:
        assert process.stdout
        process.stdout.readline()
    for process in doomed:
        process.kill()
    for process in (*doomed, *others):
        process.communicate(timeout=60)
    assert [process.returncode for process in others] == [0, 0]
    assert sorted(json.loads(line)["request"]["sample"] for line in lines(path)) == list(range(400))


def test_the_torn_line_of_a_writer_at_work_is_not_cut_by_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    found: list[int] = []

    def second() -> None:
        with open_store(path) as store:
            found.append(len(store))

    thread = threading.Thread(target=second)
    with path.with_suffix(".lock").open() as lock, caplog.at_level("INFO"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(1.5)
        assert caplog.messages == [f"store: another run writes to {path}; waiting for it"]
        assert path.read_bytes() == whole[:-9]
        path.write_bytes(whole)  # the writer ends its line
    thread.join(10)
    assert found == [2]
    assert path.read_bytes() == whole


def test_nothing_is_appended_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"

    async def work(store: AnswerStore) -> None:
        with path.with_suffix(".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stored = asyncio.create_task(put(store, 0))
            await asyncio.sleep(0.2)
            assert path.read_bytes() == b""
            assert not stored.done()
            fcntl.flock(lock, fcntl.LOCK_UN)
            await asyncio.wait_for(stored, 10)

    with_store(path, work)
    assert len(lines(path)) == 1


def test_a_line_that_another_process_left_torn_is_cut_before_the_next_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(1))
    whole = path.read_bytes()
    with open_store(path) as store:
        with path.open("ab") as killed:
            killed.write(whole[:50])
        asyncio.run(put(store, 1))
        assert store.body(key_of(1)) == b'{"n": 1}'
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["key"] for line in lines(path)] == [key_of(0), key_of(1)]


def test_a_line_that_another_process_is_writing_is_not_read_before_it_has_its_end(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(3), 200_000)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    path.write_bytes(whole[:last])
    with open_store(path) as store, path.open("ab", buffering=0) as writer:
        for part in (whole[last : last + 100_000], whole[last + 100_000 : -1]):
            writer.write(part)
            assert store.refresh() == 0
            assert key_of(2) not in store
        writer.write(b"\n")
        assert store.refresh() == 1
        assert store.body(key_of(2)).startswith(b"2xxx")


async def interrupted(store: AnswerStore, size: int) -> None:
    """Put 20 answers in a loop that has no thread left for writing them, and end before it has one."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, time.sleep, 0.3)
    waiting = asyncio.gather(*(put(store, number, b"x" * size) for number in range(20)))
    await asyncio.wait([waiting], timeout=0.1)


def test_what_was_put_is_written_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_store(path) as store:
        asyncio.run(interrupted(store, 1))
        assert path.read_bytes() == b""
    assert len(lines(path)) == 20


def test_what_cannot_be_written_any_more_is_said_when_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Python would leave cut modules behind
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.test_teacher_store import interrupted, open_store
        try:
            with open_store(Path(sys.argv[1])) as store:
                asyncio.run(interrupted(store, 9000))
        except Exception as error:
            print(type(error).__name__, error)
    """)
    path = tmp_path / "answers.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000)),
    )
    assert ended.stdout.startswith(f"StoreError {path}: "), ended.stderr
    assert path.read_bytes() == b""


def test_of_two_answers_to_one_request_the_first_counts_and_both_stay(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for body in (b"first", b"second"):
        with open_store(path) as store:
            asyncio.run(put(store, 0, body))
            assert store.body(key_of(0)) == b"first"
            assert len(store) == 1
    assert len(lines(path)) == 2


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    keys = [f"{'5a' * 16}{number:032x}" for number in range(50)]

    async def work(store: AnswerStore) -> None:
        for key in keys[::2]:
            await store.put(key, REQUEST, key.encode())
            await store.put(key[::-1], REQUEST, b"")
        assert [key in store for key in keys] == [True, False] * 25
        assert [store.body(key) for key in keys[::2]] == [key.encode() for key in keys[::2]]
        with pytest.raises(KeyError):
            store.body(keys[1])
        assert len(store) == 50

    with_store(tmp_path / "answers.jsonl", work)
    with open_store(tmp_path / "answers.jsonl") as store:
        assert [key in store for key in keys] == [True, False] * 25
        assert len(store) == 50


def test_a_record_that_is_broken_within_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(5))
    path.write_bytes(path.read_bytes().replace(b'"sample":3}', b'"sample":3"'))
    with open_store(path) as store:
        assert store.body(key_of(4)) == b"4"
        with pytest.raises(StoreError, match=rf"^{path}:4: not a record"):
            store.body(key_of(3))


def test_a_record_laid_out_by_another_program_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(
        json.dumps({"body": "{}", "key": key_of(0)}) + "\n" + json.dumps({"key": key_of(1), "body": "b"}) + "\n"
    )
    with open_store(path) as store:
        assert (store.body(key_of(0)), store.body(key_of(1))) == (b"{}", b"b")


def test_answers_are_not_written_to_a_file_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, range(3))
    with open_store(path) as store:
        (tmp_path / "saved by an editor").write_bytes(path.read_bytes())
        (tmp_path / "saved by an editor").replace(path)
        with pytest.raises(StoreError, match=rf"^{path}: the file was replaced"):
            asyncio.run(put(store, 3))
    assert len(lines(path)) == 3


def rescued_bodies(path: Path) -> list[str]:
    (file,) = path.parent.glob("answers.rescued.*.jsonl")
    return [json.loads(line)["body"] for line in file.open(encoding="utf-8")]


def test_answers_are_kept_where_the_last_line_cannot_be_repaired(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"

    async def work(store: AnswerStore) -> None:
        await put(store, 0)
        with path.open("ab") as file:
            file.write(b"\0" * 16)  # what a filesystem leaves after a crash
        errors = await asyncio.gather(*(put(store, number) for number in range(1, 6)), return_exceptions=True)
        assert all(isinstance(error, StoreError) and "make store-import FILE=" in str(error) for error in errors)
        with pytest.raises(StoreError, match="the last line is not a record"):
            await put(store, 6)  # a later group

    with_store(path, work)
    assert rescued_bodies(path) == [f'{{"n": {number}}}' for number in range(1, 7)]


def test_answers_are_kept_where_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.jsonl"

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def work(store: AnswerStore) -> None:
        with path.open("ab") as file:
            file.write(b'{"key":"')
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", failing)
            with pytest.raises(StoreError, match=rf"^{path}: Input/output error. Answers received since then are in "):
                await put(store, 0)
        await put(store, 1)

    with_store(path, work)
    assert rescued_bodies(path) == ['{"n": 0}']
    assert len(lines(path)) == 1


def test_the_index_copies_a_record_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    copied, real = 0, Index._merge_recent

    def counted_merge(index: Index) -> None:
        nonlocal copied
        copied += len(index)
        real(index)

    monkeypatch.setattr("stages.lib.store.index.RECENT", 100)
    monkeypatch.setattr(Index, "_merge_recent", counted_merge)
    index, keys = Index(), [hashlib.sha256(str(number).encode()).digest() for number in range(50_000)]
    for number, key in enumerate(keys):
        index.add(key, number)
    assert copied < 12 * len(keys), "it would be 250 times at each hundredth"
    assert all(index.offsets(key) == [number] for number, key in enumerate(keys))


@pytest.mark.heavy
def test_a_hundred_thousand_keys_take_two_megabytes() -> None:
    Index().neighbours()  # loads numpy
    tracemalloc.start()
    index = Index()
    for number in range(100_000):
        index.add(hashlib.sha256(str(number).encode()).digest(), number * 5000)
    index.neighbours()  # lays what came last into the arrays
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 100_000
    assert index.offsets(hashlib.sha256(b"77777").digest()) == [77777 * 5000]
    assert held < 2_000_000


def test_more_answers_than_memory_has_room_for_are_found_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.lib.store.index.IN_MEMORY", 1000)
    monkeypatch.setattr("stages.lib.store.index.RECENT", 64)
    index, keys = Index(), [hashlib.sha256(str(number).encode()).digest() for number in range(5000)]
    for number, key in enumerate(keys):
        index.add(key, number)
        assert index.offsets(keys[number // 2]) == [number // 2]
    index.add(keys[7], 2**60 + 5)  # the same answer in another host's file, and again
    index.add(keys[7], 2**61)
    assert all(index.offsets(key) == [number] for number, key in enumerate(keys) if number != 7)
    assert index.offsets(keys[7]) == [7, 2**60 + 5, 2**61]
    assert index.offsets(hashlib.sha256(b"absent").digest()) == []
    assert len(index) == 5002
    assert index.neighbours() == [(7, 2**60 + 5), (2**60 + 5, 2**61)]


def test_a_full_disk_under_the_index_is_one_line_and_keeps_what_was_received(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.lib.store.index.IN_MEMORY", 4)
    monkeypatch.setattr("stages.lib.store.index.RECENT", 2)
    monkeypatch.setattr("stages.lib.store.index.TABLE", "PRAGMA max_page_count = 1")  # no table, as on a full disk
    path = tmp_path / "answers.jsonl"
    with pytest.raises(DataError, match=r"^temporary database: .* Free space"), open_store(path) as store:
        for number in range(50):
            asyncio.run(put(store, number))
    assert 4 < len(path.read_bytes().splitlines()) < 50
    monkeypatch.undo()
    with open_store(path) as store:
        assert len(store) == len(path.read_bytes().splitlines()), "whole lines, and each is found"


@pytest.mark.heavy
def test_two_million_keys_take_the_memory_of_half_a_million() -> None:
    script = """
        import random, resource
        from stages.lib.store.index import IN_MEMORY, Index
        index, draw, peaks = Index(), random.Random(1), []
        for number in range(4 * IN_MEMORY):
            index.add(draw.randbytes(32), number)
            if number + 1 in (IN_MEMORY, 4 * IN_MEMORY):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(peaks[1] / peaks[0])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    assert float(done.stdout) < 1.3


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
