"""Runs that nobody trained, in a moment: random weights under the settings of a pretrained or a fine-tuned model."""

import dataclasses

import numpy as np

from tinyformer import nn
from tinyformer.models import make, resolve
from tinyformer.tasks import TASKS
from tinyformer.text import ByteTokenizer, special_tokens
from tinyformer.training import checkpoint
from tinyformer.training.config import RunConfig
from tinyformer.training.fingerprint import fingerprint
from tinyformer.training.rundir import Run


def made_run(path, task=None, mode="encoder", context=32, **given):
    """The directory of a run for a task with these settings, or of a pretrained one."""
    tokenizer = ByteTokenizer(special_tokens(mode))
    shape = resolve(mode=mode, vocabulary=tokenizer.vocabulary_size, layers=1, heads=2, width=16, context=context)
    init = nn.Initializer("numpy", "float32", 1)
    model = make(shape, init)
    if task is not None:
        model = TASKS[task](tokenizer, shape, labels=given.get("labels", ())).model(model, init)
    rng = np.random.default_rng(2)
    weights = {n: rng.normal(0, 0.3, p.shape).astype(np.float32) for n, p in model.parameters().items()}
    run, sizes = Run(path), {name: value for name, value in dataclasses.asdict(shape).items() if value is not None}
    run.checkpoints.mkdir(parents=True)
    tokenizer.save(run.tokenizer_file)
    del sizes["mode"]
    config = RunConfig(mode=mode, model=sizes, task=task, tokenizer=str(run.tokenizer_file.absolute()), **given)
    state = {"seed": 0, "tokens_seen": 0, "failures": 0, "validation": {}, "config_digest": config.digest}
    checkpoint.save(run.checkpoints, 1, weights, {}, state | {"fingerprint": fingerprint("numpy", 1)})
    run.write_config(config)
    return path
