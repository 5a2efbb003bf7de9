"""Fits in several threads are those of one, bit for bit, though torch keeps some things once."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import lmtorch

F64 = torch.float64


def decay(t, a, b, c):
    return a * torch.exp(-b * t) + c


def curves(count):
    t = torch.linspace(0, 4, 40, dtype=F64)
    generator = torch.Generator().manual_seed(5)
    rows = torch.rand(count, 3, dtype=F64, generator=generator) + 0.5
    noise = 0.01 * torch.randn(count, 40, dtype=F64, generator=generator)
    return t, [decay(t, *row) + e for row, e in zip(rows, noise, strict=True)]


def in_threads(task, given):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(task, given))


def test_fits_in_four_threads_are_those_of_one():
    t, ys = curves(120)

    def fit(y):
        found = lmtorch.curve_fit(decay, t, y)
        return found.popt, found.pcov

    alone = [fit(y) for y in ys]
    for one, other in zip(alone, in_threads(fit, ys), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("jacobian", ["auto", "forward"])
def test_optimizers_in_threads_end_where_one_alone_ends(jacobian):
    def train(seed):
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).to(F64)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, dtype=F64, generator=generator))
        x = torch.linspace(-1, 1, 30, dtype=F64)[:, None]
        opt = lmtorch.LevenbergMarquardt(model, jacobian=jacobian)
        for _ in range(6):
            opt.step(lambda: model(x) - (3 * x).sin())
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    alone = [train(seed) for seed in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(alone, in_threads(train, range(6)), strict=True))


def test_operators_in_threads_are_those_of_one():
    x = torch.linspace(-1, 1, 12, dtype=F64).reshape(4, 3)

    def operators(scale):
        def f(x):
            return torch.linalg.vector_norm(scale * x, dim=-1).sin()

        return [
            lmtorch.batch_jacobian(f, x, mode="forward"),
            lmtorch.batch_hessian(f, x, mode="forward"),
            lmtorch.laplacian(f, x, mode="forward"),
        ]

    scales = [1 + i / 10 for i in range(20)]
    alone = [operators(scale) for scale in scales]
    for one, other in zip(alone, in_threads(operators, scales), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_warnings_come_after_fits_in_threads_as_before():
    before = list(warnings.filters)
    t, ys = curves(12)

    def fit(y):
        return lmtorch.curve_fit(decay, t.numpy(), y.numpy()).confidence_band(t.numpy())

    in_threads(fit, ys)
    assert warnings.filters == before
