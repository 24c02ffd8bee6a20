"""make doctor: each thing that a machine may lack is one line with what fixes it, on any machine, with no traceback.

The machines are made: programs in a folder of the PATH, packages in a folder of the PYTHONPATH, hubs on 127.0.0.1.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages.lib.doctor import Finding, ascend, disk_and_memory, guarded, ok, output_of
from stages.lib.params import load_params

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-a-key-that-nobody-may-see"
NPU = {"run.device": "npu"}
ON_A_HUB = {
    "train.student.kind": "hub",
    "train.student.name": "someone/tiny-1M",
    "train.student.revision": "0123456789012345678901234567890123456789",
}
OPENAI = {"distill.teacher.kind": "openai_compatible", "distill.teacher.base_url": "http://127.0.0.1:9/v1"}
CARDS = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc3                 Version: 24.1.rc3                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 93.7        52                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          2843 / 32768         |
+===========================+===============+====================================================+
| 3     910B4               | HEALTH        | 94.3        51                0    / 0             |
| 0                         | 0000:82:00.0  | 0           0    / 0          2842 / 32768         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 4711          | python                   | 28000                   |
+===========================+===============+====================================================+
"""


class Row(NamedTuple):
    """A line of the table: its state, what was found, and what fixes it."""

    state: str
    found: str
    fix: str


class Said(NamedTuple):
    """What a run of the doctor said."""

    code: int
    text: str
    rows: dict[str, Row]


