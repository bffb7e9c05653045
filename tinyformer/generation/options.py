"""How text is to be written: the settings of one generation, checked once.

Read before `decode.py`, which carries them out. The defaults here are the command line's defaults too.
"""

from dataclasses import dataclass, fields, replace

from ..errors import UsageError

TEMPERATURES = {"decoder": 0.8, "encoder-decoder": 0.0}


@dataclass(frozen=True)
class Options:
    """What to generate and how to choose each token.

    Attributes:
        tokens: how many tokens to write at most, per sample; an encoder-decoder's context is a further limit.
        temperature: logits are divided by it; 0 takes the likeliest token each time (greedy). None stands for
            what suits the mode, see `for_mode`.
        top_k: keep only the k likeliest tokens.
        top_p: keep the smallest set of likeliest tokens whose probability reaches p (Holtzman 2020, §3.1).
        repetition_penalty: weakens every token already seen, in the prompt of a decoder or in what was written;
            1 is off (Keskar 2019, §4.1).
        stop: texts that end a sample as soon as it contains one; the stop text itself is left out.
        seed: sample i draws from the stream (seed, i), whatever the other samples do.
        samples: how many texts.
        beams: width of a beam search, which looks for the likeliest text as a whole; None chooses
            token by token.
        length_penalty: alpha of Wu 2016, eq. 14, for hypotheses of unequal length; beams only.
        cache: keep keys and values between steps. Off computes the same text, slower.

    Raises:
        UsageError: a value out of its range, or two that contradict each other.
    """

    tokens: int = 200
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[bytes, ...] = ()
    seed: int = 0
    samples: int = 1
    beams: int | None = None
    length_penalty: float = 0.6
    cache: bool = True

    def __post_init__(self) -> None:
        at_least_one = ("tokens", "top_k", "samples", "beams")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in at_least_one and value is not None and value < 1:
                raise UsageError(f"{_words(field.name)} must be at least 1, not {value}")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 (always the likeliest token) or more, not {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top p must be above 0 and at most 1, not {self.top_p}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UsageError(
                f"repetition penalty must be above 0 (1 is off, 1.2 is usual), not {self.repetition_penalty}"
            )
        if not 0 <= self.length_penalty <= 100:  # lengths to this power are still numbers
            raise UsageError(f"length penalty must lie in 0 to 100, not {self.length_penalty}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more, not {self.seed}")
        if b"" in self.stop:
            raise UsageError("a stop text must not be empty")
        self._check_together()

    def for_mode(self, mode: str) -> "Options":
        """The same with a temperature: 0.8 for a decoder, whose text should not repeat itself, and 0 for an
        encoder-decoder, of which one expects the answer.

        Raises:
            UsageError: several samples of one answer are asked for.
        """
        return self if self.temperature is not None else replace(self, temperature=TEMPERATURES[mode])

    def _check_together(self) -> None:
        if self.beams is not None and (self.top_k is not None or self.top_p is not None):
            raise UsageError("beam search does not sample: leave out top k and top p, or the beams")
        if self.beams is not None and self.samples > self.beams:
            raise UsageError(f"{self.beams} beams cannot give {self.samples} texts: use more beams")
        if self.beams is None and self.temperature == 0 and self.samples > 1:
            raise UsageError(f"temperature 0 writes the same text {self.samples} times: raise it, or ask for 1 sample")


def _words(name: str) -> str:
    return name.replace("_", " ")
