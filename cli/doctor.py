"""`tinyformer doctor`: what tinyformer finds on this machine, for the user and for bug reports."""

from __future__ import annotations

import click

from .app import Command, print_json


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show what tinyformer finds on this machine.

    Versions, array backends, the GPU, BLAS with its kernels (they decide the speed on a CPU) and how fast it
    multiplies, threads and memory.
    """
    from ..analysis.machine import describe_machine

    facts = describe_machine()
    if as_json:
        print_json(facts)
        return
    for section, values in facts.items():
        click.echo(click.style(section, bold=True))
        for name, value in values.items():
            click.echo(f"  {name:<18} {value}")
