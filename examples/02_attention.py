"""Attention from scratch: a dictionary whose look-ups are soft, and so have gradients.

Each position asks a question (its query), every earlier position offers an answer (its value) under a label (its
key). Here the vectors are not learned but written by hand, so that one can see what attention does: the query is the
letter itself, the key is the letter *before*, the value the letter that stands there. So a letter finds what followed
it earlier in the text, and the output is a guess at what follows now. Trained transformers find this very circuit by
themselves; it has been named the induction head (Olsson 2022).

Run: `python examples/02_attention.py [TEXT]`. Read before: `01_backprop.py`. Read next: `functional.attention` in
`tinyformer/functional.py`, `tinyformer/nn/attention.py`, then `03_tiny_gpt.py`.
"""

import math
import sys

import numpy as np
from einops import einsum, rearrange

from tinyformer import Tensor, functional, ops

CERTAINTY = 5.0  # how much a matching key scores above the others


def attention(query, key, value):
    """softmax(q kᵀ / √c) v over earlier positions, step by step; `b h t c` all three. Also the weights, `b h t s`."""
    scores = einsum(query, key, "b h t c, b h s c -> b h t s") / math.sqrt(query.shape[-1])

    t, s = scores.shape[-2:]
    may_look = np.arange(s) <= np.arange(t)[:, None]  # a row for each query: itself and what came before
    scores = ops.where(may_look, scores, np.full(scores.shape, -np.inf))

    scores = scores - scores.max(axis=-1, keepdims=True).detach()  # changes nothing, but exp cannot overflow
    weights = scores.exp()
    weights = weights / weights.sum(axis=-1, keepdims=True)  # each row is positive and adds up to 1
    return einsum(weights, value, "b h t s, b h s c -> b h t c"), weights


def show(text, weights):
    """Print the weights as percentages: a row for each query, a column for each key."""
    print("      " + "".join(f"{letter:>4}" for letter in text))
    for t, letter in enumerate(text):
        cells = "".join(f"{100 * weight:4.0f}" if s <= t else "   ." for s, weight in enumerate(weights[t]))
        print(f"  {letter:>3} {cells}")


def main(text="abracadabra"):
    letters = sorted(set(text))
    one_hot = np.eye(len(letters))[[letters.index(letter) for letter in text]]  # `t c`
    before = np.vstack([np.zeros((1, len(letters))), one_hot[:-1]])  # the first letter has none before it

    query, key, value = (
        Tensor(rearrange(array, "t c -> 1 1 t c"), requires_grad=True)
        for array in (one_hot * CERTAINTY * math.sqrt(len(letters)), before, one_hot)
    )
    out, weights = attention(query, key, value)

    print(f"What each letter of {text!r} looks at, in percent:\n")
    show(text, weights.numpy()[0, 0])
    guess = out.numpy()[0, 0, -1]
    likely = ", ".join(f"{letters[i]!r} {100 * guess[i]:.0f} %" for i in np.argsort(-guess, kind="stable")[:3])
    print(f"\nSo after {text!r} comes: {likely}")

    same = functional.attention(query, key, value, causal=True)
    print(f"Largest difference from functional.attention: {np.abs(out.numpy() - same.numpy()).max():.1e}")

    confidence = out[0, 0, -1, int(guess.argmax())].log()
    confidence.backward()  # which keys would have to change, for a surer guess?
    pull = np.abs(key.grad[0, 0]).sum(axis=-1)
    print(f"Its log-probability depends most on the key at position {int(pull.argmax())} (counted from 0)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
