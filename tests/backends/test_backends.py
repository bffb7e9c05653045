"""What a backend adds to the array API, against Python's own mathematics and against plain loops."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import backends
from tinyformer.backends.numpy import blas


@given(x=st.floats(-40, 40))
def test_erf(x):
    numpy = backends.get("numpy")
    assert numpy.erf(np.array([x]))[0] == pytest.approx(math.erf(x), rel=4e-15, abs=1e-300)


def test_erf_everywhere(xp):
    points = np.concatenate(
        [np.linspace(-7, 7, 4001), [0.5, -0.5, 4.0, -4.0, 6.0, 1e-300, 0.0, 1e10, math.inf, -math.inf]]
    )
    expected = np.array([math.erf(x) for x in points])
    np.testing.assert_allclose(xp.to_host(xp.erf(xp.from_host(points))), expected, rtol=4e-15, atol=1e-300)
    assert math.isnan(float(xp.erf(xp.from_host(np.array(math.nan)))))
    single = xp.erf(xp.from_host(points.astype(np.float32)))
    assert xp.to_host(single).dtype == np.float32
    np.testing.assert_allclose(xp.to_host(single), expected, rtol=2e-6, atol=1e-7)


@given(
    indices=st.lists(st.integers(0, 4), max_size=20),
    axes=st.sampled_from([(), (3,), (2, 2)]),
    seed=st.integers(0, 99),
)
def test_scatter_add(xp, indices, axes, seed):
    values = np.random.default_rng(seed).standard_normal((len(indices), *axes))
    expected = np.zeros((5, *axes))
    for index, value in zip(indices, values, strict=True):
        expected[index] += value
    indices = xp.from_host(np.array(indices, dtype=np.int64))
    found = xp.to_host(xp.scatter_add((5, *axes), indices, xp.from_host(values)))
    np.testing.assert_allclose(found, expected, atol=1e-14)


def kept(xp, generator, shape, probability):
    """What a generator keeps, on the host; kernels of some backends would draw it only where they use it."""
    truths = generator.keep(shape, probability)
    return xp.to_host(truths.drawn() if isinstance(truths, backends.Undrawn) else truths)


@pytest.mark.parametrize(("rows", "shape"), [(None, (3, 7)), (range(4, 6), (2, 5, 3)), (range(1, 2), (1, 9))])
def test_a_stream_may_be_made_from_its_keys(xp, rows, shape):
    keys = xp.keys(5, 1, 7, rows=rows)
    assert keys.dtype == np.uint64

    def generators():
        return xp.generator(5, 1, 7, rows=rows), xp.generator_of(xp.from_host(keys))

    pair = generators()
    for probability in (0.7, 0.4):
        np.testing.assert_array_equal(*(kept(xp, generator, shape, probability) for generator in pair))
    normal = [xp.to_host(generator.normal(shape, xp.float64)) for generator in generators()]
    np.testing.assert_array_equal(*normal)


def test_streams_are_functions_of_their_key(xp):
    def draw(*key):
        return xp.to_host(xp.generator(*key).normal((1000,), xp.float64))

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    others = [draw(1, 3), draw(2, 2), draw(1), draw(1, 2, 0)]
    for other in others:
        assert abs(np.corrcoef(draw(1, 2), other)[0, 1]) < 0.15
    assert draw(1).mean() == pytest.approx(0, abs=0.15)
    assert draw(1).std() == pytest.approx(1, abs=0.1)


def test_a_row_draws_the_same_whatever_its_neighbours(xp):
    def draw(rows):
        truths = kept(xp, xp.generator(1, 2, rows=rows), (len(rows), 3, 5), 0.5)
        return truths, xp.to_host(xp.generator(1, 2, rows=rows).normal((len(rows), 7), xp.float64))

    whole, part = draw(range(6)), draw(range(2, 5))
    for all_rows, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[2:5], some)
    assert (whole[0][0] != whole[0][1]).any()
    with pytest.raises(ValueError, match=r"these streams are for 2 rows, and the shape \(3, 4\) has 3"):
        xp.generator(0, rows=range(2)).keep((3, 4), 0.5)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_keep_has_its_probability(xp, probability):
    truths = kept(xp, xp.generator(3), (200, 500), probability)
    assert truths.dtype == bool
    assert truths.mean() == pytest.approx(probability, abs=0.005)


def test_the_backend_of_an_array(xp):
    assert backends.of(xp.zeros(3)) is xp
    assert backends.of(np.float32(1.0)).name == "numpy"
    assert repr(xp) == f"<backend {xp.name}>"


def test_unknown_and_missing_backends_say_so(monkeypatch):
    monkeypatch.setattr(backends.cupy, "why_not", lambda: "it is not there: pip install it")
    monkeypatch.setattr(backends, "_by_name", {"numpy": backends.get("numpy")})
    assert backends.available() == {"numpy": "", "cupy": "it is not there: pip install it"}
    message = "the cupy backend cannot run: it is not there: pip install it; or use --backend numpy"
    with pytest.raises(backends.BackendUnavailable, match=message):
        backends.get("cupy")
    with pytest.raises(backends.BackendUnavailable, match="unknown backend 'torch'; known are auto, numpy, cupy"):
        backends.get("torch")
    assert backends.get("auto").name == "numpy"


CPUINFO = "vendor_id\t: {vendor}\nmodel name : x\nflags\t\t: fpu {flags}\n\nvendor_id : Other\n"
AVX512 = "avx512f avx512dq avx512bw avx512vl"


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Makes this machine one with a processor of that vendor and those flags, and no choice of kernels yet."""

    def pretend(vendor, flags, machine="x86_64"):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(CPUINFO.format(vendor=vendor, flags=flags))
        monkeypatch.setattr(blas, "_CPUINFO", str(cpuinfo))
        monkeypatch.setattr(blas.platform, "machine", lambda: machine)

    monkeypatch.setenv("OPENBLAS_CORETYPE", "")  # recorded, so that what is set later is undone
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    return pretend


@pytest.mark.parametrize(
    ("vendor", "flags", "machine", "already", "expected"),
    [
        ("AuthenticAMD", AVX512, "x86_64", None, "SkylakeX"),
        ("AuthenticAMD", AVX512, "aarch64", None, None),
        ("AuthenticAMD", "avx2", "x86_64", None, None),
        ("GenuineIntel", AVX512, "x86_64", None, None),
        ("AuthenticAMD", AVX512, "x86_64", "Haswell", "Haswell"),
    ],
)
def test_kernels_are_chosen_only_where_it_helps(processor, monkeypatch, vendor, flags, machine, already, expected):
    processor(vendor, flags, machine)
    monkeypatch.delitem(sys.modules, "numpy")
    if already:
        monkeypatch.setenv("OPENBLAS_CORETYPE", already)
    blas.choose_kernels()
    assert os.environ.get("OPENBLAS_CORETYPE") == expected


def test_too_late_once_numpy_is_imported(processor):
    processor("AuthenticAMD", AVX512)
    assert "numpy" in sys.modules
    blas.choose_kernels()
    assert "OPENBLAS_CORETYPE" not in os.environ


def test_importing_does_not_import_numpy():
    code = "import sys, tinyformer.backends.numpy; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_description_of_blas():
    found = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    described = blas.describe()
    assert [library["version"] for library in described] == [pool["version"] for pool in found]
    assert [library["threads"] for library in described] == [pool["num_threads"] for pool in found]
    for library in described:
        assert set(library) == {"library", "version", "kernels", "threads"}
