"""Corpora on the disk: the same ids as in memory, whole or not at all, split where asked, in bounded memory."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyformer.errors import TinyformerError, UsageError
from tinyformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    TokenFile,
    encode_corpus,
    load_tokenizer,
    split_corpus,
)
from tinyformer.text.spans import read_chunks, spans, watch_utf8

MANY = settings(max_examples=max(150, settings.default.max_examples))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def text(tmp_path):
    return write(tmp_path / "text.txt", "".join(f"line {i} of the text, café\n" for i in range(400)))


BPE = BPETokenizer([(105, 110), (32, 116), (256, 101)])
WIDE = BPETokenizer([(i // 256, i % 256) for i in range(1 << 16)])  # more than 2^16 ids


@pytest.mark.parametrize(
    ("tokenizer", "width"),
    [(ByteTokenizer(), 1), (CharTokenizer("\n ,0123456789acefhilnotxé"), 1), (BPE, 2), (WIDE, 4)],
)
def test_a_token_file_holds_what_encode_gives(tmp_path, text, tokenizer, width):
    expected = tokenizer.encode(text.read_bytes())
    with encode_corpus([text], tokenizer, tmp_path / "tokens") as tokens:
        assert len(tokens) == len(expected)
        assert tokens.text_bytes == text.stat().st_size
        assert tokens.path.stat().st_size == 64 + width * len(expected)
        ids = tokens.read(0, len(tokens))
        assert ids.dtype == np.int32
        assert np.array_equal(ids, expected)
        assert np.array_equal(tokens.read(7, 5), expected[7:12])
        assert np.array_equal(tokens.windows(np.array([3, 0]), 4), [expected[3:7], expected[:4]])
        assert np.array_equal(tokens.counts(), np.bincount(expected, minlength=tokenizer.vocabulary_size))


def test_several_files_follow_one_another(tmp_path):
    a, b = write(tmp_path / "a", b"in"), write(tmp_path / "b", b"e in")
    with encode_corpus([a, b], BPE, tmp_path / "tokens") as tokens:
        assert tokens.read(0, len(tokens)).tolist() == [256, 101, 32, 256]  # "ine" would be 258 in one file
        assert tokens.text_bytes == 6


def test_progress_reaches_the_whole(tmp_path, text):
    calls = []
    split_corpus([text], BPE, tmp_path, context=8, progress=lambda *call: calls.append(call))
    total = text.stat().st_size
    assert calls[-1] == (total, total, "encoding the text")
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)


@MANY
@example(["😀".encode() * 100], 0.333)
@example(["é".encode() * 100], 0.3325)
@given(
    st.lists(st.text(alphabet="ab\né😀", min_size=1, max_size=300).map(str.encode), min_size=1, max_size=4),
    st.floats(0.05, 0.95),
)
def test_a_split_by_fraction_loses_nothing_and_cuts_between_characters(tmp_path_factory, texts, fraction):
    folder = tmp_path_factory.mktemp("split")
    paths = [write(folder / str(i), text) for i, text in enumerate(texts)]
    whole = b"".join(texts)
    if min(fraction, 1 - fraction) * len(whole) < 2 * len("😀".encode()):
        return  # a part may be too short for one window, which has a test of its own
    train, held_out = split_corpus(paths, ByteTokenizer(), folder, validation=fraction, context=1)
    with train, held_out:
        parts = [part.read(0, len(part)).astype(np.uint8).tobytes() for part in (train, held_out)]
    assert b"".join(parts) == whole
    assert all(part.decode() for part in parts)
    # At most a line search of 2 % (and one character) before the exact place, never after it.
    assert -1 <= len(parts[1]) - fraction * len(whole) <= max(len(whole) // 50, 3) + 1


def test_a_split_prefers_the_start_of_a_line(tmp_path, text):
    train, held_out = split_corpus([text], ByteTokenizer(), tmp_path, context=8)
    assert bytes(train.read(0, len(train)).astype(np.uint8)).endswith(b"\n")
    assert len(held_out) == pytest.approx(0.1 * text.stat().st_size, rel=0.02)


def test_a_validation_file_of_its_own(tmp_path, text):
    other = write(tmp_path / "other.txt", b"held out text")
    train, held_out = split_corpus([text], ByteTokenizer(), tmp_path, validation=other, context=8)
    assert len(train) == text.stat().st_size
    assert len(held_out) == 13


@pytest.mark.parametrize("size", [20, 60, 90, 150, 400])
def test_a_text_that_is_too_short_needs_one_change(tmp_path, size):
    path = write(tmp_path / "short", b"a" * size)
    with pytest.raises(UsageError) as raised:
        split_corpus([path], ByteTokenizer(), tmp_path, context=128)
    advised = re.search(r"--context (\d+) or less", str(raised.value))
    assert bool(advised) == (size >= 90), raised.value
    if advised:
        split_corpus([path], ByteTokenizer(), tmp_path, context=int(advised[1]))
    else:
        assert f"the text has {size} tokens, which is too short" in str(raised.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 7.0, float("nan"), float("inf")])
def test_a_fraction_must_be_one(tmp_path, text, fraction):
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        split_corpus([text], ByteTokenizer(), tmp_path, validation=fraction, context=8)


def test_parts_that_are_too_short(tmp_path, text):
    with pytest.raises(UsageError, match=r"text to train on has \d+ tokens, but a context of 99999 needs 100000"):
        split_corpus([text], ByteTokenizer(), tmp_path, context=99_999)
    with pytest.raises(UsageError, match=r"validation split has \d+ tokens, .* 111 or less, or --validation 0\.02$"):
        split_corpus([text], ByteTokenizer(), tmp_path, validation=0.01, context=200)
    with pytest.raises(
        UsageError, match="the text has 2 tokens, which is too short: training and validation each need 2 for"
    ):
        split_corpus([write(tmp_path / "xy", b"xy")], ByteTokenizer(), tmp_path, context=1)


@MANY
@given(st.binary(max_size=20) | st.text(max_size=10).map(str.encode), st.integers(1, 5))
def test_what_is_not_utf8_is_noticed_wherever_the_chunks_are_cut(text, size):
    found = []
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert list(watch_utf8(chunks, lambda: found.append("other"))) == chunks
    try:
        text.decode()
    except UnicodeDecodeError:
        assert found == ["other"]
    else:
        assert found == []


def test_files_that_cannot_be_text(tmp_path):
    cases = {
        tmp_path / "missing.txt": "no such file: .*missing.txt",
        tmp_path: "is a directory",
        write(tmp_path / "empty.txt", b""): "empty.txt is empty",
        Path("/dev/null"): "not a regular file",
    }
    for path, message in cases.items():
        with pytest.raises(UsageError, match=message):
            encode_corpus([path], ByteTokenizer(), tmp_path / "tokens")
    with pytest.raises(UsageError, match="no text file given"):
        encode_corpus([], ByteTokenizer(), tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


def test_an_unreadable_file(tmp_path, text, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    with pytest.raises(TinyformerError, match=r"cannot read .*text\.txt: Permission denied"):
        encode_corpus([text], ByteTokenizer(), tmp_path / "tokens")


def test_a_text_that_shrinks_while_it_is_read(tmp_path, text):
    span = spans([text])[0]
    os.truncate(text, 100)
    with pytest.raises(TinyformerError, match="became shorter"):
        list(read_chunks(span))


def test_bad_text_leaves_no_token_file(tmp_path):
    path = write(tmp_path / "bad.txt", b"abc\xff")
    with pytest.raises(TinyformerError, match=r"bad\.txt is not UTF-8 at byte 3"):
        encode_corpus([path], CharTokenizer("abc"), tmp_path / "tokens")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.txt"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, text, monkeypatch, call):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = write(tmp_path / "tokens", b"what was there")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(TinyformerError, match=r"cannot write .*tokens: No space left on device; free some space"):
        encode_corpus([text], ByteTokenizer(), target)
    assert target.read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt", "tokens"]


def test_a_write_that_fails_halfway_leaves_nothing(tmp_path, text):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TinyformerError, match="cannot write"):
            encode_corpus([text], ByteTokenizer(), tmp_path / "tokens")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


def test_an_unwritable_place(tmp_path, text):
    with pytest.raises(TinyformerError, match="cannot write"):
        encode_corpus([text], ByteTokenizer(), tmp_path / "no" / "tokens")


@MANY
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.just(0) | st.integers(-70, 70))
def test_damaged_token_files_are_found(tmp_path_factory, place, patch, change):
    folder = tmp_path_factory.mktemp("damage")
    encode_corpus([write(folder / "text", b"in the end " * 5)], BPE, folder / "tokens").close()
    good = (folder / "tokens").read_bytes()
    place %= len(good)
    content = (good[:place] + patch + good[place + len(patch) :])[: len(good)]
    content = content[:change] if change < 0 else content + bytes(change)
    path = write(folder / "tokens", content)
    if len(content) == len(good) and content[:36] == good[:36]:
        return  # only ids, or the unused end of the header, can have changed
    with pytest.raises(TinyformerError, match=r"tokens .*; delete it and tokenise the text again"):
        TokenFile.open(path)


def test_an_id_outside_the_vocabulary_is_found(tmp_path):
    encode_corpus([write(tmp_path / "text", b"in the end")], BPE, tmp_path / "tokens").close()
    content = bytearray((tmp_path / "tokens").read_bytes())
    content[-2:] = (300).to_bytes(2, "little")
    with TokenFile.open(write(tmp_path / "tokens", bytes(content))) as tokens:
        assert len(tokens.read(0, 3)) == 3
        with pytest.raises(TinyformerError, match="an id outside its vocabulary of 259"):
            tokens.read(0, len(tokens))


def test_what_is_no_token_file(tmp_path, text):
    for path, message in [
        (tmp_path / "missing", "No such file"),
        (tmp_path, "Is a directory"),
        (text, "not a token file"),
        (write(tmp_path / "empty", b""), "not a token file"),
    ]:
        with pytest.raises(TinyformerError, match=message):
            TokenFile.open(path)


def test_a_token_file_cut_short_while_in_use(tmp_path, text):
    with encode_corpus([text], ByteTokenizer(), tmp_path / "tokens") as tokens:
        os.truncate(tmp_path / "tokens", 1000)
        assert len(tokens.read(0, 900)) == 900
        with pytest.raises(TinyformerError, match="cut short while it was in use"):
            tokens.read(900, 100)


def test_reading_outside_or_after_closing(tmp_path, text):
    tokens = encode_corpus([text], ByteTokenizer(), tmp_path / "tokens")
    for start, count in [(-1, 2), (0, len(tokens) + 1), (len(tokens), 1), (5, -1)]:
        with pytest.raises(ValueError, match="not inside"):
            tokens.read(start, count)
    tokens.close()
    tokens.close()
    with pytest.raises(ValueError, match="is closed"):
        tokens.read(0, 1)


MEMORY = """
import sys
from tinyformer.text import *

