"""The safetensors format, held to the safetensors package in both directions and fed with damaged files."""

import json
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError
from tinyformer.training import tensorfile
from tinyformer.training.tensorfile import DamagedFile, read

DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def encode(*args):
    return b"".join(tensorfile.encode(*args))


@st.composite
def tensors(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(st.text(max_size=8), max_size=4, unique=True))
    shapes = st.lists(st.integers(0, 4), max_size=3)
    return {
        name: np.asarray(rng.standard_normal(tuple(draw(shapes))) * 9, draw(st.sampled_from(DTYPES)))
        for name in names
        if name != "__metadata__"
    }


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@settings(deadline=None)
@given(tensors())
def test_the_package_reads_what_we_write_and_we_what_it_writes(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    ours = encode(given)
    assert ours == safetensors.numpy.save(given)
    assert encode(given, {"format": "pt"}) == safetensors.numpy.save(given, {"format": "pt"})
    same(safetensors.numpy.load(ours), given)
    for content in (ours, safetensors.numpy.save(given)):
        path.write_bytes(content)
        found = read(path)
        same(found, given)
        assert all(array.flags.writeable for array in found.values())


def test_arrays_of_any_layout_can_be_written(tmp_path):
    array = np.arange(12, dtype=">f4").reshape(3, 4).T[::2]
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode({"x": array, "y": np.float32(3)}))
    np.testing.assert_array_equal(read(path)["x"], array)
    assert read(path)["y"].shape == ()


GOOD = encode({"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "i2"), "": np.zeros((), "f8")})
LENGTH = int.from_bytes(GOOD[:8], "little")
HEADER, DATA = json.loads(GOOD[8 : 8 + LENGTH]), GOOD[8 + LENGTH :]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 64), st.floats(), st.text(max_size=5),
    st.sampled_from(["F32", "BF16", "F8_E4M3", "BOOL", "shape", 2**63, 2**64, 10**30, -1]),
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=6)


@st.composite
def damaged(draw):
    """A file with a fault: bytes altered, cut or added, or a header that says something else."""
    kind = draw(st.sampled_from(["bytes", "cut", "add", "field", "fields", "length", "whole"]))
    if kind == "bytes":
        content = bytearray(GOOD)
        for place, byte in draw(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1)):
            content[place] = byte
        return bytes(content)
    if kind == "cut":
        return GOOD[: draw(st.integers(0, len(GOOD)))]
    if kind == "add":
        return GOOD + draw(st.binary(min_size=1, max_size=20))
    if kind == "length":
        return draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little") + GOOD[8:]
    header = json.loads(json.dumps(HEADER))
    if kind == "field":
        name = draw(st.sampled_from([*header, "new"]))
        header.setdefault(name, {})[draw(st.sampled_from(["dtype", "shape", "data_offsets", "x"]))] = draw(values)
    elif kind == "fields":
        header[draw(st.sampled_from([*header, "__metadata__", "new"]))] = draw(values)
    text = json.dumps(header if kind != "whole" else draw(values)).encode()
    return len(text).to_bytes(8, "little") + text + DATA


THOROUGH = settings.default.max_examples >= 1000


@settings(max_examples=20_000 if THOROUGH else 400, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_a_damaged_file_gives_one_kind_of_error_or_what_the_package_reads(tmp_path_factory, content):
    read_or_refuse(tmp_path_factory.getbasetemp() / "damaged.safetensors", content)


def test_altered_bytes_give_one_kind_of_error_or_what_the_package_reads(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(1_000_000 if THOROUGH else 1600):
        content = bytearray(GOOD)
        for place in rng.integers(0, len(GOOD), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256) if rng.random() < 0.5 else content[rng.integers(0, len(GOOD))]
        read_or_refuse(tmp_path / "altered.safetensors", bytes(content))


def read_or_refuse(path, content):
    path.unlink(missing_ok=True)  # a new file: some disks force one that is written over out at once
    path.write_bytes(content)
    message = ""
    try:
        found = read(path)
    except DamagedFile as error:
        message = str(error)
    if message:
        assert str(path) in message
        assert "\n" not in message
        return
    expected = safetensors.numpy.load(content)  # what we accept, the package accepts, and reads alike
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "deep nesting": b"[" * 1_000_000,
    "many empty lists": b"[" + b"[]," * 690_000 + b"[]]",
    "a header that is too long": b"[" + b"[]," * 3_000_000 + b"[]]",
    "many tensors": b"{%s}" % b",".join(b'"%d":%b' % (i, json.dumps(entry()).encode()) for i in range(25_000)),
    "a huge number": b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 1_000_000),
    "many axes": json.dumps({"a": entry(shape=[2**59] * 300_000)}).encode()[: 2 << 20],
    "a huge product": json.dumps({"a": entry(shape=[2**59] * 16)}).encode(),
    "no room": json.dumps({"a": entry(shape=[2**40], offsets=[0, 2**42])}).encode(),
    "zero times huge": json.dumps({"a": entry(shape=[0, 2**59, 2**59], offsets=[0, 0])}).encode(),
    "a number NumPy lacks": json.dumps({"a": entry("BF16", [2])}).encode(),
    "text that is none": b"\xff\xfe{}",
    "what a terminal obeys": json.dumps({"a": entry("\x1b[2J\n")}).encode(),
    "a gap": json.dumps({"a": entry("U8", [2], [2, 4])}).encode(),
    "an overlap": json.dumps({"a": entry(), "b": entry()}).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_costs_little_time_and_memory(tmp_path, name):
    text = HOSTILE[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    tracemalloc.start()
    try:
        began = time.perf_counter()
        with pytest.raises(TinyformerError) as raised:
            read(path)
        assert time.perf_counter() - began < 5  # a second without tracemalloc
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (64 << 20)
    finally:
        tracemalloc.stop()
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 400
    assert str(raised.value).isprintable()


def test_what_was_read_can_be_changed_and_the_file_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    found = read(path)
    for array in found.values():
        array[...] = 7
    assert found["b"].tolist() == [7, 7, 7]
    assert path.read_bytes() == GOOD


def test_arrays_in_one_piece_are_neither_copied_nor_read_before_they_are_used(tmp_path):
    given = {"a": np.zeros((1 << 20, 8), "f4"), "b": np.zeros(1 << 20, "f8")}
    path = tmp_path / "good.safetensors"
    path.write_bytes(encode(given))
    tracemalloc.start()
    try:
        pieces = tensorfile.encode(given)
        found = read(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert {len(piece) for piece in pieces[1:]} == {32 << 20, 8 << 20}
    same(found, given)


def test_missing_and_strange_files_are_named(tmp_path):
    with pytest.raises(DamagedFile, match="No such file"):
        read(tmp_path / "none")
    with pytest.raises(DamagedFile, match="cannot read"):
        read(tmp_path)
