"""A run that was fine-tuned, exported: transformers opens it as a class for its task, with our scores and our labels.

What the model reads is made by the exported tokenizer of a user's own texts, as a pipeline does it.
"""

import json
import random

import numpy as np
import pytest
import torch
import transformers
from huggingface import close
from published import write_gpt2
from test_huggingface_directories import opened

import tinyformer
from tinyformer import interop
from tinyformer.errors import UsageError
from tinyformer.interop.directory import write_run
from tinyformer.models import build, resolve
from tinyformer.tasks import Example
from tinyformer.tasks.predicting import predict
from tinyformer.text import ByteTokenizer, CharTokenizer
from tinyformer.text.special import special_tokens
from tinyformer.training import finetuning, tuning
from tinyformer.training.rundir import new_run, open_run
from tinyformer.training.trainer import train

pytestmark = pytest.mark.oracle

GPT2 = {"positions": "learned", "norm": "layer", "bias": True, "activation": "gelu"}
BODIES = {
    "roformer": {"mode": "encoder"},
    "roformer of pairs": {"mode": "encoder", "next_sentence": True},
    "bert": {"mode": "encoder", "positions": "learned"},
    "bert of pairs": {"mode": "encoder", "positions": "learned", "next_sentence": True},
    "gpt2": {"mode": "decoder", **GPT2},
    "gpt2 untied": {"mode": "decoder", "tied": False, **GPT2},
    "arcee": {"mode": "decoder", "gated": False},
    "llama": {"mode": "decoder", "gated": True},
}
AUTO = {
    "classify": transformers.AutoModelForSequenceClassification,
    "pair": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "answer": transformers.AutoModelForQuestionAnswering,
}
WORDS = ["red", "blue", "green", "old", "new", "cat", "dog", "bird"]
TEXTS = ["red cat", "new dog, old bird", "a blue </s> <mask> cat", "green"]


def body(name, folder, kind):
    """A run of an untrained model, or one that was imported."""
    if name == "gpt2 imported":
        return interop.import_run(write_gpt2(folder / "in"), folder / "body", warn=lambda message: None).path
    shape = dict(BODIES[name])
    special = special_tokens(shape["mode"])
    made = ByteTokenizer(special) if kind == "bytes" else CharTokenizer("".join(map(chr, range(10, 127))), special)
    shape = resolve(width=16, heads=2, layers=2, context=64, vocabulary=made.vocabulary_size, **shape)
    with new_run(folder / "body", "x", shape.mode) as run:
        write_run(run, build(shape, seed=1), made)
    return folder / "body"


def examples(task, path, rng, mean):
    """A file of a few that a model may learn something of."""
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(40)]
    if task == "answer":
        asked = [
            {"id": str(i), "question": "which one?", "answers": [{"text": text[:3], "answer_start": 0}]}
            for i, text in enumerate(texts)
        ]
        passages = [{"context": text, "qas": [one]} for text, one in zip(texts, asked)]
        path.write_text(json.dumps({"data": [{"paragraphs": passages}]}))
    elif task == "tag":
        tags = {"cat": "B-PET", "dog": "B-PET", "red": "B-HUE", "blue": "B-HUE"}
        words = [[f"{word} {tags.get(word, 'O')}" for word in text.split()] for text in texts]
        path.write_text("\n\n".join("\n".join(lines) for lines in words) + "\n")
    else:
        second = [text + "\t" for text in reversed(texts)] if task == "pair" else [""] * 40
        ends = [mean - 3, mean + 3] if task == "regress" else ["no", "yes"]
        path.write_text("".join(f"{t}\t{more}{ends[i % 2]}\n" for i, (t, more) in enumerate(zip(texts, second))))
    return path


def tuned(name, task, folder, *, kind="bytes", mean=250.0, **more):
    """A run that was fine-tuned on a body for two epochs, and the directory that it is exported to."""
    start = body(name, folder, kind)
    file = examples(task, folder / "train.txt", random.Random(3), mean)
    given = {"batch_size": 8, "threads": 1, "learning_rate": 0.01, "epochs": 2}
    config = tuning.settings(task, str(start), str(file), **(given | more))
    train(config, lambda event: None, out=folder / "run")
    warned = []
    family, opened_by = interop.export_run(folder / "run", folder / "out", warn=warned.append)
    assert opened_by == json.loads((folder / "out" / "config.json").read_text())["architectures"][0]
    theirs = opened(folder / "out", AUTO[task])
    assert type(theirs).__name__ == opened_by
    assert theirs.config.model_type == family.model_type
    return folder / "run", theirs, transformers.AutoTokenizer.from_pretrained(folder / "out"), warned


