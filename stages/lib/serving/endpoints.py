"""Add servers to ``run.endpoints`` of params.yaml, and remove them again; every other line keeps its text.

    add(Path("params.yaml"), ["teacher"], ["http://127.0.0.1:8000/v1"])
    remove(Path("params.yaml"), ["teacher"], ["http://127.0.0.1:8000/v1"])    # the file is as it was

    run:
      endpoints:
        teacher:
          name: null
          aliases: []
          servers:
            - {base_url: http://127.0.0.1:8000/v1, weight: 1.0, key_variable: null, concurrency: null, …}

The name null leaves the store's keys with base_url, as without servers; a name that is there already stays. No stage
depends on ``run``, so this makes no stage run again. Several processes may do it at once.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from stages.lib.params import ParamsError, Role
from stages.lib.params.loading import checked, parsed, read
from stages.lib.params.text_tree import Entry, document
from stages.lib.rows import writing

LOCK = Path(".cache/serving/params.lock")
LIMITS = "weight: 1.0, key_variable: null, concurrency: null, requests_per_minute: null, tokens_per_minute: null"


def add(path: Path, roles: Sequence[Role], addresses: Sequence[str]) -> None:
    """Name these servers for each of the roles; one that is there already is not added twice."""
    with _edited(path) as run:
        for role in roles:
            _add(run, role, addresses)


def remove(path: Path, roles: Sequence[Role], addresses: Sequence[str]) -> None:
    """Remove these servers, and the keys that hold nothing without them."""
    with _edited(path) as run:
        for role in roles:
            _remove(run, role, addresses)


def line_of(address: str) -> str:
    """The server's line in the list."""
    return f"- {{base_url: {address}, {LIMITS}}}"


@contextmanager
def _edited(path: Path) -> Iterator[Entry]:
    """The section ``run``, to be changed; the file is checked and written at the end."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCK):
        text = read(path)
        tree = document(text)
        run = tree.root.at("run")
        if tree.root.value.fa.flow_style() or run is None or run.entries is None or run.written is not None:
            raise ParamsError(
                f"{path}: run: in braces, or no mapping. Write one key a line, so that lines can be added."
            )
        yield run
        if (new := tree.text()) != text:
            checked(parsed(new, path), path)  # before it replaces the file
            with writing(path) as file:
                file.write(new.encode())


def _add(run: Entry, role: Role, addresses: Sequence[str]) -> None:
    endpoints = _section(run, "endpoints")
    if (model := endpoints.at(role)) is None:
        model = _section(endpoints, role)
        model.put(Entry("name", None, ["name: null"]))
        model.put(Entry("aliases", [], ["aliases: []"]))
        model.put(Entry("servers", [], ["servers:"]))
    servers = model.at("servers")
    if servers is None or not servers.lines or servers.lines[0].rstrip() != "servers:":
        raise ParamsError(
            f"params.yaml: run.endpoints.{role}: write 'servers:' on a line and one server on each line below, after "
            "'- ', so that lines can be added."
        )
    listed = {str(server["base_url"]).rstrip("/") for server in servers.value or ()}
    margin = next((found[1] for line in servers.lines[1:] if (found := re.match(r"( *)- ", line))), "  ")
    servers.lines += [margin + line_of(address) for address in addresses if address not in listed]


def _section(parent: Entry, key: str) -> Entry:
    """The mapping of that key, added where there is none."""
    if (found := parent.at(key)) is None:
        found = Entry(key, {}, [f"{key}:"], entries=[])
        parent.put(found)
    return found


def _remove(run: Entry, role: Role, addresses: Sequence[str]) -> None:
    endpoints = run.at("endpoints")
    model = endpoints.at(role) if endpoints else None
    servers = model.at("servers") if model else None
    if endpoints is None or servers is None:
        return
    ours = {line_of(address) for address in addresses}
    servers.lines = [line for line in servers.lines if line.strip() not in ours]
    if servers.lines and not any(line.lstrip().startswith("- ") for line in servers.lines[1:]):
        endpoints.take(role)
    if not endpoints.entries:
        run.take("endpoints")
