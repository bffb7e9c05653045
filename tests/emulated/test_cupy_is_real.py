"""The stand-in for CuPy against the real package, whose names and types can be asked for without a GPU."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import emulated

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.nvrtc


@pytest.fixture
def cupy():
    if emulated.real_device():
        pytest.skip("there is a real device")
    return emulated.install()


def real(code, *arguments):
    """What a script prints as JSON, in a process of its own: here, the package's name is taken."""
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd="/")
    if result.returncode == 3:
        pytest.skip("CuPy is not installed")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


IMPORT = """
import json, sys
from operator import attrgetter
try:
    import cupy, cupyx.scipy.special, ml_dtypes, numpy
except ImportError:
    raise SystemExit(3)
"""
LACKS = (
    IMPORT
    + """
def lacks(name):
    try:
        attrgetter(name)(cupy)
    except AttributeError:
        return True
    return False
print(json.dumps([name for name in sys.argv[1:] if lacks(name)]))
"""
)
RESULTS = (
    IMPORT
    + """
WEAK = {"a float": (float, "float64"), "an int": (int, "int64")}
SCORES = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 3}
def result(name, *kinds):
    weak = tuple(WEAK[kind][0] if kind in WEAK else False for kind in kinds)
    types = tuple(numpy.dtype(WEAK[kind][1] if kind in WEAK else kind) for kind in kinds)
    numbers, arrays = ([SCORES[t.kind] for t, w in zip(types, weak) if bool(w) == number] for number in (1, 0))
    if numbers and max(arrays) < max(numbers):
        weak = (False,) * len(types)
    op = getattr(cupy, name)._ops._guess_routine_from_in_types(types, weak)
    return None if op is None or op.error_func else op.out_types[0].name
name, others, first = sys.argv[1], *map(json.loads, sys.argv[2:])
print(json.dumps({kind: [result(name, kind, *rest) for rest in others] for kind in first}))
"""
)


def names_that_are_used():
    """Every dotted name that starts with `cupy` in the backend."""
    found = set()
    for path in (ROOT / "backends" / "cupy").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            parts = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if parts and isinstance(node, ast.Name) and node.id == "cupy":
                found.add(".".join(reversed(parts)))
    return found


def test_real_cupy_has_every_name_that_the_backend_uses():
    names = names_that_are_used()
    assert {"cuda.runtime.getDevice", "RawModule", "empty"} <= names
    assert not real(LACKS, *names)


def test_the_stand_in_has_no_name_that_real_cupy_lacks(cupy):
    names = [name for name in (*dir(np), *cupy.functions.OURS) if not name.startswith("_") and hasattr(cupy, name)]
    for part in ("Stream", "Graph", "Event", "MemoryPool", "MemoryPointer", "Device", "runtime"):
        names += [f"cuda.{part}.{name}" for name in vars(getattr(cupy.cuda, part)) if not name.startswith("_")]
    names += [f"ndarray.{name}" for name in vars(cupy.ndarray)]
    own = {"cuda.runtime.memory", "cuda.runtime.state"}  # modules that ours imports
    private = {name for name in names if name.startswith("ndarray._") and not name.startswith("ndarray.__")}
    private |= {"ndarray.__dict__", "ndarray.__weakref__"}
    assert set(real(LACKS, *names)) - own - private == set()


TYPES = ["bool", "int32", "int64", "float16", "bfloat16", "float32", "float64", "a float", "an int"]
FUNCTIONS = {
    **dict.fromkeys(["add", "multiply", "true_divide", "maximum", "power", "less", "equal", "floor_divide"], 2),
    **dict.fromkeys(["exp", "sqrt", "tanh", "sign", "absolute", "isfinite", "negative", "log", "square"], 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_types_of_results_are_those_of_real_cupy(cupy, name):
    """Those that CuPy finds without a device; the stand-in may refuse what CuPy takes."""
    others = [[kind] for kind in TYPES] if FUNCTIONS[name] == 2 else [[]]
    expected = real(RESULTS, name, json.dumps(others), json.dumps(TYPES[:7]))

    def of(kind):
        return {"a float": 0.5, "an int": 1}.get(kind) or cupy.ones(2, np.dtype(kind))

    def found(*kinds):
        try:
            return getattr(cupy, name)(*map(of, kinds)).dtype.name
        except TypeError:
            return None

    for kind, results in expected.items():
        for rest, result in zip(others, results, strict=True):
            assert found(kind, *rest) in (result, None), (kind, *rest)
