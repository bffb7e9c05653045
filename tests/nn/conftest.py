"""What the tests of layers share."""

import pytest

from tinyformer import backends


@pytest.fixture(autouse=True)
def on_this_library(xp, monkeypatch):
    """Layers made by name live on the library under test."""
    monkeypatch.setattr(backends, "get", lambda name="auto": xp)
