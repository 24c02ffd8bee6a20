"""Check what the profile names: files, keys, and downloads.

The only network requests of the doctor are here: a HEAD to each hub that the profile still downloads from, and a
greeting to the head of the Ray cluster that run.engine names.
"""

import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.lib.cluster.connection import reached
from stages.lib.command import DistilleryError, project_root
from stages.lib.doctor import Finding, fail, ok, warn
from stages.lib.params import (
    ChainSum,
    InPreset,
    Params,
    Published,
    PublishedStudent,
    RayEngine,
    Role,
    ServedTeacher,
    Student,
    Teacher,
    judge_of,
    preset_named,
    trace_preset_named,
)

HEAD_S = 3.0
# the variable with a hub's address, and the address where it is not set
ENDPOINTS = {
    "hub": ("HF_ENDPOINT", "https://huggingface.co"),
    "modelscope": ("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn"),
    "modelers": ("OPENMIND_HUB_ENDPOINT", "https://modelers.cn"),
}
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True)
class Download:
    """A download from a hub: its key in params, the hub, its name, the local copy, and the way without a network."""

    key: str
    hub: str
    name: str
    copy: Path | None
    alternative: str


def files(params: Params) -> Iterator[Finding]:
    """Check that the files and folders in params exist."""
    named = list(named_files(params))
    missing = [(key, path) for key, path in named if not path.exists()]
    for key, path in missing:
        yield fail("files", f"{key}: {path} does not exist", f"put it there, or change {key}")
    if not missing:
        yield ok("files", f"{len(named)} named, all exist" if named else "none named")


def named_files(params: Params) -> Iterator[tuple[str, Path]]:
    """Each key that names a path on this machine, and the file that must exist."""
    student, collect = params.train.student, params.collect
    if student.kind == "path":
        yield "train.student.name", Path(student.name).expanduser() / "config.json"
    for key, (origin, place) in tables(params):
        if (origin == "file" or is_path(place)) and "://" not in place and not set("*?[") & set(place):
            yield f"{key}.path", Path(place).expanduser()
    for benchmark, path in collect.contamination.benchmarks.items():
        yield f"collect.contamination.benchmarks.{benchmark}", Path(path).expanduser()
    if params.train.deepspeed:
        yield "train.deepspeed", deepspeed_settings(params.train.deepspeed)


def deepspeed_settings(name: str) -> Path:
    """The path of DeepSpeed's settings: in the checkout of openMind if they are there, else in the project."""
    checkout = os.environ.get("OPENMIND_SRC")
    elsewhere = Path(checkout) / name if checkout else None
    return elsewhere if elsewhere and elsewhere.is_file() else project_root() / name


def cluster(params: Params) -> Iterator[Finding]:
    """Check that ray is installed and that a cluster listens, where ``run.engine`` names one."""
    engine = params.run.engine
    if not isinstance(engine, RayEngine):
        return
    try:
        reached(engine)
        yield ok("cluster", f"{engine.address}: {'not checked' if engine.address == 'auto' else 'listens'}")
    except DistilleryError as error:
        found, _, fix = str(error).partition(". ")
        yield fail("cluster", found, fix)


def keys(params: Params) -> Iterator[Finding]:
    """Check that the keys of the teacher, of the judges and of a served student are set; never print them."""
    yield key("API key", params.distill.teacher, params, "teacher")
    if judge := judge_of(params.filter):
        yield key("judge's key", judge, params, "judge")
    if params.prefer:
        yield key("prefer's key", params.prefer.judge, params, "prefer")
    keep_hard = params.collect.keep_hard
    if keep_hard and isinstance(keep_hard.backend, ServedTeacher):
        yield key("student's key", keep_hard.backend, params, "student")


def key(what: str, teacher: Teacher, params: Params, role: Role) -> Finding:
    """Check the keys of a model's servers as the stage would."""
    from stages.lib.teacher.backends.openai_compatible import connect

    if not isinstance(teacher, ServedTeacher):
        return ok(what, "not needed: embedded")
    if params.run.offline:
        return ok(what, "not needed: run.offline")
    try:
        with connect(teacher, params.run, role) as endpoints:
            variables = dict.fromkeys(endpoint.key_variable for endpoint in endpoints)
            return ok(what, f"{' and '.join(variables)} {'are' if len(variables) > 1 else 'is'} set")
    except DistilleryError as error:
        found, _, fix = str(error).partition(". ")
        return fail(what, found, fix)


