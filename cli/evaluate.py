"""`tinyformer evaluate`: how well a trained model predicts a text."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

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
    help="Of a decoder: new tokens in each window; fewer give each token more context and take longer.",
)
@click.option("--text", type=Name(), metavar="COLUMN", help="Column of the text.", show_default="as in training")
@click.option("--pair", type=Name(), metavar="COLUMN", help="Column of the second text.", show_default="as in training")
@click.option("--label", type=Name(), metavar="COLUMN", help="Column of the label.", show_default="as in training")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, file: str, stride: int | None, as_json: bool, **columns: str | None) -> None:
    """Score the model in the run directory RUN on FILE, in the way that it was trained.

    A decoder scores every token but the first, which nothing precedes, once; bits per byte compare models with
    different tokenizers. An encoder predicts hidden tokens and an encoder-decoder targets, the same ones each time.
    For seq2seq, FILE has lines of a source, a tab, and its target. Perplexity and loss are per token; unigram is what
    knowing only how common each token is in the text trained on would give on FILE, or of an imported run in FILE.

    A run that was fine-tuned answers the labelled examples of FILE, and the answers are measured as its task is. FILE
    has any form that finetune reads. Its columns are found by --text, --pair and --label, or by the names that they had
    in training; where the first line of a FILE with tabs does not have these, it has no header, and they lie in order.
    """
    from ..analysis.evaluation import evaluate_file
    from ..training.data import open_training
    from ..training.rundir import open_run
    from .runs import load_run
    from .view import ACCURACIES, percent, progress_line

    model, tokenizer = load_run(run)
    if open_run(run).config().task is not None:
        if stride is not None:
            raise click.UsageError(
                f"--stride belongs to decoders that predict a text, and {run} was fine-tuned for a task"
            )
        _task(run, model, file, columns, as_json)
        return
    if given := [f"--{role}" for role, name in columns.items() if name is not None]:
        raise click.UsageError(f"{given[0]} names a column of labelled examples, and {run} was not fine-tuned")
    objective, unigram = open_training(run, tokenizer, model.config)
    with progress_line() as progress:
        result = evaluate_file(
            model, tokenizer, file, objective=objective, stride=stride, unigram=unigram, progress=progress
        )
    if as_json:
        facts = {name: value for name, value in dataclasses.asdict(result).items() if value is not None}
        print_json({name: value if math.isfinite(value) else None for name, value in facts.items()})
        return
    beside = f" (unigram {result.unigram_loss:.4f})" if result.unigram_loss is not None else ""
    click.echo(f"loss           {result.loss:.4f} nats per token{beside}")
    click.echo(f"perplexity     {result.perplexity:.3f}")
    if result.bits_per_byte is not None:
        click.echo(f"bits per byte  {result.bits_per_byte:.4f}")
        click.echo(f"scored         {result.tokens:,} tokens, {result.text_bytes:,} bytes")
        return
    for name, (words, baseline, beside) in ACCURACIES.items():
        if (share := getattr(result, name)) is not None:
            chance = getattr(result, baseline, None)
            click.echo(f"{words:<13}  {percent(share)}" + (f" ({beside} {percent(chance)})" if chance else ""))
    pairs = "" if result.sequences is None else f" of {result.sequences:,} pairs"
    click.echo(f"scored         {result.tokens:,} tokens{pairs}")


def _task(run: str, model: Any, file: str, columns: dict[str, str | None], as_json: bool) -> None:
    """Measure a model that was fine-tuned."""
    import threadpoolctl

    from ..tasks import Columns
    from ..training.finetuning import evaluate
    from ..training.rundir import open_run
    from .runs import threads_for, warn
    from .task_words import confusion, figures
    from .view import progress_line

    with threadpoolctl.threadpool_limits(1, "blas"), progress_line("rows") as progress:
        settings = {"threads": threads_for(model, None), "warn": warn}
        settings["progress"] = lambda *now: progress(*now, "answering")
        found = evaluate(open_run(run), model, file, Columns(**columns), **settings)
    if as_json:
        strict = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in found.items()
        }
        print_json(strict)
        return
    click.echo(figures(found))
    if "confusion" in found:
        click.echo(confusion(found["labels"], found["confusion"]))
    click.echo(f"measured on {found['examples']:,} examples")
