"""What outlasts the process: how far a run has come, put into checkpoints and its log, and taken back from them.

A checkpoint holds the weights, AdamW's running means and the counts; all else is a function of these and of
(seed, step).

Read before: `checkpoint.py`, `runlog.py`, `fingerprint.py`, `events.py`. Read next: `loop.py`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import TinyformerError
from ..files import WriteError
from ..files import reason as reason_of
from . import checkpoint, runlog
from .config import RunConfig
from .events import Reporter, warn
from .fingerprint import differences, fingerprint
from .optimizer import AdamW, FlatParameters
from .rundir import Run


class RunState:
    """How far a run has come, in memory and on disk.

    Args:
        run: where everything is kept.
        config: with everything chosen.
        model: whose weights are saved.
        flat: its parameters that are trained.
        optimizer: whose running means are saved.
        threads: that share the work of a step; the last bits depend on their number.
        log: takes the lines.
        reporter: takes the events.

    Attributes:
        step: the last one that is done.
        tokens: read in training so far.
        failures: steps in a row that updated nothing.
        validation: the newest figures.
        best: the figures that the weights in `best/` reached; empty where there are none.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        model: Any,
        flat: FlatParameters,
        optimizer: AdamW,
        threads: int,
        log: runlog.RunLog,
        reporter: Reporter,
    ) -> None:
        self.step, self.tokens, self.failures = 0, 0, 0
        self.validation: dict[str, Any] = {}
        self.best: dict[str, Any] = {}
        self._run, self._config, self._threads = run, config, threads
        self._model, self._flat, self._optimizer = model, flat, optimizer
        self._log, self._report = log, reporter
        self._log_trouble = ""
        self._saved = -1  # the step of the newest checkpoint

    def append(self, line: dict[str, Any]) -> None:
        """Put a line into the log; warn once while that cannot be written."""
        self._note(self._log.append(line))

    def start_from(self, path: str) -> None:
        """Take over the weights of another run, from its newest good checkpoint.

        Args:
            path: its directory, or one of its checkpoints.

        Raises:
            TinyformerError: no checkpoint is in order, or the weights do not fit.
        """
        weights, _ = checkpoint.load_weights(path, on_damage=lambda message: warn(self._report, message))
        weights = {name: array.astype(self._config.dtype, copy=False) for name, array in weights.items()}
        weights = checkpoint.of_body(weights)
        own = self._model.values()
        if any(name.startswith(checkpoint.BODY) for name in own):  # a head is new
            weights = {checkpoint.BODY + name: array for name, array in weights.items()}
            weights |= {name: array for name, array in own.items() if not name.startswith(checkpoint.BODY)}
        checkpoint.check_names(own, weights, Path(path))
        self._model.assign(weights)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take over weights, running means and counts from a checkpoint, and cut the log back to its step.

        Raises:
            DamagedFile: it is not for this model; the log is as it was.
            WriteError: the shorter log cannot be written.
        """
        means = self._means()
        checkpoint.check_names(self._model.values(), saved.model, saved.path / checkpoint.MODEL)
        checkpoint.check_names(means, saved.optimizer, saved.path / checkpoint.OPTIMIZER)
        self._model.assign(saved.model)
        for name, mean in means.items():
            mean[...] = self._flat.backend.from_host(saved.optimizer[name])
        state = saved.state
        validation = state["validation"] and {"step": saved.step} | state["validation"]  # early versions named no step
        if validation.get("step", 0) > saved.step:  # the run failed after it, and went back to this step
            validation = {"step": saved.step}
        self._log.cut_back(saved.step, validation.get("step", 0))
        if self._config.task is not None:
            self._find_best()
        self.step = self._saved = saved.step
        self.tokens, self.failures = state["tokens_seen"], state["failures"]
        self.validation = validation
        if state["config_digest"] != self._config.digest and state["format"] == checkpoint.FORMAT:
            warn(self._report, f"{self._run.config_file} was changed by hand since the checkpoint was saved")
        now = self._fingerprint()
        if different := differences(state["fingerprint"], now):
            warn(self._report, different)

    def save(self) -> None:
        """Write a checkpoint of the present state, unless there is one.

        Raises:
            WriteError: it could not be written; those before it are untouched.
            TinyformerError: the weights are not finite, and so not worth keeping.
        """
        if self._saved == self.step:
            return
        xp, values = self._flat.backend, self._flat.values
        if not bool(xp.isfinite(xp.max(values)) & xp.isfinite(xp.min(values))):  # in no memory; both hand on a NaN
            good = f"the last good state is that of step {self._saved}"
            raise TinyformerError(f"the weights are no longer finite at step {self.step}; {good}")
        self._note(self._log.sync())
        means = {name: xp.to_host(mean) for name, mean in self._means().items()}
        path = checkpoint.save(
            self._run.checkpoints, self.step, self._weights(), means, self._state(), good=self._saved
        )
        self._saved = self.step
        self._report({"event": "saved", "step": self.step, "path": str(path)})

    def note_validation(self) -> None:
        """Tell the checkpoint of this step of a validation that it lacked, or let the next resume make it again."""
        self._note(self._log.sync())
        try:
            checkpoint.note(self._run.checkpoints, self.step, self._figures())
        except TinyformerError as error:
            warn(self._report, f"{error}; when the run goes on, the validation is made again")

    def try_to_save(self) -> None:
        """Save, or go on training from memory: a disk that is full now may not be at the next checkpoint."""
        try:
            self.save()
        except WriteError as error:
            warn(self._report, f"{error}; training goes on, and the next checkpoint will be tried as usual")

    def save_at_the_end(self) -> None:
        """Save, or say what is left to go on from.

        Raises:
            WriteError: as `save`.
            TinyformerError: as `save`.
        """
        try:
            self.save()
        except WriteError as error:
            way = f"then go on from step {self._saved}, the newest saved: {self._run.resume_command}"
            raise WriteError(f"{error}; {way}") from error

    def keep_best(self, measure: str | None) -> None:
        """Keep the weights in `best/`, if they are better than those there by a figure of the newest validation.

        Args:
            measure: its name; more is better, and where it is the same, a lower loss. None keeps nothing.
        """
        found = self._figures()
        if measure is None or "loss" not in found:
            return
        new, old = ((of.get(measure, -math.inf), -of.get("loss", math.inf)) for of in (found, self.best))
        if self.best and new <= old:
            return
        try:
            self._run.best.mkdir(exist_ok=True)
            checkpoint.save(self._run.best, self.step, self._weights(), {}, self._state(), good=self.step)
        except (WriteError, OSError) as error:
            reason = error if isinstance(error, WriteError) else f"cannot write {self._run.best}: {reason_of(error)}"
            warn(self._report, f"{reason}; training goes on, and {self._run.best} keeps what it has")
            return
        self.best = found

    def take_best(self) -> bool:
        """Put the weights of `best/` into the model, for good. False where there are none."""
        if not self.best:
            return False
        if (saved := self._find_best()) is not None:
            self._model.assign(saved.model)
        return saved is not None

    def _find_best(self) -> checkpoint.Checkpoint | None:
        """What `best/` holds, if it is of this model and in order; its figures are taken note of."""
        self.best = {}
        saved = checkpoint.best(self._run.best, on_damage=lambda message: warn(self._report, message))
        if saved is None:
            return None
        try:
            checkpoint.check_names(self._model.values(), saved.model, saved.path / checkpoint.MODEL)
        except TinyformerError as error:
            warn(self._report, f"the best weights are lost: {error}")
            return None
        self.best = saved.state["validation"]
        return saved

    def _weights(self) -> dict[str, Any]:
        """All of the model, on the host."""
        xp = self._flat.backend
        return {name: xp.to_host(array) for name, array in self._model.values().items()}

    def _figures(self) -> dict[str, float]:
        """Those of the newest validation that a file can hold."""
        return {name: figure for name, figure in self.validation.items() if math.isfinite(figure)}

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside arrays."""
        return {
            "seed": self._config.seed,
            "tokens_seen": self.tokens,
            "failures": self.failures,
            "validation": self._figures(),
            "config_digest": self._config.digest,
            "fingerprint": self._fingerprint(),
        }

    def _means(self) -> dict[str, Any]:
        """AdamW's running means by the names they have in a checkpoint."""
        first, second = self._flat.views(self._optimizer.first), self._flat.views(self._optimizer.second)
        return {f"first.{name}": mean for name, mean in first.items()} | {
            f"second.{name}": mean for name, mean in second.items()
        }

    def _fingerprint(self) -> dict[str, str]:
        config = self._config
        return fingerprint(config.backend, self._threads, config.precision, config.devices)

    def _note(self, trouble: str) -> None:
        """Warn once while the log cannot be written."""
        if trouble and not self._log_trouble:
            warn(self._report, trouble)
        self._log_trouble = trouble
