"""The teacher's probabilities of tokens: as a server sent them, as a file, and as targets of a training.

answers.py      those that came with the answers: data/logprobs.parquet
lookup.py       one of them at a time
index.py        the last row of a file that has a hash
alignment.py    the same on the student's tokens, where both texts have the same tokens
local.py        those of a teacher that this process loads
served.py       those of a teacher behind /v1/completions
cache.py        those that are known already
scores.py       all of them for one arm: data/scores/ARM.parquet
parity.py       whether a served teacher and a loaded one give the same
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_TOKEN = -1  # in the place of a token that a row has not


@dataclass(frozen=True)
class Scored:
    """The likeliest tokens at some places of a row.

    ``positions`` [n]: places in the row's tokens. ``ids``, ``logprobs`` [n, k]: tokens there and their natural
    logarithms, given all tokens before; NO_TOKEN and -inf where there are fewer than k.
    """

    positions: NDArray[np.int32]
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
