"""The device of a training: its name with an index, the cards that a process sees, what an NPU lacks."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.lib.command import DistilleryError
from stages.lib.runtime.devices import check_bf16, check_device, visible_cards, with_index
from stages.lib.training.resources import peak_card_memory
from tests.workspace import ROOT


@pytest.mark.parametrize(
    ("device", "indexed"), [("npu", "npu:0"), ("npu:3", "npu:3"), ("cuda", "cuda:0"), ("cpu", "cpu")]
)
def test_a_card_without_a_number_is_the_first(device: str, indexed: str) -> None:
    assert with_index(device) == indexed


@pytest.mark.parametrize(
    ("device", "processes", "ours", "seen"),
    [
        ("cpu", 2, None, {}),
        ("cuda", 1, None, {"CUDA_VISIBLE_DEVICES": "0"}),
        ("cuda:1", 2, None, {"CUDA_VISIBLE_DEVICES": "1,2"}),
        ("cuda:1", 1, "4,5,6", {"CUDA_VISIBLE_DEVICES": "5"}),
        ("npu", 8, "0,1,2,3,4,5,6,7", {"ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}),
    ],
)
def test_processes_see_the_cards_that_they_train_on_alone(
    device: str, processes: int, ours: str | None, seen: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
        if ours:
            monkeypatch.setenv(name, ours)
    assert visible_cards(device, processes) == seen


def test_the_peak_of_a_cards_own_memory_is_told_by_the_process_that_trains_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    assert peak_card_memory("cpu") == {}
    monkeypatch.setattr(torch, "npu", SimpleNamespace(max_memory_allocated=lambda: 3 * 2**20), raising=False)
    assert peak_card_memory("npu:0") == {"peak_card_memory_mib": 3}


def test_a_device_that_is_not_there_is_refused() -> None:
    check_device("cpu", processes=2)
    with pytest.raises(DistilleryError, match="there is no 'npu:2' on this machine"):
        check_device("npu:2")


def npu_check(folder: Path, module: str, processes: int = 1) -> str:
    """What the check of an NPU says in a process of its own, with this text for torch_npu."""
    (folder / "torch_npu.py").write_text(module)
    code = f"from stages.lib.runtime.devices import check_device; check_device('npu', {processes}); print('there')"
    variables = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.heavy
def test_an_npu_is_found_by_torch_npu_and_without_cann_one_line_says_so(tmp_path: Path) -> None:
    there = "import torch, types; torch.npu = types.SimpleNamespace(device_count=lambda: 8)"
    assert npu_check(tmp_path, there, processes=8) == "there"
    assert "run.processes: 9, but there are 8 cards from 'npu:0' on. Lower it." in npu_check(tmp_path, there, 9)
    missing = "raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')"
    line = npu_check(tmp_path, missing)
    assert "torch_npu cannot be imported (libhccl.so: cannot open" in line
    assert line.endswith("Source CANN's set_env.sh; 'make doctor' finds it.")


@pytest.mark.heavy
def test_a_stage_runs_on_a_cpu_beside_a_torch_npu_without_cann(tmp_path: Path) -> None:
    """torch imports by itself what says that it is a backend, and fails with it."""
    (tmp_path / "torch_npu.py").write_text("def _autoload(): raise ImportError('libhccl.so: cannot open')")
    entry = tmp_path / "torch_npu-2.12.0.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.12.0\n")
    (entry / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    variables = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    variables |= {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    body = "import torch; print('imported')"
    stage = f"from stages.lib.command import one_line_errors\n@one_line_errors\ndef main(): {body}\nmain()"
    plain, ours = (
        subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
        for code in (body, stage)
    )
    assert "libhccl.so" in plain.stderr
    assert ours.stdout == "imported\n", ours.stderr


def test_bf16_on_a_cpu_without_it_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    check_bf16("cpu")
    info = Path("/proc/cpuinfo")
    lacks = info.is_file() and "bf16" not in info.read_text()
    assert ("train.bf16: this CPU emulates bf16" in caplog.text) is lacks
