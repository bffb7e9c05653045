"""`generate` and `prompt` on a GPU: the same text, the same answers; and on the CPU where a user asks for that."""

import json

import pytest
from commandline import output

import tinyformer

pytest.importorskip("ml_dtypes")


@pytest.fixture
def used(monkeypatch):
    """On which backends models were loaded."""
    load, found = tinyformer.load, []

    def watched(*args, **more):
        model = load(*args, **more)
        found.append(next(iter(model.parameters().values())).backend.name)
        return model

    monkeypatch.setattr(tinyformer, "load", watched)
    return found


@pytest.mark.parametrize("options", [["--greedy"], ["--temperature", 1, "--samples", 2], ["--beams", 2]])
def test_text_is_written_on_a_device(options, trained, used, cupy_backend):
    given = ["generate", trained, "--prompt", "Once upon", "--tokens", 12, *options, "--backend"]
    assert output(*given, "cupy") == output(*given, "numpy")
    assert used == ["cupy", "numpy"]


@pytest.mark.parametrize("options", [[], ["--normalise", "unconditional"], ["--write", "--tokens", 3]])
def test_prompts_are_answered_on_a_device(options, trained, used, cupy_backend, tmp_path):
    (tmp_path / "shots.tsv").write_text("fox\ta\nowl\tb\ncat\ta\n")
    given = ["prompt", trained, "--shots", tmp_path / "shots.tsv", "--k", "0,1", "--answers", "--draws", 2, *options]
    on_device, on_host = (output(*given, "--backend", name).splitlines() for name in ("cupy", "numpy"))
    assert used == ["cupy", "numpy"]
    for one, other in zip(map(json.loads, on_device), map(json.loads, on_host), strict=True):
        assert one.pop("scores", {}) == pytest.approx(other.pop("scores", {}), abs=1e-4)
        assert one == other
