"""Getting a trained model back.

model = tinyformer.load("runs/data-decoder")
logits = model(ids).numpy()
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from . import models
from .training import checkpoint, data, rundir


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # the line that called `load`


def load(path: str | Path, *, backend: str = "auto", on_damage: Callable[[str], None] = _warn) -> models.Decoder:
    """The model of a run, with the weights of its newest good checkpoint.

    Args:
        path: a directory that `tinyformer train` wrote, or one of the checkpoints in it.
        backend: where it shall live; a model trained on one backend runs on every other.
        on_damage: told, in a sentence, about each newer checkpoint that is damaged and had to be passed over.

    Returns:
        The model, in the precision that it was trained in. Called on integer ids `b t`, it gives logits `b t v`.

    Raises:
        TinyformerError: there is no run at that path, no checkpoint of it is in order, or the weights do not fit.
    """
    config = rundir.open_run(path).config()
    weights = checkpoint.load_weights(path, on_damage=on_damage)[0]
    shape, backend = data.model_config(config), data.choose_backend(backend)
    model = models.build(shape, backend=backend, dtype=config.precision, seed=None)
    checkpoint.check_names(model.parameters(), weights, Path(path))
    model.assign(weights)
    return model
