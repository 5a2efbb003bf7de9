"""λ by its last value: Nielsen's formula, and the limits of Nielsen's and Marquardt's."""

from typing import Any

import pytest
import torch

from lmtorch.damping.base import Outcome
from lmtorch.damping.marquardt import Marquardt, MarquardtState
from lmtorch.damping.nielsen import Nielsen, NielsenState, bounded


def test_nielsens_damping_follows_the_formula() -> None:
    # Madsen & Nielsen (2010), algorithm 6.18: λ and ν after gains ρ, and after refusals in a row
    ones = torch.ones((), dtype=torch.float64)

    def after(state: NielsenState, ratio: float, accepted: bool) -> NielsenState:
        outcome = Outcome(*(ones,) * 6)._replace(
            ratio=ratio * ones, accepted=torch.tensor(accepted)
        )
        return Nielsen().update(state, outcome)

    start = NielsenState(3 * ones, 8 * ones)
    for ratio in (0.01, 0.3, 0.5, 0.9, 1.0, 5.0):
        state = after(start, ratio, True)
        assert state.damping.item() == pytest.approx(
            3 * max(1 / 3, 1 - (2 * ratio - 1) ** 3), rel=1e-14
        )
        assert state.growth == 2
    state, damping = NielsenState(3 * ones, 2 * ones), 3.0
    for growth in (2, 4, 8, 16, 32):
        assert state.growth == growth
        state, damping = after(state, -1.0, False), damping * growth
        assert state.damping.item() == damping


@pytest.mark.parametrize("damping", [Nielsen(), Marquardt()], ids=repr)
@pytest.mark.parametrize("accepted", [False, True], ids=["refused for ever", "accepted for ever"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_damping_can_always_come_back(damping: Any, accepted: bool, dtype: torch.dtype) -> None:
    ones = torch.ones((), dtype=dtype)
    outcome = Outcome(*(ones,) * 6)._replace(accepted=torch.tensor(accepted))
    state = NielsenState(ones, 2 * ones) if isinstance(damping, Nielsen) else MarquardtState(ones)
    for _ in range(2000):
        before, state = state, damping.update(state, outcome)
        assert (state.damping <= before.damping) if accepted else (state.damping >= before.damping)
    limits = torch.finfo(dtype)
    # away from where a product would be zero or infinite
    assert limits.tiny < state.damping < limits.max
    assert (
        damping.update(state, outcome._replace(accepted=torch.tensor(not accepted))).damping
        != state.damping
    )


def test_a_damping_that_is_no_number_begins_again_at_one() -> None:
    assert bounded(torch.tensor([torch.nan, 2.0], dtype=torch.float64)).tolist() == [1.0, 2.0]
