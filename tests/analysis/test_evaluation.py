import numpy as np
import pytest

from tinyformer.analysis import evaluation
from tinyformer.analysis.evaluation import evaluate_file, figures
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.models import build, resolve
from tinyformer.objectives import Batch, CausalLM, MaskedLM
from tinyformer.text import make_tokenizer, special_tokens
from tinyformer.text.sources import encode_text, open_source


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(np.random.default_rng(0).integers(97, 123, 100, dtype=np.uint8)))
    return path


@pytest.fixture
def tokenizer(text):
    return make_tokenizer("bytes", [text], vocabulary_size=None)


@pytest.fixture
def model(tokenizer):
    config = resolve("tiny", vocabulary=tokenizer.vocabulary_size, layers=1, width=16, heads=2, context=16)
    return build(config, dtype="float64")


@pytest.mark.parametrize("stride", [16, 5, 1])
def test_every_token_but_the_first_is_scored_once_with_the_context_that_the_stride_leaves(
    model, tokenizer, text, stride
):
    ids = tokenizer.encode(text.read_bytes())
    nats = []
    for target in range(1, 100):
        # The row that scores it: the first whose 16 inputs reach the token before it; the last ends the text.
        row = max(0, -(-(target - 16) // stride))
        start = min(row * stride, 99 - 16)
        logits = model(ids[None, start:target]).numpy()[0, -1]
        nats.append(np.log(np.exp(logits).sum()) - logits[ids[target]])
    result = evaluate_file(model, tokenizer, text, stride=stride)
    assert result.tokens == result.text_bytes == 99
    assert result.loss == pytest.approx(np.mean(nats), rel=1e-9)
    assert result.perplexity == pytest.approx(np.exp(np.mean(nats)), rel=1e-9)
    assert result.bits_per_byte == pytest.approx(np.mean(nats) / np.log(2), rel=1e-9)


def test_bits_per_byte_divide_by_the_bytes_of_the_scored_tokens(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("é" * 40 + "ab" * 10, encoding="utf-8")
    tokenizer = make_tokenizer("chars", [path], vocabulary_size=None)
    model = build(resolve("tiny", vocabulary=3, layers=1, width=16, heads=2, context=8))
    result = evaluate_file(model, tokenizer, path)
    assert (result.tokens, result.text_bytes) == (59, 98)
    assert result.bits_per_byte == pytest.approx(result.loss * 59 / 98 / np.log(2), rel=1e-6)


def test_progress_ends_when_all_is_scored(model, tokenizer, text):
    seen = []
    evaluate_file(model, tokenizer, text, progress=lambda *what: seen.append(what))
    assert seen[-1] == (99, 99, "scoring the text")


def test_damaged_weights_are_no_result(model, tokenizer, text):
    model.stack.norm.weight.array[:] = np.nan
    with pytest.raises(TinyformerError, match="not finite"):
        evaluate_file(model, tokenizer, text)


def test_a_loss_beyond_what_exp_takes_is_a_result(model, tokenizer, text):
    model.tokens.weight.array[...] *= 1e6
    found = evaluate_file(model, tokenizer, text)
    assert 710 < found.loss < np.inf
    assert found.perplexity == np.inf


def test_a_text_that_is_missing_or_too_short(model, tokenizer, tmp_path):
    with pytest.raises(UsageError):
        evaluate_file(model, tokenizer, tmp_path / "missing.txt")
    (tmp_path / "one.txt").write_bytes(b"a")
    with pytest.raises(UsageError, match="two tokens"):
        evaluate_file(model, tokenizer, tmp_path / "one.txt")


def encoder_and_objective(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text("\n\n".join("the cat sat on the mat with that rat"[: 5 + 7 * i] for i in range(6)))
    tokenizer = make_tokenizer("chars", [path], special_tokens=special_tokens("encoder"))
    config = resolve(mode="encoder", vocabulary=tokenizer.vocabulary_size, layers=1, width=16, heads=2, context=24)
    return build(config, dtype="float64"), tokenizer, path, MaskedLM.of(tokenizer, 24)


def test_an_encoder_is_scored_on_hidden_tokens_that_are_the_same_each_time(tmp_path, monkeypatch):
    model, tokenizer, path, objective = encoder_and_objective(tmp_path)
    common = int(tokenizer.encode("t")[0])
    unigram = evaluation.Unigram(common, 2.0, np.log(np.arange(1.0, 1 + tokenizer.vocabulary_size)))
    found = evaluate_file(model, tokenizer, path, objective=objective, unigram=unigram)
    nats, right, targets, begun = [], [], [], 0
    for batch in open_source(objective, encoded(tmp_path, objective, tokenizer, path), 24, seed=0).in_order(1):
        logits = model(batch.inputs, mask=batch.mask, positions=batch.positions).numpy()[0]
        for place in np.flatnonzero(batch.weights[0]):
            target = batch.targets[0, place]
            nats.append(np.log(np.exp(logits[place]).sum()) - logits[place][target])
            right.append(logits[place].argmax() == target)
            targets.append(target)
        begun += (batch.targets == tokenizer.special_id("cls")).sum()
    assert begun >= 6  # all documents were there
    assert found.tokens == len(nats) > 10
    assert found.loss == pytest.approx(np.mean(nats), rel=1e-9)
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.unigram_accuracy == pytest.approx(np.mean(np.array(targets) == common))
    assert found.unigram_loss == pytest.approx(-np.log(np.array(targets) + 1.0).mean())
    assert found.bits_per_byte is found.exact_match is found.next_sentence_accuracy is None
    monkeypatch.setattr(evaluation, "TOKENS_AT_ONCE", 1)
    alone = evaluate_file(model, tokenizer, path, objective=objective, unigram=unigram)
    assert alone.loss == pytest.approx(found.loss, rel=1e-12)
    assert (alone.tokens, alone.accuracy) == (found.tokens, found.accuracy)


def encoded(tmp_path, objective, tokenizer, path):
    return encode_text(objective, path, tokenizer, tmp_path / "text.tokens", context=24)


def test_a_text_without_anything_to_predict_is_told(tmp_path):
    model, tokenizer, path, objective = encoder_and_objective(tmp_path)
    path.write_text("\n\n \n")
    with pytest.raises(UsageError, match="too short: there is nothing to predict"):
        evaluate_file(model, tokenizer, path, objective=objective)


def test_figures_are_means_of_their_own_sums():
    sums = {
        "nats": 6.0,
        "tokens": 4.0,
        "asked": 2.0,
        "correct": 1.0,
        "pairs_nats": 3.0,
        "pairs": 2.0,
        "pairs_correct": 1.0,
    }
    assert figures(sums | {"sequences": 8.0, "exact": 2.0}) == {
        "loss": 1.5, "accuracy": 0.5, "next_sentence_loss": 1.5, "next_sentence_accuracy": 0.5, "exact_match": 0.25,
    }  # fmt: skip
    assert np.isnan(figures({"nats": 0.0, "tokens": 0.0, "asked": 0.0, "correct": 0.0})["loss"])


@pytest.mark.parametrize(("labels", "chance"), [([0, 0, 0, 1], 0.75), ([1, 1, 0, 1], 0.75), ([0, 1], 0.5)])
def test_the_commoner_kind_of_pair_is_the_chance(labels, chance):
    baseline = evaluation.Baseline(CausalLM(), None)
    for label in labels:
        ids = np.zeros((1, 3), int)
        baseline.add(Batch(ids, ids, labels=np.array([label])))
    assert baseline.figures() == {"next_sentence_chance": chance}


def test_the_commonest_token_is_right_by_weight():
    unigram, targets = evaluation.Unigram(5, 2.0, np.array([0.0] * 5 + [-1, 0, -3])), np.array([[5, 5, 7, 5]])
    baseline = evaluation.Baseline(CausalLM(), unigram)
    baseline.add(Batch(targets, targets, np.array([[1, 0, 2, 1]], np.float32)))
    assert baseline.figures() == {"unigram_loss": 2.0, "unigram_accuracy": 0.5}


def test_the_unigram_loss_is_that_of_the_training_text_on_the_file(model, tokenizer, text, tmp_path):
    """Knowing how common tokens are in one text helps less with another, and least with tokens that are not there."""
    counts = np.zeros(tokenizer.vocabulary_size, int)
    counts[tokenizer.encode(b"a")], counts[tokenizer.encode(b"b")] = 3, 1
    unigram = evaluation.Unigram.of(CausalLM(), counts, 16)
    losses = {}
    for content in ("aaab", "abbb", "azzz"):
        (tmp_path / "other.txt").write_text(content)
        losses[content] = evaluate_file(model, tokenizer, tmp_path / "other.txt", unigram=unigram).unigram_loss
    seen = {letter: np.log((count + 1 / len(counts)) / 5) for letter, count in (("a", 3), ("b", 1), ("z", 0))}
    assert losses == {text: pytest.approx(-np.mean([seen[letter] for letter in text[1:]])) for text in losses}
    assert unigram.entropy == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert np.exp(unigram.log_shares).sum() == pytest.approx(1)


def test_without_the_training_text_the_unigram_loss_is_of_the_text_itself(model, tokenizer, text):
    """Tokens but the first, and all of them: that is all that differs from the entropy of a text of 100 letters."""
    shares = np.bincount(tokenizer.encode(text.read_bytes())) / 100
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    found = evaluate_file(model, tokenizer, text)
    assert found.unigram_loss == pytest.approx(entropy, rel=0.02)
    assert found.unigram_accuracy == pytest.approx(shares.max(), rel=0.2)
