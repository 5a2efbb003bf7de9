"""Refits of resampled points with errors in x and y, as one batch.

In units of the errors the difference of a point from its place on the curve is along the normal of
that, z = (I, −V)ᵀ S^{−½} d with the distances d (q,), which are what "residuals" draws: z is that
of the point to which they are given.

Reference: Efron & Tibshirani, An introduction to the bootstrap (1993), §9.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ...core.termination import Status
from ..inference.bootstrap import KINDS, Bootstrap
from .fitter import Points
from .point_errors import displacement

if TYPE_CHECKING:
    from .inference import OrthogonalInference


def resample(fit: "OrthogonalInference", samples: int, kind: str | None, seed: int) -> Bootstrap:
    """Resample the data of one fit and refit them."""
    kind = KINDS[0] if kind is None else kind
    if kind not in KINDS:
        raise InputError(f"kind={kind!r} is not known: use one of {KINDS}.")
    if samples < 2:
        raise InputError(f"samples={samples} must be at least 2.")
    rng = np.random.default_rng(seed)
    points = cases(fit, rng, samples) if kind == "cases" else moved(fit, rng, samples, kind)
    fitter, u = fit.fitter, fit.u.detach()
    drawn = replace(fitter, data=replace(fitter.data, every=False))  # some points are left out
    solution = drawn.solve(u.expand(samples, -1).clone(), points=points)
    found, status = solution.x, to_array(solution.status)
    good = (status > 0) | (status == Status.STALLED.value)
    p = to_array(fitter.parameters.outward(found, fitter.start.expand(samples, -1)))
    return Bootstrap(fit.names, p[good], int((~good).sum()))


def cases(fit: "OrthogonalInference", rng: np.random.Generator, samples: int) -> Points:
    """Points that are drawn several times, or not at all: their weights are multiplied."""
    data = fit.data
    there = np.flatnonzero(to_array(data.counts.any(-2)))
    counts = np.zeros((samples, data.points))
    counts[:, there] = rng.multinomial(
        len(there), np.full(len(there), 1 / len(there)), size=samples
    )
    roots = tensor_of(np.sqrt(counts)).to(data.y)
    spread, whitening = (one.expand(samples, *one.shape) for one in (data.spread, data.whitening))
    by = roots[(slice(None), *(None,) * (spread.ndim - 2))]
    spread = torch.where(by > 0, spread / by, 0.0)
    by = roots[(slice(None), *(None,) * (whitening.ndim - 2))]
    if data.implicit:  # whose R only says what counts
        by = (by > 0).to(by)
    eta = torch.where(roots[..., None] > 0, fit.eta * roots[..., None], 0.0)
    return Points(data.x[None], spread, data.grid[None], by * whitening, eta)


def moved(fit: "OrthogonalInference", rng: np.random.Generator, samples: int, kind: str) -> Points:
    """Points moved off the curve, x* and y*."""
    data = fit.data
    q, m, k = data.each, data.points, data.predictors
    size = float(fit.variance) ** 0.5
    if kind == "normal":
        of_x = size * rng.standard_normal((samples, k, m))
        of_y = size * rng.standard_normal((samples, q, m))
        eta, eps = (tensor_of(noise).to(data.y) for noise in (of_x, of_y))
    else:
        eta, eps = drawn(fit, rng, samples)
    at = data.x + data.displaced(fit.eta)
    x = at - data.shaped(displacement(data.spread, eta, 0))
    y = torch.where(data.counts, fit.curve.nan_to_num().unflatten(-1, (q, m)), 0.0)
    if data.implicit:
        y = torch.zeros_like(y)[None]
    elif data.whitening.ndim == 2:
        y = y - torch.where(data.whitening > 0, eps / data.whitening, 0.0)
    else:
        inverse = torch.linalg.pinv(data.whitening.movedim(-1, 0))  # (m, q, q)
        y = y - (inverse @ eps.mT[..., None])[..., 0].mT
    start = eta.mT
    return Points(x, data.spread[None], y, data.whitening[None], start)


def drawn(
    fit: "OrthogonalInference", rng: np.random.Generator, samples: int
) -> tuple[Tensor, Tensor]:
    """η (s, k, m) and ε (s, q, m) of distances drawn with replacement."""
    data = fit.data
    there = np.flatnonzero(to_array(data.counts.all(-2)))
    if not len(there):
        raise InputError("no point has all of its responses: use kind='cases' or 'normal'.")
    normals, freedom = fit.solution.normals, max(1, int(fit.freedom))  # (q + k, q) of each point
    left = to_array(fit.residual.unflatten(-1, (data.each, data.points)).mT)[there]
    # distances are smaller than the errors, as the fit has adapted to them
    left = (left - left.mean(0)) * np.sqrt(float(data.count) / freedom)
    distances = tensor_of(left[rng.integers(len(left), size=(samples, data.points))]).to(data.y)
    both = (normals @ distances[..., None])[..., 0].mT  # (s, q + k, m)
    return both[:, data.each :], both[:, : data.each]
