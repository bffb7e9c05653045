"""`tinyformer fill`: what a trained model puts in the place of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from .app import Command, Name, print_json
from .columns import clipped, one_line, padded, width
from .runs import given_text, load_language_model, without_line_end

PART_COLUMNS, SENTENCE_COLUMNS = 40, 120  # at most, of what is filled in and of the sentence


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("sentence", required=False)
@click.option("--top", type=int, default=5, show_default=True, metavar="K", help="How many candidates to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, sentence: str | None, top: int, as_json: bool) -> None:
    """Fill in each <mask> of SENTENCE with the model in the run directory RUN.

    An encoder shows the likeliest tokens for each mask by itself. An encoder-decoder shows its likeliest answers
    as a whole, found by a beam search of width K; each is a span for every mask, of any length. For that, a mask is
    the next of the sentinels <extra_id_0>, <extra_id_1> and so on, which may also be written out. The probability of
    an answer is that of all its tokens together.

    Without SENTENCE, or with -, it is read from stdin, all of which is one text. The table cuts what is long; --json
    does not.
    """
    text = without_line_end(given_text(sentence))

    import threadpoolctl

    from ..generation import fill_masks, fill_spans

    model, tokenizer = load_language_model(run)
    spans = model.config.mode == "encoder-decoder"
    with threadpoolctl.threadpool_limits(1, "blas"):  # the products are small: threads would wait for each other
        found = (fill_spans if spans else fill_masks)(model, tokenizer, text, top)
    if as_json:
        shown = [_filling(each) for each in found] if spans else [[_candidate(each) for each in mask] for mask in found]
        print_json({"text": _string(text), "fillings" if spans else "masks": shown})
    elif spans:
        if all(span is None for each in found for span in each.spans):
            click.echo(
                "warning: the model wrote no sentinel; it fills in only what span corruption taught it", err=True
            )
        _print_table([(each.probability, *map(_quoted, each.spans), _sentence(each.sentence)) for each in found])
    else:
        for number, mask in enumerate(found, 1):
            if len(found) > 1:
                click.echo(f"{chr(10) * (number > 1)}mask {number} of {len(found)}")
            _print_table([(each.probability, _quoted(each.text), _sentence(each.sentence)) for each in mask])


def _candidate(candidate: Any) -> dict[str, Any]:
    return {
        "token": _string(candidate.text),
        "id": candidate.token,
        "probability": candidate.probability,
        "sentence": _string(candidate.sentence),
    }


def _filling(filling: Any) -> dict[str, Any]:
    return {
        "spans": [None if span is None else _string(span) for span in filling.spans],
        "probability": filling.probability,
        "sentence": _string(filling.sentence),
        "answer": _string(filling.answer),
    }


def _string(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _print_table(rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows of a probability, what was filled in, and the sentence, under one another."""
    widths = [max(map(width, column)) for column in list(zip(*rows))[1:-1]]
    for probability, *parts, sentence in rows:
        click.echo("  ".join([_percent(probability), *map(padded, parts, widths), sentence]))


def _percent(probability: float) -> str:
    return f"{probability:8.2%}" if probability >= 0.00005 else " < 0.01%"


def _quoted(text: bytes | None) -> str:
    """A token or a span, whose spaces count; a dash where the model wrote none."""
    return "-" if text is None else f'"{clipped(_line(text), PART_COLUMNS, "...")}"'


def _sentence(text: bytes) -> str:
    return clipped(_line(text), SENTENCE_COLUMNS, "...")


def _line(text: bytes) -> str:
    return one_line(text.decode("utf-8", "backslashreplace"))
