"""A run's directory: where its files lie, how a new one is claimed, and how it is kept from two writers.

    runs/data-decoder/config.toml     every setting, also those that were chosen for you
                      tokenizer.json
                      train.tokens, validation.tokens   the text as ids, so that a resumed run needs no text
                      log.jsonl
                      checkpoints/

One that was fine-tuned (`finetuning.py`) has instead of token files its examples, train.jsonl and validation.jsonl, and
beside the checkpoints in best/ the one with which it did best on the latter.

Read before: `tinyformer/files.py`, `checkpoint.py`. Read next: `data.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..errors import TinyformerError, UsageError
from .config import RunConfig, read_config

HEADING = """\
# The settings of this run, as tinyformer resolved them.
# `tinyformer train --config THIS_FILE` begins a new run with them; `--resume` goes on with this one.

"""
CHECKPOINTS, BEST = "checkpoints", "best"
_LOCK = ".lock"
_A_RUN = "a run is what `tinyformer train` writes"


@dataclasses.dataclass(frozen=True)
class Run:
    """The paths of a run.

    Attributes:
        path: its directory.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def tokenizer_file(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def train_tokens(self) -> Path:
        return self.path / "train.tokens"

    @property
    def validation_tokens(self) -> Path:
        return self.path / "validation.tokens"

    @property
    def train_examples(self) -> Path:
        return self.path / "train.jsonl"

    @property
    def validation_examples(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def best(self) -> Path:
        return self.path / BEST

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"tinyformer train --resume {shlex.quote(str(self.path))}"

    def config(self) -> RunConfig:
        """The settings of the run.

        Raises:
            UsageError: config.toml cannot be read, or holds something impossible.
        """
        return read_config(self.config_file)

    def write_config(self, config: RunConfig) -> None:
        """Write config.toml durably.

        Raises:
            WriteError: it could not be written.
        """
        with files.replacing(self.config_file) as file:
            file.write(config.to_toml(HEADING).encode())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while training into it. The system lets go when the process ends, however it ends.

        Raises:
            TinyformerError: another process holds it, or the directory cannot be written.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            reason = f"cannot write to {self.path}: {files.reason(error)}"
            raise files.WriteError(f"{reason}; choose another --out") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise TinyformerError(
                        f"another process is training into {self.path}; wait for it, or train into another directory"
                    ) from error
                # A file system without locks: go on without one.
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def new_run(out: str | Path | None, first_file: str | Path, mode: str) -> Iterator[Run]:
    """Claim a directory for a new run and hold its lock.

    A run begins when its config.toml is there, which is written last. If the block fails before that,
    nothing of it is left; after that, nothing is removed.

    Args:
        out: where; must be new or empty. None takes runs/<file stem>-<mode>, or the next free name after it.
        first_file: of the training text, for the default name.
        mode: such as "decoder", for the default name.

    Raises:
        UsageError: `out` exists and is not empty.
        TinyformerError: it cannot be made.
    """
    try:
        path, made = _claim(Path(out)) if out is not None else _next_free(Path(first_file).stem, mode)
    except OSError as error:
        reason = f"cannot create {out if out is not None else 'runs/'}: {files.reason(error)}"
        raise files.WriteError(f"{reason}; choose another --out") from error
    run = Run(path)
    with run.lock():
        if set(os.listdir(path)) - {_LOCK}:
            raise _occupied(path)
        try:
            yield run
        except BaseException:
            if not run.config_file.exists():
                _clear(path, made)
            raise


def open_run(path: str | Path) -> Run:
    """An existing run, from its directory or from one of its checkpoints.

    Raises:
        UsageError: there is none; the message says what was missing.
    """
    path = Path(path)
    if path.parent.name in (CHECKPOINTS, BEST) and (path / "state.json").exists():
        path = path.parent.parent
    if not path.exists():
        raise UsageError(f"no run at {path}: it does not exist; {_A_RUN}")
    if not path.is_dir():
        raise UsageError(f"{path} is a file, not a run directory; {_A_RUN}")
    run = Run(path)
    if not run.config_file.is_file():
        is_published = (path / "config.json").is_file()
        way = f"tinyformer import {shlex.quote(str(path))} --out RUN makes one of it" if is_published else _A_RUN
        raise UsageError(f"{path} is not a run directory: no config.toml; {way}")
    return run


def _claim(path: Path) -> tuple[Path, bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir() or set(os.listdir(path)) - {_LOCK}:
            raise _occupied(path) from None
        return path, False
    return path, True


def _next_free(stem: str, mode: str) -> tuple[Path, bool]:
    base = f"{stem.lstrip('.')[:60] or 'text'}-{mode}"
    Path("runs").mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = Path("runs") / (base if number == 1 else f"{base}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()  # at once or not at all, also against another process that starts now
            return path, True
    raise AssertionError("there is always a free name")


def _occupied(path: Path) -> UsageError:
    run, way = Run(path), ""
    if run.config_file.is_file():
        imported = False
        with contextlib.suppress(UsageError):
            imported = not run.config().files
        way = "" if imported else f", or go on with the run there: {run.resume_command}"
    elif path.is_dir() and _is_unfinished(run):
        way = f", or remove it: it is the beginning of a run that was killed before it had a {run.config_file.name}"
    return UsageError(f"{path} exists and is not empty; choose a new --out{way}")


def _is_unfinished(run: Run) -> bool:
    """Whether all in a directory without config.toml is what a process left that was killed, and none is at work."""
    parts = [run.tokenizer_file, run.log_file, run.checkpoints]
    parts += [run.train_tokens, run.validation_tokens, run.train_examples, run.validation_examples]
    found, own = set(os.listdir(run.path)), {_LOCK, *(part.name for part in parts)}
    if _LOCK not in found or any(name not in own and not name.startswith(files.TEMPORARY) for name in found):
        return False
    try:
        with run.lock():
            return True
    except TinyformerError:
        return False


def _clear(path: Path, made: bool) -> None:
    if made:
        shutil.rmtree(path, ignore_errors=True)
        return
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
