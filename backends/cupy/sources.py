"""The text of a CUDA source, everything that it includes in its place. Imports no CuPy: tests read sources, too.

Read next: `launch.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
REALS = {"float32": "float", "bfloat16": "bfloat16"}  # the types of numbers that kernels store, by their dtypes

_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)


def text(name: str) -> str:
    """A source with everything that it includes in its place, each file once.

    In ASCII, of which only comments want more: CuPy writes it to a file in whatever encoding the user's locale has.
    """
    seen = set()

    def include(found: re.Match) -> str:
        if found[1] in seen:
            return ""
        seen.add(found[1])
        return _INCLUDE.sub(include, (FOLDER / found[1]).read_text(encoding="utf-8"))

    return include(re.match("(.*)", name)).encode("ascii", "replace").decode()
