"""Checkpoints: everything a run needs to go on as if it had never stopped, and nothing that runs code.

    checkpoints/step-000500/model.safetensors      the weights, by name
                            optimizer.safetensors  AdamW's running means, `first.NAME` and `second.NAME`
                            state.json             the step, what the run has seen, checksums of the other two

A checkpoint appears whole or not at all (`tinyformer/files.py`), the last two good ones are kept, and each carries
checksums. So one that is damaged later is noticed when it is read, and the one before takes its place. Batch order and
dropout are functions of (seed, step), so there is no other state.

Read before: `step.py`, `tinyformer/files.py`, `tensorfile.py`. Read next: `rundir.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import TinyformerError
from . import tensorfile
from .tensorfile import DamagedFile

FORMAT = 2  # in 1, a decoder's stack had no name of its own
BODY = "body."  # begins the names of a pretrained model's parameters, where a head for a task stands beside it
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_MOST_STATE = 1 << 18  # bytes
_AGAIN = "; start the training again"
_STATE = {
    "step": int,
    "seed": int,
    "tokens_seen": int,
    "failures": int,
    "validation": dict,
    "config_digest": str,
    "fingerprint": dict,
    "sha256": dict,
}
_NAME = re.compile(r"step-(\d{6,18})")
_RENAMED = {  # what names of format 1, with or without `first.` or `second.`, are now
    r"^((?:first|second)\.)?(blocks|norm|positions)\.": r"\1stack.\2.",
    r"^((?:first|second)\.)?head\.weight$": r"\1head.output.weight",
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What was read from one checkpoint.

    Attributes:
        path: its directory.
        step: updates of the weights so far.
        state: the content of state.json.
        model: the weights, by name: pages of the file, see `tensorfile.read`.
        optimizer: the running means, `first.NAME` and `second.NAME`, likewise; empty where they were not asked for.
    """

    path: Path
    step: int
    state: dict[str, Any]
    model: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]


def save(
    directory: Path,
    step: int,
    model: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    good: int | None = None,
) -> Path:
    """Write a checkpoint durably, then remove all but it and the good one before it.

    Args:
        directory: of the run's checkpoints, which exists.
        step: updates of the weights so far.
        model: the weights by name, NumPy arrays; not copied, so they must not change meanwhile.
        optimizer: the running means, likewise.
        state: the rest of state.json: seed, tokens_seen, failures, validation, config_digest, fingerprint.
        good: step of the earlier one to keep: the last that the run wrote or read, and so knows to be in order. Any
            other may be damaged. None, or one of a later step, stands for the newest before `step`.

    Returns:
        The checkpoint's directory.

    Raises:
        WriteError: it could not be written. Those before it are untouched.
    """
    contents = {MODEL: tensorfile.encode(model), OPTIMIZER: tensorfile.encode(optimizer)}
    checksums = {name: _checksum(pieces) for name, pieces in contents.items()}
    sealed = {"format": FORMAT, "step": step, **state, "sha256": checksums}
    sealed["seal"] = _seal(sealed)
    path = directory / f"step-{step:06d}"
    files.write_directory(path, contents | {STATE: [json.dumps(sealed, indent=2).encode()]})
    with contextlib.suppress(OSError):  # it is saved; an old one that cannot be removed now is removed next time
        others = _steps(directory)
        if good is None or good > step:
            good = next((other for other in others if other < step), step)
        for other, old in others.items():
            if other not in (step, good):
                files.remove_directory(old)
    return path


def note(directory: Path, step: int, validation: Mapping[str, float]) -> None:
    """Put the figures of a validation into the checkpoint of a step, whose arrays are not touched.

    Args:
        directory: of the run's checkpoints.
        step: of one that is in order.
        validation: takes the place of the figures there.

    Raises:
        WriteError: it could not be written, and is as it was.
        DamagedFile: the checkpoint is not in order.
    """
    path = directory / f"step-{step:06d}" / STATE
    sealed = _read_state(path) | {"validation": dict(validation)}
    sealed["seal"] = _seal(sealed)
    with files.replacing(path) as file:
        file.write(json.dumps(sealed, indent=2).encode())


