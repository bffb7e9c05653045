"""Tasks of whole texts with small models, batches of drawn texts, and their loss by plain loops."""

import numpy as np
import pytest
from hypothesis import settings

from tests.objectives.made import make
from tinyformer import nn, no_grad
from tinyformer.tasks import TASKS, Example
from tinyformer.tensor import Tensor
from tinyformer.text import make_tokenizer, special_tokens

few = settings(max_examples=settings.default.max_examples // 4 + 1)
CASES = [(name, mode) for name in ("classify", "pair", "regress") for mode in ("encoder", "decoder")]
each = pytest.mark.parametrize(("name", "mode"), CASES)
LABELS = {"classify": ("a", "b", "c"), "pair": ("a", "b", "c"), "regress": ("2.0", "0.5")}
V = 280


def made(name, mode, dtype="float64", task=None, **choices):
    """A task, and a model with weights so large that its answers differ."""
    body = make(mode, dtype, vocabulary=V, **choices)
    tokenizer = make_tokenizer("bytes", [], special_tokens=special_tokens(mode))
    task = (task or TASKS[name])(tokenizer, body.config, labels=LABELS[name])
    model = task.model(body, nn.Initializer(dtype=dtype))
    rng = np.random.default_rng(3)
    for parameter in model.head.parameters().values():
        parameter.array[...] = rng.standard_normal(parameter.shape)
    return task, model


def drawn(task, seed, count=6):
    """A batch of texts of any length; some of a single token, which a decoder has nothing to say of."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        lengths = rng.integers(1, 30, 2 if task.name == "pair" else 1)
        if number < 2:
            lengths[:] = number + 1
        texts = tuple("".join(map(chr, rng.integers(97, 123, length))) for length in lengths)
        label = float(rng.normal(2)) if task.name == "regress" else "abc"[rng.integers(3)]
        rows += task.rows(Example(texts, label))
    return task.corrupt(rows)


def log_p(scores):
    scores = scores - scores.max()
    return scores - np.log(np.exp(scores).sum())


def plain_loss(task, model, batch, rows=None):
    """Row by row, without padding: the mean of the task's loss and, of a decoder, λ times its mean loss in writing."""
    judged, written = 0.0, []
    for row in rows if rows is not None else range(len(batch)):
        length = batch.inputs.shape[1] if batch.mask is None else int(batch.mask[row].sum())
        ids = batch.inputs[row : row + 1, :length]
        segments = None if batch.segments is None else batch.segments[row : row + 1, :length]
        with no_grad():
            hidden = model.body.hidden(ids, segments=segments).numpy()[0]
            if task.mode == "encoder":
                pooler = model.body.pooler or model.head.pooler
                read = np.tanh(hidden[0] @ pooler.weight.numpy() + pooler.bias.numpy())
                scores = read @ model.head.output.weight.numpy() + model.head.output.bias.numpy()
            else:
                scores = hidden[-1] @ model.head.output.weight.numpy()
            logits = model.body.score(Tensor(hidden)).numpy()
        if task.name == "regress":
            judged += (scores[0] - batch.labels[row]) ** 2
        else:
            judged -= log_p(scores)[batch.labels[row]]
        if length > 1:
            written.append(-np.mean([log_p(logits[i])[ids[0, i + 1]] for i in range(length - 1)]))
    loss = judged / len(batch)
    return loss + 0.5 * sum(written) / max(len(written), 1) * (task.mode == "decoder")