class Machine:
    """A machine as the doctor sees it: its home, its programs, its Python packages, its environment variables."""

    def __init__(self, folder: Path, params: Callable[..., Path]) -> None:
        self.folder, self.params = folder, params
        self.bin, self.site, self.home = folder / "bin", folder / "site", folder / "home"
        for path in (self.bin, self.site, self.home):
            path.mkdir()
        self.package("torch", "2.13.0", "class cuda:\n    device_count = staticmethod(lambda: 0)\n")
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "DVC_ROOT": str(folder),
            "HF_HOME": str(self.home / "huggingface"),
            "MODELSCOPE_CACHE": str(self.home / "modelscope"),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9",
            "PYTHONPATH": f"{self.site}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",  # else a package written twice in a second keeps its first bytecode
        }

    def package(self, name: str, version: str, text: str) -> None:
        """A Python package of that version, whose import runs the text."""
        (self.site / name).mkdir(exist_ok=True)
        (self.site / name / "__init__.py").write_text(text)
        for old in self.site.glob(f"{name}-*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        (self.site / f"{name}-{version}.dist-info").mkdir()
        (self.site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")

    def program(self, name: str, text: str, code: int = 0) -> Path:
        """A program in the PATH that prints the text."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        path.chmod(0o755)
        return path

    def cann(self, version: str) -> None:
        """CANN of that version, sourced."""
        (self.folder / "cann" / "aarch64-linux").mkdir(parents=True)
        (self.folder / "cann" / "aarch64-linux" / "ascend_toolkit_install.info").write_text(
            f"package_name=Ascend-cann-toolkit\nversion={version}\ninnerversion=V100R001C19\n"
        )
        self.environment["ASCEND_HOME_PATH"] = str(self.folder / "cann")

    def npu(self, torch: str, torch_npu: str, cards: int = 2) -> None:
        """torch and a torch_npu that sees so many cards."""
        self.package("torch", torch, "class cuda:\n    device_count = staticmethod(lambda: 0)\n")
        text = f"import torch\nclass npu:\n    device_count = staticmethod(lambda: {cards})\ntorch.npu = npu\n"
        self.package("torch_npu", torch_npu, text)

    def doctor(self, changes: dict[str, Any] | None = None, *, python: tuple[str, ...] = ()) -> Said:
        """Run it on params with these values; a traceback fails the test."""
        return self.doctor_on(self.params(changes), python=python)

    def doctor_on(self, params: Path, *, python: tuple[str, ...] = ()) -> Said:
        done = subprocess.run(
            [sys.executable, *python, "-m", "stages.lib.doctor", "--params", str(params)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=120,
        )
        text = done.stdout.decode("utf-8")
        assert "Traceback" not in text + done.stderr.decode(), done.stderr.decode()
        said = Said(done.returncode, text, rows(text))
        assert said.code == int(any(row.state == "fail" for row in said.rows.values()))
        return said


def rows(text: str) -> dict[str, Row]:
    """The rows of the table by what they are about."""
    found: dict[str, Row] = {}
    for line in text.splitlines():
        if row := re.match(r"(ok|warn|fail)\s+(\S.*?)\s{2,}(.*)", line):
            found[row[2]] = Row(row[1], row[3], "")
        elif fix := re.match(r"\s+→ (.*)", line):
            last = list(found)[-1]
            found[last] = found[last]._replace(fix=fix[1])
    return found


@pytest.fixture
def machine(tmp_path: Path, project_params: Callable[..., Path]) -> Machine:
    return Machine(tmp_path, project_params)


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub's address, and what it is asked: it answers each HEAD."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.heavy
def test_the_committed_profile_needs_nothing_that_is_not_here(machine: Machine) -> None:
    machine.environment["PYTHONPATH"] = str(ROOT)  # the real torch
    said = machine.doctor_on(ROOT / "params.yaml")
    assert said.code == 0, said.text
    assert said.rows["API key"] == Row("ok", "not needed: embedded", "")
    assert said.rows["downloads"] == Row("ok", "not needed", "")
    assert said.rows["device"].found.startswith("cpu, ")


@pytest.mark.heavy
def test_without_the_environment_it_says_make_setup(machine: Machine) -> None:
    machine.environment["PYTHONPATH"] = str(ROOT)
    said = machine.doctor(python=("-S",))
    assert said.rows["environment"].state == "fail"
    assert said.rows["environment"].fix == "make setup"
    assert "params" not in said.rows


@pytest.mark.heavy
def test_another_version_than_the_lock_has_is_a_warning(machine: Machine) -> None:
    machine.package("torch", "2.7.1", "")
    assert "torch 2.7.1 (lock: 2.13.0)" in machine.doctor().rows["environment"].found


def test_missing_params_are_one_line(machine: Machine) -> None:
    said = machine.doctor_on(machine.folder / "params.yaml")
    assert said.rows["params"].state == "fail"
    assert "git checkout params.yaml" in said.rows["params"].found


def test_params_that_do_not_fit_the_schema_name_the_key(machine: Machine) -> None:
    params = machine.params()
    params.write_text(params.read_text().replace("per_device_train_batch_size", "batch"))
    assert "train.batch: unknown key" in machine.doctor_on(params).rows["params"].found


@pytest.mark.heavy
def test_an_engine_without_ray_fails(machine: Machine) -> None:
    machine.package("ray", "2.60.0", "raise ModuleNotFoundError('No module named ray')")
    said = machine.doctor({"run.engine": {"kind": "ray", "address": "127.0.0.2:9", "workers": None}})
    found = "run.engine: kind ray needs the package ray, which is not in this environment"
    assert said.rows["cluster"] == Row("fail", found, "Run 'make ray-env', or set kind: local.")


@pytest.mark.heavy
def test_a_student_in_a_folder_that_is_absent_fails(machine: Machine) -> None:
    folder = machine.folder / "student"
    said = machine.doctor({"train.student.kind": "path", "train.student.name": str(folder)})
    assert said.rows["files"] == Row(
        "fail", f"train.student.name: {folder}/config.json does not exist", "put it there, or change train.student.name"
    )
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    said = machine.doctor({"train.student.kind": "path", "train.student.name": str(folder)})
    assert said.rows["files"] == Row("ok", "1 named, all exist", "")


@pytest.mark.heavy
def test_questions_from_an_absent_file_fail(machine: Machine) -> None:
    gsm8k = {"collect.source.kind": "preset", "collect.source.origin": "file", "collect.source.path": "nowhere.jsonl"}
    assert "collect.source.path: nowhere.jsonl" in machine.doctor(gsm8k).rows["files"].found


@pytest.mark.heavy
def test_a_student_too_large_for_the_disk_fails(machine: Machine) -> None:
    row = machine.doctor({"train.student.kind": "hub", "train.student.name": "someone/huge-90000B"}).rows["disk"]
    assert row.state == "fail"
    assert "1080002.0 GB needed" in row.found  # two arms and the student, 4 bytes a weight, and 2 GB


@pytest.mark.heavy
def test_only_untrained_arms_still_need_room(machine: Machine) -> None:
    (machine.folder / "models" / "filtered").mkdir(parents=True)
    (machine.folder / "models" / "filtered" / "config.json").write_text("{}")
    row = machine.doctor({"train.student.kind": "hub", "train.student.name": "someone/huge-90000B"}).rows["disk"]
    assert "720002.0 GB needed" in row.found


@pytest.mark.heavy
def test_more_threads_than_cores_is_a_warning(machine: Machine) -> None:
    row = machine.doctor({"run.threads": 4000}).rows["device"]
    assert row.state == "warn"
    assert row.fix == f"set run.threads: {len(os.sched_getaffinity(0))}"


@pytest.mark.heavy
def test_a_card_that_torch_does_not_see_fails(machine: Machine) -> None:
    assert machine.doctor({"run.device": "cuda"}).rows["device"].state == "fail"
    machine.package("torch", "2.13.0", "class cuda:\n    device_count = staticmethod(lambda: 2)\n")
    assert machine.doctor({"run.device": "cuda:1"}).rows["device"] == Row("ok", "cuda, 2 cards", "")
    assert "torch sees 2 cards" in machine.doctor({"run.device": "cuda:2"}).rows["device"].found
    row = machine.doctor({"run.device": "cuda:1", "run.processes": 2}).rows["device"]
    assert (row.state, row.found) == ("fail", "run.processes needs 2 cards from cuda:1 on, torch sees 2")


@pytest.mark.heavy
def test_a_torch_that_takes_the_process_down_is_one_line(machine: Machine) -> None:
    machine.package("torch", "2.13.0", "import os\nos.kill(os.getpid(), 11)\n")
    assert "exit code -11" in machine.doctor().rows["torch"].found


@pytest.mark.heavy
def test_an_npu_on_a_machine_with_none_of_it(machine: Machine) -> None:
    said = machine.doctor(NPU)
    assert said.rows["npu-smi"].state == "warn"
    assert said.rows["CANN"].state == "fail"
    assert said.rows["torch_npu"].found == "not installed beside torch 2.13.0"


@pytest.mark.heavy
def test_cann_that_is_installed_and_not_sourced_names_its_script(machine: Machine) -> None:
    script = machine.home / "Ascend" / "ascend-toolkit" / "set_env.sh"
    script.parent.mkdir(parents=True)
    script.write_text("")
    assert machine.doctor(NPU).rows["CANN"].fix == f"source {script}"


@pytest.mark.heavy
def test_torch_npu_without_cann_breaks_torch_and_the_way_out_is_named(machine: Machine) -> None:
    machine.npu("2.13.0", "2.13.0")
    machine.package("torch", "2.13.0", "raise ImportError('libhccl.so: cannot open shared object file')\n")
    row = machine.doctor().rows["torch"]
    assert "libhccl.so" in row.found
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in row.fix


def test_a_whole_npu_host_is_all_ok(machine: Machine) -> None:
    machine.program("npu-smi", CARDS.replace("HEALTH", "OK    "))
    machine.cann("8.0.RC3")
    machine.npu("2.1.0", "2.1.0.post8")
    said = machine.doctor(NPU)
    assert said.rows["npu-smi"] == Row("ok", "2 cards (910B4), all OK", "")
    assert said.rows["CANN"].found.startswith("8.0.RC3 in ")
    assert said.rows["torch_npu"] == Row("ok", "2.1.0.post8 with torch 2.1.0, 2 cards", "")
    row = machine.doctor(NPU | {"run.processes": 4}).rows["torch_npu"]
    assert row.found == "2.1.0.post8 sees 2 cards, the training needs them up to npu:3"
    assert said.rows["torch_npu support"] == Row("ok", "2.1.0.post8 is published for CANN 8.0.RC3", "")
    assert said.code == 0, said.text


@pytest.mark.heavy
def test_an_ill_card_is_a_warning_and_names_it(machine: Machine) -> None:
    machine.program("npu-smi", CARDS.replace("HEALTH", "Alarm "))
    assert machine.doctor(NPU).rows["npu-smi"][:2] == ("warn", "2 cards, of which not OK: 3 Alarm")


@pytest.mark.heavy
def test_a_driver_that_is_not_loaded_fails(machine: Machine) -> None:
    machine.program("npu-smi", "dcmi module initialize failed. ret is -8005", code=255)
    assert machine.doctor(NPU).rows["npu-smi"][:2] == ("fail", "no card: dcmi module initialize failed. ret is -8005")


@pytest.mark.heavy
def test_torch_npu_of_another_torch_fails_and_names_the_one_that_fits(machine: Machine) -> None:
    machine.cann("8.3.RC1")
    machine.npu("2.6.0", "2.1.0.post8")
    row = machine.doctor(NPU).rows["torch_npu"]
    assert (row.state, row.found) == ("fail", "2.1.0.post8 is for torch 2.1.0, and torch is 2.6.0")
    assert row.fix.endswith("-m pip install torch-npu==2.6.0.post3")  # and not 2.6.0, which is for CANN 8.2.RC1


@pytest.mark.heavy
def test_cann_that_torch_npu_is_not_published_for_is_a_warning(machine: Machine) -> None:
    machine.cann("8.5.0")
    machine.npu("2.1.0", "2.1.0.post8")
    row = machine.doctor(NPU).rows["torch_npu support"]
    assert (row.state, row.found) == ("warn", "2.1.0.post8 is published for CANN 8.0.RC3, this is 8.5.0")


@pytest.mark.heavy
def test_torch_npu_that_nobody_published_a_match_for_is_a_warning(machine: Machine) -> None:
    machine.npu("2.13.0", "2.13.0")
    assert machine.doctor(NPU).rows["torch_npu support"].state == "warn"


@pytest.mark.heavy
def test_hidden_cards_fail(machine: Machine) -> None:
    machine.npu("2.1.0", "2.1.0.post8", cards=1)
    row = machine.doctor({"run.device": "npu:1"}).rows["torch_npu"]
    assert row.found.endswith("sees 1 cards, the training needs them up to npu:1")


@pytest.mark.heavy
@pytest.mark.parametrize("cards", ["0, 1", "3,2", "0-3"])
def test_cards_that_would_be_read_otherwise_are_a_warning(machine: Machine, cards: str) -> None:
    machine.npu("2.1.0", "2.1.0.post8")
    assert "cards" not in machine.doctor(NPU).rows
    machine.environment["ASCEND_RT_VISIBLE_DEVICES"] = cards
    assert machine.doctor(NPU).rows["cards"].state == "warn"


@pytest.mark.heavy
def test_a_second_host_needs_to_know_where_the_first_one_is(machine: Machine) -> None:
    machine.npu("2.1.0", "2.1.0.post8")
    assert "hosts" not in machine.doctor(NPU).rows
    machine.environment |= {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
    assert machine.doctor(NPU).rows["hosts"][:2] == ("fail", "NNODES=2, and not set: MASTER_PORT")
    machine.environment["MASTER_PORT"] = "29500"
    assert machine.doctor(NPU).rows["hosts"].state == "warn"
    machine.environment["HCCL_CONNECT_TIMEOUT"] = "1800"
    assert machine.doctor(NPU).rows["hosts"] == Row("ok", "2, met at 10.0.0.1:29500", "")


@pytest.mark.heavy
def test_the_host_holds_the_weights_once_for_every_card_that_openmind_trains_on() -> None:
    article = load_params(ROOT / "profiles" / "article.yaml")
    assert article.run.processes == 8
    assert disk_and_memory.memory_needed(article) == pytest.approx(2e9 + 8 * 4 * 7e9)


def test_a_host_and_its_disk_hold_fp32_weights_where_trl_trains_without_deepspeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # where no arm is trained yet
    shared = load_params(ROOT / "profiles" / "cuda.yaml")
    assert disk_and_memory.memory_needed(shared) == pytest.approx(2e9 + shared.run.processes * 4 * 7e9)
    assert disk_and_memory.disk_needed(shared) == pytest.approx(2e9 + (1 + 5) * 2 * 7e9), "student, five arms in bf16"
    alone = shared.train.model_copy(update={"deepspeed": None})
    often = shared.run.model_copy(update={"checkpoint_steps": 50})
    assert disk_and_memory.disk_needed(shared.model_copy(update={"train": alone, "run": often})) == pytest.approx(
        2e9 + (1 + 5) * 4 * 7e9 + 2 * 16 * 7e9
    )


def test_the_table_says_each_torch_npu_once_and_docs_name_its_sources() -> None:
    named = [version for versions in ascend.TORCH_NPU_OF_CANN.values() for version in versions.split()]
    assert len(named) == len(set(named)) == len(ascend.CANN_OF)
    sources = re.findall(r"https://github\S+", ascend.__doc__ or "")
    assert len(sources) == 2
    for source in sources:
        assert source in (ROOT / "docs" / "ascend.md").read_text()


OPENMIND = {"train.trainer.kind": "openmind", "train.system_prompt": "in_user_turn"}


@pytest.mark.heavy
def test_openmind_that_is_absent_fails(machine: Machine) -> None:
    row = machine.doctor(OPENMIND).rows["openmind"]
    assert (row.state, row.found) == ("fail", "train.trainer.kind: openmind: no program 'openmind-cli'")
    assert "make openmind-env" in row.fix


@pytest.mark.heavy
def test_openmind_is_started_and_its_versions_are_held_against_its_release(machine: Machine) -> None:
    machine.environment["OPENMIND_CLI"] = str(machine.program("openmind-cli", "- `openmind` version: 1.0.0"))
    (machine.bin / "python").symlink_to(sys.executable)
    machine.package("openmind", "1.0.0", "")
    machine.package("peft", "0.14.0", "")
    machine.package("transformers", "4.50.0", "")
    said = machine.doctor(OPENMIND)
    assert said.rows["openmind"].state == "ok"
    assert said.rows["openmind env"].state == "warn"
    assert "transformers 4.50.0 (>=4.39.2,<=4.45.2)" in said.rows["openmind env"].found
    assert "peft" not in said.rows["openmind env"].found


@pytest.mark.heavy
def test_llamafactory_is_checked_as_openmind_is(machine: Machine) -> None:
    machine.npu("2.7.1", "2.7.1.post4")
    machine.environment |= {"NNODES": "2", "RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    factory = NPU | {"train.trainer.kind": "llamafactory"}
    said = machine.doctor(factory)
    assert said.rows["llamafactory"][:2] == ("fail", "train.trainer.kind: llamafactory: no program 'llamafactory-cli'")
    assert "make llamafactory-env" in said.rows["llamafactory"].fix
    assert said.rows["hosts"][:2] == ("fail", "NNODES=2, and not set: NODE_RANK")
    machine.environment["LLAMAFACTORY_CLI"] = str(
        machine.program("llamafactory-cli", "- `llamafactory` version: 0.9.5")
    )
    (machine.bin / "python").symlink_to(sys.executable)
    machine.package("llamafactory", "0.9.5", "")
    machine.package("transformers", "5.7.0", "")
    said = machine.doctor(factory)
    assert said.rows["llamafactory"].state == "ok"
    assert "transformers 5.7.0 (>=4.55.0,<=5.6.0)" in said.rows["llamafactory env"].found


@pytest.mark.heavy
def test_openmind_that_does_not_run_fails_with_its_last_line(machine: Machine) -> None:
    text = "Traceback:\nImportError: libhccl.so"
    machine.environment["OPENMIND_CLI"] = str(machine.program("openmind-cli", text.replace("Traceback", "It"), code=1))
    assert "ImportError: libhccl.so (exit code 1)" in machine.doctor(OPENMIND).rows["openmind"].found


@pytest.mark.heavy
def test_a_key_that_is_needed_and_not_set_fails(machine: Machine) -> None:
    said = machine.doctor(OPENAI)
    assert said.rows["API key"][:2] == ("fail", "API_KEY: not set")
    assert "judge's key" not in said.rows  # the rule decides alone


def test_a_key_is_found_in_both_places_and_never_shown(machine: Machine) -> None:
    (machine.folder / ".env").write_text(f"API_KEY={KEY}\n")
    machine.environment["JUDGE_KEY"] = KEY
    judge = {"filter.strategy": "judge", "run.api_key_variables.judge": "JUDGE_KEY"}
    both = {name.replace("distill.teacher", "filter.judge"): value for name, value in OPENAI.items()} | OPENAI
    student: dict[str, Any] = {"samples": 1, "max_solved": 0, "backend": {"kind": "openai_compatible"}}
    said = machine.doctor(judge | both | {"collect.keep_hard": student})
    assert said.rows["student's key"] == Row("ok", "API_KEY is set", "")
    assert said.rows["API key"] == Row("ok", "API_KEY is set", "")
    assert said.rows["judge's key"] == Row("ok", "JUDGE_KEY is set", "")
    assert KEY not in said.text


def test_a_hub_that_refuses_connections_is_a_warning(machine: Machine) -> None:
    row = machine.doctor(ON_A_HUB).rows["download someone/tiny-1M"]
    assert row.state == "warn"
    assert row.found.startswith("http://127.0.0.1:9 cannot be reached: ")
    assert "train.student.kind: path" in row.fix


@pytest.mark.heavy
def test_a_hub_that_never_answers_is_given_up_after_three_seconds(machine: Machine, silent_hub: str) -> None:
    machine.environment["HF_ENDPOINT"] = machine.environment["MODELSCOPE_ENDPOINT"] = silent_hub
    gsm8k = {"collect.source.kind": "preset"}
    before = time.monotonic()
    said = machine.doctor(ON_A_HUB | gsm8k)
    assert time.monotonic() - before < 20
    for name in ("someone/tiny-1M", "modelscope/gsm8k"):
        assert said.rows[f"download {name}"].state == "warn"


@pytest.mark.heavy
def test_a_hub_is_sent_one_head_and_nothing_else(machine: Machine, hub: tuple[str, list[str]]) -> None:
    machine.environment["HF_ENDPOINT"], asked = hub
    said = machine.doctor(ON_A_HUB)
    assert said.rows["download someone/tiny-1M"] == Row("ok", f"{hub[0]} answers", "")
    assert asked == ["HEAD /"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("source", "variable"), [("modelscope", "MODELSCOPE_ENDPOINT"), ("modelers", "OPENMIND_HUB_ENDPOINT")]
)
def test_the_other_hubs_too(machine: Machine, hub: tuple[str, list[str]], source: str, variable: str) -> None:
    machine.environment[variable], asked = hub
    machine.program("git-lfs", "")
    said = machine.doctor(ON_A_HUB | {"train.student.kind": source})
    assert said.rows["download someone/tiny-1M"] == Row("ok", f"{hub[0]} answers", "")
    assert asked == ["HEAD /"]
    assert said.code == 0, said.text


@pytest.mark.heavy
def test_modelers_without_git_lfs_fails(machine: Machine) -> None:
    machine.environment["OPENMIND_HUB_ENDPOINT"] = "http://127.0.0.1:9"
    machine.environment["PATH"] = str(machine.bin)
    row = machine.doctor(ON_A_HUB | {"train.student.kind": "modelers"}).rows["student"]
    assert row[:2] == ("fail", "neither git-lfs nor openmind_hub is installed")


@pytest.mark.heavy
def test_a_students_revision_that_is_left_open_is_a_warning(machine: Machine) -> None:
    assert "student" not in machine.doctor(ON_A_HUB).rows
    assert machine.doctor(ON_A_HUB | {"train.student.revision": None}).rows["student"].state == "warn"


@pytest.mark.heavy
def test_nothing_is_asked_where_nothing_is_downloaded(machine: Machine, hub: tuple[str, list[str]]) -> None:
    machine.environment["HF_ENDPOINT"] = machine.environment["MODELSCOPE_ENDPOINT"] = hub[0]
    machine.doctor()
    assert not hub[1]


@pytest.mark.heavy
def test_a_copy_in_the_hubs_cache_needs_no_hub(machine: Machine, hub: tuple[str, list[str]]) -> None:
    machine.environment["HF_ENDPOINT"] = hub[0]
    repository = machine.home / "huggingface" / "hub" / "models--someone--tiny-1M"
    snapshot = repository / "snapshots" / ON_A_HUB["train.student.revision"]
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text(json.dumps({}))
    assert machine.doctor(ON_A_HUB).rows["download someone/tiny-1M"] == Row("ok", f"already here: {snapshot}", "")
    assert not hub[1]


@pytest.mark.heavy
def test_offline_without_a_copy_fails(machine: Machine) -> None:
    machine.environment["HF_HUB_OFFLINE"] = "1"
    assert machine.doctor(ON_A_HUB).rows["download someone/tiny-1M"].state == "fail"


@pytest.mark.heavy
def test_a_terminal_without_arrows_gets_the_table_all_the_same(machine: Machine) -> None:
    machine.environment["PYTHONIOENCODING"] = "ascii"
    text = machine.doctor(NPU).text
    assert text.isascii()
    assert "? export PATH=" in text


@pytest.mark.heavy
def test_a_reader_that_goes_away_is_no_traceback(machine: Machine) -> None:
    script = f"{sys.executable} -m stages.lib.doctor --params {machine.params()} | true"
    done = subprocess.run(["bash", "-c", script], env=machine.environment, capture_output=True, text=True)
    assert not done.stderr


def test_a_check_that_breaks_is_a_line_and_the_others_are_still_made() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("disk", "enough")
        raise KeyError("disk")

    _, finding = guarded("disk", broken)
    assert (finding.state, finding.what) == ("warn", "disk")
    assert "KeyError" in finding.found


def test_a_program_that_does_not_end_is_given_up() -> None:
    assert output_of(["sleep", "60"], timeout_s=0.2) == (None, "it did not end within 0.2 s")


def test_make_doctor_runs_it_before_anything_is_set_up(machine: Machine) -> None:
    command = ["make", "-s", "-C", str(ROOT), "doctor", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, env=machine.environment, capture_output=True, text=True)
    assert "params" in rows(done.stdout), done.stderr
