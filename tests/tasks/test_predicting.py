"""Answers to texts without labels: the same whatever stands beside them, in order, soon, and in bounded memory."""

import io
import itertools
import os
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import nn
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.models import build, resolve
from tinyformer.tasks import Classify, Columns, Example, Pair, Regress
from tinyformer.tasks.flow import BATCHES, alike, computed
from tinyformer.tasks.predicting import Tally, predict, read_examples
from tinyformer.text import ByteTokenizer, special_tokens

PATIENCE = 20  # seconds


def made(kind, mode="encoder", labels=("a", "b", "c")):
    """A task, and a model for it with weights that make a difference."""
    tokenizer = ByteTokenizer(special_tokens(mode))
    config = resolve(mode=mode, vocabulary=tokenizer.vocabulary_size, layers=1, heads=2, width=16, context=24)
    task = kind(tokenizer, config, labels=labels)
    model = task.model(build(config), nn.Initializer("numpy", "float32", 1))
    rng = np.random.default_rng(2)
    model.assign({name: rng.normal(0, 0.3, p.shape).astype(np.float32) for name, p in model.parameters().items()})
    return task, model


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def classifier(request):
    return made(Classify, request.param)


def shares(answers):
    return np.array([[answer["probabilities"][label] for label in "abc"] for answer in answers])


TEXTS = ["x" * (1 + 7 * i % 19) + "yz"[i % 2] * (i % 5) for i in range(50)]
EXAMPLES = [Example((text,), place=f"line {number}") for number, text in enumerate(TEXTS, 1)]


def test_neither_the_batch_nor_the_order_of_the_texts_changes_an_answer(classifier):
    """Except for the rounding of sums, of which the six digits that are shown hold little."""
    alone = shares([next(predict(*classifier, [example])) for example in EXAMPLES])
    assert len(np.unique(alone, axis=0)) > 20
    for size, threads, live in itertools.product((1, 3, 16, 64), (1, 2), (False, True)):
        answers = list(predict(*classifier, EXAMPLES, batch_size=size, threads=threads, live=live))
        np.testing.assert_allclose(shares(answers), alone, atol=2e-6)
    np.testing.assert_allclose(shares(predict(*classifier, EXAMPLES[::-1])), alone[::-1], atol=2e-6)


def test_the_same_file_gives_the_same_bits_with_any_number_of_threads(classifier):
    assert list(predict(*classifier, EXAMPLES)) == list(predict(*classifier, EXAMPLES, threads=3))


def test_a_label_is_not_looked_at(classifier):
    known = [Example(example.texts, "unheard of") for example in EXAMPLES]
    assert list(predict(*classifier, known)) == list(predict(*classifier, EXAMPLES))


def test_lines_without_a_text_are_answered_with_none_and_counted():
    tally, task = Tally(), made(Classify)
    long = Example(("x" * 30,))
    answers = list(predict(*task, [EXAMPLES[0], Example(()), long, Example(()), EXAMPLES[1]], tally=tally))
    assert [answer is None for answer in answers] == [False, True, False, True, False]
    assert tally == Tally(texts=3, blank=2, cut=1)
    assert list(tally.warnings(24, "answered with null")) == [
        "2 blank lines were answered with null",
        "1 of 3 texts was cut to the context of 24 tokens",
    ]
    assert list(Tally(texts=3).warnings(24, "")) == []


@pytest.mark.parametrize("live", [False, True])
def test_what_comes_before_a_mistake_is_answered(live):
    def broken():
        yield from EXAMPLES[:20]
        raise UsageError("line 21 is bad")

    found, answers = None, predict(*made(Classify), broken(), batch_size=2, live=live)
    count = 0
    try:
        for _ in answers:
            count += 1
    except UsageError as error:
        found = str(error)
    assert (count, found) == (20, "line 21 is bad")


def test_weights_that_are_no_numbers_are_told():
    task, model = made(Regress, labels=())
    model.head.output.weight.array[:] = np.nan
    with pytest.raises(TinyformerError, match="the answer to line 1 is not finite: the weights are damaged"):
        next(predict(task, model, EXAMPLES))


