"""What is trained in a benchmark: twelve models, each with one batch, and the arithmetic that a step needs.

The four sizes are those of small GPTs that people train on two cores. Each comes as a decoder with GPT-2's
architecture, an encoder with BERT's and an encoder-decoder with T5's. Weights and batch are written to files, so that
every contender starts from the same numbers, whatever library it uses.

Read next: `contender.py`, `training.py`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from tinyformer.analysis.counts import Lengths, needed_flops
from tinyformer.models import ModelConfig, build, learning_rate_factors, resolve
from tinyformer.objectives import Batch, CausalLM, MaskedLM, Objective, SpanCorruption

CLIP, LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON = 1.0, 1e-4, 0.1, (0.9, 0.99), 1e-8
WEIGHTS, BATCH, CONFIG = "weights.safetensors", "batch.safetensors", "config.json"
MARKS = 40  # sentinels: enough for the spans of every size here, and left over by the smallest vocabulary


class Size(NamedTuple):
    """Vocabulary `v`, layers (in each stack), heads `h`, width `d`, context `t` and rows of a batch `b`."""

    vocabulary: int
    layers: int
    heads: int
    width: int
    context: int
    batch: int


SIZES = {
    "128": Size(65, 4, 4, 128, 64, 12),
    "256": Size(65, 4, 4, 256, 128, 16),
    "384": Size(256, 6, 6, 384, 256, 16),
    "512": Size(8192, 4, 8, 512, 256, 8),
}
MODES = ("decoder", "encoder", "encoder-decoder")
TRAINING = {f"{mode}/{name}": (mode, size) for name, size in SIZES.items() for mode in MODES}


def model_config(mode: str, size: Size) -> ModelConfig:
    """The architecture of GPT-2, BERT or T5 at this size, without dropout."""
    fields = size._asdict()
    del fields["batch"]
    if mode == "decoder":
        return ModelConfig(**fields, hidden=4 * size.width)
    if mode == "encoder":
        fields["positions"] = "learned"
    return resolve(mode=mode, dropout=0.0, **fields)


def make_objective(mode: str, vocabulary: int) -> Objective:
    """The objective of GPT-2, BERT or T5; special tokens are the first ids, and sentinels the last."""
    if mode == "decoder":
        return CausalLM()
    if mode == "encoder":
        return MaskedLM(vocabulary=vocabulary, pad=0, cls=1, sep=2, mask=3)
    return SpanCorruption(sentinels=[*reversed(range(vocabulary - MARKS, vocabulary))], end=1, pad=0)


def make_batch(mode: str, size: Size, *, seed: int = 0) -> Batch:
    """A batch of drawn tokens: no row is padded, and no row holds two documents."""
    rng, objective = np.random.default_rng(seed), make_objective(mode, size.vocabulary)
    low, high = {"decoder": (0, 0), "encoder": (4, 0), "encoder-decoder": (2, MARKS)}[mode]
    shape = size.batch, objective.row_tokens(size.context)
    rows = list(rng.integers(low, size.vocabulary - high, shape))
    return objective.corrupt(rows, [np.random.default_rng([seed, row]) for row in range(size.batch)])


def model_flops(config: ModelConfig, batch: Batch) -> int:
    """FLOPs of the matrix products that a training step on a batch cannot do without, forward and backward.

    Attention included, but of a causal one only the scores at or below the diagonal, about half; logits only where
    there is a target. What a program computes beyond that does not count as work done.
    """
    read, scored = batch.inputs.shape[1], round(batch.tokens / len(batch))
    if config.mode == "decoder":
        lengths = Lengths(0, read, scored)
    else:
        written = 0 if batch.decoder_inputs is None else batch.decoder_inputs.shape[1]
        lengths = Lengths(read, written, scored)
    return needed_flops(config, len(batch), lengths)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its batch, as every contender reads them.

    Attributes:
        config: of the model.
        weights: by our names, float32.
        batch: of each step.
        rates: factors on the learning rate of some weights, by name.
    """

    config: ModelConfig
    weights: dict[str, np.ndarray]
    batch: Batch
    rates: dict[str, float]


def write_case(folder: Path, mode: str, size: Size, *, seed: int = 0) -> Case:
    """Make a case and write its files.

    Norms and biases, which begin at 1 and 0, get a little noise, or a contender that left one out would agree.
    """
    config, rng = model_config(mode, size), np.random.default_rng([seed, 1])
    weights = {name: parameter.numpy() for name, parameter in build(config, seed=seed).parameters().items()}
    for name, array in weights.items():
        if array.ndim == 1:
            weights[name] = array + 0.02 * rng.normal(size=array.shape).astype(array.dtype)
    batch = make_batch(mode, size, seed=seed)
    arrays = {name: array for name, array in vars(batch).items() if array is not None}
    save_file(weights, folder / WEIGHTS)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / BATCH)
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")
    return read_case(folder)


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, float]]:
    """The model's shape, and the factors on the learning rate of some weights, by name."""
    config = ModelConfig(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    return config, learning_rate_factors(config)


def read_case(folder: Path) -> Case:
    """What `write_case` wrote."""
    config, rates = read_config(folder)
    return Case(config, load_file(folder / WEIGHTS), Batch(**load_file(folder / BATCH)), rates)
