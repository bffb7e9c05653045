"""Metrics of tagged words: entities that were found whole, and tags.

A tag is `O` (outside), `B-TYPE` (an entity begins) or `I-TYPE` (it goes on); `B` and `I` alone serve where there is one
kind of entity. Entities are read off as the CoNLL-2000 shared task's conlleval does, which is seqeval's default too: an
`I-` that follows no tag of its type begins an entity, as a model may write what no annotator would. seqeval's strict
mode, in which such a tag is worth nothing, is not offered. An entity is right if its type and both ends are
(Tjong Kim Sang & Buchholz 2000, §4).

Read before: `scores.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...errors import UsageError
from .scores import Scores, check_paired

OUTSIDE = "O"

Entity = tuple[str, int, int]  # type, first word, the word after the last


def measure(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """`precision`, `recall` and `f1` of the entities of all types together, and `accuracy` of the tags.

    Where there is no entity and none was found the three are 0, as in conlleval.

    >>> measure([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]])
    {'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'accuracy': 0.75}

    Args:
        gold: the true tags of the words of each sentence.
        predicted: the tags that were given to them.

    Raises:
        UsageError: nothing to measure, or lengths that differ.
    """
    right, found, there = (counts.total() for counts in _counts(gold, predicted))
    scores = Scores.of(right, found, there)
    return {
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "accuracy": tag_accuracy(gold, predicted),
    }


def per_type(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Scores]:
    """Precision, recall and F1 of each type that occurs, in truth or among the predictions, by the alphabet.

    >>> per_type([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]])["PER"]
    Scores(precision=1.0, recall=1.0, f1=1.0, support=1)
    """
    right, found, there = _counts(gold, predicted)
    return {kind: Scores.of(right[kind], found[kind], there[kind]) for kind in sorted(found | there)}


def tag_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Share of the tags that are right. Most tags are `O`, so that it flatters.

    >>> tag_accuracy([["B-PER", "O"], ["O"]], [["O", "O"], ["O"]])
    0.6666666666666666
    """
    _check(gold, predicted)
    right = sum(a == b for there, given in zip(gold, predicted) for a, b in zip(there, given))
    return right / sum(map(len, gold))


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence: type, first word, and the word after the last.

    >>> entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    >>> entities(["O", "I-PER", "I-LOC"])  # not BIO; each begins an entity
    [('PER', 1, 2), ('LOC', 2, 3)]
    """
    found: list[Entity] = []
    before = OUTSIDE
    for place, tag in enumerate(tags):
        if _continues(tag, before):
            kind, first, _ = found.pop()
            found.append((kind, first, place + 1))
        elif tag != OUTSIDE:
            found.append((_kind(tag), place, place + 1))
        before = tag
    return found


def bio_fault(tags: Sequence[str]) -> tuple[int, str] | None:
    """The first word at which a sentence's tags are not BIO, and what is wrong there; None where nothing is.

    >>> bio_fault(["O", "I-PER"])
    (1, "the tag 'I-PER' follows 'O'; an entity begins with 'B-PER'")
    >>> bio_fault(["B-PER", "I-LOC"])
    (1, "the tag 'I-LOC' follows 'B-PER'; an entity begins with 'B-LOC'")
    >>> bio_fault(["PER"])
    (0, "'PER' is no BIO tag; use O, B-TYPE for the first word of an entity, and I-TYPE for the others")
    >>> bio_fault(["B-PER", "I-PER", "O"]) is None
    True
    """
    before = OUTSIDE
    for place, tag in enumerate(tags):
        if tag != OUTSIDE and tag not in ("B", "I") and not (tag[:2] in ("B-", "I-") and _kind(tag)):
            usage = "use O, B-TYPE for the first word of an entity, and I-TYPE for the others"
            return place, f"{tag!r} is no BIO tag; {usage}"
        if tag.startswith("I") and not _continues(tag, before):
            after = f"follows {before!r}" if place else "is the first of its sentence"
            return place, f"the tag {tag!r} {after}; an entity begins with {'B' + tag[1:]!r}"
        before = tag
    return None


def _continues(tag: str, before: str) -> bool:
    return tag.startswith("I") and before != OUTSIDE and _kind(tag) == _kind(before)


def _kind(tag: str) -> str:
    """The type that a tag names, or "" where it names none."""
    return tag[2:]


def _counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[Counter, Counter, Counter]:
    """Of each type: how many entities are right, were found, are there."""
    _check(gold, predicted)
    right, found, there = Counter(), Counter(), Counter()
    for true, given in zip(gold, predicted):
        true, given = set(entities(true)), set(entities(given))
        for counts, some in ((right, true & given), (found, given), (there, true)):
            counts.update(kind for kind, _, _ in some)
    return right, found, there


def _check(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    check_paired(gold, predicted, "sentences")
    for true, given in zip(gold, predicted):
        if len(true) != len(given):
            raise UsageError(
                f"a sentence has {len(true):,} tags and {len(given):,} predicted ones; a metric needs one for each word"
            )
    if not any(map(len, gold)):
        raise UsageError("the sentences have no words, so there is nothing to measure; give at least one")
