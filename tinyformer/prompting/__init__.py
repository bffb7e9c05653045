"""Using a decoder without training it any further: zero, one or a few examples in the prompt.

Reading order: `template` (what a prompt looks like), `likelihood` (how likely answers are after it), `candidates`
(choosing one), `writing` (having one written), `evaluation` (accuracy against the number of shots).
"""

from .candidates import NORMALISATIONS, Answer, Candidates
from .evaluation import Answered, Experiment, Result, majority
from .likelihood import Question, log_likelihoods
from .template import NAMED, Template, make_prompt, unescaped
from .writing import TLDR_SENTENCES, Writer, first_sentences, options_for, tldr_options

__all__ = [
    "NAMED",
    "NORMALISATIONS",
    "TLDR_SENTENCES",
    "Answer",
    "Answered",
    "Candidates",
    "Experiment",
    "Question",
    "Result",
    "Template",
    "Writer",
    "first_sentences",
    "log_likelihoods",
    "majority",
    "make_prompt",
    "options_for",
    "tldr_options",
    "unescaped",
]
