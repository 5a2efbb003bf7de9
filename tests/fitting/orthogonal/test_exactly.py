"""The last digits of implicit fits, which weighed equations have not."""

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.fitting.orthogonal.exactly import Place, nearer
from lmtorch.linearizations.base import Prior
from lmtorch.linearizations.blocks import Blocks
from lmtorch.rows.own import OwnRows
from lmtorch.solvers.svd import SVD

SIGMA = 0.05


def ellipse(x, a, b, c, d):  # type: ignore[no-untyped-def]  # as a user writes it
    return ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1


def points(seed: int, count: int = 20) -> np.ndarray:
    rng, angle = np.random.default_rng(seed), np.linspace(0, 4.5, count)
    ring = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    return np.asarray(ring + SIGMA * rng.standard_normal(ring.shape))


def by_lagrange(at: np.ndarray, p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Newton's method on the Lagrange conditions, whose left sides are in extended precision."""
    m = at.shape[1]

    def gradient(z: np.ndarray) -> np.ndarray:
        (a, b, c, d), force = z[:4], z[4 + 2 * m :]
        x, y = z[4 : 4 + m], z[4 + m : 4 + 2 * m]
        u, v = (x - a) / c, (y - b) / d
        shared = [-2 * u / c, -2 * v / d, -2 * u * u / c, -2 * v * v / d]
        of_x = [(x - at[0]) / SIGMA**2 + force * 2 * u / c]
        of_y = [(y - at[1]) / SIGMA**2 + force * 2 * v / d]
        return np.concatenate([[force @ one for one in shared], *of_x, *of_y, u * u + v * v - 1])

    def lagrangian(z: torch.Tensor) -> torch.Tensor:
        moved = z[4 : 4 + 2 * m].reshape(2, m)
        far = (moved - torch.tensor(at)).square().sum() / (2 * SIGMA**2)
        return far + z[4 + 2 * m :] @ ellipse(moved, *z[:4])

    slopes = 2 * (x - p[:2, None]) / p[2:, None] ** 2
    force = -(slopes * (x - at)).sum(0) / SIGMA**2 / (slopes * slopes).sum(0)
    z = np.concatenate([p, x.reshape(-1), force]).astype(np.longdouble)
    for _ in range(2):
        hessian = torch.autograd.functional.hessian(lagrangian, torch.tensor(z.astype(float)))
        z = z - np.linalg.solve(hessian.numpy(), gradient(z).astype(float))
    return np.asarray(z[:4])


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="there is no longer float here")
def test_implicit_fits_have_the_digits_of_the_lagrange_conditions() -> None:
    sets = [points(seed) for seed in (3, 5)]
    fits = [lmtorch.odr(ellipse, at, None, [1.0, 1.0, 2.0, 2.0], sx=SIGMA) for at in sets]
    both = lmtorch.odr(ellipse, np.stack(sets), None, [1.0, 1.0, 2.0, 2.0], sx=SIGMA, batch=True)
    for fit, at, of_batch in zip(fits, sets, both.popt, strict=True):
        exact = by_lagrange(at, fit.popt, fit.x_fit)
        # without these steps 1e-11 of the first was left; each shrinks that to about a seventh
        for found in (fit.popt, of_batch):
            assert np.abs(found / exact - 1).max() < 2e-13


@pytest.mark.parametrize("wrong", ["far", "nan", "steep"])
def test_a_step_that_comes_no_nearer_is_not_taken(wrong: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shared, own, x = (
        torch.randn(*shape, dtype=torch.float64, generator=generator)
        for shape in ((2, 5, 2), (2, 5, 1), (2, 7))
    )
    root = torch.cat([torch.zeros(2, 2), torch.ones(2, 5)], -1).double()

    def look(x: torch.Tensor) -> Place:  # a linear model, at whose minimum a step ends
        residual = (shared @ x[:, :2, None])[..., 0] + own[..., 0] * x[:, 2:] - 1
        model = Blocks.of(residual, OwnRows(shared, own, 1), Prior(root, root * x), x[:, 0] * 0)
        return Place(x, model, x[:, 0] * 0)

    def spoiled(x: torch.Tensor) -> Place:
        there, second = look(x), torch.tensor([[False], [True]])
        if wrong == "far":
            return there._replace(apart=torch.tensor([0.0, 2.0]))
        if wrong == "nan":
            return there._replace(apart=torch.tensor([0.0, torch.nan]))
        far = there.model._replace(residual=torch.where(second, 1e3, there.model.residual))
        return there._replace(model=far)

    here, able = look(x), torch.ones(2, dtype=torch.bool)
    found, looked = nearer(here, able, SVD(), torch.zeros(1, 5, dtype=torch.float64), spoiled)
    assert torch.equal(found.x[1], x[1])
    assert torch.equal(found.model.residual[1], here.model.residual[1])
    assert not torch.allclose(found.x[0], x[0])
    assert looked[1] == 1
    assert looked[0] >= 1
