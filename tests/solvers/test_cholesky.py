"""Cholesky: where a matrix is not definite."""

import pytest
import torch
from torch import Tensor

from lmtorch.linearizations.normal import Normal
from lmtorch.solvers.cholesky import Cholesky


def test_cholesky_of_an_indefinite_or_singular_matrix_gives_nan_and_a_neighbour_its_step() -> None:
    indefinite, singular, good = (
        [[1.0, 2.0], [2.0, 1.0]],
        [[1.0, 2.0], [2.0, 4.0]],
        [[2.0, 1.0], [1.0, 2.0]],
    )
    normal = torch.tensor([indefinite, good, singular], dtype=torch.float64)
    gradient = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    factor = Cholesky().factor(
        Normal(normal, torch.ones(3, dtype=torch.float64), gradient), torch.ones_like(gradient)
    )
    zero = torch.zeros(3, dtype=torch.float64)
    solution = factor.solve(gradient, zero)
    for answer in (factor.step(zero), -solution):
        assert answer[[0, 2]].isnan().all()
        torch.testing.assert_close(answer[1], torch.tensor([-2 / 3, 1 / 3], dtype=torch.float64))
    length, slope = factor.length(zero)
    assert length.isnan().tolist() == slope.isnan().tolist() == [True, False, True]
    # enough damping makes every one of them definite
    damped = factor.step(torch.full_like(zero, 2.0))
    matrices = normal + 2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close((matrices @ damped[..., None])[..., 0], -gradient)


def equations(condition: float, size: int = 60) -> tuple[Tensor, Tensor]:
    """A matrix of this condition, with columns of very different length, and a right-hand side."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(size, size, dtype=torch.float64, generator=generator)
    q = torch.linalg.qr(drawn).Q
    decay = condition ** -torch.linspace(0, 1, size, dtype=torch.float64)
    units = 10.0 ** torch.linspace(-25, 25, size, dtype=torch.float64)
    matrix = units * ((q * decay) @ q.mT) * units[:, None]
    return (matrix + matrix.mT) / 2, units * torch.randn(size, dtype=torch.float64)


@pytest.mark.parametrize(("condition", "rough"), [(1e4, True), (1e10, False)])
def test_a_refined_solution_has_the_digits_of_float64(condition: float, rough: bool) -> None:
    normal, gradient = equations(condition)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones_like(gradient)
    model = Normal(normal, zero + 1, gradient)
    plain = Cholesky().factor(model, one)
    factor = Cholesky(refined=True).factor(model, one)
    torch.testing.assert_close(factor.step(zero), plain.step(zero), rtol=1e-14 * condition, atol=0)
    # where float32 does not lead there, the factors are those of float64
    assert (factor.last is None) is rough


def test_a_refined_solution_of_a_singular_matrix_is_nan() -> None:
    model = Normal(
        torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64),
        torch.ones((), dtype=torch.float64),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
    )
    factor = Cholesky(refined=True).factor(model, torch.ones(2, dtype=torch.float64))
    assert factor.step(torch.zeros((), dtype=torch.float64)).isnan().all()
