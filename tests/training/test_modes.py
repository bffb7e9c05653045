"""What training promises holds for every objective: the same bits after an interruption, whatever the pieces."""

import json
import math
import os
import shlex
import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_runs import OBJECTIVES, Events, result

import tinyformer
from tinyformer.analysis.evaluation import evaluate_file
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.training import checkpoint, data
from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train

each = pytest.mark.parametrize("objective", OBJECTIVES)
BEGIN = {"mode": None, "objective": None, "tokenizer": "bpe"}  # as they are where no flag is given
new = pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "causal"])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@new
def test_a_run_tells_its_figures_and_goes_on_with_the_same_bits(configs, out, tmp_path, objective):
    config = configs[objective].replace(steps=8, sample_every=8)
    events = Events()
    end = train(config, events, out=out)
    start, validation = events.of("start")[0], events.of("validation")[-1]
    assert start["objective"] == objective
    assert start["unigram_bits_per_byte"] is None
    assert validation["unigram_accuracy"] == start["unigram_accuracy"]
    assert end["validation"] == {name: validation[name] for name in end["validation"]}
    assert 0 <= validation["accuracy"] <= 1
    assert ("exact_match" in validation) == (objective == "seq2seq")
    assert ("next_sentence_accuracy" in validation) == (objective == "next-sentence")
    assert "bits_per_byte" not in read_log(out / "log.jsonl")[-1]
    assert events.of("sample")[0]["legend"]
    written = open_run(out).config()
    assert (written.objective, written.mode) == (objective, OBJECTIVES[objective][0])
    assert written.masking == {"masked": "dynamic", "next-sentence": "fixed"}.get(objective)
    _, corpus = data.reopen(open_run(out), written)
    assert corpus.objective.smoothing == (written.label_smoothing or 0.0)
    assert corpus.train.fixed == (written.masking == "fixed")

    def interrupt(event):
        if event["event"] == "train" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    again = tmp_path / "again"
    with pytest.raises(Stopped, match="saved at step 5"):
        train(config, Events(interrupt), out=again)
    events = Events()
    resume(again, events)
    assert not events.of("warning")
    assert result(again) == result(out)


@each
def test_accumulation_equals_the_big_batch(configs, tmp_path, objective):
    """In float64 and with dropout, however a step's ragged rows are cut up, the weights agree to rounding."""
    found = []
    for i, (rows, micros, threads) in enumerate([(12, 1, 1), (4, 3, 1), (1, 12, 1), (6, 2, 4)]):
        way = {"batch_size": rows, "grad_accumulation": micros, "threads": threads, "precision": "float64", "steps": 3}
        train(configs[objective].replace(**way), Events(), out=tmp_path / str(i))
        found.append(checkpoint.load_weights(tmp_path / str(i))[0])
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_allclose(other[name], array, rtol=0, atol=1e-11)


@pytest.mark.parametrize("objective", ["next-sentence", "span-corruption", "seq2seq"])  # the first one masks, too
def test_one_batch_is_learnt_by_heart(configs, out, objective):
    config, steps = configs[objective], 150
    events = Events()
    changed = config.replace(
        overfit_one_batch=True, steps=steps, eval_every=steps, save_every=steps, batch_size=2, grad_accumulation=1,
        learning_rate=0.01, label_smoothing=0.0 if objective == "seq2seq" else None,
        model={**config.model, "width": 32, "heads": 2, "hidden": 64, "dropout": 0.0},
    )  # fmt: skip
    train(changed, events, out=out)
    assert events.of("train")[0]["loss"] > 2
    assert events.of("train")[-1]["loss"] < 0.1


@new
def test_a_dry_run_counts_what_a_step_costs_and_leaves_nothing(configs, tmp_path, monkeypatch, objective):
    monkeypatch.chdir(tmp_path)
    events = Events()
    train(configs[objective], events, dry_run=True)
    assert not list(tmp_path.iterdir())
    facts = events.of("dry_run")[0]
    assert sum(math.prod(shape) for shape in facts["shapes"].values()) == facts["parameters"]
    assert facts["flops_per_step"] > 0
    lengths = facts["lengths"]
    assert (lengths["source"] > 0, lengths["target"] > 0) == (True, OBJECTIVES[objective][0] == "encoder-decoder")
    if objective == "span-corruption":  # 9 tokens of text: 8 of source and 3 of target, with their ends
        assert (lengths["source"], lengths["target"], facts["tokens_per_step"]) == (8, 3, 110)


