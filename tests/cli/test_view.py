import contextlib
import errno
import io
import itertools
import json
import os
import pty
import re
from types import SimpleNamespace

import pytest
from commandline import COMMAND, QUICK, files_under, finished
from made_runs import made_run

from tinyformer.cli.figures import counted, duration, printable, quantity
from tinyformer.cli.view import describe, progress_line, view

TRAIN = {
    "event": "train",
    "step": 40,
    "steps": 2000,
    "loss": 2.34567,
    "bits_per_byte": 3.384,
    "learning_rate": 1e-3,
    "gradient_norm": 0.5,
    "tokens_per_second": 12345.6,
    "seconds_left": 272.4,
}
VALIDATION = {"event": "validation", "step": 40, "loss": 1.5, "bits_per_byte": 2.164, "loss_per_byte": 1.5}


def test_a_training_step_in_words():
    assert describe(TRAIN) == "step   40/2000  loss 2.3457  3.384 bits/byte  12,346 tokens/s  4:32 left"
    assert "loss nan" in describe(TRAIN | {"loss": float("nan")})
    assert describe({"event": "something new"}) == ""


VALIDATING = {"event": "validating", "step": 42, "done": 1024, "total": 5000}


START = {
    "event": "start", "run": "runs/r", "step": 0, "steps": 9, "parameters": 1234, "objective": "seq2seq",
    "model": {"mode": "encoder-decoder", "layers": 2, "decoder_layers": 1, "width": 8, "heads": 1, "context": 16,
              "vocabulary": 40},
    "tokenizer": "chars", "train_tokens": 5000, "validation_tokens": 500, "tokens_per_step": 90,
    "lengths": {"source": 9, "target": 6, "scored": 6},
    "ln_v": 3.68888, "unigram_entropy": 3.2, "unigram_bits_per_byte": None, "unigram_accuracy": 0.0914,
}  # fmt: skip


def test_the_start_in_words_says_what_the_figures_are_compared_with():
    assert describe(START).splitlines() == [
        "training runs/r: encoder-decoder (seq2seq), 2 + 1 layers, width 8, 1 head, context 16, 1,234 parameters",
        "text: 5,000 tokens to train on, 500 to validate on (chars, 40 kinds); 90 tokens a step (rows of 9 + 6)",
        "losses to compare with: 3.6889 by guessing (ln v), 3.2000 by how common each target is (unigram entropy); "
        "accuracy 9.1 % by the commonest one",
    ]
    smoothed = describe(START | {"label_smoothing": 0.1}).splitlines()
    assert smoothed[3:] == ["in training, the loss includes label smoothing of 0.1, and in validation it does not"]
    encoder = START | {"objective": "next-sentence", "lengths": {"source": 16, "target": 0, "scored": 2}}
    encoder["model"] = START["model"] | {"mode": "encoder"}
    lines = describe(encoder).splitlines()
    assert "encoder (next-sentence), 2 layers, width 8" in lines[0]
    assert lines[1].endswith("90 tokens a step")
    assert lines[3] == "in training, the loss of telling pairs apart is added: 0.6931 by guessing (ln 2)"


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ({"accuracy": 0.345, "unigram_accuracy": 0.091}, "accuracy 34.5 % (unigram 9.1 %)"),
        ({"accuracy": 0.345, "exact_match": 0.5}, "accuracy 34.5 %  exact match 50.0 %"),
        (
            {"accuracy": 0.3, "next_sentence_accuracy": 0.71, "next_sentence_chance": 0.52},
            "accuracy 30.0 %  next sentence 71.0 % (the commoner answer 52.0 %)",
        ),
    ],
)
def test_what_a_validation_shows_beside_its_loss(figures, shown):
    event = {"event": "validation", "step": 40, "loss": 3.21, "bits_per_byte": None, "loss_per_byte": None} | figures
    assert describe(event) == f"step 40  validation  loss 3.2100  {shown}"
    compared = describe(event | {"unigram_loss": 5.6})
    assert compared == f"step 40  validation  loss 3.2100 (unigram 5.6000)  {shown}"
    end = {"event": "end", "run": "r", "step": 40, "seconds": 3, "validation_loss": 3.21, "validation": figures}
    done = describe(end | {"next": "x"}).splitlines()[0]
    assert done == f"done: step 40, validation loss 3.2100 nats per token, {', '.join(shown.split('  '))}, in 0:03"


def test_the_end_tells_the_speed_of_a_run_that_was_long_enough():
    end = {"event": "end", "run": "r", "step": 40, "seconds": 3, "validation_loss": 3.21, "validation": {}, "next": "x"}
    assert len(describe(end | {"flops_per_second": None, "peak_flops_per_second": None}).splitlines()) == 2
    speed = describe(end | {"flops_per_second": 128.4e9, "peak_flops_per_second": 200e9}).splitlines()[1]
    assert speed == "steps did 128 GFLOP/s of matrix products, 64 % of the 200 GFLOP/s that as many threads reach"
    speed = describe(end | {"flops_per_second": 128.4e9, "peak_flops_per_second": None}).splitlines()[1]
    assert speed == "steps did 128 GFLOP/s of matrix products"  # by a GPU


