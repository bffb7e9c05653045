"""Rows of tokens by plain loops: the order of marks, segments, what is cut, and how that is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.models import ModelConfig
from tinyformer.objectives import Batch
from tinyformer.tasks import TASKS, Example
from tinyformer.tasks.encoding import Framing, in_steps, shorten, tell_cut
from tinyformer.text import CharTokenizer, make_tokenizer, special_tokens

BYTES = {mode: make_tokenizer("bytes", [], special_tokens=special_tokens(mode)) for mode in ("encoder", "decoder")}
PAD, CLS, SEP, _ = range(256, 260)
MODES = st.sampled_from(["encoder", "decoder"])
TEXTS = st.lists(st.text("abc", min_size=1, max_size=30), min_size=1, max_size=2)


def config(mode="encoder", context=20, **more):
    segments = 2 if mode == "encoder" else 0
    sizes = {"vocabulary": 300, "layers": 1, "heads": 1, "width": 4, "hidden": 4, "segments": segments}
    return ModelConfig(mode=mode, context=context, **sizes | more)


def task(mode="encoder", texts=1, context=20, **more):
    return TASKS["pair" if texts == 2 else "classify"](BYTES[mode], config(mode, context, **more), labels=("n", "y"))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=2), st.integers(1, 50))
def test_the_longer_text_loses_its_last_token_until_both_fit(lengths, most):
    """BERT's `_truncate_seq_pair`, at the end only."""
    kept = list(lengths)
    while sum(kept) > most:
        kept[0 if len(kept) == 1 or kept[0] > kept[1] else 1] -= 1
    assert shorten(lengths, most) == tuple(kept)


@given(TEXTS, st.integers(6, 40))
def test_rows_of_an_encoder(texts, context):
    made = task("encoder", len(texts), context)
    (row,) = made.rows(Example(tuple(texts), "y"))
    kept = [list(text.encode()) for text in texts]
    while 1 + sum(len(text) + 1 for text in kept) > context:
        kept[0 if len(kept) == 1 or len(kept[0]) > len(kept[1]) else 1].pop()
    expected, segments = [CLS], [0]
    for number, text in enumerate(kept):
        expected += [*text, SEP]
        segments += [number] * (len(text) + 1)
    assert row.ids.tolist() == expected
    assert row.ids.dtype == np.int32
    assert (row.segments is None) is (len(texts) == 1)
    assert row.segments is None or row.segments.tolist() == segments
    assert row.cut == sum(map(len, texts)) - sum(map(len, kept))
    assert row.target == 1


@given(TEXTS, st.integers(6, 40), st.booleans())
def test_rows_of_a_decoder(texts, context, ends):
    tokenizer = BYTES["decoder"].with_special_tokens(["</s>"] if ends else [])
    name = "pair" if len(texts) == 2 else "classify"
    made = TASKS[name](tokenizer, config("decoder", context), labels=("n", "y"))
    (row,) = made.rows(Example(tuple(texts)))
    kept = [list(text.encode()) for text in texts]
    while sum(map(len, kept)) + len(kept) - 1 + ends > context:
        kept[0 if len(kept) == 1 or len(kept[0]) > len(kept[1]) else 1].pop()
    expected = kept[0] + ([10, *kept[1]] if len(kept) == 2 else []) + [256] * ends
    assert row.ids.tolist() == expected
    assert row.segments is row.target is None
    assert row.cut == sum(map(len, texts)) - sum(map(len, kept))


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_where_texts_begin(mode):
    framing = Framing(BYTES[mode], config(mode))
    texts = [np.arange(97, 100, dtype=np.int32), np.arange(110, 114, dtype=np.int32)]
    for given_texts in (texts[:1], texts):
        ids, _ = framing.layout(given_texts)
        for start, text in zip(framing.starts(given_texts), given_texts, strict=True):
            assert ids[start : start + len(text)].tolist() == text.tolist()
        assert len(ids) == sum(map(len, given_texts)) + framing.context - framing.room(len(given_texts))


def test_a_model_without_segments_is_given_none():
    for segments in (0, 1):
        (row,) = task("encoder", 2, segments=segments).rows(Example(("a", "b")))
        assert row.segments is None


def test_names_of_special_tokens_are_text():
    (row,) = task().rows(Example(("<sep>",)))
    assert row.ids.tolist() == [CLS, *b"<sep>", SEP]


