"""A class or a number for whole texts: the loss by plain loops, its gradient, its parts; and what is answered."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.made import make
from tests.tasks.whole import CASES, drawn, each, few, log_p, made, plain_loss
from tinyformer import backends, backward, functional, nn, no_grad, ops
from tinyformer.errors import UsageError
from tinyformer.gradcheck import check_gradients
from tinyformer.models import build
from tinyformer.objectives import Batch
from tinyformer.tasks import TASKS, Example
from tinyformer.tasks.heads import LastHead, PooledHead, TokenHead
from tinyformer.tensor import Tensor

SEEDS = st.integers(0, 2**32 - 1)


@each
@few
@given(seed=SEEDS)
def test_the_loss_by_plain_loops(name, mode, seed):
    task, model = made(name, mode)
    batch = drawn(task, seed)
    assert task.loss(model, batch).item() == pytest.approx(plain_loss(task, model, batch), rel=1e-6)


def test_a_text_of_one_token_is_no_text_to_write():
    task, model = made("classify", "decoder")
    batch = task.corrupt([row for text in "ab" for row in task.rows(Example((text,), "a"))])
    assert batch.inputs.shape == (2, 1)
    assert task.loss(model, batch).item() == pytest.approx(plain_loss(task, model, batch), rel=1e-6)


@each
@given(seed=SEEDS)
def test_a_fresh_pooler_or_that_of_the_body_are_the_same(name, mode, seed):
    if mode == "decoder":
        return
    task, model = made(name, mode)
    assert model.head.pooler is None
    other, plain = made(name, mode, next_sentence=False)
    values = model.values()
    for part in ("weight", "bias"):
        values[f"head.pooler.{part}"] = values.pop(f"body.pooler.{part}")
        values.pop(f"body.next_sentence.{part}")
    plain.assign(values)
    batch = drawn(task, seed)
    assert other.loss(plain, batch).item() == pytest.approx(task.loss(model, batch).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("positions", "next_sentence", "end"),
    [
        ("learned", True, math.tanh),
        ("learned", False, math.tanh),
        ("rotary", True, math.tanh),
        ("rotary", False, lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
    ],
)
def test_a_pooler_ends_in_tanh_and_with_rotary_positions_in_the_activation_of_the_body(positions, next_sentence, end):
    """But for one that was trained as BERT's."""
    choices = {"positions": positions, "next_sentence": next_sentence, "activation": "gelu-exact"}
    task, model = made("classify", "encoder", **choices)
    batch = drawn(task, 1)
    hidden = model.body.hidden(*batch.ids, **batch.keywords)
    pooler = model.body.pooler or model.head.pooler
    read = np.vectorize(end)(hidden.numpy()[:, 0] @ pooler.weight.numpy() + pooler.bias.numpy())
    expected = read @ model.head.output.weight.numpy() + model.head.output.bias.numpy()
    found = model.head(hidden, mask=batch.mask, body=model.body).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [PooledHead, LastHead])
def test_gradients_of_heads(kind, masked):
    body = make("encoder" if kind is PooledHead else "decoder")
    head = kind(body.config, 3, nn.Initializer(dtype="float64"))
    rng = np.random.default_rng(0)
    mask = np.arange(5) < np.array([[3], [5], [1]]) if masked else None
    check_gradients(lambda hidden: head(hidden, mask=mask, body=body), rng.standard_normal((3, 5, 8)))

    def of_weight(weight):
        head.output.weight = weight
        return head(Tensor(rng.standard_normal((3, 5, 8)) * 0 + 0.3), mask=mask, body=body)

    check_gradients(of_weight, rng.standard_normal((8, 3)))


@each
def test_the_gradient_of_the_whole_loss(name, mode):
    """In each parameter, along a random direction."""
    task, model = made(name, mode)
    batch, rng = drawn(task, 4), np.random.default_rng(1)
    gradients = backward(task.loss(model, batch))
    for path, parameter in model.parameters().items():
        if path.startswith(task.unreached):
            assert parameter not in gradients
            continue
        kept = parameter.array.copy()
        direction = rng.standard_normal(kept.shape)
        sides = []
        for sign in (1, -1):
            parameter.array[...] = kept + sign * 1e-5 * direction
            with no_grad():
                sides.append(task.loss(model, batch).item())
        parameter.array[...] = kept
        slope = (sides[0] - sides[1]) / 2e-5
        assert (gradients[parameter] * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8), path


