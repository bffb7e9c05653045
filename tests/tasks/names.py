"""Names to be found in text without capitals: `python tests/tasks/names.py DIR FILE...`, with English text of any kind.

It draws sentences from the last file and writes `DIR/train.conll`, 300 of them, and `DIR/validation.conll`, 400: words
that had a capital and did not begin the sentence are names. `DIR/pretrain.txt` is all the rest, in lower case. A tagger
that has read this should find more of the names than one that begins with random weights: the commands that show it are
printed.
"""

import random
import re
import shlex
import sys
from pathlib import Path

SIZES = {"train": 300, "validation": 400}  # sentences
NEXT = """\
tinyformer train DIR/pretrain.txt --mode encoder --out DIR/pretrained
tinyformer train --config DIR/pretrained --steps 1 --warmup 0 --learning-rate 1e-12 --out DIR/random
tinyformer finetune DIR/pretrained DIR/train.conll --validation DIR/validation.conll --task tag --epochs 15
tinyformer finetune DIR/random DIR/train.conll --validation DIR/validation.conll --task tag --epochs 15"""


def sentences(text):
    """Those of 8 to 20 words; a line that ends without a full stop is none."""
    for line in text.split("\n"):
        for found in re.split(r" ?[.!?](?: |$)", line)[:-1]:
            if 8 <= len(found.split()) <= 20:
                yield found


def tagged(sentence):
    """The words in lower case, and what their capitals said."""
    before = "O"
    for number, word in enumerate(sentence.split()):
        named = number > 0 and word[0].isupper() and word != "I"
        before = "O" if not named else "B-NAME" if before == "O" else "I-NAME"
        yield word.lower(), before


def write(folder, *files, seed=0):
    """All that is told above."""
    texts = [Path(file).read_text(encoding="utf-8") for file in files]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = list(sentences(texts[-1]))
    random.Random(seed).shuffle(drawn)
    rest = "\n\n".join(texts).lower()
    for name, count in SIZES.items():
        chosen, drawn = drawn[:count], drawn[count:]
        blocks = ["".join(f"{word} {tag}\n" for word, tag in tagged(sentence)) for sentence in chosen]
        (folder / f"{name}.conll").write_text("\n".join(blocks), encoding="utf-8")
        taken = {sentence.lower() for sentence in chosen}
        drawn = [sentence for sentence in drawn if sentence.lower() not in taken]
        for sentence in taken:
            rest = rest.replace(sentence, "")
    (folder / "pretrain.txt").write_text(rest, encoding="utf-8")


def main(*arguments):
    if len(arguments) < 2:
        print("usage: python tests/tasks/names.py DIR FILE...", file=sys.stderr)
        return 2
    write(Path(arguments[0]), *arguments[1:])
    print(NEXT.replace("DIR", shlex.quote(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