def test_a_sample_says_what_its_marks_mean():
    event = {"event": "sample", "step": 3, "text": "a [b/c]", "legend": "guess / truth"}
    assert describe(event) == "sample at step 3 (guess / truth):\n  | a [b/c]"


def test_an_answer_is_a_line_however_many_it_has():
    answers = [{"source": "a", "answer": "b\n" * 300, "target": "c\td\x1b"}]
    lines = describe({"event": "sample", "step": 3, "answers": answers}).splitlines()
    assert lines[1:] == ["  | source: a", "  | answer: " + "b\\n" * 65 + "b\\...", "  | target: c\\td\\x1b"]


@pytest.mark.parametrize("log_format", ["plain", "auto"])
def test_plain_reports_go_to_stderr_one_line_each(log_format, capsys):
    with view(log_format) as report:
        report({"event": "prepare", "done": 5, "total": 10, "what": "encoding the text"})
        report({"event": "prepare", "done": 10, "total": 10, "what": "encoding the text"})
        report(TRAIN)
        report(VALIDATION)
        report({"event": "warning", "message": "slow"})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "encoding the text: 10 B of 10 B",
        describe(TRAIN),
        "step 40  validation  loss 1.5000  1.5000 nats/byte  2.164 bits/byte",
        "warning: slow",
    ]
    assert "\x1b" not in err


def test_json_reports_are_strict_lines_on_stdout(capsys):
    with view("json") as report:
        report(TRAIN)
        report({"event": "train", "loss": float("nan"), "facts": {"inner": float("inf")}})
    out, err = capsys.readouterr()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert lines == [TRAIN, {"event": "train", "loss": None, "facts": {"inner": None}}]
    assert err == ""


def test_the_rich_view_ends_with_what_was_reported(capsys):
    with view("rich") as report:
        report({"event": "prepare", "done": 5, "total": 10, "what": "encoding the text"})
        report(TRAIN)
        report(VALIDATION)
        report({"event": "sample", "step": 40, "text": "[bold]as it is[/bold]"})
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 40  validation  loss 1.5000" in err
    assert "[bold]as it is[/bold]" in err


def on_a_terminal(command, **environment):
    """What a command shows on a terminal of 80 columns, and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, os.environ | {"COLUMNS": "80", "TERM": "xterm-256color"} | environment)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux tells the end
        while part := os.read(terminal, 1 << 16):
            shown += part
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_no_color(folder):
    """https://no-color.org: a colour is an escape sequence that ends in m, with a number from 30."""
    command = [*COMMAND, "train", "data.txt", *QUICK]
    colour = r"\x1b\[[0-9;]*(3[0-9]|9[0-7])[0-9;]*m"
    for no_color, expected in (("", True), ("1", False)):
        shown, code = on_a_terminal(command, NO_COLOR=no_color)
        assert code == 0
        assert "validation" in shown
        assert bool(re.search(colour, shown)) == expected


