"""Evaluations of many problems, replayed from a record of a few, are the function's own."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.calculus.many import constant_of_many, variables_of_many
from lmtorch.jacobians.dual_numbers import taken
from lmtorch.jacobians.learned_many import MANY, LearnedMany, Taken

F64 = torch.float64
T = torch.linspace(0.5, 2, 7, dtype=F64)
Model = Callable[[Any, Any], Any]


def in_another_shape(x: Any, y: Any) -> Any:
    """What lies in the memory of another value is read after others were made."""
    matrix = (x[0] * y * x[1]).reshape(7, 1)
    beside = (y * x[1] * x[2]).exp()
    return (matrix * T[:, None]).reshape(7) + beside


REPLAYED: dict[str, Model] = {
    "in another shape": in_another_shape,
    "a peak": lambda x, y: x[0] * torch.exp(-0.5 * ((T - x[1]) / x[2]) ** 2) + x[1] - y,
    "signs and powers of two": lambda x, y: -(2 * x[0] - (-x[1] * T)) * 0.25 - (-4 * (y - x[2])),
    "a difference the other way": lambda x, y: (1 - x[0]) * T - (y - x[1] / (3 - x[2])) / 2,
    "unlike factors": lambda x, y: 2 * x[0] * T + 8 * (x[1] * y) - 0.5 * (x[0] * T),
    "twice the same": lambda x, y: (x[0] * T + x[0] * T) - (x[1] * y - x[1] * y) + x[2] * T,
    "quotients": lambda x, y: -1 / (x[0] * T) + (2 * y) / (-4 * x[1]) + 2 / x[2] * y,
    "a power": lambda x, y: (x[0] * T) ** 3 + (x[1] * y) ** 0.5 + x[2] ** -2 * T,
    "a branch by a mask": lambda x, y: torch.where(y > x[0], x[1].exp() * T, -2 * x[2] * y),
    "a size": lambda x, y: (x[0] * y - 1).abs() * x[1] + (-x[1] * T).abs() * x[2],
    "the larger": lambda x, y: torch.maximum(x[0] * y, -2 * x[1] * T) + x[2] * T.sqrt(),
    "a constant column": lambda x, y: x[0] + x[1] * T + y * x[2],
    "what does not use one": lambda x, y: x[0] * T.sin() + x[2] * y,
    "of the data alone": lambda x, y: x[0] * y.log() + x[1] * T * x[2],
}
REFUSED: dict[str, Model] = {
    "sums over points": lambda x, y: (x[0] * T + y) / (x[1] * T + y * x[2]).sum(),
    "cumulated": lambda x, y: (x[0] * y * T).cumsum(0) + x[1] * x[2],
    "random numbers": lambda x, y: x[0] * T + x[1] * y + x[2] * torch.rand(7, dtype=F64),
}


def evaluation(model: Model, curved: bool) -> Callable[..., Taken]:
    """The function's own evaluation of some problems."""

    def evaluate(params: Sequence[Tensor], shares: Sequence[Tensor]) -> Taken:
        with torch.enable_grad():
            seeds = variables_of_many(params[0], 0, curved)
            return taken(model(seeds, constant_of_many(shares[0], curved)))

    return evaluate


