"""`tinyformer prompt`: what a decoder does when it is only shown a task."""

from __future__ import annotations

from typing import Any

import click

from .app import Choice, Command, Name, print_json
from .figures import counted, number, percent
from .runs import backend_option

MOST_CANDIDATES = 64  # labels that are taken for candidates without being asked
NORMALISATIONS = ("token", "byte", "sum", "unconditional")  # `prompting` explains them


@click.command(cls=Command)
@click.argument("run", type=Name())
@click.argument("file", type=Name(), required=False)
@click.option("--shots", type=Name(), metavar="FILE", help="Examples to draw shots from: lines of text TAB label.")
@click.option("--k", metavar="K,K,...", show_default="0,1,4; 0 without --shots", help="Numbers of shots.")
@click.option(
    "--template",
    default="gpt3",
    show_default=r"gpt3, which is '{text} => {label}\n'",
    metavar="TEXT",
    help=r"How an example is written: with {text}, of pairs {pair}, and {label} last; \n is a line break. Or tldr: "
    "summaries as GPT-2 wrote them.",
)
@click.option("--description", default="", metavar="TEXT", help="Of the task, before the examples.")
@click.option("--candidates", metavar="A,B,...", show_default="all labels", help="Answers to choose from.")
@click.option(
    "--normalise",
    type=Choice(NORMALISATIONS),
    default="token",
    show_default=True,
    help="Divide a candidate's log-likelihood by its tokens, as GPT-3, or bytes; or not; or subtract that without "
    "the query.",
)
@click.option("--write", is_flag=True, help="Let answers be written, not chosen; right is what equals the label.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", show_default="what follows {label}", help="Ends what is written."
)
@click.option("--tokens", type=int, show_default="32; 100 for tldr", help="Write at most so many.")
@click.option("--top-k", type=int, metavar="K", show_default="1; 2 for tldr", help="Write one of the K likeliest.")
@click.option("--draws", type=int, default=5, show_default=True, help="How often shots are drawn.")
@click.option("--limit", type=int, metavar="N", help="Ask for at most N texts in each draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws, and of writing.")
@click.option("--text", metavar="COLUMN", help="The texts' column, of a CSV or JSONL file, or one with a header.")
@click.option("--pair", metavar="COLUMN", help="That of the second texts.")
@click.option("--label", metavar="COLUMN", help="That of the labels.")
@backend_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each K.")
@click.option("--answers", is_flag=True, help="Print one JSON object for each answer; FILE then needs no labels.")
@click.option("--show", is_flag=True, help="Print one prompt, of the most shots, and stop.")
@click.pass_context
def command(
    ctx: click.Context, run: str, file: str | None, as_json: bool, answers: bool, show: bool, **given: Any
) -> None:
    """Show a task to the decoder in the run directory RUN by some examples, and count its right answers. Nothing is
    trained.

    A prompt is K examples of the shots' file, drawn at random, and then a text of FILE up to where the template has
    {label}. Without FILE, examples that were not drawn are asked. Of the candidates, the answer is the one that the
    model finds likeliest there.

    The accuracy is a mean over several draws of the shots, with its standard error.
    """
    if as_json + answers + show > 1:
        raise click.UsageError("--json, --answers and --show exclude each other")
    written = given["write"] or given["template"] == "tldr"
    _check_together(ctx, written)

    from ..prompting import Template, majority, unescaped
    from .runs import warn
    from .view import progress_line

    template = Template.parse(unescaped(given["template"]))
    experiment = _experiment(template, file, given, labelled=not (answers or show))
    labels = None if written else _candidates(experiment, given["candidates"])
    answerer = _answerer(run, template, labels, given)
    if show:
        _show(experiment, answerer)
        return
    chance = None if labels is None else 1 / len(labels)
    baselines = {"chance": chance, "majority": majority(experiment.asked)}
    header = "    K  accuracy  standard error" + "  ROUGE-L" * written
    results = experiment.run(answerer, lambda *now: progress(*now))
    while True:
        with progress_line("prompts") as progress:  # gone before a line is printed, which it would stand in
            result = next(results, None)
        if result is None:
            break
        if result.shortened:
            warn(
                f"K = {result.k}: {result.shortened:,} of {len(result.answered):,} prompts were longer than the "
                f"context of {answerer.model.config.context:,} tokens, and lost their first shots"
            )
        if answers:
            for each in result.answered:
                print_json(_answer(each))
        elif as_json:
            print_json(_record(result, written) | baselines)
        else:
            click.echo(header + "\n" * bool(header) + _row(result, written))
            header = ""
    if not (as_json or answers):
        click.echo(_legend(experiment, baselines))


def _row(result: Any, written: bool) -> str:
    error = "-" if result.standard_error is None else percent(result.standard_error)
    rouge = f"  {number(_rouge(result), 3):>7}" if written else ""
    return f"{result.k:>5}  {percent(result.accuracy):>8}  {error:>14}{rouge}"


def _check_together(ctx: click.Context, written: bool) -> None:
    given = {name for name in ctx.params if ctx.get_parameter_source(name).name == "COMMANDLINE"}
    for name in ("stop", "tokens", "top_k"):
        if name in given and not written:
            raise click.UsageError(f"--{name.replace('_', '-')} is for answers that are written: add --write")
    for name in ("candidates", "normalise"):
        if name in given and written:
            raise click.UsageError(f"--{name} is for answers that are chosen, and these are written: leave one out")


