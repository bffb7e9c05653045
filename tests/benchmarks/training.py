"""Training steps: ours and each peer's, in alternation, with the rate of matrix products measured in between.

Read before: `cases.py`, `parent.py`. Read next: `generation.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tinyformer.training.data import tokens_read

from . import gemm
from .cases import Size, model_flops, write_case
from .parent import Contender, Entry, started, take_turns
from .report import note

OURS = Entry("tinyformer", "ours")
TORCH = (
    Entry("torch", "torch_peer", "eager"),
    Entry("torch.compile", "torch_peer", "compile"),
    Entry("torch bf16", "torch_peer", "bfloat16"),
)
JAX = Entry("JAX", "jax_peer")
GEMM = Entry("GEMM", "gemm")
TOLERANCE = 1e-4  # of the first loss, relative
ROUNDED = {"bfloat16": 2e-2, "tf32": 1e-3}  # likewise, of contenders that round so


def peers(mode: str) -> list[Entry]:
    """The peers that are installed; those that are not are named in a line each."""
    found = []
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        found += TORCH
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
            note("torch.compile is left out: it needs a C++ compiler")
            found.remove(TORCH[1])
    else:
        note("torch is left out: pip install -e '.[oracle]' brings it")
    if mode == "decoder" and importlib.util.find_spec("jax"):
        found.append(JAX)
    elif mode == "decoder":
        note("JAX is left out: pip install jax brings it")
    return found


def measure(name: str, mode: str, size: Size, *, rounds: int, threads: int) -> dict[str, Any]:
    """The times of a case, and all that is needed to read them."""
    with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
        case = write_case(Path(folder), mode, size)
        with started([OURS, *peers(mode), GEMM], Path(folder), threads) as contenders:
            sides = [contender for contender in contenders if contender.entry != GEMM]
            peaks = {side.entry.name: side.ask("peak", 2) for side in sides}
            times = take_turns(contenders, rounds)
            wrong = {side.entry.name: disagreement(sides[0], side) for side in sides[1:]}
    return {
        "case": name,
        "size": size._asdict(),
        "threads": threads,
        "amount": tokens_read(case.batch),
        "unit": "tokens",
        "digits": 0,
        "flops": model_flops(case.config, case.batch),
        "gemm": [gemm.flops(threads) / turn for turn in times.get(GEMM.name, [])],
        "contenders": {
            side.entry.name: {
                "seconds": times[side.entry.name],
                "peak": peaks[side.entry.name],
                "first": side.first,
                "wrong": wrong.get(side.entry.name),
            }
            for side in sides
        },
    }


def disagreement(ours: Contender, peer: Contender) -> str | None:
    """Why there is nothing to compare: the first loss of a peer, from the same weights and batch, is another."""
    (loss, _), (theirs, _) = ours.first, peer.first
    tolerance = ROUNDED.get(peer.entry.form.rpartition(" ")[2], TOLERANCE)
    if abs(theirs - loss) <= tolerance * abs(loss):
        return None
    return f"another loss: {theirs:.5f}, not {loss:.5f}"
