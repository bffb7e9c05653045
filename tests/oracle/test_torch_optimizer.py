"""Twenty steps of AdamW with clipping against torch's."""

import numpy as np
import pytest
import torch

from tinyformer import Tensor
from tinyformer.training.optimizer import AdamW, FlatParameters, clip_scale

pytestmark = pytest.mark.oracle

SHAPES = {"bias": (3,), "weight": (4, 3), "scale": (), "table": (2, 3, 2), "gain": (5,)}


def test_twenty_steps_equal_torch():
    rng = np.random.default_rng(3)
    given = {n: Tensor(np.asarray(rng.standard_normal(s)), requires_grad=True) for n, s in SHAPES.items()}
    theirs = {name: torch.tensor(tensor.numpy().copy(), requires_grad=True) for name, tensor in given.items()}
    flat = FlatParameters(given)
    optimizer = AdamW.of(flat, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs.values() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for step in range(1, 21):
        gradients = {name: rng.standard_normal(tensor.shape) for name, tensor in given.items()}
        flat.accumulate({given[name]: np.asarray(g) for name, g in gradients.items()}, first=True)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name], dtype=torch.float64).reshape(parameter.shape)
        norm = flat.gradient_norm()
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)))
        optimizer.update(flat, learning_rate=0.01, step=step, gradient_scale=clip_scale(norm, 1.0))
        reference.step()
    for name, tensor in given.items():  # torch adds 1e-6 to the norm that it clips by
        np.testing.assert_allclose(tensor.numpy(), theirs[name].detach().numpy(), rtol=1e-5, atol=1e-7)
