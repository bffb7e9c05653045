"""Rows of every objective: each text is read as a whole, nothing depends on how it is cut, documents stay apart."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.objectives import Batch, CausalLM, MaskedLM, NextSentence, Objective, Seq2Seq, SpanCorruption
from tinyformer.text import make_tokenizer, special_tokens
from tinyformer.text.sources import DUPLICATES, encode_text, open_source, split_text


class Shown(Objective):
    """Shows the rows it is given, and a random number for each."""

    name, mode = "shown", "decoder"

    def __init__(self, size, overlap):
        self.size, self.overlap = size, overlap

    def row_tokens(self, context):
        return self.size

    def corrupt(self, rows, rngs):
        return Batch(np.stack(rows), np.array([[rng.random()] for rng in rngs]))


def tokens_of(folder, text, objective, mode="encoder", context=8):
    path = folder / "text.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    tokenizer = make_tokenizer("bytes", [path], special_tokens=special_tokens(mode))
    made = objective(tokenizer) if callable(objective) else objective
    return made, encode_text(made, path, tokenizer, folder / "text.tokens", context=context)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 8), st.integers(1, 5))
def test_rows_in_order_make_up_the_text(tmp_path_factory, length, stride, overlap, rows):
    size = stride + overlap
    text = bytes(range(40, 40 + length))
    shown, tokens = tokens_of(tmp_path_factory.mktemp("text"), text, Shown(size, overlap), "decoder")
    batches = list(open_source(shown, tokens, size, seed=0).in_order(rows))
    assert all(len(batch) <= rows for batch in batches)
    found = [row.tolist() for batch in batches for row in batch.inputs]
    joined = sum((row[overlap:] for row in found), found[0][:overlap] if found else [])
    # Only what has nothing to predict in it may be missing: the overlap alone, or a single token.
    missing = len(text) - len(joined)
    assert joined == list(text[: len(joined)])
    assert missing <= max(1, overlap) if not joined else missing <= max(0, 1 - overlap)


def test_what_is_random_in_a_row_depends_on_nothing_beside_it(tmp_path):
    shown, tokens = tokens_of(tmp_path, bytes(range(100)), Shown(9, 1), "decoder")
    source = open_source(shown, tokens, 8, seed=3)
    many, few = [list(source.in_order(rows)) for rows in (5, 2)]
    for name in ("inputs", "targets"):
        joined = [np.concatenate([getattr(batch, name) for batch in way[:-1]]) for way in (many, few)]
        np.testing.assert_array_equal(*joined)
    np.testing.assert_array_equal(source.batch(4, 3).targets, source.batch(4, 6).targets[:3])
    draws = np.concatenate([source.batch(step, 5).targets for step in range(1, 9)])
    assert len(np.unique(draws)) == draws.size
    in_order = np.concatenate([batch.targets for batch in many])
    assert len(np.unique(in_order)) == in_order.size
    assert not np.intersect1d(draws, in_order).size


def test_some_rows_are_spread_over_the_text(tmp_path):
    shown, tokens = tokens_of(tmp_path, bytes(range(203)), Shown(4, 0), "decoder")
    source = open_source(shown, tokens, 4, seed=0)
    assert [b.inputs[:, 0].tolist() for b in source.in_order(3, 20)] == [[0, 40, 80], [120, 160]]
    assert next(source.in_order(3, 1)).inputs.tolist() == [[0, 1, 2, 3]]


def test_fixed_rows_come_again_after_ten_epochs_and_others_never(tmp_path):
    shown, tokens = tokens_of(tmp_path, bytes(range(100)), Shown(10, 0), "decoder")
    source = open_source(shown, tokens, 10, seed=0, fixed=True)
    epochs = []  # of ten windows each: what is drawn for each window
    for epoch in range(2 * DUPLICATES):
        batch = source.batch(epoch + 1, 10)
        assert sorted(batch.inputs[:, 0].tolist()) == list(range(0, 100, 10))
        epochs.append(dict(zip(batch.inputs[:, 0].tolist(), batch.targets[:, 0].tolist())))
    assert epochs[:DUPLICATES] == epochs[DUPLICATES:]
    assert len({draw for epoch in epochs for draw in epoch.values()}) == 100
    other = open_source(shown, tokens, 10, seed=0)
    assert len({draw for step in range(1, 21) for draw in other.batch(step, 10).targets[:, 0].tolist()}) == 200


class Stretches(NextSentence):
    """Shows the two stretches."""

    def corrupt(self, rows, rngs):
        return rows


def documents(tokenizer, kind=Stretches):
    return kind.of(tokenizer, 8, line_ends=np.zeros(tokenizer.vocabulary_size, bool))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 99))
def test_stretches_lie_in_one_document_each_and_cover_all(tmp_path_factory, lengths, seed):
    text = b"\n\n".join(bytes([65 + i]) * length for i, length in enumerate(lengths))
    objective, tokens = tokens_of(tmp_path_factory.mktemp("text"), text, documents)
    source = open_source(objective, tokens, 8, seed)
    seen = Counter()
    for rows in [source.batch(1, len(source)), *source.in_order(3)]:
        for stretch, other in rows:
            assert len(set(stretch.tolist())) == len(set(other.tolist())) == 1
            assert stretch[0] != other[0]
            for part in (stretch, other):
                assert len(part) == min(objective.row_tokens(8), lengths[part[0] - 65])
            seen[int(stretch[0])] += len(stretch)
    assert all(seen[65 + i] >= 2 * length for i, length in enumerate(lengths))  # once in each way


def test_another_document_is_seen_from_anywhere(tmp_path):
    """31 places from which ten of its forty tokens follow: each is missed in 400 rows once in 10^5."""
    text = bytes(range(40, 80)) + b"\n\n" + bytes(range(100, 140))
    objective, tokens = tokens_of(tmp_path, text, documents)
    assert objective.row_tokens(8) == 10
    others = [other for _, other in open_source(objective, tokens, 8, 0).batch(1, 800)]
    assert {int(other[0]) for other in others} == {*range(40, 71), *range(100, 131)}
    assert all(np.array_equal(other, other[0] + np.arange(10)) for other in others)


def test_next_sentences_need_another_document(tmp_path):
    with pytest.raises(UsageError, match=r"needs at least two documents, and \S+/text\.txt has 1 to score; put blank"):
        tokens_of(tmp_path, "one\ntwo\nthree", documents)
    path = tmp_path / "text.txt"
    path.write_text("one two\n\nthree four\n\n" + "five six seven eight " * 3)
    tokenizer = make_tokenizer("bytes", [path], special_tokens=special_tokens("encoder"))
    with pytest.raises(UsageError, match=r"/text\.txt has 1 to validate on; put blank"):
        split_text(documents(tokenizer), [path], tokenizer, tmp_path, validation=0.6, context=8)


def test_pairs_and_how_common_their_targets_are(tmp_path):
    text = "".join(f"{'ab' * i}\t{'xyz'[i % 3] * i}\n" for i in range(1, 8))
    objective, tokens = tokens_of(tmp_path, text, lambda t: Seq2Seq.of(t, 20), "encoder-decoder", 20)
    source = open_source(objective, tokens, 20, 0)
    assert len(source) == 7
    expected = Counter("".join(line.partition("\t")[2] for line in text.splitlines()))
    counts = source.target_counts()
    assert counts[objective.end] == 7
    assert {chr(i): counts[i] for i in range(256) if counts[i]} == expected
    epoch = source.batch(1, 7)
    assert sorted(epoch.weights.sum(1).tolist()) == list(range(2, 9))
    assert [batch.inputs[0, 1] for batch in source.in_order(1)] == [ord("b")] * 7


@pytest.mark.parametrize(
    ("objective", "mode", "needed"),
    [
        (lambda t: CausalLM.of(t, 16), "decoder", 17),
        (lambda t: MaskedLM.of(t, 16), "encoder", 16),
        (lambda t: SpanCorruption.of(t, 16), "encoder-decoder", 17),
    ],
)
def test_a_text_shorter_than_a_row_is_told_with_what_would_do(tmp_path, objective, mode, needed):
    path = tmp_path / "short.txt"
    path.write_text("ten chars." * 2)
    tokenizer = make_tokenizer("bytes", [path], special_tokens=special_tokens(mode))
    made = objective(tokenizer)
    assert made.row_tokens(16) == needed
    with pytest.raises(UsageError, match=f"but a context of 16 needs {needed}; give .*--validation|more text"):
        split_text(made, [path], tokenizer, tmp_path, validation=0.5, context=16)
    train, held_out = split_text(made, [path], tokenizer, tmp_path, validation=0.5, context=5)
    assert len(train) >= made.row_tokens(5) <= len(held_out)
