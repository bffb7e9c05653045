"""The command line: `tinyformer COMMAND`. One file per command; flags become a config, a config one call.

Nothing heavy is imported before a command runs. Read `app.py` next, which turns errors into one line.
"""

import click

from .app import App

COMMANDS = {
    "train": "Train a model on plain text files.",
    "finetune": "Teach a trained model a task, from labelled examples.",
    "generate": "Write text with a trained model.",
    "fill": "Fill in what is masked in a sentence.",
    "predict": "Answer the lines of a file with a fine-tuned model.",
    "embed": "Write a model's features of each line of a file.",
    "prompt": "Show a decoder a task by a few examples, and score its answers.",
    "evaluate": "Score a trained model on a text file.",
    "inspect": "Show what a model sees of a text, and who may look at whom.",
    "info": "Show a model's parameters, FLOPs and memory.",
    "import": "Make a run out of a Hugging Face directory.",
    "export": "Write a run as a Hugging Face directory.",
    "doctor": "Show what tinyformer finds on this machine.",
}


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"tinyformer {version('tinyformer')}")
        context.exit()


@click.group(name="tinyformer", cls=App, summaries=COMMANDS, epilog="Start with: tinyformer train examples/data.txt")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def main() -> None:
    """Train, run and study small transformers with NumPy."""
