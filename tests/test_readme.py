"""The README is true: its Python runs and prints what it says, its commands exist, its tree is the tree."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from tinyformer.cli import main
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


@pytest.mark.parametrize("code", blocks("python"))
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
