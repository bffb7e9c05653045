"""A text for a text: rows, the loss by plain loops, what is written, and learning it from end to end."""

import datetime
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyformer
from tests.objectives.made import make
from tests.tasks.dates import FORMS, as_lines, pairs
from tinyformer import backward, no_grad
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.generation import Options, generate_texts
from tinyformer.models import EncoderDecoder
from tinyformer.tasks import TASKS, Example, Text2Text
from tinyformer.tasks.metrics import texts as metric
from tinyformer.tasks.predicting import predict
from tinyformer.tasks.text2text import Written
from tinyformer.text import ByteTokenizer, CharTokenizer, special_tokens
from tinyformer.training import tuning
from tinyformer.training.config import RunConfig
from tinyformer.training.finetuning import evaluate
from tinyformer.training.rundir import open_run
from tinyformer.training.trainer import resume, train

MARKS = special_tokens("encoder-decoder")
BYTES = ByteTokenizer(MARKS)
PAD, END = BYTES.special_id("pad"), BYTES.special_id("end")
CONTEXT = 24
few = settings(max_examples=settings.default.max_examples // 4 + 1)


def made(prefix="", dtype="float64", **more):
    """The task, and a model whose answers differ from source to source."""
    model = make("encoder-decoder", dtype, vocabulary=BYTES.vocabulary_size, context=CONTEXT, tied=False)
    rng = np.random.default_rng(3)
    model.assign({name: rng.standard_normal(p.shape) * 0.8 for name, p in model.parameters().items()})
    return Text2Text(BYTES, model.config, prefix=prefix, **more), model


def letters(rng, longest=20):
    return "".join(map(chr, rng.integers(97, 123, rng.integers(1, longest))))


def drawn(task, seed, count=6):
    rng = np.random.default_rng(seed)
    examples = [Example((letters(rng),), letters(rng)) for _ in range(count)]
    return task.corrupt([row for example in examples for row in task.rows(example)])


def ids(text):
    return [*text.encode(), END]


# What the model reads


def test_a_source_has_the_prefix_and_both_texts_an_end():
    (row,) = made("to: ")[0].rows(Example(("ab",), "cde"))
    assert row.ids.tolist() == ids("to: ab")
    assert row.target.tolist() == ids("cde")
    assert (row.cut, row.segments, row.ids.dtype, row.target.dtype) == (0, None, np.int32, np.int32)


def test_names_of_special_tokens_are_text():
    (row,) = made()[0].rows(Example(("<pad></s>",), "<extra_id_0>"))
    assert row.ids.tolist() == ids("<pad></s>")
    assert row.target.tolist() == ids("<extra_id_0>")


@given(source=st.integers(1, 40), target=st.integers(1, 40))
def test_what_is_too_long_loses_its_end_and_is_counted(source, target):
    task = made("to: ")[0]
    (row,) = task.rows(Example(("x" * source,), "y" * target))
    assert row.ids.tolist() == ids(f"to: {'x' * source}"[: CONTEXT - 1])
    assert row.target.tolist() == ids("y" * min(target, CONTEXT - 1))
    assert row.cut == max(0, source + 4 - (CONTEXT - 1)) + max(0, target - (CONTEXT - 1))
    assert max(batch.shape[1] for batch in task.corrupt([row]).arrays.values()) <= CONTEXT


def test_the_decoder_is_given_each_target_one_place_later():
    task = made("> ")[0]
    batch = task.corrupt([*task.rows(Example(("a",), "xyz")), *task.rows(Example(("abc",), "q"))])
    assert batch.inputs.tolist() == [[*ids("> a"), PAD, PAD], ids("> abc")]
    assert batch.mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert batch.targets.tolist() == [ids("xyz"), [*ids("q"), PAD, PAD]]
    assert batch.decoder_inputs.tolist() == [[PAD, *ids("xyz")[:-1]], [PAD, *ids("q"), PAD]]
    assert batch.weights.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_nothing_is_added_to_the_model():
    task, model = made()
    assert task.head(None) is None
    assert task.model(model, None) is model
    assert (task.labels_of([Example(("a",), "b")]), task.balance([Example(("a",), "b")])) == ((), {})


# The loss


@few
@given(seed=st.integers(0, 10_000))
def test_the_loss_by_plain_loops(seed):
    """Each row by itself, without padding: the mean over target tokens, ends included."""
    task, model = made()
    batch, nats, correct = drawn(task, seed), [], 0
    for row in range(len(batch)):
        source = batch.inputs[row, : int(batch.mask[row].sum())]
        target = batch.targets[row, : int(batch.weights[row].sum())]
        with no_grad():
            logits = model(source[None], np.array([[PAD, *target[:-1]]])).numpy()[0]
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        nats += [-np.log(row[token] / row.sum()) for row, token in zip(shares, target)]
        correct += int((logits.argmax(-1) == target).sum())
    assert task.loss(model, batch).item() == pytest.approx(np.mean(nats), rel=1e-9)
    score = task.score(model, batch)
    assert (score["nats"], score["tokens"]) == (pytest.approx(sum(nats)), len(nats))
    assert score["correct"] == correct


@few
@given(seed=st.integers(0, 10_000), cuts=st.sets(st.integers(1, 5)))
def test_losses_and_gradients_of_parts_add_up(seed, cuts):
    task, model = made()
    batch = drawn(task, seed)
    whole = task.loss(model, batch)
    parts = [batch.rows(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6])]
    losses = [task.loss(model, part, whole=batch) for part in parts]
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), rel=1e-12)
    expected, found = backward(whole), [backward(loss) for loss in losses]
    for parameter in model.parameters().values():
        total = sum(gradients.get(parameter, 0.0) for gradients in found)
        np.testing.assert_allclose(total, expected[parameter], rtol=0, atol=1e-11)


