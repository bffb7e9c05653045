"""The parts of a token file that an id closes: documents, and the sources and targets of pairs.

Read before: `token_file.py`. Read next: `pairs.py`.
"""

import numpy as np

from .token_file import TokenFile


class Parts:
    """Where each stretch of a token file lies that ends with a certain id. `len` is their number.

    The file is read once, in stretches; 16 bytes stay in memory for each part. What follows the last such id
    belongs to no part.

    Args:
        tokens: the file.
        end: the id that closes a part.

    Attributes:
        starts: where each part starts, int64.
        stops: where the closing id of each part stands, int64.
    """

    def __init__(self, tokens: TokenFile, end: int):
        found = [start + np.flatnonzero(ids == end) for start, ids in tokens.stretches()]
        self.stops = np.concatenate([np.empty(0, np.int64), *found])
        self.starts = np.concatenate([np.zeros(1, np.int64), self.stops + 1])[:-1]

    def __len__(self) -> int:
        return len(self.stops)

    def __getitem__(self, i: int) -> tuple[int, int]:
        """Where part `i` starts, and where the id that closes it stands."""
        return int(self.starts[i]), int(self.stops[i])

    def containing(self, position: int) -> int:
        """The number of the part that a position lies in; that of a closing id belongs to the part it closes.

        Raises:
            IndexError: no part is there.
        """
        i = int(np.searchsorted(self.stops, position))
        if position < 0 or i == len(self):
            raise IndexError(f"position {position} lies in none of the {len(self)} parts")
        return i
