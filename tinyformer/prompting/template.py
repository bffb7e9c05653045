"""What stands before an answer: a description, some examples with their answers, and one without.

A model that has only learned to predict text can do a task if the text before makes its answer the likely next words.
GPT-2 was asked in the form that such text has on the Web (Radford 2019, §3); GPT-3 was shown 0, 1 or a few examples
first (Brown 2020, §2 and figure 2.1). Nothing is learned from them: the weights stay as they are.

    Translate English to French:          the description
    sea otter => loutre de mer            an example, as "{text} => {label}\\n" has it
    cheese =>                             the query, which ends where {label} would stand

Read before: `tinyformer/generation/prompts.py`. Read next: `likelihood.py`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from ..errors import UsageError
from ..tasks import Example

FIELDS = ("text", "pair", "label")  # as the columns of a file are called
NAMED = {"gpt3": "{text} => {label}\n", "tldr": "{text}\nTL;DR: {label}\n\n"}
_ESCAPE = re.compile(r"\\([nt\\])")


def unescaped(written: str) -> str:
    r"""A text from the command line, in which \n is a line break, \t a tab and \\ a backslash."""
    return _ESCAPE.sub(lambda found: {"n": "\n", "t": "\t", "\\": "\\"}[found[1]], written)


@dataclass(frozen=True)
class Template:
    """How an example is written.

    Spaces before {label} go to the answer and not to the prompt: a model that has learned words with the space before
    them would never begin a word after a space.

    Attributes:
        parts: texts, and names of fields in turn: text, field, text, field, ..., text.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, written: str) -> Self:
        """From a text with fields in braces; `{{` and `}}` stand for braces.

        Args:
            written: has {text}, for examples of two texts also {pair}, and {label} behind all others; or one of NAMED.

        Raises:
            UsageError: a field is unknown, missing, there twice, or behind {label}.
        """
        parts: list[str] = [""]
        try:
            for text, field, form, conversion in string.Formatter().parse(NAMED.get(written, written)):
                parts[-1] += text
                if field is not None:
                    if field not in FIELDS or form or conversion:
                        raise ValueError(f"it has {{{field}}}, and the fields are {_shown(FIELDS)}")
                    parts += [field, ""]
            fields = parts[1::2]
            for field in ("text", "label"):
                if field not in fields:
                    raise ValueError(f"it has no {{{field}}}")
            if len(set(fields)) < len(fields):
                raise ValueError("a field is there twice")
            if fields[-1] != "label":
                raise ValueError(f"{{{fields[-1]}}} stands behind {{label}}, where a query has ended")
        except ValueError as error:
            raise UsageError(
                f"the template {written!r} cannot be used: {error}; one is '{{text}}\\nLabel: {{label}}\\n\\n'"
            ) from None
        return cls(tuple(parts))

    @property
    def texts(self) -> int:
        """How many an example has, 1 or 2."""
        return len(self.parts) // 2 - 1

    @property
    def lead(self) -> str:
        """The spaces that an answer begins with."""
        return " " * (len(self.parts[-3]) - len(self.parts[-3].rstrip(" ")))

    @property
    def cue(self) -> str:
        """What announces an answer, whatever the query: of "{text}\\nLabel: {label}" it is "Label:"."""
        return self.parts[-3].strip() or "Answer:"

    @property
    def behind(self) -> str:
        """What follows an answer, and tells a text that goes on that it has ended."""
        return self.parts[-1]

    def query(self, texts: Sequence[str]) -> str:
        """An example up to its answer."""
        written = self._written(self.parts[:-2], texts)
        return written[: len(written) - len(self.lead)]

    def shot(self, texts: Sequence[str], label: str) -> str:
        """An example with its answer."""
        return self._written(self.parts, texts, label)

    def _written(self, parts: Sequence[str], texts: Sequence[str], label: str = "") -> str:
        values = {"text": texts[0], "pair": texts[-1], "label": label}
        return "".join(values[part] if place % 2 else part for place, part in enumerate(parts))


def make_prompt(template: Template, shots: Iterable[Example], query: Example, description: str = "") -> str:
    """A description, which gets a line of its own, the shots in this order, and the query."""
    if description and not description[-1].isspace():
        description += "\n"
    written = [template.shot(shot.texts, shot.label) for shot in shots]
    return "".join([description, *written, template.query(query.texts)])


def _shown(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in fields)
