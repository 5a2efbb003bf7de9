"""Curvature of points with variables of their own, held to the same matrix written out."""

from typing import Any

import pytest
import torch

from lmtorch.arrays import arrays_of, quiet
from lmtorch.core.spectrum import Whole
from lmtorch.linearizations.arrow import Arrow
from tests.references import written_out


def arrow(k: int, *lead: int, low: float = 3.0) -> Arrow:
    """Blocks of four points and three shared variables; `low` is about the least curvature."""
    torch.manual_seed(k)
    n, m = 3, 4
    shared, border, own = (
        torch.randn(*lead, *shape, dtype=torch.float64) for shape in ((n, n), (n, m, k), (m, k, k))
    )
    eye = torch.eye(k, dtype=torch.float64)
    return Arrow(
        shared @ shared.mT + low * 4 * torch.eye(n, dtype=torch.float64),
        border,
        own @ own.mT + low * eye,
    )


@pytest.mark.parametrize("lead", [(), (2,)], ids=["one", "batch"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_steps_and_promises_are_those_of_the_matrix_written_out(k: int, lead: Any) -> None:
    """Newton's step, what it promises, and the diagonal."""
    matrix = arrow(k, *lead)
    whole = written_out(matrix)
    torch.testing.assert_close(matrix.diagonal, whole.diagonal(dim1=-2, dim2=-1))
    g = torch.randn(*lead, whole.shape[-1], dtype=torch.float64)
    found = matrix.spectrum(matrix.finite)
    along = found.along(g)
    expected = torch.linalg.solve(whole, g)
    torch.testing.assert_close(found.back(along / found.every), expected)
    torch.testing.assert_close((along * along / found.every).sum(-1), (g * expected).sum(-1))
    assert bool((found.lowest > 0).all())
    bent = (found.vectors.mT @ whole @ found.vectors).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(bent, found.values)


@pytest.mark.parametrize("k", [1, 2])
def test_the_same_on_arrays(k: int) -> None:
    """One small problem runs on NumPy."""
    matrix = arrow(k)
    g = torch.randn(3 + 4 * k, dtype=torch.float64)
    ours = matrix.spectrum(matrix.finite)
    with quiet():
        there = arrays_of(matrix)
        theirs = there.spectrum(there.finite)
        for name in ("every", "vectors"):
            found = abs(torch.as_tensor(getattr(theirs, name)))
            torch.testing.assert_close(found, abs(getattr(ours, name)))
        along = theirs.along(g.numpy())
        step = theirs.back(along / theirs.every)
    torch.testing.assert_close(torch.as_tensor(step), ours.back(ours.along(g) / ours.every))


@pytest.mark.parametrize("place", ["shared", "own", "later", "both"])
def test_a_negative_curvature_is_seen_wherever_it_lies(place: str) -> None:
    """Sylvester's law: as many negative values as eigenvalues of the matrix written out."""
    matrix = arrow(2)
    shared, border, own = (part.clone() for part in matrix)
    if place == "shared":
        shared -= 25 * torch.eye(3)
    elif place == "own":
        own[1, 0, 0] = -2.0
    elif place == "later":
        own[2, 1, 1] = -9.0
    else:
        border[0] *= 12.0  # each block is positive definite by itself
    bent = Arrow(shared, border, own)
    assert float(torch.linalg.eigvalsh(written_out(bent))[0]) < 0
    assert float(bent.spectrum(bent.finite).lowest) < 0


def test_the_error_of_a_gradient_is_no_less_than_what_it_makes() -> None:
    """Any gradient within the error is seen off by no more than the sum of what is said."""
    matrix = arrow(2)
    found = matrix.spectrum(matrix.finite)
    unclear = torch.rand(11, dtype=torch.float64)
    for place in range(11):
        one = torch.zeros(11, dtype=torch.float64)
        one[place] = unclear[place]
        assert bool((found.along(one).abs() <= found.error(unclear) + 1e-12).all())


def test_rows_outside_what_is_free_are_zero_as_of_a_whole_matrix() -> None:
    """A variable at its bound takes part in nothing."""
    matrix = arrow(2)
    free = torch.ones(11, dtype=torch.bool)
    free[1] = free[6] = False
    expected = Whole(written_out(matrix)).between(free).matrix
    torch.testing.assert_close(written_out(matrix.between(free)), expected)
    units = torch.rand(11, dtype=torch.float64) + 0.5
    scaled = Whole(written_out(matrix)).scaled(units).matrix
    torch.testing.assert_close(written_out(matrix.scaled(units)), scaled)


def test_what_is_not_finite_gives_no_exception() -> None:
    """LAPACK is given the identity, and who asked knows."""
    matrix = arrow(2, 2)
    matrix.own[0, 1, 0, 0] = torch.nan
    assert matrix.finite.tolist() == [False, True]
    found = matrix.spectrum(matrix.finite)
    assert bool(found.values.isfinite().all())
