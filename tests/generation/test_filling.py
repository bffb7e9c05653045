"""Filling in masks and spans, compared with the model's own logits and with answers scripted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.generation import fill_masks, fill_spans
from tinyformer.models import ModelConfig, build
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, special_tokens

SHAPE = {"layers": 2, "width": 16, "heads": 2, "hidden": 32, "context": 32}
LETTERS = CharTokenizer(" abcd", special_tokens("encoder"))
SPANS = CharTokenizer(" abcd", special_tokens("encoder-decoder"))


def encoder(tokenizer=LETTERS, seed=0, more=0, **given):
    vocabulary = tokenizer.vocabulary_size + more
    model = build(ModelConfig(vocabulary=vocabulary, mode="encoder", **SHAPE | given), dtype="float64", seed=seed)
    for parameter in model.parameters().values():
        parameter.array *= 6 if parameter.ndim == 2 else 1
    return model


@given(st.text(" abcd", max_size=8), st.text(" abcd", max_size=8), st.integers(0, 100))
def test_candidates_are_the_softmax_at_the_mask(before, after, seed):
    model = encoder(seed=seed)
    cls, sep, mask = (LETTERS.special_tokens[name] for name in ("<cls>", "<sep>", "<mask>"))
    ids = [cls, *LETTERS.encode(before), mask, *LETTERS.encode(after), sep]
    logits = model(np.array([ids])).numpy()[0, 1 + len(before)]
    probability = np.exp(logits) / np.exp(logits).sum()
    (found,) = fill_masks(model, LETTERS, f"{before}<mask>{after}", top=99)
    assert [each.token for each in found] == np.argsort(-probability, kind="stable").tolist()
    assert [each.probability for each in found] == pytest.approx(sorted(probability, reverse=True))
    for each in found:
        assert each.text == LETTERS.decode([each.token])
        assert each.sentence == before.encode() + each.text + after.encode()


def test_each_mask_is_filled_by_itself():
    model = encoder()
    found = fill_masks(model, LETTERS, b"a<mask>b<mask>", top=2)
    assert [len(mask) for mask in found] == [2, 2]
    assert found[0][0].sentence == b"a" + found[0][0].text + b"b<mask>"
    assert found[1][1].sentence == b"a<mask>b" + found[1][1].text


def test_any_spelling_of_the_mask_will_do():
    named = CharTokenizer(" abcd", ["[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    model = encoder(named)
    found = fill_masks(model, named, b"a<mask>b")
    assert found == fill_masks(model, named, b"a[MASK]b")
    same = fill_masks(model, LETTERS, b"a[MASK]b")
    assert [each.token for each in found[0]] == [each.token for each in same[0]]


def test_the_space_before_a_mask_belongs_to_it():
    """As in the text that the model was trained on, where " b" is one token."""
    tokenizer = BPETokenizer([(32, 98)], special_tokens("encoder"))
    (found,) = fill_masks(encoder(tokenizer), tokenizer, b"a <mask> c", top=tokenizer.vocabulary_size)
    sentences = {each.text: each.sentence for each in found}
    assert (sentences[b" b"], sentences[b"s"]) == (b"a b c", b"as c")
    found = fill_masks(encoder(tokenizer), tokenizer, b"<mask> c <mask>", top=tokenizer.vocabulary_size)
    assert {each.text: each.sentence for each in found[0]}[b" b"] == b"b c <mask>"
    assert {each.text: each.sentence for each in found[1]}[b" b"] == b"<mask> c b"


def test_room_for_more_tokens_than_there_are_is_no_candidate():
    model = encoder(more=50)
    (found,) = fill_masks(model, LETTERS, b"a<mask>", top=1000)
    assert sorted(each.token for each in found) == list(range(LETTERS.vocabulary_size))
    assert sum(each.probability for each in found) == pytest.approx(1)


class Written:
    """An encoder-decoder that writes one of a few answers, each with its probability, to any source."""

    def __init__(self, answers, tokenizer=SPANS, **given):
        self.tokenizer, self.answers = tokenizer, {tokenizer.encode_marked(text).tobytes(): p for text, p in answers}
        size = tokenizer.vocabulary_size
        self.config = ModelConfig(vocabulary=size, mode="encoder-decoder", **SHAPE | {"positions": "relative"} | given)

    def encode(self, source, mask=None):
        self.source, self.rows = self.tokenizer.decode(source[0]), [b""]

    def new_cache(self, rows, memory=None):
        return self

    def select(self, parents):
        self.rows = [self.rows[parent] for parent in parents]

    def decode(self, ids, memory, *, cache, last_only, mask=None):
        start = self.rows == [b""] and ids[0, 0] == self.tokenizer.special_id("pad")
        self.rows = [row if start else row + ids[i].astype(np.int32).tobytes() for i, row in enumerate(self.rows)]
        p = np.full((len(ids), 1, self.config.vocabulary), 1e-12)
        for i, row in enumerate(self.rows):
            for answer, share in self.answers.items():
                if answer.startswith(row) and len(answer) > len(row):
                    p[i, 0, np.frombuffer(answer[len(row) : len(row) + 4], np.int32)[0]] += share
        return type("Logits", (), {"array": np.log(p)})


def test_spans_are_read_between_the_sentinels():
    model = Written([("<extra_id_0>b<extra_id_1>cd<extra_id_2>", 0.7), ("<extra_id_0><extra_id_1> a</s>", 0.3)])
    best, second = fill_spans(model, SPANS, "a <mask> a <mask> a", top=2)
    assert model.source == b"a <extra_id_0> a <extra_id_1> a</s>"
    assert (best.spans, best.sentence) == ((b"b", b"cd"), b"a b a cd a")
    assert best.probability == pytest.approx(0.7)
    assert best.answer == b"<extra_id_0>b<extra_id_1>cd"
    assert (second.spans, second.sentence) == ((b"", b" a"), b"a  a  a a")
    assert second.probability == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("answer", "spans", "sentence"),
    [
        ("<extra_id_1>b</s>", [None, b"b"], b"<extra_id_0> b"),
        ("<extra_id_1>b<extra_id_0>c</s>", [b"c", b"b"], b"c b"),
        ("a<extra_id_0>b<extra_id_0>c<extra_id_1>d</s>", [b"b", b"d"], b"b d"),
        ("</s>", [None, None], b"<extra_id_0> <extra_id_1>"),
        ("<extra_id_0>a<extra_id_5>b<extra_id_1>c</s>", [b"a", None], b"a <extra_id_1>"),
    ],
)
def test_an_answer_that_is_not_as_it_was_trained(answer, spans, sentence):
    (filling,) = fill_spans(Written([(answer, 1.0)]), SPANS, b"<mask> <mask>", top=1)
    assert (filling.spans, filling.sentence) == (tuple(spans), sentence)


def test_answers_with_the_same_spans_are_one():
    answers = [("<extra_id_0>a</s>", 0.3), ("<extra_id_0>b</s>", 0.4), ("<extra_id_0>a<extra_id_1>", 0.3)]
    found = fill_spans(Written(answers), SPANS, b"<mask>", top=3)
    assert [each.spans for each in found] == [(b"a",), (b"b",)]
    assert [each.probability for each in found] == pytest.approx([0.6, 0.4])


def test_an_answer_longer_than_the_context_is_shown_as_far_as_it_goes():
    model = Written([("<extra_id_0>" + "a" * 20 + "</s>", 1.0)], context=8)
    (filling,) = fill_spans(model, SPANS, b"<mask>", top=1)
    assert filling.spans == (b"a" * 7,)


def test_masks_take_the_sentinels_that_the_sentence_has_not():
    model = Written([("</s>", 1.0)])
    fill_spans(model, SPANS, b"<mask> <extra_id_0> [MASK] <extra_id_2>")
    assert model.source == b"<extra_id_1> <extra_id_0> <extra_id_3> <extra_id_2></s>"


@pytest.mark.parametrize("seed", range(3))
def test_one_candidate_takes_the_likeliest_token_each_time(seed):
    config = ModelConfig(vocabulary=SPANS.vocabulary_size, mode="encoder-decoder", **SHAPE)
    model = build(config, dtype="float64", seed=seed)
    for parameter in model.parameters().values():
        parameter.array *= 6
    source = np.array([[*SPANS.encode_marked(b"ab<extra_id_0>cd"), SPANS.special_id("end")]])
    written, p = [SPANS.special_id("pad")], 1.0
    while len(written) <= 32:
        logits = model(source, np.array([written])).numpy()[0, -1]
        written.append(int(logits.argmax()))
        p *= np.exp(logits.max()) / np.exp(logits).sum()
        if written[-1] in {SPANS.special_id("end"), *SPANS.sentinels[1:]}:
            written.pop()
            break
    (filling,) = fill_spans(model, SPANS, b"ab<mask>cd", top=1)
    assert filling.answer == SPANS.decode(written[1:])
    assert filling.probability == pytest.approx(p)


WRONG = [
    (fill_masks, b"", UsageError, "the sentence has no <mask>: put it where"),
    (fill_masks, b"abc", UsageError, "the sentence has no <mask>"),
    (fill_masks, b"x<mask>", TinyformerError, "the sentence has the character 'x'"),
    (fill_masks, b"a" * 40 + b"<mask>", UsageError, "with a mark before and after, has 43 tokens.*32 positions"),
    (fill_spans, b"", UsageError, "the sentence has no <mask>"),
    (fill_spans, b"abc</s>", UsageError, "the sentence has no <mask>"),
    (fill_spans, b"x<mask>", TinyformerError, "the sentence has the character 'x'"),
    (fill_spans, b"a" * 40 + b"<mask>", UsageError, "with the end token, has 42 tokens.*32 positions"),
    (fill_spans, b"<mask>" * 101, UsageError, "101 masks.*sentinels for 100"),
]


@pytest.mark.parametrize(("fill", "text", "error", "message"), WRONG)
def test_a_sentence_that_cannot_be_filled(fill, text, error, message):
    model = encoder() if fill is fill_masks else Written([], positions="learned")
    with pytest.raises(error, match=message):
        fill(model, LETTERS if fill is fill_masks else SPANS, text)


def test_a_tokenizer_without_sentinels():
    tokenizer = CharTokenizer(" abcd", ["<pad>", "</s>"])
    for text, message in ((b"a<mask>", "1 masks.*sentinels for 0"), (b"a<extra_id_0>", "the sentence has no <mask>")):
        with pytest.raises(UsageError, match=message):
            fill_spans(Written([], tokenizer), tokenizer, text)


@pytest.mark.parametrize("fill", [fill_masks, fill_spans])
def test_a_model_of_another_mode(fill):
    decoder = build(ModelConfig(vocabulary=LETTERS.vocabulary_size, **SHAPE))
    with pytest.raises(UsageError, match="mode decoder, which writes only onwards: use tinyformer generate"):
        fill(decoder, LETTERS, b"<mask>")
    other, remedy = (Written([]), "fill_spans") if fill is fill_masks else (encoder(), "fill_masks")
    with pytest.raises(UsageError, match=remedy):
        fill(other, LETTERS, b"<mask>")
    with pytest.raises(UsageError, match="top must be at least 1"):
        fill(encoder() if fill is fill_masks else Written([]), LETTERS, b"<mask>", top=0)


def test_damaged_weights_and_a_tokenizer_of_another_model():
    model = encoder()
    with pytest.raises(TinyformerError, match="260 tokens and the model 9"):
        fill_masks(model, ByteTokenizer(special_tokens("encoder")), b"<mask>")
    model.tokens.weight.array[:] = np.nan
    with pytest.raises(TinyformerError, match="not finite"):
        fill_masks(model, LETTERS, b"<mask>")
