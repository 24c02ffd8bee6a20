"""The command lines of servers: vLLM's, which is vLLM-Ascend's too, and llama.cpp's.

    vllm(arm, 8000, seed=3)     → ["vllm", "serve", "models/filtered", "--served-model-name", "filtered", …]

vLLM's options: https://docs.vllm.ai/en/stable/cli/serve/; llama.cpp's: tools/server/README.md in its repository.
"""

import shlex
import shutil
import sys

from stages.lib.params import Run
from stages.lib.runtime.devices import visible_cards
from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm
from stages.lib.serving.gguf import gguf_file

HOST = "127.0.0.1"


def vllm(arm: Arm, port: int, seed: int) -> list[str]:
    """``--generation-config vllm``: no sampling values of the student's own, which a client would not see."""
    options = {
        "served-model-name": arm.name,
        "host": HOST,
        "port": str(port),
        "dtype": arm.dtype,
        "max-model-len": str(arm.context),
        "generation-config": "vllm",
        "seed": str(seed),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["vllm", "serve", str(arm.folder), *words]


def llama_cpp(arm: Arm, port: int, threads: int) -> list[str]:
    """llama.cpp's own server, or the same one in the package xllamacpp. It reads the GGUF that ``make gguf`` wrote."""
    file = gguf_file(arm)
    if not file.is_file() or file.stat().st_mtime < max(path.stat().st_mtime for path in arm.folder.iterdir()):
        state = "older than the weights" if file.is_file() else "no such file"
        raise ServingError(f"{file}: {state}. Run 'make gguf ARM={arm.name}' first.")
    server = [sys.executable, "-m", "stages.lib.serving.llama_cpp"]
    if program := shutil.which("llama-server"):
        server = [program, "--reasoning-format", "none"]  # the thought stays in the text, as with vLLM
    options = ["--model", str(file), "--alias", arm.name, "--host", HOST, "--port", str(port)]
    return [*server, *options, "--ctx-size", str(arm.context), "--threads", str(threads)]


def line_of(command: list[str], cards: dict[str, str]) -> str:
    """A command as it is typed in a shell, with its variables."""
    return " ".join([*(f"{name}={value}" for name, value in cards.items()), shlex.join(command)])


def cards_of(run: Run) -> dict[str, str]:
    """The variable that limits a server to the first card of ``run.device``; none on a CPU."""
    return visible_cards(run.device, 1)


def missing_program(command: list[str], device: str) -> str:
    """What to do if the server's program is not installed; empty if it is."""
    if shutil.which(command[0]):
        return ""
    package = "vllm and vllm-ascend" if device.startswith("npu") else "vllm"
    return (
        f"no program '{command[0]}' here. Install {package} in an environment of its own and put it on PATH, run the "
        "line on another host, or use SERVER=llama.cpp."
    )
