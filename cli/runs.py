"""What several commands do with a run directory, and with a text for its model."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import IO, Any

import click

from .app import Choice

backend_option = click.option(
    "--backend", type=Choice(["auto", "numpy", "cupy"]), default="auto", show_default=True, help="The CPU or a GPU."
)


def load_run(path: str, backend: str = "auto") -> tuple[Any, Any]:
    """The model and the tokenizer of a run directory or of one of its checkpoints."""
    import tinyformer

    from ..text import load_tokenizer
    from ..training.rundir import open_run

    run = open_run(path)
    model = tinyformer.load(path, backend=backend, on_damage=warn)
    return model, load_tokenizer(run.tokenizer_file)


def load_language_model(path: str, backend: str = "auto") -> tuple[Any, Any]:
    """As `load_run`, of a model that predicts tokens: one with a head for a task has another use."""
    from ..training.rundir import open_run

    if (task := open_run(path).config().task) not in (None, "text2text"):
        raise click.UsageError(
            f"{path} was fine-tuned for the task {task}, and writes no text; use it with: tinyformer predict "
            f"{shlex.quote(path)} FILE"
        )
    return load_run(path, backend)


def source_prefix(path: str) -> bytes:
    """What a run that was fine-tuned to write a text given another puts before that; empty for any other."""
    from ..training.rundir import open_run

    config = open_run(path).config()
    return (config.prefix or "").encode() if config.task == "text2text" else b""


def warn(message: str) -> None:
    """Tell the user, on stderr."""
    click.echo(f"warning: {message}", err=True)


def threads_for(model: Any, threads: int | None) -> int:
    """How many threads compute a batch each: all cores unless the user says otherwise, and one beside a GPU."""
    from ..analysis.machine import usable_cores

    on_cpu = next(iter(model.parameters().values())).backend.name == "numpy"
    return (usable_cores() if threads is None else threads) if on_cpu else 1


def given_lines(file: str) -> tuple[Path | IO[bytes], bool]:
    """What to read a file's lines from, where - is stdin; and whether they may come slowly, as from a pipe.

    An open file may be closed by `done_with` once all was read; not before, for that would wait for whoever reads.
    """
    if file != "-":
        path = Path(file)
        pipe = path.exists() and not path.is_file() and not path.is_dir()
        return (open(path, "rb"), True) if pipe else (path, False)
    try:  # with a buffer of its own, for Python waits at its end for a thread that reads from sys.stdin
        own = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, ValueError):  # there is no file behind it, as in a test
        return sys.stdin.buffer, True
    return own, not stat.S_ISREG(os.fstat(own.fileno()).st_mode)


def done_with(source: Path | IO[bytes]) -> None:
    """Close what `given_lines` has opened."""
    if not isinstance(source, Path) and source is not sys.stdin.buffer:
        source.close()


def given_text(text: str | None, file: str | None = None) -> bytes:
    """A text's bytes, from an argument, a file, or a pipe; - is stdin. Empty where none is given."""
    if file not in (None, "-"):
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise click.UsageError(f"cannot read the prompt {file}: {error.strerror}") from error
    if text not in (None, "-"):
        return text.encode("utf-8", "surrogateescape")
    if text == "-" or file == "-" or (sys.stdin is not None and not sys.stdin.isatty()):
        return sys.stdin.buffer.read()
    return b""


def without_line_end(text: bytes) -> bytes:
    """The text without the line end with which files and pipes close what is one line."""
    return text.removesuffix(b"\n").removesuffix(b"\r")
