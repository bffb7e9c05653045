"""`tinyformer info`: the size of a model, worked out from its configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..training.config import OBJECTIVES
from .app import Choice, Command, Name, nearest, print_json
from .figures import counted, quantity

if TYPE_CHECKING:
    from ..analysis.counts import Lengths
    from ..analysis.scale import Scale
    from ..models import ModelConfig

_BYTES = 256  # the vocabulary where a preset has none of its own: bytes
_WIDTH = 120
_MOST_LABELS, _LABEL = 10, 20  # of a run that are shown, and columns of each
_HEADINGS = {
    "parameters": ("parameters", ""),
    "forward_flops": ("reading a row of {row}", "FLOP"),
    "training_flops": ("a training step on {rows}", "FLOP"),
    "training_bytes": ("memory of such a step (activations are estimated)", "B"),
    "generation_bytes": ("memory for writing a text", "B"),
}


@click.command(cls=Command)
@click.argument("model", type=Name(), required=False, metavar="[RUN|PRESET]")
@click.option(
    "--mode",
    type=Choice(list(OBJECTIVES)),
    help="Which kind of model a size of ours is made into: tiny, small, medium.",
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Rows in a training step.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str | None, mode: str | None, batch_size: int, as_json: bool) -> None:
    """Show a model's parameters by part, FLOPs and memory; without an argument, the published models and all presets.

    Nothing is allocated, not even for the largest preset. A multiplication with its addition is 2 FLOPs; only
    matrix products are counted, with all of the attention's scores.
    """
    if model is None:
        if mode is not None:
            raise click.UsageError("--mode goes with the name of a preset, such as tiny")
        (_print_tables_json if as_json else _show_tables)()
        return
    from ..analysis.counts import summary

    subject = _subject(model, mode)
    sections = summary(subject.config, batch_size, subject.lengths, itemsize=subject.itemsize, head=subject.head)
    if as_json:
        facts = {"model": model, "task": subject.task, "batch_size": batch_size, "row": subject.lengths._asdict()}
        print_json(facts | {"configuration": dataclasses.asdict(subject.config)} | sections)
        return
    click.echo(f"{model}: {_sizes(subject.config)}")
    if subject.task is not None:
        click.echo(_task(**subject.task))
    row, rows = _row(subject.config, subject.lengths), counted(batch_size, "row")
    for name, parts in sections.items():
        heading, unit = _HEADINGS[name]
        click.echo("\n" + heading.format(row=row, rows=rows))
        for part, count in parts.items():
            shown = quantity(count, unit) if unit else f"{count:,}"
            click.echo(f"  {part:<28}{shown:>18}")


class _Subject(NamedTuple):
    """What is asked about: a shape, what a row of it holds, the bytes of its numbers, a run's task, and its head."""

    config: ModelConfig
    lengths: Lengths
    itemsize: int
    task: dict[str, Any] | None = None
    head: int = 0


def _subject(name: str, mode: str | None) -> _Subject:
    from ..analysis.counts import row_lengths
    from ..models import PRESETS

    if name in PRESETS:
        config = _preset(name, mode)
        return _Subject(config, row_lengths(config), 4)
    if not Path(name).exists() and "/" not in name:
        known = nearest(name, PRESETS) or f"; presets are {', '.join(PRESETS)}"
        raise click.UsageError(f"there is no run directory and no preset {name!r}{known}")
    if mode is not None:
        raise click.UsageError("a run has its mode; leave --mode out")
    from ..training.choices import model_config
    from ..training.rundir import open_run

    run = open_run(name)
    settings = run.config()
    config = model_config(settings, settings.model.get("vocabulary"))
    task, head = None, 0
    if settings.task is not None:
        from ..tasks.heads import head_parameters
        from ..training.checkpoint import best_state

        head = head_parameters(config, settings.task, len(settings.labels or ()))
        state = best_state(run.best)
        task = {"name": settings.task, "labels": settings.labels or (), "best": state and state["validation"]}
    lengths = row_lengths(config, settings.objective, task=settings.task)
    return _Subject(config, lengths, 8 if settings.dtype == "float64" else 4, task, head)


def _task(name: str, labels: Sequence[str], best: dict[str, float] | None) -> str:
    """What a run was fine-tuned for, and how well it does that."""
    from .task_words import figures, label, listed

    what, parts = counted(len(labels), "label"), [label(text, _LABEL) for text in labels[:_MOST_LABELS]]
    if name == "regress":
        what = "mean and deviation"
        with contextlib.suppress(ValueError):  # somebody has changed config.toml
            parts = [f"{float(text):.4g}" for text in labels]
    elif name == "answer":
        what = "it may also say"
    if len(labels) > len(parts):
        parts.append("...")
    lines = [listed(f"task {name}, {what}", parts) if parts else f"task {name}"]
    if best:
        lines.append(f"best after epoch {best['epoch']:.3g} (step {best['step']}): {figures(best)}")
    return "\n".join(lines)


