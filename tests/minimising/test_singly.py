"""The last few problems of a batch, which run one by one, with what is recorded of the first."""

from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.arrays import take
from lmtorch.core.termination import RUNNING
from lmtorch.jacobians.learned import Learned
from lmtorch.minimising import opinions, singly

from .setting import F64

B = torch.tensor([0, 10, 20, 40, 80, 150, 250, 400, 600, 800.0], dtype=F64)


def misfit(p: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Two exponentials, which many data of one leave in doubt."""
    signal, share, fast, slow = p
    return signal * (share * torch.exp(-b * fast) + (1 - share) * torch.exp(-b * slow)) - y


def signals(count: int) -> Tensor:
    """Every other of them has one exponential only, and noise."""
    noise = torch.randn(count, len(B), generator=torch.Generator().manual_seed(1), dtype=F64)
    share = torch.where(torch.arange(count) % 2 == 0, 0.0, 0.3)[:, None]
    curve = share * torch.exp(-0.05 * B) + (1 - share) * torch.exp(-0.001 * B)
    return curve + 0.02 * noise


X0 = torch.tensor([1.0, 0.2, 0.02, 0.001], dtype=F64)


def fitted(y: Tensor, **options: Any) -> lmtorch.Solution:
    """All of them in one call."""
    return lmtorch.least_squares(misfit, X0, args=(B, y), in_dims=(None, None, 0), **options)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[singly.Start]:
    """Where runs of single problems have begun; further runs are made one after the other."""
    monkeypatch.setattr(opinions, "_rounds", lambda *_: [])
    begun: list[singly.Start] = []
    real = singly.descend_alone

    def noted(one: Any, method: Any, start: singly.Start, trials: int) -> Any:
        begun.append(start)
        return real(one, method, start, trials)

    monkeypatch.setattr(singly, "descend_alone", noted)
    monkeypatch.setattr("lmtorch.minimising.opinions.descend_alone", noted)
    return begun


def test_a_record_gives_what_the_function_gives(
    alone: list[singly.Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    y = signals(40)
    found = fitted(y)
    assert len(alone) > 20
    monkeypatch.setattr(singly, "_recorded", lambda *_: False)
    monkeypatch.setattr(singly, "FEW", singly.RECORDED)
    plain = fitted(y)
    # what has no minimum may run apart for ever
    sure = plain.status > 0
    assert 10 < int(sure.sum()) < 40
    assert torch.equal(found.status > 0, sure)
    sure &= plain.x[:, 3] > 0  # where a signal grows round-off is all that is left of a valley
    assert int(sure.sum()) > 10
    # one ends by Newton's steps, the other may by Gauss and Newton's: 1e-8 of the cost is promised
    torch.testing.assert_close(found.cost[sure], plain.cost[sure], rtol=1e-10, atol=0)
    torch.testing.assert_close(found.x[sure], plain.x[sure], rtol=1e-5, atol=0)


def test_a_record_that_is_not_the_function_is_refused_and_the_runs_are_made_without(
    alone: list[singly.Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    y = signals(40)
    plain = fitted(y)
    refused: list[None] = []
    real = Learned.refuse

    def noted(learned: Learned) -> None:
        refused.append(None)
        real(learned)

    # of what is replayed nothing is that of the function
    replay = singly.OfFit.at

    def wrong(fit: singly.OfFit, x: Any) -> Any:
        rows = replay(fit, x)
        return None if rows is None else 1.5 * rows

    monkeypatch.setattr(Learned, "refuse", noted)
    monkeypatch.setattr(singly.OfFit, "at", wrong)
    found = fitted(y)
    assert refused
    assert torch.equal(found.status > 0, plain.status > 0)
    sure = plain.status > 0
    torch.testing.assert_close(found.cost[sure], plain.cost[sure], rtol=1e-6, atol=0)


def test_a_run_that_was_left_and_gone_on_with_has_the_effort_and_the_beginning_of_one_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a parameter has lost is measured by what it had where the first run began."""
    whole: list[Any] = []  # without leaving any
    descend, gone_on = opinions.descend, opinions.go_on_alone
    pairs: list[tuple[Any, Any]] = []

    def left(*args: Any, leave: int = 0, **options: Any) -> Any:
        whole.append(descend(*args, **options)[0])
        return descend(*args, leave=leave, **options)

    def compared(problem: Any, method: Any, state: Any, trials: int) -> Any:
        end = gone_on(problem, method, state, trials)
        apart = (state.status == RUNNING).nonzero()[:, 0]
        pairs.append((take(end, apart), take(whole[-1]._replace(damping=None), apart)))
        return end

    monkeypatch.setattr(opinions, "_rounds", lambda *_: [])  # one run after the other
    monkeypatch.setattr(opinions, "LEAST", 256)  # so that runs are long enough to be left
    monkeypatch.setattr(opinions, "descend", left)
    monkeypatch.setattr(opinions, "go_on_alone", compared)
    fitted(signals(250))
    assert sum(len(end.x) for end, _ in pairs) >= 16
    same = []
    for end, one in pairs:
        torch.testing.assert_close(end.begun.x, one.begun.x, rtol=0, atol=0)
        torch.testing.assert_close(end.begun.cost, one.begun.cost, rtol=0, atol=0)
        # round-off may lead it elsewhere, to an end at another trial
        alike = (end.trials == one.trials) & (end.status == one.status)
        same.append(end.linearizations[alike] == one.linearizations[alike])
    assert len(torch.cat(same)) >= 4
    assert torch.cat(same).double().mean() >= 0.5


def test_problems_in_single_precision_or_with_their_own_derivatives_are_not_recorded(
    alone: list[singly.Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(singly, "Latest", fail)
    y = signals(40).float()
    x0 = torch.tensor([1.0, 0.2, 0.02, 0.001])
    lmtorch.least_squares(misfit, x0, args=(B.float(), y), in_dims=(None, None, 0))


def test_the_same_batch_again_ends_in_the_same_places(alone: list[singly.Start]) -> None:
    """With D of ones as well, which a record has as numbers of its own."""
    y = signals(250)
    first, *others = (fitted(y) for _ in range(2))
    assert len(alone) > 30
    for other in others:
        assert other.x.dtype == F64
        assert torch.equal(other.status, first.status)
        sure = (first.status > 0) & (first.x[:, 3] > 0)
        torch.testing.assert_close(other.cost[sure], first.cost[sure], rtol=1e-10, atol=0)
