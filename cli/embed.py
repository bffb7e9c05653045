"""`tinyformer embed`: features of texts, for others to build upon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import Choice, Command, Name, print_json
from .runs import backend_option, done_with, given_lines, load_run, threads_for, warn


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("file", type=Name())
@click.option("--out", type=Name(), metavar="FILE.npy", help="A new file, float32 `n d`; else JSON lines on stdout.")
@click.option(
    "--pool",
    type=Choice(["mean", "cls", "last"]),
    default="mean",
    show_default=True,
    help="The mean over a text's tokens; an encoder's <cls>; a decoder's last token.",
)
@click.option("--text", type=Name(), metavar="COLUMN", help="Column of the text.", show_default="text")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Texts computed at once.")
@click.option("--threads", type=click.IntRange(1), show_default="all cores", help="Batches at once, on the CPU.")
@backend_option
def command(
    run: str,
    file: str,
    out: str | None,
    pool: str,
    text: str | None,
    batch_size: int,
    threads: int | None,
    backend: str,
) -> None:
    """Write what the model in the run directory RUN knows of each line of FILE: a vector of its width.

    Any run will do: trained here, fine-tuned or imported. The vector is made of the last layer's hidden states, of an
    encoder-decoder those of its encoder. The model reads <cls> text <sep>, text </s>, or in a decoder the text alone;
    the mean is over the text's own tokens.

    FILE has a text on each line, or is .csv or .jsonl with a column "text", or another that --text names; - is stdin.
    Without --out, each line gives an object with "features". A blank line has features of 0, and a text that is too
    long for the context loses its end.
    """
    import threadpoolctl

    from ..tasks import Columns
    from ..tasks.examples import stream
    from ..tasks.features import embed, write_features
    from ..tasks.predicting import Tally

    model, tokenizer = load_run(run, backend)
    source, live = given_lines(file)
    texts = stream(source, Columns(text), labelled=False)
    tally, threads = Tally(), threads_for(model, threads)
    with threadpoolctl.threadpool_limits(1, "blas"):
        settings = {"pool": pool, "batch_size": batch_size, "threads": threads, "live": live}
        rows = embed(model, tokenizer, texts, **settings, tally=tally)
        if out is None:
            for row in rows:
                print_json({"features": _numbers(row)})
        else:
            count = write_features(Path(out), rows, model.config.width)
            click.echo(f"wrote {out}: {count:,} x {model.config.width:,}, float32", err=True)
    done_with(source)
    for message in tally.warnings(model.config.context, "given features of 0"):
        warn(message)


def _numbers(row: Any) -> list[float]:
    """In the fewest digits that give back the same float32."""
    return [float(str(number)) for number in row]
