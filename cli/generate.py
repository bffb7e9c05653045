"""`tinyformer generate`: text from a trained model, on stdout while it is written."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from typing import Any

import click

from ..generation.options import TEMPERATURES, Options
from .app import Command, Name, print_json
from .figures import printable
from .runs import backend_option, given_text, load_language_model, source_prefix, without_line_end

_DEFAULTS = Options()


def _option(name: str, kind: type, help_: str, default_text: str | bool = True, **more: Any) -> Any:
    default = getattr(_DEFAULTS, name)
    return click.option(
        "--" + name.replace("_", "-"), type=kind, default=default, show_default=default_text, help=help_, **more
    )


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.option("--prompt", metavar="TEXT", help="Text to continue or to answer; - is stdin, as is a pipe.")
@click.option("--prompt-file", type=Name(), metavar="FILE", help="A file with this text; - is stdin.")
@_option("tokens", int, "How many tokens to write at most.")
@_option(
    "temperature",
    float,
    "Below 1 is more cautious, above 1 wilder; 0 is greedy.",
    default_text="{decoder}; {encoder-decoder:g} for an encoder-decoder".format(**TEMPERATURES),
)
@click.option("--greedy", is_flag=True, help="Always take the likeliest token, like --temperature 0.")
@_option("top_k", int, "Choose among the K likeliest tokens.", metavar="K")
@_option("top_p", float, "Choose among the fewest tokens whose probability reaches P.", metavar="P")
@_option("repetition_penalty", float, "Above 1 discourages tokens that have occurred.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@_option("samples", int, "How many texts; the best ones of a beam search.")
@_option("beams", int, "Search for the likeliest text, keeping this many candidates.", metavar="N")
@_option("length_penalty", float, "Above 0 favours longer texts in a beam search.")
@_option("seed", int, "Of the sampling; the same seed writes the same text.")
@click.option("--cache/--no-cache", default=True, show_default=True, help="Keep keys and values; same text.")
@click.option(
    "--echo/--no-echo",
    default=None,
    show_default="echo; no-echo for an encoder-decoder",
    help="Print the prompt before the text; a source, with a tab behind.",
)
@backend_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per text, when all are complete.")
@click.pass_context
def command(
    ctx: click.Context,
    run: str,
    prompt: str | None,
    prompt_file: str | None,
    greedy: bool,
    stop: tuple[str, ...],
    echo: bool | None,
    backend: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write text with the model in the run directory RUN.

    A decoder continues the prompt. The text may be longer than the model's context: when that is full, its older
    half is forgotten.

    An encoder-decoder answers the prompt, its source; a name such as <extra_id_0> means that special token there. An
    answer has at most as many tokens as the context. The prefix that a run was fine-tuned with is put before it.

    With several samples, a line of three dashes stands between two texts.
    """
    given = {name for name in ctx.params if ctx.get_parameter_source(name).name == "COMMANDLINE"}
    _check_together(given, greedy, settings["beams"])
    if greedy:
        settings["temperature"] = 0.0
    options = Options(**settings, stop=tuple(text.encode() for text in stop))
    start = given_text(prompt, prompt_file)

    from ..generation import generate
    from ..text.special import SPELLINGS

    model, tokenizer = load_language_model(run, backend)
    answers = model.config.mode == "encoder-decoder"
    if answers and any(mask.encode() in start for mask in SPELLINGS["mask"] if mask not in tokenizer.special_tokens):
        click.echo("warning: a mask in the prompt is plain text to this model; tinyformer fill fills it in", err=True)
    if answers:
        start = without_line_end(start)
    source = source_prefix(run) + start if answers and start else start
    shown = (start + b"\t" * answers) if (not answers if echo is None else echo) else b""
    pieces = generate(model, tokenizer, source, options)
    if as_json:
        _print_json(pieces, start, options)
    else:
        _print_text(pieces, shown, options)


def _check_together(given: set[str], greedy: bool, beams: int | None) -> None:
    if "prompt" in given and "prompt_file" in given:
        raise click.UsageError("--prompt and --prompt-file exclude each other")
    if greedy and "temperature" in given:
        raise click.UsageError("--greedy and --temperature exclude each other")
    sampling = [name for name in ("temperature", "greedy", "top_k", "top_p") if name in given]
    if beams is not None and sampling:
        raise click.UsageError(
            f"--{sampling[0].replace('_', '-')} chooses token by token and --beams whole texts: leave one out"
        )
    if beams is None and "length_penalty" in given:
        raise click.UsageError("--length-penalty belongs to a beam search: add --beams")


def _print_text(pieces: Any, start: bytes, options: Options) -> None:
    """Each sample in turn: the first as it is written, the others when it is complete."""
    waiting = [[] for _ in range(options.samples)]
    ended = [False] * options.samples
    turn = 0
    write = _writer()
    write(start)
    for piece in pieces:
        waiting[piece.sample].append(piece.text)
        ended[piece.sample] = piece.ended is not None
        while turn < options.samples:
            write(b"".join(waiting[turn]))
            waiting[turn].clear()
            if not ended[turn]:
                break
            turn += 1
            write(b"\n" if turn == options.samples else b"\n---\n" + start)


def _writer() -> Callable[[bytes], None]:
    """Writes to a pipe as it is; to a terminal without control characters, which could leave it unusable.

    What is written is one stream: a character may begin in the prompt and end in what the model writes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace") if sys.stdout.isatty() else None

    def write(text: bytes) -> None:
        if decoder:
            text = printable(decoder.decode(text)).encode()
        if text:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()

    return write


def _print_json(pieces: Any, start: bytes, options: Options) -> None:
    texts = [b""] * options.samples
    last: dict[int, Any] = {}
    for piece in pieces:
        texts[piece.sample] += piece.text
        last[piece.sample] = piece
    for sample, piece in sorted(last.items()):
        record = {
            "sample": sample,
            "prompt": start.decode("utf-8", "replace"),
            "text": texts[sample].decode("utf-8", "replace"),
            "tokens": piece.tokens,
            "ended": piece.ended,
        }
        print_json(record | ({"score": piece.score} if options.beams is not None else {"seed": options.seed}))
