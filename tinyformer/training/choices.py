"""What a user's settings leave open, settled: the mode and objective, the model's shape, rates, threads.

Read before: `config.py`, `tinyformer/models/presets.py`. Read next: `data.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import backends, models, text
from ..analysis.machine import usable_cores
from ..errors import UsageError
from ..models import ModelConfig
from ..objectives import OBJECTIVES as KINDS
from ..objectives import Objective
from . import rundir
from .config import OBJECTIVES, ON_DEVICES, STEPS, RunConfig, absolute

MOST_SIZE = 1 << 20  # of a model; no machine has room for more, and all divisors of a width are tried
MOST_LAYERS = 1 << 14  # which alone choose a width of 64 times as much
SEGMENTS = 2  # in a pair of texts


def settle_mode(config: RunConfig) -> RunConfig:
    """The settings of a new run with its mode and objective chosen, and what depends on these alone.

    Raises:
        UsageError: settings contradict each other, or one has no meaning in this mode.
    """
    own = models.PRESETS.get(config.preset or "", {}).get("mode")
    if config.init_from is not None:
        own = _origin(config)[0].mode
        if config.mode not in (None, own):
            raise UsageError(f"{config.init_from} is a run of mode {own}; leave --mode {config.mode} out")
    right = next((mode for mode, known in OBJECTIVES.items() if config.objective in known), None)
    mode = config.mode or own or right or "decoder"
    objective = config.objective or OBJECTIVES[mode][0]
    if objective not in OBJECTIVES[mode]:
        raise UsageError(f"--objective {objective} belongs to --mode {right}, and the mode here is {mode}")
    if config.masking is not None and mode != "encoder":
        raise UsageError(f"--masking belongs to --mode encoder, and the mode here is {mode}; leave it out")
    if config.label_smoothing is not None and objective != "seq2seq":
        raise UsageError(
            f"--label-smoothing belongs to --objective seq2seq, which --mode encoder-decoder has, and the objective "
            f"here is {objective}; leave it out"
        )
    masking = config.masking or ("dynamic" if mode == "encoder" else None)
    steps = STEPS[mode] if config.steps is None else config.steps
    return config.replace(mode=mode, objective=objective, masking=masking, steps=steps)


def settle(config: RunConfig, shape: ModelConfig, tokenizer: Any) -> RunConfig:
    """The settings of a new run with everything else chosen, and with paths that mean the same from everywhere.

    Args:
        config: from `settle_mode`.
        shape: of the model.
        tokenizer: of the run.
    """
    model = {name: value for name, value in dataclasses.asdict(shape).items() if value is not None}  # TOML has no None
    mode, rate = model.pop("mode"), models.default_learning_rate(shape)
    paths = ("files", "validation", "tokenizer", "init_from")
    settled = config.replace(
        model=model,
        mode=mode,
        **{name: absolute(name, getattr(config, name)) for name in paths},
        vocab_size=tokenizer.vocabulary_size if config.tokenizer == "bpe" else config.vocab_size,
        learning_rate=rate if config.learning_rate is None else config.learning_rate,
        warmup=config.steps // 20 if config.warmup is None else config.warmup,
        backend=machine_for(config),
        threads=min(usable_cores(), config.batch_size) if config.threads is None else config.threads,
    )
    if config.init_from is None:
        return settled
    return settled.replace(tokenizer=str(_origin(config)[1].tokenizer_file.absolute()), vocab_size=None)


def model_config(config: RunConfig, vocabulary: int | None = None) -> ModelConfig:
    """The model's shape for a vocabulary; by default the one that a run's settings name, or a stand-in of 1.

    Raises:
        UsageError: a setting is unknown, of the wrong kind, or contradicts another.
    """
    given = _checked(config.model)
    written = given.pop("vocabulary", None)
    if None not in (written, vocabulary) and written != vocabulary:
        raise UsageError(
            f"[model] has a vocabulary of {written}, and the tokenizer one of {vocabulary}; remove that line"
        )
    if config.objective == "next-sentence":
        given = {"next_sentence": True} | given
    shape = models.resolve(config.preset, mode=config.mode, vocabulary=vocabulary or written or 1, **given)
    return _fitting(config, shape)


def inherited_shape(config: RunConfig) -> ModelConfig:
    """The shape of the run that a new one starts from; only the dropout may be another.

    Raises:
        UsageError: there is no such run, or sizes or a tokenizer are given that are not its own.
    """
    origin, run = _origin(config)
    shape, given = model_config(origin), _checked(config.model)
    own = dataclasses.asdict(shape) | {"preset": None, "vocab_size": None}
    given |= {"preset": config.preset, "vocab_size": config.vocab_size}
    for name, value in given.items():
        if name != "dropout" and value not in (None, own.get(name)):
            raise UsageError(
                f"a run that starts from {config.init_from} keeps its shape and tokenizer; leave "
                f"--{name.replace('_', '-')} {value} out"
            )
    same = absolute("tokenizer", config.tokenizer) == str(run.tokenizer_file.absolute())
    if config.tokenizer != RunConfig().tokenizer and not same:
        raise UsageError(
            f"a run that starts from {config.init_from} keeps its tokenizer; leave --tokenizer {config.tokenizer} out"
        )
    dropout = given.get("dropout")
    return _fitting(config, shape if dropout is None else dataclasses.replace(shape, dropout=dropout))


def inherited_tokenizer(config: RunConfig) -> Any:
    """The tokenizer of the run that a new one starts from."""
    return text.load_tokenizer(_origin(config)[1].tokenizer_file)


def make_objective(config: RunConfig, tokenizer: Any, context: int) -> Objective:
    """What a run's model learns to do.

    Raises:
        UsageError: the tokenizer lacks a token that it needs, or the context is too short or too long for it.
    """
    name = config.objective or OBJECTIVES[config.mode or "decoder"][0]
    options = {}
    if name == "next-sentence":
        options["line_ends"] = text.line_ends(tokenizer)
    if name == "seq2seq":
        options["smoothing"] = config.label_smoothing or 0.0
    return KINDS[name].of(tokenizer, context, **options)


def choose_backend(name: str) -> str:
    """The name of the backend that will be used.

    Raises:
        UsageError: it is unknown, or cannot run here.
    """
    try:
        return backends.get(name).name
    except backends.BackendUnavailable as error:
        raise UsageError(str(error)) from error


def machine_for(config: RunConfig) -> str:
    """The name of the backend that a new run will use, if that computes in the run's precision.

    Raises:
        UsageError: it does not, or it cannot run here.
    """
    name = choose_backend(config.backend)
    if name == "numpy" and config.precision in ON_DEVICES:
        reason = "--backend numpy computes on the CPU; leave one of them out"
        if config.backend == "auto":
            reason = f"the cupy backend cannot run: {backends.available()['cupy']}; or leave --precision out"
        raise UsageError(f"--precision {config.precision} needs a GPU, and {reason}")
    check_devices(config.replace(backend=name))
    return name


def check_devices(config: RunConfig) -> None:
    """Raise a UsageError unless as many GPUs can share a run's batches as it asks for."""
    if config.devices == 1:
        return
    if config.task is not None:
        raise UsageError(f"fine-tuning takes one GPU; leave --devices {config.devices} out")
    if config.backend == "numpy":
        raise UsageError(f"--devices {config.devices} is of GPUs, and the run is on the CPU; leave it out")
    if config.devices > (there := backends.get(config.backend).devices()):
        raise UsageError(f"--devices is {config.devices}, and there are {there} GPUs; lower it")
    if config.devices > config.batch_size:
        raise UsageError(f"--devices ({config.devices}) is more than --batch-size ({config.batch_size}); lower it")


