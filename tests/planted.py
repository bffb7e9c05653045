"""Planting a bug: one changed line in a real operation, which the suite's own cases must catch."""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.cases import COMPOSED, PRIMITIVES, Draw
from tinyformer import backends, check_gradients, functional, fused
from tinyformer.gradcheck import GradientError


@dataclasses.dataclass(frozen=True)
class Bug:
    """A line of a function, and what a tired author might have written instead.

    Attributes:
        what: is wrong.
        where: the function, with or without `@primitive`.
        right: the text as it is; it occurs once.
        wrong: the text in its place.
        case: whose cases must catch it: a primitive or composed function by name, or a case.
        fused: whether the case is put to the backend's kernel instead of the composed function.
    """

    what: str
    where: Callable
    right: str
    wrong: str
    case: str | Callable
    fused: bool = False

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        function = inspect.unwrap(self.where)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.right) == 1, f"{function.__name__} no longer contains {self.right!r} once"
        module = compile(source.replace(self.right, self.wrong), f"<{self.what}>", "exec")
        (code,) = (c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == function.__name__)
        monkeypatch.setattr(function, "__code__", code)

    def draw_case(self, draw: Draw) -> tuple:
        if callable(self.case):
            return self.case(draw)
        if self.case in PRIMITIVES:
            return PRIMITIVES[self.case](draw)
        return COMPOSED[self.case](draw, (fused.registry if self.fused else vars(functional))[self.case])


def assert_caught(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug's own cases pass without it, and `check_gradients` refuses them with it."""

    @settings(phases=[Phase.generate], report_multiple_bugs=False)
    @given(data=st.data())
    def check(data):
        function, *arrays = bug.draw_case(Draw(backends.get("numpy"), data))
        check_gradients(function, *arrays)

    check()  # nothing is wrong yet
    bug.plant(monkeypatch)
    with pytest.raises(GradientError, match="wrong gradient of"):
        check()
