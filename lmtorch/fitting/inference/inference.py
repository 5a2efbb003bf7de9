"""What the data say about the parameters: goodness of fit, covariance, predictions.

All are tensors with the batch in front. u are the variables that were fitted, p the parameters of
the model. `CurveFit` shows these numbers to the user.
"""

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ..._threads import forward_mode
from ...losses.robust import Robust
from ...minimising.scale import NORMAL
from ...minimising.solution import Solution
from ...minimising.user_function import LARGEST, SMALLEST
from ..fitter import Fitter
from ..measurements.curves import points_of
from ..parameters import Parameters
from ..saving.unsaved import Unsaved
from .bands import Band, about, variance
from .covariance import (
    Covariance,
    inverse_normal,
    of_one,
    sandwich,
)
from .goodness import exceeded, normal_likelihood
from .runs import Runs, runs_of
from .telling import Telling


class Inference(Telling):
    """What follows from a fitter and the solution that it found.

    Args:
        fitter: the model, its parameters and the data.
        solution: what `least_squares` found, in the variables u.
        absolute: whether σ has the units of the data and needs no scaling.
        loss: the robust loss, or None.
    """

    extras: tuple[str, ...] = ()  # attributes that are saved beside those of every fit

    def __init__(
        self, fitter: Fitter, solution: Solution, absolute: bool, loss: Robust | None
    ) -> None:
        self.fitter = fitter
        self.solution = solution
        self.absolute = absolute
        self.loss = loss
        self.names = list(fitter.model.names)
        self.lead = fitter.data.lead
        self.n = fitter.varying

    @cached_property
    def u(self) -> Tensor:
        """The variables (..., n), with a graph, if the solution has one."""
        u = tensor_of(self.solution.x)
        return u.reshape(*self.lead, u.shape[-1]) if self.lead else u

    @property
    def x_error(self) -> Tensor | None:
        """Standard deviations of x, (..., m, k); None: x is exact."""
        return None

    @cached_property
    def p(self) -> Tensor:
        """The parameters of the model, (..., P), with a graph, if the solution has one."""
        return self.fitter.parameters.outward(self.u, self.fitter.start)

    @cached_property
    def freedom(self) -> Tensor:
        """Degrees of freedom, (...,): the points less the variables that are not held.

        A variable at its bound does not count: the errors of the others are those of a fit in which
        it is fixed there. On average a fit within a box takes as many degrees of freedom as the
        face of the box on which it ends has dimensions (Meyer & Woodroofe 2000).
        """
        return self.fitter.data.count - (~self.held).sum(-1)

    @cached_property
    def residual(self) -> Tensor:
        """The residuals in units of the errors, (..., m)."""
        fun = tensor_of(self.solution.fun).detach()
        return fun.reshape(*self.lead, -1)

    @cached_property
    def curve(self) -> Tensor:
        """The fitted curve at the data, (..., m); NaN where a point is left out."""
        data = self.fitter.data.unwritten()
        curve = data.y.detach() + data.coloured(self.residual)
        return curve if data.weights is None else torch.where(data.weights > 0, curve, torch.nan)

    @cached_property
    def chisqr(self) -> Tensor:
        """χ², (...,), in float64."""
        if self.solution.waits("fun") and (parts := self.parts()):
            return torch.cat([part.chisqr for part in parts]).reshape(self.lead)
        return self.residual.double().square().sum(-1)

    @property
    def deviance(self) -> Tensor:
        """Of squares χ², (...,)."""
        return self.chisqr

    @property
    def deviance_residual(self) -> Tensor:
        """Of squares the residuals, (..., m)."""
        return self.residual

    @property
    def twice_cost(self) -> Tensor:
        """Twice what the loop has minimised, (...,)."""
        return self.chisqr

    @property
    def loglikelihood(self) -> Tensor:
        """Of normal data, with the variance that makes it largest unless errors are absolute."""
        if self.loss is not None:  # which is no likelihood
            return torch.full_like(self.chisqr, torch.nan)
        return normal_likelihood(self.fitter.data, self.chisqr, self.absolute)

    @cached_property
    def pvalue(self) -> Tensor:
        """The probability of a larger χ² for data of this model, (...,); NaN without errors."""
        if not self.absolute or self.loss is not None:
            return torch.full_like(self.chisqr, torch.nan)
        return exceeded(self.chisqr, self.freedom)

    @cached_property
    def run(self) -> Runs:
        """How often residuals change their sign along x, and how probable that is."""
        if self.solution.waits("fun") and (parts := self.parts()):
            found = zip(*(part.run for part in parts), strict=True)
            return Runs(*(torch.cat(each).reshape(self.lead) for each in found))
        return runs_of(self.fitter.data, self.residual)

    @property
    def runs(self) -> Tensor:
        """How many runs of one sign the residuals have along x, (...,); NaN without an order."""
        return self.run.number

    @property
    def runs_pvalue(self) -> Tensor:
        """The probability of so few runs, (...,)."""
        return self.run.pvalue

    @cached_property
    def variance(self) -> Tensor:
        """The variance σ̂² of a residual, (...,); one if errors are absolute."""
        if self.absolute:
            return torch.ones_like(self.chisqr)
        return torch.where(self.freedom > 0, self.chisqr / self.freedom.clamp(min=1), torch.inf)

    @cached_property
    def held(self) -> Tensor:
        """Which variables are at a bound, (..., n) bool: fixed by equal bounds, or against one."""
        mask = tensor_of(self.solution.active_mask).reshape(self.u.shape)
        return mask != 0

    @cached_property
    def _at_once(self) -> Any:
        """(JᵀJ)⁻¹ (n, n) of a single fit that has kept JᵀJ, and no J; None: J is needed."""
        normal = self.solution.normal
        if normal is None or self.loss is not None or self.fitter.bounded:
            return None
        return None if self.met and self.absent is not None else of_one(normal)

    @cached_property
    def unit(self) -> float:
        """A power of two that scales J so that its squares neither overflow nor underflow."""
        if self._at_once is not None:
            return 1.0
        jacobian = tensor_of(self.solution.jac).detach()
        size = max(map(abs, torch.stack(torch.aminmax(jacobian)).tolist()))
        if not math.isfinite(size):
            size = float(jacobian.abs().nan_to_num(posinf=0.0).amax())
        if self.loss is not None or not size > 0 or SMALLEST <= size <= LARGEST:
            return 1.0
        return 2.0 ** -round(math.log2(size))

    @cached_property
    def covariance(self) -> Covariance:
        """The covariance of the variables u, to be multiplied by `factor`."""
        if self._at_once is not None:
            matrix = tensor_of(self._at_once)
            return Covariance(matrix, torch.zeros_like(matrix))
        jacobian = tensor_of(self.solution.jac).detach().double()
        jacobian = jacobian if self.unit == 1 else self.unit * jacobian
        jacobian = jacobian.reshape(*self.lead, *jacobian.shape[-2:])
        if self.absent is not None:
            jacobian = torch.where(self.absent[..., None, :], 0.0, jacobian)
        if self.loss is None:
            return inverse_normal(jacobian, self.held)
        scale = tensor_of(self.solution.f_scale, dtype=torch.float64).to(self.u.device)
        scale = scale.reshape(self.lead) if scale.ndim else scale.expand(self.lead)
        residual = self.residual.double()
        rho = self.loss.rho((residual / scale[..., None]).square())
        # undo that the loop has scaled the rows by these roots
        root = Robust(self.loss.rho, scale).expand(self.residual).root
        count = self.fitter.data.count
        assert root is not None  # a robust loss has one
        return sandwich(
            jacobian / root[..., None],
            residual,
            rho,
            scale,
            count,
            self.freedom,
            self.held,
        )

    @cached_property
    def slopes(self) -> Tensor:
        """∂p/∂u, (..., P, n), in float64."""
        parameters, u = self.fitter.parameters, self.u.detach().double()
        if parameters.free:
            n = u.shape[-1]
            return torch.eye(n, dtype=u.dtype, device=u.device).expand(*self.lead, n, n)
        start = self.fitter.start.double()
        with forward_mode():
            columns = [
                torch.func.jvp(
                    lambda v: parameters.outward(v, start), (u,), (unit.expand(u.shape),)
                )[1]
                for unit in torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
            ]
        return torch.stack(columns, -1)

    @cached_property
    def factor(self) -> Tensor:
        """The factor of `covariance`, (...,): σ̂² in its unit, or 1 for a sandwich, which has it."""
        if self.loss is not None:
            return torch.where(self.variance.isinf(), torch.inf, 1.0)
        if self.absolute:
            return self.variance * self.unit * self.unit
        chisqr = (self.unit * self.residual.double()).square().sum(-1)
        return torch.where(self.freedom > 0, chisqr / self.freedom.clamp(min=1), torch.inf)

    @cached_property
    def ucov(self) -> Tensor:
        """Covariance of u, (..., n, n), zero for variables that are held or undetermined."""
        return self.factor[..., None, None] * self.covariance.matrix

    @cached_property
    def pcov(self) -> Tensor:
        """Covariance of p, (..., P, P): infinite if undetermined, NaN at a bound, zero if fixed."""
        parts = self.parts()
        if parts:
            found = torch.cat([part.pcov for part in parts])
            return found.reshape(*self.lead, *found.shape[-2:])
        slopes, factor = self.slopes, self.factor
        if self.fitter.parameters.free and not bool(
            self.covariance.null.any() | self.held.any() | factor.isinf().any()
        ):
            return factor[..., None, None] * self.covariance.matrix
        covariance = factor[..., None, None] * (slopes @ self.covariance.matrix @ slopes.mT)
        moved = (self.covariance.null @ slopes.mT).abs().sum(-2) > 0
        moved |= factor.isinf()[..., None]
        undetermined = moved[..., :, None] | moved[..., None, :]
        pinned = ((slopes != 0) & (self.held & ~self.equal_bounds)[..., None, :]).any(-1)
        unknown = pinned[..., :, None] | pinned[..., None, :]
        fixed = ((slopes == 0) | (self.held & self.equal_bounds)[..., None, :]).all(-1)
        certain = fixed[..., :, None] | fixed[..., None, :]
        covariance = torch.where(
            unknown, torch.nan, torch.where(undetermined, torch.inf, covariance)
        )
        return torch.where(certain, 0.0, covariance)

    @property
    def equal_bounds(self) -> Tensor:
        """Which variables are fixed by equal bounds, (n,) bool."""
        lower, upper = self.fitter.bounds
        return lower == upper

    def about_mean(self) -> Tensor:
        """χ² of the best constant in place of the curve, (...,)."""
        data = self.fitter.data.unwritten()
        y, one = data.y.detach().double(), torch.ones_like(data.y, dtype=torch.float64)
        if data.root is not None:
            y, one = ((data.root.double() @ v[..., None])[..., 0] for v in (y, one))
        elif data.weights is not None:
            y, one = y * data.weights, one * data.weights
        level = (y * one).sum(-1) / one.square().sum(-1)
        return (y - level[..., None] * one).square().sum(-1)

    def spread(self) -> Tensor:
        """The variance of a residual from the median of |r|, which outliers do not move, (...,)."""
        weights = self.fitter.data.weights
        size = self.residual.double().abs()
        size = size if weights is None else torch.where(weights > 0, size, torch.nan)
        return (NORMAL * size.nanquantile(0.5, -1)).square()

    def quantile(self, level: float) -> Tensor:
        """The two-sided quantile of Student's t, or, for absolute errors, the normal's, (...,)."""
        from scipy.special import ndtri, stdtrit  # a tenth of a second, for intervals alone

        if self.absolute:
            return torch.full_like(self.chisqr, float(ndtri((1 + level) / 2)))
        freedom = np.maximum(to_array(self.freedom), 1)
        return tensor_of(np.asarray(stdtrit(freedom, (1 + level) / 2))).to(self.chisqr)

    @cached_property
    def stderr(self) -> Tensor:
        """Standard errors of p, (..., P)."""
        parts = [] if "pcov" in self.__dict__ else self.parts()
        if parts:
            found = torch.cat([part.stderr for part in parts])
            return found.reshape(*self.lead, *found.shape[-1:])
        return self.pcov.diagonal(dim1=-2, dim2=-1).sqrt()

    @property
    def correlation(self) -> Tensor:
        """Correlations of p, (..., P, P); NaN where there are no standard errors."""
        both = self.stderr[..., :, None] * self.stderr[..., None, :]
        return torch.where((both > 0) & both.isfinite(), self.pcov / both, torch.nan)

    @property
    def redchi(self) -> Tensor:
        """χ² over the degrees of freedom, (...,); infinite or NaN without any."""
        return self.chisqr / self.freedom.clamp(min=0)

    @property
    def rsquared(self) -> Tensor:
        """R², 1 − χ² over the χ² of the weighted mean, (...,)."""
        return 1 - self.chisqr / self.about_mean()

    @property
    def aic(self) -> Tensor:
        """Akaike's criterion, m ln(χ²/m) + 2n, (...,)."""
        count = self.fitter.data.count
        return count * (self.chisqr / count).log() + 2 * self.n

    @property
    def bic(self) -> Tensor:
        """Schwarz's criterion, m ln(χ²/m) + n ln m, (...,)."""
        count = self.fitter.data.count
        return count * (self.chisqr / count).log() + self.n * count.log()

    def band(self, x: Any, probability: float, dataset: int | None, sigma: Any) -> Band:
        """The curve at new points with its limits; with sigma, with those of a new measurement.

        Raises:
            InputError: the level is no probability, or there is no such data set.
        """
        if not 0 < probability < 1:
            raise InputError(f"level={probability} must be a probability between 0 and 1.")
        points, count = self.points(x, dataset)
        curve, slopes = self.sensitivity(points, count, dataset)
        spread = variance(slopes, self.covariance, self.factor)
        if sigma is not None:
            spread = spread + self.scatter(curve, sigma)
        return about(curve, spread, self.quantile(probability))

    @property
    def evaluated(self) -> tuple[Fitter, Tensor]:
        """What gives the curve, and the variables (..., n) that it is given at.

        Where ties were not saved, how p follows from u is not known, and the variables are p.
        """
        fitter = self.fitter
        if not any(isinstance(tie, Unsaved) for tie in fitter.parameters.ties.values()):
            return fitter, self.u.detach()
        return replace(fitter, parameters=Parameters(self.names), jac=None), self.p

    def sensitivity(
        self, points: Any, count: int, dataset: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The curve at points that f takes, (..., count), and its derivatives in u."""
        fitter, variables = self.evaluated
        curve, slopes = fitter.sensitivity(variables, points, count, dataset)
        if fitter is not self.fitter:
            slopes = slopes.to(self.slopes) @ self.slopes
        return curve, slopes

    def again(self) -> Tensor:
        """The curve at the data as the model gives it now, (..., m); of a batch with one x."""
        data = self.fitter.data.unwritten()
        return self.sensitivity(data.x, data.m)[0]

    def scatter(self, curve: Tensor, sigma: Any) -> Tensor:
        """The variance of new measurements where the curve is so high, (..., k)."""
        deviation = torch.as_tensor(sigma, dtype=curve.dtype, device=curve.device)
        scatter = self.variance if self.loss is None else self.spread()
        return deviation.square() * scatter[..., None]

    def points(self, x: Any, dataset: int | None) -> tuple[Any, int]:
        """Convert new points to what f takes, and count them."""
        if self.fitter.data.sizes and dataset is None:
            raise InputError(
                "a global fit has a curve for each data set: name one with dataset=0, 1, ..."
            )
        data = self.fitter.data
        if dataset is not None and not 0 <= dataset < len(data.sizes):
            raise InputError(f"dataset={dataset} does not name one of {len(data.sizes)} data sets.")
        return points_of(x, data.x if dataset is None else data.x[dataset], data)
