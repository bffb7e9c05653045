"""What is current in a thread: its device and stream; work that is done at once or recorded; transfers counted.

A stream that is being captured does nothing, as on a device: it writes the work down, and a graph does it at launch.
"""

import collections
import itertools
import threading

counts = collections.Counter()  # "transfers" to the host, "uploads" from it, "launches" of kernels, "synchronisations"
recordings = []  # grows with each capture, so that memory is never given back while a graph may name it
switches = {"available": False, "insufficient driver": False, "devices": 2}
_local = threading.local()
_serials = itertools.count(1 << 20)


_ERRORS = {
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    100: "cudaErrorNoDevice: no CUDA-capable device is detected",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture",
}


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, with its number."""

    def __init__(self, status):
        self.status = status
        super().__init__(_ERRORS.get(status, f"cudaError {status}"))


def device():
    return getattr(_local, "device", 0)


def set_device(number):
    if not 0 <= number < switches["devices"]:
        raise CUDARuntimeError(101)
    _local.device = number


def stream():
    return _streams().get(device()) or Stream.null


def _streams():
    if not hasattr(_local, "streams"):
        _local.streams, _local.stack = {}, []
    return _local.streams


def capturing():
    return stream()._recorded is not None


def forbid(what="this"):
    """Inside a capture, what a device cannot record is an error, and the capture is lost."""
    if capturing():
        stream()._valid = False
        raise CUDARuntimeError(900)


def transfer():
    """Numbers go to the host, which waits for them."""
    forbid("a transfer to the host")
    counts["transfers"] += 1


def enqueue(work, on=None):
    """Do the work, or record it where the stream is being captured. It must keep no array alive."""
    on = on or stream()
    if on._recorded is None:
        work()
    else:
        on._recorded.append(work)


class Event:
    """A mark in a stream. All work that is not recorded is done at once, so it has always passed."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.ptr, self._stream = next(_serials), None

    done = property(lambda self: True)

    def record(self, stream_=None):
        self._stream = stream_ or stream()

    def synchronize(self):
        if self._stream is not None and self._stream._recorded is not None:
            self._stream._valid = False
            raise CUDARuntimeError(900)
        counts["synchronisations"] += 1


class Graph:
    """Recorded work, done at each launch."""

    def __init__(self, work):
        self._work = work
        self.graph, self.graphExec = next(_serials), next(_serials)

    def launch(self, stream=None):
        counts["graphs"] += 1
        enqueue(self._replay, stream)

    def _replay(self):
        for work in self._work:
            work()

    def upload(self, stream=None):
        pass

    def debug_dot_str(self, flags=0):
        nodes = "\n".join(f'node{i} [label="KERNEL"];' for i in range(len(self._work)))
        return "digraph dot {\n" + nodes + "\n}"


class Stream:
    """A queue of one device. Two of them do not overlap here, but a captured one does nothing until its graph does."""

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr = 0 if null else next(_serials)
        self.device_id = -1 if null else device()
        self.is_non_blocking = non_blocking
        self._recorded, self._valid = None, True

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def __cuda_stream__(self):
        return 0, self.ptr

    def use(self):
        if self.device_id not in (-1, device()):
            made, now = self.device_id, device()
            raise RuntimeError(
                f"The device that the stream is created on ({made}) does not match with the current device ({now})"
            )
        _streams()[device()] = self
        return self

    def __enter__(self):
        before = _streams().get(device())
        self.use()
        _local.stack.append((device(), before))
        return self

    def __exit__(self, *error):
        number, before = _local.stack.pop()
        _streams()[number] = before

    done = property(lambda self: True)

    def synchronize(self):
        if self._recorded is not None:
            self._valid = False
            raise CUDARuntimeError(900)
        counts["synchronisations"] += 1

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        pass

    def launch_host_func(self, callback, arg):
        enqueue(lambda: callback(arg), self)

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._recorded is not None:
            raise CUDARuntimeError(401)
        self._recorded, self._valid = [], True
        recordings.append(self)

    def end_capture(self):
        if self._recorded is None:
            raise CUDARuntimeError(401)
        work, self._recorded = self._recorded, None
        if not self._valid:
            raise CUDARuntimeError(901)
        return Graph(work)

    def is_capturing(self):
        return self._recorded is not None


Stream.null = Stream(null=True)
