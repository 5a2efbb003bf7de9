"""Refits of resampled data, as one batch: errors that assume no linear model and no normal errors.

Reference: Efron & Tibshirani, An introduction to the bootstrap (1993), §9.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ...core.termination import Status
from ..likelihoods import Likelihood
from .inference import Inference

KINDS = ("residuals", "cases", "normal")
OF_COUNTS = ("parametric", "cases")


@dataclass(frozen=True)
class Bootstrap:
    """The parameters found from resampled data.

    Attributes:
        names: the names of the parameters.
        samples: (k, P), the parameters of each refit that came to a minimum.
        failed: how many refits did not.
    """

    names: list[str]
    samples: np.ndarray
    failed: int

    @property
    def stderr(self) -> np.ndarray:
        """Standard deviations of the samples, (P,)."""
        return self.samples.std(0, ddof=1)

    @property
    def pcov(self) -> np.ndarray:
        """The covariance of the samples, (P, P)."""
        return np.atleast_2d(np.cov(self.samples, rowvar=False))

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Intervals between percentiles of the samples.

        Args:
            level: the probability of each interval. Default: 0.95.

        Returns:
            (lower, upper) by name.
        """
        low, high = np.quantile(self.samples, ((1 - level) / 2, (1 + level) / 2), axis=0)
        return {
            name: (float(a), float(b)) for name, a, b in zip(self.names, low, high, strict=True)
        }


def resample(fit: Inference, samples: int, kind: str | None, seed: int) -> Bootstrap:
    """Resample the data of one fit and refit them."""
    likelihood = fit.fitter.likelihood
    kinds = KINDS if likelihood is None else OF_COUNTS
    kind = kinds[0] if kind is None else kind
    if kind not in kinds:
        of = "" if likelihood is None else f" of a fit with likelihood={likelihood.name!r}"
        raise InputError(f"kind={kind!r} is not known{of}: use one of {kinds}.")
    if samples < 2:
        raise InputError(f"samples={samples} must be at least 2.")
    fitter, data = fit.fitter, fit.fitter.data.unwritten()
    rng = np.random.default_rng(seed)
    y, u = data.y.detach(), fit.u.detach()
    used = (
        np.flatnonzero(to_array(data.weights > 0))
        if data.weights is not None
        else np.arange(data.m)
    )
    if kind == "cases":
        if data.root is not None:
            raise InputError(
                "points with correlated errors cannot be drawn one by one: use kind='residuals'."
            )
        counts = np.zeros((samples, data.m))
        counts[:, used] = rng.multinomial(
            len(used), np.full(len(used), 1 / len(used)), size=samples
        )
        # weights multiply residuals; of a likelihood they multiply costs
        roots = tensor_of(np.sqrt(counts) if likelihood is None else counts).to(y)
        weights = roots * (1.0 if data.weights is None else data.weights)
        solution = fitter.solve(
            u.expand(samples, -1).clone(), weights=weights, verbose=0, callback=None
        )
    elif likelihood is not None:
        drawn = tensor_of(_drawn(fit, likelihood, rng, samples)).to(y)
        solution = fitter.solve(u.expand(samples, -1).clone(), y=drawn, verbose=0, callback=None)
    else:
        size = float(fit.variance) ** 0.5
        if kind == "normal":
            noise = size * rng.standard_normal((samples, data.m))
        else:
            left = to_array(fit.residual)[used]
            freedom = max(1, int(fit.freedom))
            # residuals are smaller than the errors, as the fit has adapted to them
            left = (left - left.mean()) * np.sqrt(len(used) / freedom)
            noise = rng.choice(left, size=(samples, data.m))
        white = data.coloured(tensor_of(noise).to(y))
        curve = torch.where(fit.curve.isfinite(), fit.curve, 0.0)
        solution = fitter.solve(
            u.expand(samples, -1).clone(), y=curve + white, verbose=0, callback=None
        )
    found = tensor_of(solution.x).reshape(samples, -1)
    status = to_array(tensor_of(solution.status))
    # what stalls at round-off cannot be improved, and counts as a minimum
    good = (status > 0) | (status == Status.STALLED.value)
    p = to_array(fitter.parameters.outward(found, fitter.start.expand(samples, -1)))
    return Bootstrap(fit.names, p[good], int((~good).sum()))


def _drawn(
    fit: Inference, likelihood: Likelihood, rng: np.random.Generator, samples: int
) -> np.ndarray:
    """Counts (samples, m) of the fit; those of points that are left out are zero."""
    curve = torch.where(fit.curve.isfinite(), fit.curve, 0.0)
    total = fit.fitter.data.total
    return likelihood.drawn(
        rng, to_array(curve), None if total is None else to_array(total), samples
    )
