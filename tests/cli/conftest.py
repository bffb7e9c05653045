import shutil

import pytest
from commandline import QUICK, TEXT, run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with some texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_bytes(TEXT)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "short.txt").write_bytes(b"Once.")
    (tmp_path / "latin1.txt").write_bytes(TEXT + b"caf\xe9\n" + TEXT)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run directory, which tests only read."""
    place = tmp_path_factory.mktemp("trained")
    (place / "data.txt").write_bytes(TEXT)
    result = run("train", place / "data.txt", *QUICK, "--out", place / "run")
    assert result.exit_code == 0, result.stderr
    return place / "run"


@pytest.fixture
def copy(trained, tmp_path):
    """A run directory to spoil."""
    return shutil.copytree(trained, tmp_path / "copy")
