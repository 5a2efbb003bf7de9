"""Cholesky: where a matrix is not definite."""

import torch

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
