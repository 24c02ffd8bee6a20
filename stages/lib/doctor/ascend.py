"""Ascend NPUs: the driver (npu-smi), CANN (set_env.sh), torch_npu, and whether their versions match.

The table of matching torch_npu, torch and CANN is the published one, read on 2026-11-23 (the two pages differ in the
post releases for CANN 9.1.0; both are here):
https://github.com/Ascend/pytorch/blob/b48e64812a56717e36110acd4f8f3cb748cbed9d/COMPATIBILITY.en.md
https://github.com/Ascend/pytorch/blob/031eec5ca64bd2a5a02de212f5f0c30dfb392213/COMPATIBILITY.md
The formats of CANN's files and of npu-smi's table are those of the public documentation. This module never ran on an
NPU.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from stages.lib.doctor import Finding, fail, last_line, ok, output_of, warn
from stages.lib.doctor.environment import Environment

# CANN -> its torch_npu versions; torch_npu 2.1.0.post8 is for torch 2.1.0
TORCH_NPU_OF_CANN = {
    "9.1.0": "2.12.0 2.11.0 2.10.0 2.10.0.post4 2.9.0.post3 2.9.0.post6 2.7.1.post5 2.7.1.post8",
    "9.0.0": "2.9.0.post2 2.8.0.post4 2.7.1.post4",
    "8.5.0": "2.9.0 2.8.0.post2 2.7.1.post2 2.6.0.post5",
    "8.3.RC1": "2.8.0 2.7.1 2.6.0.post3 2.1.0.post17",
    "8.2.RC1": "2.6.0 2.5.1.post1 2.1.0.post13",
    "8.1.RC1": "2.5.1 2.4.0.post4 2.3.1.post6 2.1.0.post12",
    "8.0.0": "2.4.0.post2 2.3.1.post4 2.1.0.post10",
    "8.0.RC3": "2.4.0 2.3.1.post2 2.1.0.post8",
    "8.0.RC2": "2.3.1 2.2.0.post2 2.1.0.post6",
    "8.0.RC1": "2.2.0 2.1.0.post4",
}
CANN_OF = {version: cann for cann, versions in TORCH_NPU_OF_CANN.items() for version in versions.split()}
PLACES = ("/usr/local/Ascend", "~/Ascend")
SCRIPTS = ("cann/set_env.sh", "cann-*/set_env.sh", "ascend-toolkit/set_env.sh")
# | 0     910B3               | OK            | 95.6        40                0    / 0             |
CARD = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*([A-Za-z]+)\s*\|", re.MULTILINE)


def driver() -> Iterator[Finding]:
    """The cards that npu-smi lists, and their health."""
    program = shutil.which("npu-smi")
    if program is None:
        fix = "export PATH=$PATH:/usr/local/sbin, or install the driver; in a container, mount npu-smi"
        yield warn("npu-smi", "not in the PATH, so the driver was not checked", fix)
        return
    code, text = output_of([program, "info"], 30)
    cards = CARD.findall(text)
    unhealthy = [f"{number} {health}" for number, _, health in cards if health != "OK"]
    if code != 0 or not cards:
        yield fail(
            "npu-smi",
            f"no card: {last_line(text)}",
            "check npu-smi info, the driver, /dev/davinci*",
        )
    elif unhealthy:
        yield warn(
            "npu-smi",
            f"{len(cards)} cards, of which not OK: {', '.join(unhealthy)}",
            "npu-smi info -t health -i NUMBER",
        )
    else:
        yield ok("npu-smi", f"{len(cards)} cards ({cards[0][1]}), all OK")


def cann() -> Iterator[Finding]:
    """CANN in this shell: its set_env.sh sets ASCEND_HOME_PATH."""
    home = cann_home()
    if home is None:
        yield fail("CANN", "not sourced: ASCEND_HOME_PATH is not set", source_command())
    elif not home.is_dir():
        yield fail("CANN", f"ASCEND_HOME_PATH names {home}, which does not exist", source_command())
    else:
        yield ok("CANN", f"{cann_version(home) or 'of unknown version'} in {home}")


def variables(rank: str) -> Iterator[Finding]:
    """Environment variables for cards and hosts whose values would not work as intended (docs/ascend.md).

    ``rank`` is the name of the variable that the trainer reads this host's number from.
    """
    cards = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if cards is not None and (not re.fullmatch(r"\d+(,\d+)*", cards) or not ascending(cards)):
        fix = "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3: ascending, without spaces"
        yield warn("cards", f"ASCEND_RT_VISIBLE_DEVICES={cards!r}: what follows another sign is ignored", fix)
    hosts = os.environ.get("NNODES", "1")
    missing = [name for name in (rank, "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if hosts == "1":
        return
    if missing:
        found = f"NNODES={hosts}, and not set: {', '.join(missing)}"
        yield fail("hosts", found, f"export {missing[0]}=…, on each host (docs/ascend.md)")
    elif "HCCL_CONNECT_TIMEOUT" not in os.environ:
        found = f"{hosts} hosts, and their cards wait 120 s for each other to connect"
        yield warn("hosts", found, "export HCCL_CONNECT_TIMEOUT=1800, on each host")
    else:
        yield ok("hosts", f"{hosts}, met at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")


def ascending(cards: str) -> bool:
    """Whether card numbers such as 0,1,3 are in ascending order."""
    numbers = [int(number) for number in cards.split(",")]
    return numbers == sorted(set(numbers))


def torch_npu(what: str, there: Environment, index: int = 0) -> Iterator[Finding]:
    """Check torch_npu in one environment: installed, for the installed torch and CANN, with card ``index``."""
    torch, npu = (there.versions.get(name, "").partition("+")[0] for name in ("torch", "torch-npu"))
    install = f"{there.python} -m pip install torch-npu=={matching_torch_npu(torch)}"
    if not npu:
        yield fail(what, f"not installed beside torch {torch or '(none)'}", install)
    elif base(npu) != torch:
        yield fail(what, f"{npu} is for torch {base(npu)}, and torch is {torch or 'not installed'}", install)
    elif there.torch_error or there.npu_error:
        fix = source_command() if cann_home() is None else f"{there.python} -c 'import torch_npu' shows the full error"
        yield fail(what, f"{npu}: {(there.npu_error or there.torch_error)[:120]}", fix)
    elif there.npu <= index:
        fix = "check ASCEND_RT_VISIBLE_DEVICES; a container needs /dev/davinci* and the driver's folder"
        yield fail(what, f"{npu} sees {there.npu} cards, the training needs them up to npu:{index}", fix)
    else:
        yield ok(what, f"{npu} with torch {torch}, {there.npu} cards")
    if npu:
        yield from support(what, npu)


def support(what: str, npu: str) -> Iterator[Finding]:
    """Check torch_npu and CANN against the published table."""
    home = cann_home()
    version, meant = cann_version(home) if home else None, CANN_OF.get(npu)
    known = ", ".join(f"{each} (CANN {cann})" for each, cann in CANN_OF.items() if base(each) == base(npu))
    if meant is None:
        fix = f"install one of {known}" if known else "see the release notes of torch_npu for its CANN"
        yield warn(f"{what} support", f"{npu} is not in the published table (docs/ascend.md)", fix)
    elif version and version.upper() != meant:
        fix = f"install CANN {meant}" + (f", or a torch_npu of {known}" if known else "")
        yield warn(f"{what} support", f"{npu} is published for CANN {meant}, this is {version}", fix)
    else:
        yield ok(f"{what} support", f"{npu} is published for CANN {meant}")


def base(npu: str) -> str:
    """The torch version of a torch_npu: 2.1.0 for 2.1.0.post8."""
    return re.split(r"\.post|\.?rc", npu)[0]


def matching_torch_npu(torch: str) -> str:
    """The torch_npu for a torch: the one for this CANN, else the newest, else the same version number."""
    home = cann_home()
    here = (cann_version(home) or "").upper() if home else ""
    versions = [each for each in CANN_OF if base(each) == torch]
    return next((each for each in versions if CANN_OF[each] == here), versions[0] if versions else torch)


def cann_home() -> Path | None:
    """The folder of the sourced CANN."""
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    return Path(home) if home else None


def cann_version(home: Path) -> str | None:
    """``8.0.RC3``, from the toolkit's install.info."""
    for file in sorted([*home.glob("*-linux/ascend_toolkit_install.info"), *home.glob("ascend_toolkit_install.info")]):
        found = re.search(r"^version\s*=\s*(\S+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if found:
            return found[1]
    return None


def source_command() -> str:
    """The command that sources the installed CANN."""
    folders = [Path(place).expanduser() for place in PLACES]
    scripts = [script for folder in folders for name in SCRIPTS for script in sorted(folder.glob(name))]
    if scripts:
        return f"source {scripts[0]}"
    return "install CANN (hiascend.com/cann), then: source /usr/local/Ascend/ascend-toolkit/set_env.sh"
