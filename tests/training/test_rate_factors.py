"""T5's token embedding learns √d times as fast as the rest, also below a head: seen in what one step of a run changes.

AdamW's first step moves a number by its learning rate, whichever its gradient, where that is not 0.
"""

import numpy as np
import pytest
from tiny_runs import Events
from tiny_tasks import SHAPE, settings

from tinyformer.training import checkpoint
from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train

RATE = 1e-4
ONE_STEP = {"steps": 1, "learning_rate": RATE, "warmup": 0, "weight_decay": 0.0, "clip": 0.0, "schedule": "constant"}


def largest_changes(run):
    """By parameter, in learning rates, of those that changed."""
    before, after = (checkpoint.load(run / "checkpoints" / f"step-00000{step}").model for step in (0, 1))
    found = {name: float(np.abs(after[name] - before[name]).max()) / RATE for name in before}
    return {name: change for name, change in found.items() if change}


def check(found, name, factor):
    assert len(found) > 8
    expected = {other: factor if other == name else 1.0 for other in found}
    assert found == pytest.approx(expected, rel=0.05)
    assert name in found


@pytest.mark.parametrize(("scaled", "width"), [(True, 16), (True, 36), (False, 16)])
def test_of_a_model(scaled, width, text, tmp_path):
    shape = SHAPE | {"scaled_head": scaled, "width": width}
    config = RunConfig(mode="encoder-decoder", files=(text,), model=shape, tokenizer="chars", sample_every=0)
    train(config.replace(batch_size=4, **ONE_STEP), Events(), out=tmp_path / "run")
    check(largest_changes(tmp_path / "run"), "tokens.weight", width**0.5 if scaled else 1.0)


@pytest.mark.parametrize("scaled", [True, False])
def test_of_a_body_below_a_head(scaled, text, examples, tmp_path):
    shape = SHAPE | {"scaled_head": scaled}
    config = RunConfig(mode="decoder", files=(text,), model=shape, tokenizer="bytes", sample_every=0)
    train(config.replace(batch_size=4, **ONE_STEP), Events(), out=tmp_path / "first")
    more = {name: value for name, value in ONE_STEP.items() if name != "steps"}
    tuned = settings(tmp_path / "first", examples, epochs=1, **more)
    train(tuned.replace(batch_size=200), Events(), out=tmp_path / "run")
    check(largest_changes(tmp_path / "run"), "body.tokens.weight", 4.0 if scaled else 1.0)
