"""Choosing among candidates: what is encoded with what, and how likelihoods are made comparable."""

import numpy as np
import pytest
from asking import bpe, decoder, log_probability
from hypothesis import example, given
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.prompting import Candidates, Template, Writer, options_for, tldr_options, writing
from tinyformer.text import make_tokenizer

LABELS = ("yes", "no", "good day")


@pytest.fixture
def tokenizer(tmp_path):
    return bpe(tmp_path)


def candidates(tokenizer, template="{text} => {label}\n", labels=LABELS, **more):
    return Candidates(decoder(tokenizer.vocabulary_size), tokenizer, Template.parse(template), labels, **more)


@pytest.mark.parametrize(
    "template", ["{text} => {label}\n", "{text}\n\n{label}", "{text}{label}", "{text}:\n{label}", "{text} ({label})"]
)
@pytest.mark.parametrize("kind", ["bpe", "bytes", "chars"])
def test_a_prompt_and_its_answer_are_the_ids_of_the_whole_text(template, kind, tokenizer, tmp_path):
    """As a model has met them in training; and what the prompt has by itself is the same for all answers."""
    if kind != "bpe":
        (tmp_path / "text.txt").write_text("a good day => yes, no.:()\n")
        tokenizer = make_tokenizer(kind, [tmp_path / "text.txt"])
    which = candidates(tokenizer, template)
    prompt = which.template.query(("a goo",))
    question = which.prepare(prompt)
    for label, ids in zip(LABELS, question.answers):
        whole = tokenizer.encode(prompt + which.template.lead + label)
        assert [*question.prompt, *ids] == whole.tolist()
    read = tokenizer.decode(question.prompt)
    if kind != "bpe" or template != "{text}{label}":  # there, a word goes on with the answer
        assert read == prompt.encode()
    assert prompt.encode().startswith(read)


