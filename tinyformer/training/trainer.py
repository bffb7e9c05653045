"""Training from beginning to end: `train` starts a run, `resume` goes on with one.

They set the stage: the directory and its lock, the text, the model, threads, signals. The loop is in
`loop.py`, what it saves and restores in `saving.py`, and the list of events that a reporter gets in `events.py`.

Read before: `rundir.py`, `data.py`, `loop.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from .. import models, nn
from ..errors import UsageError
from . import checkpoint, choices, finetuning, outline, rundir, runlog
from .config import RunConfig, for_resume
from .data import Corpus, prepare, reopen
from .events import Reporter, warn
from .loop import Trainer
from .rundir import Run
from .signals import Stopped, StopRequest, stop_requests
from .step import Workers


def train(
    config: RunConfig, reporter: Reporter, *, out: str | Path | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Train a new model.

    Args:
        config: the settings; what is None is chosen here.
        reporter: called with each event.
        out: the run's directory, new or empty; by default the next free runs/<file stem>-<mode>.
        dry_run: report shapes and costs, make one step, and leave nothing behind.

    Returns:
        The last event, "end".

    Raises:
        UsageError: the settings or the text cannot be used. Nothing is left behind.
        Stopped: SIGINT or SIGTERM came; the run is saved.
        TinyformerError: something failed; the message says where the last good state is.
    """
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
            once = config.replace(steps=1, warmup=None, sample_every=0)
            return _begin(once, reporter, Path(folder) / "dry-run", dry_run=True)
    return _begin(config, reporter, out, dry_run=False)


def resume(path: str | Path, reporter: Reporter, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Go on with a run from its newest good checkpoint.

    On the same machine, with the same libraries and number of threads, the result equals that of a run that
    was never interrupted, bit for bit; a warning tells what differs.

    Args:
        path: the run's directory.
        reporter: called with each event.
        changes: settings that are to differ from now on, by name (`config.CHANGEABLE`).

    Returns:
        The last event, "end".

    Raises:
        UsageError: it is no run, or a change is not possible.
        TinyformerError: as `train`; or no checkpoint is in order.
    """
    run = rundir.open_run(path)
    if run.path != Path(path):
        raise UsageError(f"a resume goes on from the newest checkpoint; name the run: {run.resume_command}")
    with stop_requests(reporter) as stop, run.lock():
        reporter = stop.report
        stored = run.config()
        config = for_resume(stored, changes or {})
        config = config.replace(backend=choices.choose_backend(config.backend))
        if config.backend == "numpy" and "devices" not in (changes or {}):
            config = config.replace(devices=1)  # the GPUs that it had are not here
        choices.check_devices(config)
        shape, corpus = (finetuning.reopen if config.task else reopen)(run, config)
        saved = checkpoint.newest(run.checkpoints, on_damage=lambda message: warn(reporter, message))
        if saved.step > config.steps:
            raise UsageError(f"{run.path} has done {saved.step} steps; give --steps {saved.step} or more")
        with _trainer(run, config, shape, corpus, reporter, stop) as trainer:
            trainer.progress.restore(saved)
            del saved  # or its files would keep their place on the disk when they are removed
            if config != stored and trainer.progress.step < config.steps:  # else nothing is done with it
                run.write_config(config)
            trainer.announce()
            return trainer.go()


def _begin(config: RunConfig, reporter: Reporter, out: str | Path | None, *, dry_run: bool) -> dict[str, Any]:
    config = config if config.task else choices.settle_mode(config)
    first = config.files[0] if config.files else "text"
    with stop_requests(reporter) as stop, rundir.new_run(out, first, config.task or config.mode) as run:
        reporter = stop.report

        def progress(done: int, total: int, what: str) -> None:
            if stop.number:
                raise Stopped("stopped before the training began; nothing is left behind", stop.number)
            reporter({"event": "prepare", "done": done, "total": total, "what": what})

        begin = finetuning.prepare if config.task else prepare
        config, shape, corpus = begin(run, config, progress, lambda message: warn(reporter, message))
        if dry_run:  # told before the model is made, which may not fit
            facts = outline.facts(config, shape, corpus) | outline.costs(config, shape, corpus)
            reporter({"event": "dry_run", "run": None, "step": 0, **facts})
        with _trainer(run, config, shape, corpus, reporter, stop) as trainer:
            if config.init_from is not None:
                trainer.progress.start_from(config.init_from)
            if dry_run:
                return trainer.try_out()
            trainer.announce()
            run.checkpoints.mkdir()
            trainer.progress.save()
            run.write_config(config)
            return trainer.go()


@contextlib.contextmanager
def _trainer(
    run: Run, config: RunConfig, shape: models.ModelConfig, corpus: Corpus, reporter: Reporter, stop: StopRequest
) -> Iterator[Trainer]:
    """A trainer with its threads, its log, and the numerical settings that hold while it runs."""
    outline.check_memory(config, shape, corpus)
    with (
        threadpoolctl.threadpool_limits(1, "blas"),
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),  # every step looks for itself
        Workers((config.threads or 1) if config.backend == "numpy" else 1) as workers,
        contextlib.closing(runlog.RunLog(run.log_file)) as log,
    ):
        init = nn.Initializer(config.backend, config.dtype, config.seed)
        model = corpus.objective.model(models.make(shape, init), init)
        yield Trainer(run, config, corpus, model, workers, log, reporter, stop)
