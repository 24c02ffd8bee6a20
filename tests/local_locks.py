"""A machine whose file locks exclude the processes of one host only, as NFS mounted with local_lock=all does.

    env = local_locks(tmp_path, "host-1")     # for a child process: DISTILLERY_HOST, and a sitecustomize on its path

In such a process, each lock of a file is taken on a file of its host instead, so processes of two hosts do not see each
other's locks and no call fails.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITECUSTOMIZE = """
import fcntl, os
_flock, _lockf, _open = fcntl.flock, fcntl.lockf, {}

def _here(file):
    number = file if isinstance(file, int) else file.fileno()
    state = os.fstat(number)
    inode, local = _open.get(number, (None, -1))
    if inode != state.st_ino:
        if local >= 0:
            os.close(local)
        folder = os.path.join(os.environ["LOCAL_LOCKS"], os.environ["DISTILLERY_HOST"])
        os.makedirs(folder, exist_ok=True)
        local = os.open(os.path.join(folder, str(state.st_ino)), os.O_RDWR | os.O_CREAT)
        _open[number] = state.st_ino, local
    return local

fcntl.flock = lambda file, operation: _flock(_here(file), operation)
fcntl.lockf = lambda file, operation, *place: _lockf(_here(file), operation, *place)
"""


def local_locks(folder: Path, host: str, **more: str) -> dict[str, str]:
    """The environment of a process of this host; ``more``: constants of the project to set, such as EXPIRES_S."""
    own = folder / "local_locks"
    own.mkdir(exist_ok=True)
    (own / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(own), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "LOCAL_LOCKS": str(own), "DISTILLERY_HOST": host}
