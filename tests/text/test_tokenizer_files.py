"""tokenizer.json: saved and loaded unchanged; damaged or hostile ones give one error that names the file."""

import copy
import json
import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer

MANY = settings(max_examples=max(400, settings.default.max_examples))

GOOD = [
    ByteTokenizer(["<mask>"]),
    CharTokenizer("\n !abc\u00e9\u2028😀"),
    BPETokenizer([(97, 97), (256, 98), (257, 257), (0, 255)], ["<cls>", "<sep>"]),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("tokenizer", GOOD, ids=lambda tokenizer: tokenizer.kind)
def test_saved_and_loaded_unchanged(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert type(loaded) is type(tokenizer)
    assert loaded.to_json() == tokenizer.to_json() == json.loads(path.read_text("utf-8"))
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode("aab!").tolist() == tokenizer.encode("aab!").tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def check(path):
    """Loading gives a usable tokenizer, or one kind of error: a line that names the file. Either way, at once."""
    start = time.perf_counter()
    message = None
    try:
        tokenizer = load_tokenizer(path)
    except TinyformerError as error:
        message = str(error)
    assert time.perf_counter() - start < 1
    if message is None:
        assert tokenizer.decode(range(tokenizer.vocabulary_size))
    else:
        assert message.startswith(f"{path} is not a usable tokenizer: ")
        assert "\n" not in message
    return message


@given(st.sampled_from(GOOD), st.data())
@MANY
def test_mutated_values(tmp_path, tokenizer, data):
    content = copy.deepcopy(tokenizer.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(sorted(content) or ["kind"]))
        value = content.get(place)
        if isinstance(value, list) and value and data.draw(st.booleans()):
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(
                json_values | st.sampled_from(["97 97", "300 2", "-1 4", "1 2 3", "٣ 4", "1e3 2", "\ud800"])
            )
        elif data.draw(st.booleans()):
            content.pop(place, None)
        else:
            content[place] = data.draw(json_values | st.sampled_from(["bytes", "chars", "bpe", "ba", "aa", 2, True]))
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    check(path)


@given(st.sampled_from(GOOD), st.integers(0, 10**9))
@MANY
def test_mutated_bytes(tmp_path, tokenizer, seed):
    rng = random.Random(seed)
    content = bytearray(json.dumps(tokenizer.to_json(), indent=1).encode())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) or 1)
        content = content or bytearray(b"{")
        kind = rng.randrange(4)
        if kind == 0:
            content[place] = rng.randrange(256)
        elif kind == 1:
            del content[place : place + rng.randint(1, 30)]
        elif kind == 2:
            content[place:place] = content[place : place + rng.randint(1, 30)]
        else:
            content = content[: max(place, 1)]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    check(path)


def bpe_file(merges, **more):
    return json.dumps({**BPETokenizer([]).to_json(), "merges": merges, **more})


HOSTILE = {
    "empty": "",
    "not json": "\x80\x04pickle",
    "not an object": "[]",
    "deep": "[" * 100_000,
    "deep inside": bpe_file([]).replace("[]", "[" * 5000 + "]" * 5000),
    "huge integer": bpe_file([]).replace(": 1,", ": 1" + "0" * 10_000 + ","),
    "version true": bpe_file([], version=True),
    "newer version": bpe_file([], version=2),
    "another format": json.dumps({"version": "1.0", "model": {"type": "BPE"}}),
    "extra entry": bpe_file([], more=1),
    "forward merge": bpe_file(["256 97"]),
    "merge twice": bpe_file(["1 2", "1 2"]),
    "doubling tokens": bpe_file(["97 97", *(f"{i} {i}" for i in range(256, 300))]),
    "long tokens": bpe_file(  # 2, 4, ... 1024 bytes, then many of about 513
        ["97 97", *(f"{i} {i}" for i in range(256, 265)), *(f"264 {i}" for i in range(256))]
        + [f"{266 + i} {k}" for i in range(140) for k in range(256)]
    ),
    "too many merges": bpe_file(["1 2"] * (1 << 18)),
    "no characters": json.dumps({**CharTokenizer("a").to_json(), "characters": ""}),
    "repeated characters": json.dumps({**CharTokenizer("a").to_json(), "characters": "aa"}),
    "unsorted characters": json.dumps({**CharTokenizer("a").to_json(), "characters": "ba"}),
    "surrogate": json.dumps({**CharTokenizer("a").to_json(), "characters": "\udc80"}),
    "special twice": json.dumps({**ByteTokenizer().to_json(), "special_tokens": ["<a>", "<a>"]}),
    "special unnamed": json.dumps({**ByteTokenizer().to_json(), "special_tokens": [""]}),
    "too large": " " * (17 << 20),
}


WORDS = {  # which check must refuse it, where several could
    "doubling tokens": "more than 1024 bytes",
    "long tokens": "more than 16 MiB",
    "too large": "larger than 16 MiB",
    "too many merges": "at most 261888",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, name):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(HOSTILE[name].encode("utf-8", "surrogatepass"))
    assert WORDS.get(name, "") in check(path)
    tracemalloc.start()
    try:
        with pytest.raises(TinyformerError):
            load_tokenizer(path)
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (64 << 20)
    finally:
        tracemalloc.stop()


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(UsageError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(TinyformerError, match="not a regular file"):
        load_tokenizer(tmp_path)


def test_saving_where_it_cannot_be_is_one_error(tmp_path):
    with pytest.raises(TinyformerError, match="cannot write"):
        ByteTokenizer().save(tmp_path / "no" / "tokenizer.json")
