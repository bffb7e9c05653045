import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl

from tinyformer import backends
from tinyformer.analysis.machine import describe_machine, gemm_rate
from tinyformer.backends.numpy import blas


def test_the_machine_is_described_in_short_texts():
    facts = describe_machine()
    assert list(facts) == ["versions", "backends", "BLAS", "training", "machine"]
    assert all(isinstance(value, str) and value for section in facts.values() for value in section.values())
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["backends"]["numpy"] == "works"


@pytest.mark.parametrize("threads", [1, 3])
def test_the_rate_counts_the_products_of_all_threads(monkeypatch, threads):
    """Time stands still but for a second in each product of one thread, and in each round of several."""
    seconds, products, pools = [0.0], [], []

    def matmul(a, b, out):
        pools.append(threadpoolctl.threadpool_info())
        products.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
        seconds[0] += 1 / threads

    monkeypatch.setattr(np, "matmul", matmul)
    monkeypatch.setattr("time.perf_counter", lambda: seconds[0])
    rate = gemm_rate(threads, seconds=2.5)
    assert rate == pytest.approx(sum(products) / 3)  # three rounds of a second
    assert len(products) == 3 * threads
    assert {pool["num_threads"] for found in pools for pool in found if pool["user_api"] == "blas"} <= {1}


def kernels_reason(code, **variables):
    """What a fresh process says, in which the processor is one of AMD with AVX-512."""
    given = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | variables
    code = (
        "import platform, sys; platform.machine = lambda: 'x86_64'; from importlib import util; "
        "spec = util.spec_from_file_location('blas', sys.argv[1]); blas = util.module_from_spec(spec); "
        f"spec.loader.exec_module(blas); blas._processor = lambda: ('AuthenticAMD', blas._AVX512); {code}; "
        "blas.choose_kernels(); print(blas.kernels_reason())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, blas.__file__], env=given, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_who_chose_the_kernels_is_told():
    assert kernels_reason("pass").startswith("chosen by tinyformer")
    assert kernels_reason("pass", OPENBLAS_CORETYPE="Zen") == "chosen by OPENBLAS_CORETYPE=Zen"
    assert kernels_reason("import numpy").startswith("OpenBLAS's own choice, as NumPy was imported before")
    assert kernels_reason("blas._processor = lambda: ('GenuineIntel', blas._AVX512)") == "OpenBLAS's own choice"


def test_a_gpu_is_described_where_one_works(monkeypatch):
    class Device:
        def description(self):
            return {"device": "H100", "cupy": "14.2.0"}

        def memory(self):
            return 3 << 30, 80 << 30, 0

    monkeypatch.setattr(backends, "available", lambda: {"numpy": "", "cupy": ""})
    monkeypatch.setattr(backends, "get", lambda name: Device())
    facts = describe_machine()
    assert facts["GPU"] == {"device": "H100", "cupy": "14.2.0", "memory": "80.0 GiB, of which 3.0 are free"}
    assert facts["backends"]["cupy"] == "works"