PIECES = st.lists(
    st.sampled_from([" ", " ", "\n", "\t", "\x1c", "\u3000", "a", "good", "day", "é", "1", "'", "s", "!"]), max_size=9
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Byte pairs of a text in which white space stands in many ways, so that it is in many tokens."""
    text = "a good  day,\n\n a\tday \n good\n  day's 's '  a! !\n! 1 11 \n\n\n a   a\n"
    return bpe(tmp_path_factory.mktemp("bpe"), text * 30, 320)


@given(PIECES, st.lists(PIECES.filter(bool), min_size=2, max_size=3, unique_by="".join))
@example(["a go"], [["od day"], ["od a"]])
@example(["a go"], [[" day"], ["od"]])
def test_any_prompt_and_any_answers_are_the_ids_of_the_whole_text(shared, prompt, answers):
    prompt, labels = "".join(prompt), ["".join(answer) for answer in answers]
    question = candidates(shared, "{text}{label}", labels).prepare(prompt)
    newline = shared.encode("\n").tolist()  # begins what has nothing before it
    for label, ids in zip(labels, question.answers):
        whole = shared.encode(prompt + label).tolist()
        assert [*question.prompt, *ids] in (whole, newline + whole)
        assert len(ids)


class Sayings:
    """Stands for an imported tokenizer: some of its tokens go over a space, the longest one is taken."""

    kind, vocabulary_size = "huggingface", 256
    tokens = ("y good", "y ", *map(chr, range(1, 128)))

    def encode_located(self, text, place):
        ids, places, start = [], [], 0
        while start < len(text):
            number = next(i for i, token in enumerate(self.tokens) if text.startswith(token, start))
            ids.append(number)
            places.append((start, start := start + len(self.tokens[number])))
        return np.array(ids), np.array(places).reshape(-1, 2)

    def encode(self, text, place=""):
        return self.encode_located(text, place)[0]


def test_a_tokenizer_that_is_not_ours_reads_prompt_and_answer_together():
    which = candidates(Sayings(), "{text} {label}", ("good", "bad"))
    question = which.prepare("a day")
    assert [Sayings.tokens[i] for i in question.prompt] == ["a", " ", "d", "a"]
    assert [[Sayings.tokens[i] for i in ids] for ids in question.answers] == [["y good"], ["y ", "b", "a", "d"]]


@pytest.mark.parametrize("kind", ["bpe", "bytes", "chars"])
def test_what_is_known_to_be_apart_is_not_read_together(kind, tokenizer, tmp_path):
    """Each answer is encoded once, and not again with each of many prompts."""
    if kind != "bpe":
        (tmp_path / "text.txt").write_text("a good day => yes, no.:()\n")
        tokenizer = make_tokenizer(kind, [tmp_path / "text.txt"])
    which = candidates(tokenizer)
    first, second = (which.prepare(which.template.query((text,))) for text in ("a good", "day"))
    assert all(one is other for one, other in zip(first.answers, second.answers))


def test_a_token_that_begins_in_the_prompt_counts_to_the_answer(tokenizer):
    which = candidates(tokenizer, "{text}{label}", ("od", "at"))
    question = which.prepare("a go")
    assert tokenizer.decode(question.prompt) in (b"a", b"a ")
    assert [tokenizer.decode(np.concatenate([question.prompt, ids])) for ids in question.answers] == [
        b"a good",
        b"a goat",
    ]


def test_an_empty_prompt_begins_a_line(tokenizer):
    question = candidates(tokenizer, "{text}{label}").prepare("")
    assert tokenizer.decode(question.prompt) == b"\n"
    assert [tokenizer.decode(ids) for ids in question.answers] == [label.encode() for label in LABELS]


def test_normalisations_by_hand(tokenizer):
    def scores(normalise):
        which = candidates(tokenizer, normalise=normalise)
        return which, which.scores([which.prepare("a good day =>"), which.prepare("bad =>")])

    which, total = scores("sum")
    model, encode = which.model, tokenizer.encode
    for row, prompt in zip(total, (b"a good day =>", b"bad =>")):
        expected = [log_probability(model, encode(prompt), encode(b" " + label.encode())) for label in LABELS]
        np.testing.assert_allclose(row, expected, rtol=1e-9)
    tokens = [len(encode(b" " + label.encode())) for label in LABELS]
    assert len(set(tokens)) > 1
    np.testing.assert_allclose(scores("token")[1], total / tokens)
    np.testing.assert_allclose(scores("byte")[1], total / [3, 2, 8])
    alone = [log_probability(model, encode(b"=>"), encode(b" " + label.encode())) for label in LABELS]
    np.testing.assert_allclose(scores("unconditional")[1], total - alone)


def test_the_answer_is_the_best_and_its_scores_are_told(tokenizer):
    which = candidates(tokenizer)
    (answer,) = which.answers([which.prepare("bad =>")])
    assert answer.text == max(answer.scores, key=answer.scores.get)
    assert tuple(answer.scores) == LABELS


@pytest.mark.parametrize("labels", [(), ("yes",), ("yes", "no", "yes")])
def test_there_must_be_something_to_choose(labels, tokenizer):
    with pytest.raises(UsageError, match="nothing to choose"):
        candidates(tokenizer, labels=labels)


def test_what_cannot_be_encoded_is_told_by_its_name(tmp_path):
    (tmp_path / "text.txt").write_text("a => yes no\n")
    which = candidates(make_tokenizer("chars", [tmp_path / "text.txt"]), labels=("yes", "NO"))
    with pytest.raises(TinyformerError, match="candidate 'NO'"):
        which.prepare("a =>")
    with pytest.raises(TinyformerError, match=r"x\.tsv, line 3"):
        candidates(which.tokenizer, labels=("yes", "no")).prepare("b =>", "x.tsv, line 3")


def test_written_answers_end_where_an_example_would(tokenizer):
    model = decoder(tokenizer.vocabulary_size, context=60)
    options = options_for(Template.parse("{text} => {label};\n"))
    assert (options.stop, options.temperature) == ((b";\n",), 0)
    assert options_for(Template.parse("{text} {label}")).stop == (b"\n",)
    writer = Writer(model, tokenizer, options)
    begun = [writer.prepare(prompt) for prompt in ("a good", "bad =>", "")]
    assert [each.length for each in begun] == [len(each.prompt) + 31 for each in begun]
    ids = begun[0].prompt.tolist()
    for _ in range(32):
        ids.append(int(model(np.array([ids])).numpy()[0, -1].argmax()))
    expected = tokenizer.decode(ids[len(begun[0].prompt) :]).decode("utf-8", "replace")
    assert writer.answers(begun)[0].text == expected.partition(";\n")[0].strip()


def test_what_was_written_is_cut_to_sentences_and_loses_the_space_around_it(tokenizer, monkeypatch):
    model = decoder(tokenizer.vocabulary_size)
    monkeypatch.setattr(writing, "generate_texts", lambda *given: [b" One. Two.\n Three."])
    for sentences, kept in [(None, "One. Two.\n Three."), (2, "One. Two."), (1, "One.")]:
        writer = Writer(model, tokenizer, tldr_options(), sentences=sentences)
        assert writer.answers([writer.prepare("a")])[0].text == kept
