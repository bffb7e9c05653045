"""The heads for tags and answers on bodies read from what transformers saves: logits, losses, gradients, answers.

Drawn settings of BERT, with the tolerances of `test_huggingface_models.py`. Ours hides padding from the softmax over
places that an answer's beginning is chosen by, theirs does not; so where rows differ in length, their loss is put
together here from their logits.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from huggingface import bert, close
from test_huggingface_tasks import ROWS, SEEDS, compare_gradients, maker, ragged, with_head

from tinyformer.objectives import Batch

pytestmark = pytest.mark.oracle


def drawn(rng, config, *, full):
    """Ids, which of them are real, and segments, of rows of one length or several."""
    length = int(rng.integers(4, config.context + 1))
    mask = np.ones((ROWS, length), bool) if full else ragged(rng, length)
    ids = np.where(mask, rng.integers(1, config.vocabulary, mask.shape), 0).astype(np.int32)
    segments = rng.integers(0, config.segments, mask.shape).astype(np.int32) if config.segments > 1 else None
    return ids, mask, segments


def keywords(mask, segments):
    given = {"attention_mask": torch.tensor(mask).long()}
    return given | ({} if segments is None else {"token_type_ids": torch.tensor(segments).long()})


def with_labels(kind, count):
    def build(config):
        config.num_labels = count
        return kind(config)

    return build


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_token_classification(seed, tmp_path):
    count = 3 + seed % 4
    theirs, rng = bert(seed, with_labels(transformers.BertForTokenClassification, count))
    make = maker("tag", tuple(f"B-{i}" for i in range(count)))
    model = with_head(theirs, make, tmp_path)
    ids, mask, segments = drawn(rng, model.config, full=False)
    targets = rng.integers(0, count, mask.shape).astype(np.int32)
    weights = (mask & (rng.random(mask.shape) < 0.6)).astype(np.float32)
    weights[0, 0] = 1
    labels = torch.tensor(np.where(weights > 0, targets, -100)).long()  # what theirs passes over
    out = theirs(torch.tensor(ids), **keywords(mask, segments), labels=labels)
    batch = Batch(ids, targets, weights, mask=mask, segments=segments)
    close(model(ids, **batch.keywords).numpy(), out.logits, 1e-5)
    task = make(model.config)
    probabilities = np.concatenate(task.outputs(model, batch))
    close(probabilities, out.logits[torch.tensor(weights) > 0].softmax(-1), 1e-5)
    compare_gradients(model, task, theirs, task.loss(model, batch), out.loss)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_question_answering(seed, full, tmp_path):
    theirs, rng = bert(seed, transformers.BertForQuestionAnswering)
    make = maker("answer")
    model = with_head(theirs, make, tmp_path)
    ids, mask, segments = drawn(rng, model.config, full=full)
    targets = rng.integers(0, mask.sum(axis=1)[:, None], (ROWS, 2)).astype(np.int32)
    start, end = torch.tensor(targets).long().T
    out = theirs(torch.tensor(ids), **keywords(mask, segments), start_positions=start, end_positions=end)
    batch = Batch(ids, targets, mask=mask, segments=segments)
    both = torch.stack([out.start_logits, out.end_logits], dim=-1)
    close(model(ids, **batch.keywords).numpy(), both, 1e-5)
    task = make(model.config)
    for ours, real, scores in zip(task.outputs(model, batch), mask, both):
        close(ours, scores[torch.tensor(real)].T, 1e-5)
    their_loss = out.loss
    if not full:
        hidden = ~torch.tensor(mask)
        logits = (out.start_logits.masked_fill(hidden, -torch.inf), out.end_logits.masked_fill(hidden, -torch.inf))
        their_loss = (F.cross_entropy(logits[0], start) + F.cross_entropy(logits[1], end)) / 2
    compare_gradients(model, task, theirs, task.loss(model, batch), their_loss)
