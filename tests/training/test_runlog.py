"""The log: strict JSON a line, cut back on resume, and no line lost to a disk that is full for a while."""

import errno
import json
import math
import os

import pytest

from tinyformer.files import WriteError
from tinyformer.training import runlog
from tinyformer.training.runlog import RunLog, cut_back, read_log


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    yield log
    log.close()


def lines(tmp_path):
    return (tmp_path / "log.jsonl").read_text().splitlines()


def test_each_entry_is_a_line_at_once_and_strict(tmp_path, log):
    assert log.append({"step": 1, "loss": 0.5}) == ""
    assert log.append({"step": 2, "loss": math.nan, "norm": math.inf, "text": "é\n"}) == ""
    strict = [json.loads(line, parse_constant=pytest.fail) for line in lines(tmp_path)]
    assert strict == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "norm": None, "text": "é\n"}]
    again = RunLog(tmp_path / "log.jsonl")
    again.append({"step": 3})
    again.close()
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]


def test_cutting_back_removes_later_and_torn_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 2, "split": "validation"}\n{"step": 3}\n{"step": 4, "lo')
    assert [entry["step"] for entry in read_log(path)] == [1, 2, 2, 3]
    cut_back(path, 2, 2)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 2, "split": "validation"}\n'
    before = path.stat().st_ino
    cut_back(path, 2, 2)
    assert path.stat().st_ino == before
    cut_back(path, 2, 1)  # stopped in that validation, which is made again
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(b'{"step": 1}\n{"step": 2}')  # complete, but for the end of its line
    cut_back(path, 2, 2)
    assert path.read_bytes() == b'{"step": 1}\n'
    path.write_bytes(b'\xff\n[]\n1\n{"step": null}\n{"step": 1}\n' + b"[" * 100_000 + b"\n")
    cut_back(path, 2, 2)
    assert path.read_bytes() == b'{"step": 1}\n'
    cut_back(tmp_path / "none", 2, 2)


def test_a_full_disk_costs_no_line(tmp_path, log, monkeypatch):
    log.append({"step": 1})

    def full(descriptor, data, place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def almost_full(descriptor, data, place, write=os.pwrite):
        return write(descriptor, data[:5], place)

    with monkeypatch.context() as patch:
        patch.setattr(runlog.os, "pwrite", full)
        assert "No space left on device; its lines are kept" in log.append({"step": 2})
        patch.setattr(runlog.os, "pwrite", almost_full)
        assert log.append({"step": 3}) == ""
    assert log.append({"step": 4}) == ""
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(WriteError, match=r"cannot write .*log\.jsonl: Is a directory"):
        RunLog(tmp_path / "log.jsonl")
