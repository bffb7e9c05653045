"""What is shown of a text, against the figures of the textbook chapter, plain lists, and models that are probed."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.analysis.inspection import attention, inspect, tokenizer_for
from tinyformer.errors import UsageError
from tinyformer.models import ModelConfig, build
from tinyformer.objectives import OBJECTIVES, Batch
from tinyformer.text import BPETokenizer, special_tokens

SENTENCE = b"I love this red car"
PAIR = b"I love it .\nIt is red .\n\nHe was old .\nHe slept .\nHe snored ."


def inspected(content, objective, kind="words", **settings):
    tokenizer = tokenizer_for(kind, content, OBJECTIVES[objective].mode)
    return inspect(content, tokenizer, objective, **settings)


def test_the_figure_of_bert():
    facts = inspected(SENTENCE, "masked", hide=["love"])
    assert facts.drawn == {"input": "<cls> I <mask> this red car", "target": "love"}
    assert facts.inputs.texts == ("<cls>", "I", "<mask>", "this", "red", "car", "<sep>")
    assert facts.targets.texts == ("<cls>", "I", "love", "this", "red", "car", "<sep>")
    assert facts.weights == (0, 0, 1, 0, 0, 0, 0)
    assert facts.attention == {"encoder": ((True,) * 7,) * 7}, "a full square"


def test_the_figure_of_t5():
    facts = inspected(SENTENCE, "span-corruption", hide=["love", "red car"])
    assert facts.drawn == {"input": "I <X> this <Y>", "target": "<X> love <Y> red car <Z>"}
    assert facts.sentinels == {"<X>": "<extra_id_0>", "<Y>": "<extra_id_1>"}
    assert facts.inputs.texts == ("I", "<extra_id_0>", "this", "<extra_id_1>", "</s>")
    assert facts.targets.texts == ("<extra_id_0>", "love", "<extra_id_1>", "red", "car", "</s>")
    assert facts.decoder_inputs.texts == ("<pad>", *facts.targets.texts[:-1])
    assert facts.attention["encoder"] == ((True,) * 5,) * 5, "the lower square"
    assert facts.attention["cross"] == ((True,) * 5,) * 6, "the upper rectangle"
    assert facts.attention["decoder"] == tuple(tuple(s <= t for s in range(6)) for t in range(6)), "the triangle"


def test_the_figure_of_gpt():
    facts = inspected(SENTENCE, "causal")
    assert facts.inputs.texts == ("I", "love", "this", "red")
    assert facts.targets.texts == ("love", "this", "red", "car")
    assert facts.weights == (1,) * 4
    assert facts.attention == {"decoder": tuple(tuple(s <= t for s in range(4)) for t in range(4))}


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), min_size=2, max_size=12), st.data())
def test_hidden_words_leave_one_sentinel_for_each_run(words, data):
    hidden = data.draw(st.sets(st.sampled_from(sorted(set(words))), min_size=1))
    facts = inspected(" ".join(words).encode(), "span-corruption", hide=sorted(hidden))
    inputs, target, letters = [], [], iter(["<X>", "<Y>", "<Z>", *(f"<{c}>" for c in "ABCDEF")])
    for place, word in enumerate(words):
        if word not in hidden:
            inputs.append(word)
            continue
        if place == 0 or words[place - 1] not in hidden:
            letter = next(letters)
            inputs.append(letter)
            target.append(letter)
        target.append(word)
    assert facts.drawn == {"input": " ".join(inputs), "target": " ".join([*target, next(letters)])}
    masked = inspected(" ".join(words).encode(), "masked", hide=sorted(hidden))
    assert masked.inputs.texts[1:-1] == tuple("<mask>" if word in hidden else word for word in words)
    assert masked.weights[1:-1] == tuple(float(word in hidden) for word in words)


@pytest.mark.parametrize(
    ("content", "kind", "hide", "expected"),
    [
        ("a scar, a car", "chars", "car", "a scar, a <X>"),  # a whole word, where there is one
        ("我爱这辆红车", "chars", "红", "我爱这辆<X>车"),
        ("我爱这辆红车", "bytes", "红", "我爱这辆<X>车"),
        ("one  two\tthree", "bytes", "one two", "<X>\tthree"),  # white space between words is any
        ("wait, wait", "words", "wait,", "<X> wait"),
        ("The-car", "bytes", "car", "The-<X>"),
    ],
)
def test_words_are_found_in_tokens_of_any_size(content, kind, hide, expected):
    assert inspected(content.encode(), "span-corruption", kind, hide=[hide]).drawn["input"] == expected


def test_a_token_holds_the_space_before_its_word():
    merges = [(ord("c"), ord("a")), (256, ord("r")), (ord(" "), 257)]  # "ca", "car", " car"
    tokenizer = BPETokenizer(merges, special_tokens("encoder-decoder"))
    facts = inspect(b"a car now", tokenizer, "span-corruption", hide=["car"])
    assert facts.texts[0].texts[:2] == ("a", " car")
    assert facts.drawn == {"input": "a <X> now", "target": "<X> car <Y>"}
    part = inspect(b"a carpet", tokenizer, "span-corruption", hide=["car"])
    assert part.drawn["input"] == "a <X>pet", "no whole word, but a whole token"


def test_documents_stand_between_marks_and_are_numbered():
    facts = inspected(b"a b\n\nc\n", "masked")
    assert facts.targets.texts == ("<cls>", "a", "b", "<sep>", "<cls>", "c", "<sep>")
    assert facts.documents == (1, 1, 1, 1, 2, 2, 2)
    assert facts.positions == (0, 1, 2, 3, 0, 1, 2)
    assert facts.attention["encoder"] == tuple(tuple((t < 4) == (s < 4) for s in range(7)) for t in range(7))


def test_pairs_of_documents():
    labels = set()
    for seed in range(12):
        facts = inspected(PAIR, "next-sentence", seed=seed, context=24)
        tokens = facts.targets.texts
        first, second = (place for place, token in enumerate(tokens) if token == "<sep>")
        assert facts.segments[: second + 1] == (0,) * (first + 1) + (1,) * (second - first)
        random = tokens[first + 1] == "He" and tokens[1] != "He"
        assert facts.label == random
        labels.add(facts.label)
        assert facts.documents is None or facts.documents == tuple(int(token != "<pad>") for token in tokens)
    assert labels == {0, 1}


def test_what_is_drawn_is_what_training_draws():
    tokenizer = tokenizer_for("bytes", b"", "encoder-decoder")
    content = bytes(range(97, 123)) * 4
    row = np.frombuffer(content, np.uint8).astype(np.int32)
    batch = OBJECTIVES["span-corruption"].of(tokenizer, 512).corrupt([row], [np.random.default_rng(7)])
    facts = inspect(content, tokenizer, "span-corruption", seed=7)
    assert facts.inputs.ids == tuple(batch.inputs[0].tolist())
    assert facts.targets.ids == tuple(batch.targets[0].tolist())
    assert facts != inspect(content, tokenizer, "span-corruption", seed=8)


def test_a_long_text_is_cut_to_the_context():
    facts = inspected(b"x" * 3000, "span-corruption", "bytes", context=128)
    assert (len(facts.texts[0].ids), len(facts.inputs.ids), len(facts.targets.ids)) == (141, 128, 29), "as in T5"
    assert facts.left_out == 3000 - 141
    assert len(inspected(b"x" * 3000, "causal", "bytes").inputs.ids) == 512
    cut = inspected(b"a b c d e f", "masked", context=5)
    assert cut.targets.texts == ("<cls>", "a", "b", "c", "<sep>"), "a document that is cut is closed"


def test_all_of_it_is_plain_data():
    facts = dataclasses.asdict(inspected(PAIR, "next-sentence"))
    assert json.loads(json.dumps(facts))["attention"]["encoder"][0][0] is True


def models():
    """Small models of each mode, with weights so large that whatever is seen changes what is said."""
    shapes = {
        "decoder": {"positions": "rotary"},
        "encoder": {"segments": 2, "norm_position": "post", "head": "transform"},
        "encoder-decoder": {"positions": "relative", "norm": "rms", "bias": False},
    }
    rng = np.random.default_rng(0)
    for mode, shape in shapes.items():
        sizes = {"vocabulary": 140, "context": 32, "layers": 2, "heads": 2, "width": 8, "hidden": 16}
        model = build(ModelConfig(mode=mode, **sizes | shape), dtype="float64")
        model.assign({name: rng.standard_normal(p.shape) for name, p in model.parameters().items()})
        yield mode, model


MODELS = dict(models())


def changed(function, array, change):
    """Which rows of the result (first axis) change with which place of the array: `t s`."""
    before = function(array)[0]
    columns = []
    for place in range(array.shape[1]):
        other = array.copy()
        other[:, place] = change(other[:, place])
        columns.append((function(other)[0] != before).any(axis=-1))
    return np.stack(columns, axis=1)


def probed(model, batch):
    """Who looks at whom in a model: what changes where, when one token becomes another."""

    def another(ids):
        return (ids + 1) % 140

    mode, keywords = model.config.mode, batch.keywords
    if mode != "encoder-decoder":
        return {mode: changed(lambda ids: model(ids, **keywords).numpy(), batch.inputs, another)}
    memory = model.encode(batch.inputs, **keywords)

    def decoded(ids, memory=memory):
        return model.decode(ids, memory, mask=batch.mask).numpy()

    return {
        "encoder": changed(lambda ids: model.encode(ids, **keywords).numpy(), batch.inputs, another),
        "cross": changed(
            lambda values: decoded(batch.decoder_inputs, type(memory)(values)), memory.numpy(), lambda x: x + 1
        ),
        "decoder": changed(decoded, batch.decoder_inputs, another),
    }


def assert_is_what_the_model_does(batch):
    for mode, model in MODELS.items():
        if (mode == "encoder-decoder") == (batch.decoder_inputs is not None):
            shown, real = attention(mode, batch), probed(model, batch)
            assert list(shown) == list(real)
            for name, pattern in shown.items():
                # A token's own place changes with it even if it may not look at itself, as padding may not.
                own = np.eye(len(pattern), dtype=bool) if name != "cross" else False
                np.testing.assert_array_equal(np.array(pattern) | own, real[name], err_msg=f"{mode}: {name}")


PADDED = [True] * 5 + [False] * 2


@pytest.mark.parametrize("mask", [None, PADDED, [1, 1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 2, 3, 0]])
def test_the_pattern_is_the_one_that_a_model_shows_when_its_tokens_are_changed(mask):
    inputs = np.arange(7)[None] + 20
    batch = Batch(inputs, inputs, mask=None if mask is None else np.array([mask]))
    assert_is_what_the_model_does(batch)
    if mask is None or mask is PADDED:  # the documents of a source are not numbered
        assert_is_what_the_model_does(dataclasses.replace(batch, decoder_inputs=np.arange(4)[None] + 40))


@pytest.mark.parametrize(
    ("objective", "content"),
    [("causal", SENTENCE), ("masked", b"a b\n\nc d\n\ne"), ("span-corruption", SENTENCE), ("seq2seq", b"a b\tc d e")],
)
def test_what_is_shown_of_a_text_is_what_a_model_does_with_it(objective, content):
    facts = inspected(content, objective)
    arrays = {"mask": facts.documents, "positions": facts.positions, "segments": facts.segments}
    if facts.decoder_inputs is not None:
        arrays["decoder_inputs"] = facts.decoder_inputs.ids
    arrays = {name: np.array([value]) for name, value in arrays.items() if value is not None}
    batch = Batch(np.array([facts.inputs.ids]), np.array([facts.targets.ids]), **arrays)
    real = probed(MODELS[facts.mode], batch)
    assert {name: pattern.tolist() for name, pattern in real.items()} == {
        name: list(map(list, pattern)) for name, pattern in facts.attention.items()
    }


@pytest.mark.parametrize(
    ("content", "objective", "settings", "message"),
    [
        (b" \n", "masked", {}, "the text is empty"),
        (b"one", "causal", {}, "single token"),
        (b"one", "span-corruption", {}, "single token"),
        (SENTENCE, "masked", {"hide": ["hate"]}, "'hate' is no word of the row"),
        (SENTENCE, "masked", {"hide": ["lov"]}, "'lov' is no word of the row"),
        (SENTENCE, "masked", {"hide": ["cls"]}, "'cls' is no word of the row"),
        (SENTENCE, "masked", {"hide": [""]}, "'' is no word of the row"),
        (SENTENCE, "causal", {"hide": ["love"]}, "hides no words"),
        (SENTENCE, "next-sentence", {}, "needs a second document"),
        (SENTENCE, "seq2seq", {}, "a source, one tab, and a target"),
        (b"a\tb\tc", "seq2seq", {}, "a source, one tab, and a target"),
        (b"a b c\td", "seq2seq", {"context": 3}, "the source has 4 tokens with its end, and the context is 3"),
        (b"a b " * 100, "span-corruption", {"hide": ["a"]}, "100 spans are hidden, and 100 sentinels"),
    ],
)
def test_bad_input(content, objective, settings, message):
    with pytest.raises(UsageError, match=message):
        inspected(content, objective, **settings)


def test_a_tokenizer_without_special_tokens():
    with pytest.raises(UsageError, match="no <cls>; a run that was trained with --mode encoder has it"):
        inspect(SENTENCE, tokenizer_for("bytes", SENTENCE, "decoder"), "masked")
    for kind, message in (("bpe", "learned from a long text"), ("word", "no tokenizer 'word'")):
        with pytest.raises(UsageError, match=message):
            tokenizer_for(kind, SENTENCE, "encoder")
