"""Keys in files: the values of the keys that this project uses, and texts of the forms that keys have.

    data.json:17: the value of API_KEY
    notes.txt:3: an OpenAI-style key (sk-…)

A file with a zero byte at its start is not a text and is not read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from stages.lib.command import SECRET_LENGTH, secret

START = 8192
NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
FORMS = {
    "an OpenAI-style key (sk-…)": rb"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}",
    "a Hugging Face token (hf_…)": rb"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}",
    "a ModelScope token (ms-…)": rb"(?<![A-Za-z0-9])ms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "an AWS access key (AKIA…)": rb"(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}(?![0-9A-Z])",
    "an Alibaba Cloud access key (LTAI…)": rb"(?<![A-Za-z0-9])LTAI[A-Za-z0-9]{16,}",
    "a GitHub token (gh…_…)": rb"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}


def known_keys(root: Path, named: Iterable[str]) -> dict[str, str]:
    """The keys by their variables: those that params name, and in .env those that are named like a key."""
    written = {name: value for name, value in dotenv_values(root / ".env").items() if value and NAMES.search(name)}
    of_params = {name: secret(name, root) for name in named}
    found = {**written, **{name: value for name, value in of_params.items() if value}}
    return {name: value for name, value in found.items() if len(value) >= SECRET_LENGTH}


def keys_in(files: Mapping[str, Path], known: Mapping[str, str]) -> Iterator[str]:
    """Where a key is, ``FILE:LINE: what``, never the key itself."""
    forms = [(name, re.compile(form)) for name, form in FORMS.items()]
    values = [(f"the value of {name}", re.compile(re.escape(value.encode()))) for name, value in known.items()]
    for name, path in files.items():
        with path.open("rb") as lines:
            if b"\0" in lines.read(START):
                continue
            lines.seek(0)
            for number, line in enumerate(lines, start=1):
                what = next((what for what, pattern in (*values, *forms) if pattern.search(line)), None)
                if what:
                    yield f"{name}:{number}: {what}"
