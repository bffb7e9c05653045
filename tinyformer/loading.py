"""Getting a trained model back: one of our own runs, or one that others have published.

model = tinyformer.load("runs/data-decoder")
logits = model(ids).numpy()
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path

from . import interop, models, nn
from .tasks import TaskModel
from .training import checkpoint, choices, data, finetuning, rundir


def _warn(depth: int, message: str) -> None:
    warnings.warn(message, stacklevel=depth)  # the line that called `load`


def load(
    path: str | Path, *, backend: str = "auto", on_damage: Callable[[str], None] | None = None
) -> models.Model | TaskModel:
    """The model of a run, with the weights of its newest good checkpoint; or of a Hugging Face directory.

    A run that was fine-tuned gives its best weights, and where its task has a head, that on the model: a `TaskModel`.

    Args:
        path: a directory that `tinyformer train` wrote, or one of the checkpoints in it; or one with the config.json
            and model.safetensors of a GPT-2, BERT, RoFormer, T5, LLaMA or Arcee.
        backend: where it shall live; a model trained on one backend runs on every other.
        on_damage: told, in a sentence, about each newer checkpoint that is damaged and had to be passed over, and
            about what a published model lacks or has too much. By default they are warnings.

    Returns:
        The model, in the precision that its weights have. Called on integer ids `b t`, it gives logits `b t v`; an
        encoder-decoder is called on those of the source and of the target.

    Raises:
        TinyformerError: there is no model at that path, no checkpoint of it is in order, or the weights do not fit.
    """
    if interop.is_directory(Path(path)):
        return interop.read_model(path, backend=backend, warn=on_damage or functools.partial(_warn, 4))
    on_damage = on_damage or functools.partial(_warn, 5)
    config = rundir.open_run(path).config()
    weights = checkpoint.load_weights(path, on_damage=on_damage)[0]
    shape, backend = data.model_config(config), choices.choose_backend(backend)
    init = nn.Initializer(backend, config.dtype, None)
    model = models.make(shape, init)
    if config.task is not None:
        model = finetuning.open_task(rundir.open_run(path), config).model(model, init)
    checkpoint.check_names(model.parameters(), weights, Path(path))
    model.assign(weights)
    return model
