"""What a run tells while it goes on: nothing in training prints; what happens goes to a `Reporter`.

Read next: `saving.py`, `loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Takes what happens, as dictionaries whose "event" is one of
#   prepare     done, total (bytes), what: while the text is read
#   start       parameters, objective, train_tokens ..., and figures to compare with: ln_v and unigram_entropy in nats
#               per token of the training text, unigram_loss and unigram_accuracy on what is to validate on
#   dry_run     the same, and shapes, parameters_by_part, flops_per_step, memory_per_step (bytes)
#   step        step, steps, seconds_left: after every step, for a live view only
#   train       step, steps, loss (nats per target token), bits_per_byte, learning_rate, gradient_norm,
#               tokens_per_second (read, of sources and targets), seconds_left
#   validating  step, done, total (rows): between batches of a validation, for a live view only
#   validation  step, tokens (targets), and the figures of `analysis.evaluation.figures`; for a decoder bits_per_byte
#               and loss_per_byte (nats), and to compare with unigram_loss, unigram_accuracy, next_sentence_chance
#   sample      step, text or answers (source, answer, target), and what its brackets and lines mean: legend
#   saved       step, path
#   warning     message
#   end         run, step, loss, validation (figures), validation_loss, validation_bits_per_byte, seconds, next (a
#               command, or None); flops_per_second of the matrix products that the steps needed, and
#               peak_flops_per_second of matrix products alone, both None after a short run
# Of a fine-tuning, "start", "validation" and "end" say which task. Then "start" has, in place of tokens and references,
# examples, rows (of the model), validation_examples, how many of these were cut, epochs, epoch_steps, balance (how many
# examples each label has, or entities each type), summary (figures of the labels to train on, as `Task.summary` has
# them), guess and baseline (what always saying that reaches); "validation" has epoch and the task's figures; and "end"
# has best (the figures of the weights that are kept, with their step and epoch) and report (labels, and confusion: a
# row of counts for each label).
# What a run has no figure for is None: bits per byte where not every token of the text is a target.
Reporter = Callable[[dict[str, Any]], None]


def warn(reporter: Reporter, message: str) -> None:
    """Report something that a user should know of, and that does not end the run."""
    reporter({"event": "warning", "message": message})
