"""Arrays in the safetensors format, with one kind of error for everything that can be wrong with a file.

The package does the work. What it leaves to do: its `save_file` writes in place, so its bytes are written by
`tinyformer/files.py`; and a file from anywhere may raise half a dozen kinds of error, or be no file at all.

Read before: `tinyformer/files.py`. Read next: `checkpoint.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from .. import files
from ..errors import TinyformerError

_MOST_HEADER = 2 << 20  # bytes, some 20,000 tensors; parsing takes many times as much


class DamagedFile(TinyformerError):
    """A file is not what its format promises; the message names the file and says what is wrong."""


def encode(tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The content of a safetensors file.

    Args:
        tensors: arrays by name.
        metadata: what its header says beside them.
    """
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()}, metadata)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
        DamagedFile: it cannot be read, or is not in order. Its size bounds the memory that finding out takes.
    """
    try:
        with files.open_regular(path) as file:
            length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if not 2 <= length <= min(size - 8, _MOST_HEADER):
            raise ValueError("its header does not fit it")
        with safetensors.safe_open(path, framework="numpy") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}
    except OSError as error:
        raise DamagedFile(f"cannot read {path}: {files.reason(error)}") from error
    except MemoryError as error:
        raise DamagedFile(f"{path} is too large for the memory of this machine") from error
    except KeyError as error:
        raise DamagedFile(f"{path} holds numbers of a type that NumPy lacks: {error}") from error
    except (safetensors.SafetensorError, AttributeError, OverflowError, TypeError, ValueError) as error:
        raise DamagedFile(f"{path} is damaged, or no safetensors file: {str(error)[:200]}") from error
