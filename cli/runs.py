"""What several commands do with a run directory, and with a text for its model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click


def load_run(path: str) -> tuple[Any, Any]:
    """The model and the tokenizer of a run directory or of one of its checkpoints."""
    import tinyformer

    from ..text import load_tokenizer
    from ..training.rundir import open_run

    run = open_run(path)
    model = tinyformer.load(path, on_damage=lambda message: click.echo(f"warning: {message}", err=True))
    return model, load_tokenizer(run.tokenizer_file)


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
