"""Serve a teacher of one's own on this machine, and name its servers in params.yaml as long as they run.

python -m stages.lib.serving.teacher --model Qwen/Qwen3-32B --replicas 2                   # print the lines
python -m stages.lib.serving.teacher --model Qwen/Qwen3-32B --devices "0-3 4-7" --run      # start them, until Ctrl-C
python -m stages.lib.serving.teacher --model m.gguf --engine llama.cpp --run --then "dvc repro"
python -m stages.lib.serving.teacher --stop                                                # stop them, from elsewhere

'make teacher' does the same. The servers are started, and each must answer a question, with its reasoning in a field
of its own where a reasoning parser is expected to put it. Then they are added to run.endpoints of params.yaml, for the
teacher and for each other role (judge, prefer, student) whose model has this name. They are removed at the end.
"""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from stages.lib.command import one_line_errors, params_option
from stages.lib.params import Params, ParamsError, Role, ServedTeacher, asked_models, load_params
from stages.lib.replies.reading import REASONING, Answer, BodyError, read_body
from stages.lib.rows import write_json
from stages.lib.runtime.devices import VISIBLE, split, visible_cards
from stages.lib.serving import ServingError, endpoints
from stages.lib.serving.lines import HOST, Teacher, line_of, missing_program, replica
from stages.lib.serving.parsers import family_of, parser_of
from stages.lib.serving.processes import DIRECT, Running, Server, started, wait_until_healthy
from stages.lib.side_by_side.devices import groups_of

log = logging.getLogger("distillery.serve")

LOGS = Path(".cache/serving")
STATES = LOGS / "running"  # a file for each 'make teacher' that runs: what --stop reads
QUESTION = "What is 2 + 3?"
MAX_TOKENS = 2048  # enough for a reasoning model to come to an end
ANSWER_S = 600.0
PAUSE_S = 1.0
STOP_S = 60.0
ENGINES = ("vllm", "vllm-ascend", "sglang", "llama.cpp")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--model", help="A model's id, a folder of weights, or with llama.cpp a GGUF file.")
@click.option("--name", help="Its name for clients, as in params.yaml  [default: the id, or the last part of the path]")
@click.option("--replicas", type=click.IntRange(min=1), help="How many servers  [default: one a group of --devices]")
@click.option("--engine", type=click.Choice(ENGINES), default="vllm", show_default=True, help="Which server program.")
@click.option("--devices", default="", help='The cards of each server, such as "0-3 4-7".')
@click.option("--host", default=HOST, show_default=True, help="This machine's name or address for the clients.")
@click.option("--port", type=int, default=8000, show_default=True, help="The first one's port; the others follow.")
@click.option("--parser", default="auto", show_default=True, help="The reasoning parser; none, or auto: by the name.")
@click.option("--options", default="", help='More options for each server, such as "--max-model-len 16384".')
@click.option("--run", "runs", is_flag=True, help="Start the servers.")
@click.option("--then", default="", help="A command to run while they serve; they are stopped after it.")
@click.option("--stop", "stops", is_flag=True, help="Stop those that run here; with --run, stop after the check.")
@click.option("--wait-s", type=float, default=3600.0, show_default=True, help="How long they may load the model.")
@params_option
@one_line_errors
def main(
    model: str | None,
    name: str | None,
    replicas: int | None,
    engine: str,
    devices: str,
    host: str,
    port: int,
    parser: str,
    options: str,
    runs: bool,
    then: str,
    stops: bool,
    wait_s: float,
    params_path: Path,
) -> None:
    if stops and not runs and not model:
        click.echo(stop_running(params_path))
        return
    if not model:
        raise ServingError("MODEL is missing: make teacher MODEL=Qwen/Qwen3-32B REPLICAS=2.")
    params = load_params(params_path)
    teacher = Teacher(
        model=model,
        name=name or name_of(model),
        engine=engine,
        host=host,
        parser=chosen_parser(parser, model, engine),
        threads=params.run.threads,
        options=tuple(shlex.split(options)),
    )
    cards = cards_of(devices, replicas, engine, params.run.device)
    servers = [server_of(teacher, port + number, each) for number, each in enumerate(cards)]
    for server in servers:
        click.echo(line_of(server.command, server.variables))
    if not runs:
        show_endpoints(params, teacher.name, servers)
        return
    roles = roles_of(params, teacher.name)
    for role in roles:
        if params.run.batch_of(role):
            raise ServingError(
                f"{params_path}: run.batch.{role}: a batch goes to one server. Remove the key, or this RUN=1."
            )
    if missing := missing_program(servers[0].command, device_of(engine, params.run.device), "ENGINE=llama.cpp"):
        raise ServingError(missing)
    code = serve(servers, teacher, params, params_path, roles, then, stops, wait_s)
    if code:
        raise SystemExit(code)


def name_of(model: str) -> str:
    """The name that clients use: a hub's id as it is, of a path the last part, of a GGUF file without its ending."""
    path = Path(model)
    if model.endswith(".gguf"):
        return path.stem
    return path.resolve().name if path.exists() else model


