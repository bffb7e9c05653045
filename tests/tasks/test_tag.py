"""Tags of words: where each word's tag is asked, windows, loss, and sentences that need context."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks import sentences
from tests.tasks.kinds import LOSSLESS, MARKS, TOKENIZERS, WORDS, config, model_for
from tinyformer import backward, check_gradients, nn
from tinyformer.errors import UsageError
from tinyformer.models import ModelConfig, build
from tinyformer.tasks import Example
from tinyformer.tasks.tag import Tag
from tinyformer.text import WordTokenizer
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import Workers, training_step

LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
each = pytest.mark.parametrize("kind", TOKENIZERS)
drawn_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14)


def read(text, **how):
    return list(Tag.stream(io.BytesIO(text.encode()), **how))


def tagger(kind="bytes", context=24, labels=LABELS):
    return Tag(TOKENIZERS[kind], config(TOKENIZERS[kind], context), labels=labels)


def drawn(words, seed, tags=LABELS):
    rng = np.random.default_rng(seed)
    return Example(tuple(words), tuple(str(tag) for tag in rng.choice(tags, len(words))), "f, line 1")


def outputs(task, model, example):
    """Row by row, so that nothing is padded."""
    return [task.outputs(model, task.corrupt([row]))[0] for row in task.rows(example)]


# Labels


def test_labels_are_both_tags_of_each_type():
    examples = read("a B-PER\nb O\nc B-PER\n\nx B-LOC\ny I-LOC\nz B-LOC\n")
    assert Tag.labels_of(examples) == LABELS
    assert Tag.balance(examples) == {"PER": 2, "LOC": 2}
    assert Tag.balance(read("a B\nb I\nc B\n")) == {"entity": 2}
    assert Tag.summary(examples) == {"words": 6, "outside": 1}
    assert Tag.labels_of(read("a B\nb I\nc B\n")) == ("B", "I", "O")
    with pytest.raises(UsageError, match="line 4: the only entity of type 'LOC' is here, too little to learn from"):
        Tag.labels_of(read("a B-PER\nb B-PER\n\nc B-LOC\nd I-LOC\n"))
    with pytest.raises(UsageError, match=r"^standard input has no entity, every tag is O"):
        Tag.labels_of(read("a O\nb O\n"))


def test_a_tag_that_was_not_trained_on_is_named():
    examples = read("a O\nb B-ORG\n")
    for call in (tagger().check_examples, lambda examples: tagger().rows(examples[0])):
        with pytest.raises(UsageError, match=r"line 2: the tag 'B-ORG' of the word 'b' is none of .*\(B-LOC, B-PER"):
            call(examples)
    tagger().check_examples(read("a B-PER\nb I-PER\nc O\n"))


@pytest.mark.parametrize("mode", ["decoder", "encoder-decoder"])
def test_models_that_cannot_tag(mode):
    other = ModelConfig(vocabulary=300, context=8, layers=1, heads=1, width=8, hidden=8, mode=mode)
    with pytest.raises(UsageError, match=f"a model of mode {mode} cannot do the task tag"):
        Tag(TOKENIZERS["bytes"], other, labels=LABELS)


# Words and sub-words


def first_by_loops(kind, words):
    """The first token of each word, by the bytes that tokens decode to, or word by word."""
    tokenizer = TOKENIZERS[kind]
    found, done = [], 0
    if kind in LOSSLESS:
        begins, text = [], b""
        for word in words:
            begins.append(len(text))
            text += word.encode() + b" "
        ids = tokenizer.encode(" ".join(words)).tolist()
        for begin in begins:
            done = token = 0
            while done + len(tokenizer.decode([ids[token]])) <= begin:
                done += len(tokenizer.decode([ids[token]]))
                token += 1
            found.append(token)
        return found
    for number, word in enumerate(words):
        ids = tokenizer.encode(f" {word}" if number else word)
        found.append(done + (number > 0 and tokenizer.decode(ids[:1]) == b" "))  # a space is no part of the word
        done += len(ids)
    assert done == len(tokenizer.encode(" ".join(words)))
    return found


@each
@given(drawn_words, st.integers(0, 99))
def test_the_first_sub_word_of_each_word_carries_its_tag(kind, words, seed):
    task, example = tagger(kind, 400), drawn(words, seed)
    (row,) = task.rows(example)
    tokenizer = TOKENIZERS[kind]
    expected = [tokenizer.special_id("cls"), *tokenizer.encode(" ".join(words)), tokenizer.special_id("sep")]
    assert row.ids.tolist() == expected
    targets = [-1] * len(expected)
    for token, tag in zip(first_by_loops(kind, words), example.label):
        targets[token + 1] = LABELS.index(tag)
    assert row.target.tolist() == targets
    batch = task.corrupt([row, task.rows(drawn(words[:1], seed))[0]])
    assert (batch.weights[0] > 0).tolist() == [target >= 0 for target in targets]
    assert batch.targets[0][batch.weights[0] > 0].tolist() == [target for target in targets if target >= 0]
    assert batch.weights.sum() == len(words) + 1
    assert row.cut == 0


def test_a_word_that_nothing_is_left_of_is_no_entity():
    if "word pieces" not in TOKENIZERS:
        pytest.skip("needs the tokenizers package")
    task = tagger("word pieces")
    example = Example(("paris", "\u200b", "the"), ("B-LOC", "B-PER", "O"))
    (row,) = task.rows(example)
    assert row.target.tolist() == [-1, 0, 4, -1]
    model = model_for(task)
    answer = task.answer(example, outputs(task, model, example))
    assert answer[1] == "O"
    alone = Example(("\u200b",), ("B-PER",))
    assert task.corrupt(task.rows(alone)).weights.sum() == 0
    assert task.answer(alone, outputs(task, model, alone)) == ("O",)
    assert task.loss(model, task.corrupt(task.rows(alone))).item() == 0


@each
@given(drawn_words, st.integers(3, 30), st.integers(0, 99))
def test_windows_ask_each_word_once_where_most_is_around_it(kind, words, context, seed):
    task, example = tagger(kind, context), drawn(words, seed)
    rows, room = task.rows(example), context - 2
    ids = TOKENIZERS[kind].encode(" ".join(words)).tolist()
    first = first_by_loops(kind, words)
    stops = [*first[1:], len(ids)]
    asked, shown = [], []  # of all rows; of each row, the words that it has
    for row in rows:
        assert len(row.ids) <= context
        numbers, places = (found.tolist() for found in row.origin)
        asked += numbers
        assert [row.target[place] for place in places] == [LABELS.index(example.label[word]) for word in numbers]
        assert sum(row.target >= 0) == len(places)
        if numbers:
            begin = first[numbers[0]] - (places[0] - 1)
            end = begin + len(row.ids) - 2 + row.cut
            shown.append([word for word in range(len(words)) if begin <= first[word] and stops[word] <= end])
            assert row.ids[1:-1].tolist() == ids[begin : end - row.cut]
            assert row.cut == max(0, end - begin - room)
            assert row.cut == 0 or len(shown[-1]) == 1
            assert begin in (0, *first)
            assert end in stops
            assert set(numbers) <= set(shown[-1])
    assert asked == list(range(len(words)))
    if sum(row.cut for row in rows) == 0 and len(ids) <= room:
        assert len(rows) == 1
    for row, here in zip((row for row in rows if len(row.origin[0])), shown):
        for word in row.origin[0].tolist():
            around = [min(word - other[0], other[-1] - word) for other in shown if word in other]
            assert min(word - here[0], here[-1] - word) == max(around)


def test_windows_overlap_by_half():
    tokenizer = WordTokenizer([f"w{i}" for i in range(9)], MARKS)
    task, words = Tag(tokenizer, config(tokenizer, 6), labels=LABELS), [f"w{i}" for i in range(9)]
    rows = task.rows(Example(tuple(words)))
    assert [row.ids[1:-1].tolist() for row in rows] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8]]
    assert [row.origin[0].tolist() for row in rows] == [[0, 1, 2], [3, 4], [5, 6], [7, 8]]
    assert [row.target for row in rows] == [None] * 4


# What is said


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(1, 5)))
def test_losses_and_gradients_of_parts_add_up(seed, cuts):
    rng = np.random.default_rng(seed)
    task = tagger("pairs", 14)
    rows = [row for n in rng.integers(1, 9, 3) for row in task.rows(drawn(rng.choice(WORDS, n), seed))]
    rows = (rows * 6)[:6]
    batch, model = task.corrupt(rows), model_for(task)
    logits = model(batch.inputs, **batch.keywords).numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nats = [-log_p[i, j, row.target[j]] for i, row in enumerate(rows) for j in np.flatnonzero(row.target >= 0)]
    whole = task.loss(model, batch)
    assert whole.item() == pytest.approx(np.mean(nats), rel=1e-12)
    score = task.score(model, batch)
    assert (score["nats"], score["tokens"]) == (pytest.approx(sum(nats), rel=1e-12), len(nats))
    parts = [batch.rows(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6])]
    losses = [task.loss(model, part, whole=batch) for part in parts]
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), rel=1e-12)
    expected, found = backward(whole), [backward(loss) for loss in losses]
    for name, parameter in model.parameters().items():
        assert (parameter in expected) is not name.startswith(task.unreached)
        total = sum(gradients.get(parameter, 0.0) for gradients in found)
        np.testing.assert_allclose(total, expected.get(parameter, 0.0), rtol=0, atol=1e-12)


def test_the_gradient_of_the_head_is_the_slope_of_the_loss():
    task = tagger("pairs")
    model, batch = model_for(task), task.corrupt(task.rows(drawn(WORDS[:5], 0)))

    def loss(weight, bias):
        model.head.output.weight, model.head.output.bias = weight, bias
        return task.loss(model, batch)

    check_gradients(loss, model.head.output.weight.numpy(), model.head.output.bias.numpy())


@given(drawn_words, st.integers(0, 99))
def test_answers_are_the_most_probable_tags_mended_to_bio(words, seed):
    task, example = tagger("spaces", 16), drawn(words, seed)
    model = model_for(task)
    found = outputs(task, model, example)
    shares = np.concatenate(found)
    assert shares.shape == (len(words), len(LABELS))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    raw = [LABELS[i] for i in shares.argmax(axis=1)]
    mended, before = [], "O"
    for tag in raw:
        mended.append("B" + tag[1:] if tag[0] == "I" and (before == "O" or before[2:] != tag[2:]) else tag)
        before = tag
    assert task.answer(example, found) == tuple(mended)
    said = json.loads(json.dumps(task.describe(example, found)))
    assert (said["words"], said["tags"]) == (words, mended)
    assert [one["text"] for one in said["entities"]] == [
        " ".join(words[one["start"] : one["stop"]]) for one in said["entities"]
    ]
    assert sum(one["stop"] - one["start"] for one in said["entities"]) == sum(tag != "O" for tag in mended)
    for one in said["entities"]:
        least = shares.max(axis=1)[one["start"] : one["stop"]].min()
        assert one["probability"] == pytest.approx(least, abs=1e-6)
    together = task.outputs(model, task.corrupt(task.rows(example)))  # with padding beside each other
    np.testing.assert_allclose(np.concatenate(together), shares, atol=1e-12)
    assert task.measure([example], [example.label])["accuracy"] == 1


# Sentences whose entities need context


def test_drawn_words_tell_nothing_without_their_neighbours():
    drawn = [sentences.sentence(np.random.default_rng([0, i])) for i in range(3000)]
    counts = {word: dict.fromkeys("OPLB", 0) for word in sentences.WORDS}
    for words, tags in drawn:
        assert len(words) == len(tags)
        for word, tag in zip(words, tags):
            if word in counts:
                counts[word]["O" if tag == "O" else "B"] += 1
    shares = [found["O"] / (found["O"] + found["B"]) for found in counts.values()]
    assert 0.15 < min(shares) < max(shares) < 0.35  # one kind of four is no entity


def test_a_tagger_learns_from_context():
    """Few words and phrases, and seconds; of the whole set, which the issue asks 95 % of, see `sentences.py`."""
    phrases = {"LOC": ["in _ it rained"], "PER": ["_ said no"], "O": ["the _ was cold"]}
    few = {"names": sentences.WORDS[:4], "phrases": phrases}
    train, other = (read(sentences.columns(count, seed, **few)) for count, seed in ((200, 0), (60, 1)))
    vocabulary = sorted({word for example in train for word in example.texts})
    tokenizer = WordTokenizer(vocabulary, MARKS)
    task = Tag(
        tokenizer,
        config(tokenizer, 40, width=32, heads=4, hidden=64, positions="rotary"),
        labels=Tag.labels_of(train),
    )
    model = task.model(build(task.config), nn.Initializer())
    # Weights of the size that a width of 32 wants, for which 0.02 is slow to leave.
    model.assign({name: p.numpy() * (5 if p.ndim > 1 else 1) for name, p in model.parameters().items()})
    rows, flat = [row for example in train for row in task.rows(example)], FlatParameters(model.parameters())
    optimizer, rng, steps = AdamW.of(flat), np.random.default_rng(0), 150
    with Workers(1) as workers:
        for step in range(1, steps + 1):
            batch = task.corrupt([rows[i] for i in rng.choice(len(rows), 16, replace=False)])
            rate = 1e-2 * min(step / 15, (steps - step) / steps)
            training_step(model, task, flat, optimizer, batch, learning_rate=rate, clip=1.0, step=step, workers=workers)
    found = [task.answer(example, outputs(task, model, example)) for example in other]
    assert task.measure(other, found)["f1"] > 0.95
