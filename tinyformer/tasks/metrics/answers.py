"""Metrics of answers to questions: exact match and F1, as SQuAD defines them.

The rules are those of the script that scores SQuAD 2.0 (Rajpurkar 2018, evaluate-v2.0), which agrees with that of SQuAD
1.1 (Rajpurkar 2016, §6.1) wherever a question has an answer. A question without one has no gold answers, and its right
prediction is the empty text.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from .scores import Scores, check_paired

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's only, so that « and 。 stay


def measure(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `f1`, means over the questions; each also of those with an answer and without, if both occur.

    >>> measure([["Denver Broncos", "The Denver Broncos"]], ["Broncos"])
    {'exact_match': 0.0, 'f1': 0.6666666666666666}
    >>> measure([["1066"], []], ["in 1066", ""])["no_answer_exact_match"]
    1.0

    Args:
        gold: the accepted answers to each question; none where the text does not answer it.
        predicted: the answer given to it; empty for none.

    Raises:
        UsageError: nothing to measure, or lengths that differ.
    """
    check_paired(gold, predicted, "questions")
    pairs = list(zip(predicted, gold))
    exact = [float(exact_match(*pair)) for pair in pairs]
    overlap = [f1(*pair) for pair in pairs]
    found = {"exact_match": _mean(exact), "f1": _mean(overlap)}
    answerable = [bool(answers) for answers in gold]
    if len(set(answerable)) == 2:
        for name, values in (("exact_match", exact), ("f1", overlap)):
            for kind, wanted in (("has_answer", True), ("no_answer", False)):
                some = [value for value, there in zip(values, answerable) if there == wanted]
                found[f"{kind}_{name}"] = _mean(some)
    return found


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction equals an accepted answer once both are normalised.

    >>> exact_match("the Normans!", ["Normans", "Norman people"])
    True
    >>> exact_match("", [])
    True
    """
    return normalise(prediction) in map(normalise, _accepted(answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Overlap of the words of the prediction with those of the accepted answer that it is nearest to.

    Words count as often as they occur. Where either side has none, 1 if neither has, else 0.

    >>> f1("in the 11th century", ["11th century", "1066"])
    0.8
    """
    words = normalise(prediction).split()
    return max(_overlap(words, normalise(answer).split()) for answer in _accepted(answers))


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, and with single spaces.

    >>> normalise("The  Cat's -- an   Animal.")
    'cats animal'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def _accepted(answers: Sequence[str]) -> list[str]:
    """The gold answers that something is left of, or the empty text where there is none."""
    return [answer for answer in answers if normalise(answer)] or [""]


def _overlap(predicted: Sequence[str], gold: Sequence[str]) -> float:
    if not predicted or not gold:
        return float(not predicted and not gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return Scores.of(common, len(predicted), len(gold)).f1


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
