"""Features of texts: what a plain computation of one text at a time gives, pooled by hand; and files of them."""

import os

import numpy as np
import pytest

from tinyformer import nn
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.models import build, resolve
from tinyformer.tasks import Classify, Example
from tinyformer.tasks.features import POOLS, embed, write_features
from tinyformer.tasks.predicting import Tally
from tinyformer.tensor import no_grad
from tinyformer.text import ByteTokenizer, CharTokenizer, special_tokens

CONTEXT = 16
MODES = tuple(POOLS)
TEXTS = ["a", "bc def", "x" * 9, "", "y" * 40, "the end", "  \t", "bc def"]


def made(mode, **given):
    tokenizer = ByteTokenizer(special_tokens(mode))
    config = resolve(mode=mode, vocabulary=tokenizer.vocabulary_size, layers=2, heads=2, width=12, context=CONTEXT)
    model = build(config, **given)
    rng = np.random.default_rng(2)
    model.assign({name: rng.normal(0, 0.3, p.shape).astype(p.dtype) for name, p in model.parameters().items()})
    return model, tokenizer


@no_grad()
def plainly(model, tokenizer, text, pool):
    """The features of one text: no batch, no padding, no mask."""
    own = list(text.encode())
    if not text.strip():
        return np.zeros(12)
    if model.config.mode == "encoder":
        ids = [tokenizer.special_id("cls"), *own[: CONTEXT - 2], tokenizer.special_id("sep")]
        hidden = model.hidden(np.array([ids])).numpy()[0]
        return hidden[1:-1].mean(axis=0) if pool == "mean" else hidden[0]
    if model.config.mode == "encoder-decoder":
        ids = [*own[: CONTEXT - 1], tokenizer.special_id("end")]
        return model.encode(np.array([ids])).numpy()[0, :-1].mean(axis=0)
    hidden = model.hidden(np.array([own[:CONTEXT]])).numpy()[0]
    return hidden.mean(axis=0) if pool == "mean" else hidden[-1]


@pytest.mark.parametrize(("mode", "pool"), [(mode, pool) for mode in MODES for pool in POOLS[mode]])
def test_features_are_what_a_plain_computation_gives(mode, pool):
    model, tokenizer = made(mode)
    expected = np.stack([plainly(model, tokenizer, text, pool) for text in TEXTS])
    assert len(np.unique(expected.round(3), axis=0)) == len(TEXTS) - 2
    for size, threads, live in ((1, 1, False), (3, 2, False), (16, 1, False), (2, 1, True)):
        tally = Tally()
        settings = {"batch_size": size, "threads": threads, "live": live, "tally": tally}
        found = np.stack(list(embed(model, tokenizer, TEXTS, pool=pool, **settings)))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert tally == Tally(texts=6, blank=2, cut=1)


def test_a_head_changes_nothing():
    body, tokenizer = made("encoder")
    task = Classify(tokenizer, body.config, labels=("a", "b"))
    model = task.model(body, nn.Initializer("numpy", "float32", 1))
    for with_head, without in zip(embed(model, tokenizer, TEXTS), embed(body, tokenizer, TEXTS), strict=True):
        assert np.array_equal(with_head, without)


def test_names_of_special_tokens_are_text():
    model, tokenizer = made("encoder")
    same, other = embed(model, tokenizer, ["<mask>", "<mosk>"])
    assert not np.array_equal(same, other)
    np.testing.assert_allclose(same, plainly(model, tokenizer, "<mask>", "mean"), rtol=1e-5, atol=1e-5)


def test_features_are_float32_whatever_the_model_computes_in():
    model, tokenizer = made("encoder", dtype="float64")
    assert next(embed(model, tokenizer, ["a"])).dtype == np.float32


@pytest.mark.parametrize(
    ("mode", "pool", "has"),
    [("decoder", "cls", "mean and last"), ("encoder", "last", "mean and cls"), ("encoder-decoder", "cls", "mean")],
)
def test_a_way_of_pooling_that_a_model_has_not(mode, pool, has):
    with pytest.raises(UsageError, match=f"of mode {mode} has no features by --pool {pool}; it has {has}$"):
        next(embed(*made(mode), ["a"], pool=pool))


def test_texts_that_cannot_be_encoded_and_weights_that_are_no_numbers():
    model, _ = made("decoder")
    texts = embed(model, CharTokenizer("abc"), ["a", "b", "d"])
    assert len(next(texts)) == len(next(texts)) == 12
    with pytest.raises(TinyformerError, match="text 3 has the character 'd'"):
        next(texts)
    with pytest.raises(TinyformerError, match=r"a\.csv, line 9 has the character 'd'"):
        next(embed(model, CharTokenizer("abc"), [Example(("d",), place="a.csv, line 9")]))
    model.tokens.weight.array[:] = np.nan
    with pytest.raises(TinyformerError, match="the features of text 1 are not finite"):
        next(embed(model, CharTokenizer("abc"), ["a"]))


@pytest.mark.parametrize("count", [0, 1, 3, 100_000])
def test_a_file_is_written_while_rows_come(count, tmp_path):
    rows = (np.full(3, number, np.float32) for number in range(count))
    assert write_features(tmp_path / "a.npy", rows, 3) == count
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (found.shape, found.dtype) == ((count, 3), np.float32)
    assert np.array_equal(found, np.arange(count, dtype=np.float32)[:, None].repeat(3, axis=1))
    assert os.listdir(tmp_path) == ["a.npy"]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path):
    def broken():
        yield np.zeros(3, np.float32)
        raise UsageError("line 2 is bad")

    with pytest.raises(UsageError, match="line 2"):
        write_features(tmp_path / "a.npy", broken(), 3)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match=r"there is no folder .*missing; make it"):
        write_features(tmp_path / "missing" / "a.npy", [], 3)


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "a.npy").write_text("mine")
    (tmp_path / "link.npy").symlink_to("nowhere")
    for name in ("a.npy", "link.npy"):
        with pytest.raises(UsageError, match=r"exists; choose a new --out"):
            write_features(tmp_path / name, [], 3)
    assert (tmp_path / "a.npy").read_text() == "mine"


def test_features_on_cupy(cupy_backend):
    """Computed in a thread beside that which began the work, as always."""
    model, tokenizer = made("encoder")
    expected = np.stack(list(embed(model, tokenizer, TEXTS)))
    there = build(model.config, backend="cupy")
    there.assign({name: parameter.numpy() for name, parameter in model.parameters().items()})
    np.testing.assert_allclose(np.stack(list(embed(there, tokenizer, TEXTS))), expected, rtol=1e-4, atol=1e-5)
