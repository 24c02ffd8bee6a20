"""A Python environment, ours or a trainer's: its library versions, and how many cards its torch finds."""

import json
from dataclasses import dataclass
from pathlib import Path

from stages.lib.doctor import last_line, output_of

PROBE = Path(__file__).with_name("probe.py")
PROBE_S = 120  # importing torch takes 3 s, and ten times that on a slow disk
PACKAGES = (
    *("torch", "torch-npu", "transformers", "accelerate", "deepspeed", "peft", "trl", "datasets"),
    *("openmind", "llamafactory", "ms-swift"),
)


@dataclass(frozen=True)
class Environment:
    """The result of probe.py: versions by package, errors, numbers of cards."""

    python: str
    versions: dict[str, str]
    torch_error: str = ""
    npu_error: str = ""
    cuda: int = 0
    npu: int = 0


def inspect_environment(python: str) -> Environment:
    """Inspect the environment of a Python program in a separate process."""
    code, text = output_of([python, "-c", PROBE.read_text(encoding="utf-8"), *PACKAGES], PROBE_S)
    if code != 0:
        return Environment(python, {}, torch_error=f"{python}: {last_line(text)} (exit code {code})")
    return Environment(python, **json.loads(text.strip().splitlines()[-1]))
