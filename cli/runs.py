"""What several commands do with a run directory."""

from __future__ import annotations

from typing import Any

import click


def load_run(path: str) -> tuple[Any, Any]:
    """The model and the tokenizer of a run directory or of one of its checkpoints."""
    import tinyformer

    from ..text import load_tokenizer
    from ..training.rundir import open_run

    run = open_run(path)
    model = tinyformer.load(path, on_damage=lambda message: click.echo(f"warning: {message}", err=True))
    return model, load_tokenizer(run.tokenizer_file)