def downloads(params: Params) -> Iterator[Finding]:
    """Check each download: a copy exists, or the hub answers."""
    yield from pinned(params.train.student)
    wanted = list(named_downloads(params))
    answers = heads({endpoint(item.hub) for item in wanted if not item.copy})
    for item in wanted:
        what, address = f"download {item.name}", endpoint(item.hub)
        if item.copy:
            yield ok(what, f"already here: {item.copy}")
        elif offline(item.hub):
            yield fail(what, "no copy here, and HF_HUB_OFFLINE is set", f"unset HF_HUB_OFFLINE, or {item.alternative}")
        elif answers[address]:
            yield warn(what, f"{address} cannot be reached: {answers[address]}", mirror(item))
        else:
            yield ok(what, f"{address} answers")
    if not wanted:
        yield ok("downloads", "not needed")


def pinned(student: Student) -> Iterator[Finding]:
    """Check that a hub's student has a fixed revision, and that Modelers' can be downloaded."""
    if isinstance(student, PublishedStudent) and student.revision is None:
        found = "train.student.revision is null: the newest on the hub, which may change"
        yield warn("student", found, "set it to a commit or a tag of that repository")
    programs = shutil.which("git") and shutil.which("git-lfs")
    if student.kind == "modelers" and not (programs or find_spec("openmind_hub") or local_student(student)):
        yield fail("student", "neither git-lfs nor openmind_hub is installed", "install git-lfs (git-lfs.com)")


def named_downloads(params: Params) -> Iterator[Download]:
    """Each download that params name by a hub id."""
    student = params.train.student
    if isinstance(student, PublishedStudent):
        copy, alternative = local_student(student), "set train.student.kind: path and name a local folder"
        yield Download("train.student", student.kind, student.name, copy, alternative)
    for key, (origin, place) in tables(params):
        if origin != "file" and not is_path(place):
            copy = Path(place) if Path(place).is_dir() else None
            yield Download(key, origin, place, copy, f"have {key} read a file of its rows (docs/your-data.md)")


def tables(params: Params) -> Iterator[tuple[str, tuple[str, str]]]:
    """By key, where questions and traces are read from: ``("hub", "openai/gsm8k")``; nothing of generated ones."""
    sources: dict[str, Any] = {"collect.source": params.collect.source}
    sources |= {"collect.heldout_source": params.collect.heldout_source}
    sources |= {f"traces.{name}.source": entry.source for name, entry in params.traces.items()}
    for key, source in sources.items():
        if isinstance(source, InPreset):
            read = trace_preset_named if key.startswith("traces.") else preset_named
            preset: Published = read(source.name, key)
            place = source.path or {"hub": preset.hub, "modelscope": preset.modelscope}.get(source.origin)
            if place:
                yield key, (source.origin, place)
        elif source and not isinstance(source, ChainSum):
            yield key, (source.kind, source.path)


def is_path(text: str) -> bool:
    """Whether a text is a local path and not a hub id, by collect's rule."""
    return text.startswith(("/", ".", "~"))


def local_student(student: Student) -> Path | None:
    """The folder of the student's weights if this machine has them; uses no network."""
    if isinstance(student, PublishedStudent):
        folder = cached(student)
    else:
        folder = Path(student.name).expanduser() if student.kind == "path" else package_folder(student.name)
    return folder if folder and any(path for name in WEIGHTS for path in folder.glob(name)) else None


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = find_spec(name.partition(".")[0])
    return Path(spec.origin).parent if spec and spec.origin else None


def cached(student: PublishedStudent) -> Path | None:
    """The folder in the client's own cache, found by the client without the network."""
    from stages.lib.students import modelers

    if student.kind == "modelers":
        return modelers.clone_folder(student)
    try:
        if student.kind == "hub":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download
        return Path(snapshot_download(student.name, revision=student.revision, local_files_only=True))
    except Exception:  # each client has its own errors; any of them means that there is no copy
        return None


def endpoint(hub: str) -> str:
    """The hub's address, read as its client does."""
    variable, default = ENDPOINTS[hub]
    address = os.environ.get(variable) or default
    return address if "://" in address else f"https://{address}"


def offline(hub: str) -> bool:
    """Whether the hub's client is set to offline mode."""
    return hub == "hub" and os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def mirror(item: Download) -> str:
    """The fix if that hub cannot be reached."""
    return f"export {ENDPOINTS[item.hub][0]}=MIRROR, or {item.alternative}"


def heads(addresses: set[str]) -> dict[str, str]:
    """The error of each address, "" if it answers; 3 s for all of them together.

    In daemon threads: DNS, and a server that sends single bytes, are not subject to the timeout of a request.
    """
    answers = dict.fromkeys(addresses, f"no answer within {HEAD_S:.0f} s")
    threads = [threading.Thread(target=head, args=(address, answers), daemon=True) for address in addresses]
    deadline = time.monotonic() + HEAD_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def head(address: str, answers: dict[str, str]) -> None:
    """Record whether a HEAD is answered. A refusal counts as an answer: the server is up."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HEAD_S):
            answers[address] = ""
    except urllib.error.HTTPError as error:
        answers[address] = "" if error.code < 500 else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        answers[address] = str(getattr(error, "reason", error))[:100]
