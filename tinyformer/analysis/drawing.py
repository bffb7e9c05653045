"""A row of text as papers draw it: T5's sentinels as letters, and without what closes a row in practice.

Read before: `tinyformer/objectives/batch.py`. Read next: `inspection.py`.
"""

from __future__ import annotations

import numpy as np

from ..objectives import Batch
from ..text import Tokenizer

LETTERS = "XYZABCDEFGHIJKLMNOPQRSTUVW"  # T5's paper calls its sentinels <X>, <Y> and <Z>


def draw(objective: str, tokenizer: Tokenizer, batch: Batch) -> tuple[dict[str, str], dict[str, str]]:
    """The first row of a batch as papers draw it, and which sentinel each letter in it stands for.

    Args:
        objective: that made the batch, by name.
        tokenizer: of the row.
        batch: the row.

    Returns:
        "input" and "target" as text, and the names of sentinels by their letters. Both are empty where there are more
        sentinels than letters.
    """
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    inputs, targets = batch.inputs[0], batch.targets[0]
    if objective == "span-corruption":
        letters = {i: f"<{letter}>" for i, letter in zip((i for i in tokenizer.sentinels if i in targets), LETTERS)}
        if len(letters) == len(LETTERS):
            return {}, {}
        # Published code, and so ours, closes input and target with an end token. Figures close the target alone, with
        # one more sentinel, which is there already where the text goes on after the last span.
        spans = sum(i in letters for i in inputs.tolist())
        closing = {int(targets[-1]): f"<{LETTERS[spans]}>"} if spans == len(letters) else {}
        target = written(tokenizer, targets if closing else targets[:-1], names | letters | closing)
        texts = {"input": written(tokenizer, inputs[:-1], names | letters), "target": target}
        return texts, {letter: tokenizer.decode([i]).decode() for i, letter in letters.items()}
    if objective in ("masked", "next-sentence"):
        alone = objective == "masked" and np.count_nonzero(targets == tokenizer.special_id("cls")) == 1
        closed = targets[-1] == tokenizer.special_id("sep")
        inputs = inputs[:-1] if alone and closed else inputs
        hidden = [targets[start:stop] for start, stop in runs(weights(batch) > 0)]
        target = ", ".join(written(tokenizer, run, names).strip() for run in hidden)
        return {"input": written(tokenizer, inputs, names), "target": target}, {}
    closing = -1 if objective == "seq2seq" else None
    texts = {"input": inputs[:closing], "target": targets[:closing]}
    return {what: written(tokenizer, ids, names) for what, ids in texts.items()}, {}


def written(tokenizer: Tokenizer, ids: np.ndarray, names: dict[int, str]) -> str:
    """Tokens as a line of text, special ones by the names given: ids, `t`."""
    after = tokenizer.separator.decode()
    before = " " if tokenizer.carries_space else after
    special, line = np.isin(ids, list(names)), ""
    for start, stop in sorted(runs(special) + runs(~special)):
        if special[start]:
            for i in ids[start:stop].tolist():
                line += before * bool(line) + names[i]
        else:
            line += after * bool(line) + readable(tokenizer.decode(ids[start:stop]))
    return line


def readable(content: bytes) -> str:
    """Text of bytes; those that are no UTF-8 are escaped."""
    return content.decode("utf-8", "backslashreplace")


def runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Where each run of True begins and ends, of truth values `t`."""
    bounds = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    return list(zip(bounds[::2].tolist(), bounds[1::2].tolist()))


def weights(batch: Batch) -> np.ndarray:
    """How much each target of the first row counts, `t`."""
    return np.ones(batch.targets.shape[1]) if batch.weights is None else batch.weights[0]
