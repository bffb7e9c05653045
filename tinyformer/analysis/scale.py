"""What the published models took: parameters, training tokens, floating-point operations.

The table that closes the chapter "Large-Scale Pretraining with Transformers" of Dive into Deep Learning (Zhang 2023),
completed. Sizes and parameters come from the presets, and FLOPs from the exact parameters; the rest is printed in
papers, and stands here as it is printed, beside notes on what cannot be right.

Read before: `counts.py`, `tinyformer/models/presets.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from ..models import ModelConfig, resolve
from .counts import count_parameters

PETAFLOPS_DAY = 1e15 * 24 * 3600  # FLOPs of a day at 10¹⁵ a second


class Printed(NamedTuple):
    """What is printed of a model.

    Attributes:
        parameters: in millions.
        tokens: read in training, in billions; None where no paper says.
        flops: of the training.
    """

    parameters: int
    tokens: int | None = None
    flops: float | None = None


# Brown 2020, table D.1; those without tokens: gpt1 from the chapter, gpt2 and larger from Radford 2019, table 2.
PRINTED: dict[str, Printed] = {
    "gpt1": Printed(100),
    "bert-base": Printed(109, 250, 1.64e20),
    "bert-large": Printed(355, 250, 5.33e20),
    "gpt2": Printed(117),
    "gpt2-medium": Printed(345),
    "gpt2-large": Printed(762),
    "gpt2-xl": Printed(1542),
    "t5-small": Printed(60, 1000, 1.80e20),
    "t5-base": Printed(220, 1000, 6.60e20),
    "t5-large": Printed(770, 1000, 2.31e21),
    "t5-3b": Printed(3000, 1000, 9.00e21),
    "t5-11b": Printed(11000, 1000, 3.30e22),
    "gpt3-small": Printed(125, 300, 2.25e20),
    "gpt3-medium": Printed(356, 300, 6.41e20),
    "gpt3-large": Printed(760, 300, 1.37e21),
    "gpt3-xl": Printed(1320, 300, 2.38e21),
    "gpt3-2.7b": Printed(2650, 300, 4.77e21),
    "gpt3-6.7b": Printed(6660, 300, 1.20e22),
    "gpt3-13b": Printed(12850, 300, 2.31e22),
    "gpt3-175b": Printed(174600, 300, 3.14e23),
}


class Scale(NamedTuple):
    """A published model and its training.

    Attributes:
        preset: its name.
        config: its shape.
        printed: what papers say of it.
    """

    preset: str
    config: ModelConfig
    printed: Printed

    @property
    def parameters(self) -> int:
        """Exactly, counted as papers do."""
        return count_parameters(self.config, heads=False)

    @property
    def tokens(self) -> int | None:
        """Read in training; None where no paper says."""
        return None if self.printed.tokens is None else self.printed.tokens * 10**9

    @property
    def flops(self) -> float | None:
        """Of the training, from the exact parameters; None where the tokens are not known."""
        return None if self.tokens is None else training_flops(self.config, self.parameters, self.tokens)

    @property
    def petaflops_days(self) -> float | None:
        """The same, in days at 10¹⁵ FLOPs a second."""
        return None if self.flops is None else self.flops / PETAFLOPS_DAY


def training_flops(config: ModelConfig, parameters: float, tokens: float) -> float:
    """FLOPs of a whole training: 2 for each parameter and token forwards, and twice that backwards.

    A token of an encoder-decoder stands in the source or in the target, and meets half of the parameters (Brown 2020,
    table D.1).
    """
    return (3 if config.mode == "encoder-decoder" else 6) * parameters * tokens


def scale_table() -> list[Scale]:
    """The published models whose size and training are printed, in the order of the papers."""
    return [Scale(preset, resolve(preset), printed) for preset, printed in PRINTED.items()]


def notes() -> dict[str, str]:
    """What to know of the table's columns, and of its rows where what is printed is wrong: by their names."""
    untied, roberta = resolve("t5-large", tied=False), resolve("bert-large", vocabulary=50265, context=514, segments=1)
    day = f"{PETAFLOPS_DAY:.3g}".replace("+", "")
    return {
        "parameters": "exact, tied ones once; BERT's with the pooler, without the heads that only pretraining needs",
        "printed": "as in the GPT-3 paper's table D.1, whose FLOPs are of rounded parameters; parameters of gpt2 and "
        "larger as in the GPT-2 paper's table 2, which its authors later called wrong, and of gpt1 as in the table "
        "that Dive into Deep Learning has",
        "tokens": "as in table D.1; the papers on GPT-1 and GPT-2 do not say how many there were",
        "FLOPs": "6 x parameters x tokens; for an encoder-decoder 3 x, as a token meets half of the parameters",
        "PF/s-days": f"FLOPs / {day}: days at 10^15 FLOPs a second",
        "bert-large": "355M, which Dive into Deep Learning has too, is RoBERTa-Large's count "
        f"({count_parameters(roberta, heads=False):,}); the printed FLOPs rest on it",
        "t5-large": f"770M is what an output layer of its own would make it ({count_parameters(untied):,}); the "
        "released model's is tied",
        "gpt3-xl": "the GPT-3 paper's table 2.1 prints 24 heads of 128 channels, which is 3072 and not 2048; 16 fit",
        "gpt3-13b": "table 2.1 prints a width of 5140, which 40 heads do not divide; 5120 gives the printed parameters",
    }
