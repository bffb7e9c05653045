"""The loop: a batch, its gradient, the update; at intervals a line of log, a validation, a sample, a checkpoint.

Each step is a function of the weights, the running means and (seed, step), so a run that was interrupted
and resumed ends with the same bits as one that was not.

Read before: `step.py`, `saving.py`, `data.py`, `outline.py`. Read next: `trainer.py`, which sets everything up.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from ..analysis.machine import gemm_rate
from ..errors import TinyformerError
from ..models import learning_rate_factors
from . import outline, runlog, samples
from .checkpoint import BODY
from .config import RunConfig
from .data import Corpus, bits, tokens_read
from .device_step import DeviceStep
from .devices import SharedStep
from .events import Reporter, warn
from .optimizer import AdamW, FlatParameters
from .rundir import Run
from .saving import RunState
from .schedule import learning_rate
from .signals import Stopped, StopRequest
from .step import HostStep, Outcome, Workers

MOST_FAILURES = 3  # steps in a row without a finite loss and gradient, before the run gives up
MOST_ALIKE = 0.75  # share of the pairs of one kind, above which next-sentence prediction teaches little
LONG_ENOUGH = 5.0  # seconds of steps, from which their speed is compared with that of the machine


class Trainer:
    """A run in memory: the loop and what it does at intervals.

    Args:
        run: where everything is kept.
        config: with everything chosen.
        corpus: the text.
        model: fresh.
        workers: share the work of a step.
        log: takes the lines.
        reporter: takes the events.
        stop: whether a signal came.

    Attributes:
        progress: how far the run has come, and what saves and restores it.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        corpus: Corpus,
        model: Any,
        workers: Workers,
        log: runlog.RunLog,
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        self.run, self.config, self.corpus, self.model = run, config, corpus, model
        self._workers, self._report, self._stop = workers, reporter, stop
        device, trained = config.backend != "numpy", _trained(model, corpus.objective)
        working = "bfloat16" if device and config.precision == "bfloat16" else None
        flat = self._flat = FlatParameters(trained, _rates(model), working=working)
        if working is not None:
            model.masters = flat.views(flat.values)
        self._optimizer = AdamW.of(
            flat,
            beta1=config.beta1,
            beta2=config.beta2,
            epsilon=config.epsilon,
            weight_decay=config.weight_decay,
        )
        self._rounding = "tf32" if config.precision == "tf32" else "float32"
        parts = model, corpus.objective, flat, self._optimizer
        settings = {"micros": config.grad_accumulation, "clip": config.clip, "seed": config.seed}
        if device:
            settings |= {"rounding": self._rounding, "warn": functools.partial(warn, reporter)}
        if config.devices > 1:
            self._step = SharedStep(*parts, devices=config.devices, **settings)
        else:
            self._step = DeviceStep(*parts, **settings) if device else HostStep(*parts, workers, **settings)
        self._ahead: tuple[int, Any] = (0, None)  # a step, and what was prepared for it
        self.progress = RunState(run, config, model, flat, self._optimizer, workers.count, log, reporter)

    def announce(self) -> None:
        """Report what is about to be trained, on what, and which losses to compare with."""
        facts = outline.facts(self.config, self.model.config, self.corpus)
        self._report({"event": "start", "run": str(self.run.path), "step": self.progress.step, **facts})
        if (share := facts.get("next_sentence_chance", 0.0)) > MOST_ALIKE:
            warn(
                self._report,
                f"{share:.0%} of the pairs are of one kind, as lines are taken for sentences and most rows find one "
                "between blank lines; put sentences on lines of their own, give a longer --context, or use "
                "--objective masked",
            )

    def go(self) -> dict[str, Any]:
        """Train up to the last step. Returns the "end" event."""
        config, began, first = self.config, time.perf_counter(), self.progress.step
        self._stop.answer = "stopping after this step or batch, then saving"
        if self._lacks_validation():
            self._validate(first == config.steps)
            self.progress.note_validation()
        elif first == config.steps:
            warn(self._report, _all_done(first, self.corpus.epoch_steps))
        outcome, busy, tokens, busy_before = None, 0.0, 0.0, 0.0
        for step in range(first + 1, config.steps + 1):
            last, step_began = step == config.steps, time.perf_counter()
            rate = self._rate(step)
            outcome, read = self._one_step(step, rate)
            busy, tokens = busy + time.perf_counter() - step_began, tokens + read
            left = (time.perf_counter() - began) / (step - first) * (config.steps - step)
            self._report({"event": "step", "step": step, "steps": config.steps, "seconds_left": left})
            if step == 1 or step % config.log_every == 0 or last or not outcome.updated:
                self._tell_training(step, outcome, rate, tokens / busy, left)
                busy, tokens, busy_before = 0.0, 0.0, busy_before + busy
            self._heed_failure(step, outcome, rate)
            if last or step % config.eval_every == 0:
                self._validate(last)
            stopping = 0 if last else self._stop.number
            if last or stopping:
                self.progress.save_at_the_end()
            elif step % config.save_every == 0:
                self.progress.try_to_save()
            if stopping:
                raise self._stopped()
            if config.sample_every and (last or step % config.sample_every == 0):
                self._sample()  # when everything is saved, so that nothing that fails here costs anything
        event = {
            "event": "end",
            "run": str(self.run.path),
            "step": self.progress.step,
            "loss": outcome.loss if outcome else None,
            "validation": self.progress.validation | self.corpus.baselines,
            "validation_loss": self.progress.validation.get("loss"),
            "validation_bits_per_byte": self.progress.validation.get("bits_per_byte"),
            "seconds": time.perf_counter() - began,
            **self._speed(config.steps - first, busy_before),  # the last step is told of
            "next": samples.next_command(self.corpus, str(self.run.path)),
            **self._best(),
        }
        self._report(event)
        return event

    def try_out(self) -> dict[str, Any]:
        """Make one step. Returns the "end" event."""
        began = time.perf_counter()
        outcome, tokens = self._one_step(1, self._rate(1))
        seconds = time.perf_counter() - began
        self._tell_training(1, outcome, self._rate(1), tokens / seconds, 0.0)
        end = {"event": "end", "run": None, "step": 1, "loss": outcome.loss, "seconds": seconds, "next": None}
        self._report(end)
        return end

    def _one_step(self, step: int, rate: float) -> tuple[Outcome, int]:
        """What the step did, and how many tokens it read."""
        read, prepared = self._ahead[1] if self._ahead[0] == step else self._prepare(step)
        self._step.start(prepared, learning_rate=rate, step=step)
        if self._step.ahead and step < self.config.steps:
            try:
                self._ahead = step + 1, self._prepare(step + 1)
            except Exception:  # which comes again when it is that step's turn, and this one is not lost
                self._ahead = 0, None
        outcome = self._step.finish()
        progress = self.progress
        progress.step, progress.failures = step, 0 if outcome.updated else progress.failures + 1
        progress.tokens += read if outcome.updated else 0
        return outcome, read

    def _prepare(self, step: int) -> tuple[int, Any]:
        """How many tokens a step reads, and what it needs of its batch."""
        config = self.config
        batch = self.corpus.batch(1 if config.overfit_one_batch else step, config.rows_per_step)
        return tokens_read(batch), self._step.prepare(batch, step)

    def _rate(self, step: int) -> float:
        config = self.config
        # Counted from 1 and to one past the end, so that neither the first nor the last step has a rate of 0.
        return learning_rate(
            step,
            peak=config.learning_rate,
            steps=config.steps + 1,
            warmup=config.warmup,
            schedule=config.schedule,
            minimum_ratio=config.minimum_ratio,
        )

    def _tell_training(self, step: int, outcome: Outcome, rate: float, speed: float, left: float) -> None:
        figures = {
            "loss": outcome.loss,
            "learning_rate": rate,
            "gradient_norm": outcome.gradient_norm,
            "tokens_per_second": speed,
        }
        skipped = {} if outcome.updated else {"skipped": True}
        self.progress.append({"step": step, "split": "train", **figures, **skipped})
        per_byte = bits(self.corpus.per_byte(self.corpus.train, outcome.loss))
        more = {"steps": self.config.steps, "bits_per_byte": per_byte, "seconds_left": left}
        self._report({"event": "train", "step": step, **figures, **more})

    def _heed_failure(self, step: int, outcome: Outcome, rate: float) -> None:
        """Tell of a step that updated nothing; after several in a row, save the last good state and give up."""
        if outcome.updated:
            return
        warn(self._report, f"step {step}: the loss or gradient is not finite; the weights are left as they were")
        progress = self.progress
        if progress.failures < MOST_FAILURES:
            return
        progress.step, progress.failures = step - progress.failures, 0
        progress.save()
        raise TinyformerError(
            f"the loss was not finite in {MOST_FAILURES} steps in a row; the state of step {progress.step} is saved. "
            f"A lower rate or clip may help: {self.run.resume_command} "
            f"--learning-rate {float(f'{self.config.learning_rate / 3:.1g}'):g} --clip {self.config.clip / 2 or 1.0:g}"
        )

    def _validate(self, last: bool) -> None:
        """Measure the model as it is now, and keep it if it is the best.

        Raises:
            Stopped: a signal came. The step is saved, and its validation is made when the run goes on.
        """
        config = self.config
        step = self.progress.step
        trained = (step if last else config.eval_every) * config.rows_per_step
        settings = {"step": step, "rows": config.batch_size, "trained": trained, "last": last}
        try:
            with self._flat.backend.rounding(self._rounding):
                found, more = self.corpus.validate(self.model, self._workers, **settings, progress=self._validated)
        except Stopped:
            self.progress.save_at_the_end()
            raise
        found = self.progress.validation = {"step": step} | found
        self.progress.append({"step": step, "split": "validation", **found, "tokens": more["tokens"]})
        self._report({"event": "validation", **found, **self.corpus.baselines, **more})
        self.progress.keep_best(self.corpus.best)

    def _validated(self, done: int, total: int) -> None:
        """Tell how far a validation has come, and end it if a signal came."""
        self._report({"event": "validating", "step": self.progress.step, "done": done, "total": total})
        if self._stop.number and done < total:
            raise self._stopped()

    def _lacks_validation(self) -> bool:
        """Whether the run was stopped in a validation, which then is the next thing to do."""
        step, config = self.progress.step, self.config
        due = step % config.eval_every == 0 or step == config.steps
        return due and self.progress.validation.get("step", 0) < step

    def _stopped(self) -> Stopped:
        message = f"stopped and saved at step {self.progress.step}; go on with: {self.run.resume_command}"
        return Stopped(message, self._stop.number)

    def _best(self) -> dict[str, Any]:
        """What the model did best, where that is what a run is for: its weights take the place of the last ones."""
        if self.corpus.best is None:
            return {}
        self.progress.take_best()
        with self._flat.backend.rounding(self._rounding):
            report = self.corpus.report(
                self.model, self._workers, rows=self.config.batch_size, progress=self._validated
            )
        return self.corpus.baselines | {"best": self.progress.best, "report": report}

    def _speed(self, steps: int, seconds: float) -> dict[str, float | None]:
        """The rate of the matrix products that steps need, over all of their time, and the best of the processor."""
        if seconds < LONG_ENOUGH:
            return {"flops_per_second": None, "peak_flops_per_second": None}
        done = steps * outline.needed_flops(self.config, self.model.config, self.corpus)
        on_host = self.config.backend == "numpy"
        peak = gemm_rate(self._workers.count, dtype=self.config.dtype) if on_host else None
        return {"flops_per_second": done / seconds, "peak_flops_per_second": peak}

    def _sample(self) -> None:
        with self._flat.backend.rounding(self._rounding):
            found = samples.sample(self.corpus, self.model, self.config.seed + self.progress.step)
        self._report({"event": "sample", "step": self.progress.step, **found})


def _rates(model: Any) -> dict[str, float]:
    """Factors on the learning rate by the names that the parameters have here, be it a whole model or a body."""
    known = learning_rate_factors(model.config)
    return {name: known[own] for name in model.parameters() if (own := name.removeprefix(BODY)) in known}


def _trained(model: Any, objective: Any) -> dict[str, Any]:
    """The parameters that an objective's loss reaches; the others stay as they are, and do not decay either."""
    return {name: tensor for name, tensor in model.parameters().items() if not name.startswith(objective.unreached)}


def _all_done(steps: int, epoch: int | None) -> str:
    """What is told where nothing is left to do; with an example in epochs, where they are counted."""
    if epoch is None:
        return f"all {steps} steps are done already; give a larger --steps to train on"
    done, more = steps / epoch, steps // epoch + 2
    return (
        f"all {steps} steps ({round(done, 2):g} epoch{'s' * (done != 1)} of {epoch}) are done already; "
        f"--steps {more * epoch} makes it {more} epochs"
    )
