"""Metrics of written texts: exact match, BLEU and ROUGE-L, with one gold text each.

BLEU looks at the n-grams that a text shares with the gold one, over the whole corpus at once; ROUGE-L at the longest
common subsequence, text by text. Read before: `scores.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from .scores import Scores, check_paired

LONGEST = 4  # words of an n-gram

# What mteval-v13a.pl, the script of the NIST evaluations, undoes and cuts at, in this order.
UNDONE = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
CUTS = (
    (re.compile(r"""([ !"#$%&()*+/:;<=>?@[\\\]^_`{|}~])"""), r" \1 "),  # ASCII's signs but ' , - .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # a full stop or comma, but between digits
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a hyphen after a digit
)


def measure(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `rouge_l` (0 to 1), and `bleu` (0 to 100), which is NaN where **no gold text has four words**.

    BLEU would be 0 there, or near it, however right the texts are; so there is none to tell.

    >>> measure(["the cat sat on the mat"], ["the cat sat on the mat"])
    {'exact_match': 1.0, 'bleu': 100.0, 'rouge_l': 1.0}
    >>> measure(["sit, cat"], ["sit, cat"])
    {'exact_match': 1.0, 'bleu': nan, 'rouge_l': 1.0}

    Raises:
        UsageError: nothing to measure, or lengths that differ.
    """
    has_ngrams = any(len(tokenise_13a(text)) >= LONGEST for text in gold)
    return {
        "exact_match": exact_match(gold, predicted),
        "bleu": bleu(gold, predicted) if has_ngrams else math.nan,
        "rouge_l": rouge_l(gold, predicted),
    }


def exact_match(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of the texts that are right in every character, white space at their ends left aside.

    >>> exact_match(["a b", "c"], [" a b ", "C"])
    0.5
    """
    check_paired(gold, predicted, "texts")
    return sum(a.strip() == b.strip() for a, b in zip(gold, predicted)) / len(gold)


def bleu(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100 (Papineni 2002), as sacrebleu computes it by default (Post 2018).

    The geometric mean of the shares of n-grams, n = 1 ... 4, that also occur in the gold text (each at most as often as
    there), times exp(1 - r/c) where the predictions have c words in all, fewer than the r of the gold texts. The k-th n
    without a match counts as 1/2ᵏ matches, as in mteval-v13a.pl (Chen & Cherry 2014, method 3), but without any match
    BLEU is 0. Case matters. It is **0, too, where no prediction has four words**, right or wrong, as sacrebleu's
    is without `use_effective_order`: judge texts that short by `exact_match`, as `measure` does.

    >>> round(bleu(["The cat sat on the mat."], ["The cat lay on the mat."]), 2)
    48.89
    >>> bleu(["a b c"], ["a b c"])
    0.0
    """
    check_paired(gold, predicted, "texts")
    matches, totals = [0] * LONGEST, [0] * LONGEST
    gold_words = words = 0
    for wanted, given in zip(map(tokenise_13a, gold), map(tokenise_13a, predicted)):
        gold_words, words = gold_words + len(wanted), words + len(given)
        for n in range(LONGEST):
            written = _ngrams(given, n + 1)
            matches[n] += (written & _ngrams(wanted, n + 1)).total()
            totals[n] += written.total()
    if not all(totals) or not any(matches):
        return 0.0
    logs, smoothed = 0.0, 1.0
    for right, total in zip(matches, totals):
        if not right:
            smoothed /= 2
        logs += math.log((right or smoothed) / total)
    return 100 * math.exp(logs / LONGEST + min(0.0, 1 - gold_words / words))


def tokenise_13a(text: str) -> list[str]:
    """Cut a text into words and signs as mteval-v13a.pl does, whose rules are made for Western languages.

    >>> tokenise_13a("It's 1,000.5 (or 3-4), he said.")
    ["It's", '1,000.5', '(', 'or', '3', '-', '4', ')', ',', 'he', 'said', '.']
    """
    text = text.rstrip()
    for old, new in UNDONE:
        text = text.replace(old, new)
    text = f" {text} "
    for pattern, new in CUTS:
        text = pattern.sub(new, text)
    return text.split()


def rouge_l(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """ROUGE-L of each text as one sequence (sentence level; Lin 2004, §3.1), averaged over the texts.

    The F-measure (β = 1) of the longest common subsequence of words, as the package rouge-score computes `rougeL`
    without stemming: words are runs of a-z and 0-9 in lower case. **A text in another script has no words, and scores
    0**, right or wrong.

    >>> rouge_l(["police killed the gunman"], ["police kill the gunman"])  # the paper's example
    0.75
    >>> rouge_l(["police killed the gunman"], ["the gunman kill police"])
    0.5
    """
    check_paired(gold, predicted, "texts")
    total = 0.0
    for wanted, given in zip(map(_words, gold), map(_words, predicted)):
        total += Scores.of(common_subsequence(wanted, given), len(given), len(wanted)).f1
    return total / len(gold)


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest sequence that both have in this order, with gaps (Hyyrö 2004).

    The row of the usual table is held as one integer. It never falls from left to right and rises by steps of 1; bit i
    is 0 where it rises at a[i]. A word of b moves each rise to the first place in its gap where a has that word: that
    is a sum with carries, so a row costs one addition.

    >>> common_subsequence("abcbdab", "bdcaba")
    4
    """
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(a)) - 1
    flat = every
    for word in b:
        moved = flat & places.get(word, 0)
        flat = (flat + moved | flat - moved) & every
    return len(a) - flat.bit_count()


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n))))


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())
