"""Byte-pair encoding: learning 8192 tokens from a text, and encoding it, against Hugging Face's `tokenizers`.

The text is 10 MB of drawn words, whose frequencies fall as those of words do (Zipf). Both sides read it from a file,
split it by GPT-2's pattern and use all cores.

Read before: `generation.py`. Read next: `start.py`.
"""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .parent import Entry, started, take_turns
from .report import note

TEXT, SIZE, VOCABULARY = "text.txt", 10_000_000, 8192
WORDS, LINE, LETTERS = 50_000, 12, "etaoinshrdlucmfwypvbgkjqxz"
ALIKE = 0.02  # by how much the numbers of tokens may differ: of merges equally frequent each takes another first


def drawn_text(size: int, *, seed: int = 0) -> str:
    """Lines of words, the k-th commonest of which has frequency 1 / k."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(2, 12, WORDS))
    letters = "".join(np.array(list(LETTERS))[_drawn(rng, len(LETTERS), ends[-1])])
    words = np.array([letters[begin:end] for begin, end in itertools.pairwise([0, *ends])], dtype=object)
    text = words[_drawn(rng, WORDS, size // 5)]
    return ".\n".join(" ".join(text[i : i + LINE]) for i in range(0, len(text), LINE))[:size]


def _drawn(rng: np.random.Generator, kinds: int, count: int) -> np.ndarray:
    """Numbers below `kinds`, of which number k comes as often as 1 / (k + 1) says."""
    shares = 1 / np.arange(1, kinds + 1)
    return rng.choice(kinds, count, p=shares / shares.sum())


def measure(name: str, *, rounds: int, threads: int, text: Path | None) -> list[dict[str, Any]]:
    """The times of learning, and of encoding with what was learned."""
    sides = {"tinyformer": "bpe_ours", "tokenizers": "bpe_tokenizers"}
    if not importlib.util.find_spec("tokenizers"):
        note("tokenizers is left out: pip install -e '.[hf]' brings it")
        del sides["tokenizers"]
    with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
        path = Path(folder) / TEXT
        content = drawn_text(SIZE) if text is None else text.read_text(encoding="utf-8", errors="ignore")
        path.write_text(content, encoding="utf-8", newline="")
        megabytes = path.stat().st_size / 1e6
        return [
            {"case": f"{name} {form}", "threads": threads, "amount": megabytes, "unit": "MB", "digits": 2}
            | {"contenders": _measure(sides, form, Path(folder), rounds, threads)}
            for form in ("train", "encode")
        ]


def _measure(sides: dict[str, str], form: str, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    entries = [Entry(name, module, form) for name, module in sides.items()]
    with started(entries, folder, threads) as contenders:
        times = take_turns(contenders, rounds, long=True)
        first = {contender.entry.name: contender.first for contender in contenders}
    ours = first["tinyformer"]
    return {
        side: {
            "seconds": found,
            "first": first[side],
            "wrong": None if abs(first[side] - ours) <= ALIKE * ours else f"{first[side]} tokens, not {ours}",
        }
        for side, found in times.items()
    }
