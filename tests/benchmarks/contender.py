"""One side of a benchmark, alone in a process: it prepares, then answers requests until its input ends.

    python -m tests.benchmarks.contender MODULE FOLDER THREADS [FORM]

MODULE is a file of this package with a function `prepare(folder, threads, form)`, which returns a function without
arguments: one step, whose result can be compared with that of the other sides. Everything that the module imports is
in memory before the measurement of memory begins; so that counts what a library needs for the work, not its own size.

The protocol is a line of JSON each way. After the first step, its result; then for {"run": k} the seconds of each of
k steps, for {"peak": k} the bytes by which k steps make the process larger than it was after its imports.

Read before: `cases.py`. Read next: `ours.py`, `torch_peer.py`; `parent.py`, which asks.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyformer.backends.numpy import choose_kernels

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(kind: str) -> int | None:
    """Bytes of memory that this process holds ("VmRSS"), or held at most ("VmHWM"); None where the system is silent.

    Without the pages of files, such as of libraries, which the system drops and reads again as it likes.
    """
    if not STATUS.exists():
        return None
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE))
    return 1024 * (int(found[kind]) - int(found["RssFile"])) if {kind, "RssFile"} <= found.keys() else None


def peak_growth(step: Callable[[], Any], steps: int, before: int | None) -> int | None:
    """How far beyond `before` some steps take the process; None where the system does not tell."""
    try:
        CLEAR.write_text("5", encoding="ascii")  # the peak so far is forgotten (Linux, proc_pid_clear_refs(5))
    except OSError:
        return None
    for _ in range(steps):
        step()
    peak = resident("VmHWM")
    return None if peak is None or before is None else peak - before


def seconds(step: Callable[[], Any]) -> float:
    """How long a step takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main(module: str, folder: str, threads: str, form: str = "") -> None:
    """Serve the parent on standard input and output; what a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    choose_kernels()  # before anything imports NumPy
    contender = importlib.import_module(f"{__package__}.{module}")
    before = resident("VmRSS")
    step = contender.prepare(Path(folder), int(threads), form)
    print(json.dumps(step()), file=answers, flush=True)
    for line in sys.stdin:
        ((request, steps),) = json.loads(line).items()
        if request == "peak":
            answer = peak_growth(step, steps, before)
        else:
            answer = [seconds(step) for _ in range(steps)]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
