"""A stand-in for the upload protocols of hubs: what the real clients push is in ``files`` as a commit leaves it.

Three protocols on one server: the Hugging Face hub's, ModelScope's and Modelers'. Large files go up as blobs first,
and a commit names them, as with git-lfs.
"""

import base64
import json
import re
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.standin_hub import COMMIT, HubAnswers, StandInHub

LFS = (".safetensors", ".bin")


class UploadHub(StandInHub):
    """A hub that takes uploads; ``made`` are the repositories, ``commits`` how many each has."""

    def __init__(self) -> None:
        super().__init__(UploadAnswers)
        self.made: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.broken_commits = 0  # how many of the next commits fail

    def commit(self, repo: str, files: dict[str, bytes]) -> None:
        """All files of a commit at once."""
        self.files.setdefault(repo, {}).update(files)
        self.commits[repo] = self.commits.get(repo, 0) + 1


class UploadAnswers(HubAnswers):
    """The answers of all three protocols."""

    server: UploadHub

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, self.path.partition("?")[0]):
                answer(self, body, **found.groupdict())
                return
        self.send_error(404)

    def do_PUT(self) -> None:
        self.server.asked.append(self.path)
        blob = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[self.path.rpartition("/")[2]] = blob
        self.tell({})

    def answer(self) -> None:
        repo = re.sub(r"^/(api|openapi)/v1/(models|datasets)/", "", self.path.partition("?")[0])
        if repo not in self.server.made:
            self.tell({"Code": 404, "Message": "not found", "Success": False}, status=404)
            return
        self.tell({"Code": 200, "Success": True, "Data": {"Name": repo}})

    def tell(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{len(data)}"')
        self.end_headers()
        self.wfile.write(data)

    def breaks(self) -> bool:
        """Whether this commit fails, as planned."""
        if not self.server.broken_commits:
            return False
        self.server.broken_commits -= 1
        self.tell({"error": "no space", "Message": "no space", "Success": False}, status=403)
        return True

    def blob_of(self, pointer: dict[str, Any]) -> bytes:
        return self.server.blobs[pointer["oid"]]


def hf_create(self: UploadAnswers, body: bytes) -> None:
    told = json.loads(body)
    repo = f"{told['organization']}/{told['name']}"
    self.server.made.setdefault(repo, told)
    kind = "" if told.get("type", "model") == "model" else f"{told['type']}s/"
    self.tell({"url": f"{self.server.address}/{kind}{repo}", "name": repo})


def hf_metadata(self: UploadAnswers, body: bytes) -> None:
    assert json.loads(body)["content"].startswith("---\n")
    self.tell({"errors": [], "warnings": []})


def hf_modes(self: UploadAnswers, body: bytes, **_: str) -> None:
    files = [file["path"] for file in json.loads(body)["files"]]
    modes = [{"path": path, "uploadMode": "lfs" if path.endswith(LFS) else "regular"} for path in files]
    self.tell({"files": [mode | {"shouldIgnore": False} for mode in modes]})


def hf_blobs(self: UploadAnswers, body: bytes, **_: str) -> None:
    objects = []
    for wanted in json.loads(body)["objects"]:
        action = {"upload": {"href": f"{self.server.address}/blobs/{wanted['oid']}"}}
        there = wanted["oid"] in self.server.blobs
        objects.append(wanted if there else wanted | {"actions": action})
    self.tell({"transfer": "basic", "objects": objects})


def hf_commit(self: UploadAnswers, body: bytes, repo: str) -> None:
    if self.breaks():
        return
    files = {}
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = self.blob_of(value)
    self.server.commit(repo, files)
    self.tell({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.address}/{repo}/commit/{COMMIT}"})


def ms_create(self: UploadAnswers, body: bytes, kind: str) -> None:
    if kind == "datasets":
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        told = {str(part.get_param("name", header="content-disposition")): part.get_content() for part in parts}
    else:
        told = json.loads(body)
    repo = f"{told.get('Path') or told['Owner']}/{told['Name']}"
    if repo in self.server.made:
        self.tell({"Code": 10010205001, "Message": "exists already", "Success": False}, status=400)
        return
    self.server.made[repo] = told
    self.tell({"Code": 200, "Success": True, "Data": {"Name": repo}})


def ms_blobs(self: UploadAnswers, body: bytes, **_: str) -> None:
    objects = [
        {"oid": wanted["oid"], "actions": {"upload": {"href": f"{self.server.address}/blobs/{wanted['oid']}"}}}
        for wanted in json.loads(body)["objects"]
        if wanted["oid"] not in self.server.blobs
    ]
    self.tell({"Code": 200, "Success": True, "Data": {"objects": objects}})


def ms_commit(self: UploadAnswers, body: bytes, repo: str) -> None:
    if self.breaks():
        return
    files = {}
    for action in json.loads(body)["actions"]:
        large = action["type"] == "lfs"
        files[action["path"]] = self.server.blobs[action["sha256"]] if large else base64.b64decode(action["content"])
    self.server.commit(repo, files)
    self.tell({"Code": 200, "Success": True, "Data": {"oid": COMMIT}})


def om_create(self: UploadAnswers, body: bytes, kind: str) -> None:
    told = json.loads(body)
    repo = f"{told['owner']}/{told['name']}"
    if repo in self.server.made:
        self.tell({"code": "duplicate_creating", "msg": "exists"}, status=400)
        return
    self.server.made[repo] = told | {"type": kind}
    self.tell({"data": {"id": "1"}}, status=201)


def om_licence(self: UploadAnswers, body: bytes) -> None:
    text = base64.b64decode(json.loads(body)["content"]).decode()
    self.tell({"data": bool(re.search(r"^license: \S+$", text, re.MULTILINE))})


def om_modes(self: UploadAnswers, body: bytes, **_: str) -> None:
    files = [file["path"] for file in json.loads(body)["files"]]
    self.tell(
        {"data": {"files": [{"path": path, "type": "lfs" if path.endswith(LFS) else "regular"} for path in files]}}
    )


def om_blobs(self: UploadAnswers, body: bytes, **_: str) -> None:
    objects = []
    for wanted in json.loads(body)["objects"]:
        part = {
            "index": 1,
            "href": f"{self.server.address}/blobs/{wanted['oid']}",
            "headers": {},
            "size": wanted["size"],
        }
        objects.append(wanted | {"actions": {"parts": [part]}})
    self.tell({"data": {"objects": objects}})


def om_commit(self: UploadAnswers, body: bytes, repo: str) -> None:
    files = {}
    for file in json.loads(body)["files"]:
        content = base64.b64decode(file["content"])
        pointer = re.search(rb"oid sha256:([0-9a-f]{64})", content) if file["path"].endswith(LFS) else None
        files[file["path"]] = self.server.blobs[pointer[1].decode()] if pointer else content
    self.server.commit(repo, files)
    self.tell({"data": [{"commit_url": f"{self.server.address}/{repo}", "commit_oid": COMMIT}]}, status=201)


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    ("/api/repos/create", hf_create),
    ("/api/validate-yaml", hf_metadata),
    (rf"/api/(models|datasets)/{REPO}/preupload/main", hf_modes),
    (rf"/(datasets/)?{REPO}\.git/info/lfs/objects/batch", hf_blobs),
    (rf"/api/(models|datasets)/{REPO}/commit/main", hf_commit),
    (r"/api/v1/(?P<kind>models|datasets)", ms_create),
    (rf"/api/v1/repos/(models|datasets)/{REPO}/info/lfs/objects/batch", ms_blobs),
    (rf"/api/v1/repos/(models|datasets)/{REPO}/commit/master", ms_commit),
    ("/api/v1/(?P<kind>model|dataset)", om_create),
    ("/api/v1/file/license_check", om_licence),
    (rf"/api/v1/file/{REPO}/pre_upload", om_modes),
    (rf"/api/v1/file/{REPO}/info/lfs/objects/batch", om_blobs),
    (rf"/api/v1/file/{REPO}/upload", om_commit),
]