@each
@few
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 5)))
def test_losses_and_gradients_of_parts_add_up(name, mode, seed, cuts):
    task, model = made(name, mode)
    batch = drawn(task, seed)
    whole = task.loss(model, batch)
    parts = [batch.rows(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6])]
    losses = [task.loss(model, part, whole=batch) for part in parts]
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), rel=1e-12)
    expected, found = backward(whole), [backward(loss) for loss in losses]
    for parameter in model.parameters().values():
        total = sum(gradients.get(parameter, 0.0) for gradients in found)
        np.testing.assert_allclose(total, expected.get(parameter, 0.0), rtol=0, atol=1e-12)


@each
@few
@given(seed=SEEDS)
def test_a_batch_for_a_device_has_the_same_loss(name, mode, seed):
    task, model = made(name, mode)
    batch = drawn(task, seed)
    fixed = task.fixed(batch)
    assert fixed.inputs.shape[1] in (3, 6, 9, 12, 15, 18, 21, 24)
    assert fixed.mask is not None
    assert task.loss(model, fixed).item() == pytest.approx(task.loss(model, batch).item(), rel=1e-6)


@each
def test_other_array_libraries_give_the_same_loss(name, mode, xp, monkeypatch):
    task, model = made(name, mode)
    batch = drawn(task, 3)
    monkeypatch.setattr(backends, "get", lambda name="auto": xp)
    other = task.model(build(model.config, dtype="float64"), nn.Initializer(dtype="float64"))
    other.assign({path: parameter.numpy() for path, parameter in model.parameters().items()})
    assert other.body.tokens.weight.backend is xp
    assert task.loss(other, batch).item() == pytest.approx(task.loss(model, batch).item(), rel=1e-12)
    assert task.score(other, batch) == pytest.approx(task.score(model, batch), rel=1e-12)
    for ours, theirs in zip(task.outputs(other, batch), task.outputs(model, batch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_answers_are_what_the_scores_say(mode):
    task, model = made("classify", mode)
    given_examples = [Example((text,), label) for text, label in (("some text", "a"), ("b", "b"), ("cc", "c"))]
    batch = task.corrupt([row for example in given_examples for row in task.rows(example)])
    outputs = task.outputs(model, batch)
    with no_grad():
        scores = model(batch.inputs, **batch.keywords).numpy()
    for example, shares, row in zip(given_examples, outputs, scores):
        np.testing.assert_allclose(shares, np.exp(log_p(row)), rtol=1e-9)
        assert task.answer(example, [shares]) == "abc"[row.argmax()]
        told = task.describe(example, [shares])
        assert told["label"] == "abc"[row.argmax()]
        assert list(told["probabilities"]) == ["abc"[i] for i in np.argsort(-row)]
        assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    answers = [task.answer(example, [shares]) for example, shares in zip(given_examples, outputs)]
    right = sum(answer == example.label for answer, example in zip(answers, given_examples))
    assert task.measure(given_examples, answers)[task.best] == right / 3
    score = task.score(model, batch)
    assert (score["correct"], score["tokens"]) == (right, 3)
    assert score["nats"] == pytest.approx(-sum(math.log(shares[i]) for i, shares in enumerate(outputs)))


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_numbers_are_in_the_unit_of_the_file(mode):
    task, model = made("regress", mode)
    given_examples = [Example((text,), label) for text, label in (("some text", 2.5), ("b", 1.0))]
    batch = task.corrupt([row for example in given_examples for row in task.rows(example)])
    assert batch.labels.tolist() == [1.0, -2.0]
    outputs = task.outputs(model, batch)
    scores = task.scores(model, batch)[:, 0]
    np.testing.assert_allclose(outputs, scores * 0.5 + 2.0)
    assert task.describe(given_examples[0], outputs[:1]) == {"number": round(outputs[0], 6)}
    answers = [task.answer(example, [output]) for example, output in zip(given_examples, outputs)]
    measured = task.measure(given_examples, answers)
    assert measured["mse"] == pytest.approx(np.mean([(outputs[0] - 2.5) ** 2, (outputs[1] - 1.0) ** 2]))
    assert abs(measured[task.best]) == pytest.approx(1)
    squares = ((scores - batch.labels) ** 2).sum()
    assert task.score(model, batch) == pytest.approx({"squares": squares, "tokens": 2.0})


@pytest.mark.parametrize("kind", [PooledHead, TokenHead])
def test_heads_of_encoders_drop_in_training_and_never_else(kind):
    body = make("encoder", dropout=0.5)
    head, hidden = kind(body.config, 3, nn.Initializer(dtype="float64")), Tensor(np.full((400, 1, 8), 0.3))
    head.output.weight.array[...] = 1.0  # so that what comes out is the sum of what was not dropped

    def values(rng):
        return head(hidden, mask=None, body=body, rng=rng).array.reshape(400, 3)[:, 0]

    whole, drawn = values(None), values(backends.get("numpy").generator(7))
    assert np.ptp(whole) == 0
    assert len(np.unique(drawn.round(9))) > 3
    assert drawn.mean() == pytest.approx(whole[0], rel=0.1)


@pytest.mark.parametrize("labels", [("x", "1.0"), ("1.0",), ("0.0", "1.0", "2.0"), ("nan", "1.0"), ("0.0", "0.0")])
def test_a_unit_that_is_none_is_told_of(labels):
    task, model = made("regress", "encoder")
    with pytest.raises(UsageError, match=r"labels of regress are a mean and a deviation, and they are '.*'; put"):
        TASKS["regress"](task.tokenizer, model.config, labels=labels)


@pytest.mark.parametrize("numbers", [(1e308, -1e308, 0.0), (1e200, 2e200), (1e-200, 2e-200), (1.7e308, 1.6e308)])
def test_numbers_that_cannot_be_told_apart(numbers):
    with pytest.raises(UsageError, match=r"^the numbers of the file, from .* have no deviation that can"):
        TASKS["regress"].labels_of([Example(("a",), number) for number in numbers])


def test_texts_without_labels_are_answered():
    for name, mode in CASES:
        task, model = made(name, mode)
        texts = ("a", "b") if name == "pair" else ("a",)
        outputs = task.outputs(model, task.corrupt(task.rows(Example(texts))))
        assert task.describe(Example(texts), outputs)


def no_tanh(head):
    return lambda hidden, *, mask, body, rng=None: head.output(body.pooler(hidden[:, 0]))


def other_place(head):
    return lambda hidden, *, mask, body, rng=None: head.output(ops.tanh(body.pooler(hidden[:, 1])))


def padding_read(head):
    return lambda hidden, *, mask, body, rng=None: head.output(hidden[:, -1])


def mean_read(head):
    return lambda hidden, *, mask, body, rng=None: head.output(functional.mean(hidden, axis=1))


class Averaged(TASKS["classify"]):
    """Divides a part by its own rows."""

    def judge(self, scores, labels, *, total):
        return super().judge(scores, labels, total=len(labels))


class Unaided(TASKS["classify"]):
    """Forgets the language model."""

    def __init__(self, *inputs, **more):
        super().__init__(*inputs, **more)
        self.auxiliary = 0.0


class ByTokens(TASKS["classify"]):
    """Weighs the language model's loss by tokens instead of texts."""

    def corrupt(self, rows, rngs=()):
        batch = super().corrupt(rows, rngs)
        return Batch(**batch.arrays | {"weights": (batch.weights > 0).astype(np.float32)})


@pytest.mark.parametrize(
    ("mode", "wrong"),
    [("encoder", no_tanh), ("encoder", other_place), ("decoder", padding_read), ("decoder", mean_read)],
)
def test_planted_bugs_of_heads_are_seen(mode, wrong):
    task, model = made("classify", mode)
    batch, head = drawn(task, 0), model.head
    model.head = wrong(head)
    loss = task.loss(model, batch).item()
    model.head = head
    assert loss != pytest.approx(plain_loss(task, model, batch), rel=1e-5)


@pytest.mark.parametrize("wrong", [Unaided, ByTokens])
def test_planted_bugs_of_losses_are_seen(wrong):
    (task, model), (right, _) = made("classify", "decoder", task=wrong), made("classify", "decoder")
    batch = drawn(task, 0)
    assert task.loss(model, batch).item() != pytest.approx(plain_loss(right, model, batch), rel=1e-5)


def test_a_planted_bug_of_parts_is_seen():
    task, model = made("classify", "encoder", task=Averaged)
    batch = drawn(task, 0)
    parts = sum(task.loss(model, batch.rows(a, b), whole=batch).item() for a, b in ((0, 2), (2, 6)))
    assert parts != pytest.approx(task.loss(model, batch).item(), rel=1e-5)