@given(st.lists(TEXTS.filter(lambda texts: len(texts) == 2), min_size=1, max_size=4), MODES)
def test_batches_are_padded_behind(pairs, mode):
    made = task(mode, 2)
    rows = [row for texts in pairs for row in made.rows(Example(tuple(texts), "y"))]
    batch = made.corrupt(rows)
    longest = max(len(row.ids) for row in rows)
    for number, row in enumerate(rows):
        more = longest - len(row.ids)
        pad = PAD if mode == "encoder" else 0
        assert batch.inputs[number].tolist() == row.ids.tolist() + [pad] * more
        if batch.mask is not None:
            assert batch.mask[number].tolist() == [True] * len(row.ids) + [False] * more
        if mode == "encoder":
            assert batch.segments[number].tolist() == row.segments.tolist() + [0] * more
            assert batch.targets.tolist() == [[1]] * len(rows)
        else:
            told = len(row.ids) - 1
            assert batch.targets[number, :told].tolist() == row.ids[1:].tolist()
            np.testing.assert_allclose(batch.weights[number], [1 / told] * told + [0] * (longest - told), rtol=1e-6)
    assert (batch.mask is None) is (len({len(row.ids) for row in rows}) == 1)
    assert batch.labels.tolist() == [1] * len(rows)


@given(st.lists(st.integers(1, 13), min_size=1, max_size=4), st.integers(13, 40), st.booleans())
def test_padding_in_steps(lengths, context, each):
    length = max(lengths)
    mask = np.arange(length) < np.array(lengths)[:, None]
    inputs = np.where(mask, 7, 9)
    targets = inputs + 1 if each else np.zeros((len(lengths), 2), np.int32)
    batch = Batch(inputs, targets, mask=mask if (~mask).any() else None)
    found = in_steps(batch, 9, context)
    size = found.inputs.shape[1]
    steps = [min(i * -(-context // 8), context) for i in range(1, 9)]
    assert size == min(step for step in steps if step >= length)
    assert found.inputs.tolist() == [[7] * n + [9] * (size - n) for n in lengths]
    assert found.mask.tolist() == [[True] * n + [False] * (size - n) for n in lengths]
    if each or length == 2:
        assert found.targets[:, :length].tolist() == targets.tolist()
        assert found.weights.tolist() == [[1.0] * length + [0.0] * (size - length) for n in lengths]
    else:
        assert found.targets is targets
        assert found.weights is None


def test_what_was_cut_is_counted():
    assert tell_cut(2, 4, 128) == "2 of 4 texts were cut to the context of 128 tokens"
    assert tell_cut(2, 2002, 1024) == "2 of 2,002 texts were cut to the context of 1,024 tokens"
    assert tell_cut(1, 2, 8) == "1 of 2 texts was cut to the context of 8 tokens"
    assert tell_cut(0, 1, 128) is None


def test_what_cannot_be_encoded():
    with pytest.raises(UsageError, match="a context of 4 has no room for 2 texts beside 3 marks"):
        task("encoder", 2, context=4).rows(Example(("a", "b")))
    with pytest.raises(UsageError, match="the tokenizer has no <cls>"):
        TASKS["classify"](BYTES["decoder"], config("encoder"))
    with pytest.raises(UsageError, match=r"^file, line 3: the label 'm' is none of those .*'n', 'y'"):
        task().rows(Example(("a",), "m", "file, line 3"))
    with pytest.raises(UsageError, match="the label 'm' is none of those that were trained on"):
        task().check_examples([Example(("a",), "y"), Example(("a",)), Example(("a",), "m")])
    characters = CharTokenizer("ab", special_tokens("encoder"))
    with pytest.raises(Exception, match=r"^file, line 3 has the character 'c'"):
        TASKS["classify"](characters, config()).rows(Example(("abc",), place="file, line 3"))


@pytest.mark.parametrize("name", ["classify", "pair", "regress"])
def test_a_mode_that_cannot_do_the_task(name):
    shape = config("encoder-decoder", positions="relative", segments=0)
    with pytest.raises(UsageError, match=f"mode encoder-decoder cannot do the task {name}; .* encoder or decoder"):
        TASKS[name](BYTES["encoder"], shape)