def _preset(name: str, mode: str | None = None) -> ModelConfig:
    from ..models import PRESETS, resolve

    return resolve(name, mode=mode, vocabulary=PRESETS[name].get("vocabulary", _BYTES))


def _sizes(config: ModelConfig) -> str:
    layers = "1 layer" if _layers(config) == "1" else f"{_layers(config)} layers"
    heads = f"{counted(config.heads, 'head')} of {config.channels}"
    sizes = f"{layers}, width {config.width}, {heads}, hidden {config.hidden}"
    return f"{config.mode}, {sizes}, context {config.context}, vocabulary {config.vocabulary}"


def _layers(config: ModelConfig) -> str:
    both = f"{config.layers}+{config.decoder_layers or config.layers}"
    return both if config.mode == "encoder-decoder" else str(config.layers)


def _row(config: ModelConfig, lengths: Lengths) -> str:
    if config.mode == "encoder-decoder":
        return f"{counted(lengths.source, 'token')} with a target of {counted(lengths.target, 'token')}"
    if config.mode == "encoder":
        scored = f", of which {lengths.scored} are scored" if lengths.scored else ""
        return counted(lengths.source, "token") + scored
    return counted(lengths.target, "token")


def _rows() -> list[tuple[str, ModelConfig]]:
    """Every preset; those of ours in every mode."""
    from ..models import PRESETS

    published = [(name, _preset(name)) for name, row in PRESETS.items() if "mode" in row]
    ours = [(name, _preset(name, mode)) for mode in OBJECTIVES for name, row in PRESETS.items() if "mode" not in row]
    return published + ours


def _print_tables_json() -> None:
    from ..analysis.counts import count_parameters
    from ..analysis.scale import notes, scale_table

    published = [
        {
            "preset": row.preset,
            "mode": row.config.mode,
            "parameters": row.parameters,
            "tokens": row.tokens,
            "flops": row.flops,
            "petaflops_days": row.petaflops_days,
            "printed_parameters": row.printed.parameters * 10**6,
            "printed_flops": row.printed.flops,
        }
        for row in scale_table()
    ]
    presets = [
        {"preset": name, **dataclasses.asdict(config), "parameters": count_parameters(config, heads=False)}
        for name, config in _rows()
    ]
    print_json({"published": published, "notes": notes(), "presets": presets})


def _show_tables() -> None:
    from ..analysis.scale import notes, scale_table
    from ..models import PRESETS

    table = scale_table()
    size = ("preset", "mode", "layers", "width", "heads", "hidden", "parameters")
    click.echo(click.style("published models and their training", bold=True))
    _show_table((*size, "printed", "tokens", "FLOPs", "printed", "PF/s-days"), [_shown(row) for row in table])
    click.echo()
    for name, note in notes().items():
        click.echo(textwrap.fill(f"{name + ':':<12}{note}", _WIDTH, subsequent_indent=" " * 12))
    click.echo("\n" + click.style("other presets", bold=True))
    listed = {row.preset for row in table}
    others = [(name, config) for name, config in _rows() if name not in listed]
    rows = [(*_shape(name, config), str(config.context), str(config.vocabulary)) for name, config in others]
    _show_table((*size, "context", "vocabulary"), rows)
    ours = ", ".join(name for name, row in PRESETS.items() if "mode" not in row)
    click.echo(f"\n{ours} become what --mode says; the vocabulary is the tokenizer's, and here {_BYTES} (bytes)")


def _shape(name: str, config: ModelConfig) -> tuple[str, ...]:
    from ..analysis.counts import count_parameters

    heads, parameters = f"{config.heads} of {config.channels}", count_parameters(config, heads=False)
    return name, config.mode, _layers(config), str(config.width), heads, str(config.hidden), f"{parameters:,}"


def _shown(row: Scale) -> tuple[str, ...]:
    printed = row.printed.parameters
    return (
        *_shape(row.preset, row.config),
        f"{printed}M" if printed < 1000 else f"{printed / 1000:g}B",
        "-" if row.tokens is None else f"{row.tokens / 1e9:g}B",
        _power(row.flops),
        _power(row.printed.flops),
        "-" if row.petaflops_days is None else _digits(row.petaflops_days),
    )


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}".replace("e+", "e")


def _digits(value: float) -> str:
    """A number with three digits, or all that stand before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _show_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; words to the left, numbers to the right."""
    rows = [tuple(headings), *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(n) if i < 2 else cell.rjust(n) for i, (cell, n) in enumerate(zip(row, widths))]
        click.echo(" ".join(cells).rstrip())
