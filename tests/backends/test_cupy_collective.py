"""Sums over devices: the same bits everywhere, by copies and by NCCL."""

import contextlib
import ctypes
import types

import numpy as np
import pytest

from tests.emulated import available, real_device


class Nccl(types.ModuleType):
    """A stand-in for CuPy's binding of NCCL: what is asked for within a group is done at its end."""

    available, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = True, 7, 8, 0

    def __init__(self):
        super().__init__("nccl")
        self.waiting, self.started, self.devices = None, 0, None
        stand_in = self

        class NcclCommunicator:
            @staticmethod
            def initAll(devices):
                stand_in.devices = devices
                return [NcclCommunicator() for _ in devices]

            def allReduce(self, sent, received, count, kind, op, stream):
                assert op == Nccl.NCCL_SUM
                stand_in.waiting.append((sent, received, count, kind, stream))

        self.NcclCommunicator = NcclCommunicator

    def groupStart(self):
        self.waiting, self.started = [], self.started + 1

    def groupEnd(self):
        def at(address, count, kind):
            return np.frombuffer(
                (ctypes.c_char * (count * (4 if kind == 7 else 8))).from_address(address), "f4" if kind == 7 else "f8"
            )

        total = sum(at(sent, count, kind) for sent, _, count, kind, _ in self.waiting)
        for _, received, count, kind, _ in self.waiting:
            ctypes.memmove(received, np.ascontiguousarray(total).ctypes.data, at(received, count, kind).nbytes)
        self.waiting = None


@pytest.fixture
def devices(cupy_backend):
    """How many devices there are, at least 2."""
    with contextlib.nullcontext() if real_device() else available(2):
        if cupy_backend.devices() < 2:
            pytest.skip("there is one device")
        yield cupy_backend.devices()


def on_each(xp, devices, hosts):
    arrays = []
    for device, host in zip(range(devices), hosts):
        with xp.on(device):
            arrays.append(xp.from_host(host))
    return arrays


def fetched(xp, arrays):
    found = []
    for device, array in enumerate(arrays):
        with xp.on(device):
            found.append(xp.to_host(array))
    return found


@pytest.mark.parametrize("by", ["copies", "nccl"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_the_same_everywhere(cupy_backend, devices, by, dtype, monkeypatch):
    from tinyformer.backends.cupy import collective

    stand_in = Nccl() if by == "nccl" and not real_device() else None
    collective._nccl.cache_clear()
    if stand_in is not None:
        import cupy

        monkeypatch.setattr(cupy.cuda, "nccl", stand_in, raising=False)
    elif by == "copies":
        monkeypatch.setattr(collective, "_nccl", lambda devices: None)
    hosts = np.random.default_rng(0).standard_normal((devices, 3, 1001)).astype(dtype)
    arrays = on_each(cupy_backend, devices, hosts)
    cupy_backend.add_up(arrays)
    first, *others = fetched(cupy_backend, arrays)
    np.testing.assert_allclose(first, hosts.sum(axis=0), rtol=1e-5)
    for other in others:
        np.testing.assert_array_equal(other, first)
    if stand_in is not None:
        assert (stand_in.started, stand_in.devices) == (1, list(range(devices)))
        collective._nccl.cache_clear()


def test_copies_reach_every_device(cupy_backend, devices):
    hosts = np.random.default_rng(0).standard_normal((devices, 5)).astype(np.float32)
    hosts[0, 0] = -0.0
    source, *targets = on_each(cupy_backend, devices, hosts)
    cupy_backend.copy(source, targets)
    for found in fetched(cupy_backend, [source, *targets]):
        np.testing.assert_array_equal(found.view(np.uint32), hosts[0].view(np.uint32))
