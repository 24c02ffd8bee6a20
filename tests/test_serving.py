"""Serving: the lines, the comparison, the export; and the whole way with llama.cpp's own converter and server."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import Result

from stages.lib.params import load_params
from stages.lib.rows import write_rows
from stages.lib.rows.question import Question, Turn
from stages.lib.serving.__main__ import main as serve
from stages.lib.serving.arms import Expected, arm_of, messages_of
from stages.lib.serving.asking import Compared
from stages.lib.serving.gguf import main as gguf
from stages.lib.serving.lines import cards_of

ROOT = Path(__file__).resolve().parents[1]
Params = Callable[..., Path]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLAMA_CPP", raising=False)


@pytest.fixture
def trained(tmp_path: Path, tiny_student: Path) -> Path:
    """A trained arm's folder: the tiny student's files, under the arm's name."""
    return Path(shutil.copytree(tiny_student, tmp_path / "models" / "filtered"))


def test_the_line_of_an_arm(trained: Path, tiny_params: Params, runs: Callable[..., Result]) -> None:
    line = "vllm serve models/filtered --served-model-name filtered --host 127.0.0.1 --port 8000 --dtype float32 "
    line += "--max-model-len 640 --generation-config vllm --seed 3 --tensor-parallel-size 2\n"
    assert (
        runs(serve, "--arm", "filtered", "--options=--tensor-parallel-size 2", "--params", tiny_params()).stdout == line
    )


@pytest.mark.parametrize(
    ("device", "cards"),
    [
        ("npu", {"ASCEND_RT_VISIBLE_DEVICES": "0"}),
        ("npu:3", {"ASCEND_RT_VISIBLE_DEVICES": "3"}),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cpu", {}),
    ],
)
def test_the_card_of_the_line(
    device: str, cards: dict[str, str], tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert cards_of(load_params(tiny_params({"run.device": device})).run) == cards


def test_the_context_is_no_longer_than_the_students(trained: Path, tiny_params: Params) -> None:
    params = load_params(tiny_params({"arms.filtered.cutoff_len": 4096}))
    assert arm_of("filtered", params).context == 1024


def test_a_question_is_asked_as_in_the_evaluation(trained: Path, tiny_params: Params) -> None:
    arm = arm_of("filtered", load_params(tiny_params()))
    plain = Question(id="q0", question="What is 2 + 3?", answer="5")
    system = {"role": "system", "content": (ROOT / "stages" / "prompts" / "brief.txt").read_text()}
    assert messages_of(arm, plain) == [system, {"role": "user", "content": "What is 2 + 3?"}]
    turns = [Turn(role="user", content="Hi"), Turn(role="assistant", content="Yes?")]
    own = plain.model_copy(update={"history": turns, "system": "Be kind."})
    assert [turn["content"] for turn in messages_of(arm, own)] == ["Be kind.", "Hi", "Yes?", "What is 2 + 3?"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arm", "new"], "params.yaml: arms: no arm 'new'. Known: base, unfiltered, filtered."),
        (["--arm", "unfiltered"], "models/unfiltered: no trained model there. Run 'make train ARM=unfiltered'."),
        (["--arm", "filtered", "--run"], "no program 'vllm' here. Install vllm in an environment of its own"),
        (
            ["--arm", "filtered", "--server", "llama.cpp"],
            "filtered.gguf: no such file. Run 'make gguf ARM=filtered' first.",
        ),
    ],
)
def test_what_cannot_be_served_says_what_to_do(
    arguments: list[str], said: str, trained: Path, tiny_params: Params, refuses: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert said in refuses(serve, *arguments, "--params", tiny_params())


def test_a_gguf_older_than_the_weights_is_not_served(
    trained: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    file = Path(".cache/gguf/filtered.gguf")
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (1, 1))
    said = refuses(serve, "--arm", "filtered", "--server", "llama.cpp", "--params", tiny_params())
    assert said == ".cache/gguf/filtered.gguf: older than the weights. Run 'make gguf ARM=filtered' first."


def test_an_export_without_the_converter_and_one_that_fails(
    trained: Path, tiny_params: Params, tmp_path: Path, refuses: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--arm", "filtered", "--params", tiny_params()]
    assert "convert_hf_to_gguf.py: no such file. Get llama.cpp ('git clone" in refuses(gguf, *arguments)
    (tmp_path / "convert_hf_to_gguf.py").write_text("import a_package_of_llama\n")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    said = refuses(gguf, *arguments)
    assert said.startswith("convert_hf_to_gguf.py failed: ModuleNotFoundError: No module named 'a_package_of_llama'")
    assert said.endswith("Install a_package_of_llama, which llama.cpp's converter needs.")
    assert not Path(".cache/gguf/filtered.gguf").exists()


@pytest.mark.parametrize(
    ("answer", "prompt", "lines"),
    [
        ("9 - 4 = 5\n", (20, 20), ["q0: same: 9 - 4 = 5"]),
        ("9 - 4 = 6", (20, 20), ["q0: different from word 5 on", "  hf:     9 - 4 = 5", "  server: 9 - 4 = 6"]),
        ("9 - 4", (20, None), ["q0: different from word 4 on", "  hf:     9 - 4 = 5", "  server: 9 - 4"]),
        ("9 - 4 = 5", (21, 20), ["q0: the server's prompt has 21 tokens, the evaluation's 20", "q0: same: 9 - 4 = 5"]),
    ],
)
def test_two_answers_side_by_side(answer: str, prompt: tuple[int | None, int | None], lines: list[str]) -> None:
    assert list(Compared(Expected("q0", [], "", "9 - 4 = 5"), answer, prompt).lines()) == lines


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's converter: a checkout in LLAMA_CPP, or that in the source package of xllamacpp in the lock.

    pip has no option that only unpacks a source package, so it tries to build and keeps what it unpacked.
    """
    if checkout := os.environ.get("LLAMA_CPP"):
        return Path(checkout).resolve()
    folder = tmp_path_factory.mktemp("llama")
    command = [sys.executable, "-m", "pip", "download", "--no-clean", "--no-build-isolation", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), f"xllamacpp=={version('xllamacpp')}"]
    done = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    for archive in folder.glob("*.tar.gz"):  # where it could build
        shutil.unpack_archive(archive, folder)
    found = next(folder.rglob("convert_hf_to_gguf.py"), None)
    assert found, done.stdout + done.stderr
    return found.parent


@pytest.mark.slow
def test_the_student_exported_and_served_by_llama_cpp_answers_as_hf(
    llama_cpp: Path, project_params: Params, runs: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SmolLM2 through the real converter and the real server; transformers generates what it is compared with."""
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp))
    params = project_params({"evaluate.max_gen_toks": 12, "run.threads": 1})
    questions = [Question(id=f"q{n}", question=f"What is {n} + 3?", answer=str(n + 3)) for n in (2, 4, 6)]
    write_rows(Path("data/heldout.jsonl"), questions)
    runs(gguf, "--arm", "base", "--params", params)
    served = ["--arm", "base", "--server", "llama.cpp", "--run", "--stop", "--port", free_port()]
    shown = runs(serve, *served, "--params", params).stdout.splitlines()
    assert [line for line in shown if "the server's prompt has" in line] == []
    assert shown[-1] == "3 of 3 answers are the same as hf's"
