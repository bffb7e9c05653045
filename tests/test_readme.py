"""The README is true: its Python runs and prints what it says, its commands exist, its tree is the tree."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from tinyformer.cli import main
from tinyformer.cli.task_words import FIGURES
from tinyformer.tasks import TASKS, Columns
from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with a run called my-decoder."""
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("Once upon a time there was a text. " * 40)
    config = RunConfig(files=("my.txt",), steps=1, tokenizer="bytes", model={"layers": 1, "width": 8, "context": 16})
    train(config, lambda event: None, out="runs/my-decoder")


OURS = [code for code in blocks("python") if "import pipeline" not in code]  # that of transformers: tests/oracle


@pytest.mark.parametrize("code", OURS)
def test_python_prints_what_its_comments_say(code, runs):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    shown = re.findall(r"^print\(.*?\)(?:  # (.*)|((?:\n#.*)+))$", code, re.MULTILINE)
    expected = "\n".join(inline or re.sub(r"^\n?# ", "", below, flags=re.MULTILINE) for inline, below in shown)
    assert printed.getvalue().strip() == expected or not shown


def test_a_text_that_goes_on_is_shown_from_its_beginning(runs, capsys):
    (code,) = (code for code in blocks("python") if "generate_texts" in code)
    exec(compile(code, "README.md", "exec"), {})
    (prompt,) = re.findall(r'b"(.+?)"', code)
    shown = capsys.readouterr().out
    assert shown.startswith(prompt)
    assert len(shown) > len(prompt) + 1


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("console")
    for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)
]


@pytest.mark.parametrize("line", [line for line in COMMANDS if "tinyformer " in line])
def test_commands_and_their_options_exist(line, tmp_path, monkeypatch):
    """Parsed as the command line would, without running: a flag that does not exist is an error here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    for name in ("my.txt", "other.txt", "examples/data.txt"):
        (tmp_path / name).write_text("text")
    command = next(part for part in re.split(r"&&|\|", line) if "tinyformer " in part)
    name, *arguments = shlex.split(command)[1:]
    found = main.get_command(None, name)
    assert found is not None
    found.make_context(name, arguments)


def test_the_tree_names_what_is_there():
    tree = next(block for block in blocks("") if "tensor.py" in block)
    folder = ROOT
    for line in filter(None, tree.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
            assert folder.is_dir(), name
        else:
            assert (folder / name).exists(), name
    modules = {p.name for p in (ROOT / "tinyformer").glob("*.py")} - {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "einops_backend.py",
    }
    assert modules <= set(tree.split()), "a module that the README does not mention"


def test_files_of_examples_are_read_as_they_are_shown(tmp_path):
    block = next(block for block in blocks("") if block.startswith("reviews.tsv"))
    table, squad = block.split("\n\n")
    head, *lines = table.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", head)]
    for start, stop in zip(starts, [*starts[1:], None]):
        file = tmp_path / head[start:stop].strip()
        file.write_text("".join(line[start:stop].strip().replace(" TAB ", "\t") + "\n" for line in lines))
    (tmp_path / "train.json").write_text(squad)
    columns = Columns("premise", "hypothesis", "answer")
    first, second = TASKS["pair"].stream(tmp_path / "pairs.csv", columns)
    assert (first.texts, first.label, second.label) == (("A dog, asleep", "It rests"), "yes", "no")
    (tagged,) = TASKS["tag"].stream(tmp_path / "people.conll")
    assert (tagged.texts, tagged.label) == (("Ada", "Lovelace", "wrote"), ("B-PER", "I-PER", "O"))
    reviews, dates, asked = (
        [(example.texts, example.label) for example in TASKS[task].stream(tmp_path / name)]
        for task, name in (("classify", "reviews.tsv"), ("text2text", "dates.tsv"), ("answer", "train.json"))
    )
    assert {label for _, label in reviews} == {"good", "bad"}
    assert len(reviews) == len(dates) == 3
    assert dates[2] == (("the 2nd of June, 1987",), "1987-06-02")
    assert [label for _, label in asked] == [(("Ada Lovelace", 0),), ()]


def test_what_tells_the_best_epoch_is_bold():
    words = {name: figure[0] for name, figure in FIGURES.items()} | {"average": "their mean"}
    for name, task in TASKS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*\*\*.*", README, re.MULTILINE)
        assert re.findall(r"\*\*(.*?)\*\*", row) == [words[task.best]]


def test_no_placeholder_is_left():
    assert re.findall(r"\b[A-Z]{3,}_[A-Z]+\b", README) == []


def test_the_number_of_primitives_is_right():
    from tests.cases import PRIMITIVES

    assert f"{len(PRIMITIVES)} primitives" in README


def test_the_first_commands_are_the_ones_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[0].startswith("pip install -e . && tinyformer train --mode decoder examples/data.txt")
    assert COMMANDS[-1] == "pip install -e '.[test]' && python -m pytest"
    assert "-e '.[test]'" in ci
    assert "python -m pytest" in ci
