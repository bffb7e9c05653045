"""How training looks in a terminal, in a pipe, and to another program.

The trainer reports plain dict events (`Reporter` in `training/events.py` lists them); a view shows them.
Plain and rich views write to stderr; the JSON view writes one object a line to stdout.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from . import task_words
from .columns import clipped, one_line
from .figures import duration, model_size, number, percent, printable, quantity

Event = dict[str, Any]
_REDRAW_SECONDS = 0.1
_MARGIN = "  | "  # of a sample
_ANSWER_COLUMNS = 200  # at most, of an answer in it
_LIVE_ONLY = ("step", "validating")
_LIVE = ("step", "steps", "loss", "bits_per_byte", "tokens_per_second", "seconds_left")  # in the line that moves
ACCURACIES = {  # a figure's words, and the baseline to tell beside it
    "accuracy": ("accuracy", "unigram_accuracy", "unigram"),
    "next_sentence_accuracy": ("next sentence", "next_sentence_chance", "the commoner answer"),
    "exact_match": ("exact match", "", ""),
}
FORMATS = ("auto", "rich", "plain", "json")


@contextlib.contextmanager
def view(log_format: str) -> Iterator[Callable[[Event], None]]:
    """A reporter for the trainer, in one of FORMATS; "auto" is rich on a terminal and plain elsewhere.

    A reader that goes away, such as `head`, or a full disk under a log ends the showing and not the training.
    """
    if log_format == "auto":
        log_format = "rich" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if log_format == "rich":
        with _rich() as show:
            yield _while_it_can(show)
    else:
        yield _while_it_can(_json if log_format == "json" else _plain())


def _while_it_can(show: Callable[[Event], None]) -> Callable[[Event], None]:
    watched = True

    def report(event: Event) -> None:
        nonlocal watched
        if watched:
            try:
                show(event)
            except OSError:
                watched = False

    return report


def _json(event: Event) -> None:
    if event["event"] in _LIVE_ONLY:
        return
    click.echo(json.dumps(_strict(event), ensure_ascii=False, allow_nan=False, default=str))


def _strict(value: Any) -> Any:
    """Without the numbers that JSON does not have: they become null."""
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain() -> Callable[[Event], None]:
    def show(event: Event) -> None:
        if event["event"] in _LIVE_ONLY or (event["event"] == "prepare" and event["done"] < event["total"]):
            return
        text = describe(event)
        if text:
            click.echo(text, err=True)

    return show


@contextlib.contextmanager
def _rich() -> Iterator[Callable[[Event], None]]:
    """A line that follows the training at the bottom of the terminal, and everything else above it."""
    from rich.console import Console, Group
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def fall_silent() -> None:
        console.quiet = True

    console.on_broken_pipe = fall_silent  # by default that ends the process
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    # Drawn when there is news, not by a thread of its own: the processor belongs to the training.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        training: Event = {}  # the newest figures
        drawn = -math.inf

        def draw(event: Event) -> None:
            nonlocal drawn
            kind = event["event"]
            if kind in ("prepare", "validating"):
                done, total = event["done"], event["total"]
                progress.update(task, completed=done, total=total, visible=True, description=describe(event))
            elif kind not in ("step", "train"):
                if kind in ("dry_run", "end"):
                    progress.update(task, visible=False)
                text = _with_margin(event, console.width) if kind == "sample" else describe(event)
                if text and kind != "saved":
                    style = {"warning": "yellow", "validation": "bold", "sample": "cyan"}.get(kind)
                    # Whole lines can be copied. In a group, lest the style and all that hold for the live line, too.
                    whole = Text(text, style=style or "", no_wrap=True, overflow="ignore")
                    console.print(Group(whole), crop=False)
            if kind in ("start", "step", "train"):
                training.update({name: event.get(name, training.get(name)) for name in _LIVE})
                step, steps = training["step"], training["steps"]
                progress.update(task, completed=step, total=steps, visible=True, description=_train(training))
            now = time.monotonic()
            if kind not in _LIVE_ONLY or now - drawn >= _REDRAW_SECONDS:
                drawn = now
                progress.refresh()

        def show(event: Event) -> None:
            try:
                draw(event)
            except OSError:
                fall_silent()
                raise

        try:
            yield show
        finally:
            progress.update(task, visible=False)


@contextlib.contextmanager
def progress_line(unit: str = "B") -> Iterator[Callable[[int, int, str], None]]:
    """A callback for work of known size, shown on a terminal's stderr while it lasts and nowhere else.

    Args:
        unit: what the size counts.
    """
    if not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    with view("auto") as show:
        more = {} if unit == "B" else {"unit": unit}
        yield lambda done, total, what: show({"event": "prepare", "done": done, "total": total, "what": what} | more)


def describe(event: Event) -> str:
    """An event in words, usually one line; empty for one that has nothing to say to a reader."""
    words = (task_words.WORDS if "task" in event else _WORDS).get(event["event"])
    return words(event) if words else ""


def _prepare(event: Event) -> str:
    if unit := event.get("unit"):
        return f"{event['what']}: {event['done']:,} of {event['total']:,} {unit}"
    return f"{event['what']}: {quantity(event['done'], 'B')} of {quantity(event['total'], 'B')}"


def _validating(event: Event) -> str:
    return f"step {event['step']}  validating: {event['done']:,} of {event['total']:,} rows"


def _start(event: Event) -> str:
    onwards = f", from step {event['step']}" if event["step"] else ""
    return f"training {event['run']}{onwards}: {model_size(event)}\n{_text(event)}\n{_references(event)}"


def _dry_run(event: Event) -> str:
    shapes = {name: " x ".join(map(str, shape)) for name, shape in event["shapes"].items()}
    memory, where = event["memory_per_step"], "" if event["backend"] == "numpy" else "GPU "
    sections = {
        "shapes": shapes,
        "parameters": {part: f"{count:,}" for part, count in event["parameters_by_part"].items()},
        "a step": {"FLOPs": quantity(event["flops_per_step"], "FLOP")}
        | {part: quantity(count, "B") for part, count in memory.items()}
        | {f"{where}memory in all": quantity(sum(memory.values()), "B") + " (activations are estimated)"},
    }
    lines = [f"dry run: {model_size(event)}", _text(event), _references(event)]
    width = max(40, *(len(name) for values in sections.values() for name in values))
    for heading, values in sections.items():
        lines += [heading, *(f"  {name:<{width}} {value}" for name, value in values.items())]
    return "\n".join(lines)


def _text(event: Event) -> str:
    lengths = event["lengths"]
    both = lengths["source"] and lengths["target"]
    rows = f" (rows of {lengths['source']} + {lengths['target']})" if both else ""
    return (
        f"text: {event['train_tokens']:,} tokens to train on, {event['validation_tokens']:,} to validate on "
        f"({event['tokenizer']}, {event['model']['vocabulary']} kinds); {event['tokens_per_step']:,} tokens a step"
        + rows
    )


def _references(event: Event) -> str:
    """What the losses mean, told once: some figures that need no transformer."""
    guessing = f"losses to compare with: {number(event['ln_v'])} by guessing (ln v)"
    bits = event["unigram_bits_per_byte"]
    what = "target" if bits is None else "token"
    entropy = f"{number(event['unigram_entropy'])} by how common each {what} is (unigram entropy"
    if bits is not None:
        return f"{guessing}, {entropy}, {number(bits, 3)} bits/byte)"
    told = f"{guessing}, {entropy}); accuracy {percent(event['unigram_accuracy'])} by the commonest one"
    if event["objective"] == "next-sentence":
        told += f"\nin training, the loss of telling pairs apart is added: {number(math.log(2))} by guessing (ln 2)"
    if smoothing := event.get("label_smoothing"):
        told += f"\nin training, the loss includes label smoothing of {smoothing:g}, and in validation it does not"
    return told


def _train(event: Event) -> str:
    left, speed, bits = (event.get(name) for name in ("seconds_left", "tokens_per_second", "bits_per_byte"))
    parts = [
        f"step {event['step']:>{len(str(event['steps']))}}/{event['steps']}",
        f"loss {number(event['loss'])}",
        *([f"{number(bits, 3)} bits/byte"] if bits is not None else []),
        *([f"{speed:,.0f} tokens/s"] if speed is not None else []),
        *([f"{duration(left)} left"] if left is not None else []),
    ]
    return "  ".join(parts)


def _validation(event: Event) -> str:
    return f"step {event['step']}  validation  loss {_loss(event['loss'], event)}  {'  '.join(_beside(event))}"


def _loss(loss: float, figures: Event) -> str:
    """A loss beside what knowing how common each target is would reach; a decoder's is best compared per byte."""
    unigram = None if figures.get("bits_per_byte") is not None else figures.get("unigram_loss")
    return number(loss) + (f" (unigram {number(unigram)})" if unigram is not None else "")


