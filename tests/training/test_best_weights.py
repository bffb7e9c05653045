"""When the weights of an epoch take the place of the best ones, and when they do not."""

import math

import pytest
from tiny_runs import Events
from tiny_tasks import settings

from tinyformer.training.task_corpus import TaskCorpus
from tinyformer.training.trainer import resume, train


@pytest.fixture
def said(monkeypatch):
    """What validations come to, whatever the model says."""
    figures = {"epoch": 1.0, "loss": 0.5, "accuracy": 0.5}
    monkeypatch.setattr(TaskCorpus, "validate", lambda self, model, workers, **more: (dict(figures), {"tokens": 1}))
    return figures


def kept(run):
    return [path.name for path in (run / "best").iterdir()]


def test_the_best_weights_stay_until_others_are_better(origins, examples, said, tmp_path):
    """After a resume, too; and of equally good ones, they are the first."""
    run = tmp_path / "run"
    train(settings(origins["encoder"], examples, epochs=2), Events(), out=run)
    assert kept(run) == ["step-000012"]
    steps = 24
    for change, best in (
        ({"accuracy": 0.4, "loss": 0.1}, 12),
        ({"accuracy": 0.5, "loss": 0.6}, 12),
        ({"accuracy": 0.5, "loss": 0.4}, 60),
        ({"accuracy": 0.9, "loss": math.nan}, 60),
        ({"accuracy": math.nan, "loss": 0.1}, 60),
        ({"accuracy": 0.6, "loss": 9.0}, 96),
    ):
        said.update(change)
        steps += 12
        end = resume(run, Events(), {"steps": steps})
        assert kept(run) == [f"step-{best:06d}"]
        assert end["best"]["step"] == best


def test_figures_that_are_none_are_worse_than_any(origins, examples, said, tmp_path):
    """As a correlation is before a model tells its numbers apart; the lower loss is the better one then."""
    run = tmp_path / "run"
    said["accuracy"] = math.nan
    train(settings(origins["encoder"], examples, epochs=1), Events(), out=run)
    assert kept(run) == ["step-000012"]
    for number, change in enumerate(({"loss": 0.6}, {"loss": 0.4}, {"accuracy": -1.0, "loss": 0.8})):
        said.update(change)
        resume(run, Events(), {"steps": 24 + 12 * number})
        assert kept(run) == [("step-000012", "step-000036", "step-000048")[number]]
