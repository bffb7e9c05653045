"""`tinyformer info`: the size of a model, worked out from its configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from .app import Command, Name, nearest, print_json
from .view import counted, quantity

_BYTES = 256  # the vocabulary where a preset has none of its own: bytes
_HEADINGS = {
    "parameters": ("parameters", ""),
    "forward_flops": ("reading one context of {context} tokens", "FLOP"),
    "training_flops": ("a training step on {batch_size} contexts", "FLOP"),
    "training_bytes": ("memory of such a step (activations are estimated)", "B"),
    "generation_bytes": ("memory for writing a text", "B"),
}


@click.command(cls=Command)
@click.argument("model", type=Name(), required=False, metavar="[RUN|PRESET]")
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Contexts in a training step."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str | None, batch_size: int, as_json: bool) -> None:
    """Show a model's parameters by part, FLOPs and memory; without an argument, list the presets.

    Nothing is allocated, not even for the largest preset. A multiplication with its addition is 2 FLOPs; only
    matrix products are counted, with all of the attention's scores.
    """
    if model is None:
        _show_presets(as_json)
        return
    from ..analysis.counts import summary

    config, itemsize = _config(model)
    sections = summary(config, batch_size, itemsize=itemsize)
    if as_json:
        facts = {"model": model, "batch_size": batch_size, "configuration": dataclasses.asdict(config)}
        print_json(facts | sections)
        return
    click.echo(f"{model}: {_sizes(config)}")
    for name, (heading, unit) in _HEADINGS.items():
        click.echo("\n" + heading.format(context=config.context, batch_size=batch_size))
        for part, count in sections[name].items():
            shown = quantity(count, unit) if unit else f"{count:,}"
            click.echo(f"  {part:<24}{shown:>18}")


def _config(name: str) -> tuple[Any, int]:
    """The configuration of a run or a preset, and the bytes of its numbers."""
    from ..models import PRESETS

    if name in PRESETS:
        return _preset(name), 4
    if not Path(name).exists() and "/" not in name:
        known = nearest(name, PRESETS) or f"; presets are {', '.join(PRESETS)}"
        raise click.UsageError(f"there is no run directory and no preset {name!r}{known}")
    from ..training.data import model_config
    from ..training.rundir import open_run

    settings = open_run(name).config()
    config = model_config(settings, settings.model.get("vocabulary"))
    return config, 8 if settings.precision == "float64" else 4


def _preset(name: str) -> Any:
    from ..models import PRESETS, resolve

    return resolve(name) if "vocabulary" in PRESETS[name] else resolve(name, vocabulary=_BYTES)


def _sizes(config: Any) -> str:
    return (
        f"{config.mode}, {counted(config.layers, 'layer')}, width {config.width}, {counted(config.heads, 'head')}, "
        f"hidden {config.hidden}, context {config.context}, vocabulary {config.vocabulary}"
    )


def _show_presets(as_json: bool) -> None:
    from ..analysis.counts import count_parameters
    from ..models import PRESETS

    rows = {name: _preset(name) for name in PRESETS}
    if as_json:
        print_json(
            {
                name: dataclasses.asdict(config) | {"parameters": count_parameters(config)}
                for name, config in rows.items()
            }
        )
        return
    click.echo(f"{'preset':<12} {'layers':>6} {'width':>6} {'heads':>6} {'context':>8} {'parameters':>16}")
    for name, config in rows.items():
        sizes = f"{config.layers:>6} {config.width:>6} {config.heads:>6} {config.context:>8}"
        note = "" if "vocabulary" in PRESETS[name] else f"  with a vocabulary of {_BYTES} (bytes)"
        click.echo(f"{name:<12} {sizes} {count_parameters(config):>16,}{note}")
