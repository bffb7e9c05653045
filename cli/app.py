"""How every command behaves: loaded when it is called, and ending in one line when something is wrong.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

import click

from ..errors import TinyformerError

_DEBUG = "--debug"
_SETTINGS = {"help_option_names": ["--help", "-h"]}


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error about an unknown name; empty where nothing is close."""
    by_letters = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_letters, n=1)
    return f"; did you mean {by_letters[close[0]]!r}?" if close else ""


class Choice(click.Choice):
    """One of a few names; a mistyped one is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return f"{value!r} is not one of {', '.join(self.choices)}{nearest(str(value), self.choices)}"


class Name(click.ParamType):
    """The name of a file or a directory. An empty one, as from an unset variable, would be the working directory."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "" and param is not None:
            shown = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name.strip("[].")
            raise click.UsageError(f"{shown} needs a name", ctx)
        return value


class Command(click.Command):
    """A command that takes -h for --help, and --debug at any place, as the group does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings |= _SETTINGS
        self.params.append(_debug_option(hidden=True))


class App(click.Group):
    """The group of commands.

    Args:
        summaries: each command's name and line of help; `tinyformer.cli.NAME` holds it as `command`.
    """

    def __init__(self, *args: Any, summaries: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings |= _SETTINGS
        self.params.append(_debug_option(hidden=False))
        self.summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.summaries:
            return None
        return importlib.import_module(f"tinyformer.cli.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name not in self.summaries and not name.startswith("-"):
            known = ", ".join(self.summaries)
            ctx.fail(f"unknown command {name!r}{nearest(name, self.summaries) or f'; there are {known}'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, and exit the process. A command's return value, where it has one, is the exit code."""
        _open_what_is_closed()
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "tinyformer", *rest, **extra)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            code = 1
        except Exception as error:
            code, message = _verdict(error)
            with contextlib.suppress(OSError):  # where stderr cannot be written, the exit code tells
                if _DEBUG in args:
                    traceback.print_exc()
                if message:
                    click.echo(message if code > 128 else f"Error: {message}", err=True)
        _drop_what_cannot_be_written()
        sys.exit(code)


def print_json(value: Any) -> None:
    """Print a value as one line of strict JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _verdict(error: Exception) -> tuple[int, str]:
    """The exit code for an error, and the line that tells the user."""
    if isinstance(error, click.exceptions.Abort):  # what click makes of Ctrl-C
        return 130, ""
    if isinstance(error, click.UsageError) and error.ctx:
        message = error.format_message().removesuffix(".")
        return error.exit_code, f"{message} (see {error.ctx.command_path} --help)"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, TinyformerError):
        return error.exit_code, " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return 1, "out of memory; a smaller model, context or batch needs less (--dry-run shows how much)"
    if isinstance(error, OSError) and error.filename is not None:
        return 1, f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:  # files are opened by their names; what has none is a stream
        return 1, f"cannot write the output: {error.strerror[0].lower()}{error.strerror[1:]}"
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return 1, f"{reason} (this is a bug in tinyformer; {_DEBUG} shows where)"


def _open_what_is_closed() -> None:
    """Python has None for a standard stream that the shell has closed, as `>&-` does."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", errors="replace"))


def _drop_what_cannot_be_written() -> None:
    """Python would try once more when it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _debug_option(hidden: bool) -> click.Option:
    help_ = "Show where an error comes from."
    return click.Option([_DEBUG], is_flag=True, expose_value=False, hidden=hidden, help=help_)
