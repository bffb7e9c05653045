"""Backpropagation, first by hand and then by `backward`.

A computation is a chain of small steps. The derivative of the whole is the product of the derivatives of the steps,
multiplied from the end backwards; that is all `tinyformer/tensor.py` does. Here one chain is walked by hand, with
numbers, next to what the library finds; then a neuron learns from its gradient; then comes an expression that
another small autograd engine made well known (github.com/karpathy/micrograd), with the gradients printed there.

Run: `python examples/01_backprop.py`. Read next: `tinyformer/tensor.py`, then `02_attention.py`.
"""

import math

import numpy as np

from tinyformer import Tensor, functional


def variable(value):
    """A number that gradients can be taken with respect to."""
    return Tensor(np.float64(value), requires_grad=True)


def by_hand():
    """One neuron, L = (tanh(w x + b) - y)²: the forward values, then the derivatives, from the end."""
    x, y, w, b = 0.5, 1.0, -1.2, 0.3

    product = w * x
    inside = product + b
    output = math.tanh(inside)
    error = output - y
    loss = error**2

    d_error = 2 * error  # L = error², so ∂L/∂error = 2 error
    d_output = d_error * 1  # error = output - y
    d_inside = d_output * (1 - output**2)  # tanh' = 1 - tanh²
    d_product, d_b = d_inside * 1, d_inside * 1  # a sum hands its gradient on to both
    d_w, d_x = d_product * x, d_product * w  # a product hands each factor the other one

    leaves = {"x": variable(x), "w": variable(w), "b": variable(b)}
    recorded = ((leaves["w"] * leaves["x"] + leaves["b"]).tanh() - y) ** 2
    recorded.backward()
    print(f"One neuron: the loss is {loss:.6f} by hand, {recorded.item():.6f} recorded.")
    print("        ∂L/∂ by hand   by backward()")
    for name, gradient in {"w": d_w, "b": d_b, "x": d_x}.items():
        print(f"  {name} {gradient:18.6f} {leaves[name].grad:15.6f}")


def learning(steps=30):
    """Follow the slope downhill: two inputs, and a neuron that learns to answer "and"."""
    inputs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    answers = np.array([0.0, 0.0, 0.0, 1.0])
    weights, bias = Tensor(np.zeros(2), requires_grad=True), variable(0.0)
    print("\nA neuron learns `and`:")
    for step in range(steps + 1):
        says = functional.sigmoid(Tensor(inputs) @ weights + bias)
        loss = functional.mean((says - answers) ** 2)
        if step % 10 == 0:
            print(f"  step {step:2}   loss {loss.item():.4f}   answers {np.round(says.numpy(), 2)}")
        loss.backward()
        for parameter in (weights, bias):
            parameter.array = parameter.array - 10.0 * parameter.grad
            parameter.grad = None  # otherwise the next backward() would add to it


def longer_expression():
    """Values that are used several times: the gradients that reach them over every path add up."""
    a, b = variable(-4.0), variable(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + functional.relu(b + a)
    d += 3 * d + functional.relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    print(f"\nA longer expression: g = {g.item():.4f}, ∂g/∂a = {a.grad:.4f}, ∂g/∂b = {b.grad:.4f}")


if __name__ == "__main__":
    by_hand()
    learning()
    longer_expression()
