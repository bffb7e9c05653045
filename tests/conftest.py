"""What every test may use: the hypothesis profiles, and each array library in turn."""

import signal

import array_api_strict
import numpy
import pytest
import threadpoolctl
from hypothesis import HealthCheck, settings

from tinyformer import backends

threadpoolctl.threadpool_limits(1, "blas")  # matrices this small only get slower with more threads

# A shell starts a background job with Ctrl-C ignored, and nohup one with the end of the terminal; training rightly
# leaves them so, and child processes inherit it. Tests that send these signals need them heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("quick", max_examples=15, **COMMON)
settings.register_profile("thorough", max_examples=1000, **COMMON)
settings.load_profile("quick")

LIBRARIES = {"numpy": numpy, "array-api-strict": array_api_strict}


@pytest.fixture(params=LIBRARIES)
def xp(request):
    """A backend: NumPy with its kernels, and a strict namespace that has only what the standard defines."""
    return backends.of(LIBRARIES[request.param].zeros(()))
