"""Sentences in which a word is a name or not by what stands around it: `python -m tests.tasks.sentences 2000 > FILE`.

Forty words are people, places, firms and common words alike, each as often as any other in each part, so that a model
which reads a word without its neighbours can tell nothing. A phrase's kind is told by the words before it, by those
behind it, or by a word two places away: "the old May was", "in May", "the city of May Rose", "May Rose said".

The output is CoNLL's columns, for `tinyformer finetune RUN FILE --task tag`.
"""

import sys

import numpy as np

# fmt: off
WORDS = [
    "may", "rose", "mark", "grant", "hunt", "bill", "jack", "dale", "wood", "banks", "stone", "chase", "frank",
    "grace", "hope", "joy", "rich", "miles", "page", "ray", "amazon", "orange", "shell", "target", "gap", "visa",
    "delta", "apple", "oracle", "sprint", "reading", "bath", "cork", "nice", "mobile", "turkey", "china", "chad",
    "jersey", "lima",
]
# fmt: on
PHRASES = {  # of a kind, _ being one to three of the words; all within a line have the same chance
    "PER": ["mr _ went home", "_ said no", "dear old mrs _ smiled", "a friend named _ sang", "_ and his wife came"],
    "LOC": [
        "in _ it rained",
        "we flew to _ again",
        "the city of _ grew",
        "the roads near _ froze",
        "_ is a small town",
    ],
    "ORG": ["shares of _ fell", "_ hired staff", "the firm _ closed", "the makers at _ met", "_ sold its plants"],
    "O": [
        "the _ was cold",
        "a very old _ lay there",
        "some _ came in a box",
        "i like _ with milk",
        "this _ of hers broke",
    ],
}
BETWEEN = ["and", "but", "then", ",", "while", "so"]


def sentence(rng, names=WORDS, phrases=PHRASES):
    """Words and tags: one to three phrases, joined."""
    words, tags = [], []
    for number in range(rng.integers(1, 4)):
        if number:
            words.append(str(rng.choice(BETWEEN)))
            tags.append("O")
        kind = str(rng.choice(list(phrases)))
        for word in str(rng.choice(phrases[kind])).split():
            chosen = [str(word) for word in rng.choice(names, rng.integers(1, 4), replace=False)]
            words += chosen if word == "_" else [word]
            if word != "_" or kind == "O":
                tags += ["O"] * (len(words) - len(tags))
            else:
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(chosen) - 1)
    return words, tags


def columns(count, seed, **choices):
    """So many sentences as the text of a file."""
    rng = np.random.default_rng(seed)
    drawn = (sentence(rng, **choices) for _ in range(count))
    return "\n".join("".join(f"{word} {tag}\n" for word, tag in zip(*one)) for one in drawn)


def main(*arguments):
    if not 1 <= len(arguments) <= 2 or not all(map(str.isdecimal, arguments)):
        print("usage: python -m tests.tasks.sentences COUNT [SEED] > FILE", file=sys.stderr)
        return 2
    count, seed = (*map(int, arguments), 0)[:2]
    sys.stdout.write(columns(count, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
