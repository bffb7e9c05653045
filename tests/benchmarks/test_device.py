"""The benchmark of a GPU: both sides take the same steps, and its tables say what was measured. Nothing is timed."""

import numpy as np
import pytest
from click.testing import CliRunner

from tests.benchmarks import cases, device, device_gemm, device_kernels, device_ours, ours
from tests.benchmarks.training import ROUNDED
from tinyformer import backends

TINY = cases.Size(vocabulary=64, layers=2, heads=2, width=32, context=32, batch=3)


@pytest.mark.parametrize("precision", device.PRECISIONS)
def test_our_steps_on_a_gpu_are_those_on_the_cpu(cupy_backend, precision, tmp_path):
    cases.write_case(tmp_path, "decoder", TINY)
    expected = [step() for step in [ours.prepare(tmp_path, 1, "")] for _ in range(3)]
    assert expected[0][0] > expected[2][0] * (1 + 5e-4), "nothing was learned, so no update was compared"
    graph, eager = (device_ours.prepare(tmp_path, 1, f"{way} {precision}") for way in ("graph", "eager"))
    found = [graph() for _ in range(3)]
    np.testing.assert_allclose(found, expected, rtol=ROUNDED.get(precision, 1e-5))
    assert [eager() for _ in range(3)] == found


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # by torch itself
@pytest.mark.parametrize("precision", device.PRECISIONS)
def test_torch_takes_the_same_steps(precision, tmp_path):
    """On the CPU, which shows that the model, the loss and the update are the same."""
    from tests.benchmarks import torch_cuda

    cases.write_case(tmp_path, "decoder", TINY)
    step, theirs = ours.prepare(tmp_path, 1, ""), torch_cuda.prepare(tmp_path, 1, f"eager {precision}", device="cpu")
    np.testing.assert_allclose(
        [theirs() for _ in range(3)], [step() for _ in range(3)], rtol=ROUNDED.get(precision, 1e-5)
    )


def test_every_kernel_runs_as_it_is_timed(cupy_backend, monkeypatch):
    for name, value in {"B": 2, "T": 8, "D": 64, "HEADS": 2, "VOCABULARY": 40}.items():
        monkeypatch.setattr(device_kernels, name, value)
    for dtype in device_kernels.DTYPES:
        for work in device_kernels.works(cupy_backend, dtype):
            work.run()
            assert work.bytes > 0
    monkeypatch.setattr(device_gemm, "WIDTH", 16)
    device_gemm.prepare(None, 1, "bfloat16")()


def test_rows_of_a_case():
    seconds = {"tinyformer graph": [0.1, 0.2], "torch": [0.2, 0.8], "torch.compile": [0.1, 0.1]}
    wrong = {"torch.compile": "another loss"}
    case = {"seconds": seconds, "wrong": wrong, "tokens": 300, "flops": 1e12, "gemm": [2e13, 2e13]}
    head, *lines = device.rows("1M/tf32", case)
    assert head == ("1M/tf32", "", "", "", "20 TFLOP/s")
    assert lines[0] == ("  tinyformer graph", "2,000", "150.00 ms", "", "38%")  # 10 and 5 TFLOP/s of 20
    assert lines[1] == ("  torch", "600", "500.00 ms", "0.38 (0.25-0.50)", "16%")
    assert lines[2][3] == "another loss"


def test_rows_of_kernels():
    report = {
        "gelu": {"bytes_per_second": [1e12, 2e12], "flops_per_second": None, "copy_bytes_per_second": [2e12, 2e12]}
    }
    assert device_kernels.rows(report)[1] == ("  gelu", "1,500", "75% (50%-100%)", "")


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(backends, "_by_name", {})
    result = CliRunner().invoke(device.main, ["--only", "kernels"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "the cupy backend cannot run" in result.output
