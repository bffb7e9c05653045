"""The run's log, log.jsonl: one JSON object a line, written at once, cut back when a run resumes.

    {"step": 10, "split": "train", "loss": 4.1, "learning_rate": 0.001, ...}
    {"step": 250, "split": "validation", "loss": 2.4, "bits_per_byte": 3.4}

JSON has no NaN: a number that is not finite is null. Read next: `trainer.py`.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from .. import files


class RunLog:
    """Appends lines to a log. A full disk costs no line: what could not be written is kept for the next try.

    Args:
        path: of log.jsonl; what it holds already stays.

    Raises:
        WriteError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        self._open()

    def append(self, entry: dict[str, Any]) -> str:
        """Add a line.

        Returns:
            Why it could not be written for now; empty when it was.
        """
        strict = {key: _strict(value) for key, value in entry.items()}
        self._waiting += json.dumps(strict, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            written = os.pwrite(self._descriptor, self._waiting, self._end)
        except OSError as error:
            return f"cannot write {self._path}: {files.reason(error)}; its lines are kept in memory for now"
        # After a short write the rest follows at the right place next time; only a crash can leave half a
        # line.
        self._end += written
        self._waiting = self._waiting[written:]
        return ""

    def sync(self) -> str:
        """Force the lines to the disk. Returns why that failed; empty when it did not."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            return f"cannot write {self._path}: {files.reason(error)}"
        return ""

    def cut_back(self, step: int, validated: float) -> None:
        """As the function `cut_back`; what follows is appended to the shorter log.

        Raises:
            WriteError: the shorter log cannot be written; the old one is untouched.
        """
        cut_back(self._path, step, validated)
        before = self._descriptor
        self._open()
        os.close(before)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._end = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            reason = f"cannot write {self._path}: {files.reason(error)}"
            raise files.WriteError(f"{reason}; check its permissions") from error


def cut_back(path: Path, step: int, validated: float) -> None:
    """Remove what a resumed run writes again, and a last line that a crash has torn.

    Args:
        path: of log.jsonl.
        step: the one after which lines are removed.
        validated: the one after which validations are removed.

    Raises:
        WriteError: the shorter log cannot be written; the old one is untouched.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        reason = f"cannot read {path}: {files.reason(error)}"
        raise files.WriteError(f"{reason}; check its permissions") from error
    kept = b"".join(line for line in content.splitlines(keepends=True) if _belongs(line, step, validated))
    if kept != content:
        with files.replacing(path) as file:
            file.write(kept)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log as dictionaries; a torn last line is left out."""
    lines = path.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if _belongs(line, math.inf, math.inf)]


def _belongs(line: bytes, step: float, validated: float) -> bool:
    try:
        entry = json.loads(line)
        last = min(step, validated) if entry.get("split") == "validation" else step
        return line.endswith(b"\n") and entry["step"] <= last
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
