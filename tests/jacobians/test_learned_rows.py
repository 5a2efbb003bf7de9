"""Blocks of rows by a record of a few: the function's own numbers, or the function itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import choose
from lmtorch.jacobians.dual_numbers import _taken_of
from lmtorch.jacobians.learned_rows import MANY, LearnedRows
from lmtorch.minimising import row_blocks, run

ROWS = 3 * MANY
Model = Callable[[Tensor, Tensor], Tensor]


def peaks(p: Tensor, x: Tensor) -> Tensor:
    """Two peaks on a line, whose parameters are used in another order than they stand."""
    found = p[7] + p[6] * x
    for i in (1, 0):
        found = found + p[4 + i] * torch.exp(-(((x - p[2 + i]) / p[i]) ** 2) / 2)
    return found


def decays(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * torch.exp(-x / p[1]) - 2 * p[2] / (1 + (x * p[3]) ** 2) + torch.sin(p[4] - x)


def mask(p: Tensor, x: Tensor) -> Tensor:
    return torch.where(x > p[0], p[1] * x, p[2] * torch.tanh(x)) + p[3].abs() * x.square()


def column(p: Tensor, x: Tensor) -> Tensor:
    wide = x[:, None] * 0.5
    return (p[0] * wide + p[1] / (1 + wide**2)).reshape(-1)


def falling(p: Tensor, x: Tensor) -> Tensor:
    """Numbers less what a row has, which is no sum of their factors: 1 − σ, 4 − x, 3 − x, x − 1."""
    steps = p[0] * torch.sigmoid(x - p[1]) + torch.tanh(p[2] * x)
    return steps * (4 - p[3] * x) - (3 - x) / (2 + x) + torch.square((0.5 - x) - p[4]) * (x - 1)


POINT = torch.tensor([0.3, 0.2, 0.4, 1.3, 2.0, 1.0, -0.3, 0.7], dtype=torch.float64)


def both(model: Model, p: Tensor, x: Tensor, few: Model | None = None) -> tuple[LearnedRows, Any]:
    learned = LearnedRows(lambda params, rows: (few or model)(params[0], rows[0]))
    return learned, learned.block(_taken_of, lambda params: model(params[0], x), (p,), (x,))


def rows_of(model: Model, p: Tensor, x: Tensor) -> Tensor:
    """J (m, n) by backward passes, of 64 rows at once: of each by itself they take seconds."""
    p = p.clone().requires_grad_()
    r = model(p, x)
    every = torch.eye(len(r), dtype=r.dtype).split(64)
    each = [torch.autograd.grad(r, p, some, True, is_grads_batched=True)[0] for some in every]
    return torch.cat(each)


@pytest.mark.parametrize("model", [peaks, decays, mask, column, falling])
def test_rows_are_those_of_the_function_at_other_points_and_blocks(model: Model) -> None:
    x = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    learned, _ = both(model, POINT, x)
    for p in (POINT, POINT * 1.1, POINT):
        for some in (x[:MANY], x[MANY:], x[5:]):
            # the block is held to nothing here: a number that is wrong would be seen
            learned._asked = {True: 2, False: 2}
            evaluate = lambda params, some=some: model(params[0], some)
            block = learned.block(_taken_of, evaluate, (p,), (some,))
            values = learned.values(_taken_of, evaluate, (p,), (some,))
            assert block is not None
            assert values is not None
            J = rows_of(model, p, some)
            size = J.abs().amax(0).clamp(min=1e-3)
            # some roundings of the largest entry of a column
            assert ((block.rows.dense() - J).abs() <= 1e-14 * size).all()
            torch.testing.assert_close(block.residual, model(p, some), rtol=1e-14, atol=1e-14)
            torch.testing.assert_close(values, block.residual, rtol=0, atol=0)
            scaled = block.rows.scaled(some.square()).dense()
            torch.testing.assert_close(scaled, some.square()[:, None] * block.rows.dense())


def test_signs_and_powers_of_two_end_where_they_belong() -> None:
    def model(p: Tensor, x: Tensor) -> Tensor:
        a = -2 * (p[0] - x) / 4
        return -a * p[1] - (-p[2]) * (a + a) - 0.5 * x - (a - 0.25 * x) / -p[3]

    x = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    learned, block = both(model, POINT, x)
    J = rows_of(model, POINT, x)
    assert not learned.refused
    torch.testing.assert_close(block.rows.dense()[:, :4], J[:, :4], rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(block.residual, model(POINT, x), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "model",
    [
        lambda p, x: p[0] * (x - x.mean()),
        lambda p, x: p[0] * x.cumsum(0),
        lambda p, x: p[0] * x.flip(0),
        lambda p, x: p[0] * x + p[1] * x[0],
        lambda p, x: p[0] * x + p[1] * torch.arange(len(x)),
        lambda p, x: p[0] * x / len(x),
        lambda p, x: p[0] * x if x.max() > 1 else p[1] * x,
        lambda p, x: p[0] * x + torch.randn(len(x), dtype=x.dtype) * p[1],
        lambda p, x: p[0] * torch.sort(x).values,
        lambda p, x: p[0] * x * (torch.arange(len(x)) > 100),
    ],
    ids=["mean", "cumsum", "flip", "first", "arange", "len", "branch", "random", "sort", "mask"],
)
def test_what_tells_rows_from_one_another_is_refused(model: Model) -> None:
    x = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    learned, block = both(model, POINT, x)
    assert block is None
    assert learned.refused


def test_a_function_that_becomes_another_is_found_out() -> None:
    x = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    factor = [1.0]
    model = lambda p, x: factor[0] * p[0] * torch.exp(p[1] * x)
    learned, block = both(model, POINT, x)
    assert block is not None
    factor[0] = 1.5
    found = [
        learned.block(_taken_of, lambda params: model(params[0], x), (POINT,), (x,))
        for _ in range(3)
    ]
    assert found[-1] is None
    assert learned.refused


def test_a_parameter_that_is_changed_in_place_is_another_point() -> None:
    x = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
    p = POINT.clone()
    learned, _ = both(decays, p, x)
    learned._asked = {True: 2, False: 2}
    p += 0.5
    block = learned.block(_taken_of, lambda params: decays(params[0], x), (p,), (x,))
    assert block is not None
    torch.testing.assert_close(block.residual, decays(p, x), rtol=1e-13, atol=1e-13)


def replays(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether evaluations of blocks were replayed, as they come."""
    found: list[bool] = []
    inner = LearnedRows._found

    def noted(self: LearnedRows, *args: Any, **kwargs: Any) -> Tensor | None:
        result = inner(self, *args, **kwargs)
        found.append(result is not None)
        return result

    monkeypatch.setattr(LearnedRows, "_found", noted)
    return found


