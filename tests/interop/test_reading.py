"""Weights and options of published models, from files made by hand; every way in which they can be wrong."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from published import gpt2_arrays, safetensors, write_gpt2

import tinyformer
from tinyformer import interop
from tinyformer.errors import TinyformerError, UsageError
from tinyformer.interop.weights import Weights


def model_of(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return interop.read_model(folder)


def check_is_gpt2(model, theirs):
    """What must be where, written out."""
    ours = {name: parameter.numpy() for name, parameter in model.parameters().items()}
    block = "transformer.h.0"
    for number, name in enumerate(("query", "key", "value")):
        columns = slice(6 * number, 6 * number + 6)
        wanted = theirs[f"{block}.attn.c_attn.weight"][:, columns]
        assert np.array_equal(ours[f"stack.blocks.0.attention.{name}.weight"], wanted)
        wanted = theirs[f"{block}.attn.c_attn.bias"][columns]
        assert np.array_equal(ours[f"stack.blocks.0.attention.{name}.bias"], wanted)
    assert np.array_equal(ours["tokens.weight"], theirs["transformer.wte.weight"])
    assert np.array_equal(ours["stack.blocks.0.feed_forward.down.weight"], theirs[f"{block}.mlp.c_proj.weight"])
    assert np.array_equal(ours["stack.norm.bias"], theirs["transformer.ln_f.bias"])
    assert sum(array.size for array in ours.values()) == sum(array.size for array in theirs.values())


def test_each_tensor_of_a_gpt2_is_where_it_belongs(tmp_path):
    theirs = gpt2_arrays()
    model = model_of(write_gpt2(tmp_path))
    check_is_gpt2(model, theirs)
    config = model.config
    assert (config.hidden, config.activation, config.context, config.tied) == (8, "gelu", 12, True)
    assert np.array_equal(tinyformer.load(tmp_path)(np.array([[1, 2]])).numpy(), model(np.array([[1, 2]])).numpy())


def test_a_body_has_no_prefix_and_buffers_are_no_parameters(tmp_path):
    theirs = gpt2_arrays()
    bare = {name.removeprefix("transformer."): array for name, array in theirs.items()}
    check_is_gpt2(model_of(write_gpt2(tmp_path, bare | {"h.0.attn.bias": np.ones((1, 1, 12, 12))})), theirs)


def test_an_output_layer_of_its_own_and_one_that_is_told_twice(tmp_path):
    theirs, other = gpt2_arrays(), np.ones((258, 6), np.float32)
    model = model_of(write_gpt2(tmp_path / "own", theirs | {"lm_head.weight": other}, tie_word_embeddings=False))
    assert not model.config.tied
    assert np.array_equal(model.head.output.weight.numpy(), other.T)
    again = theirs | {"lm_head.weight": theirs["transformer.wte.weight"]}
    check_is_gpt2(model_of(write_gpt2(tmp_path / "twice", again)), theirs)
    # Where the files contradict config.json, they are right.
    assert not model_of(write_gpt2(tmp_path / "wrong", theirs | {"lm_head.weight": other})).config.tied
    assert model_of(write_gpt2(tmp_path / "lacking", tie_word_embeddings=False)).config.tied
    assert not model_of(write_gpt2(tmp_path / "equal", again, tie_word_embeddings=False)).config.tied


@pytest.mark.parametrize("shards", [2, 5])
def test_shards_are_one_model(tmp_path, shards):
    theirs = gpt2_arrays()
    write_gpt2(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    parts = [dict(list(theirs.items())[i::shards]) for i in range(shards)]
    index = {}
    for i, part in enumerate(parts):
        (tmp_path / f"model-{i}.safetensors").write_bytes(safetensors(part))
        index |= dict.fromkeys(part, f"model-{i}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    check_is_gpt2(model_of(tmp_path), theirs)
    (tmp_path / "model-1.safetensors").write_bytes(safetensors({}))
    with pytest.raises(TinyformerError, match=r"model-1\.safetensors lacks 'transformer\."):
        interop.read_model(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(UsageError, match=f"lacks 1 of its {shards} shards: model-1.safetensors"):
        interop.read_model(tmp_path)


any_floats = arrays_of.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=st.floats(width=32))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@given(array=any_floats)
def test_sixteen_bits_become_float32_exactly(tmp_path_factory, dtype, array):
    folder = tmp_path_factory.mktemp("weights")
    with np.errstate(over="ignore"):
        wanted = array.astype(np.float16).astype(np.float32) if dtype == "F16" else array.copy()
    if dtype == "BF16":
        wanted.view(np.uint32)[...] &= 0xFFFF0000
    with np.errstate(over="ignore"):
        (folder / "model.safetensors").write_bytes(safetensors({"x": array}, dtype))
    found = Weights(folder).read("x")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


def spoilt(folder, spoil):
    write_gpt2(folder, tokenizer=False)
    spoil(folder)
    return folder


def rewritten(**options):
    return lambda folder: write_gpt2(folder, tokenizer=False, **options)


def arrays_with(**changes):
    return lambda folder: write_gpt2(folder, gpt2_arrays() | changes, tokenizer=False)


def shorter(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def indexed(name):
    def spoil(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    return spoil


WRONG = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "should hold one JSON object"),
    "unknown": (
        rewritten(model_type="mamba"),
        "a model of type 'mamba'; known are GPT-2 ('gpt2'), BERT ('bert'), RoFormer ('roformer'), T5",
    ),
    "no type": (rewritten(model_type=None), "a model of type None; known are"),
    "option": (
        rewritten(scale_attn_by_inverse_layer_idx=True),
        "GPT-2 with scale_attn_by_inverse_layer_idx = True is not supported, only False",
    ),
    "activation": (rewritten(activation_function="quick_gelu"), "activation_function = 'quick_gelu' is not supported"),
    "no number": (rewritten(n_embd="6"), "n_embd in config.json should be a number, and is '6'"),
    "odd heads": (rewritten(n_head=4), "4 heads do not divide a width of 6"),
    "half a layer": (rewritten(n_layer=1.5), "layers must be a whole number"),
    "many layers": (rewritten(n_layer=1 << 29), "asks for 536870912 layers, and the weights are of fewer"),
    "two layers": (rewritten(n_layer=2), "lacks the tensor 'transformer.h.1.ln_1.weight'"),
    "shape": (
        arrays_with(**{"transformer.wpe.weight": np.ones((12, 5))}),
        "'transformer.wpe.weight' should be of shape (12, 6), and is of shape (12, 5)",
    ),
    "fused shape": (
        arrays_with(**{"transformer.h.0.attn.c_attn.bias": np.ones(17)}),
        "'transformer.h.0.attn.c_attn.bias' should be of shape (18,), and is of shape (17,)",
    ),
    "terabytes": (rewritten(n_inner=1 << 30), "should be of shape (6, 1073741824), and is of shape (6, 8)"),
    "whole numbers": (rewritten(dtype="I8"), "is of type I8; readable are F64, F32, F16, BF16"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "pickle": (pickled, "only as pytorch_model.bin, a pickle"),
    "cut short": (shorter, "does not fit its place; the file may have been cut short"),
    "no safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "header does not fit it"),
    "infinite": (
        arrays_with(**{"transformer.ln_f.bias": np.array([0, 0, np.inf, 0, 0, 0])}),
        "the tensor 'transformer.ln_f.bias' holds numbers that are not finite in float32",
    ),
    "too large": (
        lambda folder: write_gpt2(
            folder, {k: 1e300 * a.astype(float) for k, a in gpt2_arrays().items()}, tokenizer=False, dtype="F64"
        ),
        "holds numbers that are not finite in float32",
    ),
    "control": (arrays_with(**{"a\x1b[2J": np.ones(1)}), r"'a\x1b[2J' is no name of a tensor"),
    "long name": (indexed("x" * 5000), "lacks 1 of its 1 shards: xxx"),
    "other folder": (indexed("../secret.safetensors"), "'../secret.safetensors' is no name of a file beside it"),
    "terminal": (indexed("\x1b[2J"), r"'\x1b[2J' is no name of a file beside it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(tmp_path, name):
    spoil, message = WRONG[name]
    with pytest.raises(TinyformerError) as error:
        interop.read_model(spoilt(tmp_path / "model", spoil))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [12, 0]},
        {"dtype": "F32", "shape": [-3], "data_offsets": [0, -12]},
        {"dtype": "F32", "shape": [-1, -3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [-12, 0]},
        {"dtype": "F32", "shape": [True, 3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [1.5, 2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [1 << 62, 0], "data_offsets": [0, 12]},
        {"dtype": 4, "shape": [3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [3]},
        {"dtype": "F32", "shape": 3, "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 6, 12]},
        [],
        None,
    ],
)
def test_a_tensor_that_cannot_be_there_is_damage(tmp_path, entry):
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(TinyformerError, match=r"model\.safetensors is damaged, or no safetensors file: 'x' "):
        Weights(tmp_path)


@given(content=st.binary(max_size=200))
def test_no_file_does_more_than_fail(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("weights")
    for prefix in (b"", len(content).to_bytes(8, "little")):
        (folder / "model.safetensors").write_bytes(prefix + content)
        try:
            names = Weights(folder).names
        except TinyformerError:
            continue
        assert names == []


def test_what_is_left_out_is_told(tmp_path):
    write_gpt2(tmp_path, gpt2_arrays() | {"score.weight": np.ones((2, 6))}, embd_pdrop=0.3)
    told = []
    interop.read_model(tmp_path, warn=told.append)
    assert len(told) == 2
    assert "embd_pdrop is 0.3 and resid_pdrop 0.0; the latter is used for both" in told[0]
    assert "holds what GPT-2 here has no use for, and is left out: score.weight" in told[1]
    with pytest.warns(UserWarning, match="embd_pdrop|score") as warned:
        tinyformer.load(tmp_path)
    assert {warning.filename for warning in warned} == {__file__}
