"""Whether a fit in float32 has ended short of its minimum, in units of its standard errors.

What a certificate finds may be round-off it has to excuse, and the bound for that is a worst case:
of parameters that the data hardly tell apart (a condition of 10⁴ and more) it may excuse a step of
whole standard errors. Residuals and Jacobian of the end, taken as float64, say how long that step
is: at a minimum Jᵀr = 0, whatever the second derivatives are, so that

    |(J⁺ r)_j| / (σ √((JᵀJ)⁻¹)_jj)

is what the rounding of r and J leaves: a third of ε e / σ, with e² the mean sum of squares of what
was rounded, and mostly some thousandths. A fit that has stopped short is off by about that much:
of peaks and sigmoids with data of 10² to 10⁶ σ the median of a hundred fits was that of the way to
the end of a fit in float64, to a quarter. Data that are met to round-off have no σ to be measured
by, and nothing is said of them.

Of a batch a sample is looked at, and only if single numbers of its data are rounded by a share of σ
that adds up: to make J of all fits may take as long as the fits.
"""

from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of
from ..._errors import warn_of_fit
from ...core.termination import Status
from ...minimising.solution import Solution
from ..fitter import Fitter
from ..inference.selection import of_some

OFF = 0.1  # standard errors by which a parameter may be off without a word
ROUNDING = 0.3  # ε, the root of the mean square of what a number is rounded by
CLEAR = 3.0  # times the round-off that is expected: what is less may be no more than that
MET = 0.15  # σ that round-off alone is: data that are met to it
RESOLVED = 4.0  # singular values below so many ε of the largest are those of rounded entries
SAMPLE = 64  # fits of a batch that are looked at
ROUNDED = 1e-4  # σ by which a number is rounded on average, in the fits of a batch that are
ADVICE = "as round-off in {dtype} hides how the cost still falls. Give tensors of float64."


def warn_if_short(inference: Any) -> None:
    """Warn where a single fit by squares in a coarse dtype would still go on in float64.

    Args:
        inference: of the fit.
    """
    residual = inference.residual
    if not _coarse(residual.dtype) or not inference.solution.success:
        return
    jacobian = tensor_of(inference.solution.jac).detach()
    if int(inference.freedom) <= 0 or not bool(torch.isfinite(jacobian).all()):
        return
    share = shares(
        residual[None],
        torch.where(inference.held, 0.0, jacobian)[None],
        inference.u.detach()[None],
        inference.variance.sqrt()[None],
        inference.size_of_data()[None],
    )[0]
    off, place = (float(part) for part in share.max(-1))
    if off > 0:
        name = inference.fitter.parameters.variables[int(place)]
        warn_of_fit(
            f"the fit has ended short of its minimum: {name} is off by some {off:.1g} of its "
            f"standard error, {ADVICE.format(dtype=_name(residual.dtype))}"
        )


