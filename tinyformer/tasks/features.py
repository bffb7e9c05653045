"""Frozen features: what a trained model knows of a text, as one vector, for others to build upon.

A model that is not trained any further is still of use: Imagen draws pictures from what T5's encoder makes of a
caption (Saharia 2022, §2.1), and a linear classifier on BERT's features is a quick beginning. The features are the
hidden states of the last layer. An encoder reads `<cls> text <sep>`; T5's, which stands alone here, `text </s>`; a
decoder the text. One vector of them is

- `mean`: their average over the text's own tokens, without those marks;
- `cls`: that of `<cls>`, which an encoder has (not passed through its pooler);
- `last`: that of the text's last token, where a decoder has seen all of it.

A text that is too long for the context loses its end. A blank one has features of 0.

Read before: `flow.py`, `tinyformer/models/stack.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import TinyformerError, UsageError
from ..objectives import pad_rows
from ..tensor import no_grad
from ..text import Tokenizer
from .examples import Example
from .flow import computed
from .model import TaskModel
from .predicting import Tally

POOLS = {"encoder": ("mean", "cls"), "decoder": ("mean", "last"), "encoder-decoder": ("mean",)}  # of each mode


def embed(
    model: Any,
    tokenizer: Tokenizer,
    texts: Iterable[str | Example],
    *,
    pool: str = "mean",
    batch_size: int = 16,
    threads: int = 1,
    live: bool = False,
    tally: Tally | None = None,
) -> Iterator[np.ndarray]:
    """The features of each text, in their order, while they are read.

    Args:
        model: as pretrained, or with a head, which is not looked at.
        tokenizer: of its run.
        texts: any number; see `predicting.predict`, as for the arguments below. Examples have a place for messages.
        pool: one of `POOLS`.
        batch_size: texts that are computed at once.
        threads: that compute a batch each; BLAS should have one thread then.
        live: whether texts may come slowly.
        tally: counts.

    Returns:
        Float32, `d`, for each text.

    Raises:
        UsageError: the model cannot pool like this; says how it can.
        TinyformerError: a text cannot be read or encoded, after those before it were answered; or features are not
            finite, because the weights are not.
    """
    tally = Tally() if tally is None else tally
    body = model.body if isinstance(model, TaskModel) else model
    config, before, after = body.config, *_marks(tokenizer, body.config.mode)
    if pool not in POOLS[config.mode]:
        raise UsageError(
            f"a model of mode {config.mode} has no features by --pool {pool}; it has {' and '.join(POOLS[config.mode])}"
        )
    first, room = len(before), config.context - len(before) - len(after)
    if room < 1:
        raise UsageError(f"a context of {config.context} has no room for a text beside its marks")

    def rows(item: tuple[str, str]) -> list[np.ndarray]:
        place, text = item
        tokens = tokenizer.encode(text, place) if text.strip() else before[:0]
        tally.texts += len(tokens) > 0
        tally.blank += not len(tokens)
        tally.cut += len(tokens) > room
        return [np.concatenate([before, tokens[:room], after])] if len(tokens) else []

    @no_grad()
    def compute(batch: list[np.ndarray]) -> list[np.ndarray]:
        ids, mask = pad_rows(batch, 0)
        hidden = (body.encode if config.mode == "encoder-decoder" else body.hidden)(ids, mask=mask)
        hidden = hidden.backend.to_host(hidden.array)
        return [_pooled(states[first : len(row) - len(after)], states[0], pool) for states, row in zip(hidden, batch)]

    settings = {"batch_size": batch_size, "threads": threads, "live": live}
    for (place, _), found in computed(map(_placed, itertools.count(1), texts), rows, len, compute, **settings):
        features = found[0] if found else np.zeros(config.width, np.float32)
        if not np.isfinite(features).all():
            raise TinyformerError(
                f"the features of {place} are not finite: the weights are damaged or diverged, use an earlier "
                "checkpoint"
            )
        yield features


def _placed(number: int, text: str | Example) -> tuple[str, str]:
    """What a message calls a text, and the text."""
    return (f"text {number}", text) if isinstance(text, str) else (text.place, "".join(text.texts))


def write_features(path: Path, rows: Iterable[np.ndarray], width: int) -> int:
    """Write vectors as a NumPy file, float32 of shape `n d`, while they come: whole, or not at all.

    Args:
        path: of the file; `np.load` reads it.
        rows: each `d`.
        width: `d`.

    Returns:
        How many there were.

    Raises:
        UsageError: there is something of that name already, or no folder to put it into.
        WriteError: it could not be written.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists; choose a new --out")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it, or choose another --out")
    count = 0
    with files.replacing(path) as file:
        _write_header(file, 0, width)
        start = file.tell()
        for row in rows:
            file.write(np.ascontiguousarray(row, "<f4").tobytes())
            count += 1
        file.seek(0)
        _write_header(file, count, width)  # which leaves room for any number of rows
        assert file.tell() == start
    return count


def _write_header(file: Any, rows: int, width: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, header)


def _marks(tokenizer: Tokenizer, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The tokens before and after a text."""
    roles = {"encoder": ("cls", "sep"), "decoder": ("", ""), "encoder-decoder": ("", "end")}[mode]
    before, after = ([tokenizer.special_id(role)] if role else [] for role in roles)
    return np.array(before, np.int32), np.array(after, np.int32)


def _pooled(own: np.ndarray, first: np.ndarray, pool: str) -> np.ndarray:
    """One vector, float32, of the hidden states of a text's tokens, `n d`, and that of the row's first token."""
    one = {"mean": lambda: own.mean(axis=0, dtype=np.float64), "cls": lambda: first, "last": lambda: own[-1]}[pool]()
    return one.astype(np.float32)
