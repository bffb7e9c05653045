"""What holds for every objective: parts add up, rows do not depend on each other, scores are what they say."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.made import END, OBJECTIVES, PAD, SENTINELS, V, draw_rows, generators, make
from tinyformer import backends, backward, functional, no_grad, ops
from tinyformer import objectives as library
from tinyformer.errors import UsageError
from tinyformer.models import build
from tinyformer.objectives import Batch, pad_rows
from tinyformer.text import make_tokenizer, special_tokens

SEEDS = st.integers(0, 2**32 - 1)
MODELS = {mode: make(mode) for mode in ("decoder", "encoder", "encoder-decoder")}
each = pytest.mark.parametrize("name", OBJECTIVES)


def drawn(name, seed, count=5):
    rng = np.random.default_rng(seed)
    objective = OBJECTIVES[name]
    return objective, objective.corrupt(draw_rows(name, rng, count), generators(count, seed))


@each
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 5)))
def test_losses_and_gradients_of_parts_add_up(name, seed, cuts):
    objective, batch = drawn(name, seed, 6)
    if name in ("causal", "masked"):  # targets of any weight, and a row without one
        weights = np.random.default_rng(seed).random(batch.targets.shape).astype(np.float32)
        weights *= 1 if batch.weights is None else batch.weights
        weights[3] = 0
        batch = dataclasses.replace(batch, weights=weights)
    model = MODELS[objective.mode]
    whole = objective.loss(model, batch)
    parts = [batch.rows(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6])]
    losses = [objective.loss(model, part, whole=batch) for part in parts]
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), rel=1e-12)
    expected, found = backward(whole), [backward(loss) for loss in losses]
    for parameter in model.parameters().values():
        total = sum(gradients.get(parameter, 0.0) for gradients in found)
        np.testing.assert_allclose(total, expected.get(parameter, 0.0), rtol=0, atol=1e-12)


@each
def test_a_training_step_holds_its_logits_once_and_nothing_else_destroys_them(name):
    objective, batch = drawn(name, 0, 20)
    model = make(objective.mode, "float32", vocabulary=20000)
    prediction = objective.predict(model, batch)
    logits = prediction.logits.numpy().copy()
    prediction.nats(total=1.0)
    np.testing.assert_array_equal(prediction.logits.numpy(), logits)
    del prediction
    tracemalloc.start()
    loss = objective.loss(model, batch)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loss.requires_grad
    assert logits.nbytes < taken < 1.3 * logits.nbytes


def test_logits_that_their_own_gradient_needs_are_kept():
    """A user's model may end in any operation: that of a tanh's gradient is its result."""
    objective, batch = drawn("causal", 0)
    model = MODELS["decoder"]

    def capped(*inputs, **keywords):
        return ops.tanh(model(*inputs, **keywords))

    capped.config = model.config
    found = backward(objective.loss(capped, batch))
    expected = backward(functional.cross_entropy(capped(batch.inputs), batch.targets))
    for parameter in model.parameters().values():
        np.testing.assert_allclose(found[parameter], expected[parameter], atol=1e-12)


@each
def test_gradients_reach_all_parameters_but_those_that_are_named(name):
    objective, batch = drawn(name, 0)
    model = MODELS[objective.mode]
    reached = backward(objective.loss(model, batch)).keys()
    left = {path for path, parameter in model.parameters().items() if parameter not in reached}
    assert left == {path for path in model.parameters() if path.startswith(objective.unreached)}
    assert bool(left) is (name == "masked")


@each
@given(seed=SEEDS)
def test_a_row_depends_on_nothing_but_itself(name, seed):
    rows = draw_rows(name, np.random.default_rng(seed), 5)
    objective = OBJECTIVES[name]
    together = objective.corrupt(rows, generators(5, seed))
    for number, row in enumerate(rows):
        alone = objective.corrupt([row], generators(5, seed)[number : number + 1])
        for field in dataclasses.fields(Batch):
            short, long = getattr(alone, field.name), getattr(together.rows(number, number + 1), field.name)
            if short is not None:
                np.testing.assert_array_equal(short, long[..., : short.shape[-1]], err_msg=field.name)
            elif long is not None:  # a mask or weights, for the sake of other rows
                length = getattr(alone, "inputs" if field.name == "mask" else "targets").shape[1]
                assert long[:, :length].all()
                assert not long[:, length:].any()


@each
@given(seed=SEEDS)
def test_corruption_changes_nothing_it_is_given(name, seed):
    rows = draw_rows(name, np.random.default_rng(seed), 4)
    OBJECTIVES[name].corrupt(rows, generators(4))
    for row, before in zip(rows, draw_rows(name, np.random.default_rng(seed), 4)):
        for now, then in zip(*(x if isinstance(x, tuple) else (x,) for x in (row, before))):
            np.testing.assert_array_equal(now, then)


def plain_logits(objective, model, batch):
    with no_grad():
        return model(*batch.ids, **batch.keywords).numpy()


@each
@given(seed=SEEDS)
def test_scores_and_losses_by_plain_sums(name, seed):
    objective, batch = drawn(name, seed)
    model = MODELS[objective.mode]
    logits = plain_logits(objective, model, batch)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nats = correct = smooth = tokens = 0.0
    for place in np.ndindex(batch.targets.shape):
        weight = 1.0 if batch.weights is None else float(batch.weights[place])
        tokens += weight
        nats -= weight * log_p[place][batch.targets[place]]
        smooth -= weight * log_p[place].mean()
        answers, asked = logits[place].copy(), True
        if name == "span-corruption":  # which token of text it is
            asked = batch.targets[place] not in (*SENTINELS, END)
            answers[[*SENTINELS, END, PAD]] = -np.inf
        correct += weight * asked * (answers.argmax() == batch.targets[place])
    score = objective.score(model, batch)
    assert score["nats"] == pytest.approx(nats, rel=1e-12)
    assert score["tokens"] == batch.tokens == tokens
    assert score["correct"] == correct
    expected = (nats * (1 - objective.smoothing) + smooth * objective.smoothing) / tokens
    if name == "next-sentence":
        with no_grad():
            logits = model.next_sentence_logits(model.hidden(*batch.ids, **batch.keywords)).numpy()
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        nats = -log_p[np.arange(5), batch.labels].sum()
        assert score["pairs_nats"] == pytest.approx(nats, rel=1e-12)
        assert score["pairs"] == 5
        assert score["pairs_correct"] == (logits.argmax(axis=1) == batch.labels).sum()
        expected += nats / 5
    assert objective.loss(model, batch).item() == pytest.approx(expected, rel=1e-12)


@each
def test_scores_record_nothing(name):
    recorded = []
    objective, batch = drawn(name, 0)

    class Watched(type(objective)):
        def check(self, model):
            recorded.append((model.tokens.weight * 1.0).node)

    watched = Watched.__new__(Watched)
    vars(watched).update(vars(objective))
    watched.score(MODELS[objective.mode], batch)
    assert recorded == [None]


@each
def test_other_array_libraries_give_the_same_loss(name, xp, monkeypatch):
    objective, batch = drawn(name, 3)
    model = MODELS[objective.mode]
    monkeypatch.setattr(backends, "get", lambda name="auto": xp)
    other = build(model.config, dtype="float64")
    other.assign({path: parameter.numpy() for path, parameter in model.parameters().items()})
    assert other.tokens.weight.backend is xp
    assert objective.loss(other, batch).item() == pytest.approx(objective.loss(model, batch).item(), rel=1e-12)
    assert objective.score(other, batch) == pytest.approx(objective.score(model, batch), rel=1e-12)


@each
@pytest.mark.parametrize("mode", MODELS)
def test_a_model_of_another_mode_is_refused(name, mode):
    objective, batch = drawn(name, 0)
    if mode == objective.mode:
        return
    for call in (objective.loss, objective.score):
        with pytest.raises(UsageError, match=f"for models of mode {objective.mode}, and this one is of mode {mode};"):
            call(MODELS[mode], batch)


MARKS = {"pad": 256, "cls": 257, "sep": 258, "mask": 259, "vocabulary": 260}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("causal", {}, {}),
        ("masked", {}, MARKS),
        ("next-sentence", {"line_ends": np.arange(260) == 10}, MARKS | {"context": 64}),
        ("span-corruption", {}, {"pad": 256, "end": 257, "sentinels": list(range(357, 257, -1))}),
        ("seq2seq", {"smoothing": 0.2}, {"pad": 256, "end": 257, "smoothing": 0.2}),
    ],
)
def test_made_for_a_tokenizer(name, options, expected):
    kind = library.OBJECTIVES[name]
    tokenizer = make_tokenizer("bytes", [], special_tokens=special_tokens(kind.mode))
    made = kind.of(tokenizer, 64, **options)
    assert type(made) is kind
    assert {key: getattr(made, key) for key in expected} == expected


@pytest.mark.parametrize("name", sorted(library.OBJECTIVES.keys() - {"causal"}))
def test_a_tokenizer_without_the_special_tokens_is_refused(name):
    with pytest.raises(UsageError, match=r"<pad>|<cls>|<sep>|<mask>|</s>"):
        library.OBJECTIVES[name].of(make_tokenizer("bytes", []), 64)


def test_the_first_objective_of_a_mode_is_its_default():
    first = {}
    for name, kind in library.OBJECTIVES.items():
        first.setdefault(kind.mode, name)
    assert first == {"decoder": "causal", "encoder": "masked", "encoder-decoder": "span-corruption"}


@given(SEEDS, st.integers(1, 5), st.integers(0, 4))
def test_padding(seed, count, more):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, V, rng.integers(1, 7)).astype(np.int32) for _ in range(count)]
    longest = max(map(len, rows)) + more
    padded, real = pad_rows(rows, PAD, longest if more else None)
    expected = [row.tolist() + [PAD] * (longest - len(row)) for row in rows]
    assert padded.tolist() == expected
    assert padded.dtype == np.int32
    if real is None:
        assert {len(row) for row in rows} == {longest}
    else:
        assert real.tolist() == [[i < len(row) for i in range(longest)] for row in rows]
        assert min(map(len, rows)) < longest