def check(run, theirs, tokenizer, texts):
    """Their scores of what the exported tokenizer reads are ours of what our task reads, text by text."""
    model = tinyformer.load(run, backend="numpy")
    task = finetuning.open_task(open_run(run), open_run(run).config())
    for text in texts:
        both = (text, "old") if task.name in ("pair", "answer") else (text,)
        given = tokenizer(*both, return_tensors="pt")
        batch = task.corrupt(task.rows(Example(both, None)))
        assert given["input_ids"].tolist() == batch.inputs.tolist()
        out = theirs(**given)
        ours = model(batch.inputs, **batch.keywords).numpy()
        if task.name == "answer":
            close(ours, torch.stack([out.start_logits, out.end_logits], dim=-1), 1e-5)
        elif task.name == "regress":
            close(np.array(task.outputs(model, batch))[:, None], out.logits, 2e-6)
        else:
            close(ours, out.logits, 1e-5)
        if task.name in ("classify", "pair"):
            (told,) = predict(task, model, [Example(both, None)])
            assert theirs.config.id2label[int(out.logits.argmax())] == told["label"]
            assert theirs.config.label2id[told["label"]] == int(out.logits.argmax())


@pytest.mark.parametrize("task", ["classify", "pair", "regress", "answer"])
@pytest.mark.parametrize("name", ["roformer", "bert", "bert of pairs"])
def test_an_encoder(name, task, tmp_path):
    run, theirs, tokenizer, warned = tuned(name, task, tmp_path)
    check(run, theirs, tokenizer, TEXTS)
    assert not warned
    told = {"classify": "single_label_classification", "pair": "single_label_classification", "regress": "regression"}
    assert theirs.config.problem_type == told.get(task)
    assert theirs.config.num_labels == (1 if task == "regress" else 2)


def test_a_roformer_of_pairs_keeps_what_is_there_and_is_refused_where_it_computes_otherwise(tmp_path):
    run = body("roformer of pairs", tmp_path, "bytes")
    warned = []
    interop.export_run(run, tmp_path / "out", warn=warned.append)
    (message,) = warned
    gone = "next_sentence.bias, next_sentence.weight, pooler.bias, pooler.weight"
    assert message == f"transformers' RoFormer has no place for {gone}, which are left out"
    theirs, model = opened(tmp_path / "out", transformers.AutoModelForMaskedLM), tinyformer.load(run, backend="numpy")
    ids = np.arange(10)[None] + 97
    close(model(ids).numpy(), theirs(torch.tensor(ids)).logits, 1e-5)
    for folder in ("tag", "classify"):
        (tmp_path / folder).mkdir()
    tuned("roformer of pairs", "tag", tmp_path / "tag")
    with pytest.raises(UsageError, match=r"the pooler .* ends in tanh.*; fine-tune a run .* --objective masked$"):
        tuned("roformer of pairs", "classify", tmp_path / "classify")


@pytest.mark.parametrize("name", ["roformer", "bert", "bert of pairs"])
def test_tags(name, tmp_path):
    run, theirs, tokenizer, _ = tuned(name, "tag", tmp_path)
    model = tinyformer.load(run, backend="numpy")
    task = finetuning.open_task(open_run(run), open_run(run).config())
    assert list(theirs.config.id2label.values()) == list(task.labels)
    for words in (["red", "cat"], ["a", "blue", "dog"]):
        batch = task.corrupt(task.rows(Example(tuple(words), None)))
        given = tokenizer(" ".join(words), return_tensors="pt")
        assert given["input_ids"].tolist() == batch.inputs.tolist()
        out = theirs(**given).logits
        close(model(batch.inputs, **batch.keywords).numpy(), out, 1e-5)
        first = [given.char_to_token(len(" ".join(words[:i])) + (i > 0)) for i in range(len(words))]
        probable = [theirs.config.id2label[int(out[0, place].argmax())] for place in first]
        (told,) = predict(task, model, [Example(tuple(words), None)])
        assert told["tags"] == probable


