"""`tinyformer import`: a run out of a Hugging Face directory."""

from __future__ import annotations

import shlex

import click

from .app import Command, Name
from .figures import counted


@click.command(cls=Command)
@click.argument("directory", type=Name())
@click.option("--out", type=Name(), required=True, metavar="RUN", help="The run's directory; new or empty.")
def command(directory: str, out: str) -> None:
    """Make a run directory out of the Hugging Face directory DIRECTORY.

    It may be of a GPT-2, a BERT, a RoFormer, a T5 (1.0 or 1.1), a LLaMA or an Arcee. Not supported are other families
    that build on these, such as mT5 and RoBERTa, and of LLaMA the models with grouped-query attention or with rotary
    angles that are scaled or have another base than 10000, such as Llama 3.

    It needs config.json, model.safetensors (or its shards) and tokenizer.json (or what stood for it earlier: vocab.txt,
    or vocab.json and merges.txt); the tokenizer needs the extra tinyformer[hf]. Weights in 16 bits become float32. The
    run can be used as if it had been trained here, and `train --init-from RUN` trains on with a text of your own.

    The head of a model that was fine-tuned is left out, also of one that tinyformer export wrote: what comes in is the
    body, which finetune gives a head again. A prefix in config.json is told, and is yours to put before each text.
    """
    from ..analysis.counts import count_parameters
    from ..interop import import_run, prospects
    from ..training.data import model_config

    run = import_run(directory, out, warn=lambda message: click.echo(f"warning: {message}", err=True))
    config, place = model_config(run.config()), shlex.quote(str(run.path))
    layers = counted(config.layers, "layer")
    if config.mode == "encoder-decoder":
        layers = f"{config.layers} + {config.decoder_layers or config.layers} layers"
    click.echo(f"imported {directory}: {config.mode}, {layers}, {count_parameters(config):,} parameters", err=True)
    whole, prefix = prospects(directory)
    click.echo(f"next: tinyformer {_use(config.mode, place, whole, prefix if prefix.isprintable() else '')}", err=True)


def _use(mode: str, place: str, whole: bool, prefix: str) -> str:
    """A command that shows what the model can do, or gives it something to do."""
    if not whole:
        return f"finetune {place} TRAIN --task TASK" + (f" --prefix {shlex.quote(prefix)}" if prefix else "")
    if mode == "decoder":
        return f"generate {place} --prompt {shlex.quote(prefix + 'Once upon a time')}"
    if mode == "encoder-decoder" and prefix:
        return f"generate {place} --prompt {shlex.quote(prefix + 'I love this red car.')}"
    return f"fill {place} {shlex.quote(prefix + 'I love this <mask> car.')}"
