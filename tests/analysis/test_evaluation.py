import numpy as np
import pytest

from tinyformer.analysis.evaluation import evaluate_file
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.models import build, resolve
from tinyformer.text import make_tokenizer


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


def test_a_text_that_is_missing_or_too_short(model, tokenizer, tmp_path):
    with pytest.raises(UsageError):
        evaluate_file(model, tokenizer, tmp_path / "missing.txt")
    (tmp_path / "one.txt").write_bytes(b"a")
    with pytest.raises(UsageError, match="two tokens"):
        evaluate_file(model, tokenizer, tmp_path / "one.txt")
