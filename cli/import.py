"""`tinyformer import`: a run out of a Hugging Face directory."""

from __future__ import annotations

import shlex

import click

from .app import Command, Name
from .view import counted


@click.command(cls=Command)
@click.argument("directory", type=Name())
@click.option("--out", type=Name(), required=True, metavar="RUN", help="The run's directory; new or empty.")
def command(directory: str, out: str) -> None:
    """Make a run directory out of the Hugging Face directory DIRECTORY of a GPT-2, BERT, T5, LLaMA or Arcee.

    It needs config.json, model.safetensors (or its shards) and tokenizer.json (or what stood for it earlier: vocab.txt,
    or vocab.json and merges.txt); the tokenizer needs the extra tinyformer[hf]. Weights in 16 bits become float32. The
    run can be used as if it had been trained here, and `train --init-from RUN` trains on with a text of your own.
    """
    from ..analysis.counts import count_parameters
    from ..interop import import_run
    from ..training.data import model_config

    run = import_run(directory, out, warn=lambda message: click.echo(f"warning: {message}", err=True))
    config, place = model_config(run.config()), shlex.quote(str(run.path))
    sizes = f"{config.mode}, {counted(config.layers, 'layer')}, {count_parameters(config):,} parameters"
    click.echo(f"imported {directory}: {sizes}", err=True)
    use = f'fill {place} "..."' if config.mode == "encoder" else f"generate {place}"
    click.echo(f"next: tinyformer {use}", err=True)
