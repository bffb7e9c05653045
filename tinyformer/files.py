"""Writing files so that a crash, a power cut or a full disk leaves either the old state or the new one.

Everything is written under a temporary name beside its target, forced to the disk with fsync, and then
renamed, which happens at once or not at all; at last the parent directory, which holds the name, is forced
to the disk too. What is left behind under a temporary name was interrupted, and the next write removes it: a
place must have one writer at a time, which the lock of a run (`training/rundir.py`) sees to.

Read next: `training/checkpoint.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .errors import TinyformerError

TEMPORARY = ".tmp-"
_CHUNK = 1 << 24  # bytes in one write


class WriteError(TinyformerError):
    """Something could not be written; what was there before still is."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` once it is complete and on the disk.

    Raises:
        WriteError: names the path, the reason and a remedy. The old file, if any, is untouched.
    """
    temporary = path.with_name(TEMPORARY + path.name)  # what a kill has left under this name is overwritten
    with _reporting(path), _removed_on_failure(temporary):
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        _sync_directory(path.parent)


def write_directory(path: Path, contents: Mapping[str, Sequence[bytes | memoryview]], *, alone: bool = True) -> None:
    """Create or replace a directory of files durably; all of them appear together, or none.

    Args:
        path: of the directory, whose parent exists.
        contents: of the files in it, by name, each in pieces, so that none needs to be put together in memory.
        alone: whether the parent holds only such directories, so that all that failed attempts left there may go.

    Raises:
        WriteError: names the path, the reason and a remedy.
    """
    with _reporting(path):
        needed = sum(len(piece) for pieces in contents.values() for piece in pieces)
        temporary = _make_room(path, needed, "" if alone else path.name)
        with _removed_on_failure(temporary):
            os.mkdir(temporary)
            for name, pieces in contents.items():
                _write(temporary / name, pieces)
            _sync_directory(temporary)
            if path.exists():  # a damaged one: a rename does not replace a directory that holds something
                os.rename(path, path.with_name(f"{TEMPORARY}old-{path.name}"))
            os.rename(temporary, path)
            _sync_directory(path.parent)
        _remove_leftovers(path.parent, "" if alone else path.name)


def remove_directory(path: Path) -> None:
    """Remove a directory, never leaving half of it under its name. What fails is left for the next write."""
    leftover = path.with_name(f"{TEMPORARY}old-{path.name}")
    with contextlib.suppress(OSError):
        os.rename(path, leftover)
        shutil.rmtree(leftover)


def read_file(path: Path, most: int) -> bytes:
    """The content of a small regular file.

    Raises:
        ValueError: it is larger than `most` bytes.
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return content


def open_regular(path: Path) -> Any:
    """A file opened for reading bytes. A pipe put in its place raises OSError instead of waiting for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def reason(error: OSError | ValueError) -> str:
    """Why the system refused, in words; some libraries leave the usual fields empty."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space, or choose another disk with --out"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "choose a directory that you may write to with --out"
        else:
            remedy = "check the disk, or choose another one with --out"
        raise WriteError(f"cannot write {path}: {reason(error)}; {remedy}") from error


def _make_room(path: Path, needed: int, name: str) -> Path:
    """A temporary name beside the target, once leftovers are gone and there is room on the disk."""
    _remove_leftovers(path.parent, name)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free")
    return path.with_name(TEMPORARY + path.name)


def _remove_leftovers(directory: Path, name: str) -> None:
    """Remove what failed writes of one name have left, or of every name where it is empty."""
    for leftover in directory.glob(TEMPORARY + "*"):
        if not name or leftover.name in (TEMPORARY + name, f"{TEMPORARY}old-{name}"):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove(temporary)
        raise


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)
