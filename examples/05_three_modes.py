"""GPT, BERT and T5 on one sentence: what each sees, what each shall say, and who may look at whom.

A transformer is used in three ways. A decoder sees what stands before a token, and predicts the token. An encoder sees
everything, so something has to be hidden for it to predict. An encoder-decoder reads a text with holes both ways, and
writes what was in the holes from left to right.

Who looks at whom is not drawn here but found out: change one token, and see which answers change. That works with any
model, and it is how one finds a mask that leaks.

Run: `python examples/05_three_modes.py ["A SENTENCE" [WORD...]]`, with the words to hide. Read before:
`03_tiny_gpt.py`. Read next: `tinyformer/objectives/`, `tinyformer/models/stack.py`; `tinyformer inspect --help`.
"""

import sys

import numpy as np

from tinyformer.analysis.inspection import inspect, tokenizer_for
from tinyformer.models import build, resolve
from tinyformer.objectives import CausalLM, MaskedLM, SpanCorruption

SENTENCE, HIDDEN = "I love this red car", ("love", "red car")


def what_changes(answer, ids):
    """For each token of `ids`, `1 s`, which rows of the answer, `1 t ...`, are not the same without it: `t s`."""
    columns = []
    for place in range(ids.shape[1]):
        other = ids.copy()
        other[0, place] += 1
        columns.append(np.any(answer(ids) != answer(other), axis=-1)[0])
    return np.stack(columns, axis=1)


def show(title, pattern):
    print(f"\n  {title}")
    for row in pattern:
        print("    " + " ".join("x" if changed else "." for changed in row))


def explore(objective, text, hidden):
    """Print what a new model of the objective's mode gets, and what it looks at."""
    tokenizer = tokenizer_for("words", text, objective.mode)
    row = inspect(text, tokenizer, objective.name, hide=hidden)
    print(f"\n{objective.mode}, {objective.name}")
    print(f"  input   {' '.join(row.inputs.texts)}")
    print(f"  target  {' '.join(token for token, weight in zip(row.targets.texts, row.weights) if weight)}")

    model = build(resolve("tiny", mode=objective.mode, vocabulary=row.vocabulary + 1))  # one to change the last id to
    ids = np.array([row.inputs.ids])  # b t
    if row.decoder_inputs is None:
        show("who looks at whom", what_changes(lambda ids: model(ids).numpy(), ids))
        return
    target = np.array([row.decoder_inputs.ids])
    show("the encoder at itself", what_changes(lambda ids: model.encode(ids).numpy(), ids))
    show("the decoder at the encoder", what_changes(lambda ids: model(ids, target).numpy(), ids))
    show("the decoder at itself", what_changes(lambda target: model(ids, target).numpy(), target))


def main(sentence=SENTENCE, *hidden):
    hidden = hidden or (HIDDEN if sentence == SENTENCE else ())  # no words: they are drawn, as in training
    text = sentence.encode()
    explore(CausalLM, text, ())  # hides nothing
    explore(MaskedLM, text, hidden)
    explore(SpanCorruption, text, hidden)


if __name__ == "__main__":
    main(*sys.argv[1:])
