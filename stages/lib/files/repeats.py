"""Which of many hashes occur more than once: 8 bytes of memory for each of the first million, then of the disk.

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

IN_MEMORY = 2**20  # hashes
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
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115
            self._latest.tofile(self._file)
            self._in_file += IN_MEMORY
            self._latest = array("q")

    def found(self) -> set[int]:
        """The hashes that were added more than once."""
        if self._in_file or len(self._latest) > SMALL:
            return self._found_by_numpy()
        return {first for first, second in pairwise(sorted(self._latest)) if first == second}

    def _found_by_numpy(self) -> set[int]:
        """The file is read once for each million of hashes; of equal remainders, all are in memory at once."""
        import numpy as np

        passes, found = 1 + self._in_file // IN_MEMORY, set[int]()
        for remainder in range(passes):
            alike = [block[block % passes == remainder] for block in self._blocks()]
            ordered = np.sort(np.concatenate(alike))
            found.update(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        return found

    def _blocks(self) -> "Iterator[NDArray[np.int64]]":
        import numpy as np

        if self._file:
            self._file.seek(0)
        for _ in range(0, self._in_file, IN_MEMORY):
            assert self._file
            yield np.frombuffer(self._file.read(8 * IN_MEMORY), np.int64)
        yield np.array(self._latest, np.int64)
