"""The rows of a training and of the teacher's scores are read from the disk one at a time."""

import hashlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result

from stages.lib.json_list import BLOCK, elements
from stages.lib.logprobs.answers import SCHEMA, answer_hash
from stages.lib.logprobs.index import AT_ONCE, HashIndex
from stages.lib.logprobs.lookup import LogprobsOf
from stages.lib.rows import DataError
from stages.lib.tokens import Tokens
from stages.lib.tokens.table import TOKENS, read_tokens, writing_tokens
from stages.lib.trainers.trl.batches import RowOrder, batches_of, labelled, packed_rows
from stages.lib.training.checkpoints import held_folder
from stages.lib.training.dataset import Conversation, ShareGpt, shape_of, storing
from stages.lib.training.folder_lock import held_by_another
from stages.lib.training.rows_folder import rows_folder
from stages.train import main as train
from tests.trainings import sums, write_sharegpt
from tests.workspace import ROOT

LISTS = [
    "[]",
    " [ ] \n",
    '[{"a": "\\u5148\\n\\"]"}, {"b": [1, {}]}]',
    "[12, 123.5e-3, true, null]",
    '[\n    "x",\n    "想"\n]',
    json.dumps([{"text": "so " * BLOCK}, {"text": "on"}, {"text": "想" * (BLOCK // 2)}] * 2, ensure_ascii=False),
    "[" + " " * (BLOCK - 2) + "12345, -7" + " " * BLOCK + "]",
]
BROKEN = [
    "",
    "{}",
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1]]",
    "[1] x",
    "[tru",
    '["x]',
    '[{"a": 1]',
    "[" + "1, " * BLOCK + "x]",
    '[{"a" "b"}, ' + "1, " * BLOCK,
]


def read(data: bytes) -> list[object]:
    return [*elements(io.BytesIO(data))]


@pytest.mark.parametrize("text", LISTS, ids=range(len(LISTS)))
def test_a_list_has_the_elements_that_pythons_own_reader_finds(text: str) -> None:
    assert read(text.encode()) == json.loads(text)
    assert read(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_json_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        json.loads(text if text != "{}" else "")
    with pytest.raises(ValueError, match=r"\w"):
        read(text.encode())


def test_a_list_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read('["想"]'.encode("gb18030"))


def test_a_broken_element_is_refused_before_the_rest_is_read() -> None:
    class Counted(io.BytesIO):
        most = 0

        def read1(self, size: int | None = -1, /) -> bytes:
            found = super().read1(-1 if size is None else size)
            Counted.most += len(found)
            return found

    file = Counted(b'[{"a" "b"}, ' + b"1, " * 20 * BLOCK)
    with pytest.raises(ValueError, match="delimiter"):
        [*elements(file)]
    assert 0 < Counted.most < 3 * BLOCK


def written(folder: Path, count: int) -> ShareGpt:
    return ShareGpt(write_sharegpt(folder, sums(count)))


def test_the_memory_for_a_dataset_does_not_grow_with_its_rows(tmp_path: Path) -> None:
    """By Python's own count. The first one has the modules loaded."""
    peaks = []
    for count in (10, 20_000, 60_000):
        dataset = written(tmp_path / str(count), count)
        tracemalloc.start()
        assert dataset.shape.rows == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


def test_stored_conversations_are_those_that_were_added(tmp_path: Path) -> None:
    rows = [*sums(3), Conversation("", "想？", "line\u2028end\n", (("a", "b"), ("c", "d")))]
    with storing(tmp_path / "rows.jsonl") as file:
        for row in rows:
            file.add(row)
    stored = file.stored()
    assert [*stored] == [*stored] == rows
    assert stored.shape == shape_of(rows)
    assert (stored.shape.rows, stored.shape.several, stored.shape.answers) == (4, 1, 6)
    assert shape_of(rows[::-1]).sha256 != stored.shape.sha256


def test_two_datasets_that_differ_in_one_letter_have_other_hashes(tmp_path: Path) -> None:
    rows = sums(3)
    other = [*rows[:2], Conversation(rows[2].system, rows[2].user, rows[2].assistant + ".")]
    assert shape_of(rows).sha256 == written(tmp_path / "one", 3).shape.sha256 != shape_of(other).sha256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"conversations": [{"from": "user"', "sample 0: not a JSON list of samples (its list does not end|"),
        ('{"conversations": []}', "sample 0: not a JSON list of samples (it is not a list)"),
        ("[1]", "sample 0: Input should be"),
        ("[" * 200_000, "sample 0: not a JSON list of samples (lists or objects nested too deeply)"),
    ],
)
def test_a_broken_dataset_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    folder = write_sharegpt(tmp_path / "broken", sums(1))
    (folder / "broken.json").write_text(text)
    with pytest.raises(DataError) as found:
        [*ShareGpt(folder)]
    assert str(found.value).startswith(f"{folder / 'broken.json'}: {said.partition('(its')[0]}")
    assert str(found.value).endswith("Run 'dvc repro convert@broken' to rebuild it.")


@pytest.mark.parametrize("place", ["system", "user", "assistant"])
def test_half_a_character_in_a_dataset_is_one_line(tmp_path: Path, place: str) -> None:
    """As an escape it is valid JSON, but no text."""
    changed: dict[str, Any] = {place: "so \ud83d"}
    folder = write_sharegpt(tmp_path / "broken", [*sums(1), replace(sums(1)[0], **changed)])
    assert r"so \ud83d" in (folder / "broken.json").read_text()
    with pytest.raises(DataError) as found:
        assert ShareGpt(folder).shape
    said = r"sample 1: '\ud83d' is half a character, not valid in UTF-8. Fix or remove it."
    assert str(found.value) == f"{folder / 'broken.json'}: {said}"


def test_a_whole_character_of_two_escapes_is_read(tmp_path: Path) -> None:
    folder = write_sharegpt(tmp_path / "whole", [replace(sums(1)[0], user="so 😀")])
    assert r"so \ud83d\ude00" in (folder / "whole.json").read_text()
    assert ShareGpt(folder).shape.first.user == "so 😀"


def table(path: Path, rows: list[Tokens]) -> Path:
    with writing_tokens(path) as writer:
        for row in rows:
            writer.add(row)
    return path


def test_tokens_are_read_back_and_counted(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [Tokens([number, 5, 6, 7, 9], [(2, 4), (4, 5)][: 1 + number % 2]) for number in range(2500)]
    path = table(tmp_path / TOKENS, rows)
    assert sum(len(batch) for batch in read_tokens(path)) == 2500
    dataset = Dataset.from_file(str(path))
    for number in (0, 999, 1000, 2499):
        assert dataset[number] == {"input_ids": rows[number].ids, "labels": rows[number].labels}
    found = labelled(dataset, end=9)
    assert found.lengths.tolist() == [5] * 2500
    assert found.trained == 1250 * 2 + 1250 * 3
    assert (found.ends.rows, found.ends.without, found.ends.ends) == (2500, 1250, 1250)
    assert [ids for batch in batches_of(dataset) for ids in packed_rows(batch)] == [row.ids for row in rows]


def test_packed_rows_are_counted_one_by_one(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import pack_dataset

    rows = [Tokens([1, 2, 9][: 2 + number % 2], [(1, 2 + number % 2)]) for number in range(1500)]
    packed = pack_dataset(Dataset.from_file(str(table(tmp_path / TOKENS, rows))), 8)
    found = labelled(packed, end=9)
    assert len(found.lengths) == len(packed) < 700
    assert found.trained == 750 + 1500
    assert (found.ends.rows, found.ends.without, found.ends.ends) == (1500, 750, 750)
    ids = [ids for batch in batches_of(packed) for ids in packed_rows(batch)]
    assert sorted(ids) == sorted(row.ids for row in rows)


def grouped_by_hand(lengths: list[int], seed: int, group: int) -> list[int]:
    """The order as it was made of lists of all rows."""
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(lengths), generator=chance).tolist()
    steps = []
    for start in range(0, len(drawn), group * 50):
        window = sorted(drawn[start : start + group * 50], key=lambda row: -lengths[row])
        steps += [window[place : place + group] for place in range(0, len(window), group)]
    last = steps.pop() if len(steps[-1]) < group else []
    first = max(range(len(steps)), key=lambda step: lengths[steps[step][0]], default=0)
    order = sorted(torch.randperm(len(steps), generator=chance).tolist(), key=lambda step: step != first)
    return [row for step in order for row in steps[step]] + last


@pytest.mark.parametrize("count", [1, 3, 4, 200, 401, 1003])
def test_the_order_by_length_is_that_of_lists_of_all_rows(count: int) -> None:
    lengths = [row * 37 % 101 for row in range(count)]
    order = RowOrder(np.array(lengths, np.int32), seed=3, group=4)
    assert [*order] == grouped_by_hand(lengths, 3, 4)
    order.set_epoch(2)
    assert [*order] == grouped_by_hand(lengths, 5, 4)


def test_the_order_of_one_process_is_the_trainers_own() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    rows = np.ones(70_000, np.int32)
    sampler = SeedableRandomSampler(range(70_000), data_seed=3)
    order = RowOrder(rows, seed=3)
    for epoch in (0, 1):
        order.set_epoch(epoch)
        sampler.set_epoch(epoch)
        assert [*order] == [*sampler]


def test_of_rows_with_one_hash_the_last_is_found() -> None:
    alike = ["0" * 15 + "a" + "1" * 48, "0" * 15 + "a" + "2" * 48]  # in their first 64 bits
    others = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(AT_ONCE)]
    hashes = ["f" * 64, *alike, "f" * 64, *others, alike[0], *others[:7]]
    last = {each: row for row, each in enumerate(hashes)}
    index = HashIndex(hashes)
    assert {each: index.row(each) for each in hashes} == last
    assert index.row("1" * 64) is None
    assert HashIndex([]).row("1" * 64) is None


def test_the_memory_for_the_hashes_of_rows_does_not_grow_with_them() -> None:
    """By Python's own count, which lacks SQLite's pages: they have a limit."""
    peaks = []
    for count in (2 * AT_ONCE, 10 * AT_ONCE):
        tracemalloc.start()
        index = HashIndex(hashlib.sha256(b"%d" % number).hexdigest() for number in range(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert index.row(hashlib.sha256(b"7").hexdigest()) == 7
    assert peaks[1] < 1.2 * peaks[0]


def test_answers_are_looked_up_in_any_order(tmp_path: Path) -> None:
    keys = [answer_hash("q", "r", str(number)) for number in range(300)]
    rows = [
        {"id": "q", "sample": number, "answer": key, "tokens": [b"%d" % number], "logprobs": [-1.0], "top_tokens": [[]]}
        | {"top_logprobs": [[]]}
        for number, key in enumerate([*keys, keys[7]])
    ]
    path = tmp_path / "logprobs.parquet"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=64)
    with LogprobsOf(path) as known:
        for number in (299, 0, 64, 63, 128):
            (token,) = known.of(keys[number]) or []
            assert (token.token, token.logprob, token.top) == (b"%d" % number, -1.0, [])
        (latest,) = known.of(keys[7]) or []
        assert latest.token == b"300"
        assert known.of(answer_hash("q", "r", "300")) is None
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"not a file of probabilities .* Run 'dvc repro distill'\."):
        LogprobsOf(path)


def test_the_rows_of_a_killed_process_are_removed_and_those_of_another_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    code = "import os, time; from stages.lib.training.rows_folder import rows_folder\n"
    code += "with rows_folder('filtered') as folder:\n    (folder / f'begun-{os.getpid()}').touch(); time.sleep(600)"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while len(found := list((tmp_path / ".cache" / "training" / "filtered").glob("rows-*/begun-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        folders = {path.name.rpartition("-")[2]: path.parent for path in found}
        killed, living = processes
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        with rows_folder("filtered") as own:
            assert not folders[str(killed.pid)].exists()
            assert folders[str(living.pid)].exists()
        assert not own.exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_rows_of_other_hosts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their locks look free here, also where one host's name begins with another's."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    arm = tmp_path / ".cache" / "training" / "filtered"
    names = [f"rows-{platform.node()}-1-77", f"rows-{platform.node()}-77", "rows-other-77", "0123456789abcdef"]
    longer, own, other, checkpoints = [arm / name for name in names]
    for folder in (longer, own, other, checkpoints):
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    with rows_folder("filtered"):
        assert [path.exists() for path in (longer, own, other, checkpoints)] == [True, False, True, True]
    with caplog.at_level("INFO"), held_folder("filtered", "fedcba9876543210", resume=True, leaves="checkpoint-*"):
        pass
    assert sorted(arm.iterdir()) == sorted([longer, other])
    assert [record.getMessage().rpartition("(")[2] for record in caplog.records] == [f"{checkpoints})"]


def test_each_user_of_an_arms_rows_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one host's name and one PID, as two containers may have."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with rows_folder("filtered") as one, rows_folder("filtered") as other:
        assert one != other
        assert [*one.iterdir(), *other.iterdir()] == [one / "lock", other / "lock"]
        assert held_by_another(one)
        assert held_by_another(other)
    assert not (tmp_path / ".cache" / "training" / "filtered").exists()


def test_the_folders_of_processes_that_start_together_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is seen with a lock that is still free."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def use(_: int) -> bool:
        with rows_folder("filtered") as folder:
            return (folder / "lock").is_file()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(400)))


def test_a_training_leaves_none_of_its_rows(
    tmp_path: Path, tiny_params: Callable[..., Path], refuses: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_sharegpt(tmp_path / "sums", sums(10))
    paths = {"dataset": tmp_path / "sums", "model": tmp_path / "model", "metrics": tmp_path / "m.json"}
    paths |= {"left-out": tmp_path / "l.jsonl", "loss": tmp_path / "l.csv"}
    paths["params"] = tiny_params({"arms.filtered.cutoff_len": 5})
    line = refuses(train, "--arm", "filtered", *(word for name, path in paths.items() for word in (f"--{name}", path)))
    assert "all 10 conversations are longer than 5 tokens" in line
    assert not (tmp_path / ".cache" / "training" / "filtered").exists()


@pytest.mark.heavy
def test_a_training_in_two_processes_tokenizes_its_rows_once(
    tmp_path: Path,
    tiny_params: Callable[..., Path],
    runs: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One file of tokens, in the stage's folder, while both processes train."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_sharegpt(tmp_path / "sums", sums(40))
    changes = {"run.processes": 2, "train.gradient_accumulation_steps": 2, "arms.filtered.max_steps": 30}
    options = {"dataset": tmp_path / "sums", "model": tmp_path / "model", "metrics": tmp_path / "m.json"}
    options |= {"left-out": tmp_path / "l.jsonl", "loss": tmp_path / "l.csv", "params": tiny_params(changes)}
    command = [word for name, path in options.items() for word in (f"--{name}", str(path))]
    stage = subprocess.Popen([sys.executable, "-m", "stages.train", "--arm", "filtered", *command], cwd=ROOT)
    seen: set[str] = set()
    while stage.poll() is None:
        with suppress(FileNotFoundError):  # Python 3.11's, where a folder is removed while it is walked
            seen |= {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.arrow")}
        time.sleep(0.02)
    assert stage.returncode == 0
    (only,) = seen
    assert only.startswith(".cache/training/filtered/rows-")
    assert not (tmp_path / ".cache" / "training" / "filtered").exists()
