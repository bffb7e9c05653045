"""A model that trains in a fraction of a second, and ways to look at what happened."""

from tinyformer.training.rundir import open_run
from tinyformer.training.runlog import read_log

MODEL = {"layers": 1, "width": 8, "heads": 2, "hidden": 16, "context": 8, "dropout": 0.1}


# Each objective with its mode, and settings that go with it.
OBJECTIVES = {
    "causal": ("decoder", {}),
    "masked": ("encoder", {}),
    "next-sentence": ("encoder", {"masking": "fixed", "model": MODEL | {"context": 16}}),
    "span-corruption": ("encoder-decoder", {}),
    "seq2seq": ("encoder-decoder", {"label_smoothing": 0.1}),
}


class Events(list):
    """A reporter that keeps what it is told, and may act on it."""

    def __init__(self, act=lambda event: None):
        super().__init__()
        self._act = act

    def __call__(self, event):
        self.append(event)
        self._act(event)

    def of(self, kind):
        return [event for event in self if event["event"] == kind]


def result(path):
    """What a finished run comes down to: its last checkpoint's bytes, and its log without the speeds."""
    run = open_run(path)
    last = max(run.checkpoints.iterdir())
    log = [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read_log(run.log_file)]
    return last.name, *((last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")), log