def load(path: Path, *, optimizer: bool = True) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: its directory.
        optimizer: whether to read the running means too.

    Raises:
        DamagedFile: a file is missing, damaged, or not the one that was saved; the message names it.
    """
    state = _read_state(path / STATE)
    name = _NAME.fullmatch(path.name)
    if name and int(name[1]) != state["step"]:
        raise DamagedFile(f"{path / STATE} is damaged: it is of step {state['step']}")
    tensors = {}
    for name in (MODEL, OPTIMIZER) if optimizer else (MODEL,):
        try:
            with files.open_regular(path / name) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedFile(f"cannot read {path / name}: {files.reason(error)}") from error
        if found != state["sha256"][name]:
            raise DamagedFile(f"{path / name} is damaged: it has changed since it was saved")
        tensors[name] = tensorfile.read(path / name)
        if state["format"] == 1:
            tensors[name] = {_renamed(old): array for old, array in tensors[name].items()}
    return Checkpoint(path, state["step"], state, tensors[MODEL], tensors.get(OPTIMIZER, {}))


def newest(
    directory: Path, *, optimizer: bool = True, on_damage: Callable[[str], None] = lambda message: None
) -> Checkpoint:
    """Read the newest checkpoint that is in order.

    Args:
        directory: of the run's checkpoints.
        optimizer: whether to read the running means too.
        on_damage: told, in a sentence, about each newer one that had to be passed over.

    Raises:
        TinyformerError: there is none, or all are damaged, or the directory cannot be read.
    """
    try:
        steps = _steps(directory)
    except OSError as error:
        raise TinyformerError(f"cannot read {directory}: {files.reason(error)}") from error
    if not steps:
        raise TinyformerError(f"no checkpoint in {directory}{_AGAIN}")
    damages = []
    for path in steps.values():
        try:
            found = load(path, optimizer=optimizer)
        except DamagedFile as error:
            damages.append(str(error))
            continue
        for damage in damages:
            on_damage(f"{damage}; going on from {found.path.name}")
        return found
    more = f" (and {len(damages) - 1} more are damaged)" if len(damages) > 1 else ""
    raise TinyformerError(f"no checkpoint is in order: {damages[0]}{more}{_AGAIN}")


def best(directory: Path, *, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """Read the weights that a run has kept as its best ones. None where it has kept none yet, or they are lost.

    Args:
        directory: of the run's best checkpoint.
        on_damage: told, in a sentence, that they are lost.
    """
    try:
        return newest(directory, optimizer=False) if _steps(directory) else None
    except (TinyformerError, OSError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else str(error).removesuffix(_AGAIN)
        on_damage(f"the best weights are lost: {reason}")
        return None


def best_state(directory: Path) -> dict[str, Any] | None:
    """What state.json tells of those weights, without reading them. None where there are none in order."""
    for path in _steps(directory).values():
        with contextlib.suppress(DamagedFile):
            return _read_state(path / STATE)
    return None


def load_weights(
    path: str | Path, *, on_damage: Callable[[str], None] = lambda message: None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights of a run's newest good checkpoint, or of one checkpoint's directory, with its state.

    Of a run that keeps its best ones, those.

    Args:
        path: of the run or the checkpoint.
        on_damage: as for `newest`.

    Raises:
        TinyformerError: there is none, or it is damaged.
    """
    path = Path(path)
    is_one = _NAME.fullmatch(path.name) and not (path / "checkpoints").exists()
    if is_one:
        found = load(path, optimizer=False)
        return found.model, found.state
    found = best(path / "best", on_damage=lambda message: on_damage(f"{message}; these are the newest"))
    found = found or newest(path / "checkpoints", optimizer=False, on_damage=on_damage)
    return found.model, found.state


def of_body(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a pretrained model alone, without a head for a task that stands beside it."""
    found = {name.removeprefix(BODY): array for name, array in weights.items() if name.startswith(BODY)}
    return found or weights


def check_names(expected: Mapping[str, Any], found: Mapping[str, Any], path: Path) -> None:
    """Hold the arrays of a file to those that a model has.

    Args:
        expected: arrays or tensors by name; shapes and dtypes count.
        found: what the file holds.
        path: named in the message.

    Raises:
        DamagedFile: a name is missing or unknown, or a shape or dtype differs.
    """
    for name, tensor in expected.items():
        if name not in found:
            close = difflib.get_close_matches(name, found.keys() - expected.keys(), n=1)
            hint = f" (it has {close[0]!r})" if close else ""
            raise DamagedFile(f"{path} is not for this model: it lacks {name!r}{hint}")
        wanted, given = _kind(tensor), _kind(found[name])
        if wanted != given:
            what = f"{name!r} is {given} there, and should be {wanted}"
            raise DamagedFile(f"{path} is not for this model: {what}")
    for name in found:
        if name not in expected:
            raise DamagedFile(f"{path} is not for this model, which has no {name!r}")


def _renamed(name: str) -> str:
    """The present name of a parameter, or of a running mean of it, in a checkpoint of format 1."""
    for old, new in _RENAMED.items():
        name = re.sub(old, new, name)
    return name


def _kind(array: Any) -> str:
    return f"{array.dtype} {tuple(array.shape)}"


def _steps(directory: Path) -> dict[int, Path]:
    """The checkpoints of a directory, the newest first; none where there is no directory. Raises OSError."""
    try:
        found = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    except FileNotFoundError:
        return {}
    return dict(sorted(((int(match[1]), path) for match, path in found), reverse=True))


def _checksum(pieces: Iterable[bytes | memoryview]) -> str:
    checksum = hashlib.sha256()
    for piece in pieces:
        checksum.update(piece)
    return checksum.hexdigest()


def _seal(state: dict[str, Any]) -> str:
    """A checksum of the state itself."""
    return hashlib.sha256(json.dumps(state, allow_nan=False).encode()).hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(files.read_file(path, _MOST_STATE))
        if not isinstance(state, dict) or "sha256" not in state:
            raise ValueError("it is not the state of a checkpoint")
        if state.get("format") not in (1, FORMAT):
            raise ValueError("it was written by another version of tinyformer")
        if state.pop("seal", None) != _seal(state):
            raise ValueError("it has changed since it was saved")
        wrong = [name for name, kind in _STATE.items() if type(state.get(name)) is not kind]
        if wrong or not {MODEL, OPTIMIZER} <= state["sha256"].keys():
            raise ValueError(f"it is incomplete: {', '.join(wrong) or 'sha256'}")
        if not 0 <= state["failures"] <= state["step"] or state["tokens_seen"] < 0:
            raise ValueError("its step, failures or tokens_seen is impossible")
        if not all(type(figure) in (int, float) for figure in state["validation"].values()):
            raise ValueError("its validation should hold numbers")
    except OSError as error:
        raise DamagedFile(f"cannot read {path}: {files.reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
    return state
