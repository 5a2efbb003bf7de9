"""What counts say about the parameters: errors by Fisher's information, deviance, Pearson's χ².

With the outputs f of the model and the cost ℓ of each, counted from its least,

    information     Jᵀ I J with I = E ℓ″,   covariance (JᵀIJ)⁻¹, absolute,
    deviance        D = 2 Σ ℓ,
    Pearson's χ²    Σ ℓ′²/I, of counts Σ (y − μ)²/V(μ),

and both of these scatter about m − n, as χ² of normal data does, where means are not below one or
so.

References: McCullagh & Nelder, Generalized linear models (1989), §2.3 to 2.5, and §4.4 for small
means; Wilks, The large-sample distribution of the likelihood ratio (1938), for profiles.
"""

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._arrays import tensor_of
from ...losses.criterion import Bound
from ...minimising.solution import Solution
from ..fitter import Fitter
from ..likelihoods import Likelihood
from .covariance import Covariance, inverse_normal
from .inference import Inference
from .runs import Runs, runs_of, without_order

NOTHING = 1e-6  # share of the mean rate that is none
OFTEN = 5.0  # the mean of counts that are above it nearly as often as below, to 3 in 100


class Scores(NamedTuple):
    """What the likelihood says of every point, (..., m) each."""

    cost: Tensor  # above the least
    slope: Tensor
    root: Tensor  # by which the loop has scaled the rows
    information: Tensor


