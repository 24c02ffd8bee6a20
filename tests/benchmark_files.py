"""Made-up benchmarks as large as the real ones, in the forms in which they are published; and a hub that has them."""

import csv
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from stages.lib.benchmarks.forms import LANGUAGES, SUBJECTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MMLU_TEST = [100] * 14 + [294] * 43  # 14,042 in all


def write_gsm8k(folder: Path) -> Path:
    """GSM8K's two official files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 7473), ("test", 1319)):
        rows = [{"question": f"How many “{split}” {i}?", "answer": f"{i} = {i}\n#### {i}"} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_mgsm(folder: Path, exemplars: bool = True) -> Path:
    """MGSM's tables, and exemplars.py with code in it that must never be run."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = [f'Wie viele "{language}" {i}?\t{i},{i:03}\n' for i in range(1, 251)]
        (folder / f"mgsm_{language}.tsv").write_text("".join(lines))
    if exemplars:
        items = {str(i): {"q": f"Question: {i}?", "a": f"Step-by-Step Answer: so {i}."} for i in range(1, 9)}
        text = [
            f"open({str(folder / 'was run')!r}, 'w')",
            f"EXEMPLAR_NUMBER_ANSWERS = {list(range(11, 19))}",
            f"EXEMPLAR_EQUATION_SOLUTIONS = {[f'{i} + 10 = {i + 10}.' for i in range(1, 9)]}",
            f"MGSM_EXEMPLARS = {dict.fromkeys(LANGUAGES, items)}",
        ]
        (folder / "exemplars.py").write_text("\n".join(text) + "\n")
    return folder


def write_mmlu(folder: Path) -> Path:
    """MMLU's tables, 57 for each split."""
    for subject, tests in zip(SUBJECTS, MMLU_TEST, strict=True):
        for split, count in (("dev", 5), ("test", tests)):
            (folder / split).mkdir(parents=True, exist_ok=True)
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                rows = ([f"{subject}, {i}?\nWhich?", 0, "4", "2, 3", 6, "ABCD"[i % 4]] for i in range(count))
                csv.writer(file, lineterminator="\n").writerows(rows)
    return folder


def write_repository(folder: Path, tables: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """``{config: {split: rows}}`` as a hub keeps a dataset: Parquet, and a card that names the files."""
    from datasets import ClassLabel, Dataset

    configs = []
    for config, splits in tables.items():
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        configs.append({"config_name": config, "data_files": files})
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset = Dataset.from_list(rows)
            if "choices" in dataset.column_names:
                dataset = dataset.cast_column("answer", ClassLabel(names=list("ABCD")))
            dataset.to_parquet(path)
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    return folder


class Hub(ThreadingHTTPServer):
    """Both protocols over folders of datasets: that of the Hugging Face hub and that of ModelScope."""

    daemon_threads = True

    def __init__(self, datasets: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.datasets = datasets
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.datasets[name]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        url = urlsplit(self.path)
        for name in self.server.datasets:
            if url.path.startswith(f"/datasets/{name}/resolve/"):
                return self.give(self.server.files(name)[unquote(url.path).split("/", 6)[6]])
            if url.path.startswith(f"/api/datasets/{name}/tree/"):
                return self.give(json.dumps(self.tree(name)).encode())
            if url.path.startswith(f"/api/datasets/{name}"):
                siblings = [{"rfilename": file} for file in self.server.files(name)]
                return self.give(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
            if url.path == f"/api/v1/datasets/{name}/repo/tree":
                data = {"Code": 200, "Success": True, "Data": {"Files": self.listing(name)}}
                return self.give(json.dumps(data).encode())
            if url.path == f"/api/v1/datasets/{name}/repo":
                return self.give(self.server.files(name)[parse_qs(url.query)["FilePath"][0]])
        return self.send_error(404)

    def tree(self, name: str) -> list[dict[str, Any]]:
        files = self.server.files(name).items()
        return [{"type": "file", "path": file, "size": len(data), "oid": COMMIT} for file, data in files]

    def listing(self, name: str) -> list[dict[str, Any]]:
        """The files as ModelScope lists them."""
        return [
            {
                "Name": file.rpartition("/")[2],
                "Path": file,
                "Type": "blob",
                "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(),
                "Revision": COMMIT,
            }
            for file, data in self.server.files(name).items()
        ]

    def give(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(datasets: dict[str, Path]) -> Iterator[Hub]:
    """A hub with these datasets, by id."""
    with Hub(datasets) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
