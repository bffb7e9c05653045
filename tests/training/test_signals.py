"""The first signal sets a flag, the second ends the process, and the handlers from before come back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tinyformer.training.signals import Stopped, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_a_flag(number):
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert signal.getsignal(number) is before
    assert Stopped("", number).exit_code == 128 + number


def test_the_first_signal_is_answered_at_once_and_only_once():
    events = []
    with stop_requests(events.append) as stop:
        stop.report({"event": "train"})
        stop.answer = "stopping after this step"
        assert len(events) == 1
        os.kill(os.getpid(), signal.SIGTERM)
        answer = "stopping after this step; a second Ctrl-C leaves at once"
        assert events[1:] == [{"event": "warning", "message": answer}]
        stop.report({"event": "saved"})
        assert [event["event"] for event in events] == ["train", "warning", "saved"]


def test_a_signal_in_the_middle_of_a_report_is_answered_after_it():
    """What writes to a terminal cannot be entered twice."""
    seen = []

    def reporter(event):
        seen.append(f"begin {event['event']}")
        if event["event"] == "train":
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(f"end {event['event']}")

    with stop_requests(reporter) as stop:
        stop.report({"event": "train"})
    assert seen == ["begin train", "end train", "begin warning", "end warning"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(second):
    code = (
        "import os, signal, time; from tinyformer.training.signals import stop_requests\n"
        "with stop_requests():\n"
        f"    os.kill(os.getpid(), signal.SIGINT); print('on', flush=True); os.kill(os.getpid(), {second:d})\n"
        "    time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-second, b"on\n", b"")


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def look():
        with stop_requests():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
