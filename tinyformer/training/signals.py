"""Ctrl-C and SIGTERM: the first asks the loop to save and leave, the second leaves at once.

A handler may run between any two instructions, so it only notes the signal; the loop looks between steps,
where everything is in order. Read next: `trainer.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ..errors import TinyformerError


class Stopped(TinyformerError):
    """A signal ended the run early; its message says how to go on. Exits as a shell expects: 130 or 143."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """Whether a signal has asked to stop.

    Attributes:
        number: of the signal; 0 for none.
    """

    number = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside, SIGINT and SIGTERM set a flag. The earlier handlers come back at the end.

    A signal that is ignored stays ignored, as under nohup. Only the main thread can handle signals; in
    another one they do what they did before.
    """
    request = StopRequest()
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                earlier[number] = signal.signal(number, request._note)
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
