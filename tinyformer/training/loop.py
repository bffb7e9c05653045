"""The loop: a batch, its gradient, the update; at intervals a line of log, a validation, a sample, a checkpoint.

Each step is a function of the weights, the running means and (seed, step), so a run that was interrupted
and resumed ends with the same bits as one that was not. Nothing is printed here: what happens goes to a
`Reporter`.

Read before: `step.py`, `checkpoint.py`, `data.py`, `outline.py`. Read next: `trainer.py`, which sets everything up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..analysis.evaluation import figures
from ..errors import TinyformerError
from ..files import WriteError
from ..models import learning_rate_factors
from . import checkpoint, outline, runlog, samples
from .config import RunConfig
from .data import Corpus, bits, tokens_read
from .fingerprint import differences, fingerprint
from .optimizer import AdamW, FlatParameters
from .rundir import Run
from .schedule import learning_rate
from .signals import Stopped, StopRequest
from .step import Outcome, Workers, score, training_step

# Takes what happens, as dictionaries whose "event" is one of
#   prepare     done, total (bytes), what: while the text is read
#   start       parameters, objective, train_tokens ..., and figures to compare with: ln_v and unigram_entropy in nats
#               per token, unigram_accuracy
#   dry_run     the same, and shapes, parameters_by_part, flops_per_step, memory_per_step (bytes)
#   step        step, steps, seconds_left: after every step, for a live view only
#   train       step, steps, loss (nats per target token), bits_per_byte, learning_rate, gradient_norm,
#               tokens_per_second (read, of sources and targets), seconds_left
#   validation  step, tokens (targets), and the figures of `analysis.evaluation.figures`; for a decoder bits_per_byte
#               and loss_per_byte (nats), and to compare with unigram_accuracy, next_sentence_chance
#   sample      step, text, and what its brackets and lines mean: legend
#   saved       step, path
#   warning     message
#   end         run, step, loss, validation (figures), validation_loss, validation_bits_per_byte, seconds, next (a
#               command, or None)
# What a run has no figure for is None: bits per byte where not every token of the text is a target.
Reporter = Callable[[dict[str, Any]], None]

MOST_FAILURES = 3  # steps in a row without a finite loss and gradient, before the run gives up
VALIDATION_SHARE = 0.05  # of the time
MOST_ALIKE = 0.75  # share of the pairs of one kind, above which next-sentence prediction teaches little
SMALL_VALIDATION = 200_000  # tokens that the last validation takes in any case


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
        self._workers, self._log, self._report, self._stop = workers, log, reporter, stop
        self._flat = FlatParameters(_trained(model, corpus.objective), learning_rate_factors(model.config))
        self._optimizer = AdamW.of(
            self._flat,
            beta1=config.beta1,
            beta2=config.beta2,
            epsilon=config.epsilon,
            weight_decay=config.weight_decay,
        )
        self._step = 0  # the last one that is done
        self._saved = -1  # the step of the newest checkpoint
        self._tokens = 0  # read in training so far
        self._failures = 0  # steps in a row that updated nothing
        self._validation: dict[str, Any] = {}  # the newest figures
        self._log_trouble = ""

    def announce(self) -> None:
        """Report what is about to be trained, on what, and which losses to compare with."""
        facts = outline.facts(self.config, self.model.config, self.corpus)
        self._report({"event": "start", "run": str(self.run.path), "step": self._step, **facts})
        if (share := facts.get("next_sentence_chance", 0.0)) > MOST_ALIKE:
            warn(
                self._report,
                f"{share:.0%} of the pairs are of one kind, as texts have few line ends, which are taken for ends of "
                "sentences; put sentences on lines of their own, or give a longer --context",
            )

    def go(self) -> dict[str, Any]:
        """Train up to the last step. Returns the "end" event."""
        config, began, first = self.config, time.perf_counter(), self._step
        if first == config.steps:
            warn(self._report, f"all {first} steps are done already; give a larger --steps to train on")
        self._stop.answer = "stopping after this step, then saving"
        outcome, busy, tokens = None, 0.0, 0.0
        for step in range(first + 1, config.steps + 1):
            last, step_began = step == config.steps, time.perf_counter()
            rate = self._rate(step)
            outcome, read = self._one_step(step, rate)
            busy, tokens = busy + time.perf_counter() - step_began, tokens + read
            left = (time.perf_counter() - began) / (step - first) * (config.steps - step)
            self._report({"event": "step", "step": step, "steps": config.steps, "seconds_left": left})
            if step == 1 or step % config.log_every == 0 or last or not outcome.updated:
                self._tell_training(step, outcome, rate, tokens / busy, left)
                busy, tokens = 0.0, 0.0
            self._heed_failure(step, outcome, rate)
            if last or step % config.eval_every == 0:
                self._validate(last)
            stopping = 0 if last else self._stop.number
            if last or stopping:
                self._save_at_the_end()
            elif step % config.save_every == 0:
                self._try_to_save()
            if stopping:
                raise Stopped(f"stopped and saved at step {step}; go on with: {self.run.resume_command}", stopping)
            if config.sample_every and (last or step % config.sample_every == 0):
                self._sample()  # when everything is saved, so that nothing that fails here costs anything
        event = {
            "event": "end",
            "run": str(self.run.path),
            "step": self._step,
            "loss": outcome.loss if outcome else None,
            "validation": self._validation,
            "validation_loss": self._validation.get("loss"),
            "validation_bits_per_byte": self._validation.get("bits_per_byte"),
            "seconds": time.perf_counter() - began,
            "next": samples.next_command(self.corpus, str(self.run.path)),
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

    def start_from(self, path: str) -> None:
        """Take over the weights of another run, from its newest good checkpoint.

        Args:
            path: its directory, or one of its checkpoints.

        Raises:
            TinyformerError: no checkpoint is in order, or the weights do not fit.
        """
        weights, _ = checkpoint.load_weights(path, on_damage=lambda message: warn(self._report, message))
        weights = {name: array.astype(self.config.precision) for name, array in weights.items()}
        checkpoint.check_names(self.model.parameters(), weights, Path(path))
        self.model.assign(weights)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take over weights, running means and counts from a checkpoint, and cut the log back to its step.

        Raises:
            DamagedFile: it is not for this model; the log is as it was.
            WriteError: the shorter log cannot be written.
        """
        means = self._means()
        checkpoint.check_names(self.model.parameters(), saved.model, saved.path / checkpoint.MODEL)
        checkpoint.check_names(means, saved.optimizer, saved.path / checkpoint.OPTIMIZER)
        self.model.assign(saved.model)
        for name, mean in means.items():
            mean[...] = self._flat.backend.from_host(saved.optimizer[name])
        self._log.cut_back(saved.step)
        state = saved.state
        self._step = self._saved = saved.step
        self._tokens, self._failures = state["tokens_seen"], state["failures"]
        self._validation = state["validation"]
        if state["config_digest"] != self.config.digest and state["format"] == checkpoint.FORMAT:
            warn(self._report, f"{self.run.config_file} was changed by hand since the checkpoint was saved")
        now = fingerprint(self.config.backend, self._workers.count)
        if different := differences(state["fingerprint"], now):
            warn(self._report, different)

    def save(self) -> None:
        """Write a checkpoint of the present state, unless there is one.

        Raises:
            WriteError: it could not be written; those before it are untouched.
            TinyformerError: the weights are not finite, and so not worth keeping.
        """
        if self._saved == self._step:
            return
        xp = self._flat.backend
        if not bool(xp.all(xp.isfinite(self._flat.values))):
            good = f"the last good state is that of step {self._saved}"
            raise TinyformerError(f"the weights are no longer finite at step {self._step}; {good}")
        state = {
            "seed": self.config.seed,
            "tokens_seen": self._tokens,
            "failures": self._failures,
            "validation": {name: figure for name, figure in self._validation.items() if math.isfinite(figure)},
            "config_digest": self.config.digest,
            "fingerprint": fingerprint(self.config.backend, self._workers.count),
        }
        self._note(self._log.sync())
        model = {name: xp.to_host(tensor.array) for name, tensor in self.model.parameters().items()}
        means = {name: xp.to_host(mean) for name, mean in self._means().items()}
        path = checkpoint.save(self.run.checkpoints, self._step, model, means, state, good=self._saved)
        self._saved = self._step
        self._report({"event": "saved", "step": self._step, "path": str(path)})

    def _try_to_save(self) -> None:
        """Save, or go on training from memory: a disk that is full now may not be at the next checkpoint."""
        try:
            self.save()
        except WriteError as error:
            warn(self._report, f"{error}; training goes on, and the next checkpoint will be tried as usual")

    def _save_at_the_end(self) -> None:
        try:
            self.save()
        except WriteError as error:
            way = f"then go on from step {self._saved}, the newest saved: {self.run.resume_command}"
            raise WriteError(f"{error}; {way}") from error

    def _one_step(self, step: int, rate: float) -> tuple[Outcome, int]:
        """What the step did, and how many tokens it read."""
        config = self.config
        batch = self.corpus.batch(1 if config.overfit_one_batch else step, config.rows_per_step)
        outcome = training_step(
            self.model,
            self.corpus.objective,
            self._flat,
            self._optimizer,
            batch,
            micros=config.grad_accumulation,
            learning_rate=rate,
            clip=config.clip,
            seed=config.seed,
            step=step,
            workers=self._workers,
        )
        read = tokens_read(batch)
        self._step, self._failures = step, 0 if outcome.updated else self._failures + 1
        self._tokens += read if outcome.updated else 0
        return outcome, read

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
        self._note(self._log.append({"step": step, "split": "train", **figures, **skipped}))
        per_byte = bits(self.corpus.per_byte(self.corpus.train, outcome.loss))
        more = {"steps": self.config.steps, "bits_per_byte": per_byte, "seconds_left": left}
        self._report({"event": "train", "step": step, **figures, **more})

    def _heed_failure(self, step: int, outcome: Outcome, rate: float) -> None:
        """Tell of a step that updated nothing; after several in a row, save the last good state and give up."""
        if outcome.updated:
            return
        warn(self._report, f"step {step}: the loss or gradient is not finite; the weights are left as they were")
        if self._failures < MOST_FAILURES:
            return
        self._step, self._failures = step - self._failures, 0
        self.save()
        raise TinyformerError(
            f"the loss was not finite in {MOST_FAILURES} steps in a row; the state of step {self._step} is saved. "
            f"A lower rate or clip may help: {self.run.resume_command} "
            f"--learning-rate {float(f'{self.config.learning_rate / 3:.1g}'):g} --clip {self.config.clip / 2 or 1.0:g}"
        )

    def _validate(self, last: bool) -> None:
        config = self.config
        # A token costs a third of what it does in training, as there is no backward pass.
        steps = self._step if last else config.eval_every
        trained = steps * config.rows_per_step * self.corpus.validation.row_tokens
        most = int(trained * 3 * VALIDATION_SHARE)
        batches = self.corpus.validation_batches(config.batch_size, max(most, SMALL_VALIDATION if last else 0))
        sums = score(self.model, self.corpus.objective, batches, self._workers)
        self._validation = {"step": self._step} | figures(sums)
        nats = self.corpus.per_byte(self.corpus.validation, self._validation["loss"])
        if nats is not None:
            self._validation["bits_per_byte"] = bits(nats)
        line = {"step": self._step, "split": "validation", **self._validation, "tokens": int(sums["tokens"])}
        self._note(self._log.append(line))
        beside = {name: self.corpus.references.get(name) for name in ("unigram_accuracy", "next_sentence_chance")}
        beside["loss_per_byte"] = nats
        self._report({"event": "validation", **self._validation, **beside, "tokens": int(sums["tokens"])})

    def _sample(self) -> None:
        found = samples.sample(self.corpus, self.model, self.config.seed + self._step)
        self._report({"event": "sample", "step": self._step, **found})

    def _means(self) -> dict[str, Any]:
        """AdamW's running means by the names they have in a checkpoint."""
        first, second = self._flat.views(self._optimizer.first), self._flat.views(self._optimizer.second)
        return {f"first.{name}": mean for name, mean in first.items()} | {
            f"second.{name}": mean for name, mean in second.items()
        }

    def _note(self, trouble: str) -> None:
        """Warn once while the log cannot be written."""
        if trouble and not self._log_trouble:
            warn(self._report, trouble)
        self._log_trouble = trouble


def _trained(model: Any, objective: Any) -> dict[str, Any]:
    """The parameters that an objective's loss reaches; the others stay as they are, and do not decay either."""
    return {name: tensor for name, tensor in model.parameters().items() if not name.startswith(objective.unreached)}


def warn(reporter: Reporter, message: str) -> None:
    """Report something that a user should know of, and that does not end the run."""
    reporter({"event": "warning", "message": message})
