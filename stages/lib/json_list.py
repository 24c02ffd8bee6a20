"""The elements of a JSON list in a file, one at a time: the memory is that of the longest of them.

with Path("data/sharegpt/filtered/filtered.json").open("rb") as file:
    for sample in elements(file): …
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

BLOCK = 2**20  # characters that are read at once
EDGE = 16  # an error nearer to the end of what was read may only lack the rest: no literal is longer
SPACE = re.compile(r"[ \t\n\r]*")


def elements(file: BinaryIO) -> Iterator[Any]:
    """Each element of the list; ValueError where the file is not UTF-8 or not one JSON list."""
    text = _Text(file)
    if text.taken() != "[":
        raise ValueError("it is not a list")
    if text.sign() == "]":
        text.taken()
    else:
        yield text.value()
        while (sign := text.taken()) == ",":
            yield text.value()
        if sign != "]":
            raise ValueError("its list does not end" if not sign else f"{sign!r} between two samples of its list")
    if sign := text.sign():
        raise ValueError(f"{sign!r} after its list")


class _Text:
    """The text of a file; it is read on when that is needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def sign(self) -> str:
        """The next character that is not white space, which stays; empty at the end."""
        while True:
            space = SPACE.match(self._text, self._at)
            assert space  # it matches nothing, too
            self._at = space.end()
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def taken(self) -> str:
        """The next character that is not white space, which is then behind; empty at the end."""
        sign = self.sign()
        self._at += len(sign)
        return sign

    def value(self) -> Any:
        """The value that is next."""
        self.sign()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - EDGE
                if not may_go_on or not self._read_on():
                    raise ValueError(error.msg) from error
                continue
            except RecursionError as error:
                raise ValueError("lists or objects nested too deeply") from error
            if end < len(self._text) or not self._read_on():  # 12 may be the beginning of 123
                self._at = end
                return value

    def _read_on(self) -> bool:
        """Read at least as much as is there already, so that a long value is not decoded often; False at the end."""
        rest = self._text[self._at :]
        more = self._file.read(max(BLOCK, len(rest)))
        if more:
            self._text, self._at = rest + more, 0
        return bool(more)