def _origin(config: RunConfig) -> tuple[RunConfig, rundir.Run]:
    """The settings and the directory of the run that a new one starts from."""
    run = rundir.open_run(config.init_from)
    stored = run.config()
    return stored.replace(mode=stored.mode or "decoder"), run


def _checked(model: dict[str, Any]) -> dict[str, Any]:
    """A model's settings, a copy, each of the right kind and not absurdly large."""
    for field in dataclasses.fields(ModelConfig):
        value = model.get(field.name)
        kind = {"int": int, "float": (int, float), "bool": bool, "str": str}[str(field.type).removesuffix(" | None")]
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if value is not None and wrong:
            raise UsageError(f"{field.name} in [model] should be of type {field.type}, and is {value!r}")
        most = MOST_LAYERS if field.name in ("layers", "decoder_layers") else MOST_SIZE
        if value is not None and kind is int and value > most:
            raise UsageError(f"{field.name} must be at most {most}, and is {value}")
    return dict(model)


def _fitting(config: RunConfig, shape: ModelConfig) -> ModelConfig:
    """The shape, if a run's objective can train it."""
    if config.objective == "next-sentence" and not (shape.next_sentence and shape.segments >= SEGMENTS):
        raise UsageError(
            "--objective next-sentence needs a model with a next-sentence head and segments, and this one lacks them; "
            "use --objective masked"
        )
    return shape