def chosen_parser(parser: str, model: str, engine: str) -> str | None:
    """The reasoning parser; for llama.cpp whether its server takes the thought out of the text."""
    if parser == "none":
        return None
    if engine == "llama.cpp":
        return "auto" if parser == "auto" else parser
    if parser != "auto":
        return parser
    found, family = parser_of(model, engine), family_of(model)
    if family is None:
        log.warning("teacher: no reasoning parser is known for '%s'. If it reasons, set PARSER=…, or none.", model)
    elif not family.reasons:
        log.warning("teacher: %s models do not reason: their answers fail as empty_reasoning.", family.name)
    elif found is None:
        log.info("teacher: %s has no reasoning parser for %s; the thought is read from the text", engine, family.name)
    return found


def device_of(engine: str, device: str) -> str:
    """The kind of cards that the servers use."""
    kind, _ = split(device)
    return "npu" if engine == "vllm-ascend" or kind == "npu" else "cuda"


def cards_of(devices: str, replicas: int | None, engine: str, device: str) -> list[dict[str, str]]:
    """For each server the variable that limits it to its cards; ServingError if there are too few."""
    groups = groups_of(devices)
    if groups and replicas not in (None, len(groups)):
        raise ServingError(f"DEVICES: '{devices}' has {len(groups)} groups for REPLICAS={replicas}. Name one for each.")
    variable, count = VISIBLE[device_of(engine, device)], replicas or len(groups) or 1
    if groups:
        return [{variable: ",".join(map(str, group))} for group in groups]
    if engine == "llama.cpp" or (count == 1 and split(device)[0] not in VISIBLE):
        return [{}] * count
    # a card each: those of run.device from its first on
    first = device if split(device)[0] in VISIBLE else device_of(engine, device)
    cards = visible_cards(first, count)[variable].split(",")
    if len(cards) < count:
        raise ServingError(f'REPLICAS={count}, but {variable} has {len(cards)} cards. Name them: DEVICES="0-3 4-7".')
    return [{variable: card} for card in cards]


def server_of(teacher: Teacher, port: int, variables: dict[str, str]) -> Server:
    """One of the teacher's servers."""
    cards = sum(len(value.split(",")) for value in variables.values())
    command = replica(teacher, port, cards)
    log_path = LOGS / f"teacher-{socket.gethostname()}-{port}.log"  # several hosts may share the project's folder
    return Server(f"teacher on port {port}", command, variables, teacher.host, port, log_path)


def served_models(params: Params) -> dict[Role, Any]:
    """The models that params.yaml reaches at an address, by their roles."""
    return {role: model for role, model in asked_models(params).items() if model.kind == "openai_compatible"}


def roles_of(params: Params, name: str) -> list[Role]:
    """The roles of the model of that name; ParamsError where params.yaml has none."""
    roles = [role for role, model in served_models(params).items() if model.model == name]
    if not roles:
        teacher = params.distill.teacher
        raise ParamsError(
            f"params.yaml: no model is named '{name}' (distill.teacher: kind {teacher.kind}, model '{teacher.model}'). "
            "Set distill.teacher to that model (docs/scale.md), or SERVED_AS=… to the name there."
        )
    return roles


def show_endpoints(params: Params, name: str, servers: Sequence[Server]) -> None:
    """What --run would add to params.yaml, as comments, for servers that are started by hand."""
    with suppress(ParamsError):
        for role in roles_of(params, name):
            click.echo(f"# run.endpoints.{role}.servers:")
            for server in servers:
                click.echo(f"#   {endpoints.line_of(f'{server.url}/v1')}")
        return
    click.echo(f"# params.yaml names no model '{name}': set distill.teacher (docs/scale.md)")


def serve(
    servers: Sequence[Server],
    teacher: Teacher,
    params: Params,
    params_path: Path,
    roles: Sequence[Role],
    then: str,
    stops: bool,
    wait_s: float,
) -> int:
    """Start, check, name, and serve until Ctrl-C or until ``then`` ends; return the exit code of ``then``."""
    model = served_models(params)[roles[0]]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers stop with this process
    with started(servers) as running:
        log.info("teacher: %d loading (logs: %s)", len(servers), ", ".join(str(each.log) for each in servers))
        wait_until_healthy(running, wait_s)
        with ThreadPoolExecutor(len(servers)) as pool:
            for line in pool.map(lambda each: checked(each.server, teacher, model), running):
                log.info("teacher: %s", line)
        if stops:
            return 0
        with named(params_path, roles, running):
            log.info("teacher: %d serving, in run.endpoints (%s) of %s", len(servers), ", ".join(roles), params_path)
            if then:
                return run_command(then)
            log.info("teacher: run 'dvc repro' in another terminal; Ctrl-C here or 'make teacher STOP=1' stops them")
            with suppress(KeyboardInterrupt):
                watch(running)
        return 0


