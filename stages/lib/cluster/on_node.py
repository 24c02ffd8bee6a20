"""The first code of ours that runs in a worker of a Ray cluster: it compares versions, and only then loads the rest.

Ray gets these functions by value, so they run where ``stages`` or one of its packages is missing, too. They may import
the standard library alone, and ray.
"""

import hashlib
import platform
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ABSENT = "none"
# of a worker, where ``apply`` fills them; what the sender's would hold would come with the functions
_here: dict[str, str] = {}
_function: list[tuple[str, Callable[[Any], Any]]] = []  # the last function, with its name


def described(packages: Sequence[str]) -> dict[str, str]:
    """The versions of Python, of these packages and of our own code in this process, by name."""
    found = {package: _version(package) for package in packages}
    return {"Python": platform.python_version(), **found, "stages": _digest()}


def apply(expected: dict[str, str], name: str, held: Sequence[Any], rows: Sequence[Any]) -> tuple[str, Any]:
    """``("rows", results)``, ``("error", what the function raised)``, or ``("differs", versions)`` of another code.

    ``held`` is the reference to the function: this worker reads it once for all its rows.
    """
    if not _here:
        _here.update(described([key for key in expected if key not in ("Python", "stages")]))
    if _here != expected:
        return "differs", dict(_here)
    if not _function or _function[0][0] != name:
        import ray

        _function[:] = [(name, ray.get(held[0]))]
    ((_, function),) = _function
    try:
        return "rows", [function(row) for row in rows]
    except Exception as error:  # raised again where the rows are from
        error.add_note(traceback.format_exc())
        return "error", error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def _digest() -> str:
    """A digest of all files of the package ``stages`` that this process would import."""
    spec = find_spec("stages")
    if spec is None or not spec.origin:
        return ABSENT
    folder, digest = Path(spec.origin).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
