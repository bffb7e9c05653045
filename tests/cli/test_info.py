import json
import tracemalloc

import numpy as np
import pytest
from commandline import finished, output, run
from made_runs import made_run

from tinyformer.analysis import counts
from tinyformer.models import PRESETS, ModelConfig, resolve
from tinyformer.training import checkpoint
from tinyformer.training.config import RunConfig


def tables():
    result = run("info")
    assert result.exit_code == 0
    return result.stdout


def test_without_an_argument_every_preset_is_listed_with_its_exact_parameters():
    lines = [line.split() for line in tables().splitlines()]
    for name, row in PRESETS.items():
        rows = [line for line in lines if line[:1] == [name]]
        assert [line[1] for line in rows] == ([row["mode"]] if "mode" in row else list(MODES))
    assert ["tiny", "encoder-decoder", "2+2", "128", "4", "of", "32", "512", "952,064", "128", "256"] in lines


@pytest.mark.parametrize(
    "row",
    [
        "gpt1        decoder             12   768   12 of 64   3072     116,534,784    100M      -       -       -",
        "bert-large  encoder             24  1024   16 of 64   4096     335,141,888    355M   250B 5.03e20 5.33e20",
        "t5-11b      encoder-decoder  24+24  1024 128 of 128  65536  11,307,321,344     11B  1000B 3.39e22 3.30e22",
        "gpt3-175b   decoder             96 12288  96 of 128  49152 174,604,259,328  174.6B   300B 3.14e23 3.14e23",
    ],
)
def test_the_scale_table_has_sizes_and_training(row):
    (line,) = (line for line in tables().splitlines() if line.startswith(row))
    assert line.split()[-1] in ("-", "5.82", "393", "3,638")


def test_the_misprints_are_named_below_the_table():
    words = " ".join(tables().split())
    for note in ("RoBERTa-Large's count (355,359,744)", "a width of 5140", "24 heads of 128", "do not say how many"):
        assert note in words


def test_the_tables_fit_a_terminal_and_are_plain_text_in_a_pipe():
    text = finished("info").stdout
    assert text == tables()
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_tables_as_json():
    facts = json.loads(run("info", "--json").stdout)
    by_name = {row["preset"]: row for row in facts["published"]}
    assert by_name["t5-base"] == {
        "preset": "t5-base",
        "mode": "encoder-decoder",
        "parameters": 222_903_552,
        "tokens": 10**12,
        "flops": 3 * 222_903_552 * 1e12,
        "petaflops_days": pytest.approx(7.74, abs=0.005),
        "printed_parameters": 220_000_000,
        "printed_flops": 6.6e20,
    }
    assert by_name["gpt1"]["tokens"] is by_name["gpt1"]["flops"] is None
    assert "355M" in facts["notes"]["bert-large"]
    presets = {(row["preset"], row["mode"]): row for row in facts["presets"]}
    assert {name for name, _ in presets} == set(PRESETS)
    assert presets["gpt2", "decoder"]["parameters"] == 124_439_808
    assert presets["bert-base", "encoder"]["parameters"] == 109_482_240
    assert presets["tiny", "encoder"]["layers"] == 4


def test_a_preset_by_part():
    result = run("info", "gpt2")
    assert result.exit_code == 0
    for shown in ("38,597,376", "124,439,808", "activations", "key/value cache", "a row of 1024 tokens\n"):
        assert shown in result.stdout
    assert result.stdout.startswith("gpt2: decoder, 12 layers, width 768, 12 heads of 64, hidden 3072, context 1024")
    facts = json.loads(run("info", "gpt2", "--json").stdout)
    assert facts["parameters"]["total"] == 124_439_808
    assert facts["forward_flops"]["total"] == 291_648_307_200
    assert facts["training_bytes"]["weights"] == 4 * 124_439_808
    assert facts["configuration"]["layers"] == 12


def test_an_encoder_by_part():
    shown = run("info", "bert-base").stdout
    assert "reading a row of 512 tokens, of which 77 are scored" in shown
    assert "writing" not in shown
    facts = json.loads(run("info", "bert-base", "--json").stdout)
    assert facts["parameters"]["total"] == 110_106_428
    assert facts["parameters"]["without pretraining heads"] == 109_482_240
    assert facts["parameters"]["segment embedding"] == 2 * 768


def test_an_encoder_decoder_says_which_lengths_its_flops_are_of():
    result = run("info", "t5-11b")
    assert "24+24 layers, width 1024, 128 heads of 128" in result.stdout
    assert "reading a row of 512 tokens with a target of 114 tokens" in result.stdout
    facts = json.loads(run("info", "t5-11b", "--json").stdout)
    assert facts["row"] == {"source": 512, "target": 114, "scored": 114}
    assert facts["parameters"]["cross-attention"] == 24 * 4 * 1024 * 128 * 128
    assert facts["generation_bytes"]["cross-attention cache"] == 24 * 2 * 512 * 128 * 128 * 4


def test_a_mode_for_a_size_of_ours():
    facts = json.loads(run("info", "small", "--mode", "encoder", "--json").stdout)
    shape = resolve("small", mode="encoder", vocabulary=256)
    assert (facts["configuration"]["mode"], facts["configuration"]["segments"]) == ("encoder", shape.segments)


@pytest.mark.parametrize("name", ["bert-large", "t5-11b", "gpt3-175b"])
def test_the_largest_presets_take_no_memory(name):
    run("info", name)  # which imports what it needs
    tracemalloc.start()
    assert run("info", name).exit_code == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