def peak():  # in KiB; getrusage would count the process that forked this one
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

folder, name, size, path = sys.argv[1:]
before = peak()
tokenizer = make_tokenizer(name, [path], vocabulary_size=int(size) or None)
train, held_out = split_corpus([path], tokenizer, folder, context=256)
train.counts()
windows = Windows(len(train), 257, 0, overlap=1)
for step in range(50):
    train.windows(windows.items(step, 64)[1], 257)
sum(len(inputs) for inputs, _, _ in scoring_rows(held_out, 256, 64))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "vocabulary", "spaces", "megabytes"),
    [("bytes", 0, True, 50), ("bpe", 300, True, 2), ("bpe", 257, False, 8)],
)
def test_memory_is_bounded(tmp_path, name, vocabulary, spaces, megabytes):
    rng = np.random.default_rng(0)
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        for _ in range(megabytes):
            # Letters at random: nearly every word is new, the worst case for a cache, and without spaces every
            # word is as long as can be.
            block = rng.integers(97, 123, 1_000_000, np.uint8)
            if spaces:
                block[rng.integers(0, len(block), 150_000)] = 32
            file.write(block.tobytes())
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), name, str(vocabulary), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < (48 << 10 if name == "bytes" else 400 << 10)


def test_a_pipe_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for use in (lambda: encode_corpus([pipe], ByteTokenizer(), tmp_path / "t"), lambda: load_tokenizer(pipe)):
        with pytest.raises(TinyformerError, match="not a regular file"):
            use()
    with pytest.raises(TinyformerError, match="cannot read the token file"):
        TokenFile.open(pipe)
