"""Several processes give the ids of one, and none is left behind, whatever ends the work."""

import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_documents import cut, plain

from tinyformer.errors import TinyformerError
from tinyformer.text import BPETokenizer, encode_corpus, encoding, split_corpus

MANY = settings(max_examples=max(150, settings.default.max_examples))
TEXT = "".join(f"line {i} of the text, café\n\n" for i in range(400)).encode()
# Among them tokens over what must not be cut ("a\n", "e "), and one that begins with a space.
BPE = BPETokenizer([(97, 10), (101, 32), (32, 116), (10, 10), (195, 169), (32, 97), (227, 128)])

texts = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="ab '\n\r\té!1\u3000\x85\u2003你😀", max_size=300).map(str.encode),
    st.lists(st.sampled_from([b"a b", b" ", b"\n", b"\n\n", b"\r\n", b" \n", b" a", b"a" * 300]), max_size=20).map(
        b"".join
    ),
)


@pytest.fixture
def short(monkeypatch):
    """Texts of any length are shared out, and soon are too long to wait for a place to cut."""
    monkeypatch.setattr(encoding, "EACH", 1)
    monkeypatch.setattr(encoding, "LONGEST_UNCUT", 64)


@pytest.fixture
def workers(short, monkeypatch):
    """All processes that were started."""
    started = []

    class Noted(encoding._Worker):
        def __init__(self):
            super().__init__()
            started.append(self._process)

    monkeypatch.setattr(encoding, "_Worker", Noted)
    return started


@pytest.mark.parametrize("document", [None, (500, 501)])
def test_processes_give_the_ids_of_one(workers, tmp_path, document):
    with encoding.encoding(BPE, document, 3, 1 << 30) as encode:

        @MANY
        @example("你\u3000 a b é\u2003 c\n\n \nd e\n\nf g".encode() * 3, [5, 6, 19, 20, 33])
        @example(TEXT, [1000, 4001])
        @example(b"a" * 1000 + b" a b", list(range(0, 1000, 10)))
        @given(texts, st.lists(st.integers(0, 300), max_size=12))
        def check(text, places):
            found = [ids.tolist() for ids in encode(cut(text, places), tmp_path)]
            if document is None:
                assert list(chain.from_iterable(found)) == BPE.encode(text).tolist()
            else:
                expected = [[500, *BPE.encode(part).tolist(), 501] for part in plain(text)]
                assert list(chain.from_iterable(found)) == list(chain.from_iterable(expected))

        check()
        assert [process.poll() for process in workers] == [None] * 3
    assert all(process.returncode is not None for process in workers)


def test_a_split_by_processes_is_the_split_by_one(workers, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyformer.text.spans.read_chunks.__defaults__", (1000,))
    (tmp_path / "text").write_bytes(TEXT)
    contents, calls = [], []
    for processes in (1, 2):
        parts = split_corpus(
            [tmp_path / "text"],
            BPE,
            tmp_path,
            context=8,
            processes=processes,
            progress=lambda *call: calls.append(call[0]),
        )
        contents.append([part.path.read_bytes() for part in parts])
        for part in parts:
            part.close()
    assert contents[0] == contents[1]
    assert len(calls) > 20
    assert calls[: len(calls) // 2] == calls[len(calls) // 2 :]
    assert len(workers) == 2


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("import sys; sys.stdin.buffer.read(400); import os; os.kill(os.getpid(), 9)", "exit status -9"),
        ("raise MemoryError('no room')", "MemoryError: no room"),
    ],
)
def test_a_process_that_ends_is_told_and_leaves_nothing(workers, tmp_path, monkeypatch, start, reason):
    monkeypatch.setattr(encoding, "START", start)
    (tmp_path / "text").write_bytes(TEXT)
    with pytest.raises(TinyformerError, match=rf"has ended \({reason}\); free some memory, or use --threads 1"):
        encode_corpus([tmp_path / "text"], BPE, tmp_path / "tokens", processes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert all(process.returncode is not None for process in workers)


def test_what_stops_the_reading_ends_the_processes(workers, tmp_path):
    def stop(done, total, what):
        raise KeyboardInterrupt

    (tmp_path / "text").write_bytes(TEXT)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus([tmp_path / "text"], BPE, tmp_path / "tokens", processes=2, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert len(workers) == 2
    assert all(process.returncode is not None for process in workers)


SCRIPT = """
from tinyformer.text import BPETokenizer, encode_corpus, encoding
print("once")
encoding.EACH = 1
print(len(encode_corpus(["text"], BPETokenizer([]), "tokens", processes=2)))
"""


def test_a_script_needs_no_guard_and_its_folder_hides_no_library(tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not NumPy')")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", tmp_path / "elsewhere" / "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"once\n{len(TEXT)}\n", "")
