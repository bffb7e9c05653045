"""`tinyformer train` end to end, and bad input to it."""

import json
import resource
import shlex
import signal
import tomllib

import pytest
from commandline import QUICK, TEXT, TINY, files_under, process, run


def test_training_shows_what_it_does_and_what_to_do_next(folder):
    result = run("train", "data.txt", *QUICK)
    assert result.exit_code == 0
    assert result.stdout == ""
    for shown in ("1 layer,", "(ln v)", "unigram entropy", "bits/byte", "tokens/s", "left", "validation", "parameters"):
        assert shown in result.stderr
    assert "next: tinyformer generate runs/data-decoder --prompt Once --tokens 200\n" in result.stderr
    assert "\x1b" not in result.stderr
    made = {path.name for path in (folder / "runs/data-decoder").iterdir()}
    assert {"config.toml", "tokenizer.json", "log.jsonl", "checkpoints"} <= made


def test_the_command_to_run_next_can_be_pasted_into_a_shell(folder):
    (folder / "my text.txt").write_bytes(b"'Twas brillig and the slithy toves did gyre and gimble in the wabe.\n" * 40)
    result = run("train", "my text.txt", *QUICK, "--tokenizer", "chars", "--out", "my run")
    command = shlex.split(result.stderr.splitlines()[-1].removeprefix("next: "))
    assert command == ["tinyformer", "generate", "my run", "--prompt", "'Twas", "--tokens", "200"]
    assert run(*command[1:]).exit_code == 0


def test_a_second_run_takes_the_next_free_name(folder):
    assert run("train", "data.txt", *QUICK).exit_code == 0
    before = files_under(folder / "runs")
    assert run("train", "data.txt", *QUICK).exit_code == 0
    assert (folder / "runs/data-decoder-2/config.toml").exists()
    after = files_under(folder / "runs")
    assert {path: after[path] for path in before} == before