def test_the_live_line_is_gone_after_an_interrupt(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.suppress(KeyboardInterrupt), view("rich") as report:
        report(TRAIN)
        raise KeyboardInterrupt
    *shown, last = capsys.readouterr().err.split("\x1b[2K")
    assert "step   40/2000" in shown[-1]
    assert last == "\x1b[?25h\r"


def test_lines_are_not_broken_so_that_they_can_be_copied(capsys):
    end = {
        "event": "end",
        "run": "r",
        "step": 4,
        "seconds": 3,
        "validation": {"bits_per_byte": 1},
        "validation_loss": 1.0,
    }
    with view("rich") as report:
        report(TRAIN)
        report(end | {"next": "tinyformer generate " + "long " * 40})
        report({"event": "sample", "step": 40, "text": "\n" + "word " * 40 + "\n\nend"})
    err = capsys.readouterr().err
    assert "next: tinyformer generate " + "long " * 40 + "\n" in err
    *_, sample = err.partition("sample at step 40:\n")
    lines = sample.rstrip("\n").split("\n")
    assert all(line.startswith("  | ") and len(line) <= 80 for line in lines)
    assert "".join(line[4:] for line in lines) == "word " * 40 + "end"


def test_the_live_line_is_there_from_the_start_and_moves_with_every_step(monkeypatch):
    shown, clock = [], itertools.count()
    monkeypatch.setattr("rich.progress.Progress.refresh", lambda progress: shown.append(progress.tasks[0].description))
    monkeypatch.setattr("tinyformer.cli.view.describe", lambda event: describe(event) if event == VALIDATING else "")
    monkeypatch.setattr("tinyformer.cli.view.time", SimpleNamespace(monotonic=lambda: next(clock) / 2))
    with view("rich") as report:
        report({"event": "start", "step": 0, "steps": 2000})
        report(TRAIN)
        for step in (41, 42):
            report({"event": "step", "step": step, "steps": 2000, "seconds_left": 60})
        report(VALIDATING)
        report({"event": "step", "step": 43, "steps": 2000, "seconds_left": 60})
    assert shown[1:7] == [
        "step    0/2000  loss -",
        "step   40/2000  loss 2.3457  3.384 bits/byte  12,346 tokens/s  4:32 left",
        "step   41/2000  loss 2.3457  3.384 bits/byte  12,346 tokens/s  1:00 left",
        "step   42/2000  loss 2.3457  3.384 bits/byte  12,346 tokens/s  1:00 left",
        "step 42  validating: 1,024 of 5,000 rows",
        "step   43/2000  loss 2.3457  3.384 bits/byte  12,346 tokens/s  1:00 left",
    ]


@pytest.mark.parametrize("kind", ["step", "validating"])
def test_the_live_line_is_drawn_ten_times_a_second_at_most(kind, monkeypatch):
    shown, seconds = [], 0.0
    monkeypatch.setattr("rich.progress.Progress.refresh", lambda progress: shown.append(seconds))
    monkeypatch.setattr("tinyformer.cli.view.time", SimpleNamespace(monotonic=lambda: seconds))
    with view("rich") as report:
        report(TRAIN)
        shown.clear()
        for _ in range(32):
            seconds += 1 / 32
            report(VALIDATING | {"event": kind, "steps": 2000})
        assert shown == [n / 32 for n in range(4, 33, 4)]


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_only_the_live_line_shows_every_step(log_format, capsys):
    with view(log_format) as report:
        report({"event": "step", "step": 41, "steps": 2000, "seconds_left": 60})
        report(VALIDATING)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("log_format", ["plain", "json", "rich"])
def test_output_that_cannot_be_written_does_not_stop_the_training(monkeypatch, log_format, error):
    attempts = []

    class Gone(io.StringIO):
        def write(self, text):
            if text:  # click writes none, to see what kind of stream it is
                attempts.append(text)
            raise error

    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", Gone())
    with view(log_format) as report:
        report(TRAIN)
        report(VALIDATION)
        report(VALIDATION)
    assert len(attempts) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@pytest.mark.parametrize(
    ("stream", "log_format"), [("stderr", "plain"), ("stderr", "rich"), ("stdout", "json"), ("stderr", "json")]
)
def test_a_full_disk_under_the_log_does_not_stop_the_training(folder, stream, log_format):
    with open("/dev/full", "w") as full:
        result = finished("train", "data.txt", *QUICK, "--log-format", log_format, **{stream: full})
    assert (result.returncode, result.stderr or "") == (0, "")
    assert any("step-000004" in str(path) for path in files_under(folder / "runs"))


def test_a_sample_cannot_control_the_terminal():
    shown = describe({"event": "sample", "step": 3, "text": "a\x1b[2Jb\r\n\tc\x9bé\u00a0"})
    assert shown == "sample at step 3:\n  | a\ufffd[2Jb\ufffd\n  | \tc\ufffdé\u00a0"
    assert printable("line\n") == "line\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_600, "1.00 MB"),
        (1_234_000, "1.23 MB"),
        (498e6, "498 MB"),
        (12.34e9, "12.3 GB"),
        (5e23, "500000 EB"),
    ],
)
def test_quantities(count, shown):
    assert quantity(count, "B") == shown


def test_one_layer_and_two_layers():
    assert [counted(n, "layer") for n in (1, 2)] == ["1 layer", "2 layers"]


def test_durations():
    assert [duration(s) for s in (0, 59.6, 61, 3600, 36061)] == ["0:00", "1:00", "1:01", "1:00:00", "10:01:01"]


def test_progress_counts_what_it_is_told_to():
    event = {"event": "prepare", "done": 1200, "total": 3000, "what": "answering"}
    assert describe(event | {"unit": "prompts"}) == "answering: 1,200 of 3,000 prompts"
    assert describe(event) == "answering: 1.20 kB of 3.00 kB"


def test_evaluate_shows_how_many_examples_are_answered(tmp_path):
    path = made_run(tmp_path / "run", "classify", labels=("no", "yes"), batch_size=16)
    (tmp_path / "lines.tsv").write_text("a\tno\nb\tyes\n" * 10)
    shown, code = on_a_terminal([*COMMAND, "evaluate", str(path), str(tmp_path / "lines.tsv")])
    assert code == 0
    assert "answering: 16 of 20 rows" in shown
    assert shown.rstrip().endswith("measured on 20 examples")


def test_a_progress_line_says_nothing_in_a_pipe(capsys):
    with progress_line() as progress:
        progress(1, 2, "scoring")
    assert capsys.readouterr() == ("", "")
