"""What is known of parameters from points with errors in x: each point's errors are eliminated."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of
from ..._errors import InputError
from ..inference.inference import Inference
from ..measurements.reading import merged, numbers_of
from .data import PointData
from .fitter import OrthogonalFitter

NOTHING = 1e-6  # share of its terms below which f of an implicit model is zero


class OrthogonalInference(Inference):
    """Inference from the rows that are left when each point's errors in x are eliminated."""

    fitter: OrthogonalFitter
    extras = ("curve",)

    @property
    def data(self) -> PointData:
        """The data with their errors."""
        return self.fitter.data

    @property
    def eta(self) -> Tensor:
        """The displacements in units of their deviations, (..., m, k)."""
        eta: Tensor = self.solution.eta
        return eta.reshape(*self.lead, *eta.shape[-2:])

    @property
    def x_error(self) -> Tensor:
        """Standard deviations of x, (..., m, k); zero where it is exact."""
        spread = self.data.spread
        if spread.ndim > 2 + len(self.lead):
            spread = torch.linalg.vector_norm(spread, dim=-2)
        return spread.mT

    @cached_property
    def curve(self) -> Tensor:
        """f where the points have moved to, (..., q·m); NaN for what is left out."""
        return self.counted(self.solution.curve.reshape(self.data.y.shape))

    def counted(self, values: Tensor) -> Tensor:
        """Values (..., q·m) with NaN for what is left out."""
        weights = self.data.weights
        return values if weights is None else torch.where(weights > 0, values, torch.nan)

    @cached_property
    def moved(self) -> Tensor:
        """Where the points are, in the shape of x; NaN for those that are left out."""
        data = self.data
        there = data.counts.any(-2)
        there = there if data.flat else there[..., None, :]
        return torch.where(there, data.x + data.displaced(self.eta), torch.nan)

    @cached_property
    def chisqr(self) -> Tensor:
        """Twice the cost, (...,): both errors count."""
        cost = tensor_of(self.solution.cost, dtype=torch.float64)
        return 2 * cost.reshape(self.lead)

    def size_of_data(self) -> Tensor:
        """The norm of y in units of its errors, (...,)."""
        root, y = self.data.whitening, self.data.grid
        whitened = root * y if root.ndim == y.ndim else (root * y[..., None, :, :]).sum(-2)
        whitened = torch.where(whitened.isfinite(), whitened, 0.0).double()
        return torch.linalg.vector_norm(whitened.reshape(*self.lead, -1), dim=-1)

    def model_at(self, u: Tensor) -> tuple[Tensor, Tensor] | None:
        """Residuals (1, q·m) and J (1, q·m, n) of a single fit at other variables (n,), as x is."""
        data = self.data
        if self.lead or data.implicit or data.each > 1:
            return None
        with np.errstate(all="ignore"):  # zero may be no value that the model has an answer for
            curve, rows = self.fitter.sensitivity(u, data.x, data.m)
        root = torch.where(data.counts, data.whitening, 0.0).double()
        left = torch.where(root > 0, root * (curve.double() - data.grid), 0.0)
        return left, root[..., None] * rows.double()

    @property
    def chisqr_x(self) -> Tensor:
        """The part of the displacements, (...,)."""
        return self.eta.double().square().sum((-2, -1))

    @property
    def rsquared(self) -> Tensor:
        """R² is NaN: with errors in x there is no variance of y to compare with."""
        return torch.full_like(self.chisqr, math.nan)

    @property
    def loglikelihood(self) -> Tensor:
        """NaN: with errors in x it is another one for each way to treat where points are."""
        return torch.full_like(self.chisqr, math.nan)

    @property
    def condition(self) -> Tensor:
        """Smallest over largest singular value of J with columns of length one, (...,)."""
        jacobian = tensor_of(self.solution.jac).detach().double()
        length = torch.linalg.vector_norm(jacobian, dim=-2, keepdim=True)
        varies = ~self.held.reshape(*length.shape[:-2], 1, -1)
        scaled = torch.where(varies & (length > 0), jacobian / length, 0.0)
        singular = torch.linalg.svdvals(scaled.nan_to_num())
        kept = varies.sum(-1).clamp(min=1) - 1
        least = singular.gather(-1, kept)[..., 0]
        return (least / singular[..., 0]).reshape(self.lead)

    def scatter(self, curve: Tensor, sigma: Any) -> Tensor:
        """The variance of new measurements; sigma is a number, or one for each of them."""
        sigma = torch.as_tensor(sigma, dtype=curve.dtype, device=curve.device)
        if sigma.ndim > 1:
            sigma = sigma.flatten(-2)
        return super().scatter(curve, sigma)

    def again(self) -> Tensor:
        """What `curve` of a single fit is by the model as it is now.

        Of an implicit model that is zero: what is as small beside its terms is taken for the same.

        Returns:
            f where the points have moved to, (q·m,).
        """
        at = self.data.x + self.data.displaced(self.eta)
        now, slopes = self.sensitivity(at, self.data.m)
        if not self.data.implicit:
            return now
        terms = (slopes * self.evaluated[1]).abs().sum(-1)
        return torch.where(now.abs() <= NOTHING * terms, self.curve, now)

    def points(self, x: Any, dataset: int | None) -> tuple[Tensor, int]:
        """New points in the layout of x, and the number of values of f there."""
        if self.data.implicit:
            raise InputError(
                "an implicit model has no curve y(x): f(x) = 0 says where it is. x_fit has points "
                "on it."
            )
        points = numbers_of(merged(x, "new points"), "new points").to(self.data.y)
        dims = 1 if self.data.flat else 2
        points = points.reshape(1) if points.ndim == 0 else points
        if points.ndim != dims or (dims == 2 and len(points) != self.data.predictors):
            layout = "(c,)" if dims == 1 else f"({self.data.predictors}, c)"
            raise InputError(
                f"new points of shape {tuple(points.shape)} are not in the layout of x, {layout}."
            )
        return points, self.data.each * points.shape[-1]
