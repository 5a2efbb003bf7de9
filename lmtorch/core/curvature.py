"""JᵀJ from a random part of the rows, cost and gradient from all of them.

The gradient says where to go and must be exact; JᵀJ says how far, and an estimate from a tenth of the samples serves
almost as well for a tenth of the work. Where the linear model stops being good (a gain ratio under 1/4) the sample
doubles, so that the last digits are had with all rows.

Reference: Byrd, Chin, Neveitt & Nocedal, On the use of stochastic Hessian information in optimization methods for
machine learning (2011), §2.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._autodiff import pullback_sum
from ..linearizations.base import Linearization, Prior
from ..linearizations.normal import Normal
from .problem import Problem


@dataclass(frozen=True)
class SampledCurvature:
    """The linear model with JᵀJ from some of the samples.

    Args:
        chosen: indices of the samples, in ascending order.
    """

    chosen: Tensor

    def linearize(self, problem: Problem, x: Tensor, prior: Prior | None) -> Linearization:
        """Scale the part's JᵀJ up to all rows; add the exact cost and gradient."""
        whole = problem.residual
        part = whole.subset(self.chosen)
        sampled = replace(problem, residual=part, penalty=None, curvature=None).rows(x, None)
        assert isinstance(sampled, Normal)
        sampled.normal.mul_(whole.rows / part.rows)
        cost, gradient = cost_and_gradient(problem, x)
        if prior is not None:
            sampled.normal.diagonal(dim1=-2, dim2=-1).add_(prior.root.square())
            gradient = gradient + prior.root * prior.residual
        return Normal(sampled.normal, cost, gradient)


def cost_and_gradient(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """F and its gradient without the prior's, by one reverse pass over each part."""
    params = problem.residual.params(x)
    gradient = torch.zeros_like(x, dtype=problem.dtype)
    cost = torch.zeros((), dtype=torch.float64)
    with problem.residual.replay():
        for part in problem.residual.parts():
            residual, gradients = pullback_sum(part.function, params, problem.loss.influence)
            cost = cost + problem.loss.cost(residual)
            gradient += torch.cat([g.reshape(-1) for g in gradients])
    return cost, gradient
