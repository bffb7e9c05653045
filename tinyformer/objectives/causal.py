"""Causal language modelling: predict each token from those before it (Radford 2018, §3.1).

Nothing is corrupted: the mask inside the decoder hides what comes later, so that one row has a target at each place.

Read before: `objective.py`, `tinyformer/models/decoder.py`. Read next: `masked.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import backends
from ..tensor import Array
from .batch import Batch
from .objective import Objective


class CausalLM(Objective):
    """The objective of GPT."""

    name, mode = "causal", "decoder"
    overlap = 1  # the last token of a row, which is only a target there, is the first input of the next

    def row_tokens(self, context: int) -> int:
        """One more than the context: the target at its last place is the token after it."""
        return context + 1

    def corrupt(self, rows: Sequence[Array], rngs: Sequence[Any] = ()) -> Batch:
        """Each row without its last token is the input, without its first the target.

        Args:
            rows: integers on the host, all of one length.
            rngs: unused; nothing is random here.
        """
        tokens = backends.of(rows[0]).stack(list(rows))
        return Batch(tokens[:, :-1], tokens[:, 1:])
