"""What a fine-tuned model says of texts that nobody has labelled.

Read before: `flow.py`, and a task, such as `classify.py`. Read next: `features.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import TinyformerError
from .encoding import tell_cut
from .examples import Columns, Example
from .flow import computed
from .lines import Source
from .task import Row, Task


@dataclasses.dataclass
class Tally:
    """What has been counted so far.

    Attributes:
        texts: examples.
        blank: lines without a text.
        cut: examples that the context had no room for.
    """

    texts: int = 0
    blank: int = 0
    cut: int = 0

    def warnings(self, context: int, blank: str) -> Iterator[str]:
        """Sentences on what a user should know of.

        Args:
            context: of the model, in tokens.
            blank: what was done with blank lines, such as "answered with null".
        """
        if self.blank:
            yield f"{self.blank:,} blank line{'s were' if self.blank > 1 else ' was'} {blank}"
        if remark := tell_cut(self.cut, self.texts, context):
            yield remark


def predict(
    task: Task,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 16,
    threads: int = 1,
    live: bool = False,
    tally: Tally | None = None,
) -> Iterator[dict[str, Any] | None]:
    """The answer to each example, in their order, while they are read.

    What stands beside an example in its batch changes the last bits of its numbers, because longer rows are summed in
    another order: they are the same to about 1e-6. With the same batches, as for the same file, they are the same.

    Args:
        task: what the model was fine-tuned for.
        model: from `task.model`, with its weights.
        examples: any number, whose labels are not looked at. A few batches of them are read ahead, as those of like
            length are computed together.
        batch_size: rows that are computed at once.
        threads: that compute a batch each; BLAS should have one thread then.
        live: whether examples may come slowly, as typed lines do; a thread reads them then, and none waits for the
            next.
        tally: counts.

    Returns:
        For each example what `Task.describe` makes of it; None where it has no text.

    Raises:
        TinyformerError: an example cannot be read or encoded, after those before it were answered; or an answer is not
            finite, because the weights are not.
    """
    tally = Tally() if tally is None else tally

    def rows(example: Example) -> list[Row]:
        found = task.rows(dataclasses.replace(example, label=None)) if example.texts else []
        tally.texts += bool(found)
        tally.blank += not found
        tally.cut += any(row.cut for row in found)
        return found

    def compute(batch: list[Row]) -> list[Any]:
        return task.outputs(model, task.corrupt(batch))

    settings = {"batch_size": batch_size, "threads": threads, "live": live}
    for example, outputs in computed(examples, rows, lambda row: len(row.ids), compute, **settings):
        answer = task.describe(example, outputs) if outputs else None
        if not _is_finite(answer):
            raise TinyformerError(
                f"the answer to {example.place or 'a text'} is not finite: the weights are damaged or diverged, use an "
                "earlier checkpoint"
            )
        yield answer


def read_examples(
    kind: type[Task],
    source: Source,
    columns: Columns = Columns(),
    *,
    usual: Columns = Columns(),
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Example]:
    """Examples without labels from a file of any form that a task reads.

    A run that was fine-tuned on a table is asked about plain lines as well: where the first line does not have the
    columns of its own table, all lines are texts.

    Args:
        kind: of the task.
        source: a path, or a file that is open for reading bytes.
        columns: as the user names them.
        usual: those that the run was fine-tuned with, from `finetuning.columns_of`.
        warn: told, in a sentence, what was passed over.

    Raises:
        UsageError: as for `Task.stream`.
    """
    yield from kind.stream(source, columns.beside(usual), labelled=False, warn=warn)


def _is_finite(value: Any) -> bool:
    """Whether all numbers in it are."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
