"""Whole directories: a model read from one of Hugging Face's, a run made of it, and a run written as one.

Read before: `llama.py`, `tokenizer.py`, `tinyformer/training/rundir.py`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files, models
from ..errors import TinyformerError, UsageError
from ..text import Tokenizer, load_tokenizer
from ..training import checkpoint, choices, data, finetuning, rundir, tensorfile
from ..training.config import RunConfig
from ..training.fingerprint import fingerprint
from ..training.outline import Unallocated
from . import heads
from . import tokenizer as tokenizers
from .bert import BERT
from .family import Family, Options
from .gpt2 import GPT2
from .llama import ARCEE, LLAMA
from .roformer import ROFORMER
from .t5 import T5
from .table import check, fill, to_theirs
from .weights import SINGLE, Weights, read_json

FAMILIES = {family.model_type: family for family in (GPT2, BERT, ROFORMER, T5, LLAMA, ARCEE)}
CONFIG = "config.json"

Warn = Callable[[str], None]


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def is_directory(path: Path) -> bool:
    """Whether this is a Hugging Face directory, and no run."""
    return (path / CONFIG).is_file() and not (path / "config.toml").exists()


def read_model(path: str | Path, *, backend: str = "auto", warn: Warn = _warn) -> models.Model:
    """The model in a Hugging Face directory of one of `FAMILIES`, in float32.

    Args:
        path: of the directory, with config.json and safetensors weights.
        backend: where the model shall live.
        warn: told, in a sentence, what is left out or starts fresh, and of a prefix.

    Raises:
        UsageError: the architecture or one of its options is not supported, or a file is not there.
        TinyformerError: a file is damaged, or a tensor is missing or does not fit.
    """
    path = Path(path)
    family, options = _family(path)
    weights = Weights(path)
    config = family.config(options, weights)
    for remark in family.remarks(options):
        warn(f"{path}: {remark}")
    if prefix := _prefix(options):
        warn(f"{path}: the model wants {prefix!r} before each text, and so has to whoever uses it")
    if max(config.layers, config.decoder_layers or 0) > len(weights.names):
        raise TinyformerError(f"{path}: {CONFIG} asks for {config.layers} layers, and the weights are of fewer")
    rows, find = family.rows(config), family.finder(weights)
    outline = models.make(config, Unallocated())  # so that a wrong size costs no memory
    check({name: parameter.shape for name, parameter in outline.parameters().items()}, rows, weights, find)
    if fresh := sorted({row.ours for row in rows} - {row.ours for row in rows if find(row.theirs)}):
        warn(f"{path} lacks {', '.join(fresh)}: they start fresh, and mean nothing before they are trained")
    if spare := family.leftover(weights, {find(row.theirs) for row in rows}):
        some = ", ".join(spare[:3]) + (f" and {len(spare) - 3} more" if len(spare) > 3 else "")
        warn(f"{path} holds what {family.title} here has no use for, and is left out: {some}")
    model = models.build(config, backend=choices.choose_backend(backend), seed=0 if fresh else None)
    fill(model, rows, weights, find)
    return model


def import_run(path: str | Path, out: str | Path, *, warn: Warn = _warn) -> rundir.Run:
    """Make a run out of a Hugging Face directory: to write with, to evaluate, and to train on from.

    Args:
        path: of the directory, with a tokenizer, too.
        out: of the run; new or empty.
        warn: as for `read_model`.

    Raises:
        UsageError: as `read_model`; or `out` is not empty, or there is no tokenizer that can be read.
        TinyformerError: as `read_model`; or the run cannot be written.
    """
    path, out = Path(path), Path(out)
    _family(path)  # what is none of ours is told before anything is made
    with rundir.new_run(out, path, "model") as run:
        model = read_model(path, backend="numpy", warn=warn)
        write_run(run, model, tokenizers.read(path, model.config.vocabulary))
    return run


def prospects(path: str | Path) -> tuple[bool, str]:
    """What can be done with what a Hugging Face directory holds of a model.

    Args:
        path: of a directory that `read_model` reads.

    Returns:
        Whether it says anything before it is fine-tuned. A model that was saved with a head for a task does not, for
        the head is left out, nor does an encoder without the head that tells words. And what goes before each text.
    """
    family, options = _family(Path(path))
    weights = Weights(Path(path))
    find, rows = family.finder(weights), family.rows(family.config(options, weights))
    whole = all(find(row.theirs) for row in rows if row.ours.startswith("head."))
    return whole and not heads.is_headed(options), _prefix(options)


def write_run(run: rundir.Run, model: models.Model, tokenizer: Tokenizer) -> None:
    """Make a new run of a model that was not trained here.

    Args:
        run: from `rundir.new_run`.
        model: in float32, on the host.
        tokenizer: the model's.

    Raises:
        TinyformerError: it cannot be written.
    """
    tokenizer.save(run.tokenizer_file)
    shape = dataclasses.asdict(model.config)
    mode, name = shape.pop("mode"), os.path.abspath(run.tokenizer_file)
    config = RunConfig(mode=mode, model=shape, tokenizer=name)
    state = {
        "seed": config.seed,
        "tokens_seen": 0,
        "failures": 0,
        "validation": {},
        "config_digest": config.digest,
        "fingerprint": fingerprint("numpy", 1),
    }
    run.checkpoints.mkdir()
    arrays = {name: parameter.array for name, parameter in model.parameters().items()}
    checkpoint.save(run.checkpoints, 0, arrays, {}, state)
    run.write_config(config)


def export_run(path: str | Path, out: str | Path, *, warn: Warn = _warn) -> tuple[Family, str]:
    """Write a run as a Hugging Face directory, which transformers opens.

    A run that was fine-tuned goes out with its head, its labels, and a tokenizer that lays texts out as it read them.

    Args:
        path: of the run, or of one of its checkpoints.
        out: the directory; new or empty. It appears whole or not at all.
        warn: told of checkpoints that are damaged and were passed over, of characters that the tokenizer lacks, of
            weights that have no place there, and of a prefix.

    Returns:
        The family that the model is of, and the class of transformers that opens it.

    Raises:
        UsageError: the model is of no family, or `out` is not empty.
        TinyformerError: the run cannot be read, or the directory not be written.
    """
    run, out = rundir.open_run(path), Path(os.path.realpath(out))  # "." has no name to put a directory under
    if out.exists() and not (out.is_dir() and not os.listdir(out)):
        raise UsageError(f"{out} exists and is not empty; choose a new --out")
    if out == Path.cwd():
        raise UsageError("--out is the directory that you are in, which a whole one would replace; name one inside it")
    settings = run.config()
    config = data.model_config(settings)
    family = family_of(config)
    weights = checkpoint.load_weights(path, on_damage=warn)[0]
    tokenizer = load_tokenizer(run.tokenizer_file)
    headed = settings.task not in (None, "text2text")
    if headed and config.mode == "decoder":
        tokenizer, config, weights = heads.with_padding(tokenizer, config, weights)
    options = options_for(family, config, tokenizer) | {"dtype": settings.dtype}
    rows = family.rows(config)
    if headed:
        task = finetuning.open_task(run, settings)
        options |= heads.options(family, task.name, task.labels)
        rows = heads.rows(family, config, task.name)
        if task.name == "regress":
            weights = heads.in_units(weights, task.mean, task.deviation)
    elif gone := sorted(weights.keys() - {row.ours for row in rows}):
        warn(f"transformers' {family.title} has no place for {', '.join(gone)}, which are left out")
    if settings.prefix:
        options["prefix"] = settings.prefix
        warn(f"{path} puts {settings.prefix!r} before each text, and so has to whoever uses {out}")
    contents = {name: [_json(content)] for name, content in tokenizers.write(tokenizer, config, headed=headed).items()}
    arrays = to_theirs(rows, weights) | family.constants(config)
    contents |= {CONFIG: [_json(options)], SINGLE: tensorfile.encode(arrays, metadata={"format": "pt"})}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.WriteError(f"cannot create {out.parent}: {files.reason(error)}; choose another --out") from error
    files.write_directory(out, contents, alone=False)
    if remark := tokenizers.remark(tokenizer):
        warn(remark)
    return family, options["architectures"][0]


def family_of(config: models.ModelConfig) -> Family:
    """The family that a model of ours is of.

    Raises:
        UsageError: none; the message names the choices in which it differs from the nearest.
    """
    wrong = {name: family.differences(config) for name, family in FAMILIES.items()}
    nearest = min(wrong, key=lambda name: (FAMILIES[name].choices["mode"] != config.mode, len(wrong[name])))
    if wrong[nearest]:
        raise UsageError(
            f"transformers has no such model; the nearest is {FAMILIES[nearest].title}, which does not have "
            f"{' or '.join(wrong[nearest])}"
        )
    return FAMILIES[nearest]


def options_for(family: Family, config: models.ModelConfig, tokenizer: Any) -> dict[str, Any]:
    """The content of config.json for a model of ours, with the ids that generating needs."""
    return family.config_json(config) | tokenizers.special_ids(tokenizer, config.mode)


def _json(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _prefix(options: Options) -> str:
    found = options.get("prefix")
    return found if isinstance(found, str) else ""


def _family(path: Path) -> tuple[Family, Options]:
    """The family of a directory, and its config.json.

    Raises:
        UsageError: there is none, or it is of a family that is not known.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is no directory; name one with {CONFIG} and {SINGLE}")
    if not (path / CONFIG).is_file():
        raise UsageError(f"{path} has no {CONFIG}, so it is no Hugging Face directory")
    options = read_json(path / CONFIG)
    kind = options.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(f"{family.title} ({name!r})" for name, family in FAMILIES.items())
        raise UsageError(f"{path} holds a model of type {kind!r}; known are {known}")
    return FAMILIES[kind], options