def _experiment(template: Any, file: str | None, given: dict[str, Any], labelled: bool) -> Any:
    """What is asked and shown, read from the files. What is asked need not be labelled if no accuracy is."""
    from ..errors import UsageError
    from ..prompting import Experiment, unescaped
    from ..tasks import Columns
    from ..tasks.examples import stream
    from .runs import warn

    if given["shots"] is None and file is None:
        raise click.UsageError("give examples with --shots, or with --k 0 a FILE of texts to answer")
    numbers = _numbers(given["k"] or ("0" if given["shots"] is None else "0,1,4"))
    if given["shots"] is None and max(numbers) > 0:
        raise click.UsageError(f"--k {max(numbers)} needs examples to show: give them with --shots")
    columns = Columns(given["text"], given["pair"], given["label"])

    def examples(path: str, labelled: bool) -> list[Any]:
        try:
            return list(stream(path, columns, texts=template.texts, warn=warn))
        except UsageError:
            if labelled:
                raise
        found = [each for each in stream(path, columns, texts=template.texts, labelled=False) if each.texts]
        if not found:
            raise UsageError(f"{path} has only blank lines; give a file with texts to answer")
        return found

    return Experiment(
        template,
        [] if given["shots"] is None else examples(given["shots"], True),
        None if file is None else examples(file, labelled),
        numbers=numbers,
        draws=given["draws"],
        seed=given["seed"],
        limit=given["limit"],
        description=unescaped(given["description"]),
    )


def _numbers(written: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in written.split(",")}))
    except ValueError:
        raise click.UsageError(
            f"--k takes whole numbers with commas between, such as 0,1,4,16, not {written!r}"
        ) from None


def _candidates(experiment: Any, written: str | None) -> list[str]:
    """The labels to choose from; every label that is known must be one of them."""
    examples = [*experiment.shots, *(experiment.queries or [])]
    known = {example.label: example.place for example in reversed(examples) if example.label is not None}
    if written is None:
        if not known:
            raise click.UsageError("there are no labels to choose from: name them with --candidates, or add --write")
        if len(known) > MOST_CANDIDATES:
            raise click.UsageError(
                f"{len(known):,} different labels are too many to choose from: add --write, or name --candidates"
            )
        return sorted(known)
    labels = [label.strip() for label in written.split(",")]
    if not all(labels):
        raise click.UsageError(f"--candidates {written!r} has an empty one; write them with commas between")
    for label, place in known.items():
        if label not in labels:
            raise click.UsageError(f"{place} has the label {label!r}, which is not among the candidates {written}")
    return labels


def _answerer(run: str, template: Any, labels: list[str] | None, given: dict[str, Any]) -> Any:
    """The model of the run, as what chooses an answer or writes one."""
    from dataclasses import replace

    from ..prompting import TLDR_SENTENCES, Candidates, Writer, options_for, tldr_options, unescaped
    from .runs import load_language_model

    tldr = given["template"] == "tldr"
    options = tldr_options() if tldr else options_for(template)
    options = replace(options, seed=given["seed"])
    if given["tokens"] is not None:
        options = replace(options, tokens=given["tokens"])
    if given["top_k"] is not None:
        options = replace(options, top_k=given["top_k"], temperature=1.0)
    if given["stop"]:
        options = replace(options, stop=tuple(_bytes(unescaped(text)) for text in given["stop"]))
    model, tokenizer = load_language_model(run, given["backend"])
    if model.config.mode != "decoder":
        raise click.UsageError(
            f"{run} is an {model.config.mode}, which does not go on with a text; prompts are for a decoder (GPT), and "
            f"tinyformer finetune teaches a task to any model"
        )
    if labels is None:
        return Writer(model, tokenizer, options, sentences=TLDR_SENTENCES if tldr else None)
    return Candidates(model, tokenizer, template, labels, normalise=given["normalise"])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _show(experiment: Any, answerer: Any) -> None:
    """One prompt to stdout, and what there is to say of it to stderr."""
    from ..prompting import make_prompt

    shots, queries = experiment.draw(0)
    prepared, left_out = experiment.fit(answerer, shots, queries[0])
    click.echo(make_prompt(experiment.template, shots[left_out:], queries[0], experiment.description))
    said = [f"{counted(len(shots) - left_out, 'shot')}, {counted(len(prepared.prompt), 'token')}"]
    if left_out:
        said.append(f"{counted(left_out, 'shot')} left out, for which the context has no room")
    said.append(f"then {answerer.follows}")
    if queries[0].label is not None:
        said.append(f"right is {queries[0].label!r}")
    click.echo("; ".join(said), err=True)


def _rouge(result: Any) -> float | None:
    """ROUGE-L of what was written, a mean over all texts with labels."""
    from ..tasks.metrics.texts import rouge_l

    known = [each for each in result.answered if each.query.label is not None]
    return rouge_l([each.query.label for each in known], [each.answer.text for each in known]) if known else None


def _record(result: Any, written: bool) -> dict[str, Any]:
    facts = {
        "k": result.k,
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "draws": result.accuracies,
        "answers": len(result.answered),
        "shortened": result.shortened,
    }
    return facts | ({"rouge_l": _rouge(result)} if written else {})


def _answer(each: Any) -> dict[str, Any]:
    return {
        "k": each.k,
        "draw": each.draw,
        "place": each.query.place,
        "answer": each.answer.text,
        "label": each.query.label,
        "right": each.right,
        "shots": each.k - each.left_out,
        **({"scores": each.answer.scores} if each.answer.scores else {}),
    }


def _legend(experiment: Any, baselines: dict[str, float | None]) -> str:
    """What the figures are of, and what to compare them with."""
    asked = counted(len(experiment.draw(0)[1]), "text")
    known = [f"{name} {percent(share)}" for name, share in baselines.items() if share is not None]
    return f"{asked} in each of {counted(experiment.draws, 'draw')}; " + ", ".join(known)
