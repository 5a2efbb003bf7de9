"""Fits in several threads are those of one, bit for bit, though torch keeps some things once."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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


@contextmanager
def threads_of_torch(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_fits_end_alike_whether_torch_splits_its_sums_or_not():
    t, ys = curves(3)
    long = torch.linspace(0, 4, 40_000, dtype=F64)  # split among threads, which sums of 40 are not
    many = decay(long, 1.2, 0.8, 0.4) + 0.01 * torch.sin(1e4 * long * long)

    def ends():
        one = lmtorch.curve_fit(decay, t, ys[0])
        batch = lmtorch.curve_fit(decay, t, torch.stack(ys), p0=[1.0, 1.0, 0.0])
        rows = lmtorch.curve_fit(decay, long, many)
        net = nn.Linear(1, 1, dtype=F64)
        nn.init.constant_(net.weight, 0.5)
        nn.init.constant_(net.bias, 0.1)
        opt = lmtorch.LevenbergMarquardt(net)
        for _ in range(4):
            opt.step(lambda: net(long[:, None]).exp() - many[:, None])
        fits = [(found.popt, found.status) for found in (one, batch, rows)]
        return [*fits, (nn.utils.parameters_to_vector(net.parameters()).detach(), opt.status)]

    with threads_of_torch(1):
        alone = ends()
    with threads_of_torch(2):
        split = ends()
    for (x, status), (other, told) in zip(alone, split, strict=True):
        torch.testing.assert_close(other, x, rtol=1e-10, atol=0)
        assert torch.equal(torch.as_tensor(told), torch.as_tensor(status))


def test_warnings_come_after_fits_in_threads_as_before():
    before = list(warnings.filters)
    t, ys = curves(12)

    def fit(y):
        return lmtorch.curve_fit(decay, t.numpy(), y.numpy()).confidence_band(t.numpy())

    in_threads(fit, ys)
    assert warnings.filters == before