@new
def test_a_run_is_evaluated_as_it_was_trained(configs, out, objective):
    config = configs[objective]
    train(config.replace(validation=str(config.files[0])), Events(), out=out)
    model, opened = tinyformer.load(out), open_run(out)
    _, corpus = data.reopen(opened, opened.config())
    kind, unigram = data.open_training(out, corpus.tokenizer, model.config)
    found = evaluate_file(model, corpus.tokenizer, config.files[0], objective=kind, unigram=unigram)
    line = read_log(out / "log.jsonl")[-1]  # which scored the same file, but with a seed of its own: 0 as well
    assert found.loss == pytest.approx(line["loss"], rel=1e-5)
    assert found.accuracy == pytest.approx(line["accuracy"])
    assert found.tokens == line["tokens"]
    assert found.exact_match == pytest.approx(line.get("exact_match"))
    assert found.unigram_accuracy == pytest.approx(corpus.references["unigram_accuracy"])
    assert found.unigram_loss == pytest.approx(corpus.references["unigram_loss"])
    ids = corpus.train.tokens.read(0, len(corpus.train.tokens))
    if objective == "masked":
        ordinary = ids[ids < min(corpus.tokenizer.special_tokens.values())]
        counts = np.bincount(ordinary)
        assert unigram.token == counts.argmax()
        shares = counts[counts > 0] / counts.sum()
        assert unigram.entropy == pytest.approx(-(shares * np.log(shares)).sum())
    with pytest.raises(UsageError, match="--stride belongs to decoders"):
        evaluate_file(model, corpus.tokenizer, config.files[0], objective=kind, stride=2)


@new
def test_the_command_to_type_next_is_one_that_works(configs, out, objective):
    from tinyformer.cli import main

    end = train(configs[objective].replace(steps=1), Events(), out=out)
    command = shlex.split(end["next"])
    assert command[1] == ("generate" if objective == "seq2seq" else "fill")
    with pytest.raises(SystemExit) as left:
        main(command[1:])
    assert not left.value.code


def test_a_head_that_the_objective_does_not_reach_stays_as_it_is(configs, out):
    """Weight decay would take away what a published model knows of next sentences."""
    config = configs["masked"]
    train(config.replace(model={**config.model, "next_sentence": True}, weight_decay=0.5), Events(), out=out)
    before, after = (
        load_file(out / "checkpoints" / name / "model.safetensors") for name in ("step-000009", "step-000012")
    )
    for name in before:
        same = np.array_equal(before[name], after[name])
        assert same == name.startswith(("pooler.", "next_sentence.")), name


def old_format(path):
    """Rewrite a checkpoint as format 1 had it, where a decoder's stack had no name of its own."""
    state = json.loads((path / "state.json").read_bytes()) | {"format": 1, "config_digest": "of then"}
    for name in ("model.safetensors", "optimizer.safetensors"):
        tensors = load_file(path / name)
        renamed = {
            key.replace("stack.", "").replace("head.output.weight", "head.weight"): tensors[key] for key in tensors
        }
        assert renamed.keys() != tensors.keys()
        save_file(renamed, path / name)
        state["sha256"][name] = checkpoint.hashlib.sha256((path / name).read_bytes()).hexdigest()
    del state["seal"]
    state["seal"] = checkpoint._seal(state)
    (path / "state.json").write_text(json.dumps(state, indent=2))


@pytest.mark.parametrize("model", [{"positions": "learned", "tied": False}, {"norm": "layer", "bias": True}])
def test_a_run_of_an_earlier_version_goes_on_with_the_same_bits(config, out, tmp_path, model):
    config = config.replace(model={**config.model, **model})
    train(config, Events(), out=out)
    old = shutil.copytree(out, tmp_path / "old")
    shutil.rmtree(old / "checkpoints" / "step-000012")
    old_format(old / "checkpoints" / "step-000009")
    written = (old / "config.toml").read_text().splitlines(keepends=True)
    (old / "config.toml").write_text("".join(line for line in written if not line.startswith("objective")))
    tinyformer.load(old)
    events = Events()
    resume(old, events)
    assert not events.of("warning")
    assert result(old) == result(out)


