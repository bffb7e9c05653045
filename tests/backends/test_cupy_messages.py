"""Every way in which CuPy may be unable to run is told in one sentence with what to do; here CuPy is a stand-in."""

import importlib.machinery
import re
import sys
import types

import pytest

from tinyformer import backends


def raising(error):
    def function(*arguments):
        raise error

    return function


@pytest.fixture
def cupy(monkeypatch):
    """A CuPy that runs, as far as anybody asks; tests break it. No backend has been loaded."""
    module = types.ModuleType("cupy")
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    module.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 1),
        nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(backends, "_by_name", {"numpy": backends.get("numpy")})
    return module


def why_not():
    """The reason, which `get` hands on, and `auto` passes over."""
    reason = backends.available()["cupy"]
    with pytest.raises(backends.BackendUnavailable) as caught:
        backends.get("cupy")
    assert str(caught.value) == f"the cupy backend cannot run: {reason}; or use --backend numpy"
    assert backends.get("auto").name == "numpy"
    assert "\n" not in reason
    return reason


def test_a_cupy_that_runs(cupy):
    assert backends.available()["cupy"] == ""


@pytest.mark.parametrize(("package", "name"), [("cupy", "CuPy"), ("ml_dtypes", "ml_dtypes")])
def test_a_package_that_is_missing(cupy, monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    assert why_not() == f"{name} is not installed: pip install 'tinyformer[gpu]'"


@pytest.mark.parametrize(
    "failure", ["ImportError('libcuda.so.1:\\n  no such file')", "RuntimeError('two CuPys')", "OSError()"]
)
def test_a_package_that_cannot_be_imported(monkeypatch, tmp_path, failure):
    (tmp_path / "cupy.py").write_text(f"raise {failure}")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(backends, "_by_name", {"numpy": backends.get("numpy")})
    monkeypatch.syspath_prepend(tmp_path)
    reason = why_not()
    assert reason.startswith(f"importing CuPy fails with {failure.split('(')[0]}: ")
    assert reason.endswith("install it anew: pip uninstall cupy, then pip install 'tinyformer[gpu]'")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version", "install 580"),
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "no NVIDIA GPU is visible; nvidia-smi lists them"),
        ("cudaErrorUnknown: unknown error", "CUDA does not start .*cudaErrorUnknown.*; see whether nvidia-smi runs"),
    ],
)
def test_no_driver_or_no_device(cupy, error, message):
    cupy.cuda.runtime.getDeviceCount = raising(RuntimeError(error))
    assert re.search(message, why_not())


def test_no_device_without_an_error(cupy):
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert why_not().startswith("no NVIDIA GPU is visible; nvidia-smi lists them")


def test_no_compiler(cupy):
    """The library is looked for where kernels are compiled, much later; so it is asked for at the start."""
    cupy.cuda.nvrtc.getVersion = raising(type("DynamicLibNotFoundError", (RuntimeError,), {})("libnvrtc.so.13"))
    expected = "the compiler NVRTC cannot be loaded (DynamicLibNotFoundError: libnvrtc.so.13): "
    assert why_not() == expected + 'pip install "cupy-cuda13x[ctk]"'


def test_what_was_missing_may_come(cupy):
    """Nothing is remembered of a failure."""
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert backends.available()["cupy"]
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    assert not backends.available()["cupy"]
