"""How far round-off turns a gradient, by rows, beside what it does and beside bounds of norms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmtorch.core.undamped import WALK
from lmtorch.linearizations.base import Prior
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.normal import NormalForm
from lmtorch.linearizations.roundoff import RoundOffForm, turned
from lmtorch.rows.columns import Columns
from lmtorch.rows.matrix import DenseRows

F32, F64 = torch.float32, torch.float64
EPS = torch.finfo(F32).eps
T = torch.linspace(0, 3, 12, dtype=F64)


def decays(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Two decays, and their derivatives, in the dtype of x."""
    a, k, b, q = x
    first, second = torch.exp(-k * t), torch.exp(-q * t)
    columns = first, -a * t * first, second, -b * t * second
    return a * first + b * second, torch.stack(columns, -1)


@given(
    x=st.tuples(*(4 * [st.floats(-3, 3, width=32)])),
    offset=st.floats(-1, 1, width=32),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=150, deadline=None)
def test_no_slope_in_single_precision_is_further_off_than_the_rows_say(
    x: tuple[float, ...], offset: float, seed: int
) -> None:
    """Beside the same in double precision; sixteen times the sum is what the certificate allows."""
    y = decays(torch.tensor(x, dtype=F64), T)[0].to(F32) + offset
    directions = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    slopes = []
    for dtype in (F32, F64):
        values, J = decays(torch.tensor(x, dtype=dtype), T.to(F32).to(dtype))
        slopes.append((J.mT @ (values - y.to(dtype))).to(F64))
    residual = values - y.to(F64)
    found = turned(residual, DenseRows(J), directions, torch.tensor(x, dtype=F64)).worst
    # entries of J are rounded, too: exp(z) by z units, and z is up to nine
    of_columns = (J.abs().mT @ residual.abs()) @ directions.abs()
    apart = ((slopes[0] - slopes[1]) @ directions).abs()
    assert bool((apart <= 16 * EPS * (found + of_columns) + 1e-30).all())


def test_roundings_of_many_rows_are_a_random_walk_and_far_below_their_worst() -> None:
    """Slopes in single precision beside double, of 400 rows and 300 decays."""
    g = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 3, 400, dtype=F64)
    apart, walks, worst = [], [], []
    for _ in range(300):
        x = (4 * torch.rand(4, generator=g, dtype=F64) - 1).to(F32)
        y = decays(x.to(F64), t)[0].to(F32) + 0.1 * torch.randn(400, generator=g)
        direction = torch.randn(4, 1, generator=g, dtype=F64)
        slopes = []
        for dtype in (F32, F64):
            values, J = decays(x.to(dtype), t.to(F32).to(dtype))
            # products in double, as those of the last look are
            slopes.append(J.to(F64).mT @ (values - y.to(dtype)).to(F64))
        residual = values - y.to(F64)
        found = turned(residual, DenseRows(J), direction, x.to(F64))
        apart.append(float((slopes[0] - slopes[1]) @ direction))
        walks.append(float(EPS * found.walk.sqrt()))
        worst.append(float(EPS * found.worst))
    share = torch.tensor(apart).abs() / torch.tensor(walks)
    assert float(share.median()) > 0.05
    assert float(share.max()) < WALK
    assert bool((torch.tensor(worst) > WALK * torch.tensor(walks)).double().mean() > 0.5)


@given(seed=st.integers(0, 2**16), spread=st.floats(0, 9))
@settings(max_examples=50, deadline=None)
def test_the_sum_is_what_the_worst_rounding_of_each_row_does_and_below_that_of_norms(
    seed: int, spread: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(9, 4, generator=g, dtype=F64)
    J = J * 10 ** (spread * torch.rand(9, 4, generator=g, dtype=F64))
    r, x = torch.randn(9, generator=g, dtype=F64), torch.randn(4, generator=g, dtype=F64)
    directions = torch.randn(4, 2, generator=g, dtype=F64)
    found, walk, length = turned(r, DenseRows(J), directions, x)
    row = r.abs() + (J * x).abs().sum(-1)
    for k, t in enumerate(directions.unbind(-1)):
        moved = J @ t
        worst = row * moved.sign()
        torch.testing.assert_close(found[k], t @ (J.mT @ worst), rtol=1e-6, atol=0)
        assert found[k] <= 1.001 * moved.norm() * row.norm()
        torch.testing.assert_close(length[k], moved @ moved, rtol=1e-6, atol=0)
        entries = (J * t).abs().sum(-1) * r
        squares = (moved * row) @ (moved * row) + entries @ entries
        torch.testing.assert_close(walk[k], squares, rtol=1e-6, atol=0)


def test_where_one_row_carries_a_column_the_others_are_not_blamed_for_it() -> None:
    """The last row of a valley: norms would have it hide a million times as much."""
    J = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1e9, 3.0]], dtype=F64)
    # along the valley the last row stays as it is
    along = torch.tensor([[-3e-9], [1.0]], dtype=F64)
    found = turned(torch.ones(3, dtype=F64), DenseRows(J), along, torch.ones(2, dtype=F64)).worst
    of_norms = (J @ along).norm() * J.norm()
    assert 1 < float(found) < 1e-6 * float(of_norms)


@pytest.mark.parametrize("batch", [(), (5,)])
def test_blocks_columns_and_a_prior_say_what_whole_rows_say(batch: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    J = torch.randn(*batch, 9, 4, generator=g, dtype=F64)
    J[..., 2] = 0.0
    r = torch.randn(*batch, 9, generator=g, dtype=F64)
    x, root = (torch.randn(*batch, 4, generator=g, dtype=F64) for _ in range(2))
    directions = torch.randn(*batch, 4, 3, generator=g, dtype=F64)
    below = torch.cat([J, torch.diag_embed(root)], -2), torch.cat([r, root * x], -1)
    expected = turned(below[1], DenseRows(below[0]), directions, x)
    prior = Prior(root, root * x)
    cost = r.square().sum(-1) / 2
    for form in (DenseForm(), NormalForm()):
        asked = form.of_roundoff(directions, x)
        assert isinstance(asked, RoundOffForm)
        accumulator = asked.accumulator(tuple(x.shape), 9, x)
        accumulator.add(r[..., :4], DenseRows(J[..., :4, :]))
        columns = [None if i == 2 else c for i, c in enumerate(J[..., 4:, :].unbind(-1))]
        accumulator.add(r[..., 4:], Columns(tuple(columns)))
        found = accumulator.finish(cost, prior).found
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    whole = DenseForm().accumulator(tuple(x.shape), 9, x)
    whole.add(r, DenseRows(J))
    found = whole.finish(cost, prior).turned(directions, x)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
