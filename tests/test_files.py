"""Durable writes: whatever call fails, and wherever the process is killed, the old state or the new one is there."""

import errno
import os
import shutil
import signal

import pytest

from tinyformer import files
from tinyformer.files import WriteError, replacing, write_directory

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "b": b"new b", "c": b"", "d": b"d"}


def pieces(contents):
    return {name: [text[:3], memoryview(text)[3:]] for name, text in contents.items()}


def write_file(path, content):
    with replacing(path) as file:
        file.write(content)


CALLS = ("open", "write", "fsync", "rename", "mkdir")


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def save(directory):
    """Replaces a directory and a file: every path through the module."""
    write_directory(directory / "d", pieces(NEW))
    write_file(directory / "f", b"new f")


def put_old(directory):
    shutil.rmtree(directory / "d", ignore_errors=True)
    (directory / "d").mkdir()
    for name, text in OLD.items():
        (directory / "d" / name).write_bytes(text)
    (directory / "f").write_bytes(b"old f")


@pytest.fixture
def place(tmp_path):
    put_old(tmp_path)
    return tmp_path


def in_order(place):
    assert content(place / "d") in (OLD, NEW)
    assert (place / "f").read_bytes() in (b"old f", b"new f")


def break_nth(monkeypatch, n, act):
    """Have the n-th system call of a save act out a disaster instead."""
    count = 0

    def wrap(name, original):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            return act(name, original, args) if count == n else original(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(files.os, name, wrap(name, getattr(os, name)))
    return lambda: count


def calls_of_a_save(place, monkeypatch):
    with monkeypatch.context() as patch:
        counted = break_nth(patch, -1, None)
        save(place)
    return counted()


def test_new_content_replaces_old(place):
    save(place)
    assert content(place / "d") == NEW
    assert (place / "f").read_bytes() == b"new f"
    assert sorted(path.name for path in place.iterdir()) == ["d", "f"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_every_failing_call_leaves_the_old_or_the_new(place, monkeypatch, code):
    def fail(name, original, args):
        raise OSError(code, os.strerror(code))

    failures = 0
    for n in range(1, calls_of_a_save(place, monkeypatch) + 1):
        put_old(place)
        message = None
        with monkeypatch.context() as patch:
            break_nth(patch, n, fail)
            try:
                save(place)
            except WriteError as error:
                message = str(error)
        if message is None:  # what failed was only the removal of what was replaced
            assert content(place / "d") == NEW
            assert (place / "f").read_bytes() == b"new f"
        else:
            assert str(place) in message
            assert f"{os.strerror(code)}; " in message
            assert "--out" in message
            assert "\n" not in message
            assert not (place / ".tmp-d").exists()
            assert not (place / ".tmp-f").exists()
            failures += 1
        if (place / "d").exists():
            in_order(place)
        else:  # between the two renames that replace a directory; checkpoints only replace damaged ones
            assert content(place / ".tmp-old-d") == OLD
        save(place)
        assert sorted(path.name for path in place.iterdir()) == ["d", "f"]
    assert failures > 15


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_every_call_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    def die(name, original, args):
        if name == "write":
            original(args[0], args[1][: len(args[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    write_directory(tmp_path / "1", pieces(OLD))
    write_file(tmp_path / "f", b"old f")

    def write_beside():
        write_directory(tmp_path / "2", pieces(NEW))
        write_file(tmp_path / "f", b"new f")

    n, seen = 0, set()
    while True:
        n += 1
        child = os.fork()
        if child == 0:
            break_nth(monkeypatch, n, die)
            write_beside()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        assert content(tmp_path / "1") == OLD
        assert not (tmp_path / "2").exists() or content(tmp_path / "2") == NEW
        assert (tmp_path / "f").read_bytes() in (b"old f", b"new f")
        seen.add(((tmp_path / "2").exists(), (tmp_path / "f").read_bytes()))
        shutil.rmtree(tmp_path / "2", ignore_errors=True)
        (tmp_path / "f").write_bytes(b"old f")
    assert n > 15
    assert seen == {(False, b"old f"), (True, b"old f"), (True, b"new f")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "f"]


def test_short_writes_are_continued(place, monkeypatch):
    monkeypatch.setattr(files.os, "write", lambda fd, data, write=os.write: write(fd, data[:2]))
    save(place)
    assert content(place / "d") == NEW


def test_a_full_disk_is_noticed_first(place, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(WriteError, match=r"MB are needed and 0\.0 MB are free; free some space"):
        save(place)
    assert content(place / "d") == OLD


def test_an_unwritable_place_is_named(tmp_path):
    with pytest.raises(WriteError, match="No such file"):
        write_file(tmp_path / "none" / "f", b"")


def test_an_error_without_a_number_still_says_why(place, monkeypatch):
    def vague(fd, data):
        raise OSError("3 requested and 2 written")

    monkeypatch.setattr(files.os, "write", vague)
    with pytest.raises(WriteError, match="3 requested and 2 written; check the disk"):
        write_directory(place / "d", pieces(NEW))


def test_a_pipe_in_place_of_a_file_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_file(tmp_path / "pipe", 10)


def test_a_small_file_is_read_up_to_its_limit(place):
    assert files.read_file(place / "f", 5) == b"old f"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        files.read_file(place / "f", 4)
