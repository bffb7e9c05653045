"""Every CUDA source compiles for the GPUs that we name, and its kernels keep their numbers in registers.

A source that takes constants says which in a comment of its own: `// versions: WIDTH=64 WIDTH=128,HALF=1` are two. One
with REAL=float, or bfloat16, is for that type of numbers alone.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.backends import nvrtc
from tinyformer.backends.cupy.sources import FOLDER, REALS, text

pytestmark = [
    pytest.mark.nvrtc,
    pytest.mark.skipif(not nvrtc.library(), reason="there is no NVRTC: pip install 'nvidia-cuda-nvrtc==13.0.*'"),
]

ARCHITECTURES = ("sm_80", "sm_90", "sm_90a")
REGISTERS = 64  # of a thread: 1024 threads of a processor are at work
BUDGET = {  # of kernels that keep more in them
    "norm_forward": 96,
    "norm_backward": 128,
    **dict.fromkeys(("attention_forward", "attention_bias", "attention_keys", "attention_queries"), 168),  # 384 threads
    **dict.fromkeys((f"attention_mma_{name}" for name in ("forward", "bias", "keys", "queries")), 255),
}
STACK: dict[str, int] = {}  # bytes in slow memory of single kernels that cannot do without

SOURCES = sorted(path.name for path in FOLDER.glob("*.cu"))


def versions(name: str, real: str) -> list[tuple[str, ...]]:
    """The definitions of each version of a source that is made for this type of numbers."""
    found = re.findall(r"^// versions: (.+)$", (FOLDER / name).read_text(encoding="utf-8"), re.MULTILINE)
    each = [tuple(version.split(",")) for line in found for version in line.split()] or [()]
    common = [version for version in each if not any(define.startswith("REAL=") for define in version)]
    own = [version for version in each if f"REAL={real}" in version]
    return [tuple(f"-D{define}" for define in {f"REAL={real}": 0} | dict.fromkeys(version)) for version in common + own]


def faults(kernels: dict[str, nvrtc.Usage]) -> list[str]:
    """What breaks the budget."""
    return [
        f"{name}: {usage}"
        for name, usage in kernels.items()
        if usage.registers > BUDGET.get(name, REGISTERS)
        or usage.spill_stores + usage.spill_loads > 0
        or usage.stack > STACK.get(name, 0)
    ]


def test_there_are_sources():
    assert SOURCES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", REALS.values())
@pytest.mark.parametrize("name", SOURCES)
def test_kernels_compile_without_spills(name, real, architecture):
    source, made = text(name), versions(name, real)
    declared = len(re.findall(r'^extern\s+"C"[^;{]*__global__', source, re.MULTILINE))
    with ThreadPoolExecutor() as pool:
        each = pool.map(lambda version: nvrtc.compile(source, architecture, version), made)
        for version, kernels in zip(made, each):
            assert len(kernels) == declared > 0, f"{version}: only {', '.join(kernels)}"
            assert not faults(kernels), version


SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(float* x) {
    float at[128];
#pragma unroll
    for (int i = 0; i < 128; i++) at[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 128; i++) x[threadIdx.x * 128 + i] = at[i] * at[127 - i];
}
"""
INDEXED = """
extern "C" __global__ void indexed(float* x, int n) {
    float at[64];
    for (int i = 0; i < 64; i++) at[(i * n) % 64] = x[i];
    x[0] = at[n];
}
"""


@pytest.mark.parametrize(("source", "name"), [(SPILLING, "spilling"), (INDEXED, "indexed")])
def test_numbers_that_leave_the_registers_are_seen(source, name):
    assert [fault.split(":")[0] for fault in faults(nvrtc.compile(source, "sm_90"))] == [name]


def test_registers_are_counted(monkeypatch):
    source = 'extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= 2; }'
    (used,) = nvrtc.compile(source, "sm_80").values()
    assert 0 < used.registers < 32
    monkeypatch.setitem(BUDGET, "scale", used.registers - 1)
    assert faults({"scale": used})


@pytest.mark.parametrize("planted", ["float x = ;", '#include "math.h"', "float x = INFINITY;"])
def test_what_does_not_compile_is_seen(planted):
    source = f'{planted}\nextern "C" __global__ void scale(float* y) {{ y[threadIdx.x] *= 2; }}'
    with pytest.raises(nvrtc.CompileError, match=r"kernels\.cu"):
        nvrtc.compile(source, "sm_90")


def test_instructions_of_hopper_need_their_architecture():
    source = 'extern "C" __global__ void f() { asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }'
    with pytest.raises(nvrtc.CompileError, match="setmaxnreg"):
        nvrtc.compile(source, "sm_90")
    nvrtc.compile(source, "sm_90a")
