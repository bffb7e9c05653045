"""`tinyformer inspect`: what a model would see of a line of text, and which token may look at which."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import click

from ..files import open_regular
from ..training.config import OBJECTIVES
from .app import Choice, Command, Name, print_json
from .figures import counted
from .page import page

_MOST_BYTES = 1 << 20  # of a file that are looked at
_NAMES = {name: mode for mode, names in OBJECTIVES.items() for name in names}


class _Lines(click.ParamType):
    """A line's number, or the first and the last of several: 3, or 3-7."""

    name = "N[-M]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        first, _, last = value.partition("-")
        if not re.fullmatch(r"[1-9]\d{0,8}(-[1-9]\d{0,8})?", value, re.ASCII) or int(last or first) < int(first):
            self.fail(f"{value!r} is no line number, such as 3, and no range of lines, such as 3-7", param, ctx)
        return int(first), int(last or first)


@click.command(cls=Command)
@click.argument("source", required=False, metavar="[FILE|TEXT]")
@click.option(
    "--mode", type=Choice(tuple(OBJECTIVES)), help="Kind of model: decoder (GPT), encoder (BERT) or both (T5)."
)
@click.option("--objective", type=Choice(tuple(_NAMES)), help="What it is trained to do; each mode has a default.")
@click.option(
    "--tokenizer",
    type=Name(),
    show_default="words",
    metavar="KIND|FILE|RUN",
    help="words, bytes, chars, a tokenizer.json, or a run, as --run.",
)
@click.option(
    "--run", type=Name(), help="A run, whose tokenizer, mode, objective (or task) and context then hold.", metavar="RUN"
)
@click.option("--hide", multiple=True, metavar="WORD", help="Hide this word instead of drawing; may be repeated.")
@click.option("--line", type=_Lines(), help="Line N of the file, or lines N to M; default: the first with text.")
@click.option(
    "--context", type=click.IntRange(3), metavar="N", help="Cut the text to what a context of N tokens takes."
)
@click.option(
    "--tokens", type=click.IntRange(1), metavar="N", help="Show N tokens at most; default: what fits the width."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of what is drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: str | None,
    mode: str | None,
    objective: str | None,
    tokenizer: str | None,
    run: str | None,
    hide: tuple[str, ...],
    line: tuple[int, int] | None,
    context: int | None,
    tokens: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show what a model would see of a text: its tokens, what is hidden, the target, and who may look at whom.

    An argument that names an existing file is that file, of which one line is shown; - is stdin; anything else is the
    text itself. Blank lines separate documents for an encoder; next-sentence takes the first two of all lines, and
    seq2seq a line "source TAB target". Of a run that was fine-tuned, it is an example of the task, with a label or
    without: what the model reads of it, where its head answers, and what was cut. Its columns are found by the names
    that they had in training, or where the first line of a file with tabs does not have these, by their order.
    """
    from ..analysis.inspection import inspect, tokenizer_for
    from ..text import load_tokenizer
    from ..training.rundir import open_run

    if run is not None and tokenizer is not None:
        raise click.UsageError(f"--run brings its own tokenizer; leave --tokenizer {tokenizer} out")
    tokenizer = tokenizer or "words"
    if run is None and (Path(tokenizer) / "config.toml").is_file():
        run = tokenizer
    opened = open_run(run) if run is not None else None
    settings = opened.config() if opened else None
    if settings and settings.task is not None and objective is None:
        if mode not in (None, settings.mode):
            raise click.UsageError(f"{run} is a run of --mode {settings.mode}; leave --mode {mode} out")
        if hide:
            raise click.UsageError(f"the task {settings.task} hides no words; leave --hide out, or name an --objective")
        facts, kind = _example(opened, settings, source, line, context)
        if as_json:
            print_json(dataclasses.asdict(facts))
        else:
            page(facts, kind, tokens)
        return
    mode, objective = _task(mode, objective, settings, run or "")
    content = _content(source, line, every_line=objective == "next-sentence")
    if opened:
        made, context = load_tokenizer(opened.tokenizer_file), context or settings.model.get("context")
    else:
        made = tokenizer_for(tokenizer, content, mode)
    facts = inspect(content, made, objective, context=context, hide=hide, seed=seed)
    if as_json:
        print_json(dataclasses.asdict(facts))
        return
    page(facts, made.kind, tokens)


def _example(run: Any, settings: Any, source: str | None, line: Any, context: int | None) -> tuple[Any, str]:
    """What a fine-tuned model sees of an example, and the kind of its tokens."""
    from ..tasks.inspecting import find, inspect
    from ..training.finetuning import columns_of, open_task

    task = open_task(run, settings, context=context)
    place: Any = Path(source) if source and _exists(source) else _content(source, line, every_line=True)
    example = find(type(task), place, columns_of(run, settings), line[0] if line else None)
    if example is None or not example.texts:
        raise click.UsageError(f"{source} has no example from line {line[0]} on" if line else "there is no example")
    return inspect(task, example), task.tokenizer.kind


def _task(mode: str | None, objective: str | None, run: Any = None, name: str = "") -> tuple[str, str]:
    """The mode and the objective that were asked for, or that a run's settings name."""
    if run is not None:
        if mode not in (None, run.mode):
            raise click.UsageError(f"{name} is a run of --mode {run.mode}; leave --mode {mode} out")
        mode, objective = run.mode, objective or run.objective
    mode = mode or _NAMES.get(objective)
    if mode is None:
        raise click.UsageError("a model of which kind? add --mode decoder, --mode encoder or --mode encoder-decoder")
    objective = objective or OBJECTIVES[mode][0]
    if objective not in OBJECTIVES[mode]:
        raise click.UsageError(
            f"--objective {objective} belongs to --mode {_NAMES[objective]}; --mode {mode} has "
            f"{' and '.join(OBJECTIVES[mode])}"
        )
    return mode, objective


def _content(source: str | None, line: tuple[int, int] | None, *, every_line: bool) -> bytes:
    """The text to look at: the argument itself, or lines of a file or of stdin."""
    if source is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("give a text, a file, or - for stdin")
    if source in (None, "-"):
        source, content = "stdin", sys.stdin.buffer.read(_MOST_BYTES)
    elif source and _exists(source):
        try:
            with open_regular(Path(source)) as file:
                content = file.read(_MOST_BYTES)
        except OSError as error:
            raise click.UsageError(f"cannot read {source}: {error.strerror.lower()}") from error
    elif line:
        raise click.UsageError(f"--line chooses a line of a file, and there is no file {source!r}")
    else:
        return source.encode("utf-8", "surrogateescape")
    lines = content.removesuffix(b"\n").split(b"\n")
    if line is None:
        return content if every_line else next((text for text in lines if text.strip()), b"").removesuffix(b"\r")
    first, last = line
    if last > len(lines):
        raise click.UsageError(f"{source} has no line {last}, only {counted(len(lines), 'line')}")
    return b"\n".join(lines[first - 1 : last]).removesuffix(b"\r")


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
