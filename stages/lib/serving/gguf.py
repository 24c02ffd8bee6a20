"""Export an arm as GGUF, by llama.cpp's own converter.

    python -m stages.lib.serving.gguf --arm filtered            # .cache/gguf/filtered.gguf: make gguf ARM=filtered
    python -m stages.lib.serving.gguf --arm filtered --out f.gguf --type q8_0

The converter, convert_hf_to_gguf.py, is in no package. It is looked for in the folder LLAMA_CPP, a checkout of
https://github.com/ggml-org/llama.cpp, and then on PATH.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

from stages.lib.command import WRITE, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm, arm_of, saved_dtype
from stages.lib.serving.processes import last_words

log = logging.getLogger("distillery.gguf")

CONVERTER = "convert_hf_to_gguf.py"
FOLDER = Path(".cache/gguf")
TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}  # the converter's names; they lose nothing


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--arm", "arm_name", required=True, help="An arm of params.yaml, or 'base'.")
@click.option("--out", type=WRITE, help="The GGUF file, written; by default .cache/gguf/ARM.gguf.")
@click.option("--type", "outtype", help="The converter's --outtype, such as q8_0; by default that of the weights.")
@params_option
@one_line_errors
def main(arm_name: str, out: Path | None, outtype: str | None, params_path: Path) -> None:
    arm = arm_of(arm_name, load_params(params_path))
    file = out or gguf_file(arm)
    convert(arm.folder, file, outtype or TYPES.get(saved_dtype(arm.folder), "auto"))
    log.info("gguf: %s: %s (%.0f MB)", arm.name, file, file.stat().st_size / 1e6)


def gguf_file(arm: Arm) -> Path:
    """Where ``make gguf`` writes an arm by default, and ``make serve`` reads it."""
    return FOLDER / f"{arm.name}.gguf"


def converter() -> Path:
    """llama.cpp's script; ServingError if it is not found."""
    checkout = os.environ.get("LLAMA_CPP")
    found = Path(checkout) / CONVERTER if checkout else Path(shutil.which(CONVERTER) or CONVERTER)
    if not found.is_file():
        raise ServingError(
            f"{found}: no such file. Get llama.cpp ('git clone --depth 1 https://github.com/ggml-org/llama.cpp') and "
            "name its folder: LLAMA_CPP=llama.cpp."
        )
    return found.resolve()


def convert(folder: Path, out: Path, outtype: str) -> None:
    """Write the GGUF file completely or not at all; the converter's output is on stderr and in a log."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished, log_path = out.with_name(f".{out.name}.tmp"), out.with_suffix(".log")
    command = [sys.executable, str(converter()), str(folder), "--outfile", str(unfinished), "--outtype", outtype]
    log.info("gguf: converting %s (log: %s)", folder, log_path)
    try:
        with log_path.open("wb") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode or not unfinished.is_file():
            raise ServingError(f"{CONVERTER} failed: {last_words(log_path)} (log: {log_path}).{advice(log_path)}")
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def advice(log_path: Path) -> str:
    """What to install if the converter lacks a package."""
    lacking = re.search(r"No module named '([a-z_0-9]+)'", log_path.read_text(errors="replace"))
    return f" Install {lacking[1]}, which llama.cpp's converter needs." if lacking else ""


if __name__ == "__main__":
    main()