def points(count: int, dtype: torch.dtype = F64) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and data of so many problems, the problems last in memory."""
    rng = torch.Generator().manual_seed(count)
    x, y = (torch.rand(n, count, generator=rng, dtype=F64) + 0.5 for n in (3, 7))
    return [x.T.to(dtype)], [y.T.to(dtype)]


@pytest.mark.parametrize("curved", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", REPLAYED)
def test_replays_give_what_the_function_gives(name: str, curved: bool) -> None:
    evaluate, learned = evaluation(REPLAYED[name], curved), LearnedMany()
    for count in (MANY, MANY + 5, 2 * MANY):  # another number of problems needs no other record
        found = learned.taken(evaluate, *points(count), curved)
        assert found is not None
        expected = evaluate(*points(count))
        assert [list(part) for part in found[1:]] == [list(part) for part in expected[1:]]  # type: ignore[call-overload]
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
        value = found[0]
        assert value.shape == (count, 7)
        assert value.stride(0) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_entry_by_entry_is_refused(name: str) -> None:
    learned = LearnedMany()
    assert learned.taken(evaluation(REFUSED[name], False), *points(MANY), False) is None
    assert learned.refused


def test_few_problems_are_not_recorded() -> None:
    learned = LearnedMany()
    evaluate = evaluation(REPLAYED["a peak"], False)
    assert learned.taken(evaluate, *points(MANY - 1), False) is None
    assert not learned.refused


@pytest.mark.parametrize("curved", [False, True], ids=["first", "second"])
def test_few_problems_are_replayed_once_many_were_recorded(curved: bool) -> None:
    learned, calls = LearnedMany(), []

    def model(x: Any, y: Any) -> Any:
        calls.append(1)
        return REPLAYED["a peak"](x, y)

    evaluate = evaluation(model, curved)
    for _ in range(4):  # at the fourth evaluation the function is asked again
        learned.taken(evaluate, *points(MANY), curved)
    before = len(calls)
    found = learned.taken(evaluate, *points(5), curved)
    assert len(calls) == before
    assert found is not None
    torch.testing.assert_close(found, evaluate(*points(5)), rtol=1e-14, atol=1e-14)


def test_results_stay_when_others_are_made() -> None:
    evaluate, learned = evaluation(REPLAYED["a peak"], False), LearnedMany()
    params, shares = points(MANY)
    first = learned.taken(evaluate, params, shares, False)
    assert first is not None
    before = first[0].clone()
    learned.taken(evaluate, [params[0] * 1.5], shares, False)
    assert torch.equal(first[0], before)


def test_a_function_that_changes_is_not_replayed_any_more() -> None:
    """It is seen at the next evaluation but one at the latest."""
    now = {"power": 1.0}

    def model(x: Any, y: Any) -> Any:
        return x[0] * T + x[1] * y + now["power"] * x[2]

    evaluate, learned = evaluation(model, False), LearnedMany()
    params, shares = points(MANY)
    assert learned.taken(evaluate, params, shares, False) is not None
    now["power"] = 3.0
    assert learned.taken(evaluate, params, shares, False) is None
    assert learned.refused


def test_not_a_number_is_no_reason_to_refuse() -> None:
    learned = LearnedMany()

    def model(x: Any, y: Any) -> Any:
        return x[0] * (y - 1).log() + x[1] * T + x[2]

    found = learned.taken(evaluation(model, False), *points(MANY), False)
    assert found is not None
    expected = evaluation(model, False)(*points(MANY))
    torch.testing.assert_close(found[0], expected[0], equal_nan=True)
    assert bool(found[0].isnan().any())


@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
@pytest.mark.parametrize("bounded", [False, True], ids=["free", "bounded"])
def test_fits_are_those_of_one_problem_alone(loss: str, bounded: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    count, t = MANY + 44, torch.linspace(0, 1, 20, dtype=F64)
    true = torch.rand(count, 3, generator=rng, dtype=F64) + torch.tensor([1.0, 0.5, 0.0])

    def curve(p: Tensor, t: Tensor) -> Tensor:
        return p[0] * torch.exp(-3 * p[1] * t) + p[2]

    y = torch.stack([curve(p, t) for p in true])
    y = y + 0.01 * torch.randn(y.shape, generator=rng, dtype=F64)
    start = torch.tensor([1.5, 1.0, 0.5], dtype=F64)
    bounds = ([0.0, 0.7, 0.0], [5.0, 5.0, 5.0]) if bounded else (-torch.inf, torch.inf)

    def residual(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return curve(p, t) - y

    options: dict[str, Any] = {"loss": loss, "f_scale": 0.02, "bounds": bounds}
    found = lmtorch.least_squares(residual, start, args=(t, y), in_dims=(None, None, 0), **options)
    assert bool(torch.as_tensor(found.success).all())
    for place in range(0, count, 60):
        one = lmtorch.least_squares(residual, start, args=(t, y[place]), **options)
        torch.testing.assert_close(found.x[place], one.x, rtol=1e-6, atol=1e-8)
