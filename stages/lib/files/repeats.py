"""Which of many hashes occur more than once: 8 bytes of memory for each of the first half million, then of the disk.

repeats = Repeats()
repeats.add(hash("q0#0"))
repeats.found()          # the hashes that were added twice
"""

import tempfile
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IN_MEMORY = 2**19  # hashes
MOST_PASSES = 32  # above 17 million hashes, each takes a 32nd of them into memory
BLOCK = 2**16  # hashes that are read at once
SMALL = 2**13  # so many are sorted in less time than numpy takes to import


class Repeats:
    """Hashes, integers of 64 bits with a sign; those that memory has no room for are in a file without a name."""

    def __init__(self) -> None:
        self._latest = array("q")
        self._file: BinaryIO | None = None
        self._in_file = 0

    def add(self, value: int) -> None:
        """Add a hash."""
        self._latest.append(value)
        if len(self._latest) == IN_MEMORY:
            self._spill()

    def found(self) -> set[int]:
        """The hashes that were added more than once."""
        if self._file:
            self._spill()
            return set().union(*self._found_in_file(self._file))
        if len(self._latest) <= SMALL:
            return {first for first, second in pairwise(sorted(self._latest)) if first == second}
        import numpy as np

        return _repeated(np.array(self._latest))

    def _spill(self) -> None:
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115
        self._latest.tofile(self._file)
        self._in_file += len(self._latest)
        self._latest = array("q")

    def _found_in_file(self, file: BinaryIO) -> Iterator[set[int]]:
        """The file is read at most MOST_PASSES times; each time the hashes of one remainder are compared."""
        import numpy as np

        passes = min(-(-self._in_file // IN_MEMORY), MOST_PASSES)
        for remainder in range(passes):
            file.seek(0)
            alike = []
            while block := file.read(8 * BLOCK):
                hashes = np.frombuffer(block, np.int64)
                alike.append(hashes[hashes % passes == remainder])
            yield _repeated(np.concatenate(alike))


def _repeated(hashes: "NDArray[np.int64]") -> set[int]:
    hashes.sort()
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
