"""Measures tinyformer and its peers side by side.

python -m tests.benchmarks --help
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import click

from tinyformer.analysis.machine import describe_machine, usable_cores

from . import generation, start, tokenizing, training
from .cases import TRAINING
from .report import markdown, note, terminal

OTHERS = {"generation": generation.measure, "bpe": tokenizing.measure, "start": start.measure}
CASES = (*TRAINING, *OTHERS)
QUICK = ("decoder/128", "encoder/128", "encoder-decoder/128")
PEERS = ("torch", "transformers", "jax", "tokenizers")


def chosen(patterns: tuple[str, ...]) -> list[str]:
    """The cases that a user names, each by its whole name or the part before the "/"."""
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in CASES):
            raise click.UsageError(f"there is no case {pattern!r}; there are {', '.join(CASES)}")
    return [name for name in CASES if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}/")


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--only", multiple=True, metavar="NAME", help=f"A case, or all of a kind; repeatable. Cases: {', '.join(CASES)}."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Turns of each contender.")
@click.option("--threads", type=click.IntRange(1), show_default="the cores that may be used", help="Of each contender.")
@click.option("--quick", is_flag=True, help="Two rounds of the smallest size in three modes.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="To tokenize [drawn words].")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure to a file.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table of the README at the end.")
def main(
    only: tuple[str, ...],
    rounds: int,
    threads: int | None,
    quick: bool,
    text: Path | None,
    file: Path | None,
    as_markdown: bool,
) -> None:
    """Measure tinyformer and each of its peers that is installed, in alternation, so that both sides of a ratio come
    from the same minutes.

    A training step is forward, loss, backward, clipping to a norm of 1 and AdamW, in float32 unless the line says
    bf16, from the same weights on the same batch; a peer whose first loss is not ours gets no ratio. Memory is what
    the process grows by in a step, at its peak, beyond its imports. The share of the GEMM rate counts the matrix
    products that a step cannot do without, of causal attention half, against 2048 x 2048 products on as many threads.
    """
    threads = threads or usable_cores()
    names = chosen(only or (QUICK if quick else CASES))
    rounds = 2 if quick else rounds
    results: list[dict[str, Any]] = []
    report = {"machine": describe_machine(), "peers": versions(), "cases": results}
    note(f"{report['machine']['machine']['processor']}, {threads} threads; {rounds} rounds")
    for name in names:
        if name in TRAINING:
            result = training.measure(name, *TRAINING[name], rounds=rounds, threads=threads)
        else:
            result = OTHERS[name](name, rounds=rounds, threads=threads, text=text)
        for case in result if isinstance(result, list) else [result]:
            results.append(case)
            click.echo(terminal(case) + "\n")
        if file is not None:
            file.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if as_markdown:
        click.echo(markdown(results))


if __name__ == "__main__":
    main()
