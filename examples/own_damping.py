"""A damping strategy of one's own: delayed gratification, up by a little, down by a lot.

After a refused trial λ doubles, after an accepted one it is divided by five: in a narrow valley the
damping then stays as small as it can, and steps go along the valley instead of into its wall.

Reference: Transtrum & Sethna, Improvements to the Levenberg–Marquardt algorithm (2012), §IV.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import lmtorch


class Lambda(NamedTuple):
    """All that is kept between trials; a field `damping` is what the report shows."""

    damping: Tensor


@dataclass(frozen=True)
class DelayedGratification:
    """λ up by `raise_by` after a refusal, down by `lower_by` after a gain."""

    initial: float = 1e-2
    raise_by: float = 2.0
    lower_by: float = 5.0

    def start(self, linearization, scale, x) -> Lambda:
        """λ₀ as a share of the largest diagonal entry of D⁻¹JᵀJD⁻¹."""
        largest = (linearization.column_norms / scale).square().amax(-1)
        return Lambda(self.initial * largest.to(linearization.cost.dtype))

    def propose(self, model, state: Lambda) -> tuple[Tensor, Lambda]:
        """The damped step at λ."""
        return model.factor.step(state.damping), state

    def update(self, state: Lambda, outcome) -> Lambda:
        """Judge by whether the trial was kept; masks and no branches, so that batches work, too."""
        return Lambda(
            state.damping * torch.where(outcome.accepted, 1 / self.lower_by, self.raise_by)
        )


def rosenbrock(x: Tensor) -> Tensor:
    """A curved valley, 10³ times steeper than long."""
    return torch.stack([1000 * (x[1] - x[0] ** 2), 1 - x[0]])


def main() -> dict[str, int]:
    """Count the steps to the minimum for each strategy."""
    steps = {}
    for name, damping in {
        "delayed gratification": DelayedGratification(),
        "nielsen": "nielsen",
        "trust region": "auto",
    }.items():
        x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
        opt = lmtorch.LevenbergMarquardt([x], damping=damping)
        steps[name] = 0
        while not opt.status.final:
            opt.step(lambda x=x: rosenbrock(x))
            steps[name] += 1
        print(f"{name:24}{steps[name]:4d} steps to {x.tolist()}, {opt.status.message}")
    return steps


if __name__ == "__main__":
    main()
