"""Contenders as child processes, and rounds in which they take turns.

A machine's speed drifts by tens of per cent, with its temperature and with what else runs. So no contender is measured
to the end before another begins: in each round each of them makes some steps, and what is compared are the times of one
round.

Read before: `contender.py`. Read next: `training.py`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

from .report import note

ROOT = Path(__file__).parents[2]
TURN = 0.3  # seconds that a turn takes at least, where a step is short


class Entry(NamedTuple):
    """How a contender is called, in tables, and how it is started: a module of this package, and which form of it."""

    name: str
    module: str
    form: str = ""


class Failed(click.ClickException):
    """A contender ended before it answered; the message is the last line that it wrote."""


class Contender:
    """A child process.

    Attributes:
        entry: which contender it is.
        first: the result of its first step, when it has been waited for.
    """

    def __init__(self, entry: Entry, folder: Path, threads: int) -> None:
        self.entry = entry
        self._errors = folder / f"{entry.name}.errors"
        command = [sys.executable, "-m", f"{__package__}.contender", entry.module, folder, str(threads), entry.form]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
            )
        self.first: Any = None

    def wait(self) -> None:
        """Until it has made its first step.

        Raises:
            Failed: it has ended instead.
        """
        try:
            self.first = self._answer()
        except Failed:
            self.close()
            raise

    def ask(self, request: str, steps: int) -> Any:
        """The answer to a request; see `contender.py`."""
        self._process.stdin.write(json.dumps({request: steps}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        lines = self._errors.read_text(encoding="utf-8", errors="replace").split("\n")
        lines = [line.strip() for line in lines if line.strip()]
        raise Failed(lines[-1] if lines else f"it ended with exit code {self._process.returncode}")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def started(
    entries: Sequence[Entry], folder: Path, threads: int, *, at_once: bool = False
) -> Iterator[list[Contender]]:
    """Contenders that are ready; one that fails is left out, with a line that says why.

    Args:
        entries: who takes part.
        folder: of the case.
        threads: of each.
        at_once: whether they prepare beside each other, where there are cores enough; else one after the other.

    Raises:
        Failed: the first of them, which all others are compared with, cannot be left out.
    """
    with contextlib.ExitStack() as stack:
        contenders, candidates = [], (Contender(entry, folder, threads) for entry in entries)
        if at_once:
            candidates = list(candidates)
        for candidate in candidates:
            stack.callback(candidate.close)
            try:
                candidate.wait()
            except Failed as reason:
                if not contenders:
                    raise
                note(f"{candidate.entry.name} is left out: {reason}")
                continue
            contenders.append(candidate)
        yield contenders


def take_turns(contenders: Sequence[Contender], rounds: int, *, long: bool = False) -> dict[str, list[float]]:
    """Seconds of a step, the median of a turn, for each contender and round.

    Each round goes in the opposite direction of the one before. So a drift that is steady favours nobody, and nobody
    always follows the same other.

    Args:
        contenders: who take turns.
        rounds: how often.
        long: whether one step fills a turn in any case.
    """
    steps = dict.fromkeys(contenders, 1)
    if not long:
        steps = {contender: max(1, round(TURN / min(contender.ask("run", 1)))) for contender in contenders}
    times = {contender.entry.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders[:: -1 if number % 2 else 1]:
            times[contender.entry.name].append(median(contender.ask("run", steps[contender])))
    return times
