import importlib
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from commandline import finished, run

from tinyformer.cli import COMMANDS
from tinyformer.cli.app import App, Command
from tinyformer.errors import TinyformerError, UsageError


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
    done = finished("tarin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: unknown command 'tarin'; did you mean 'train'? (see tinyformer --help)\n"


def test_version():
    from importlib.metadata import version

    assert run("--version").stdout == f"tinyformer {version('tinyformer')}\n"


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "--help"], ["finetune", "--help"]])
def test_help_imports_nothing_heavy(args):
    """Which is what makes it quick: 0.2 s on a quiet machine."""
    code = (
        "import sys; from tinyformer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'numpy', 'rich', 'cupy', 'safetensors'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert result.stderr == "[]\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tarin"], "unknown command 'tarin'; did you mean 'train'?"),
        (["xyzzy"], "there are train, finetune, generate, "),
        (["--verison"], "--version"),
        (["train", "--stpes", "3"], "--steps"),
        (["train", "--steps", "many"], "'many' is not a valid integer"),
        (["train", "--schedule", "cosin"], "did you mean 'cosine'?"),
        (["train", "--log-format", "jsn"], "did you mean 'json'?"),
        (["evaluate", "x"], "Missing argument 'FILE'"),
        (["train", ""], "Error: FILE needs a name"),
        (["train", "a", ""], "Error: FILE needs a name"),
        *((["train", "a", flag, ""], f"Error: {flag} needs a name") for flag in ("--out", "--config", "--resume")),
        (["train", "a", "--validation", ""], "Error: --validation needs a name"),
        (["train", "a", "--tokenizer", ""], "Error: --tokenizer needs a name"),
        (["generate", ""], "Error: RUN needs a name"),
        (["generate", ".", "--prompt-file", ""], "Error: --prompt-file needs a name"),
        (["evaluate", ".", ""], "Error: FILE needs a name"),
        (["info", ""], "Error: RUN|PRESET needs a name"),
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
        (OSError(5, "Input/output error"), 1, "Error: cannot write the output: input/output error\n"),
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
    first, second = os.pipe()
    os.close(first)
    result = finished("info", stdout=second)
    os.close(second)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_under_the_output_is_one_line(trained):
    for command in (["info"], ["generate", trained, "--tokens", "3", "--prompt", "a"]):
        with open("/dev/full", "w") as full:
            result = finished(*command, stdout=full)
            assert result.stderr == "Error: cannot write the output: no space left on device\n"
            assert result.returncode == 1
            result = finished(*command[:1], "none", stderr=full)
            assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.skipif(os.name != "posix", reason="descriptors as POSIX has them")
@pytest.mark.parametrize("descriptors", [[1], [2], [0, 1, 2]])
def test_a_stream_that_the_shell_has_closed_is_no_error(trained, descriptors):
    def close():
        for descriptor in descriptors:
            os.close(descriptor)

    for command in (["info"], ["generate", trained, "--tokens", "3"]):
        result = finished(*command, preexec_fn=close, stdin=subprocess.DEVNULL)
        assert (result.returncode, result.stderr) == (0, "")
        assert bool(result.stdout) == (1 not in descriptors)


def test_doctor_in_words_and_as_json():
    import json

    words = run("doctor")
    assert words.exit_code == 0
    assert "numpy" in words.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["backends"]["numpy"] == "works"
    assert {"library", "kernels", "threads"} <= facts["BLAS"].keys()