def tall() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 2, 20_000, dtype=torch.float64)
    y = peaks(POINT, x) + 0.05 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x, y, POINT * 1.03


@pytest.mark.parametrize("loss", ["linear", "huber"])
def test_a_tall_fit_ends_where_it_ends_without_records(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(row_blocks, "ROWS", 1024)
    monkeypatch.setattr(choose.derivations, "COLUMN", 2048)
    x, y, start = tall()
    found = replays(monkeypatch)
    fit = lambda: lmtorch.least_squares(
        lambda p, x, y: peaks(p, x) - y, start, args=(x, y), loss=loss
    )
    ours = fit()
    assert found
    assert all(found)
    monkeypatch.setattr(run, "learned_rows", lambda *args: (None, ()))
    count = len(found)
    plain = fit()
    assert len(found) == count
    assert ours.nfev == plain.nfev
    # both are the minimum to within what round-off in a sum of 20,000 squares leaves open
    torch.testing.assert_close(ours.x, plain.x, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours.cost, plain.cost, rtol=1e-12, atol=0)


def test_steps_on_many_samples_are_those_without_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(row_blocks, "ROWS", 1024)
    monkeypatch.setattr(choose.derivations, "COLUMN", 2048)
    x, y, start = tall()
    found = replays(monkeypatch)

    def descended() -> Tensor:
        p = start.clone().requires_grad_()
        optimizer = lmtorch.LevenbergMarquardt([p])
        for _ in range(4):
            optimizer.step(lambda x, y: peaks(p, x) - y, x, y)
        return p.detach()

    ours = descended()
    assert found
    assert all(found)
    monkeypatch.setattr(LearnedRows, "_found", lambda *args, **kwargs: None)
    torch.testing.assert_close(ours, descended(), rtol=1e-9, atol=0)
