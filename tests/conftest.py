"""What every test may use: the hypothesis profiles, and each array library in turn."""

import shutil
import signal

import array_api_strict
import numpy
import pytest
import threadpoolctl
from hypothesis import HealthCheck, settings

from tests import emulated
from tinyformer import backends

threadpoolctl.threadpool_limits(1, "blas")  # matrices this small only get slower with more threads

# A shell starts a background job with Ctrl-C ignored, and nohup one with the end of the terminal; training rightly
# leaves them so, and child processes inherit it. Tests that send these signals need them heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("quick", max_examples=15, **COMMON)
settings.register_profile("thorough", max_examples=1000, **COMMON)
settings.register_profile("few", max_examples=4, **COMMON)
settings.load_profile("quick")

LIBRARIES = {"numpy": numpy, "array-api-strict": array_api_strict}

# Tests of CuPy run on a device where there is one, and with kernels on the CPU where there is none.
ON_CUPY = pytest.mark.gpu if emulated.real_device() else pytest.mark.emulated


def pytest_configure(config):
    """An emulated device is slow: unless told otherwise, its tests draw few examples."""
    if config.option.markexpr == "emulated" and not config.getoption("--hypothesis-profile"):
        settings.load_profile("few")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What asks for the CuPy backend is marked as what needs it."""
    for item in items:
        if "cupy_backend" in getattr(item, "fixturenames", ()):
            item.add_marker(ON_CUPY)


@pytest.fixture
def cupy_backend():
    """The CuPy backend, on a device or emulated. A fault of an index that a test leaves behind is an error."""
    if ON_CUPY.name == "emulated" and not shutil.which(emulated.compiler.COMPILER):
        pytest.skip("kernels run on the CPU by g++, which is not here")
    backend = emulated.backend()
    yield backend
    backend.to_host(backend.zeros(()))


@pytest.fixture(params=[*LIBRARIES, pytest.param("cupy", marks=ON_CUPY)])
def xp(request):
    """A backend: NumPy with its kernels, a strict namespace that has only what the standard defines, and CuPy."""
    if request.param == "cupy":
        return request.getfixturevalue("cupy_backend")
    return backends.of(LIBRARIES[request.param].zeros(()))