MODES = {
    "decoder": ("causal", {"source": 0, "target": 32, "scored": 32}),
    "encoder": ("next-sentence", {"source": 32, "target": 0, "scored": 5}),
    "encoder-decoder": ("seq2seq", {"source": 32, "target": 32, "scored": 32}),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_run_of_any_mode(mode, tmp_path):
    objective, row = MODES[mode]
    model = {"vocabulary": 300, "layers": 2, "width": 64, "heads": 2, "context": 32}
    config = RunConfig(mode=mode, objective=objective, precision="float64", model=model)
    (tmp_path / "config.toml").write_text(config.to_toml())
    facts = json.loads(run("info", tmp_path, "--json").stdout)
    assert facts["configuration"]["mode"] == mode
    assert facts["configuration"]["next_sentence"] == (mode == "encoder")
    assert facts["row"] == row
    assert facts["training_bytes"]["weights"] == 8 * facts["parameters"]["total"]
    shape, lengths = ModelConfig(**facts["configuration"]), counts.Lengths(**row)
    assert facts["training_flops"]["total"] == counts.training_flops(shape, 16, lengths)
    step = counts.training_memory(shape, 16, lengths, itemsize=8)
    assert facts["training_bytes"] == step | {"total": sum(step.values())}
    assert run("info", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("task", "labels", "told"),
    [
        ("classify", [f"{i} with a name of many columns" for i in range(30)], "task classify, 30 labels: 0 with"),
        ("regress", ("2.51234", "1.0"), "task regress, mean and deviation: 2.512, 1"),
        ("answer", ("no answer",), "task answer, it may also say: no answer"),
        ("answer", (), "task answer"),
    ],
)
def test_a_run_for_a_task_without_a_best_epoch(tmp_path, task, labels, told):
    path = made_run(tmp_path / "run", task, labels=labels)
    (path / "best" / "step-000001").mkdir(parents=True)
    (path / "best" / "step-000001" / "state.json").write_text("{}")
    lines = output("info", path).decode().split("\n\n")[0].splitlines()[1:]
    assert lines[0].startswith(told)
    assert len(lines) == (1 if task != "classify" else 4)
    assert all(len(line) <= 80 for line in lines)
    assert json.loads(output("info", path, "--json"))["task"] == {"name": task, "labels": list(labels), "best": None}


@pytest.mark.parametrize(("count", "end"), [(9, "label 8"), (10, "label 9"), (11, "label 9, ...")])
def test_of_many_labels_some_are_shown(tmp_path, count, end):
    path = made_run(tmp_path / "run", "classify", labels=[f"label {i}" for i in range(count)])
    told = " ".join(output("info", path).decode().split("\n\n")[0].split("\n", 1)[1].split())
    assert told.startswith(f"task classify, {count} labels: label 0, label 1, ")
    assert told.endswith(f", {end}")


def test_settings_of_a_run_that_somebody_has_changed_are_shown_as_they_are(tmp_path):
    path = made_run(tmp_path / "run", "regress", labels=("2.51234", "1.0"))
    config = (path / "config.toml").read_text()
    (path / "config.toml").write_text(config.replace('"1.0"', '"x"'))
    assert output("info", path).decode().splitlines()[1] == "task regress, mean and deviation: 2.51234, x"


@pytest.mark.parametrize(("epoch", "shown"), [(3.0, "3"), (2.5, "2.5"), (10 / 3, "3.33"), (120.0, "120")])
def test_the_best_epoch_may_be_a_part_of_one(tmp_path, epoch, shown):
    path = made_run(tmp_path / "run", "classify", labels=("no", "yes"))
    (path / "best").mkdir()
    state = {"seed": 0, "tokens_seen": 0, "failures": 0, "config_digest": "", "fingerprint": {}}
    best = {"epoch": epoch, "step": 7, "accuracy": 0.5}
    checkpoint.save(path / "best", 7, {"weight": np.zeros(1)}, {}, state | {"validation": best})
    assert output("info", path).decode().splitlines()[2] == f"best after epoch {shown} (step 7): accuracy 50.0 %"


def test_the_batch_size_scales_a_training_step():
    one, four = (json.loads(run("info", "gpt2", "--json", "--batch-size", n).stdout) for n in ("1", "4"))
    assert four["training_flops"]["total"] == 4 * one["training_flops"]["total"]
    assert four["training_bytes"]["activations"] == 4 * one["training_bytes"]["activations"]
    assert four["training_bytes"]["weights"] == one["training_bytes"]["weights"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gtp2"], "did you mean 'gpt2'?"),
        (["GPT2"], "did you mean 'gpt2'?"),
        (["something-else"], "presets are tiny"),
        (["runs/none"], "no run at runs/none"),
        (["gpt2", "--batch-size", "0"], "0 is not in the range x>=1"),
        (["gpt2", "--mode", "encoder"], "'gpt2' is of mode decoder; for mode encoder there are tiny"),
        (["tiny", "--mode", "encodr"], "did you mean 'encoder'?"),
        (["--mode", "encoder"], "--mode goes with the name of a preset"),
    ],
)
def test_bad_input(args, message):
    result = run("info", *args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_mode_for_a_run(tmp_path):
    result = run("info", tmp_path, "--mode", "encoder")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "a run has its mode" in result.stderr


def test_a_directory_that_is_no_run(tmp_path):
    result = run("info", tmp_path)
    assert result.exit_code == 2
    assert "is not a run directory" in result.stderr
