"""Upload to Modelers with openmind_hub, which lives in openMind's own environment (make openmind-env).

All files are one commit. OPENMIND_HUB_ENDPOINT names another address; the client takes https only.
"""

import json
import os
import subprocess
from pathlib import Path

from stages.lib.command import project_root, without_key
from stages.lib.publishing import PublishingError, Upload

TOKEN_VARIABLE = "MODELERS_TOKEN"
TOKEN_PAGE = "https://modelers.cn/my/tokens"
# the client uploads from /tmp and from the home folder, and from the folders of this variable
FOLDERS = "HUB_WHITE_LIST_PATHS"
SCRIPT = """
import json, os, sys
import openmind_hub
what, token = json.load(sys.stdin), os.environ["MODELERS_TOKEN"]
address = openmind_hub.create_repo(what["repo"], token=token, private=not what["is_public"], repo_type=what["kind"],
                                   license=what["licence"], exist_ok=True)
openmind_hub.upload_folder(repo_id=what["repo"], folder_path=what["folder"], token=token,
                           commit_message=what["message"])
print(address)
"""


def upload(what: Upload) -> str:
    """Make the repository if there is none, upload, and return its address."""
    python = environment_python()
    names = ("kind", "repo", "licence", "is_public", "message")
    told = {name: getattr(what, name) for name in names} | {"folder": str(what.folder.resolve())}
    # the weights are links to where they are
    folders = {str(path.resolve().parent) for path in what.folder.rglob("*")} | {str(what.folder.resolve())}
    allowed = ",".join(filter(None, (os.environ.get(FOLDERS), *sorted(folders))))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {TOKEN_VARIABLE: what.token, FOLDERS: allowed}
    done = subprocess.run(
        [python, "-c", SCRIPT], input=json.dumps(told), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line] or ["no output"]
        raise PublishingError(f"Modelers: {without_key(said[-1], what.token):.300}. Fix that and push again.")
    return done.stdout.strip().splitlines()[-1]


def environment_python() -> Path:
    """The Python of openMind's environment; PublishingError where there is none."""
    program = os.environ.get("OPENMIND_CLI") or project_root() / ".venv-openmind" / "bin" / "openmind-cli"
    python = Path(program).with_name("python")
    if not python.is_file():
        raise PublishingError(
            f"{python}: no such file, and openmind_hub is in openMind's environment. Run 'make openmind-env'."
        )
    return python