@few
@given(seed=st.integers(0, 10_000), count=st.integers(1, 3))
def test_a_batch_for_a_device_has_the_same_loss_in_few_shapes(seed, count):
    task, model = made()
    batch = drawn(task, seed, count)
    fixed = task.fixed(batch)
    assert {array.shape[1] for array in fixed.arrays.values()} <= {6, 12, 18, 24}
    assert set(fixed.arrays) == {"inputs", "targets", "weights", "mask", "decoder_inputs"}
    assert task.loss(model, fixed).item() == pytest.approx(task.loss(model, batch).item(), rel=1e-6)


# What it writes


def by_itself(model, row, options):
    return generate_texts(model, BYTES, row.ids.astype(np.int64), options)[0].decode("utf-8", "replace")


@pytest.mark.parametrize("beams", [None, 1, 3])
def test_it_writes_what_generate_writes_to_each_source(beams):
    task, model = made("> ", beams=beams)
    rng = np.random.default_rng(1)
    examples = [Example((letters(rng),)) for _ in range(3 if beams == 3 else 7)]
    rows = [task.rows(example)[0] for example in examples]
    written = task.outputs(model, task.corrupt(rows))
    options = Options(tokens=CONTEXT, beams=beams) if beams == 3 else Options(tokens=CONTEXT)
    assert [task.answer(example, [one]) for example, one in zip(examples, written)] == [
        by_itself(model, row, options) for row in rows
    ]
    assert len({one.text for one in written}) > 2
    told = list(predict(task, model, examples, batch_size=3))
    assert [answer["text"] for answer in told] == [one.text for one in written]
    json.dumps(told)


def test_the_target_is_not_looked_at():
    task, model = made()
    rows = [task.rows(Example(("abc",), label))[0] for label in ("x", "yyyyyy", None)]
    assert len({one.text for one in task.outputs(model, task.corrupt(rows))}) == 1


def test_a_text_says_why_it_ended():
    task, model = made()
    assert task._written([*b"caf\xc3", END]) == Written("caf�", "end")
    assert task._written([END]) == Written("", "end")
    assert task._written([*b"abc"]) == Written("abc", "length")
    for beams in (None, 2):
        task.beams = beams
        (written,) = task.outputs(model, task.corrupt(task.rows(Example(("abc",)))))
        assert task.describe(Example(("abc",)), [written]) == {"text": written.text, "ended": written.ended}
        assert written.ended == "length"


def test_its_measures():
    examples = [Example(("",), text) for text in ("the cat sat on the mat", "a")]
    answers = ["the cat sat on a mat", "a"]
    found = made()[0].measure(examples, answers)
    assert found["average"] == pytest.approx((found["exact_match"] + found["bleu"] / 100 + found["rouge_l"]) / 3)
    assert found["exact_match"] == 0.5
    expected = metric.measure([example.label for example in examples], answers)
    assert expected == {name: found[name] for name in ("exact_match", "bleu", "rouge_l")}
    assert Text2Text.best in found


# Bad input


