"""A GPT in one short program: text to ids, a decoder, a loss, an optimiser, a loop, and then it writes.

This is what `tinyformer train` does, without files, validation, resuming and threads. The first loss is close to
ln v, for a new model thinks each of the v characters equally likely. It then falls to the entropy of single
characters, which is how far one comes by knowing their frequencies. All that is below comes from the characters before.

Run: `python examples/03_tiny_gpt.py [FILE [STEPS]]`, or `data.txt` for 400 steps: under a minute. Read before:
`02_attention.py`, `tinyformer/models/decoder.py`. Read next: `04_your_own_primitive.py`, `tinyformer/training/`.
"""

import math
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinyformer import backward
from tinyformer.generation import sample_text
from tinyformer.models import build, resolve
from tinyformer.objectives import CausalLM
from tinyformer.text import make_tokenizer
from tinyformer.training.optimizer import AdamW, FlatParameters, clip_scale
from tinyformer.training.schedule import learning_rate

DATA = Path(__file__).with_name("data.txt")
CONTEXT, BATCH = 64, 16


def main(file=DATA, steps="400"):
    steps = int(steps)
    tokenizer = make_tokenizer("chars", [file])
    ids = tokenizer.encode(Path(file).read_bytes())
    vocabulary = tokenizer.vocabulary_size

    model = build(resolve(vocabulary=vocabulary, layers=2, heads=4, width=64, context=CONTEXT))
    parameters = FlatParameters(model.parameters())  # all of them as views into one array
    optimizer = AdamW.of(parameters)
    objective = CausalLM()

    shares = np.bincount(ids) / len(ids)
    entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
    print(f"{len(ids)} characters, {vocabulary} different ones; a model of {parameters.values.size} parameters")
    print(f"Knowing nothing: {math.log(vocabulary):.3f} nats a character. Their frequencies: {entropy:.3f}")

    random = np.random.default_rng(0)
    for step in range(1, steps + 1):
        starts = random.integers(len(ids) - CONTEXT, size=BATCH)
        windows = ids[starts[:, None] + np.arange(CONTEXT + 1)]  # b (t+1): each character's target is the next one
        loss = objective.loss(model, objective.corrupt(windows))

        parameters.accumulate(backward(loss), first=True)
        rate = learning_rate(step, peak=3e-3, steps=steps + 1, warmup=steps // 20)
        clipping = clip_scale(parameters.gradient_norm(), 1.0)
        optimizer.update(parameters, learning_rate=rate, step=step, gradient_scale=clipping)
        if step == 1 or step % max(1, steps // 10) == 0:
            print(f"step {step:5}   loss {loss.item():.3f}")

    print("\nIt writes:\n")
    print("Once" + sample_text(model, tokenizer, b"Once", 300).decode())


if __name__ == "__main__":
    with threadpool_limits(1):  # matrices this small gain nothing from a second thread
        main(*sys.argv[1:3])
