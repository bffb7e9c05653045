"""Text that appears while it is written: which bytes may be shown now, and which must wait.

A token is a few bytes, so a character may arrive in parts, and a stop text too. Bytes wait until their
character is complete and until they cannot be the beginning of a stop text.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """Bytes go in as they come, and come out as soon as they may be shown.

    Attributes:
        stopped: a stop text has been met; it and all that follows is left out.
    """

    def __init__(self, stop: Sequence[bytes] = ()):
        self.stop = tuple(stop)
        self.stopped = False
        self._held = b""

    def push(self, data: bytes) -> bytes:
        """Add bytes; return those that may be shown now."""
        if self.stopped:
            return b""
        text = self._held + data
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self.stop if stop in text]
        if found:  # the one that is complete first counts, however the bytes come; of several, the longest
            end, length = min(found)
            self.stopped, self._held = True, b""
            return text[: end + length]
        waiting = max([incomplete_character(text), *(_beginning(text, stop) for stop in self.stop)])
        ready = len(text) - waiting
        self._held = text[ready:]
        return text[:ready]

    def close(self) -> bytes:
        """The text is over: return what was held back, as it is."""
        held, self._held = self._held, b""
        return held


def incomplete_character(text: bytes) -> int:
    """Length of the unfinished UTF-8 character at the end of text: 0 to 3 bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text[-3:])
    return len(decoder.getstate()[0])


def _beginning(text: bytes, stop: bytes) -> int:
    """Length of the longest end of text that a stop text begins with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
