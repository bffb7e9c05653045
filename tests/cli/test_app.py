import importlib
import os
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from tinyformer.cli import COMMANDS, main
from tinyformer.cli.app import App, Command
from tinyformer.errors import TinyformerError, UsageError


def run(*args, **more):
    return CliRunner().invoke(main, args, **more)


def process(*args, **more):
    return subprocess.run(
        [sys.executable, "-c", "from tinyformer.cli import main; main()", *args],
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_shows_its_defaults(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: tinyformer {name}")
    assert result.stderr == ""
    command = importlib.import_module(f"tinyformer.cli.{name}").command
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help
            assert option.help.endswith(".")
            assert option.opts[0] in result.stdout


def test_the_help_lists_every_command_without_loading_it():
    result = run("--help")
    assert result.exit_code == 0
    for name, summary in COMMANDS.items():
        assert f"{name} " in result.stdout
        assert summary in result.stdout
    assert run().stdout == result.stdout


@pytest.mark.parametrize("args", [[], ["train"]])
def test_h_is_short_for_help(args):
    assert run(*args, "-h").stdout == run(*args, "--help").stdout != ""


def test_the_package_can_be_run_as_a_module():
    command = [sys.executable, "-m", "tinyformer", "tarin"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: unknown command 'tarin'; did you mean 'train'? (see tinyformer --help)\n"


def test_version():
    from importlib.metadata import version

    assert run("--version").stdout == f"tinyformer {version('tinyformer')}\n"


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys; from tinyformer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'numpy', 'rich', 'cupy', 'safetensors'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert result.stderr == "[]\n"


def test_help_answers_quickly():
    """0.2 s on a quiet machine; the best of five, with room for a busy one."""

    def seconds():
        begin = time.perf_counter()
        process("--help")
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 0.4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tarin"], "unknown command 'tarin'; did you mean 'train'?"),
        (["xyzzy"], "there are train, generate, evaluate, info, doctor"),
        (["--verison"], "--version"),
        (["train", "--stpes", "3"], "--steps"),
        (["train", "--steps", "many"], "'many' is not a valid integer"),
        (["train", "--schedule", "cosin"], "did you mean 'cosine'?"),
        (["train", "--log-format", "jsn"], "did you mean 'json'?"),
        (["evaluate", "x"], "Missing argument 'FILE'"),
        (["generate"], "Missing argument 'RUN'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def failing(error):
    """An app whose only command raises."""
    app = App(name="tinyformer", summaries={"fail": "Fail."})

    @click.command(cls=Command)
    def fail():
        raise error

    app.get_command = lambda ctx, name: fail
    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TinyformerError("the disk is full"), 1, "Error: the disk is full\n"),
        (UsageError("heads do not divide"), 2, "Error: heads do not divide\n"),
        (PermissionError(13, "Permission denied", "/a/file"), 1, "Error: /a/file: Permission denied\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(error, code, message):
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stderr) == (code, message)


def test_out_of_memory_says_what_to_do():
    result = CliRunner().invoke(failing(MemoryError()), ["fail"])
    assert result.exit_code == 1
    assert "out of memory" in result.stderr
    assert "--dry-run" in result.stderr


def test_a_bug_is_one_line_and_debug_shows_where():
    app = failing(ZeroDivisionError("division\nby zero"))
    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "--debug" in result.stderr
    for args in (["--debug", "fail"], ["fail", "--debug"]):
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "in fail" in result.stderr


def test_a_commands_return_value_is_the_exit_code():
    app = App(name="tinyformer", summaries={"end": "End."})
    app.get_command = lambda ctx, name: click.Command("end", callback=lambda: 143)
    assert CliRunner().invoke(app, ["end"]).exit_code == 143


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_reader_that_leaves_is_no_error():
    code = "from tinyformer.cli import main; main(['info'])"
    first, second = os.pipe()
    os.close(first)
    result = subprocess.run([sys.executable, "-c", code], stdout=second, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(second)
    assert result.stderr == ""


def test_doctor_in_words_and_as_json():
    import json

    words = run("doctor")
    assert words.exit_code == 0
    assert "numpy" in words.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["backends"]["numpy"] == "works"
    assert {"library", "kernels", "threads"} <= facts["BLAS"].keys()
