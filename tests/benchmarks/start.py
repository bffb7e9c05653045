"""How long `tinyformer train` takes from its start to its first step, on a text of 1 MB.

That is Python's own start, imports, the tokenizer, encoding the text, making the model, and the step.

Read before: `tokenizing.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .tokenizing import drawn_text

SIZE = 1_000_000


def first_step(folder: Path, *arguments: str) -> float:
    """Seconds from the start of the command to the line about its first step; the run ends there."""
    command = [sys.executable, "-m", "tinyformer", "train", *arguments, "--log-format", "json"]
    began, line = time.perf_counter(), ""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout:
                if line.startswith("{") and json.loads(line)["event"] == "train":
                    return time.perf_counter() - began
        finally:
            process.kill()
    raise RuntimeError(f"{' '.join(command)} made no step; its last line was {line!r}")


def measure(name: str, *, rounds: int, threads: int, text: Path | None) -> dict[str, Any]:
    """Each round is a run of its own; one before them brings files into memory."""
    with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
        content = drawn_text(SIZE).encode() if text is None else text.read_bytes()
        (Path(folder) / "text.txt").write_bytes(content)
        times = [first_step(Path(folder), "text.txt", "--threads", str(threads)) for _ in range(rounds + 1)]
    return {
        "case": name,
        "threads": threads,
        "contenders": {"tinyformer": {"seconds": times[1:], "first": None, "wrong": None}},
    }
