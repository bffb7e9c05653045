"""From a text's bytes to ids, as one stream or document by document; a long text in several processes.

Python's lock lets one thread at a time split and look up words, so byte pairs are shared out over processes instead. A
text is cut where a piece begins, whatever stands around it; each process gets stretches through its standard input and
answers with their ids, in as many bytes as were announced. It is a fresh interpreter with these modules and no more:
it neither imports the main script a second time, as `multiprocessing` would, nor unpickles anything, and it ends when
its input does, however the parent ended.

Read before: `bpe.py`, `documents.py`. Read next: `corpus.py`.
"""

import contextlib
import json
import os
import queue
import re
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import TinyformerError
from ..files import reason
from .bpe import BPETokenizer
from .documents import documents
from .tokenizers import Tokenizer, decoded

Encode = Callable[[Iterable[bytes], Path], Iterator[np.ndarray]]

EACH = 8 << 20  # bytes of text that pay for a process, which has to start, and to meet each word for the first time
MOST = 16  # processes; more would wait for the one that reads, cuts and writes
AHEAD = 2  # stretches under way for each process
LONGEST_UNCUT = 4 << 20  # bytes without a place to cut; a text that has them goes on in this process
# Between two characters that are not white space, before a space or a line break: a piece begins there, none depends
# on what lies beyond, and neither side is part of a break between documents. The last such place of a text.
PLACE = re.compile(r".*(?<=\S)(?=[ \n]\S)", re.DOTALL)
START = f"from {__name__} import main; main()"
_HEAD = struct.Struct("<Q?")  # bytes that follow; whether they go on with a text


def encode(
    tokenizer: Tokenizer,
    document: tuple[int, int] | None,
    chunks: Iterable[bytes],
    path: Path,
    *,
    inside: bool = False,
) -> Iterator[np.ndarray]:
    """The ids of one text, or of one document after the other.

    Args:
        tokenizer: turns bytes into ids.
        document: ids before and after each document; None where the text is one stream.
        chunks: consecutive bytes of the text.
        path: what an error message calls it.
        inside: the text begins in the middle of a document.
    """
    if document is None:
        yield from tokenizer.encode_stream(chunks, path)
        return
    begin, end = (np.array([i]) for i in document)
    if tokenizer.kind == "chars":  # so that a message counts the bytes of the file and not of the document
        chunks = (text.encode() for text in decoded(chunks, str(path)))
    for text in documents(chunks, inside=inside):
        if not inside:
            yield begin
        inside = False
        yield from tokenizer.encode_stream(text, path)
        yield end


@contextlib.contextmanager
def encoding(
    tokenizer: Tokenizer, document: tuple[int, int] | None, processes: int, text_bytes: int
) -> Iterator[Encode]:
    """`encode` with a tokenizer, by as many processes as pay for texts of that size; the ids are the same.

    Bytes and characters are encoded about as fast as they could be sent, and tokenizers of published models are not
    ours to cut for: they stay in this process.

    Raises:
        TinyformerError: a process cannot be started, or has ended by itself, as where memory runs out.
    """
    count = min(processes, MOST, text_bytes // EACH)
    if count < 2 or not isinstance(tokenizer, BPETokenizer):
        yield partial(encode, tokenizer, document)
        return
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    settings = json.dumps({"merges": tokenizer.merges, "document": document}).encode()

    def encoded(stretch: bytes, inside: bool) -> np.ndarray:
        worker = idle.get()
        try:
            return worker.encoded(stretch, inside)
        finally:  # also one that has ended, lest another thread waits for it
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        # Left in reverse order: no new stretches, then no processes, and so nothing that a thread could wait for.
        threads = stack.enter_context(ThreadPoolExecutor(count))
        workers = [stack.enter_context(contextlib.closing(_Worker())) for _ in range(count)]
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        for worker in workers:  # all are starting by now
            worker.send(settings)
            idle.put(worker)

        def shared(chunks: Iterable[bytes], path: Path) -> Iterator[np.ndarray]:
            under_way: deque[Future[np.ndarray]] = deque()
            held, inside, chunks = b"", False, iter(chunks)
            for chunk in chunks:
                held += chunk
                if place := _place(held):
                    under_way.append(threads.submit(encoded, held[:place], inside))
                    held, inside = held[place:], True
                elif len(held) > LONGEST_UNCUT:
                    break
                if len(under_way) > AHEAD * count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
            yield from encode(tokenizer, document, chain([held], chunks), path, inside=inside)

        yield shared


def _place(text: bytes) -> int:
    """The last place where a text can be cut; 0 if there is none."""
    characters = text.decode("utf-8", "surrogateescape")
    found = PLACE.match(characters)
    return len(text) - len(characters[found.end() :].encode("utf-8", "surrogateescape")) if found else 0


class _Worker:
    """A process that encodes stretches of text, one at a time.

    Raises:
        TinyformerError: it cannot be started; from the methods, that it has ended.
    """

    def __init__(self) -> None:
        # What this process can import, and without -P also what lies in the current directory.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # there is nothing to multiply
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        try:  # in a process group of its own, which Ctrl-C does not reach
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START], **pipes, env=environment, process_group=0
            )
        except OSError as error:
            raise TinyformerError(f"cannot start a process to encode with: {reason(error)}; use --threads 1") from error

    def send(self, content: bytes, inside: bool = False) -> None:
        """Hand over the settings, or a stretch and whether it begins in the middle of a document."""
        with self._reported():
            _write(self._process.stdin, content, inside)

    def encoded(self, stretch: bytes, inside: bool) -> np.ndarray:
        """The ids of a stretch, which ends in the middle of a document."""
        self.send(stretch, inside)
        with self._reported():
            return np.frombuffer(_read(self._process.stdout)[0], np.intc)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):  # it no longer takes what is left to send
                pipe.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError) as error:
            said = self._process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
            why = said or f"exit status {self._process.wait()}"
            remedy = "free some memory, or use --threads 1"
            raise TinyformerError(f"a process that encoded the text has ended ({why}); {remedy}") from error


def main() -> None:
    """What the process runs: it reads the settings and then stretches until its input ends, and answers with ids."""
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has finished, or is gone
        settings = json.loads(_read(sys.stdin.buffer)[0])
        tokenizer, document = BPETokenizer(settings["merges"]), settings["document"]
        while True:
            stretch, inside = _read(sys.stdin.buffer)
            ids = list(encode(tokenizer, document, [stretch], Path(), inside=inside))
            if document is not None:
                ids.pop()  # the document goes on
            _write(sys.stdout.buffer, np.concatenate(ids).astype(np.intc).tobytes())


def _write(pipe: IO[bytes], content: bytes, inside: bool = False) -> None:
    pipe.write(_HEAD.pack(len(content), inside) + content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[bytes, bool]:
    """What `_write` wrote.

    Raises:
        EOFError: the other process writes no more.
    """
    head = pipe.read(_HEAD.size)
    length, inside = _HEAD.unpack(head) if len(head) == _HEAD.size else (1, False)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content, inside
