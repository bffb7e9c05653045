"""`tinyformer export`: a run as a Hugging Face directory."""

from __future__ import annotations

import click

from .app import Command, Name


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.option("--out", type=Name(), required=True, metavar="DIR", help="The directory to write; new or empty.")
def command(run: str, out: str) -> None:
    """Write the run directory RUN as a Hugging Face directory, which transformers opens.

    A GPT-2, BERT or T5 goes out as such, whether it was imported or trained here; an encoder as `train` makes it by
    default is what transformers calls RoFormer, a decoder is Arcee, and with a gate LLaMA. A model with a choice of
    parts that no family has is refused.

    A run that was fine-tuned goes out with its head and the names of its labels: for AutoModelForSequenceClassification
    (classify, pair, regress), AutoModelForTokenClassification (tag) or AutoModelForQuestionAnswering (answer). Its
    tokenizer puts the marks around a text that the model is used to. A decoder gets a token more, <pad>, without which
    there is no batch of texts of unlike length there; where the imported tokenizer is a Unigram, it has no room for it,
    and texts go through one by one. Heads do not come back with tinyformer import.

    The tokenizer of a run that was trained here goes out so that AutoTokenizer gives the same ids, with
    add_special_tokens=False. Text that spells a special token stays text there, too; to have <mask> read as the mask,
    call it with split_special_tokens=False, or pipeline("fill-mask", DIR) with tokenizer_kwargs that say so: it then
    fills in as tinyformer fill does. With --tokenizer bpe, the mask takes all white space before it there, and one
    space here: they differ behind a line break. With --tokenizer chars, a character outside the vocabulary is an error
    there, as it is here.

    A tokenizer that was imported goes out as it came. AutoTokenizer then reads text that spells a special token as this
    token, unless it is called with split_special_tokens=True.
    """
    from ..interop import export_run

    family, opened_by = export_run(run, out, warn=lambda message: click.echo(f"warning: {message}", err=True))
    click.echo(f"exported to {out} as {family.title} ({opened_by} of transformers)", err=True)
