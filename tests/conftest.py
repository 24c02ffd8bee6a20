"""What tests share: changed copies of params.yaml, rows, the development data, stages run or refused, a teacher.

``make test`` runs them in several processes, the workers of pytest-xdist; ``python -m pytest`` in one. So a test
writes to its tmp_path alone, and listens on a port that is free.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from tests import public_data
from tests.distill_runner import KEY, DistillRunner, Route, Serve, Server
from tests.tiny_student import build_tiny_student
from tests.workspace import ALL, Workspace, wait_until, write_plain_params

ROOT = Path(__file__).resolve().parents[1]
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a tiny student has nothing for a second thread, which waits in a loop
if WORKER:
    for hub in ("HF_HOME", "MODELSCOPE_CACHE"):
        os.environ[hub] = str(ROOT / ".cache" / "tests" / WORKER / hub.lower())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers the first begins with all that needs the finished chain, so that no other waits for it.

    A test with the markers of two targets is refused: it would run twice, or in neither.
    """
    targets = {line.partition(":")[0] for line in config.getini("markers") if "run by 'make " in line}
    for item in items:
        if len(marked := sorted(targets & {mark.name for mark in item.iter_markers()})) > 1:
            raise pytest.UsageError(f"{item.nodeid}: one target runs a test, and these are {' and '.join(marked)}")
    if WORKER:
        items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))


Build = Callable[[Path], None]


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Build], Path]:
    """``built_once("student", build)``: the folder of that name, built by the first worker that wants it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if WORKER else own

    def folder(name: str, build: Build) -> Path:
        done = shared / f"{name} is built"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                build(shared / name)
                done.touch()
        return shared / name

    return folder


@pytest.fixture
def project_params(tmp_path: Path) -> Callable[..., Path]:
    """``project_params({"collect.train_size": 5})``: the path of a copy of params.yaml with these values in it."""

    def write(changes: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "params.yaml"
        write_plain_params(ROOT / "params.yaml", changes or {}, path)
        return path

    return write


@pytest.fixture
def distilled_file(tmp_path: Path) -> Callable[..., Path]:
    """``distilled_file({"response": "5"}, …)``: a file of distilled rows q0, q1, … with these fields changed."""

    def write(*changes: dict[str, Any], name: str = "distilled.jsonl") -> Path:
        row = {
            "question": "What is 2 + 3?",
            "answer": "5",
            "solution": "2 + 3 = 5",
            "source": "chain_sum/train",
            "sample": 0,
            "reasoning": "2 and 3 more is 5.",
            "response": "The answer is 5.",
            "finish_reason": "stop",
            "model": "deepseek-r1",
            "usage": {"completion_tokens": 12},
        }
        lines = [json.dumps({"id": f"q{index}"} | row | change) + "\n" for index, change in enumerate(changes)]
        path = tmp_path / name
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session", params=[public_data.KIND])
def development_data() -> Path:
    """The folder of public data: a test that uses it has in its name whether it ran on the whole files or a sample."""
    assert public_data.FOLDER.is_dir(), f"{public_data.VARIABLE}: {public_data.FOLDER} is no folder"
    return public_data.FOLDER


@pytest.fixture
def runs() -> Callable[..., Result]:
    """``runs(main, "--rows", path, …)``: run a stage's command; it must end well."""

    def run(command: click.Command, *arguments: object) -> Result:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result

    return run


@pytest.fixture
def refuses(tmp_path: Path) -> Callable[..., str]:
    """``refuses(main, "--rows", path, …)``: the one line on stderr of a command that must end with exit code 1.

    A traceback, a second line or a half-written file under tmp_path fails the test.
    """

    def run(command: click.Command, *arguments: object) -> str:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert not list(tmp_path.rglob("*.tmp"))
        return result.stderr.removeprefix("Error: ").rstrip("\n")

    return run


@pytest.fixture(scope="session")
def tiny_student(built_once: Callable[[str, Build], Path]) -> Path:
    """A random Qwen2 of two layers with a BPE tokenizer and a ChatML template: the smallest student there is."""
    return built_once("student", build_tiny_student)


@pytest.fixture(scope="session")
def tiny_teacher(built_once: Callable[[str, Build], Path], tiny_student: Path) -> Path:
    """Other random weights with the student's tokenizer, and sharper: a likeliest token has some tenths."""

    def build(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        shutil.copytree(tiny_student, folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        torch.manual_seed(7)
        for each in model.parameters():
            each.data += 0.2 * torch.randn_like(each)
        model.save_pretrained(folder)

    return built_once("teacher", build)


@pytest.fixture(scope="session")
def older_student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student in the form in which Qwen2.5 is published: its normalizer, its way of splitting, its class."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("older") / "student"
    shutil.copytree(tiny_student, folder)
    qwen = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = qwen.normalizer, qwen.pre_tokenizer, qwen.decoder
    rows = json.loads((folder / "config.json").read_bytes())["vocab_size"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = list(json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"])[3 : 3 + 256]
    trainer = trainers.BpeTrainer(vocab_size=rows, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["The answer is 12. 7 + 5 = 12 先想 thinking things think"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "Qwen2Tokenizer"}))
    return folder


@pytest.fixture
def tiny_params(project_params: Callable[..., Path], tiny_student: Path) -> Callable[..., Path]:
    """``project_params`` with the tiny student for the real one, and one thread."""

    def write(changes: dict[str, Any] | None = None) -> Path:
        student = {"train.student.kind": "path", "train.student.name": str(tiny_student), "run.threads": 1}
        return project_params(student | (changes or {}))

    return write


@pytest.fixture(scope="session")
def finished(built_once: Callable[[str, Build], Path], tiny_student: Path) -> Workspace:
    """A workspace in which the whole chain ran once and was committed: to be copied, as ``workspace`` does.

    Nothing may run in it: another worker may be copying it.
    """

    def build(folder: Path) -> None:
        workspace = Workspace.of_the_repository(folder, tiny_student)
        assert workspace.repro() == ALL
        workspace.commit()

    return Workspace(built_once("a 工作 space", build))


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the finished workspace, for a test to change."""
    shutil.copytree(finished.folder, tmp_path / "space", symlinks=True)
    yield Workspace(tmp_path / "space")
    shutil.rmtree(tmp_path / "space")


@pytest.fixture
def runner(tmp_path: Path, project_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> DistillRunner:
    """A folder to run distill in, as ``tests/distill_runner.py`` has it: no proxy, a key in the environment."""
    runner = DistillRunner(tmp_path, project_params)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DISTILLERY_EMBEDDED_REQUESTS", str(runner.requests))
    monkeypatch.setenv("API_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return runner


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(route)``: a real server that answers as the route says; it is closed after the test."""
    servers: list[Server] = []

    def start(route: Route, port: int = 0) -> Server:
        servers.append(Server(route, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    """The address of a local S3 server without a bucket."""
    said = tmp_path / "what the server said"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with said.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_until(lambda: server.poll() is not None or "Running on" in said.read_text())
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", said.read_text())
            assert found, said.read_text()
            yield found[1]
        finally:
            server.terminate()