def test_json_events_are_one_object_a_line(folder):
    result = run("train", "data.txt", *QUICK, "--log-format", "json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"prepare", "start", "train", "validation", "saved", "end"} <= {event["event"] for event in events}
    assert events[-1]["step"] == 4
    assert result.stderr == ""


def test_a_dry_run_tells_the_costs_and_leaves_nothing(folder):
    before = files_under(folder)
    result = run("train", "data.txt", *QUICK, "--dry-run")
    assert result.exit_code == 0
    for shown in ("tokens.weight", "256 x 16", "FLOPs", "optimiser moments", "loss"):
        assert shown in result.stderr
    assert files_under(folder) == before


def test_a_dry_run_of_a_model_that_does_not_fit_tells_its_costs_all_the_same(folder, monkeypatch):
    def build(*args, **more):
        raise MemoryError

    monkeypatch.setattr("tinyformer.nn.Initializer.normal", build)
    sizes = ["--width", "12288", "--heads", "96", "--layers", "96", "--context", "16", "--tokenizer", "bytes"]
    result = run("train", "data.txt", *sizes, "--threads", "1", "--dry-run")
    assert result.exit_code == 1
    *shown, error = result.stderr.splitlines()
    assert "  stack.blocks.95.attention.query.weight   12288 x 12288" in shown
    assert any("memory in all" in line and " TB" in line for line in shown)
    assert error.startswith("Error: this run needs at least 3,492.7 GB and the machine has ")


def test_overfitting_one_batch_drives_the_loss_down(folder):
    options = [*TINY, "--steps", "150", "--overfit-one-batch", "--learning-rate", "0.01"]
    result = run("train", "data.txt", *options, "--log-format", "json")
    losses = [event["loss"] for event in map(json.loads, result.stdout.splitlines()) if event["event"] == "train"]
    assert losses[-1] < 0.15 * losses[0]


def test_a_config_file_sets_what_no_flag_sets(folder):
    (folder / "my.toml").write_text(
        "[model]\nwidth = 16\nlayers = 2\ncontext = 8\n[training]\nsteps = 3\nbatch_size = 1\nwarmup = 1\n"
    )
    result = run("train", "data.txt", "--config", "my.toml", "--layers", "1", "--steps", "2", "--out", "new")
    assert result.exit_code == 0, result.stderr
    written = tomllib.loads((folder / "new/config.toml").read_text())
    assert (written["model"]["width"], written["model"]["layers"]) == (16, 1)
    assert (written["training"]["steps"], written["training"]["batch_size"]) == (2, 1)
    # The resolved settings of a run start an equal one.
    assert run("train", "--config", "new/config.toml", "--out", "again").exit_code == 0
    assert run("train", "--config", "new", "--dry-run").exit_code == 0
    assert (folder / "again/config.toml").read_bytes() == (folder / "new/config.toml").read_bytes()


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_flag_over_a_runs_own_settings_chooses_again_what_follows_from_it(folder, tokenizer):
    (folder / "other.txt").write_bytes(b"Twice, in another wood, a badger dug.\n" * 60)
    sizes = ["--width", "64", "--layers", "1", "--context", "16", "--batch-size", "1"]
    text = [*QUICK[-4:], "--tokenizer", tokenizer]
    assert run("train", "data.txt", *sizes, *text, "--steps", "20", "--out", "run").exit_code == 0

    def settings(*flags):
        result = run("train", "--config", "run", *flags, "--out", f"of{''.join(flags)}")
        assert result.exit_code == 0, result.stderr
        return tomllib.loads((folder / f"of{''.join(flags)}/config.toml").read_text())

    assert settings("--steps", "2")["training"]["warmup"] == 0
    narrow = settings("--width", "32", "--batch-size", "2", "--steps", "2")
    flags = [*sizes, *text, "--width", "32", "--batch-size", "2", "--steps", "2"]
    assert run("train", "data.txt", *flags, "--out", "fresh").exit_code == 0
    assert narrow == tomllib.loads((folder / "fresh/config.toml").read_text())
    small = settings("--preset", "small", "--layers", "1", "--context", "16", "--steps", "1")
    assert small["training"]["learning_rate"] == 0.001
    assert settings("--width", "32", "--heads", "4", "--steps", "1")["model"]["heads"] == 4
    assert settings("--tokenizer", "chars", "--steps", "1")["model"]["vocabulary"] == len(set(TEXT))
    learned = ["--vocab-size", "260", *(["--tokenizer", "bpe"] if tokenizer == "bytes" else [])]
    assert settings(*learned, "--steps", "1")["model"]["vocabulary"] == 260
    assert run("train", "other.txt", "--config", "run", "--steps", "1", "--out", "other").exit_code == 0


def test_a_preset_given_as_a_flag_beats_the_sizes_of_a_config_file(folder):
    (folder / "my.toml").write_text("[model]\nwidth = 16\nlayers = 1\n[training]\nsteps = 1\n")
    result = run("train", "data.txt", "--config", "my.toml", "--preset", "tiny", "--tokenizer", "bytes", "--dry-run")
    assert "4 layers, width 128" in result.stderr


def test_resuming_goes_on_where_the_run_stopped(copy):
    result = run("train", "--resume", copy, "--steps", "6")
    assert result.exit_code == 0, result.stderr
    assert "from step 4" in result.stderr
    assert "done: step 6" in result.stderr


def test_an_interrupted_run_is_saved_and_says_how_to_go_on(folder):
    with process("train", "data.txt", *TINY, "--steps", "100000", "--log-format", "json") as child:
        for line in child.stdout:
            if json.loads(line)["event"] == "train":
                break
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "tinyformer train --resume runs/data-decoder" in err
    assert "Traceback" not in err
    assert "Error" not in err
    assert list((folder / "runs/data-decoder/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.txt"], "missing.txt"),
        (["."], "directory"),
        (["empty.txt"], "empty"),
        (["short.txt"], "context"),
        ([], "name at least one FILE"),
        (["data.txt", "--tokenizer", "byts"], "bytes"),
        (["data.txt", "--preset", "tinny"], "'tiny'"),
        (["data.txt", "--mode", "decodr"], "'decoder'"),
        (["data.txt", "--backend", "nunpy"], "'numpy'"),
        (["data.txt", "--backend", "cupy"], "cupy"),
        (["data.txt", "--schedule", "liner"], "'linear'"),
        (["data.txt", "--heads", "5", "--width", "16"], "heads"),
        (["data.txt", "--width", "-16"], "width"),
        (["data.txt", "--width", "0"], "width"),
        (["data.txt", "--layers", "0"], "layers"),
        (["data.txt", "--layers", "-1"], "layers"),
        (["data.txt", "--heads", "0"], "heads"),
        (["data.txt", "--context", "0"], "context"),
        (["data.txt", "--dropout", "1"], "dropout"),
        (["data.txt", "--steps", "0"], "--steps"),
        (["data.txt", "--steps", "-3"], "--steps"),
        (["data.txt", "--batch-size", "0"], "--batch-size"),
        (["data.txt", "--grad-accumulation", "0"], "--grad-accumulation"),
        (["data.txt", "--learning-rate", "-1"], "--learning-rate"),
        (["data.txt", "--learning-rate", "nan"], "--learning-rate"),
        (["data.txt", "--clip", "-1"], "--clip"),
        (["data.txt", "--eval-every", "0"], "--eval-every"),
        (["data.txt", "--seed", "-1"], "--seed"),
        (["data.txt", "--threads", "0"], "--threads"),
        (["data.txt", "--vocab-size", "0", "--tokenizer", "bpe"], "--vocab-size"),
        (["data.txt", "--validation", "0"], "--validation"),
        (["data.txt", "--validation", "1.5"], "--validation"),
        (["data.txt", "--validation", "0.001"], "validation"),
        (["data.txt", "--validation", "missing.txt"], "missing.txt"),
        (["data.txt", "--validation", "short.txt"], "validation"),
        (["data.txt", "--vocab-size", "300", "--tokenizer", "bytes"], "--vocab-size"),
        (["data.txt", "--warmup", "20", "--steps", "10"], "--warmup"),
        (["data.txt", "--config", "missing.toml"], "missing.toml"),
        (["data.txt", "--config", "data.txt"], "data.txt"),
        (["data.txt", "--resume", "runs/x"], "leave out FILE"),
        (["--resume", "runs/x", "--out", "y"], "leave out --out"),
        (["--resume", "runs/x", "--dry-run"], "leave out --dry-run"),
        (["--resume", "runs/x"], "runs/x"),
        (["--resume", "."], "not a run directory"),
        (["data.txt", "--out", "data.txt"], "data.txt"),
        (["data.txt", "--out", "."], "not empty"),
    ],
)
def test_bad_input_to_training_is_one_line_and_changes_nothing(folder, args, message):
    sizes = [] if "--resume" in args else ["--steps", "2", "--context", "16", "--tokenizer", "bytes"]
    given = [name for name in args if name.startswith("--")]
    sizes = [part for i in range(0, len(sizes), 2) if sizes[i] not in given for part in sizes[i : i + 2]]
    before = files_under(folder)
    result = run("train", *args, *sizes)
    assert result.exit_code == 2, result.stderr
    *progress, error = result.stderr.splitlines()
    assert all(line.startswith("encoding the text") for line in progress)
    assert error.startswith("Error: ")
    assert message in error
    assert "bug" not in error
    assert files_under(folder) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["latin1.txt", "--tokenizer", "chars"], "latin1.txt is not UTF-8 at byte 1803; use --tokenizer bytes"),
        (["data.txt", "--tokenizer", "./latin1.txt"], "latin1.txt is not a usable tokenizer"),
    ],
)
def test_text_and_tokenizers_that_cannot_be_used(folder, args, message):
    before = files_under(folder)
    result = run("train", *QUICK, *args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_under(folder) == before


def test_text_that_is_not_utf8_is_told_once(folder):
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n" * 400)  # in both parts
    result = run("train", "data.txt", "latin1.txt", *QUICK)
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: latin1.txt is not UTF-8; training on its bytes"]


def test_unknown_settings_in_a_config_file_are_named_with_the_nearest(folder):
    (folder / "my.toml").write_text("[training]\nstesp = 3\n")
    result = run("train", "data.txt", "--config", "my.toml")
    assert result.exit_code == 2
    assert "'stesp'" in result.stderr
    assert "did you mean 'steps'?" in result.stderr
    (folder / "my.toml").write_text("steps = 3\n")
    result = run("train", "data.txt", "--config", "my.toml")
    assert result.exit_code == 2
    assert result.stderr == "Error: my.toml: settings stand in sections; put 'steps' below a line [training]\n"
    (folder / "my.toml").write_text("layers = 3\n")
    result = run("train", "data.txt", "--config", "my.toml")
    assert "put 'layers' below a line [model] or [data] or [task] or [training] or [machine]" in result.stderr


def test_sizes_cannot_change_on_resuming(copy):
    before = files_under(copy)
    result = run("train", "--resume", copy, "--width", "32")
    assert result.exit_code == 2
    assert "--width 16" in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_under(copy) == before


def test_a_text_too_short_for_the_context_names_values_that_work(folder):
    """The validation split has 180 tokens."""
    result = run("train", "data.txt", *QUICK, "--context", "300")
    assert result.exit_code == 2
    remedy = "needs 301; give --context 179 or less, or --validation 0.19\n"
    assert result.stderr.endswith(remedy)
    assert run("train", "data.txt", *QUICK, "--context", "179").exit_code == 0
    assert run("train", "data.txt", *QUICK, "--context", "300", "--validation", "0.19").exit_code == 0
    result = run("train", "data.txt", *QUICK, "--validation", "short.txt")
    assert result.stderr.endswith("needs 17; give a longer --validation file\n")


def test_a_missing_validation_file_is_told_before_the_tokenizer_is_learned(folder):
    result = run("train", "data.txt", "--tokenizer", "bpe", "--validation", "missing.txt")
    assert result.stderr == "Error: no such file: missing.txt; check the name and the folder\n"


@pytest.mark.parametrize("out", ["/proc/none/run", "data.txt/run"])
def test_a_place_that_cannot_be_written_is_one_line(folder, out):
    result = run("train", "data.txt", *QUICK, "--out", out)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "--out" in result.stderr


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(folder):
    """A limit on the size of files stands in for the end of the disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with process("train", "data.txt", *QUICK, preexec_fn=limit) as child:
        _, err = child.communicate(timeout=30)
    assert child.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith("Error: ")
    assert "bug" not in err
    assert not list((folder / "runs").iterdir())
