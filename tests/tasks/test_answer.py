"""Answers in texts: windows, where tokens stand, loss, and the best stretch by trying all of them."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.kinds import LOSSLESS, TOKENIZERS, WORDS, config, model_for
from tinyformer import backward, check_gradients, nn
from tinyformer.errors import UsageError
from tinyformer.models import ModelConfig, build
from tinyformer.tasks import Example
from tinyformer.tasks.answer import NONE, Answer
from tinyformer.text import WordTokenizer
from tinyformer.text.special import special_tokens
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import Workers, training_step

CONTEXT = "The Normans came from Normandy. They conquered England in 1066."
SEEDS = st.integers(0, 2**32 - 1)
each = pytest.mark.parametrize("kind", TOKENIZERS)


def squad(*questions, context=CONTEXT, **more):
    return {
        "version": "v2.0",
        "data": [{"title": "x", "paragraphs": [{"context": context, "qas": list(questions)}]}],
    } | more


def question(key="q1", answers=(("1066", 58),), **more):
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": "When?", "answers": listed} | more


def read(found, *, labelled=True, **how):
    text = found if isinstance(found, str) else json.dumps(found)
    return list(Answer.stream(io.BytesIO(text.encode()), labelled=labelled, **how))


def drawn(seed, *, words=WORDS, longest=12):
    """A question about words, whose answer is one of them or several, or none."""
    rng = np.random.default_rng(seed)
    asked, told = (rng.choice(words, rng.integers(1, longest)).tolist() for _ in range(2))
    first = int(rng.integers(len(told)))
    stop = int(rng.integers(first, min(first + 3, len(told)))) + 1
    start = sum(len(word) + 1 for word in told[:first])
    label = ((" ".join(told[first:stop]), start),) if rng.random() < 0.8 else ()
    return Example((" ".join(asked), " ".join(told)), label, "f, question 1", "1")


def task_of(kind="pairs", context=24, labels=(NONE,), **options):
    return Answer(TOKENIZERS[kind], config(TOKENIZERS[kind], context), labels=labels, **options)


# Questions


def test_questions_that_are_refused():
    none = read(squad(question("q3", [])))
    with pytest.raises(UsageError, match=r"^no question of standard input has an answer, .*; add questions to it"):
        Answer.labels_of(none)
    with pytest.raises(UsageError, match=r"question q3 has no answer, and every question that was trained on has one"):
        task_of(labels=()).check_examples(none)
    task_of().check_examples(none)
    other = ModelConfig(vocabulary=300, context=8, layers=1, heads=1, width=8, hidden=8)
    with pytest.raises(UsageError, match="a model of mode decoder cannot do the task answer"):
        Answer(TOKENIZERS["bytes"], other)
    for options in ({"stride": 0}, {"longest": 0}):
        with pytest.raises(UsageError, match="must be at least 1 token, and is 0"):
            task_of(**options)
    with pytest.raises(UsageError, match="a context of 4 has no room for 2 texts"):
        task_of(context=4).rows(none[0])


def test_an_answer_without_a_token_is_refused():
    if "word pieces" not in TOKENIZERS:
        pytest.skip("needs the tokenizers package")
    with pytest.raises(UsageError, match=r"f: the tokenizer has no token for the answer '\\u200b'"):
        task_of("word pieces").rows(Example(("the", "the \u200b"), (("\u200b", 4),), "f"))


# Windows, and where tokens stand


@each
@given(SEEDS, st.integers(9, 40), st.sampled_from([None, 1, 3, 100]))
def test_rows_by_loops(kind, seed, context, stride):
    example = drawn(seed)
    tokenizer, task = TOKENIZERS[kind], task_of(kind, context, stride=stride)
    asked = tokenizer.encode(example.texts[0]).tolist()
    told, places = (found.tolist() for found in tokenizer.encode_located(example.texts[1]))
    cls, sep = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    kept = asked[: (context - 3) // 2]
    room = context - 3 - len(kept)
    step = min(128, max(1, room // 2)) if stride is None else min(stride, room)
    starts = [0]
    while starts[-1] + room < len(told):
        starts.append(starts[-1] + step)
    inside = []
    if example.label:
        begin = example.label[0][1]
        end = begin + len(example.label[0][0])
        inside = [i for i, (first, stop) in enumerate(places) if first < end and stop > begin]
    rows = task.rows(example)
    assert len(rows) == len(starts)
    owned = []
    for row, start in zip(rows, starts):
        shown = told[start : start + room]
        assert row.ids.tolist() == [cls, *kept, sep, *shown, sep]
        assert row.segments.tolist() == [0] * (len(kept) + 2) + [1] * (len(shown) + 1)
        assert row.cut == len(asked) - len(kept)
        before = len(kept) + 2
        if inside and start <= inside[0] and inside[-1] < start + len(shown):
            assert row.target == (inside[0] - start + before, inside[-1] - start + before)
        else:
            assert row.target == (0, 0)
        assert row.origin.first == before
        assert row.origin.places.tolist() == places[start : start + room]
        owned += [start + place for place in np.flatnonzero(row.origin.own)]
    assert sorted(owned) == list(range(len(told)))
    batch = task.corrupt(rows)
    assert batch.targets.tolist() == [list(row.target) for row in rows]
    unknown = task.rows(Example(example.texts))
    assert [row.target for row in unknown] == [None] * len(rows)
    assert task.corrupt(unknown).targets.shape == (len(rows), 2)


@each
@given(SEEDS)
def test_the_tokens_of_an_answer_are_its_text(kind, seed):
    """A model that is sure of the right tokens says the answer, up to what the tokenizer cannot tell apart."""
    example = drawn(seed)
    task = task_of(kind, 40)
    outputs = []
    for row in task.rows(example):
        scores = np.zeros((2, len(row.ids)))
        scores[[0, 1], row.target] = 9.0 if row.target == (0, 0) else 10.0
        outputs.append(scores)
    task.longest = 1000
    if example.label:
        if any(row.target != (0, 0) and row.origin.own[row.target[0] - row.origin.first] for row in task.rows(example)):
            assert task.answer(example, outputs) == example.label
    elif kind in LOSSLESS:
        assert task.answer(example, outputs) == ()
        assert task.find(example, outputs).probability > 0.9


@pytest.mark.parametrize("known", [(), (NONE,)])
@given(SEEDS, st.integers(1, 8), st.integers(12, 30))
def test_the_best_stretch_by_trying_all(known, seed, longest, context):
    rng = np.random.default_rng(seed)
    example = drawn(seed)
    task = task_of("spaces", context, known, longest=longest)
    rows = task.rows(example)
    outputs = [rng.normal(size=(2, len(row.ids))) * 2 for row in rows]
    best, none = (-np.inf,), min(scores[0, 0] + scores[1, 0] for scores in outputs)
    for row, scores in zip(rows, outputs):
        first = row.origin.first
        for i in range(len(row.origin.places)):
            for j in range(i, min(i + longest, len(row.origin.places))):
                score = scores[0, first + i] + scores[1, first + j]
                if row.origin.own[i] and score > best[0]:
                    span = slice(row.origin.places[i][0], row.origin.places[j][1])
                    best = score, example.texts[1][span], scores, first + i, first + j
    score, text, scores, i, j = best
    task.threshold = none - score + float(rng.choice([-0.5, 0.5]))  # just below or above what it is asked about
    found = task.find(example, outputs)
    if (known and none - score > task.threshold) or not text.strip():
        assert found.text == ""
        assert task.answer(example, outputs) == ()
    else:
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        assert found.text == text.strip()
        assert example.texts[1][found.start : found.start + len(found.text)] == found.text
        assert found.probability == pytest.approx(shares[0, i] * shares[1, j])
    assert found.margin == pytest.approx(score - none)
    said = json.loads(json.dumps(task.describe(example, outputs)))
    assert (said["id"], said["question"], said["answer"]) == ("1", example.texts[0], found.text)
    assert ("margin" in said) is bool(known)
    assert ("start" in said) is bool(found.text)


def test_of_equally_good_stretches_the_first():
    task, example = task_of("words", 10), Example(("the", "paris pa is the paris pa is the"))
    outputs = [np.zeros((2, len(row.ids))) for row in task.rows(example)]
    assert len(outputs) > 1
    assert task.answer(example, outputs) == (("paris", 0),)


def test_an_answer_has_thirty_tokens_or_a_hundred_and_fifty_characters():
    assert {kind: task_of(kind).longest for kind in TOKENIZERS} == {
        kind: 150 if kind in ("bytes", "chars") else 30 for kind in TOKENIZERS
    }


def test_measures():
    examples = read(squad(question(), question("q2", [("The Normans", 0), ("Normans", 4)]), question("q3", [])))
    found = task_of().measure(examples, [(("1066.", 58),), (("Normans came", 4),), ()])
    assert (found["exact_match"], found["has_answer_exact_match"]) == (pytest.approx(2 / 3), 0.5)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)


# What is learned


@given(SEEDS, st.sets(st.integers(1, 5)))
def test_losses_and_gradients_of_parts_add_up(seed, cuts):
    task = task_of()
    rows = [row for number in range(3) for row in task.rows(drawn([seed, number]))]
    rows = (rows * 6)[:6]
    batch, model = task.corrupt(rows), model_for(task)
    nats = []
    for row in rows:  # each by itself, without padding
        logits = model(row.ids[None], segments=row.segments[None]).numpy()[0]
        nats.append(np.log(np.exp(logits).sum(axis=0)) - logits[row.target, [0, 1]])
    whole = task.loss(model, batch)
    assert whole.item() == pytest.approx(np.mean(nats), rel=1e-9)
    parts = [batch.rows(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6])]
    losses = [task.loss(model, part, whole=batch) for part in parts]
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), rel=1e-12)
    expected, found = backward(whole), [backward(loss) for loss in losses]
    for name, parameter in model.parameters().items():
        assert (parameter in expected) is not name.startswith(task.unreached)
        total = sum(gradients.get(parameter, 0.0) for gradients in found)
        np.testing.assert_allclose(total, expected.get(parameter, 0.0), rtol=0, atol=1e-12)
    together = task.outputs(model, batch)
    for row, scores in zip(rows, together):
        assert scores.shape == (2, len(row.ids))
        np.testing.assert_allclose(scores, task.outputs(model, task.corrupt([row]))[0], atol=1e-9)


def test_the_gradient_of_the_head_is_the_slope_of_the_loss():
    task = task_of()
    batch = task.corrupt([row for number in range(3) for row in task.rows(drawn(number))])
    assert batch.mask is not None
    model = model_for(task)

    def loss(weight, bias):
        model.head.output.weight, model.head.output.bias = weight, bias
        return task.loss(model, batch)

    check_gradients(loss, model.head.output.weight.numpy(), model.head.output.bias.numpy())


def test_a_model_learns_to_answer():
    """Where the word stands that is asked for, alone or twice in a row; or, if it does not, nothing."""
    rng, keys, others = np.random.default_rng(0), ["a", "b", "c"], ["x", "y", "z"]

    def example():
        told, asked = rng.permutation([*keys[: rng.integers(4)], *others]).tolist(), str(rng.choice(keys))
        if asked not in told:
            return Example((asked, " ".join(told)), ())
        start, count = 2 * told.index(asked), int(rng.integers(1, 3))
        told[start // 2 : start // 2 + 1] = [asked] * count
        return Example((asked, " ".join(told)), ((" ".join([asked] * count), start),))

    train, other = [example() for _ in range(300)], [example() for _ in range(60)]
    tokenizer = WordTokenizer([*keys, *others], special_tokens("encoder"))
    shape = config(tokenizer, 20, width=32, heads=4, hidden=64, positions="rotary")
    task = Answer(tokenizer, shape, labels=Answer.labels_of(train))
    model = task.model(build(shape), nn.Initializer())
    model.assign({name: p.numpy() * (5 if p.ndim > 1 else 1) for name, p in model.parameters().items()})
    rows, flat = [row for one in train for row in task.rows(one)], FlatParameters(model.parameters())
    optimizer, steps = AdamW.of(flat), 250
    with Workers(1) as workers:
        for step in range(1, steps + 1):
            batch = task.corrupt([rows[i] for i in rng.choice(len(rows), 24, replace=False)])
            rate = 1e-2 * min(step / 25, (steps - step) / steps)
            training_step(model, task, flat, optimizer, batch, learning_rate=rate, clip=1.0, step=step, workers=workers)
    found = [task.answer(one, task.outputs(model, task.corrupt(task.rows(one)))) for one in other]
    scores = task.measure(other, found)
    assert scores["exact_match"] > 0.9, scores
