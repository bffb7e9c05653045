"""Settings: checked with one line that helps, and the same after a way through config.toml."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import models, objectives
from tinyformer.errors import UsageError
from tinyformer.training.config import (
    CHANGEABLE,
    OBJECTIVES,
    STEPS,
    RunConfig,
    for_resume,
    options,
    read_config,
)
from tinyformer.training.toml import format_toml

plain = st.one_of(
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(st.text(), max_size=3),
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_toml_survives_the_standard_librarys_reader(values):
    assert tomllib.loads(format_toml({"section": values})) == {"section": values}


def test_config_survives_a_file(tmp_path):
    config = RunConfig(
        files=("a b.txt", 'quote".txt'),
        model={"layers": 3, "dropout": 0.5},
        epsilon=1e-22,
        validation="v.txt",
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml("# A heading.\n"))
    assert read_config(path) == config
    assert read_config(path).digest == config.digest
    assert config.replace(seed=1).digest != config.digest
    assert config.replace(model={"layers": 4}).digest != config.digest
    assert config.replace(steps=1).digest == config.digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"steps": 10**30}, "--steps must be at most"),
        ({"grad_accumulation": 10**30}, "--grad-accumulation must be at most"),
        ({"batch_size": -4}, "--batch-size must be at least 1, not -4"),
        ({"batch_size": 2.5}, "--batch-size must be a whole number, not 2.5"),
        ({"steps": True}, "--steps must be a whole number, not True"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0, not 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be finite"),
        ({"learning_rate": 10**400}, "--learning-rate must be finite"),
        ({"beta2": 1.0}, "--beta2 must be below 1, not 1.0"),
        ({"minimum_ratio": 1.5}, "--minimum-ratio must be at most 1"),
        ({"validation": 1.0}, "a fraction between 0 and 1"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "float16"}, "--precision must be one of float32, tf32, bfloat16, float64"),
        ({"warmup": 11, "steps": 10}, "--warmup (11) is longer than --steps (10)"),
        (
            {"mode": "encodr"},
            "--mode must be one of decoder, encoder, encoder-decoder, not 'encodr'; did you mean 'enco",
        ),
        ({"objective": "maskd"}, "did you mean 'masked'"),
        ({"masking": "static"}, "--masking must be one of dynamic, fixed, not 'static'"),
        ({"label_smoothing": 1.0}, "--label-smoothing must be below 1, not 1.0"),
        ({"vocab_size": 9, "tokenizer": "chars"}, "--vocab-size has no meaning with --tokenizer chars"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UsageError) as raised:
        RunConfig(**settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_warm_up_may_last_to_the_end():
    assert RunConfig(warmup=10, steps=10).warmup == 10
    assert for_resume(RunConfig(files=("a.txt",), steps=20, warmup=10), {"steps": 10}).warmup == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstep = 5", "unknown setting 'step' in [training]; did you mean 'steps'"),
        ("[trainning]\nsteps = 5", "unknown section [trainning]"),
        ("training = 5", "must be a section"),
        ("[training\n", "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("#" * (1 << 21), "too large"),
        ("\udcff", "not valid TOML"),
        ('[training]\nsteps = "many"', "--steps must be a whole number, not 'many'"),
        ('[data]\nfiles = "d.txt"', "files must be a list of files, such as [\"data.txt\"], not 'd.txt'"),
        ("[data]\nfiles = 5", 'files must be a list of files, such as ["data.txt"], not 5'),
        ("[data]\nfiles = [5]", 'files must be a list of files, such as ["data.txt"], not [5]'),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError) as raised:
        read_config(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        read_config(tmp_path / "none.toml")


def test_a_resumed_run_keeps_its_sizes():
    stored = RunConfig(files=("a.txt",), model={"layers": 4}, batch_size=8)
    assert for_resume(stored, {"steps": 9000, "layers": 4, "files": ["a.txt"]}) == stored.replace(steps=9000)
    with pytest.raises(UsageError, match="keeps its --layers 4; leave --layers 5 out"):
        for_resume(stored, {"layers": 5})
    with pytest.raises(UsageError, match="keeps its --batch-size 8"):
        for_resume(stored, {"batch_size": 16})


def test_a_resumed_run_that_becomes_shorter_than_its_warm_up_says_what_to_add():
    stored = RunConfig(files=("a.txt",), steps=2000, warmup=100)
    assert for_resume(stored, {"steps": 100}).warmup == 100
    with pytest.raises(UsageError, match=r"rises over 100 steps, and --steps is 60; add --warmup .* --warmup 3$"):
        for_resume(stored, {"steps": 60})
    changed = for_resume(stored, {"steps": 60, "warmup": 3})
    assert (changed.steps, changed.warmup) == (60, 3)


def test_the_same_file_by_another_path_is_no_change(tmp_path, monkeypatch):
    stored = RunConfig(
        files=(tmp_path / "a.txt",), validation=str(tmp_path / "v.txt"), tokenizer=str(tmp_path / "tk.json")
    )
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    same = {"files": ("../a.txt",), "validation": "../v.txt", "tokenizer": "../tk.json"}
    assert for_resume(stored, same) == stored
    for name, other in {"files": ("a.txt",), "validation": 0.1, "tokenizer": "bpe"}.items():
        with pytest.raises(UsageError, match=f"keeps its (--)?{name} {tmp_path}"):
            for_resume(stored, {name: other})


def test_a_switch_is_left_out_by_its_name():
    with pytest.raises(UsageError, match="leave --overfit-one-batch out, or"):
        for_resume(RunConfig(), {"overfit_one_batch": True})


def test_fields_are_documented():
    documented = RunConfig.__doc__
    for field in dataclasses.fields(RunConfig):
        assert f"\n        {field.name}: " in documented


def test_importing_the_settings_loads_no_array_library():
    command = "import sys, tinyformer.training.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout
    assert not {"numpy", "rich", "click"} & set(loaded.split())


def test_modes_and_objectives_are_those_that_there_are():
    """The settings list them by name, so that reading settings loads no arrays."""
    there = {name: objective.mode for name, objective in objectives.OBJECTIVES.items()}
    assert {name: mode for mode, names in OBJECTIVES.items() for name in names} == there
    assert list(OBJECTIVES) == list(models.config.CHOICES["mode"])
    assert list(STEPS) == list(OBJECTIVES)


def test_a_setting_that_is_not_given_is_no_part_of_the_fingerprint():
    """Else a new kind of setting would make every run of before look as if it had been changed by hand."""
    config = RunConfig(files=("a.txt",))
    assert config.replace(objective="masked").digest != config.digest
    left_out = [
        name for name in ("mode", "objective", "masking", "init_from", "preset") if getattr(config, name) is None
    ]
    assert len(left_out) == 5
    known = {name: value for name, value in options(config).items() if value is not None and name not in CHANGEABLE}
    text = json.dumps([known, {}], sort_keys=True)
    assert config.digest == hashlib.sha256(text.encode()).hexdigest()[:16]
