"""A task that nobody trained for: a small GPT finds out from examples in its prompt what it is asked for.

It reads stories as in `data.txt`, and lists of words from them. In a list, people, animals and things have answers of
one kind each, drawn anew for each list: Tom's is `he` or `his`, a duck's is what it says or where it lives, a kite's is
how one uses it or used it. Nothing tells which, but the lines before:

    Tom => his
    duck => quack
    kite =>

Here "kite =>" can still mean two things, for the lines above tell only what is meant by people and animals. That is
few-shot prompting (Brown 2020, §2): the pairs are in the weights, and examples tell which are wanted (Xie 2022). The
more there are, the likelier one of them is a thing, so that it is known how many answers can be right at best.

Run: `python examples/06_few_shot.py [STEPS [FOLDER]]`, 1500 steps: some minutes; after 500, the shots mean nothing yet.
FOLDER keeps all files, for `tinyformer prompt` (see the README). Read before: `05_three_modes.py`, `make_data.py`.
"""

import itertools
import random
import sys
import tempfile
from math import comb
from pathlib import Path

import make_data
import numpy as np

import tinyformer
from tinyformer.prompting import Candidates, Experiment, Template
from tinyformer.tasks import Example
from tinyformer.text import load_tokenizer
from tinyformer.training.config import RunConfig
from tinyformer.training.trainer import train

COLUMNS = {"hero": ("he", "his"), "friend": ("says", "home"), "thing": ("use", "used")}
RULES = list(itertools.product(*COLUMNS.values()))  # 8 ways to fill in a list
NUMBERS, MODEL = (0, 1, 2, 4, 8), {"layers": 2, "width": 128, "context": 128}


def pairs(rule):
    """All 48 words and their answers."""
    return [(row["name"], row[column]) for table, column in zip(COLUMNS, rule) for row in make_data.table(table)]


def make_text(stories=200, lists=3000, seed=1):
    draw = random.Random(seed)
    texts = make_data.make_text(stories, seed).split("\n\n")[:-1]
    for _ in range(lists):
        lines = draw.sample(pairs(draw.choice(RULES)), draw.randrange(8, 21))
        texts.append("\n".join(f"{word} => {answer}" for word, answer in lines))
    draw.shuffle(texts)
    return "".join(text + "\n\n" for text in texts)


def at_best(k):
    """Right answers after k shots, on average over the rules: half of them, unless a shot tells what is meant."""
    shares = []
    for table, (one, other) in COLUMNS.items():
        telling = [row[one] != row[other] for row in make_data.table(table)]  # not so: beat, beat; read, read
        unknown = comb(47 - sum(telling) + 1, k) / comb(47, k)  # none of the k is one that tells
        shares += [1 - 0.5 * unknown if tells else 1 for tells in telling]
    return np.mean(shares)


def main(steps="1500", folder=None):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(folder or temporary)
        folder.mkdir(exist_ok=True)
        (folder / "lists.txt").write_text(make_text())
        for rule in RULES:
            (folder / f"{'-'.join(rule)}.tsv").write_text("".join(map("{0[0]}\t{0[1]}\n".format, pairs(rule))))
        config = RunConfig(files=(str(folder / "lists.txt"),), steps=int(steps), batch_size=8, model=MODEL)
        run = Path(train(config, lambda event: None, out=folder / "run")["run"])
        model, tokenizer = tinyformer.load(run), load_tokenizer(run / "tokenizer.json")

    template = Template.parse("{text} => {label}\n")
    answers = sorted({answer for rule in RULES for _, answer in pairs(rule)})  # no rule is given away
    candidates, found = Candidates(model, tokenizer, template, answers), []
    for seed, rule in enumerate(RULES):
        examples = [Example((word,), answer) for word, answer in pairs(rule)]
        experiment = Experiment(template, examples, numbers=NUMBERS, draws=3, limit=12, seed=seed)
        found.append([result.accuracies for result in experiment.run(candidates)])
    print("    K  accuracy  standard error  at best")
    for k, draws in zip(NUMBERS, np.array(found).swapaxes(0, 1).reshape(len(NUMBERS), -1)):
        print(f"{k:5}  {draws.mean():8.1%}  {draws.std(ddof=1) / len(draws) ** 0.5:14.1%}  {at_best(k):7.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
