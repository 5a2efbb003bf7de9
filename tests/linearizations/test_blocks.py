"""The blocks of a fit with errors in x: the same numbers as the matrix written out."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lmtorch._errors import InputError
from lmtorch.arrays import arrays_of, quiet, tensors_of
from lmtorch.damping.base import LinearModel
from lmtorch.damping.trust_region import TrustRegion, TrustRegionState
from lmtorch.linearizations.base import Prior
from lmtorch.linearizations.blocks import Blocks, BlocksForm
from lmtorch.rows.base import richest
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.own import OwnRows
from lmtorch.solvers.schur import Schur, SchurFactor

sizes = given(
    m=st.integers(1, 6),
    n=st.integers(1, 4),
    k=st.integers(1, 3),
    q=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    exact=st.booleans(),
    lead=st.sampled_from([(), (2,)]),
)
EPS = torch.finfo(torch.float64).eps


def drawn(
    m: int, n: int, k: int, seed: int, exact: bool, q: int = 1, lead: tuple[int, ...] = ()
) -> tuple[Blocks, Tensor, Tensor, Tensor, Tensor]:
    """Blocks, J and (r, e) in full, D and λ; with `exact` the first x has no error."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn((*lead, *shape), dtype=torch.float64, generator=generator)

    weights, points, errors = draw(m, k).exp(), draw(q, m, k), draw(m, k)
    if exact:
        weights[..., 0, :], points[..., 0, :], errors[..., 0, :] = 0.0, 0.0, 0.0
    residual, parameters = draw(q * m), draw(q * m, n)
    zero = draw(n) * 0
    flat, far = weights.flatten(-2), errors.flatten(-2)
    blocks = Blocks.of(
        residual,
        OwnRows(parameters, points.flatten(-3, -2), q),
        Prior(torch.cat([zero, flat], -1), torch.cat([zero, far], -1)),
        (residual.square().sum(-1) + far.square().sum(-1)) / 2,
    )
    of_points = torch.zeros(*lead, q * m, m * k, dtype=torch.float64)
    for j in range(q):
        for i in range(m):
            of_points[..., j * m + i, i * k : (i + 1) * k] = points[..., j, i, :]
    above = torch.cat([parameters, of_points], -1)
    below = torch.cat([draw(m * k, n) * 0, torch.diag_embed(flat)], -1)
    return (
        blocks,
        torch.cat([above, below], -2),
        torch.cat([residual, far], -1),
        draw(n + m * k).exp(),
        draw().exp(),
    )


@sizes
def test_it_answers_as_the_matrix_does(
    m: int, n: int, k: int, q: int, seed: int, exact: bool, lead: tuple[int, ...]
) -> None:
    blocks, matrix, vector, step, _ = drawn(m, n, k, seed, exact, q, lead)
    torch.testing.assert_close(blocks.gradient, (matrix.mT @ vector[..., None])[..., 0])
    torch.testing.assert_close(blocks.column_norms, torch.linalg.vector_norm(matrix, dim=-2))
    moved = (matrix @ step[..., None])[..., 0]
    torch.testing.assert_close(blocks.squared_length(step), moved.square().sum(-1))
    torch.testing.assert_close(blocks.rows.dense(), matrix[..., : q * m, :])


@sizes
def test_the_solver_solves_the_damped_normal_equations(
    m: int, n: int, k: int, q: int, seed: int, exact: bool, lead: tuple[int, ...]
) -> None:
    blocks, matrix, vector, scale, damping = drawn(m, n, k, seed, exact, q, lead)
    normal = matrix.mT @ matrix + damping[..., None, None] * torch.diag_embed(scale**2)
    factor = Schur().factor(blocks, scale)
    used = torch.linalg.vector_norm(matrix, dim=-2) > 0
    step, rhs = factor.step(damping), torch.where(used, torch.cos(scale), 0.0)
    room = 100 * EPS * torch.linalg.cond(normal)
    norm = partial(torch.linalg.vector_norm, dim=-1)
    expected = torch.linalg.solve(normal, -(matrix.mT @ vector[..., None]))[..., 0]
    assert (norm(step - expected) <= room * norm(expected)).all()
    expected = torch.linalg.solve(normal, rhs[..., None])[..., 0]
    found = factor.solve(rhs, damping)
    assert (norm(found - expected) <= room * norm(expected)).all()


@sizes
def test_what_is_left_is_the_schur_complement(
    m: int, n: int, k: int, q: int, seed: int, exact: bool, lead: tuple[int, ...]
) -> None:
    blocks, matrix, *_ = drawn(m, n, k, seed, False, q, lead)
    normal = matrix.mT @ matrix
    whole, corner, of_own = normal[..., :n, :n], normal[..., :n, n:], normal[..., n:, n:]
    expected = whole - corner @ torch.linalg.solve(of_own, corner.mT)
    reduced = blocks.reduced()
    rows = reduced.dense.jacobian
    torch.testing.assert_close(rows.mT @ rows, expected)
    root, own = reduced.root, blocks.rows.by_point.movedim(-3, -2)  # (..., m, q, k)
    across = torch.eye(q, dtype=root.dtype) + own * reduced.inverse[..., None, :] @ own.mT
    torch.testing.assert_close(
        root @ across @ root.mT, torch.eye(q, dtype=root.dtype).expand_as(across)
    )


