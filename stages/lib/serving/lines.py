"""The command lines of servers: vLLM's, which is vLLM-Ascend's too, SGLang's and llama.cpp's.

    vllm(arm, 8000, seed=3)     → ["vllm", "serve", "models/filtered", "--served-model-name", "filtered", …]
    replica(Teacher(…), 8001, cards=4)    → the line of one of a teacher's servers

Options: of vLLM https://docs.vllm.ai/en/stable/cli/serve/, of SGLang
https://docs.sglang.io/advanced_features/server_arguments.html, of llama.cpp tools/server/README.md in its repository.
"""

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from stages.lib.params import Run
from stages.lib.runtime.devices import visible_cards
from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm
from stages.lib.serving.gguf import gguf_file

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Teacher:
    """A model to be served: its id, folder or GGUF file, the name for clients, the engine, its reasoning parser."""

    model: str
    name: str
    engine: str
    host: str
    parser: str | None
    threads: int
    options: tuple[str, ...] = ()


def vllm(arm: Arm, port: int, seed: int) -> list[str]:
    """``--generation-config vllm``: no sampling values of the student's own, which a client would not see."""
    options = {"dtype": arm.dtype, "max-model-len": arm.context, "generation-config": "vllm", "seed": seed}
    return ["vllm", "serve", str(arm.folder), *_words(_named(arm.name, HOST, port) | options)]


def llama_cpp(arm: Arm, port: int, threads: int) -> list[str]:
    """llama.cpp's server of the GGUF that ``make gguf`` wrote; the thought stays in the text, as with vLLM."""
    file = gguf_file(arm)
    if not file.is_file() or file.stat().st_mtime < max(path.stat().st_mtime for path in arm.folder.iterdir()):
        state = "older than the weights" if file.is_file() else "no such file"
        raise ServingError(f"{file}: {state}. Run 'make gguf ARM={arm.name}' first.")
    options = {"ctx-size": arm.context, "threads": threads, "reasoning-format": "none"}
    return [*_llama_server(), "--model", str(file), *_words(_llama_named(arm.name, HOST, port) | options)]


def replica(teacher: Teacher, port: int, cards: int) -> list[str]:
    """One of a teacher's servers; its weights are split over ``cards`` (tensor parallelism) if those are several."""
    named = _named(teacher.name, teacher.host, port)
    parser = {"reasoning-parser": teacher.parser} if teacher.parser else {}
    if teacher.engine == "llama.cpp":
        if not Path(teacher.model).is_file():
            raise ServingError(f"MODEL={teacher.model}: no such file. llama.cpp serves a GGUF file.")
        options = {"threads": teacher.threads, "reasoning-format": teacher.parser or "none"}
        named = _llama_named(teacher.name, teacher.host, port)
        return [*_llama_server(), "--model", teacher.model, *_words(named | options), *teacher.options]
    if teacher.engine == "sglang":
        split = {"tp-size": cards} if cards > 1 else {}
        return ["sglang", "serve", "--model-path", teacher.model, *_words(named | split | parser), *teacher.options]
    split = {"tensor-parallel-size": cards} if cards > 1 else {}
    return ["vllm", "serve", teacher.model, *_words(named | split | parser), *teacher.options]


def _named(name: str, host: str, port: int) -> dict[str, object]:
    return {"served-model-name": name, "host": host, "port": port}


def _llama_named(name: str, host: str, port: int) -> dict[str, object]:
    return {"alias": name, "host": host, "port": port}


def _words(options: dict[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _llama_server() -> list[str]:
    """llama.cpp's own server if it is on PATH, or the same one in the package xllamacpp."""
    program = shutil.which("llama-server")
    return [program] if program else [sys.executable, "-m", "stages.lib.serving.llama_cpp"]


def line_of(command: list[str], cards: dict[str, str]) -> str:
    """A command as it is typed in a shell, with its variables."""
    return " ".join([*(f"{name}={value}" for name, value in cards.items()), shlex.join(command)])


def cards_of(run: Run) -> dict[str, str]:
    """The variable that limits a server to the first card of ``run.device``; none on a CPU."""
    return visible_cards(run.device, 1)


def missing_program(command: list[str], device: str, otherwise: str = "SERVER=llama.cpp") -> str:
    """What to do if the server's program is not installed; empty if it is."""
    if shutil.which(command[0]):
        return ""
    package = "vllm and vllm-ascend" if device.startswith("npu") and command[0] == "vllm" else command[0]
    return (
        f"no program '{command[0]}' here. Install {package} in an environment of its own and put it on PATH, run the "
        f"line on another host, or use {otherwise}."
    )