def warn_if_some_are_short(fitter: Fitter, solution: Solution, absolute: bool) -> None:
    """Warn where fits of a batch by squares in a coarse dtype would still go on in float64.

    Args:
        fitter: of the fits.
        solution: where they have ended.
        absolute: errors of the data are meant as they are.
    """
    data = fitter.data
    dtype = data.y.dtype
    if not _coarse(dtype):
        return
    status = tensor_of(solution.status)
    rows = ((status > 0) & (status != int(Status.RUNAWAY))).nonzero()[:, 0]
    rows = rows[:: max(1, -(-len(rows) // SAMPLE))]
    freedom = data.count.reshape(-1)[rows] - fitter.varying
    sigma = (2 * tensor_of(solution.cost).detach()[rows].double() / freedom.clamp(min=1)).sqrt()
    sigma = torch.where(freedom > 0, torch.ones_like(sigma) if absolute else sigma, torch.inf)
    size = _sizes(fitter, len(status), rows)
    eps = torch.finfo(dtype).eps
    hidden = (eps * size > ROUNDED * data.m**0.5 * sigma) & (sigma > 0)
    if not bool(hidden.any()):
        return
    rows, sigma, size = rows[hidden], sigma[hidden], size[hidden]
    residual, jacobian = (of_some(solution, name, rows) for name in ("fun", "jac"))
    if fitter.bounded:  # what is against a bound stays there
        held = tensor_of(solution.active_mask)[rows] != 0
        jacobian = torch.where(held[:, None], 0.0, jacobian)
    u = tensor_of(solution.x).detach()[rows]
    off = shares(residual.reshape(len(rows), -1), jacobian, u, sigma, size).amax(-1)
    short = off[off > 0]
    if len(short):
        warn_of_fit(
            f"{len(short)} of {len(off)} fits that were looked at have ended short of their "
            f"minima: parameters are off by up to {float(short.max()):.1g} of a standard error, "
            f"{ADVICE.format(dtype=_name(dtype))}"
        )


def shares(residual: Tensor, jacobian: Tensor, x: Tensor, sigma: Tensor, size: Tensor) -> Tensor:
    """Standard errors by which parameters of fits in a coarse dtype are off.

    Args:
        residual: r (b, m) in that dtype.
        jacobian: J (b, m, n); columns of what is held are zero.
        x: where the fits have ended, (b, n).
        sigma: of a residual, (b,).
        size: ‖y‖ in units of its errors, (b,).

    Returns:
        They, (b, n); zero where it may be no more than round-off, or where J is no number.
    """
    eps = torch.finfo(residual.dtype).eps
    wide, jacobian = residual.double(), jacobian.double()
    known = jacobian.isfinite().all(-1).all(-1)
    jacobian = torch.where(known[:, None, None], jacobian, 0.0)
    step, error = steps(wide, jacobian, eps)
    # of sums of what was rounded each by itself, as far as residuals and their derivatives show it
    terms = wide.square().sum(-1) + 2 * size.square()
    terms = terms + (jacobian * x.double()[:, None]).square().sum(-1).sum(-1)
    noise = ROUNDING * eps * (terms / wide.shape[-1]).sqrt() / sigma
    share = torch.where(error > 0, step.abs() / error / sigma[:, None], 0.0)
    told = (share > (CLEAR * noise).clamp(min=OFF)[:, None]) & (noise < MET)[:, None]
    return torch.where(told, share, 0.0)


def steps(residual: Tensor, jacobian: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """How far the linear model goes on, and what errors are measured by.

    Args:
        residual: r (..., m), in float64.
        jacobian: J (..., m, n), in float64, of entries that were rounded by a relative ε.
        eps: that ε. Directions that it leaves nothing of are left out.

    Returns:
        The step J⁺ r, but for its sign, and √((JᵀJ)⁻¹)_jj, both (..., n).
    """
    lengths = torch.linalg.vector_norm(jacobian, dim=-2)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    scaled = jacobian / lengths[..., None, :]
    values, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    kept = values > (RESOLVED * eps) ** 2 * values[..., -1:]
    inverse = torch.where(kept, 1 / values, 0.0)
    along = vectors.mT @ (scaled.mT @ residual[..., None])
    step = (vectors @ (inverse[..., None] * along))[..., 0]
    error = (vectors.square() @ inverse[..., None])[..., 0].sqrt()
    return step / lengths, error / lengths


def _coarse(dtype: torch.dtype) -> bool:
    return torch.finfo(dtype).eps > torch.finfo(torch.float64).eps


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes(fitter: Fitter, count: int, rows: Tensor) -> Tensor:
    """‖y‖ of some of so many fits, in units of its errors, (k,)."""
    data = fitter.data
    y, weights = data.y.detach(), data.weights
    chosen = y.reshape(count, -1)[rows].double()
    if weights is not None:
        weights = weights.expand_as(y).reshape(count, -1)[rows]
        chosen = torch.where(weights > 0, weights * chosen, 0.0)
    return torch.linalg.vector_norm(chosen, dim=-1)
