"""Dates as people write them, and as ISO 8601 has them: a task of text to text whose answer is known.

Each form says by itself which number is what: a month has its name, or a slash has the month before the day, as in
American English, and a full stop the day before the month, as in German. A year of two digits is of 1950 ... 2049.

`python tests/tasks/dates.py DIR` writes what is needed to try it: `pretrain.txt`, lines of dates of both kinds that do
not belong together; `train.tsv` and `validation.tsv`, pairs, of which no date is in two.
"""

import datetime
import random
import sys
from collections.abc import Callable
from pathlib import Path

# fmt: off
MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
WORDS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth",
    "nineteenth", "twentieth",
]
# fmt: on
WORDS += [f"twenty-{word}" for word in WORDS[:9]] + ["thirtieth", "thirty-first"]
FIRST, COUNT = datetime.date(1950, 1, 1), 36_525  # days, to the end of 2049

FORMS: tuple[Callable[[datetime.date], str], ...] = (
    lambda date: f"{month(date)} {date.day}, {date.year}",
    lambda date: f"{month(date)} {ordinal(date)}, {date.year}",
    lambda date: f"{date.day} {month(date)} {date.year}",
    lambda date: f"the {ordinal(date)} of {month(date)}, {date.year}",
    lambda date: f"the {WORDS[date.day - 1]} of {month(date)} {date.year}",
    lambda date: f"{month(date)[:3]} {date.day:02} {date.year}",
    lambda date: f"{month(date)[:3]}. {ordinal(date)} '{date.year % 100:02}",
    lambda date: f"{date.day}-{month(date)[:3].upper()}-{date.year % 100:02}",
    lambda date: f"{DAYS[date.weekday()][:3]}, {date.day} {month(date)[:3]} {date.year}",
    lambda date: f"{DAYS[date.weekday()]}, {month(date)} {date.day}, {date.year}",
    lambda date: f"{date.year} {month(date).lower()} {date.day}",
    lambda date: f"{date.month}/{date.day}/{date.year}",
    lambda date: f"{date.month}/{date.day}/{date.year % 100:02}",
    lambda date: f"{date.day}.{date.month}.{date.year}",
    lambda date: f"{date.day:02}.{date.month:02}.{date.year % 100:02}",
    lambda date: f"{date.year}{date.month:02}{date.day:02}",
)


def month(date: datetime.date) -> str:
    return MONTHS[date.month - 1]


def ordinal(date: datetime.date) -> str:
    ending = "th" if 10 < date.day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    return f"{date.day}{ending}"


def pairs(count: int, seed: int, *, forms: int = len(FORMS)) -> list[tuple[str, str]]:
    """Dates as someone writes them and in ISO 8601, no date twice.

    Args:
        count: how many, at most 36,525.
        seed: of all that is drawn.
        forms: how many of the forms to write them in.
    """
    rng = random.Random(seed)
    dates = (FIRST + datetime.timedelta(days) for days in rng.sample(range(COUNT), count))
    return [(rng.choice(FORMS[:forms])(date), date.isoformat()) for date in dates]


def as_lines(found: list[tuple[str, str]]) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in found)


def main(*arguments: str) -> int:
    if len(arguments) != 1:
        print("usage: python tests/tasks/dates.py DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    found = pairs(32_000, 1)
    apart, train, validation = found[:20_000], found[20_000:31_000], found[31_000:]
    lines = [text for source, target in apart for text in (source, target)]
    random.Random(2).shuffle(lines)
    (folder / "pretrain.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "train.tsv").write_text(as_lines(train))
    (folder / "validation.tsv").write_text(as_lines(validation))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
