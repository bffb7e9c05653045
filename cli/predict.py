"""`tinyformer predict`: what a fine-tuned model says of texts."""

from __future__ import annotations

import shlex
from typing import Any

import click

from .app import Command, Name, print_json
from .runs import backend_option, done_with, given_lines, load_run, threads_for, warn


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("file", type=Name())
@click.option("--text", type=Name(), metavar="COLUMN", help="Column of the text.", show_default="as in training")
@click.option("--pair", type=Name(), metavar="COLUMN", help="Column of the second text.", show_default="as in training")
@click.option("--beams", type=click.IntRange(1), metavar="N", help="Of text2text: keep N candidates; 1 is greedy.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Texts computed at once.")
@click.option("--threads", type=click.IntRange(1), show_default="all cores", help="Batches at once, on the CPU.")
@backend_option
def command(
    run: str,
    file: str,
    text: str | None,
    pair: str | None,
    beams: int | None,
    batch_size: int,
    threads: int | None,
    backend: str,
) -> None:
    """Answer each line of FILE with the fine-tuned model in the run directory RUN: one JSON object a line.

    FILE is what the run was fine-tuned on: lines of a text, or of text TAB text; .csv and .jsonl with its columns, .tsv
    with or without them; for tag, words one a line, or sentences; for answer, SQuAD's JSON, or JSON lines with question
    and context. Labels need not be there, and are not looked at. With --text, any other file has a header, too.

    With -, FILE is stdin, and each line is answered as it comes. A blank line is answered with null, so that answers
    stay beside their lines. What is too long for the context is cut as in training.
    """
    import threadpoolctl

    from ..tasks import Columns
    from ..tasks.predicting import Tally, predict, read_examples

    task, columns = _task(run)
    if beams is not None:
        if not hasattr(task, "beams"):
            raise click.UsageError(f"--beams belongs to text2text, and {run} was fine-tuned for {task.name}")
        task.beams = beams
    model, _ = load_run(run, backend)
    source, live = given_lines(file)
    examples = read_examples(type(task), source, Columns(text, pair), usual=columns, warn=warn)
    tally, threads = Tally(), threads_for(model, threads)
    with threadpoolctl.threadpool_limits(1, "blas"):
        settings = {"batch_size": batch_size, "threads": threads, "live": live}
        for answer in predict(task, model, examples, **settings, tally=tally):
            print_json(answer)
    done_with(source)
    for message in tally.warnings(model.config.context, "answered with null"):
        warn(message)


def _task(path: str) -> tuple[Any, Any]:
    """What a run was fine-tuned for, and the columns of its examples."""
    from ..training.finetuning import columns_of, open_task
    from ..training.rundir import open_run

    run = open_run(path)
    config = run.config()
    if config.task is None:
        raise click.UsageError(
            f"{path} was not fine-tuned, so it has no task; tinyformer finetune {shlex.quote(path)} TRAIN --task TASK "
            "gives it one"
        )
    return open_task(run, config), columns_of(run, config)
