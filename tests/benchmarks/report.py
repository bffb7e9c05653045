"""What is printed: a line for each contender as soon as its case is done, and a table for the README.

Ratios are of times in the same round; of several rounds the median stands first, then the lowest and the highest.

Read before: `parent.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import click


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        values = list(values)
        return cls(median(values), min(values), max(values))

    def show(self, form: str) -> str:
        """As "1.00 (0.90-1.10)", each in the given format."""
        return "{} ({}-{})".format(*(format(value, form) for value in self))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of times, round by round: below 1 where ours are shorter."""
    return Spread.of(a / b for a, b in zip(ours, theirs, strict=True))


def note(text: str) -> None:
    """Say what is going on."""
    click.echo(text, err=True)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: text to the left, everything else to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


HEAD = ("", "a step", "tinyformer's time / this", "rate", "memory", "of the GEMM rate")


def terminal(case: dict[str, Any]) -> str:
    """A case as a table of its contenders."""
    rows = [(case["case"], *HEAD[1:])]
    for name, found in case["contenders"].items():
        rows.append(
            (
                f"  {name}",
                seconds(Spread.of(found["seconds"])),
                _ratio(case, name),
                _rate(case, found),
                "" if found.get("peak") is None else f"{found['peak'] / 1e6:,.0f} MB",
                "" if share(case, name) is None else share(case, name).show(".0%"),
            )
        )
    kept = [i for i in range(len(HEAD)) if i == 0 or any(row[i] for row in rows[1:])]
    return table([[row[i] for i in kept] for row in rows])


def seconds(spread: Spread) -> str:
    """A time in the unit that suits it."""
    if spread.median >= 1:
        return f"{spread.show('.2f')} s"
    return f"{Spread(*(1e3 * value for value in spread)).show('.1f')} ms"


def share(case: dict[str, Any], name: str) -> Spread | None:
    """How much of the rate of matrix products a contender reaches, counting only what a step cannot do without."""
    if not case.get("flops") or not case.get("gemm"):
        return None
    times = case["contenders"][name]["seconds"]
    return Spread.of(case["flops"] / time / rate for time, rate in zip(times, case["gemm"], strict=True))


def _rate(case: dict[str, Any], found: dict[str, Any]) -> str:
    """How much a contender does in a second; nothing where a case has no amount."""
    if "amount" not in case:
        return ""
    return f"{case['amount'] / median(found['seconds']):,.{case['digits']}f} {case['unit']}/s"


def _ratio(case: dict[str, Any], name: str, *, spread: bool = True) -> str:
    """Our time by a contender's, or why there is nothing to compare; nothing where it does not take part."""
    found = case["contenders"]
    if name == "tinyformer" or name not in found:
        return ""
    if wrong := found[name].get("wrong"):
        return wrong
    times = ratio(found["tinyformer"]["seconds"], found[name]["seconds"])
    return times.show(".2f") if spread else f"{times.median:.2f}"


def markdown(cases: Sequence[dict[str, Any]]) -> str:
    """The table of the README: a line for each case, our time as a share of each peer's."""
    peers = list(dict.fromkeys(name for case in cases for name in case["contenders"] if name != "tinyformer"))
    head = ["case", "rate", *(f"time / {peer}" for peer in peers), "memory / torch", "of the GEMM rate"]
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for case in cases:
        found = case["contenders"]
        ours = found["tinyformer"]
        rate = _rate(case, ours) or seconds(Spread.of(ours["seconds"]))
        peaks = [found.get(name, {}).get("peak") for name in ("tinyformer", "torch")]
        part = share(case, "tinyformer")
        rows.append(
            [
                case["case"],
                rate,
                *(_ratio(case, peer, spread=False) for peer in peers),
                f"{peaks[0] / peaks[1]:.2f}" if all(peaks) else "",
                "" if part is None else f"{part.median:.0%}",
            ]
        )
    kept = [i for i in range(len(head)) if any(row[i] for row in rows[2:])]
    return "\n".join("| " + " | ".join(row[i] for i in kept) + " |" for row in rows)
