"""Write the tar of the bundle, whole or not at all: the files by their names in it, then their sha256 sums."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from stages.lib.rows import writing


class _HashingReader(io.RawIOBase):
    """A file whose bytes are hashed and counted while they are read."""

    def __init__(self, source: IO[bytes], bar: Any) -> None:
        self.source = source
        self.bar = bar
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the file."""
        block = self.source.read(size)
        self.sha256.update(block)
        self.bar.update(len(block))
        return block


def pack(out: Path, files: dict[str, Path], about: dict[str, Any]) -> int:
    """Write the bundle: ``about`` as bundle.json, then the files, then the sums; return its size in bytes."""
    sums: dict[str, str] = {}
    total = sum(path.stat().st_size for path in files.values())
    # dereference: a second hard link to a file, such as DVC makes, is written as a full file
    with writing(out) as file, tarfile.open(fileobj=file, mode="w|", dereference=True) as tar:
        sums["bundle.json"] = _add_json(tar, "bundle.json", about)
        with tqdm(total=total, desc="bundle", unit="B", unit_scale=True, disable=None) as bar:
            for name, path in files.items():
                with path.open("rb") as source:
                    info = tar.gettarinfo(arcname=name, fileobj=source)
                    reader = _HashingReader(source, bar)
                    tar.addfile(_without_owner(info), reader)
                    sums[name] = reader.sha256.hexdigest()
        _add_json(tar, "sums.json", sums)
    return out.stat().st_size


def _add_json(tar: tarfile.TarFile, name: str, value: dict[str, Any]) -> str:
    data = json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
    return hashlib.sha256(data).hexdigest()


def _without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the owner's name and number, which mean nothing on the other machine."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def files_in(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, by its name in the bundle, links followed; none where the folder is missing."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{prefix}/{path.relative_to(folder).as_posix()}", path
