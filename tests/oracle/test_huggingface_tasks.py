"""Heads on bodies read from what transformers saves: its logits, its loss, and its gradient of every parameter.

Drawn settings of BERT and GPT-2, one text or two, with padding. Tolerances as in `test_huggingface_models.py`: logits
and losses within 1e-5 of the largest, gradients within 1e-4 of the largest in the same parameter, or 3e-7 of the
largest in the model, which is rounding.
"""

import numpy as np
import pytest
import torch
import transformers
from huggingface import bert, close, family_of, gpt2, randomised, saved

from tinyformer import interop, nn
from tinyformer.interop import heads
from tinyformer.interop.table import from_theirs, to_theirs
from tinyformer.objectives import Batch
from tinyformer.tasks import TASKS, Row
from tinyformer.text import make_tokenizer, special_tokens

pytestmark = pytest.mark.oracle

SEEDS = range(8)
ROWS = 5


def names_of(model, task):
    return heads.rows(family_of(model.config), model.config, task.name)


def with_head(theirs, task, folder):
    """Our body and head with their weights."""
    body = interop.read_model(saved(theirs, folder), warn=lambda message: None)
    model = task(body.config).model(body, nn.Initializer())
    state, parameters = theirs.state_dict(), model.parameters()
    for row in names_of(model, task(body.config)):
        if row.ours.startswith("head."):
            parameters[row.ours].array[...] = from_theirs(row, state[row.theirs].numpy())
    return model


def compare_gradients(model, task, theirs, loss, their_loss):
    loss.backward()
    their_loss.backward()
    close(np.asarray(loss.numpy())[None], their_loss[None], 1e-5, "loss")
    ours = {name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad for name, p in model.parameters().items()}
    found = to_theirs(names_of(model, task), ours)
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert gradients.keys() == found.keys()
    for name, gradient in gradients.items():
        close(found[name], gradient, 1e-4, name, noise=3e-7 * largest)
    for name in ours.keys() - {row.ours for row in names_of(model, task)}:  # pretraining heads, which no task reaches
        assert not ours[name].any(), name


def ragged(rng, length):
    lengths = rng.integers(1, length + 1, ROWS)
    lengths[rng.integers(ROWS)] = length
    return np.arange(length) < lengths[:, None]


def drawn_batch(rng, config, labels, *, texts=1):
    """Rows of one or two texts with padding after them, by plain loops."""
    length = int(rng.integers(4, config.context + 1))
    mask = ragged(rng, length)
    ids = rng.integers(1, config.vocabulary, (ROWS, length)).astype(np.int32)
    ids[~mask] = 0
    segments = None
    if texts == 2 and config.segments > 1:
        segments = np.zeros((ROWS, length), np.int32)
        for row in range(ROWS):
            real = mask[row].sum()
            segments[row, rng.integers(0, real) : real] = 1
    return Batch(ids, labels[:, None], mask=mask, segments=segments, labels=labels)


def maker(name, labels=()):
    def task(config, **options):
        tokenizer = make_tokenizer("bytes", [], special_tokens=special_tokens(config.mode))
        return TASKS[name](tokenizer, config, labels=labels, **options)

    return task


@pytest.mark.parametrize("name", ["classify", "pair", "regress", "regress of pairs"])
@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_sequence_classification(seed, name, tmp_path):
    regress, texts = name.startswith("regress"), 2 if "pair" in name else 1
    count = 1 if regress else 2 + seed % 4
    kind = transformers.BertForSequenceClassification
    theirs, rng = bert(seed, lambda config: sequence_classifier(kind, config, count))
    make = maker(name.split()[0], () if regress else tuple(map(str, range(count))))
    model = with_head(theirs, make, tmp_path)
    assert model.head.pooler is None
    labels = rng.normal(size=ROWS).astype(np.float32) if regress else rng.integers(0, count, ROWS).astype(np.int32)
    batch = drawn_batch(rng, model.config, labels, texts=texts)
    given = {"attention_mask": torch.tensor(batch.mask).long()}
    if batch.segments is not None:
        given["token_type_ids"] = torch.tensor(batch.segments).long()
    out = theirs(torch.tensor(batch.inputs), **given, labels=torch.tensor(labels if regress else labels.astype(int)))
    task = make(model.config)
    close(model(batch.inputs, **batch.keywords).numpy(), out.logits, 1e-5)
    compare_gradients(model, task, theirs, task.loss(model, batch), out.loss)


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
@pytest.mark.parametrize("name", ["classify", "regress"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gpt2_for_sequence_classification(seed, name, auxiliary, tmp_path):
    """With the language model's loss, theirs is put together here, from their hidden states."""
    regress = name == "regress"
    count = 1 if regress else 2 + seed % 4
    tied = {"tie_word_embeddings": True}  # theirs has no output layer of its own
    drawn, rng = gpt2(seed)
    drawn.config.update(tied | {"num_labels": count, "pad_token_id": 0})
    theirs = randomised(transformers.GPT2ForSequenceClassification(drawn.config), rng)
    make = maker(name, () if regress else tuple(map(str, range(count))))
    model = with_head(theirs, make, tmp_path)
    task = make(model.config, auxiliary=auxiliary)
    labels = rng.normal(size=ROWS).astype(np.float32) if regress else rng.integers(0, count, ROWS).astype(np.int32)
    batch = drawn_batch(rng, model.config, labels)
    ids, mask = torch.tensor(batch.inputs).long(), torch.tensor(batch.mask)
    out = theirs(ids, attention_mask=mask.long(), labels=torch.tensor(labels if regress else labels.astype(int)))
    close(model(batch.inputs, **batch.keywords).numpy(), out.logits, 1e-5)
    their_loss = out.loss
    if auxiliary:
        hidden = theirs.transformer(ids, attention_mask=mask.long()).last_hidden_state
        log_p = (hidden @ theirs.transformer.wte.weight.T).log_softmax(-1)
        lengths = batch.mask.sum(axis=1)
        written = [-log_p[row, range(n - 1), ids[row, 1:n]].mean() for row, n in enumerate(lengths) if n > 1]
        their_loss = their_loss + auxiliary * sum(written) / len(written)
        rows = [Row(batch.inputs[row, :n], target=labels[row]) for row, n in enumerate(lengths)]
        batch = task.corrupt(rows)
    compare_gradients(model, task, theirs, task.loss(model, batch), their_loss)


def sequence_classifier(kind, config, count):
    config.num_labels = count
    return kind(config)
