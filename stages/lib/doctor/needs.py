"""What the profile names outside this machine's programs: files, keys, and what must be downloaded.

The only network calls of the doctor are here: a HEAD to each hub that something is still to be fetched from.
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

from stages.lib.command import DistilleryError, project_root
from stages.lib.doctor import Finding, fail, ok, warn
from stages.lib.params import Gsm8k, Params, PublishedStudent, ServedTeacher, Student, Teacher, judge_of

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
    """What a stage takes from a hub: the key that names it, its name, its copy here, and the way without a network."""

    key: str
    hub: str
    name: str
    copy: Path | None
    otherwise: str


def files(params: Params) -> Iterator[Finding]:
    """The files and folders that params name, each there or not."""
    named = list(named_files(params))
    missing = [(key, path) for key, path in named if not path.exists()]
    for key, path in missing:
        yield fail("files", f"{key}: {path} is not there", f"put it there, or change {key}")
    if not missing:
        yield ok("files", f"{len(named)} named, all there" if named else "none named")


def named_files(params: Params) -> Iterator[tuple[str, Path]]:
    """Each key that names something on this disk, and the file that must be there."""
    student, collect = params.train.student, params.collect
    if student.kind == "path":
        yield "train.student.name", Path(student.name).expanduser() / "config.json"
    gsm8k = collect.source
    if isinstance(gsm8k, Gsm8k) and (gsm8k.origin == "jsonl" or is_path(gsm8k.path)):
        yield "collect.source.path", Path(gsm8k.path).expanduser()
    for benchmark, path in collect.contamination.benchmarks.items():
        yield f"collect.contamination.benchmarks.{benchmark}", Path(path).expanduser()
    for name, source in params.collect_s1k.items():
        if source.origin == "file":
            yield f"collect_s1k.{name}.path", Path(source.path).expanduser()
    if params.train.deepspeed:
        yield "train.deepspeed", deepspeed_settings(params.train.deepspeed)


def deepspeed_settings(name: str) -> Path:
    """Where DeepSpeed's settings are looked for: in the project, then in the checkout of openMind."""
    checkout = os.environ.get("OPENMIND_SRC")
    elsewhere = Path(checkout) / name if checkout else None
    return elsewhere if elsewhere and elsewhere.is_file() else project_root() / name


def keys(params: Params) -> Iterator[Finding]:
    """The keys of the teacher and of the judge, there or not; never their text."""
    yield key("API key", params.distill.teacher, params, params.run.key_variable("teacher"))
    if judge := judge_of(params.filter):
        yield key("judge's key", judge, params, params.run.key_variable("judge"))


def key(what: str, teacher: Teacher, params: Params, variable: str | None) -> Finding:
    """As the stage would find it."""
    from stages.lib.teacher.backends.openai_compatible import connect

    if not isinstance(teacher, ServedTeacher):
        return ok(what, "not needed: embedded teacher")
    if params.run.offline:
        return ok(what, "not needed: run.offline")
    try:
        with connect(teacher, params.run, variable):
            return ok(what, f"{variable} is set")
    except DistilleryError as error:
        found, _, fix = str(error).partition(". ")
        return fail(what, found, fix)


def downloads(params: Params) -> Iterator[Finding]:
    """What comes from a hub: here already, or the hub answers, or not."""
    yield from pinned(params.train.student)
    wanted = list(named_downloads(params))
    answers = heads({endpoint(item.hub) for item in wanted if not item.copy})
    for item in wanted:
        what, address = f"download {item.name}", endpoint(item.hub)
        if item.copy:
            yield ok(what, f"a copy is here: {item.copy}")
        elif offline(item.hub):
            yield fail(what, "no copy is here, and HF_HUB_OFFLINE is set", f"unset HF_HUB_OFFLINE, or {item.otherwise}")
        elif answers[address]:
            yield warn(what, f"{address} cannot be reached: {answers[address]}", mirror(item))
        else:
            yield ok(what, f"{address} answers")
    if not wanted:
        yield ok("downloads", "not needed")


def pinned(student: Student) -> Iterator[Finding]:
    """Whether a hub's student is the same one next month, and whether Modelers' can be fetched at all."""
    if isinstance(student, PublishedStudent) and student.revision is None:
        found = "train.student.revision is null: the hub's newest, which may change"
        yield warn("student", found, "set it to a commit or a tag of that repository")
    programs = shutil.which("git") and shutil.which("git-lfs")
    if student.kind == "modelers" and not (programs or find_spec("openmind_hub") or local_student(student)):
        yield fail("student", "neither git-lfs nor openmind_hub is here", "install git-lfs (git-lfs.com)")


def named_downloads(params: Params) -> Iterator[Download]:
    """Each thing that params name by a hub's id."""
    student, gsm8k = params.train.student, params.collect.source
    if isinstance(student, PublishedStudent):
        copy, otherwise = local_student(student), "set train.student.kind: path and name a local folder"
        yield Download("train.student", student.kind, student.name, copy, otherwise)
    if isinstance(gsm8k, Gsm8k) and gsm8k.origin == "modelscope" and not is_path(gsm8k.path):
        copy = Path(gsm8k.path) if Path(gsm8k.path).is_dir() else None
        otherwise = "set collect.source.origin: jsonl and name the official train.jsonl"
        yield Download("collect.source", "modelscope", gsm8k.path, copy, otherwise)
    for name, source in params.collect_s1k.items():
        if source.origin != "file":
            otherwise = f"set collect_s1k.{name}.origin: file and name its .parquet file"
            yield Download(f"collect_s1k.{name}", source.origin, source.path, None, otherwise)


def is_path(text: str) -> bool:
    """A folder on this disk and no id of a hub, as collect reads it."""
    return text.startswith(("/", ".", "~"))


def local_student(student: Student) -> Path | None:
    """The folder with the student's weights where this machine has them; asks no network."""
    if isinstance(student, PublishedStudent):
        folder = cached(student)
    else:
        folder = Path(student.name).expanduser() if student.kind == "path" else package_folder(student.name)
    return folder if folder and any(path for name in WEIGHTS for path in folder.glob(name)) else None


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(name.partition(".")[0])
    return Path(spec.origin).parent if spec and spec.origin else None


def cached(student: PublishedStudent) -> Path | None:
    """The client's own cache, asked by the client with the network ruled out."""
    from stages.lib.students import modelers

    if student.kind == "modelers":
        return modelers.clone_folder(student)
    try:
        if student.kind == "hub":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download
        return Path(snapshot_download(student.name, revision=student.revision, local_files_only=True))
    except Exception:  # each client has its own errors, and all of them say that there is no copy
        return None


def endpoint(hub: str) -> str:
    """The hub's address, as its client reads it."""
    variable, default = ENDPOINTS[hub]
    address = os.environ.get(variable) or default
    return address if "://" in address else f"https://{address}"


def offline(hub: str) -> bool:
    """Whether the hub's client is told to ask no network."""
    return hub == "hub" and os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def mirror(item: Download) -> str:
    """What to do without that hub."""
    return f"export {ENDPOINTS[item.hub][0]}=MIRROR, or {item.otherwise}"


def heads(addresses: set[str]) -> dict[str, str]:
    """What is wrong with each address, "" where it answers; 3 s for all of them together.

    In threads that nobody waits for: looking a name up, and a server that sends byte after byte, know no time-out.
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
    """Write down whether a HEAD is answered; a refusal is an answer too, for the server is there."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HEAD_S):
            answers[address] = ""
    except urllib.error.HTTPError as error:
        answers[address] = "" if error.code < 500 else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        answers[address] = str(getattr(error, "reason", error))[:100]
