"""`tinyformer train`: from text files to a run directory.

Every option becomes a field of `training.config.RunConfig`, where the defaults stand, too.
"""

from __future__ import annotations

from typing import Any

import click

from ..training.config import MASKINGS, OBJECTIVES, PRECISIONS, SCHEDULES, STEPS, RunConfig, options, read_options
from .app import Choice, Command, Name
from .view import FORMATS, view

_DEFAULTS = options(RunConfig())
_SIZES = ("layers", "heads", "width", "context")
_MODEL = (*_SIZES, "dropout", "norm_position")  # settings of the model itself
_CHOSEN = "by the preset or size"
_CHOSEN_BY = {  # what a run chooses by a setting
    "mode": ("objective", "masking", "label_smoothing", "steps", "learning_rate", "warmup", "vocabulary", "vocab_size"),
    "init_from": ("preset", "tokenizer", "vocab_size"),
    "objective": ("label_smoothing", "next_sentence"),
    "preset": ("learning_rate",),
    "width": ("heads", "hidden", "learning_rate"),
    "steps": ("warmup",),
    "batch_size": ("threads",),
    "files": ("vocabulary",),
    "tokenizer": ("vocabulary", "vocab_size"),
    "vocab_size": ("vocabulary",),
}


class FractionOrFile(Name):
    """A number, or else a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        try:
            return float(value)
        except ValueError:
            return super().convert(value, param, ctx)


def _option(name: str, kind: Any, help_: str, *, chosen: str | None = None, default: Any = None, **more: Any) -> Any:
    """An option for a field, with the field's default.

    Where that is None, `default` is what it usually becomes, or `chosen` says how it is chosen. What is not given on
    the command line is not taken from here, so that either is only for showing.
    """
    default = default if _DEFAULTS.get(name) is None else _DEFAULTS[name]
    shown = chosen if default is None and chosen else True
    flag = "--" + name.replace("_", "-")
    return click.option(flag, type=kind, default=default, show_default=shown, help=help_, **more)


def _elsewhere() -> str:
    """The modes that have another number of steps than a decoder."""
    usual = STEPS["decoder"]
    others = [f" {steps} for --mode {mode}." for mode, steps in STEPS.items() if steps != usual]
    return "".join(others)


@click.command(cls=Command)
@click.argument("files", nargs=-1, type=Name(), metavar="FILE...")
@_option(
    "mode",
    Choice(OBJECTIVES),
    "Kind of model: a decoder (GPT) writes text, an encoder (BERT) fills in hidden tokens, an encoder-decoder (T5) "
    "writes an answer to a source.",
    chosen="by the preset or objective, or decoder",
)
@_option(
    "objective",
    Choice(sum(OBJECTIVES.values(), ())),
    "What it learns: causal; masked or next-sentence (encoder); span-corruption or seq2seq (encoder-decoder).",
    chosen="the first of the mode",
)
@click.option("--out", type=Name(), metavar="DIR", show_default="runs/FILE-MODE", help="Run directory; new or empty.")
@click.option(
    "--config",
    type=Name(),
    metavar="FILE.toml",
    help="Settings as in a run's config.toml, or a run; flags beat them.",
)
@click.option("--resume", type=Name(), metavar="RUN", help="Go on with the run in this directory.")
@click.option(
    "--init-from", type=Name(), metavar="RUN", help="Begin with the weights, shape and tokenizer of another run."
)
@_option("preset", str, "A published size; `tinyformer info` lists them.")
@_option("layers", int, "Blocks.", chosen=_CHOSEN)
@_option("heads", int, "Heads of each attention; they divide the width.", chosen=_CHOSEN)
@_option("width", int, "Width of the residual stream.", chosen=_CHOSEN)
@_option("context", int, "Tokens that the model sees; of a source as of a target.", chosen=_CHOSEN)
@_option("dropout", float, "Share of activations dropped in training.", chosen=_CHOSEN)
@_option(
    "norm_position",
    Choice(["pre", "post"]),
    "Norms before the parts of a block (GPT-2, T5), which trains more easily, or after them (BERT).",
    chosen="by the preset",
)
@_option("tokenizer", Name(), "bytes, chars, bpe, or the path of a tokenizer.json.")
@_option("vocab_size", int, "Tokens of a bpe tokenizer.", chosen="by the text")
@_option(
    "validation", FractionOrFile(), "Text to validate on, or how much to keep of the end.", metavar="FILE|FRACTION"
)
@_option(
    "masking",
    Choice(MASKINGS),
    "Of an encoder's text: hide other tokens each time (RoBERTa), or the same ones again (BERT).",
    default="dynamic",
)
@_option("label_smoothing", float, "Of seq2seq: share of a target's probability spread over all tokens.", default=0.0)
@_option("steps", int, f"Updates of the weights.{_elsewhere()}", default=STEPS["decoder"])
@_option("batch_size", int, "Windows of text, or pairs, in a forward pass.")
@_option("grad_accumulation", int, "Forward passes for each update.")
@_option("learning_rate", float, "At its peak.", chosen="by the width")
@_option("warmup", int, "Steps in which the learning rate rises.", chosen="by the steps")
@_option("schedule", Choice(SCHEDULES), "How the learning rate falls.")
@_option("weight_decay", float, "Of the matrices.")
@_option("clip", float, "Largest norm of the gradient; 0 is off.")
@_option("eval_every", int, "Steps between validations.")
@_option("save_every", int, "Steps between checkpoints.")
@_option("sample_every", int, "Steps between samples of text; 0 is off.")
@_option("seed", int, "Of weights, batches and dropout.")
@_option(
    "backend",
    Choice(["auto", "numpy", "cupy"]),
    "The CPU (numpy) or an NVIDIA GPU (cupy); auto takes a GPU where one works.",
)
@_option(
    "precision",
    Choice(PRECISIONS),
    "Of computations. A GPU has tf32 (float32, factors of products rounded) and bfloat16, too, with float32 weights.",
)
@_option("threads", int, "Worker threads on the CPU.", chosen="all cores")
@_option("devices", int, "GPUs that share each batch, the first ones of CUDA_VISIBLE_DEVICES.")
@click.option("--overfit-one-batch", is_flag=True, help="Train on one batch only; its loss must go to 0.")
@click.option("--dry-run", is_flag=True, help="Show sizes, FLOPs and memory, take one step, and stop.")
@click.option("--log-format", type=Choice(FORMATS), default="auto", show_default=True, help="Of the progress.")
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[str, ...],
    out: str | None,
    config: str | None,
    resume: str | None,
    dry_run: bool,
    log_format: str,
    **settings: Any,
) -> None:
    """Train a model on plain text FILEs.

    With no option it trains a small model for about five minutes and tells what to run next. One size is
    enough: --width or --layers alone chooses the rest. Ctrl-C saves, and --resume goes on from there.

    For an encoder, blank lines separate documents, which never see each other; next-sentence prediction takes
    lines for sentences. A decoder and span corruption read the text as one stream, as GPT and T5 do. For seq2seq,
    each line is a source, a tab, and its target.
    """
    given = {name: settings[name] for name in settings if _is_given(ctx, name)}
    if files:
        given["files"] = files
    if resume is not None:
        _check_resume({"FILE": files, "--out": out, "--config": config, "--dry-run": dry_run})

        from ..training import trainer

        with view(log_format) as report:
            trainer.resume(resume, report, given)
        return
    if config is not None:
        given = _merged(read_options(config), given)
    run_config = RunConfig(**_nested(given))
    if not run_config.files:
        raise click.UsageError("no text to train on: name at least one FILE")

    from ..training import trainer

    with view(log_format) as report:
        trainer.train(run_config, report, out=out, dry_run=dry_run)


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name).name != "DEFAULT"


def _nested(given: dict[str, Any]) -> dict[str, Any]:
    """The model's own settings in their place, `model`."""
    model = given.get("model", {}) | {name: given[name] for name in _MODEL if name in given}
    rest = {name: value for name, value in given.items() if name not in (*_MODEL, "model")}
    return rest | ({"model": model} if model else {})


def _merged(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file under those of the flags; a preset or a run to begin with replaces the file's sizes.

    A run's own file holds what the run chose, too: what follows from a setting goes where a flag changes that.
    """
    model, mode = stored.get("model", {}), stored.get("mode", "decoder")
    if "vocabulary" in model:  # nobody writes that: it comes with the tokenizer
        gone = {name for flag in given for name in _CHOSEN_BY.get(flag, ())}
        model = {name: value for name, value in model.items() if name not in gone}
        stored = {name: value for name, value in stored.items() if name not in gone}
        if given.get("mode", mode) != mode:  # what makes a GPT is not what makes a BERT
            model = {name: value for name, value in model.items() if name in (*_SIZES, "hidden")}
    return stored | {"model": {} if {"preset", "init_from"} & given.keys() else model} | given


def _check_resume(excluded: dict[str, Any]) -> None:
    for name, value in excluded.items():
        if value:
            raise click.UsageError(f"--resume goes on with a run and its own text and place: leave out {name}")
