"""`tinyformer evaluate`: how well a trained model predicts a text."""

from __future__ import annotations

import dataclasses
import math

import click

from .app import Command, Name, print_json


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("file", type=Name())
@click.option(
    "--stride",
    type=int,
    default=None,
    show_default="the model's context",
    help="New tokens in each window; fewer give each token more context and take longer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, file: str, stride: int | None, as_json: bool) -> None:
    """Score the model in the run directory RUN on the text FILE.

    Every token but the first, which nothing precedes, is scored once. Bits per byte compare models with
    different tokenizers; perplexity and loss are per token.
    """
    from ..analysis.evaluation import evaluate_file
    from .runs import load_run
    from .view import progress_line

    model, tokenizer = load_run(run)
    with progress_line() as progress:
        result = evaluate_file(model, tokenizer, file, stride=stride, progress=progress)
    if as_json:
        facts = dataclasses.asdict(result)
        print_json({name: value if math.isfinite(value) else None for name, value in facts.items()})
        return
    click.echo(f"loss           {result.loss:.4f} nats per token")
    click.echo(f"perplexity     {result.perplexity:.3f}")
    click.echo(f"bits per byte  {result.bits_per_byte:.4f}")
    click.echo(f"scored         {result.tokens:,} tokens, {result.text_bytes:,} bytes")
