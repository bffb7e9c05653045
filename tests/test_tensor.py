"""The engine: what it records, how it walks back, and what it says when something is wrong."""

import threading
import tracemalloc

import array_api_strict
import numpy as np
import pytest

import tinyformer
from tinyformer import Tensor, backward, functional, no_grad, ops, primitive


def test_the_expression_of_micrograds_readme():
    """Published values: g = 24.7041, dg/da = 138.8338, dg/db = 645.5773 (github.com/karpathy/micrograd)."""
    a, b = Tensor(-4.0, requires_grad=True), Tensor(2.0, requires_grad=True)
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + functional.relu(b + a)
    d = d + 3 * d + functional.relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g = g + 10.0 / f
    g.backward()
    assert f"{g.item():.4f} {a.grad:.4f} {b.grad:.4f}" == "24.7041 138.8338 645.5773"


def test_slope_of_tanh_at_one():
    x = Tensor(np.array(1.0), requires_grad=True)
    assert backward(x.tanh())[x] == pytest.approx(0.419974341614026, rel=1e-14)


def test_numbers_become_float32_and_arrays_stay_what_they_are():
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor(np.float64(2.0)).dtype == np.float64
    assert (Tensor([1.0]) * 2.5 + 1 - 0.5).dtype == np.float32


def test_operators_agree_with_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 3)) + 0.5, rng.random((3, 3)) + 0.5
    x, y = Tensor(a), Tensor(b)
    pairs = [
        (x + y, a + b), (x + 2, a + 2), (2 + x, 2 + a), (x - y, a - b), (x - 2, a - 2), (2 - x, 2 - a),
        (x * y, a * b), (x * 2, a * 2), (2 * x, 2 * a), (x / y, a / b), (x / 2, a / 2), (2 / x, 2 / a),
        (x**2, a**2), (-x, -a), (abs(-x), a), (x @ y, a @ b), (a @ y, a @ b), (a + y, a + b), (a * y, a * b),
        (x[1], a[1]), (x[:, ::2], a[:, ::2]), (x[None, 0], a[None, 0]), (x[..., None], a[..., None]),
        (x.T, a.T), (x.reshape(9), a.reshape(9)), (x.reshape((1, 9)), a.reshape(1, 9)),
        (x.sum(), a.sum()), (x.sum(axis=0), a.sum(0)), (x.max(axis=1, keepdims=True), a.max(1, keepdims=True)),
        (x.exp(), np.exp(a)), (x.log(), np.log(a)), (x.sqrt(), np.sqrt(a)), (x.tanh(), np.tanh(a)),
    ]  # fmt: skip
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-15)
    np.testing.assert_allclose(x.mean(axis=1).numpy(), a.mean(1), rtol=1e-15)
    assert len(x) == 3
    assert [row.shape for row in x] == [(3,)] * 3
    assert float(x.sum()) == a.sum()
    assert "Tensor(" in repr(x)
    assert "made by add" in repr(Tensor(1.0, requires_grad=True) + 1)


def test_backward_returns_leaves_only_and_grad_adds_up():
    w = Tensor([1.0, 2.0], requires_grad=True)
    constant = Tensor([3.0, 4.0])
    assert list(backward((w * constant).sum())) == [w]
    assert w.grad is None, "backward is a pure function"
    (w * constant).sum().backward()
    (w * constant).sum().backward()
    np.testing.assert_array_equal(w.grad, [6.0, 8.0])
    leaf = Tensor(2.0, requires_grad=True)
    assert backward(leaf)[leaf] == 1.0


def test_a_tensor_used_twice_gets_both_gradients():
    x = Tensor(3.0, requires_grad=True)
    y = x * x
    assert backward(y * y + y)[x] == 4 * 27 + 2 * 3


def test_chain_of_ten_thousand_operations():
    x = Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    assert backward(y)[x] == pytest.approx(1.0001**10_000, rel=1e-9)
    for _ in range(100_000):  # a graph that is never used must also come apart without deep recursion
        y = y + 1.0
    del y


def test_a_freed_graph_says_so():
    x = Tensor(2.0, requires_grad=True)
    shared = x * x
    backward(shared * 3.0)
    with pytest.raises(RuntimeError, match=r"behind this multiply was freed by an earlier backward"):
        backward(shared * 4.0)


def test_only_what_a_closure_names_stays_in_memory():
    def kept_by(operation):
        x = Tensor(np.ones(1 << 17), requires_grad=True)  # a megabyte
        tracemalloc.start()
        y = x
        for _ in range(50):
            y = operation(y)
        kept = tracemalloc.get_traced_memory()[0] / (1 << 20)
        loss = y.sum()
        del y
        backward(loss)
        freed = tracemalloc.get_traced_memory()[0] / (1 << 20)
        tracemalloc.stop()
        return kept, freed

    for operation, expected in ((lambda y: y + 1.0, 1), (lambda y: y * 2.0, 1), (lambda y: y.tanh(), 50)):
        kept, freed = kept_by(operation)
        assert kept == pytest.approx(expected, abs=0.5)
        assert freed < 1.5, "the loss still keeps its graph alive"