def _beside(figures: Event) -> list[str]:
    """What there is to say of a validation beside its loss."""
    if (bits := figures.get("bits_per_byte")) is not None:
        return [f"{number(bits * math.log(2))} nats/byte", f"{number(bits, 3)} bits/byte"]
    said = []
    for name, (words, baseline, beside) in ACCURACIES.items():
        if figures.get(name) is not None:
            chance = figures.get(baseline)
            said.append(f"{words} {percent(figures[name])}" + (f" ({beside} {percent(chance)})" if chance else ""))
    return said


def _sample(event: Event) -> str:
    legend = event.get("legend")
    heading = f"sample at step {event['step']}" + (f" ({legend})" if legend else "")
    if "answers" in event:
        parts = [part for answer in event["answers"] for part in answer.items()]
        lines = [f"{name}: {clipped(one_line(text), _ANSWER_COLUMNS, '...')}" for name, text in parts]
    else:
        lines = printable(event["text"]).strip("\n").split("\n")
    return f"{heading}:\n" + "\n".join(_MARGIN + line for line in lines)


def _with_margin(event: Event, width: int) -> str:
    """A sample whose long lines go on below their margin."""
    wrapper = textwrap.TextWrapper(width, subsequent_indent=_MARGIN, drop_whitespace=False, replace_whitespace=False)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in _sample(event).split("\n"))