def test_a_run_begins_where_another_ended(configs, out, tmp_path):
    config = configs["masked"]
    train(config, Events(), out=out)
    begun = tmp_path / "begun"
    plain = config.replace(**BEGIN, model={"dropout": 0.3}, init_from=str(out), precision="float64")
    events = Events()
    train(plain, events, out=begun)
    assert events.of("start")[0]["model"]["dropout"] == 0.3
    assert tinyformer.load(begun).tokens.weight.numpy().dtype == np.float64
    first, last = read_log(begun / "log.jsonl")[0], read_log(out / "log.jsonl")[-2]
    assert first["loss"] < 0.5 * (last["loss"] + events.of("start")[0]["ln_v"])
    weights = checkpoint.load_weights(out)[0]
    start = load_file(begun / "checkpoints" / "step-000009" / "model.safetensors")
    assert {name: array.shape for name, array in start.items()} == {name: w.shape for name, w in weights.items()}
    assert (begun / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()
    shutil.move(out, tmp_path / "moved")  # the new run needs the old one no longer
    assert resume(begun, Events(), {"steps": 13})["step"] == 13


def test_the_very_weights_are_taken_over(configs, out, tmp_path):
    config = configs["span-corruption"]
    train(config, Events(), out=out)
    once = config.replace(**BEGIN, model={}, init_from=str(out), steps=1, learning_rate=1e-30)
    train(once, Events(), out=tmp_path / "begun")
    before, after = checkpoint.load_weights(out)[0], checkpoint.load_weights(tmp_path / "begun")[0]
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "decoder"}, "is a run of mode encoder; leave --mode decoder out"),
        ({"objective": "causal"}, "--objective causal belongs to --mode decoder, and the mode here is encoder"),
        ({"objective": "next-sentence"}, "needs a model with a next-sentence head"),
        ({"model": {"width": 64}}, "keeps its shape and tokenizer; leave --width 64 out"),
        ({"model": {"wdith": 64}}, "leave --wdith 64 out"),
        ({"preset": "tiny"}, "leave --preset tiny out"),
        ({"tokenizer": "bytes"}, "leave --tokenizer bytes out"),
        ({"vocab_size": 400, "tokenizer": "bpe"}, "leave --vocab-size 400 out"),
        ({"init_from": "/none"}, "no run at /none"),
    ],
)
def test_what_cannot_begin_where_another_ended_is_told(configs, begun, out, change, message):
    config = configs["masked"].replace(**BEGIN, model={}, init_from=str(begun))
    with pytest.raises(UsageError) as raised:
        train(config.replace(**change), Events(), out=out)
    assert message in str(raised.value)
    assert not out.exists()


@pytest.fixture(scope="module")
def begun(configs, tmp_path_factory):
    out = tmp_path_factory.mktemp("begun") / "run"
    train(configs["masked"].replace(steps=1), Events(), out=out)
    return out


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        (
            "causal",
            {"objective": "masked"},
            "--objective masked belongs to --mode encoder, and the mode here is decoder",
        ),
        ("masked", {"objective": "seq2seq"}, "belongs to --mode encoder-decoder, and the mode here is encoder"),
        ("causal", {"masking": "fixed"}, "--masking belongs to --mode encoder, and the mode here is decoder"),
        ("span-corruption", {"label_smoothing": 0.1}, "--label-smoothing belongs to --objective seq2seq"),
        ("masked", {"preset": "gpt2"}, "the preset 'gpt2' is of mode decoder"),
        ("masked", {"model": {"context": 100_000}}, "--context"),
        ("next-sentence", {"model": {"context": 4}}, "needs a context of at least 5"),
        ("next-sentence", {"model": {"segments": 0}}, "needs a model with a next-sentence head and segments"),
        ("span-corruption", {"model": {"context": 2}}, "needs a context of at least 3"),
        ("span-corruption", {"model": {"context": 4000}}, "use a context of at most"),
        ("seq2seq", {"model": {"context": 3}}, "but the context is 3"),
    ],
)
def test_what_means_nothing_in_a_mode_is_told_and_leaves_nothing(configs, out, objective, change, message):
    with pytest.raises(TinyformerError) as raised:
        train(configs[objective].replace(**change), Events(), out=out)
    assert raised.value.exit_code == 2
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not out.exists()


def test_one_document_has_no_next_one(configs, text, out):
    with pytest.raises(UsageError, match=r"two documents, and \S+/data\.txt has 1 to train on; put blank lines"):
        train(configs["next-sentence"].replace(files=(text,)), Events(), out=out)
    assert not out.exists()


def test_long_lines_make_pairs_of_one_kind_and_that_is_told(configs, documents, tmp_path, out):
    (tmp_path / "long.txt").write_text(
        documents.read_text().replace("\n\n", "\t").replace("\n", " ").replace("\t", "\n\n")
    )
    events = Events()
    train(configs["next-sentence"].replace(files=(tmp_path / "long.txt",), steps=1), events, out=out)
    assert "put sentences on lines of their own" in events.of("warning")[0]["message"]