@given(st.lists(st.integers(0, 5)), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_every_item_comes_back_in_order_with_its_own_results(counts, batch_size, threads, live):
    """Items are numbers of rows; a row says whose it is; what is computed of it says that, too."""
    batches = []

    def compute(rows):
        batches.append(len(rows))
        return [("of", *row) for row in rows]

    items = list(enumerate(counts))
    found = computed(
        items,
        lambda item: [(item[0], place) for place in range(item[1])],
        lambda row: row[0] % 3,
        compute,
        batch_size=batch_size,
        threads=threads,
        live=live,
    )
    assert list(found) == [((i, n), [("of", i, place) for place in range(n)]) for i, n in items]
    assert max(batches, default=0) <= batch_size
    assert sum(batches) == sum(counts)


@given(st.lists(st.integers(1, 30)), st.integers(1, 5))
def test_batches_hold_rows_of_like_length(lengths, most):
    batches = alike(lengths, most)
    assert Counter(number for batch in batches for number in batch) == Counter(range(len(lengths)))
    assert [lengths[number] for batch in batches for number in batch] == sorted(lengths, reverse=True)
    assert all(len(batch) == most for batch in batches[:-1])


@pytest.mark.parametrize("live", [False, True])
def test_no_more_is_read_ahead_than_was_said(live):
    """An endless source: what has been taken from it stays a constant ahead of what came out."""
    taken = []
    endless = (taken.append(number) or number for number in itertools.count())
    answers = computed(endless, lambda item: [item], lambda row: 1, list, batch_size=2, live=live)
    for number in range(2000):
        assert next(answers) == (number, [number])
        assert len(taken) <= number + 2 * 2 * BATCHES + 1
    answers.close()


def test_a_line_is_answered_before_the_next_one_is_there():
    """If it were not, this would wait for ever; so the answers come in a thread that is given up."""
    read, write = os.pipe()
    answered, waiting = [], threading.Condition()

    def run():
        with os.fdopen(read, "rb") as source:
            for answer in predict(*made(Classify), read_examples(Classify, source), live=True):
                with waiting:
                    answered.append(answer)
                    waiting.notify()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with os.fdopen(write, "wb", buffering=0) as sink:
        for number in range(1, 4):
            sink.write(b"some text\n")
            with waiting:
                assert waiting.wait_for(lambda number=number: len(answered) == number, PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_whoever_stops_listening_ends_the_reading():
    before = threading.active_count()
    answers = computed(itertools.count(), lambda item: [item], lambda row: 1, list, live=True)
    next(answers)
    reader = next(thread for thread in threading.enumerate() if thread.name.startswith("reader of"))
    answers.close()
    reader.join(PATIENCE)
    assert threading.active_count() <= before


USUAL = Columns(text="review", label="stars", optional=True)


@pytest.mark.parametrize(
    ("kind", "name", "content", "columns", "expected"),
    [
        (Classify, "a.txt", "one\n\ntwo\tlabel\n", Columns(), [("one",), (), ("two",)]),
        (Classify, "a.txt", "x\tbody\n1\tone\n", Columns(text="body"), [("one",)]),
        (Classify, "a.csv", 'n,review\n1,"o,ne"\n', Columns(), [("o,ne",)]),
        (Classify, "a.csv", "review,stars\none,\n", Columns(), [("one",)]),
        (Classify, "a.tsv", "n\treview\n1\tone\n", Columns(), [("one",)]),
        (Classify, "a.txt", "review\tstars\none\t1\n", Columns(), [("one",)]),
        (Classify, "a.txt", "review\none\n", Columns(), [("one",)]),
        (Classify, "a.jsonl", '{"review": "one", "stars": [1]}\n', Columns(), [("one",)]),
        (Classify, "a.jsonl", '{"body": "one"}\n', Columns(text="body"), [("one",)]),
        (Pair, "a.txt", "one\ttwo\nthree\tfour\tlabel\n", Columns(), [("one", "two"), ("three", "four")]),
        (Regress, "a.txt", "one\ttwo\n", Columns(), [("one", "two")]),
        (Regress, "a.txt", "one\tno number\nthree\tfour\n", Columns(), [("one", "no number"), ("three", "four")]),
    ],
)
def test_files_of_every_form(kind, name, content, columns, expected, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    found = list(read_examples(kind, path, columns, usual=USUAL))
    assert [example.texts for example in found] == expected
    assert all(example.label is None for example in found)


def test_a_header_alone_is_no_example(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n")
    with pytest.raises(UsageError, match=r"a.csv has no example, only a header; add lines below it$"):
        next(read_examples(Classify, path))
    path.write_text("text,label\n\n")
    assert [example.texts for example in read_examples(Classify, path)] == [()]


def test_plain_lines_and_json_on_standard_input():
    for content, expected in ((b"one\ntwo\n", ["one", "two"]), (b'{"review": "one"}\n', ["one"])):
        for source in (io.BytesIO(content), io.BufferedReader(io.BytesIO(content))):
            assert [e.texts[0] for e in read_examples(Classify, source, usual=USUAL)] == expected
