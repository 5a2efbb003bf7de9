"""Records of evaluations that outlast a call, and what must not be taken from an earlier one."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.jacobians import learned_many
from lmtorch.minimising import repeated_batches

F64 = torch.float64
T = torch.linspace(0, 4, 30, dtype=F64)
COUNTS = (5, 40, 600)  # of the last evaluations are recorded


def decays(count: int, t: Tensor = T, power: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """True parameters (count, 2), and curves without noise."""
    rng = torch.Generator().manual_seed(seed)
    p = torch.rand(count, 2, generator=rng, dtype=F64) + torch.tensor([1.0, 0.5])
    return p, p[:, :1] * torch.exp(-p[:, 1:] * t**power)


def fit(fun: Callable[..., Tensor], *args: Tensor) -> Any:
    return lmtorch.least_squares(
        fun, torch.ones(2, dtype=F64), args=args, in_dims=(None, *[None] * (len(args) - 1), 0)
    )


def residual(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.exp(-p[1] * t) - y


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_calls_one_after_another_find_the_same(count: int, dtype: torch.dtype) -> None:
    tolerance = 1e-8 if dtype == F64 else 1e-4
    for seed in range(4):
        true, y = decays(count, seed=seed)
        start = torch.ones(2, dtype=dtype)
        found = lmtorch.least_squares(
            residual, start, args=(T.to(dtype), y.to(dtype)), in_dims=(None, None, 0)
        )
        assert found.success.all()
        torch.testing.assert_close(found.x.double(), true, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("count", COUNTS)
def test_points_that_all_problems_share_may_be_others_in_the_next_call(count: int) -> None:
    t = T.clone()
    for stretch in (1.0, 1.0, 2.0, 0.5):
        t.copy_(stretch * T)  # in the same memory
        true, y = decays(count, t)
        torch.testing.assert_close(fit(residual, t, y).x, true, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("count", COUNTS)
def test_what_a_function_holds_may_be_another_in_the_next_call(count: int) -> None:
    held = {"power": 1.0}

    def bent(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return p[0] * torch.exp(-p[1] * t ** held["power"]) - y

    for power in (1.0, 1.0, 1.5, 0.5):
        held["power"] = power
        true, y = decays(count, power=power)
        torch.testing.assert_close(fit(bent, T, y).x, true, rtol=1e-7, atol=1e-7)


class Hidden:
    """A number that nobody sees who looks at attributes."""

    power = 1.0

    def __call__(self) -> float:
        return Hidden.power


@pytest.mark.parametrize("count", COUNTS)
def test_a_function_that_changes_unseen_is_asked_before_a_record_is_believed(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing is ever seen
    monkeypatch.setattr(repeated_batches.Unchanged, "holds", lambda *_: True)

    def bent(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return p[0] * torch.exp(-p[1] * t ** Hidden()()) - y

    for power in (1.0, 1.0, 1.5, 0.5):
        monkeypatch.setattr(Hidden, "power", power)
        true, y = decays(count, power=power)
        torch.testing.assert_close(fit(bent, T, y).x, true, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("count", [5, 30])
def test_what_problems_share_is_no_argument_of_each(count: int) -> None:
    """Once there are as many problems as points, and x or y is what they share."""
    t = torch.linspace(0, 2, count, dtype=F64).repeat(count, 1)
    _, y = decays(count, t[0])
    for _ in range(4):
        for dims in ((None, 0, 0), (None, None, 0), (None, 0, None)):
            given = [one if dim == 0 else one[0] for one, dim in zip((t, y), dims[1:], strict=True)]
            found = lmtorch.least_squares(
                residual, torch.ones(2, dtype=F64), args=given, in_dims=dims
            )
            p = found.x
            curves = p[:, :1] * torch.exp(-p[:, 1:] * t)
            torch.testing.assert_close(
                curves, y if dims[2] == 0 else y[:1].expand_as(y), rtol=1e-7, atol=1e-7
            )


@pytest.mark.parametrize("count", COUNTS)
def test_what_came_before_a_call_changes_no_bit_of_it(count: int) -> None:
    """Blocks of one image are fitted by workers that have done this and that before."""

    def own(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return p[0] * torch.exp(-p[1] * t) - y

    _, y = decays(count)
    y = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    first = fit(own, T, y)
    fit(own, T, decays(700)[1])  # leaves records of many behind
    for _ in range(3):
        again = fit(own, T, y)
        for name in ("x", "cost", "nfev", "status"):
            assert torch.equal(first[name], again[name]), name


def test_a_second_call_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = learned_many.ManyReplay
    monkeypatch.setattr(learned_many, "ManyReplay", lambda *given: made.append(1) or plain(*given))

    def own(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return p[0] * torch.exp(-p[1] * t) - y

    _, y = decays(600)
    fit(own, T, y)
    first = len(made)
    fit(own, T.clone(), y + 0.01)
    assert first == len(made) > 0


def test_a_record_that_was_wrong_once_is_not_handed_on() -> None:
    before = learned_many.LearnedMany()

    def evaluate(params: Sequence[Tensor], shares: Sequence[Tensor]) -> learned_many.Taken:
        return params[0] * shares[0], {0: shares[0]}, {}

    given = [torch.ones(300, 1, dtype=F64)], [torch.ones(300, 4, dtype=F64)]
    assert before.taken(evaluate, *given, curved=False) is not None
    assert learned_many.LearnedMany(before).every
    before.refused = True
    assert not learned_many.LearnedMany(before).every


def test_what_is_known_of_one_problem_by_itself_outlasts_the_call() -> None:
    before = learned_many.LearnedMany()
    before.single.first.learn(
        lambda p: [p * p, p + p], torch.ones(3, dtype=F64), [torch.ones(3, dtype=F64)]
    )
    assert before.single.first.record is not None
    after = learned_many.LearnedMany(before).single
    assert after.first.record is before.single.first.record
    after.refuse()  # what was wrong once is replayed by no later call
    assert learned_many.LearnedMany(before).single.first.refused


def test_curves_of_a_model_are_fitted_again_and_again() -> None:
    def model(t: Tensor, a: Tensor, k: Tensor) -> Tensor:
        return a * torch.exp(-k * t)

    for count, seed in ((300, 0), (300, 1), (20, 2), (8, 3), (8, 4), (8, 5), (300, 6)):
        true, y = decays(count, seed=seed)
        popt, _ = lmtorch.curve_fit(model, T, y, [1.0, 1.0])
        torch.testing.assert_close(popt, true, rtol=1e-7, atol=1e-7)


@pytest.mark.filterwarnings("ignore:.* pass(es)? the(ir)? data by")  # they have an offset
def test_weights_come_with_the_call_and_not_with_the_record() -> None:
    def model(t: Tensor, a: Tensor, k: Tensor) -> Tensor:
        return a * torch.exp(-k * t)

    _, y = decays(300)
    y = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    for sigma in (None, 0.1 + T, None, 0.1 + T.flip(0)):
        many, _ = lmtorch.curve_fit(model, T, y, [1.0, 1.0], sigma=sigma)
        for place in (0, 299):
            one, _ = lmtorch.curve_fit(model, T, y[place], [1.0, 1.0], sigma=sigma)
            torch.testing.assert_close(many[place], one, rtol=1e-6, atol=1e-6)