def _end(event: Event) -> str:
    if event["run"] is None:
        return f"one step took {event['seconds']:.2f} s; nothing was written"
    loss = f"validation loss {_loss(event['validation_loss'], event['validation'])} nats per token"
    done = ", ".join([f"done: step {event['step']}", loss, *_beside(event["validation"])])
    return "\n".join([f"{done}, in {duration(event['seconds'])}", *_speed(event), f"next: {event['next']}"])


def _speed(event: Event) -> list[str]:
    """How much of its threads' speed in matrix products a run used, where it was long enough to tell."""
    if (rate := event.get("flops_per_second")) is None:
        return []
    peak = event["peak_flops_per_second"]  # not known of a GPU
    used = f", {100 * rate / peak:.0f} % of the {quantity(peak, 'FLOP/s')} that as many threads reach" if peak else ""
    return [f"steps did {quantity(rate, 'FLOP/s')} of matrix products{used}"]


def _saved(event: Event) -> str:
    return f"saved {event['path']}"


def _warning(event: Event) -> str:
    return f"warning: {event['message']}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "prepare": _prepare,
    "start": _start,
    "dry_run": _dry_run,
    "train": _train,
    "validating": _validating,
    "validation": _validation,
    "sample": _sample,
    "saved": _saved,
    "warning": _warning,
    "end": _end,
}