def checked(server: Server, teacher: Teacher, model: Any) -> str:
    """Ask one question; ServingError if no answer comes, or its thought is not apart where a parser is expected to."""
    extra = model.extra_body if isinstance(model, ServedTeacher) else {}
    request = {"model": teacher.name, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": MAX_TOKENS}
    begin = time.monotonic()
    body = _asked(server, request | extra)
    try:
        answer = read_body(body)
    except BodyError as error:
        said = error.server_message.text if error.server_message else str(error)
        raise ServingError(f"{server.name}: no answer to a question ({said}). See {server.log}.") from error
    _check_reasoning(server, teacher, answer, body)
    shown = " ".join(answer.response.split())[:60]
    words = f"{len(answer.reasoning.split())} words of reasoning" if answer.reasoning else "no reasoning"
    return f"{server.url}/v1: '{QUESTION}': '{shown}', {words}, {time.monotonic() - begin:.1f} s"


def _asked(server: Server, request: dict[str, Any]) -> bytes:
    asked = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    try:
        with DIRECT.open(asked, timeout=ANSWER_S) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        said = " ".join(error.read().decode(errors="replace").split())[:200]
        raise ServingError(f"{server.name}: {error.code} to a question: {said}. See {server.log}.") from error
    except OSError as error:
        raise ServingError(f"{server.name}: no answer to a question ({error}). See {server.log}.") from error


def _check_reasoning(server: Server, teacher: Teacher, answer: Answer, body: bytes) -> None:
    family = family_of(teacher.model)
    is_expected = teacher.parser is not None and (teacher.engine != "llama.cpp" or (family and family.reasons))
    message = json.loads(body)["choices"][0]["message"]
    if not is_expected or any(message.get(name) for name in REASONING):
        return
    if answer.failure == "cut_off":
        log.warning("teacher: %s: the check was cut off at %d tokens, in the thought", server.url, MAX_TOKENS)
        return
    raise ServingError(
        f"{server.name}: the answer has no reasoning of its own, although the parser is '{teacher.parser}'. Set "
        "another PARSER (none: it is read from the text), or have the model reason (distill.teacher.extra_body)."
    )


@contextmanager
def named(params_path: Path, roles: Sequence[Role], running: Sequence[Running]) -> Iterator[None]:
    """The servers in run.endpoints, and a file that --stop reads; both removed at the end."""
    addresses = [f"{each.server.url}/v1" for each in running]
    state = STATES / f"{socket.gethostname()}-{os.getpid()}.json"
    pids = [os.getpid(), *(each.process.pid for each in running)]
    processes = [_Process.of(pid) for pid in pids]
    write_json(state, {"processes": [asdict(each) for each in processes], "roles": list(roles), "addresses": addresses})
    try:
        endpoints.add(params_path, roles, addresses)
        yield
    finally:
        endpoints.remove(params_path, roles, addresses)
        state.unlink(missing_ok=True)


def watch(running: Sequence[Running]) -> None:
    """Wait as long as a server runs, and log those that end; ServingError when none is left."""
    left = list(running)
    while left:
        for each in list(left):
            if said := each.ended():
                left.remove(each)
                log.warning("teacher: %s; calls go to the others (%d)", said, len(left))
        time.sleep(PAUSE_S)
    raise ServingError("all servers have ended. See their logs.")


def run_command(command: str) -> int:
    """Run a shell command; Ctrl-C and SIGTERM go to it, and it may end in its own way."""
    process = subprocess.Popen(command, shell=True, start_new_session=True)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


def stop_running(params_path: Path) -> str:
    """Stop each 'make teacher' of this host, and what one that was killed left behind."""
    stopped = 0
    host = socket.gethostname()  # that of another may begin with it
    for state in sorted(path for path in STATES.glob("*.json") if path.stem.rpartition("-")[0] == host):
        content = json.loads(state.read_bytes())
        main_, *servers = (_Process(**each) for each in content["processes"])
        if main_.is_running():
            os.kill(main_.pid, signal.SIGTERM)  # it stops its servers, and removes them from params.yaml
            _wait([main_])
        else:
            for number in (signal.SIGTERM, signal.SIGKILL):
                for each in [each for each in servers if each.is_running()]:
                    os.killpg(each.pid, number)
                _wait(servers)
            endpoints.remove(params_path, content["roles"], content["addresses"])
            state.unlink(missing_ok=True)
        stopped += len(servers)
    return f"{stopped} servers stopped" if stopped else "none of 'make teacher' runs here"


@dataclass(frozen=True)
class _Process:
    """A process: its number, and when it was created, because numbers are given again."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "_Process":
        return cls(pid, psutil.Process(pid).create_time())

    def is_running(self) -> bool:
        """Whether it has not ended; one that nobody has waited for has."""
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


def _wait(processes: Sequence[_Process]) -> None:
    deadline = time.monotonic() + STOP_S
    while any(each.is_running() for each in processes) and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
