"""The arrow of a fit with errors in x: the same numbers as the matrix written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch._errors import InputError
from lmtorch.linearizations.blocks import Arrow, ArrowForm
from lmtorch.solvers.schur import Arrow as ArrowSolver

sizes = given(
    m=st.integers(1, 8),
    n=st.integers(1, 4),
    k=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    exact=st.booleans(),
)
EPS = torch.finfo(torch.float64).eps


def drawn(
    m: int, n: int, k: int, seed: int, exact: bool
) -> tuple[Arrow, Tensor, Tensor, Tensor, Tensor]:
    """An arrow, J and (r, e) in full, D and λ; with `exact` the first x has no error."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    weights, points, errors = draw(m, k).exp(), draw(m, k), draw(m, k)
    if exact:
        weights[0], points[0], errors[0] = 0.0, 0.0, 0.0
    residual, parameters = draw(m), draw(m, n)
    arrow = Arrow(
        residual,
        errors,
        parameters,
        points,
        weights,
        (residual.square().sum() + errors.square().sum()) / 2,
    )
    of_points = torch.zeros(m, m * k, dtype=torch.float64)
    for i in range(m):
        of_points[i, i * k : (i + 1) * k] = points[i]
    above = torch.cat([parameters, of_points], 1)
    below = torch.cat([torch.zeros(m * k, n, dtype=torch.float64), weights.flatten().diag()], 1)
    matrix = torch.cat([above, below])
    return (
        arrow,
        matrix,
        torch.cat([residual, errors.flatten()]),
        draw(n + m * k).exp(),
        draw().exp(),
    )


@sizes
def test_it_answers_as_the_matrix_does(m: int, n: int, k: int, seed: int, exact: bool) -> None:
    arrow, matrix, vector, step, _ = drawn(m, n, k, seed, exact)
    torch.testing.assert_close(arrow.gradient, matrix.mT @ vector)
    torch.testing.assert_close(arrow.column_norms, torch.linalg.vector_norm(matrix, dim=0))
    torch.testing.assert_close(arrow.squared_length(step), (matrix @ step).square().sum())


@sizes
def test_the_solver_solves_the_damped_normal_equations(
    m: int, n: int, k: int, seed: int, exact: bool
) -> None:
    arrow, matrix, vector, scale, damping = drawn(m, n, k, seed, exact)
    normal = matrix.mT @ matrix + damping * (scale**2).diag()
    factor = ArrowSolver().factor(arrow, scale)
    used = torch.linalg.vector_norm(matrix, dim=0) > 0
    step, rhs = factor.step(damping), torch.where(used, torch.cos(scale), 0.0)
    room = 100 * EPS * torch.linalg.cond(normal)
    expected = torch.linalg.solve(normal, -matrix.mT @ vector)
    assert torch.linalg.vector_norm(step - expected) <= room * torch.linalg.vector_norm(expected)
    expected = torch.linalg.solve(normal, rhs)
    found = factor.solve(rhs, damping)
    assert torch.linalg.vector_norm(found - expected) <= room * torch.linalg.vector_norm(expected)


def test_the_length_falls_as_its_derivative_says() -> None:
    arrow, _, _, scale, damping = drawn(6, 3, 2, 0, False)
    factor, h = ArrowSolver().factor(arrow, scale), 1e-5
    length, slope = factor.length(damping)
    ahead, behind = factor.length(damping + h)[0], factor.length(damping - h)[0]
    torch.testing.assert_close(length, torch.linalg.vector_norm(scale * factor.step(damping)))
    # truncation h²
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=1e-8, atol=0)


def test_frozen_variables_do_not_move() -> None:
    arrow, _, _, scale, damping = drawn(5, 3, 1, 1, False)
    free = torch.ones(8, dtype=torch.bool)
    free[1] = False
    step = ArrowSolver().factor(arrow.freeze(free), scale).step(damping)
    assert step[1] == 0
    assert (step[free] != 0).all()


def test_there_are_no_whole_rows() -> None:
    with pytest.raises(InputError, match="errors in x"):
        ArrowForm().accumulator((3,), 5, torch.empty(0))
