"""Fine-tuning on a device: NumPy's losses and figures, whatever the task, and runs that change the machine.

Without dropout: a device pads batches to a few shapes, so that attention drops other weights there.
"""

import os
import signal

import numpy as np
import pytest
from tiny_runs import Events, result
from tiny_tasks import settings, words

from tinyformer import load
from tinyformer.training import checkpoint
from tinyformer.training.signals import Stopped
from tinyformer.training.trainer import resume, train

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.usefixtures("cupy_backend")


EXACT = {"learning_rate": 0.005, "model": {"dropout": 0.0}}


def losses(path):
    return [line["loss"] for line in result(path)[-1]]


@pytest.fixture(scope="session")
def files(examples):
    """Examples of each task."""
    some, folder = words(40), examples.parent
    contents = {
        "classify": "".join(f"{a}\t{y}\n" for a, y in some),
        "regress": "".join(f"{a}\t{a.count('a')}\n" for a, _ in some),
        "tag": "".join("".join(f"{c} {'B-X' if c == 'x' else 'O'}\n" for c in a[:5]) + "\n" for a, _ in some),
        "text2text": "".join(f"{a}\t{y}\n" for a, y in some),
    }
    for task, content in contents.items():
        (folder / task).write_text(content)
    return {task: folder / task for task in contents}


@pytest.mark.parametrize(
    ("mode", "task"),
    [
        ("encoder", "classify"),
        ("decoder", "classify"),
        ("encoder", "regress"),
        ("encoder", "tag"),
        ("encoder-decoder", "text2text"),
    ],
)
def test_a_task_has_the_losses_of_the_cpu(origins, files, tmp_path, mode, task):
    found = {}
    for backend in ("numpy", "cupy"):
        events = Events()
        config = settings(origins[mode], files[task], task, epochs=2, backend=backend, **EXACT)
        train(config, events, out=tmp_path / backend)
        assert not events.of("warning")
        found[backend] = losses(tmp_path / backend)
    np.testing.assert_allclose(found["cupy"], found["numpy"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("given", [{"freeze": True}, {"precision": "bfloat16"}])
def test_a_frozen_body_and_fewer_digits(origins, files, tmp_path, given):
    config = settings(origins["encoder"], files["classify"], epochs=2, backend="cupy", **given)
    end = train(config, Events(), out=tmp_path / "run")
    kept = checkpoint.load_weights(tmp_path / "run")[0]
    assert all(array.dtype == np.float32 for array in kept.values())
    before = checkpoint.load_weights(origins["encoder"])[0]
    same = all(kept[f"body.{name}"].tobytes() == array.tobytes() for name, array in before.items())
    assert same == ("freeze" in given)
    assert end["best"]["accuracy"] > 0
    assert load(tmp_path / "run", backend="numpy").parameters().keys() == kept.keys()


@pytest.mark.parametrize("first", ["numpy", "cupy"])
def test_a_run_goes_on_with_the_other_machine(origins, examples, tmp_path, first):
    def interrupt(event):
        if event["event"] == "train" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    config = settings(origins["encoder"], examples, epochs=1, backend=first, **EXACT)
    train(config, Events(), out=tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, Events(interrupt), out=tmp_path / "parts")
    resume(tmp_path / "parts", Events(), {"backend": {"numpy": "cupy", "cupy": "numpy"}[first]})
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=0, atol=1e-3)