@pytest.mark.parametrize("task", ["classify", "pair"])
@pytest.mark.parametrize("kind", ["bytes", "chars"])
@pytest.mark.parametrize("name", ["gpt2", "gpt2 untied", "arcee", "llama"])
def test_a_decoder(name, kind, task, tmp_path):
    run, theirs, tokenizer, _ = tuned(name, task, tmp_path, kind=kind)
    check(run, theirs, tokenizer, TEXTS)


@pytest.mark.parametrize("task", ["classify", "pair", "regress"])
def test_a_decoder_that_came_in_and_answers_at_its_end_token(task, tmp_path):
    run, theirs, tokenizer, _ = tuned("gpt2 imported", task, tmp_path)
    check(run, theirs, tokenizer, ["on", "red"])
    assert tokenizer("on")["input_ids"] == [256, 257]


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("name", ["gpt2", "gpt2 untied", "arcee", "llama", "gpt2 imported"])
def test_a_pipeline_gives_a_decoders_scores_for_several_texts_at_once(name, task, tmp_path):
    """Of unlike length, and also those that end as padding is spelled."""
    run, _, tokenizer, _ = tuned(name, task, tmp_path, mean=0.0)
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "out"))
    texts = ["on", "on red", "o <pad>", "e"] if name == "gpt2 imported" else [*TEXTS, "red <pad>"]
    model = tinyformer.load(run, backend="numpy")
    task = finetuning.open_task(open_run(run), open_run(run).config())
    wanted = list(predict(task, model, [Example((text,), None) for text in texts]))
    for size in (1, 3, len(texts)):
        given = {"batch_size": size, "split_special_tokens": True}
        for ours, theirs in zip(wanted, pipeline(texts, **given), strict=True):
            number = ours["number"] if task.name == "regress" else ours["probabilities"][theirs["label"]]
            assert theirs["score"] == pytest.approx(number, abs=5e-6)
            assert task.name == "regress" or theirs["label"] == ours["label"]
    body = interop.read_model(tmp_path / "out", warn=lambda message: None)
    assert not body.tokens.weight.numpy()[tokenizer.pad_token_id].any()


@pytest.mark.parametrize("mean", [0.0, -3.5, 250_000.0])
def test_a_number_of_a_decoder_has_its_mean_in_the_last_norm(mean, tmp_path):
    run, theirs, tokenizer, _ = tuned("gpt2", "regress", tmp_path, mean=mean)
    check(run, theirs, tokenizer, TEXTS)


def test_a_mean_that_no_bias_takes_up_is_told(tmp_path):
    with pytest.raises(UsageError, match="have the mean 250, and such a decoder of transformers has no bias"):
        tuned("arcee", "regress", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_pipeline_gives_our_label(tmp_path):
    run, theirs, tokenizer, _ = tuned("bert", "classify", tmp_path)
    pipeline = transformers.pipeline("text-classification", model=theirs, tokenizer=tokenizer)
    model, config = tinyformer.load(run, backend="numpy"), open_run(run).config()
    told = list(predict(finetuning.open_task(open_run(run), config), model, [Example((text,), None) for text in TEXTS]))
    for text, ours in zip(TEXTS, told):
        found = pipeline(text)[0]
        assert found["label"] == ours["label"]
        assert found["score"] == pytest.approx(ours["probabilities"][ours["label"]], abs=2e-6)


def test_a_prefix_is_told(tmp_path):
    run, theirs, _, warned = tuned("bert", "classify", tmp_path, prefix="review: ")
    assert theirs.config.prefix == "review: "
    assert warned == [f"{run} puts 'review: ' before each text, and so has to whoever uses {tmp_path / 'out'}"]


def test_what_comes_back_is_the_body(tmp_path):
    run, *_ = tuned("bert of pairs", "classify", tmp_path)
    warned = []
    found = interop.read_model(tmp_path / "out", warn=warned.append).parameters()
    assert any("classifier.bias, classifier.weight" in message for message in warned)
    ours = tinyformer.load(run, backend="numpy").parameters()
    for name in ("tokens.weight", "stack.blocks.1.feed_forward.up.weight", "pooler.weight"):
        np.testing.assert_array_equal(found[name].array, ours[f"body.{name}"].array)
