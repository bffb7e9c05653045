"""What fine-tuning chooses where pretraining would choose otherwise. Nothing heavy is imported here.

Published recipes: BERT took batches of 16 or 32, 2 to 4 epochs, rates of 2e-5 to 5e-5 at width 768, a tenth of the
steps to warm up and a line down to 0 (Devlin 2019, appendix A.3); GPT-1 6.25e-5, 3 epochs, batches of 32 and the same
line (Radford 2018, §4.1); T5 a constant 1e-3, with an optimiser whose steps are in proportion to the weights (Raffel
2020, §3.1.2). Smaller models take larger rates, in pretraining as here.

Read before: `config.py`. Read next: `finetuning.py`.
"""

from __future__ import annotations

from typing import Any

from .config import RunConfig
from .rundir import open_run

RATE, WIDTH = 1e-3, 128  # the peak of models that are no wider
DEFAULTS: dict[str, Any] = {
    "batch_size": 16,
    "weight_decay": 0.01,
    "schedule": "linear",
    "minimum_ratio": 0.0,
    "epochs": 3,
    "sample_every": 0,
}


def settings(task: str, run: str, file: str, **given: Any) -> RunConfig:
    """The settings of a fine-tuning, with its defaults.

    Args:
        task: one of `config.TASKS`.
        run: the directory of the pretrained model.
        file: of the examples.
        given: further fields of `RunConfig`; what is None is chosen.

    Raises:
        UsageError: there is no such run, or a value is none that its field can have.
    """
    given = {name: value for name, value in given.items() if value is not None}
    mode = open_run(run).config().mode
    chosen = DEFAULTS | ({"schedule": "constant"} if mode == "encoder-decoder" else {})
    return RunConfig(task=task, init_from=run, files=(file,), **(chosen | given))


def default_rate(shape: Any, *, frozen: bool = False) -> float:
    """A peak learning rate for a model of that shape.

    It is 1e-3 for small models, and passes near BERT's 5e-5 and GPT-1's 6e-5 at their width. Measured on an encoder of
    width 128 that found names in 400 sentences after 300 (`tests/tasks/names.py`): an F1 of 49.2 % at 3e-4, 52.1 % at
    5e-4, 54.4 % at 1e-3 and 52.0 % at 2e-3. An encoder-decoder's falls more slowly, to T5's sizes; one of width 64 that
    learned to write dates did better with a constant 1e-3 (44.6 % ROUGE-L) than along a line (33.0 %).

    Args:
        shape: a `ModelConfig`.
        frozen: whether the head alone is trained, which takes a larger one.
    """
    power = 1.0 if shape.mode == "encoder-decoder" else 1.5
    rate = RATE * min(1.0, WIDTH / shape.width) ** power
    return float(f"{rate * (3 if frozen else 1):.1g}")