@sizes
def test_what_is_apart_is_left_where_the_points_alone_have_moved(
    m: int, n: int, k: int, q: int, seed: int, exact: bool, lead: tuple[int, ...]
) -> None:
    blocks, jacobian, residual, *_ = drawn(m, n, k, seed, exact, q, lead)
    of_points = jacobian[..., n:]
    # driver of a rank that may lack: the columns of an exact x are empty
    moved = torch.linalg.lstsq(of_points, -residual[..., None], driver="gelsd").solution
    left = (residual + (of_points @ moved)[..., 0]).square().sum(-1)
    # LAPACK resolves what is left to the squared condition of a point's own equations
    assert_close(blocks.apart, left, rtol=1e-9, atol=1e-12)


def test_the_length_falls_as_its_derivative_says() -> None:
    blocks, _, _, scale, damping = drawn(6, 3, 2, 0, False)
    factor, h = Schur().factor(blocks, scale), 1e-5
    length, slope = factor.length(damping)
    ahead, behind = factor.length(damping + h)[0], factor.length(damping - h)[0]
    torch.testing.assert_close(length, torch.linalg.vector_norm(scale * factor.step(damping)))
    # truncation h²
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=1e-8, atol=0)


def test_frozen_variables_do_not_move() -> None:
    blocks, _, _, scale, damping = drawn(5, 3, 1, 1, False)
    free = torch.ones(8, dtype=torch.bool)
    free[1] = False
    step = Schur().factor(blocks.freeze(free), scale).step(damping)
    assert step[1] == 0
    assert (step[free] != 0).all()


def test_it_is_made_of_the_rows_of_some_points_at_a_time() -> None:
    blocks, _, _, _, _ = drawn(7, 2, 3, 4, True)
    accumulator = BlocksForm().accumulator((2 + 7 * 3,), 7, blocks.residual)
    for some in (slice(0, 3), slice(3, 7)):
        rows = OwnRows(blocks.rows.shared[some], blocks.rows.own[some])
        accumulator.add(blocks.residual[some], rows)
    made = accumulator.finish(blocks.cost, blocks.prior)
    torch.testing.assert_close(made.gradient, blocks.gradient)
    torch.testing.assert_close(made.normal, blocks.normal)


def test_rows_without_own_columns_are_refused() -> None:
    with pytest.raises(
        InputError, match="takes OwnRows, and the source of derivatives gives Dense"
    ):
        richest((DenseRows,), BlocksForm().accumulator((3,), 5, torch.empty(0)).kinds)


def test_a_variable_that_nothing_holds_has_no_undamped_step() -> None:
    blocks, _, _, scale, _ = drawn(4, 2, 1, 3, False)
    weights = blocks.prior.root.clone()
    weights[2] = 0.0
    prior = Prior(weights, blocks.prior.residual)
    loose = Blocks.of(blocks.residual, blocks.rows, prior, blocks.cost)
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert Schur().factor(loose, scale).step(zero).isnan().any()
    damping = torch.tensor(0.3, dtype=torch.float64)
    matrix = torch.cat([loose.rows.dense(), weights.diag()])
    normal = matrix.mT @ matrix + 0.3 * (scale**2).diag()
    expected = torch.linalg.solve(normal, -loose.gradient)
    torch.testing.assert_close(Schur().factor(loose, scale).step(damping), expected)


@sizes
def test_on_arrays_it_says_the_same(
    m: int, n: int, k: int, q: int, seed: int, exact: bool, lead: tuple[int, ...]
) -> None:
    """One small problem is made of one array, and of one row a point by fewer operations."""
    blocks, _, _, scale, damping = drawn(m, n, k, seed, exact, q)
    held = n % 2 == 1  # the shared parameters have a prior of their own as well
    shared = torch.full((n,), 0.5 * held, dtype=torch.float64)
    prior = Prior(*(torch.cat([shared, part[n:]]) for part in blocks.prior))
    blocks = Blocks.of(blocks.residual, blocks.rows, prior, blocks.cost)
    both = blocks.rows.above(blocks.residual).contiguous().numpy()
    given = arrays_of((blocks.cost, prior))
    with quiet():
        arrays = BlocksForm(k).whole(both, *given, None)
        dense = arrays.condensed
        step = Schur().factor(arrays, scale.numpy()).step(arrays_of(damping))
        apart = arrays.apart
    expected = blocks.condensed
    assert_close(tensors_of(apart), blocks.apart)
    assert_close(tensors_of(arrays.gradient), blocks.gradient)
    assert_close(tensors_of(arrays.column_norms), blocks.column_norms)
    for name in ("residual", "jacobian", "gradient", "column_norms"):
        assert_close(tensors_of(getattr(dense, name)), getattr(expected, name))
    assert_close(
        tensors_of(step), Schur().factor(blocks, scale).step(damping), rtol=1e-6, atol=1e-8
    )


def test_a_step_that_is_short_enough_is_solved_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The derivative of its length would take another solve, and nobody asks for it."""
    blocks, _, _, scale, _ = drawn(6, 2, 1, 0, exact=False)
    calls: list[str] = []
    for name in ("_step", "solve"):
        plain = getattr(SchurFactor, name)
        monkeypatch.setattr(
            SchurFactor, name,
            lambda *given, name=name, plain=plain: calls.append(name) or plain(*given),
        )  # fmt: skip
    factor = Schur().factor(blocks, scale)
    model = LinearModel(blocks, scale, factor, torch.zeros_like)
    far = torch.tensor(1e3, dtype=torch.float64)
    state = TrustRegionState(torch.zeros_like(far), far, torch.tensor(False))
    TrustRegion().propose(model, state)
    assert calls == ["_step"]
    TrustRegion().propose(model, state._replace(radius=far * 1e-5))
    assert calls.count("solve") > 0