class CountedInference(Inference):
    """Inference from a fit by maximum likelihood.

    Args:
        fitter: the model, its parameters, the data and their likelihood.
        solution: what `least_squares` found.
    """

    def __init__(
        self, fitter: Fitter, solution: Solution, absolute: bool = True, loss: None = None
    ) -> None:
        super().__init__(fitter, solution, True, None)

    @property
    def likelihood(self) -> Likelihood:
        """Of the data."""
        found = self.fitter.likelihood
        assert found is not None
        return found

    @cached_property
    def outputs(self) -> Tensor:
        """What the loop has seen of the model, (..., m), in float64."""
        return tensor_of(self.solution.fun).detach().double().reshape(*self.lead, -1)

    @cached_property
    def curve(self) -> Tensor:
        """The fitted curve at the data, (..., m); NaN where a point is left out."""
        data, curve = self.fitter.data, self.outputs.to(self.fitter.data.y.dtype)
        return curve if data.weights is None else torch.where(data.weights > 0, curve, torch.nan)

    def bound(self, outputs: Tensor) -> Bound:
        """The likelihood of outputs (..., m) beside the data."""
        data = self.fitter.data.unwritten()
        y, total = data.y.detach().expand(outputs.shape), data.total
        weights = None if data.weights is None else data.weights.detach().expand(outputs.shape)
        return self.likelihood.of(outputs, y, weights, total).bound()

    @cached_property
    def scores(self) -> Scores:
        """The likelihood at the outputs."""
        bound, flat = self.bound(self.outputs), self.outputs.reshape(-1)
        expansion, shape = bound.expand(flat), self.outputs.shape
        assert expansion.root is not None
        information = bound.criterion.fisher(flat[:, None], *bound.targets)
        parts = bound.each(flat), expansion.slope, expansion.root, information
        return Scores(*(part.reshape(shape) for part in parts))

    @cached_property
    def residual(self) -> Tensor:
        """Pearson's residuals ℓ′/√I, of counts (μ − y)/√V(μ), (..., m)."""
        scores = self.scores
        spread = scores.information.sqrt()
        return torch.where(spread > 0, scores.slope / spread, 0.0).to(self.fitter.data.y.dtype)

    @cached_property
    def deviance_residual(self) -> Tensor:
        """±√(2 ℓ), negative where the curve is below the data, (..., m)."""
        scores = self.scores
        found = scores.slope.sign() * (2 * scores.cost).sqrt()
        return found.to(self.fitter.data.y.dtype)

    @cached_property
    def run(self) -> Runs:
        """Of Poisson counts whose mean is large: rare ones are mostly below theirs, by chance."""
        if self.likelihood.name != "poisson":
            return without_order(self.fitter.data)
        often = self.curve.detach() >= OFTEN
        return runs_of(self.fitter.data, torch.where(often, self.residual, 0.0))

    @cached_property
    def chisqr(self) -> Tensor:
        """Pearson's χ², (...,)."""
        return self._of_parts("chisqr", lambda: self.residual.double().square().sum(-1))

    @cached_property
    def deviance(self) -> Tensor:
        """Twice the cost above the least, (...,)."""
        return self._of_parts("deviance", lambda: 2 * self.scores.cost.sum(-1))

    @cached_property
    def loglikelihood(self) -> Tensor:
        """The logarithm of the likelihood, (...,)."""
        return self._of_parts("loglikelihood", lambda: -self.deviance / 2 - self._least())

    @property
    def twice_cost(self) -> Tensor:
        """Twice what the loop has minimised, (...,)."""
        return 2 * tensor_of(self.solution.cost).detach().double().reshape(self.lead)

    @cached_property
    def covariance(self) -> Covariance:
        """The inverse of Fisher's information about u, (..., n, n)."""
        jacobian = tensor_of(self.solution.jac).detach().double()
        jacobian = jacobian.reshape(*self.lead, *jacobian.shape[-2:])
        root, information = self.scores.root, self.scores.information
        # undo that the loop has scaled the rows by these roots
        ratio = torch.where(root > 0, information.sqrt() / root, 0.0)
        return inverse_normal(torch.where(ratio > 0, ratio, 0.0)[..., None] * jacobian, self.held)

    @property
    def edge(self) -> str:
        """Of a single fit: whether it has come to where a rate is zero."""
        kept = self.curve[self.curve.isfinite()]
        if self.likelihood.given is not None or not bool(kept.min() <= NOTHING * kept.mean()):
            return ""
        return (
            "The rate is zero at some points, and the likelihood is largest at this edge of where "
            "the model is defined: keep it positive by bounds or by its form."
        )

    @property
    def rsquared(self) -> Tensor:
        """1 − D over the deviance of the best constant, (...,); NaN where that is not known."""
        level = self.likelihood.level(self.fitter.data.unwritten())
        if level is None:
            return torch.full_like(self.deviance, torch.nan)
        constant = level.expand(self.fitter.data.y.shape)
        cost = self.bound(constant).each(constant.reshape(-1)).reshape(constant.shape)
        return 1 - self.deviance / (2 * cost.sum(-1))

    @property
    def aic(self) -> Tensor:
        """Akaike's criterion, 2n − 2 log L, (...,)."""
        return 2 * self.n - 2 * self.loglikelihood

    @property
    def bic(self) -> Tensor:
        """Schwarz's criterion, n ln m − 2 log L, (...,)."""
        return self.n * self.fitter.data.count.log() - 2 * self.loglikelihood

    def scatter(self, curve: Tensor, sigma: Any) -> Tensor:
        """The variance of new counts, (..., k)."""
        return self.likelihood.variance(curve.double(), self.fitter.data.total)

    def _least(self) -> Tensor:
        """The cost of outputs that meet every point, (...,)."""
        data = self.fitter.data
        bound = self.bound(self.outputs)
        least = bound.criterion.least(1, *bound.targets)
        if least.ndim == 0:
            least = least.expand(data.y.numel())
        return least.reshape(data.y.shape).sum(-1)

    def _of_parts(self, name: str, make: Any) -> Tensor:
        """A number of each fit, made of blocks of fits where the whole is not at hand."""
        if self.solution.waits("fun") and (parts := self.parts()):
            return torch.cat([getattr(part, name) for part in parts]).reshape(self.lead)
        found: Tensor = make()
        return found
