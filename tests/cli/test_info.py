import json

import pytest
from commandline import run

from tinyformer.models import PRESETS


def test_without_an_argument_all_presets_are_listed_with_their_exact_parameters():
    result = run("info")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in PRESETS)
    assert "174,604,259,328" in result.stdout
    rows = json.loads(run("info", "--json").stdout)
    assert list(rows) == list(PRESETS)
    assert rows["gpt2"]["parameters"] == 124_439_808


def test_a_preset_by_part():
    result = run("info", "gpt2")
    assert result.exit_code == 0
    for shown in ("38,597,376", "124,439,808", "activations", "key/value cache", "context of 1024 tokens"):
        assert shown in result.stdout
    facts = json.loads(run("info", "gpt2", "--json").stdout)
    assert facts["parameters"]["total"] == 124_439_808
    assert facts["forward_flops"]["total"] == 291_648_307_200
    assert facts["training_bytes"]["weights"] == 4 * 124_439_808
    assert facts["configuration"]["layers"] == 12


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
    ],
)
def test_bad_input(args, message):
    result = run("info", *args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_directory_that_is_no_run(tmp_path):
    result = run("info", tmp_path)
    assert result.exit_code == 2
    assert "is not a run directory" in result.stderr