def test_a_model_of_another_mode_is_told_what_can():
    for mode, instead in (("decoder", "classify"), ("encoder", "answer, classify")):
        config = make(mode).config
        with pytest.raises(UsageError, match=f"mode {mode} cannot do.*{instead}.*one of mode encoder-decoder"):
            Text2Text(BYTES, config)
    task, _ = made()
    with pytest.raises(UsageError, match="made for models of mode encoder-decoder"):
        task.loss(make("decoder"), drawn(task, 1))
    with pytest.raises(UsageError, match="cannot do the task classify; it can do text2text"):
        TASKS["classify"](BYTES, task.config)


def test_a_prefix_that_cannot_be_used():
    made("x" * (CONTEXT - 2))
    with pytest.raises(UsageError, match=r"the prefix 'x.* has 23 tokens, which leaves no room.*context of 24"):
        made("x" * (CONTEXT - 1))
    with pytest.raises(UsageError, match=r"the prefix 'x{40}\.\.\.' has 4000 tokens"):
        made("x" * 4000)
    with pytest.raises(TinyformerError, match="the prefix has the character '!'"):
        Text2Text(CharTokenizer("abc", MARKS), made()[1].config, prefix="a!")


def test_files(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a b\tc\n\nd\te\n")
    warnings = []
    assert [(e.texts, e.label) for e in Text2Text.read(path, warn=warnings.append)] == [(("a b",), "c"), (("d",), "e")]
    assert "1 blank line was passed over" in warnings[0]
    for content, message in (
        ("a\n", "line 1 has no tab; each line is source TAB target"),
        ("a\tb\nc\td\te\n", "line 2 has 3 fields; each line is source TAB target"),
        ("a\t \n", "line 1 has an empty target"),
        ("\tb\n", "line 1 has an empty source"),
        ("\n", "has no example, only 1 blank line; add source TAB target"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            Text2Text.read(path)


# From end to end


def test_the_generator_of_dates():
    found = pairs(500, 3)
    assert found == pairs(500, 3) != pairs(500, 4)
    assert len({target for _, target in found}) == 500
    everything = pairs(36_525, 1)
    assert len(dict(everything)) == len(everything)  # no text means two dates
    first = {form(datetime.date(2021, 3, 5)) for form in FORMS}
    assert {"March 5, 2021", "the fifth of March 2021", "5-MAR-21", "3/5/21", "05.03.21"} <= first
    assert len(first) == len(FORMS)


SHAPE = {"layers": 1, "width": 32, "heads": 2, "hidden": 64, "context": CONTEXT, "dropout": 0.0}
NUMBERS = [
    (word, str(number)) for number, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven"])
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that learned the numerals by heart, and what it told on the way."""
    folder, told = tmp_path_factory.mktemp("text2text"), []
    (folder / "text.txt").write_text("\n".join(word for pair in NUMBERS for word in pair) * 10)
    (folder / "numbers.tsv").write_text(as_lines(NUMBERS * 20))
    (folder / "kept.tsv").write_text(as_lines(NUMBERS))
    given = {"mode": "encoder-decoder", "model": SHAPE, "tokenizer": "bytes", "steps": 4, "sample_every": 0}
    train(RunConfig(files=(folder / "text.txt",), **given), lambda event: None, out=folder / "pretrained")
    given = {"validation": str(folder / "kept.tsv"), "prefix": "to: ", "epochs": 4, "learning_rate": 0.01}
    given |= {"batch_size": 8, "threads": 1, "schedule": "linear"}
    tuned = tuning.settings("text2text", str(folder / "pretrained"), str(folder / "numbers.tsv"), **given)
    train(tuned, told.append, out=folder / "tuned")
    return folder, told


def test_it_learns_a_trivially_small_set(finished):
    losses = [event["loss"] for event in finished[1] if event["event"] == "train"]
    validations = [event for event in finished[1] if event["event"] == "validation"]
    assert losses[0] > 5 * losses[-1]
    assert len(validations) == 4
    assert validations[0]["loss"] > 5 * validations[-1]["loss"]
    assert validations[-1]["exact_match"] == validations[-1]["rouge_l"] == 1


def test_the_run_is_an_ordinary_one(finished):
    folder, _ = finished
    run, model = folder / "tuned", tinyformer.load(folder / "tuned")
    assert isinstance(model, EncoderDecoder)
    assert model.parameters().keys() == tinyformer.load(folder / "pretrained").parameters().keys()
    assert open_run(run).config().prefix == "to: "
    for word, number in NUMBERS:
        assert generate_texts(model, BYTES, f"to: {word}".encode()) == [number.encode()]
    assert evaluate(open_run(run), model, str(folder / "kept.tsv"))["exact_match"] == 1
    assert resume(run, lambda event: None, {"steps": 82})["step"] == 82
    assert isinstance(tinyformer.load(run), EncoderDecoder)
