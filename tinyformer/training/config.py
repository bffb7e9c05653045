"""Everything that decides how a run goes, as data, and its readable form: `config.toml`.

The defaults stand here and nowhere else; the command line reads them from here. None means "chosen for you",
and `config.toml` in a run directory shows what was chosen. Neither NumPy nor anything heavy is imported here.

Read next: `schedule.py`. The values are used in `trainer.py` and `loop.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import open_regular
from .toml import format_toml

SCHEDULES = ("cosine", "linear", "constant", "inverse-square-root")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
ON_DEVICES = ("tf32", "bfloat16")  # those of them that a GPU computes in; what is kept is float32 all the same
TOKENIZERS = ("bytes", "chars", "bpe")  # any other is a path
MASKINGS = ("dynamic", "fixed")
TASKS = ("classify", "pair", "regress", "tag", "answer", "text2text")  # what a trained model can be fine-tuned to do
OBJECTIVES = {  # of each mode; the first one unless another is asked for
    "decoder": ("causal",),
    "encoder": ("masked", "next-sentence"),
    "encoder-decoder": ("span-corruption", "seq2seq"),
}
# Updates of the weights, unless told otherwise.
STEPS = {"decoder": 1500, "encoder": 1500, "encoder-decoder": 2500}


def _option(section: str, kind: str, default: Any, **limits: Any) -> Any:
    """A field of `RunConfig`: its section in config.toml, the kind of value it takes, and its limits."""
    return dataclasses.field(default=default, metadata={"section": section, "kind": kind, **limits})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of a training run, named like the flags: `grad_accumulation` is --grad-accumulation.

    Attributes:
        mode: the family of model and objective: "decoder", "encoder" or "encoder-decoder".
        preset: a published size to start from.
        init_from: a run whose shape, weights and tokenizer are the beginning of this one.
        model: what is given of the model's settings, such as {"layers": 6}; all of them once a run has begun.
        objective: what the model learns to do, one of `OBJECTIVES`.
        task: what the model of `init_from` is fine-tuned to do instead, one of `TASKS`. Those below belong to it.
        text: the column of a file that holds the text, by name.
        pair: the column of the second text.
        label: the column of the answer.
        prefix: stands before each text, and tells an encoder-decoder what to do with it.
        labels: that the task tells apart, in the order of the head's outputs.
        examples: checksums of those to train on, and of those to validate on.
        epochs: how often each example is seen.
        freeze: train the head alone.
        masking: of an encoder's text: "dynamic" hides other tokens each time (RoBERTa), "fixed" repeats itself (BERT).
        label_smoothing: of "seq2seq": share of a target's probability that the loss spreads over the vocabulary.
        files: the training text.
        validation: the fraction of the text, at its end, that is kept for validation; or a file.
        tokenizer: "bytes", "chars", "bpe", or the path of a tokenizer.json.
        vocab_size: of a "bpe" tokenizer that is trained.
        steps: updates of the weights.
        batch_size: rows (windows of text, or pairs) in one forward pass.
        grad_accumulation: forward passes that share one update, of batch_size x grad_accumulation rows.
        learning_rate: at its peak.
        warmup: steps over which it rises to the peak.
        schedule: how it goes on from there.
        minimum_ratio: where a cosine or linear schedule ends, as a part of the peak.
        weight_decay: of matrices, decoupled (AdamW).
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: what keeps AdamW from dividing by 0.
        clip: largest norm of the gradient; 0 leaves it as it is.
        eval_every: steps between validations.
        save_every: steps between checkpoints.
        sample_every: steps between samples of text; 0 for none.
        log_every: steps between lines about the training loss.
        overfit_one_batch: train on the first batch again and again, to see that the loss goes to 0.
        seed: of weights, batch order and dropout.
        backend: "auto", "numpy" or "cupy".
        precision: of what is computed: "float32"; on a GPU "tf32" (float32, products rounded) or "bfloat16"; "float64".
        threads: worker threads, on the CPU.
        devices: GPUs that share each batch.
    """

    mode: str | None = _option("model", "text", None, choices=tuple(OBJECTIVES))
    preset: str | None = _option("model", "text", None)
    init_from: str | None = _option("model", "text", None)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    files: tuple[str, ...] = _option("data", "files", ())
    validation: float | str = _option("data", "fraction or file", 0.1)
    tokenizer: str = _option("data", "text", "bpe")
    vocab_size: int | None = _option("data", "integer", None, least=1, most=2**31)

    task: str | None = _option("task", "text", None, choices=TASKS)
    text: str | None = _option("task", "text", None)
    pair: str | None = _option("task", "text", None)
    label: str | None = _option("task", "text", None)
    prefix: str | None = _option("task", "text", None)
    labels: tuple[str, ...] | None = _option("task", "texts", None)
    examples: tuple[str, ...] | None = _option("task", "texts", None)
    epochs: int | None = _option("task", "integer", None, least=1, most=10**6)
    freeze: bool | None = _option("task", "truth", None)

    objective: str | None = _option("training", "text", None, choices=tuple(sum(OBJECTIVES.values(), ())))
    masking: str | None = _option("training", "text", None, choices=MASKINGS)
    label_smoothing: float | None = _option("training", "number", None, least=0, below=1)
    steps: int | None = _option("training", "integer", None, least=1, most=10**12)
    batch_size: int = _option("training", "integer", 16, least=1, most=10**9)
    grad_accumulation: int = _option("training", "integer", 1, least=1, most=10**9)
    learning_rate: float | None = _option("training", "number", None, above=0)
    warmup: int | None = _option("training", "integer", None, least=0)
    schedule: str = _option("training", "text", "cosine", choices=SCHEDULES)
    minimum_ratio: float = _option("training", "number", 0.1, least=0, most=1)
    weight_decay: float = _option("training", "number", 0.1, least=0)
    beta1: float = _option("training", "number", 0.9, least=0, below=1)
    beta2: float = _option("training", "number", 0.99, least=0, below=1)
    epsilon: float = _option("training", "number", 1e-8, above=0)
    clip: float = _option("training", "number", 1.0, least=0)
    eval_every: int = _option("training", "integer", 250, least=1)
    save_every: int = _option("training", "integer", 500, least=1)
    sample_every: int = _option("training", "integer", 500, least=0)
    log_every: int = _option("training", "integer", 10, least=1)
    overfit_one_batch: bool = _option("training", "truth", False)

    seed: int = _option("machine", "integer", 0, least=0, most=2**63 - 1)
    backend: str = _option("machine", "text", "auto")
    precision: str = _option("machine", "text", "float32", choices=PRECISIONS)
    threads: int | None = _option("machine", "integer", None, least=1, most=1024)
    devices: int = _option("machine", "integer", 1, least=1, most=1024)

    def __post_init__(self) -> None:
        for field in _FIELDS.values():
            _check(field, getattr(self, field.name))
        object.__setattr__(self, "files", tuple(map(str, self.files)))
        for name in ("labels", "examples"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if None not in (self.warmup, self.steps) and self.warmup > self.steps:
            raise UsageError(f"--warmup ({self.warmup}) is longer than --steps ({self.steps}); lower it")
        if self.vocab_size is not None and self.tokenizer in ("bytes", "chars"):
            raise UsageError(
                f"--vocab-size has no meaning with --tokenizer {self.tokenizer}, which fixes its own "
                "vocabulary; leave it out or use --tokenizer bpe"
            )

    @property
    def dtype(self) -> str:
        """Of the weights, and of everything in a checkpoint."""
        return "float32" if self.precision in ON_DEVICES else self.precision

    @property
    def rows_per_step(self) -> int:
        """Rows behind one update."""
        return self.batch_size * self.grad_accumulation

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_toml(self, heading: str = "") -> str:
        """As the text of a config.toml; what is None is left out."""
        sections: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "task": {}, "training": {}, "machine": {}}
        for field in _FIELDS.values():
            sections[field.metadata["section"]][field.name] = getattr(self, field.name)
        sections["model"] |= self.model
        if self.task is None:
            del sections["task"]
        return heading + format_toml(sections)

    @property
    def digest(self) -> str:
        """A fingerprint of the settings that a resumed run must share with its checkpoint."""
        fixed = {name: getattr(self, name) for name in _FIELDS if name not in CHANGEABLE}
        given = {name: value for name, value in fixed.items() if value is not None}  # so that a new field changes none
        text = json.dumps([given, self.model], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_FIELDS = {field.name: field for field in dataclasses.fields(RunConfig) if field.name != "model"}

# What may change when a run is resumed. Anything else would make it another run: other sizes, text, batches.
CHANGEABLE = {name for name, field in _FIELDS.items() if field.metadata["section"] == "training"}
CHANGEABLE = (CHANGEABLE | {"threads", "devices", "backend"}) - {
    *("objective", "masking", "label_smoothing"),
    *("batch_size", "grad_accumulation", "overfit_one_batch"),
}


def options(config: RunConfig) -> dict[str, Any]:
    """The fields by name, without the model's settings: for showing, and for a command line's defaults."""
    return {name: getattr(config, name) for name in _FIELDS}


def absolute(name: str, value: Any) -> Any:
    """A field's value with its paths, if it has any, made to mean the same from every directory."""
    if name == "files":
        return tuple(os.path.abspath(file) for file in value)
    is_path = {
        "validation": isinstance(value, str | Path),
        "tokenizer": value not in TOKENIZERS,
        "init_from": value is not None,
    }
    return os.path.abspath(value) if is_path.get(name) else value


def for_resume(stored: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The settings of a resumed run.

    Args:
        stored: the run's own.
        changes: what the user gave now, by field name; the model's settings by their names, too.

    Raises:
        UsageError: a setting that is fixed for the run would change.
    """
    for name, value in changes.items():
        before = getattr(stored, name) if name in _FIELDS else stored.model.get(name)
        if name in CHANGEABLE or absolute(name, value) == absolute(name, before):
            continue
        if isinstance(value, bool):
            raise UsageError(f"the run was begun otherwise: leave {_flag(name)} out, or start a new run")
        raise UsageError(
            f"a resumed run keeps its {_flag(name)} {_shown(before)}; "
            f"leave {_flag(name)} {_shown(value)} out, or start a new run"
        )
    steps = changes.get("steps")
    if None not in (steps, stored.warmup) and "warmup" not in changes and stored.warmup > steps:
        raise UsageError(
            f"the run's learning rate rises over {stored.warmup} steps, and --steps is {steps}; "
            f"add --warmup with a smaller number, such as --warmup {steps // 20}"
        )
    return stored.replace(**{name: value for name, value in changes.items() if name in CHANGEABLE})


_MOST_BYTES = 1 << 20


def read_config(path: str | Path) -> RunConfig:
    """The settings in a TOML file: a run's config.toml, or one written by hand with any part of it.

    Raises:
        UsageError: it cannot be read, is no TOML, or holds an unknown name or an impossible value.
    """
    return RunConfig(**read_options(path))


def read_options(path: str | Path) -> dict[str, Any]:
    """What a TOML file sets, as arguments for `RunConfig`: for merging with flags, which beat it.

    A run's directory stands for its config.toml.

    Raises:
        UsageError: as `read_config`, except for values.
    """
    path = Path(path)
    if path.is_dir():
        path /= "config.toml"
    try:
        with open_regular(Path(path)) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError(f"{path} is too large for a configuration; is it another kind of file?")
        sections = tomllib.loads(text.decode())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise UsageError(f"{path} is not valid TOML: {reason}") from error
    given: dict[str, Any] = {}
    for section, values in sections.items():
        known = [name for name, field in _FIELDS.items() if field.metadata["section"] == section]
        names = dict.fromkeys(field.metadata["section"] for field in _FIELDS.values())
        if not known and not isinstance(values, dict):
            places = [_FIELDS[section].metadata["section"]] if section in _FIELDS else names
            where = " or ".join(f"[{place}]" for place in places)
            raise UsageError(f"{path}: settings stand in sections; put {section!r} below a line {where}")
        if not known:
            raise UsageError(f"{path}: unknown section [{section}]; known are {', '.join(names)}")
        if not isinstance(values, dict):
            raise UsageError(f"{path}: [{section}] must be a section of settings, not a value")
        for name, value in values.items():
            if name in known:
                given[name] = value
            elif section == "model":
                given.setdefault("model", {})[name] = value
            else:
                raise UsageError(f"{path}: unknown setting {name!r} in [{section}]{_nearest(name, known)}")
    return given


_KINDS = {
    "text": (str, "text"),
    "files": ((tuple, list), 'a list of files, such as ["data.txt"]'),
    "texts": ((tuple, list), 'a list of texts, such as ["yes", "no"]'),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "truth": (bool, "true or false"),
    "fraction or file": ((int, float, str), "a fraction or a file"),
}


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raise a UsageError unless a value is one that its field can have."""
    limits, flag = field.metadata, _flag(field.name)
    if value is None and field.default is None:
        return
    types, description = _KINDS[limits["kind"]]
    wrong = not isinstance(value, types) or (isinstance(value, bool) and types is not bool)
    inner = {"files": str | Path, "texts": str}.get(limits["kind"])
    if wrong or (inner and not all(isinstance(part, inner) for part in value)):
        raise UsageError(f"{flag} must be {description}, not {value!r}")
    if limits["kind"] == "fraction or file" and not isinstance(value, str) and not 0 < value < 1:
        raise UsageError(f"{flag} must be a file or a fraction between 0 and 1, such as 0.1, not {value}")
    if limits["kind"] == "number" and not abs(value) < 1e300:
        raise UsageError(f"{flag} must be finite, not {value}")
    if "choices" in limits and value not in limits["choices"]:
        known = limits["choices"]
        raise UsageError(f"{flag} must be one of {', '.join(known)}, not {value!r}{_nearest(value, known)}")
    for word, broken in (
        ("least", lambda limit: value < limit),
        ("most", lambda limit: value > limit),
        ("above", lambda limit: value <= limit),
        ("below", lambda limit: value >= limit),
    ):
        if word in limits and broken(limits[word]):
            phrase = {"least": "at least", "most": "at most", "above": "above", "below": "below"}[word]
            raise UsageError(f"{flag} must be {phrase} {limits[word]}, not {value}")


def _flag(name: str) -> str:
    return "files" if name == "files" else "--" + name.replace("_", "-")  # those are an argument and no flag


def _shown(value: Any) -> str:
    return "unset" if value is None else " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
