"""Ctrl-C, SIGTERM, and SIGHUP of a closed terminal: the first asks the loop to save and leave, the second leaves at
once.

A handler may run between any two instructions, so it only notes the signal and tells the user; the loop looks between
steps, and between the batches of a validation, where everything is in order. Read next: `trainer.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..errors import TinyformerError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(TinyformerError):
    """A signal ended the run early; its message says how to go on. Exits as a shell expects: 130, 143 or 129."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """Whether a signal has asked to stop.

    Args:
        reporter: gets a warning as soon as the signal comes.

    Attributes:
        number: of the signal; 0 for none.
        answer: what will be done about it.
    """

    def __init__(self, reporter: Callable[[dict[str, Any]], None]) -> None:
        self.number = 0
        self.answer = "stopping"
        self._reporter, self._reporting, self._told = reporter, False, False

    def report(self, event: dict[str, Any]) -> None:
        """Pass an event on to the reporter: the way for everything that is reported while signals are handled.

        A signal may come in the middle of a report, which cannot be interrupted by another; its own waits.
        """
        self._reporting = True
        try:
            self._reporter(event)
        finally:
            self._reporting = False
        self._tell()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        self._tell()

    def _tell(self) -> None:
        if self.number and not self._told and not self._reporting:
            self._told = True
            self._reporter({"event": "warning", "message": f"{self.answer}; a second Ctrl-C leaves at once"})


@contextlib.contextmanager
def stop_requests(reporter: Callable[[dict[str, Any]], None] = lambda event: None) -> Iterator[StopRequest]:
    """Inside, the first of `SIGNALS` sets a flag and tells a reporter. The earlier handlers come back at the end.

    A signal that is ignored stays ignored, as under nohup. Only the main thread can handle signals; in
    another one they do what they did before.
    """
    request = StopRequest(reporter)
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                earlier[number] = signal.signal(number, request._note)
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
