"""Calling the command line from a test, and a tiny model to call it with."""

import contextlib
import subprocess
import sys

from click.testing import CliRunner

from tinyformer.cli import main

TEXT = b"Once upon a time a small fox met a tall owl.\n" * 40
TINY = ["--width", "16", "--layers", "1", "--context", "16", "--batch-size", "2", "--tokenizer", "bytes"]
COMMAND = [sys.executable, "-m", "tinyformer"]
QUICK = [*TINY, "--steps", "4", "--eval-every", "2", "--sample-every", "0"]


def run(*args, **more):
    """The result of a command, run in this process."""
    return CliRunner().invoke(main, [str(arg) for arg in args], **more)


def finished(*args, **more):
    """The result of a command in a process of its own, with what it wrote as text."""
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run([*COMMAND, *map(str, args)], text=True, errors="replace", timeout=60, **more)


def output(*args, **more):
    """What a command that succeeds writes to stdout, as bytes."""
    result = run(*args, **more)
    assert result.exit_code == 0, result.stderr
    return result.stdout_bytes


@contextlib.contextmanager
def process(*args, **more):
    """A command in a process of its own, which is killed at the end if it still runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    with subprocess.Popen([*COMMAND, *map(str, args)], **pipes, **more) as child:
        try:
            yield child
        finally:
            child.kill()


def files_under(folder):
    """The content of every file."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
