"""Unpack a bundle on a machine without a network: check its sums, place its files, make .venv without an index.

    tar -xf bundle.tar unbundle.py
    python3.11 unbundle.py bundle.tar distillery    # a new folder
    make unbundle FILE=bundle.tar                   # the folder of a clone

This file uses the standard library alone, because there is no environment yet. The bundle holds, in this order:

    bundle.json          the machine that it is for
    unbundle.py          this file
    repository.bundle    git
    wheels/
    place/               files that keep their path in the project
    sums.json            the sha256 of all others

No file is placed before all sums are checked, and no existing file is replaced: where one differs, the bundle's file
goes to .cache/unbundled, and a line names it.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20
NAME = re.compile(r"(?!/)(?!.*(^|/)\.\.?(/|$))[^\0\\]+")


class Refused(Exception):
    """The bundle cannot be unpacked here; the text says why and what to do next."""


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path, help="the file that 'make bundle' wrote")
    parser.add_argument("folder", type=Path, help="the project's folder: a clone of it, or a new folder")
    given = parser.parse_args(arguments)
    try:
        unbundle(given.bundle, given.folder.resolve())
    except tarfile.TarError as error:
        return failed(f"{given.bundle}: incomplete, or not a bundle ({error}). Copy it again.")
    except (Refused, OSError) as error:
        return failed(str(error))
    return 0


def failed(why: str) -> int:
    """Print the one line of an error; return the exit code."""
    print(f"Error: {' '.join(why.split())}", file=sys.stderr)
    return 1


def unbundle(bundle: Path, folder: Path) -> None:
    """Do all steps; Refused, OSError or TarError where one fails."""
    if not bundle.is_file():
        raise Refused(f"{bundle}: no such file. Make it with 'make bundle' on a machine with a network.")
    if folder.exists() and any(folder.iterdir()) and not (folder / ".git").exists():
        raise Refused(f"{folder}: not empty and not a clone of the project. Name a new folder.")
    unpacked = folder.with_name(f".{folder.name}.unbundling-{os.getpid()}")
    unpacked.mkdir(parents=True)
    try:
        about = unpack(bundle, unpacked)
        place_repository(about, unpacked, folder)
        place_files(unpacked / "place", folder)
        shutil.rmtree(folder / ".cache" / "wheels", ignore_errors=True)
        (folder / ".cache").mkdir(exist_ok=True)
        (unpacked / "wheels").rename(folder / ".cache" / "wheels")
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    install(folder)
    for line in about["notes"]:
        say(line)
    say(f"{folder} is ready. Next: cd {folder} && . .venv/bin/activate && dvc checkout; then make repro")


def unpack(bundle: Path, into: Path) -> dict[str, Any]:
    """Unpack and check all files; Refused on a wrong machine, before anything is unpacked, and on a wrong sum."""
    found: dict[str, str] = {}
    about: dict[str, Any] | None = None
    size, done = bundle.stat().st_size, 0
    with tarfile.open(bundle, "r|") as tar:
        for member in tar:
            source = tar.extractfile(member)
            if source is None or not NAME.fullmatch(member.name):
                raise Refused(f"{bundle}: holds '{member.name}', which no bundle of this project does. Make it again.")
            path = into / member.name
            found[member.name] = copied(source, path, member.mode)
            if about is None:
                about = checked_machine(bundle, path)
            if (member.offset_data + member.size) * 20 // size > done:
                done = (member.offset_data + member.size) * 20 // size
                say(f"unpacking: {done * 5} %")
    if about is None or "sums.json" not in found:
        raise Refused(f"{bundle}: incomplete: it has no sums at its end. Copy it again.")
    del found["sums.json"]
    expected = json.loads((into / "sums.json").read_bytes())
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise Refused(f"{bundle}: {len(wrong)} files differ from their sums, '{wrong[0]}' first. Copy it again.")
    say(f"unpacking: {len(found)} files, all sums right")
    return about


def copied(source: IO[bytes], path: Path, mode: int) -> str:
    """Write a member to a file; return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
    path.chmod(mode & 0o777)
    return digest.hexdigest()


def checked_machine(bundle: Path, path: Path) -> dict[str, Any]:
    """The content of bundle.json; Refused where the bundle is for another machine or another Python."""
    if path.name != "bundle.json":
        raise Refused(f"{bundle}: does not begin with bundle.json, so it is not a bundle of this project.")
    about: dict[str, Any] = json.loads(path.read_bytes())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if about["machine"] != platform.machine():
        raise Refused(
            f"{bundle}: for {about['machine']}, and this machine is {platform.machine()}. "
            f"Make it again: make bundle PLATFORM={platform.machine()}"
        )
    if about["python"] != python:
        raise Refused(
            f"{bundle}: for Python {about['python']}, and this is {python}. Run it with python{about['python']}, or "
            f"make the bundle again with PYTHON_VERSION={python}."
        )
    name, version = platform.libc_ver()
    if name == "glibc" and int(version.split(".")[1]) < about["glibc"]:
        raise Refused(
            f"{bundle}: for glibc 2.{about['glibc']} or newer, and this is {version}. "
            f"Make it again: make bundle PLATFORM=manylinux_{version.replace('.', '_')}_{platform.machine()}"
        )
    return about


def place_repository(about: dict[str, Any], unpacked: Path, folder: Path) -> None:
    """Clone the repository at the bundle's commit. In an existing clone, fetch it; the locks must agree."""
    history = unpacked / "repository.bundle"
    if not (folder / ".git").exists():
        git("clone", "--quiet", "--branch", about["branch"], str(history), str(folder))
        return
    git("-C", str(folder), "fetch", "--quiet", str(history), about["branch"])
    if git("-C", str(folder), "rev-parse", "HEAD") != about["commit"]:
        say(f"the bundle's commit {about['commit'][:12]} is fetched and not checked out: git merge FETCH_HEAD")
    for name, sha256 in about["locks"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
            raise Refused(
                f"{folder / name}: not the lock of the bundle's wheels. "
                "Check out the bundle's commit (git merge FETCH_HEAD), and unbundle again."
            )


def git(*arguments: str) -> str:
    """Run git; return its output, or raise Refused with its last line."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Refused("git: not installed, and DVC needs it too. Install git.") from error
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout.strip()


def place_files(source: Path, folder: Path) -> None:
    """Move each file to its path. An existing file with other content stays, and the bundle's is put aside."""
    aside = 0
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source)
        target = folder / name
        if target.exists() and not same(path, target):
            target = folder / ".cache" / "unbundled" / name
            say(f"{name}: exists already with other content and stays; the bundle's is {target}")
            aside += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    if aside and (folder / ".cache" / "unbundled" / "data" / "store" / "answers.jsonl").is_file():
        say("to add its received answers: make store-import FILE=.cache/unbundled/data/store/answers.jsonl")


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            block = first.read(BLOCK)
            if block != second.read(BLOCK):
                return False
            if not block:
                return True


def install(folder: Path) -> None:
    """Run ``make setup`` with the bundle's wheels only: no index, no configuration of pip."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / ".cache" / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | offline
    command = ["make", "--no-print-directory", "-C", str(folder), "setup", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise Refused(f"{folder}: all files are in place, but not the environment; pip says above what is missing.")


def say(line: str) -> None:
    """Print a line on stderr."""
    print(f"unbundle: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