def test_grad_belongs_to_its_leaf():
    x, y = (Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    ((x + y) * 2.0).sum().backward()
    x.grad *= 10
    np.testing.assert_array_equal(x.grad, [20, 20])
    np.testing.assert_array_equal(y.grad, [2, 2])


def test_no_grad_records_nothing_and_is_per_thread():
    x = Tensor(1.0, requires_grad=True)
    seen = []
    with no_grad():
        y = x * 2.0
        worker = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        worker.start()
        worker.join()
    assert not y.requires_grad
    assert y.node is None
    assert seen == [True]
    assert (x * 2.0).requires_grad


def test_detach_stops_the_gradient():
    x = Tensor(3.0, requires_grad=True)
    assert backward(x * x.detach())[x] == 3.0


def test_workers_share_leaves():
    w = Tensor(np.arange(4.0), requires_grad=True)
    results = [None] * 8

    def work(i):
        for _ in range(50):
            results[i] = backward((w * w * float(i)).sum())[w]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, 2.0 * i * np.arange(4.0))


def test_errors_are_clear():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(TypeError, match="only real numbers have gradients, and this tensor holds int64"):
        Tensor([1, 2], requires_grad=True)
    with pytest.raises(ValueError, match=r"backward starts from a scalar, and this tensor has shape \(2, 3\)"):
        backward(x * 2.0)
    with pytest.raises(RuntimeError, match="depends on no tensor with requires_grad"):
        backward(Tensor(1.0))
    with pytest.raises(ValueError, match=r"add of shapes \(2, 3\), \(2,\): operands could not be broadcast"):
        x + np.ones(2)
    with pytest.raises(ValueError, match=r"matmul of shapes \(2, 3\), \(2, 3\)"):
        x @ x
    for nothing in (x, "abc", None, [x], {"a": 1}):
        with pytest.raises(TypeError, match="a tensor is made of an array, or of numbers in lists, and this is a"):
            Tensor(nothing)
    with pytest.raises(TypeError, match=r"one backend, found array-api and numpy"):
        x + Tensor(array_api_strict.ones((2, 3)))
    with pytest.raises(TypeError, match="is not an array"):
        tinyformer.backends.of([1.0])
    with pytest.raises(IndexError, match="indices run from 0 to 9, and must lie in 0 to 1"):
        functional.embedding(x, np.array([0, 9]))
    with pytest.raises(IndexError, match="run from -1 to 0"):
        functional.embedding(x, np.array([0, -1]))
    with pytest.raises(TypeError, match="indices must be integers, and these are float64"):
        functional.embedding(x, np.array([0.0]))
    with pytest.raises(TypeError, match="len"):
        list(Tensor(3.0))
    with pytest.raises(TypeError, match="a list is neither a tensor nor a number; make a Tensor of it"):
        x * [1.0, 2.0, 3.0]
    for index in (-1, 3):
        with pytest.raises(IndexError, match="must lie in 0 to 2"):
            ops.take_along_axis(x, np.full((2, 1), index))
    for key in ([0, 0], np.array([0, 0]), np.array([True, False]), Tensor([0]), (0, [1])):
        with pytest.raises(TypeError, match="`take` picks rows"):
            x[key]
    with pytest.raises(TypeError, match="no gradient passes through int64"):
        x.astype(np.int64)
    for operation in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, ops.maximum):
        for other in (np.ones(3, np.float32), Tensor([1.0, 2.0, 3.0]), Tensor([1, 2, 3])):
            with pytest.raises(TypeError, match="do not mix; cast one of them"):
                operation(x, other)
        assert (
            operation(Tensor([1.0]), np.float64(2.0) if operation is not ops.maximum else Tensor([1.0])).dtype == "f4"
        )
    for cross_entropy in (functional.cross_entropy, tinyformer.fused.cross_entropy):
        with pytest.raises(IndexError, match="targets run from 0 to 3, and must lie in 0 to 2"):
            cross_entropy(x, np.array([0, 3]))
        with pytest.raises(TypeError, match="targets must be integers"):
            cross_entropy(x, np.array([0.0, 1.0]))
        with pytest.raises(ValueError, match="no target has a weight"):
            cross_entropy(x, np.array([0, 1]), np.zeros(2))
        with pytest.raises(ValueError, match="no target has a weight"):
            cross_entropy(x[:0], np.zeros(0, int))
        assert cross_entropy(x[:0], np.zeros(0, int), total=3.0).item() == 0.0


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda g: (g[:1],), r"wrong returned a gradient of shape \(1,\) and float64 for an input of shape \(2,\)"),
        (lambda g: (g.astype("float32"),), "and float32 for an input of shape"),
        (lambda g: (None,), "wrong has no gradient for its input"),
        (lambda g: (g[None, :, None],), "wrong returned a gradient of shape"),
        (lambda g: (g, g), r"gradient of wrong of shapes \(2,\): the vjp must return a tuple of 1"),
        (lambda g: g, "must return a tuple of 1"),
        (lambda g: (g + np.ones(3),), r"gradient of wrong of shapes \(2,\): operands could not be broadcast"),
    ],
)
def test_a_primitive_with_a_bad_gradient_is_named(gradient, message):
    @primitive
    def wrong(xp, x):
        return x * 2.0, gradient

    with pytest.raises(ValueError, match=message):
        backward(ops.sum(wrong(Tensor(np.ones(2), requires_grad=True))))


def test_numpy_scalars_on_the_left_reach_the_tensor():
    x = Tensor(np.ones(2), requires_grad=True)
    assert isinstance(np.float64(2.0) * x, Tensor)
    assert isinstance(np.ones(2) - x, Tensor)
