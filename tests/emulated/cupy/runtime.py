"""As `cupy.cuda.runtime`: what CUDA tells about devices, here about two that do not exist."""

from . import memory, state
from .state import CUDARuntimeError  # of this module, as of CuPy's

streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = 0, 1, 2
memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice, memcpyDefault = range(5)
hostAllocDefault, hostAllocPortable, hostAllocMapped = 0, 1, 2
is_hip = False

__all__ = ["CUDARuntimeError"]


def getDevice():
    return state.device()


def setDevice(device):
    state.set_device(device)


def getDeviceCount():
    if state.switches["insufficient driver"]:
        raise CUDARuntimeError(35)
    if not state.switches["available"]:
        raise CUDARuntimeError(100)
    return state.switches["devices"]


def getDeviceProperties(device):
    if not 0 <= device < state.switches["devices"]:
        raise CUDARuntimeError(101)
    return {
        "name": b"Emulated H100",
        "totalGlobalMem": memory.CAPACITY,
        "sharedMemPerBlock": 48 << 10,
        "sharedMemPerBlockOptin": 232448,
        "sharedMemPerMultiprocessor": 233472,
        "regsPerBlock": 65536,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "maxThreadsPerMultiProcessor": 2048,
        "multiProcessorCount": 4,
        "l2CacheSize": 50 << 20,
        "memoryBusWidth": 5120,
        "memoryClockRate": 2619000,
        "clockRate": 1980000,
        "major": 9,
        "minor": 0,
        "pciBusID": device,
        "canMapHostMemory": 1,
    }


def deviceGetAttribute(attribute, device):
    return {16: 4, 75: 9, 76: 0, 97: 232448}[attribute]


cudaDevAttrMultiProcessorCount = 16
cudaDevAttrMaxSharedMemoryPerBlockOptin = 97


def memGetInfo():
    return memory.CAPACITY - memory.default_pool.total_bytes(), memory.CAPACITY


def driverGetVersion():
    return 13000


def runtimeGetVersion():
    return 13000


def deviceSynchronize():
    state.forbid("synchronisation")
    state.counts["synchronisations"] += 1


def deviceCanAccessPeer(device, peer):
    return 1


def streamIsCapturing(stream):
    return state.capturing()


def streamSynchronize(stream):
    deviceSynchronize()
