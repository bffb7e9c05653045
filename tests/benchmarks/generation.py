"""Writing text with a model of GPT-2's size: ours, transformers' `generate`, and a plain read of the weights.

At batch 1 every token needs each weight once, so that reading them is the limit, whatever is computed. The weights are
random, and so is what is written; both sides write the likeliest token each time, and must write the same.

Read before: `training.py`. Read next: `tokenizing.py`.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tinyformer.interop.directory import FAMILIES
from tinyformer.interop.table import to_theirs
from tinyformer.models import build, resolve

from .parent import Entry, started, take_turns
from .report import note

PROMPT, TOKENS, READS = list(range(1000, 1016)), 256, 32
ALIKE = 16  # tokens in which both sides must agree; later a tie may fall otherwise, for want of further digits

OURS, PEER = Entry("tinyformer", "generation_ours"), Entry("transformers", "generation_transformers")
READ = Entry("reading the weights", "reading")


def write_model(folder: Path, **sizes: int) -> int:
    """Write a GPT-2 with random weights as transformers keeps it. Returns the bytes of its weights.

    Args:
        folder: for it.
        sizes: other than GPT-2's own, as fields of `ModelConfig`.
    """
    config = resolve("gpt2", dropout=0.0, **sizes)
    arrays = {name: parameter.numpy() for name, parameter in build(config).parameters().items()}
    family = FAMILIES["gpt2"]
    save_file(to_theirs(family.rows(config), arrays), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.config_json(config)), encoding="utf-8")
    return sum(array.nbytes for array in arrays.values())


def measure(name: str, *, rounds: int, threads: int, text: Path | None) -> dict[str, Any]:
    """The times of 256 tokens after a prompt of 16; for the plain read, of reading the weights as often."""
    entries = [OURS, PEER, READ]
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        note("transformers is left out: pip install -e '.[oracle]' brings it")
        entries.remove(PEER)
    with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
        weights = write_model(Path(folder))
        with started(entries, Path(folder), threads) as contenders:
            times = take_turns(contenders, rounds, long=True)
            first = {contender.entry.name: contender.first for contender in contenders}
    times[READ.name] = [TOKENS / READS * time for time in times[READ.name]]
    return {
        "case": name,
        "threads": threads,
        "bytes": weights,
        "amount": TOKENS,
        "unit": "tokens",
        "digits": 1,
        "contenders": {
            side: {"seconds": found, "first": first[side], "wrong": disagreement(first[OURS.name], first[side])}
            for side, found in times.items()
        },
    }


def disagreement(ours: list[int], theirs: list[int] | None) -> str | None:
    """Why there is nothing to compare: the peer writes something else. A plain read writes nothing."""
    return None if theirs is None or theirs[:ALIKE] == ours[:ALIKE] else "other tokens"
