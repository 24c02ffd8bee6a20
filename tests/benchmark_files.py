"""Made-up benchmarks as large as the real ones, in the forms in which they are published; and a hub that has them."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from stages.lib.eval_data.forms import LANGUAGES, SUBJECTS
from tests.standin_hub import HubAnswers, StandInHub, card, listing, served, tree

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


class Hub(StandInHub):
    """Both protocols over folders of datasets: that of the Hugging Face hub and that of ModelScope."""

    def __init__(self, datasets: dict[str, Path]) -> None:
        super().__init__(_Answers)
        self.datasets = datasets

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.datasets[name]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _Answers(HubAnswers):
    server: Hub

    def answer(self) -> None:
        url = urlsplit(self.path)
        for name in self.server.datasets:
            if url.path.startswith(f"/datasets/{name}/resolve/"):
                return self.give(self.server.files(name)[unquote(url.path).split("/", 6)[6]])
            if url.path.startswith(f"/api/datasets/{name}/tree/"):
                return self.give(tree(self.server.files(name)))
            if url.path.startswith(f"/api/datasets/{name}"):
                return self.give(card(name, self.server.files(name)))
            if url.path == f"/api/v1/datasets/{name}/repo/tree":
                return self.give(listing(self.server.files(name)))
            if url.path == f"/api/v1/datasets/{name}/repo":
                return self.give(self.server.files(name)[parse_qs(url.query)["FilePath"][0]])
        return self.send_error(404)


@contextmanager
def serving(datasets: dict[str, Path]) -> Iterator[Hub]:
    """A hub with these datasets, by id."""
    with served(Hub(datasets)) as server:
        yield server
