"""`tinyformer finetune`: a pretrained model learns a task from labelled examples.

Every option becomes a field of `training.config.RunConfig`; the defaults stand in `training/tuning.py`.
"""

from __future__ import annotations

import shlex
from typing import Any

import click

from ..training.config import PRECISIONS, SCHEDULES, TASKS, RunConfig, options
from ..training.tuning import DEFAULTS, settings
from .app import Choice, Command, Name
from .train import FractionOrFile
from .view import FORMATS, view

_DEFAULTS = options(RunConfig()) | DEFAULTS


def _option(name: str, kind: Any, help_: str, *, chosen: str | None = None, **more: Any) -> Any:
    """An option for a field; one without a default is chosen as `chosen` says."""
    flag = "--" + name.replace("_", "-")
    return click.option(flag, type=kind, default=_DEFAULTS.get(name), show_default=chosen or True, help=help_, **more)


def _resume(ctx: click.Context, param: click.Parameter, run: str | None) -> None:
    if run is not None:
        raise click.UsageError(f"to go on with a run: tinyformer train --resume {shlex.quote(run)}")


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("train", type=Name())
@click.option(
    "--task",
    type=Choice(TASKS),
    help="What to learn: the class of a text (classify) or of two (pair), a number (regress), tags of words (tag), "
    "answers out of a text (answer), or to write a text (text2text).",
)
@_option(
    "validation",
    FractionOrFile(),
    "Examples to measure with after each epoch, or how many to keep of TRAIN.",
    metavar="FILE|FRACTION",
)
@_option("text", Name(), "Of a file with named columns: the text's.", metavar="COLUMN")
@_option("pair", Name(), "The second text's.", metavar="COLUMN")
@_option("label", Name(), "The label's, the number's or the target's.", metavar="COLUMN")
@_option("prefix", str, 'Put before each text, such as "summarize: ".', metavar="TEXT")
@_option("epochs", int, "How often each example is seen.")
@_option("batch_size", int, "Examples in a step.")
@_option("grad_accumulation", int, "Forward passes for each update.")
@_option("learning_rate", float, "At its peak.", chosen="by the width")
@_option("warmup", int, "Steps in which the learning rate rises.", chosen="a tenth of all")
@_option("schedule", Choice(SCHEDULES), "How the learning rate falls.", chosen="linear; constant for encoder-decoders")
@_option("weight_decay", float, "Of the matrices.")
@_option("clip", float, "Largest norm of the gradient; 0 is off.")
@_option("dropout", float, "Share of activations dropped in training.", chosen="as in RUN")
@click.option("--freeze", is_flag=True, help="Train the new head only; the pretrained weights stay as they are.")
@_option("seed", int, "Of the head's weights, the order, dropout, and which examples are kept.")
@_option("backend", Choice(["auto", "numpy", "cupy"]), "The CPU (numpy) or an NVIDIA GPU (cupy).")
@_option("precision", Choice(PRECISIONS), "Of computations, as for train.")
@_option("threads", int, "Worker threads on the CPU.", chosen="all cores")
@click.option("--out", type=Name(), metavar="DIR", show_default="runs/TRAIN-TASK", help="Run directory; new or empty.")
@click.option("--resume", type=Name(), hidden=True, is_eager=True, expose_value=False, callback=_resume)
@click.option("--dry-run", is_flag=True, help="Show the examples and the costs, take one step, and stop.")
@click.option("--log-format", type=Choice(FORMATS), default="auto", show_default=True, help="Of the progress.")
@click.pass_context
def command(
    ctx: click.Context,
    run: str,
    train: str,
    task: str | None,
    out: str | None,
    dry_run: bool,
    log_format: str,
    **given: Any,
) -> None:
    """Fine-tune the model in the run directory RUN on the labelled examples in TRAIN.

    TRAIN has an example on each line, its parts with tabs between: text, label (classify); text, text, label (pair);
    one or two texts, number (regress); text, target (text2text). It may also be a .csv with a header or a .jsonl with
    an object on each line, where --text, --pair and --label name the columns. For tag it has a word and its tag on each
    line, and a blank line between sentences; for answer it is JSON as of SQuAD.

    The result is a run of its own: tinyformer predict uses it, with the weights of its best epoch, and after Ctrl-C
    tinyformer train --resume goes on with it.
    """
    if task is None:
        raise click.UsageError(f"what shall it learn? add --task {', '.join(TASKS[:-1])} or {TASKS[-1]}")
    given = {name: value for name, value in given.items() if ctx.get_parameter_source(name).name != "DEFAULT"}
    if (dropout := given.pop("dropout", None)) is not None:
        given["model"] = {"dropout": dropout}
    config = settings(task, run, train, **given)

    from ..training import trainer

    with view(log_format) as report:
        trainer.train(config, report, out=out, dry_run=dry_run)
