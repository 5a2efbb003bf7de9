"""Whether a fit in float32 has ended short of its minimum, in units of its standard errors.

What a certificate finds may be round-off it has to excuse, and the bound for that is a worst case:
of parameters that the data hardly tell apart (a condition of 10⁴ and more) it may excuse a step of
whole standard errors. Residuals and Jacobian of the end, taken as float64, say how long that step
is: at a minimum Jᵀr = 0, whatever the second derivatives are, so that

    |(J⁺ r)_j| / (σ √((JᵀJ)⁻¹)_jj)

is what the rounding of r and J leaves: on average ε e / σ, with e the size of what was rounded, and
mostly some thousandths. A fit that has stopped short is off by about that much. Data that are met
to round-off have no σ to be measured by, and nothing is said of them.
"""

from typing import Any

import torch
from torch import Tensor

from .._arrays import tensor_of
from .._errors import warn_of_fit

OFF = 0.1  # standard errors by which a parameter may be off without a word
CLEAR = 3.0  # times the round-off that is expected: what is less may be no more than that
RESOLVED = 4.0  # singular values below so many ε of the largest are those of rounded entries


def warn_if_short(inference: Any) -> None:
    """Warn where a single fit by squares in a coarse dtype would still go on in float64.

    Args:
        inference: of the fit.
    """
    residual = inference.residual
    eps = torch.finfo(residual.dtype).eps
    if eps <= torch.finfo(torch.float64).eps or not inference.solution.success:
        return
    jacobian = tensor_of(inference.solution.jac).detach().double()[:, ~inference.held]
    freedom = int(inference.freedom)
    if freedom <= 0 or not bool(torch.isfinite(jacobian).all()):
        return
    wide = residual.double()
    step, error = steps(wide, jacobian, eps)
    sigma = inference.variance.sqrt()
    rounded = wide.abs() + jacobian.abs() @ inference.u.detach().double()[~inference.held].abs()
    rounded = torch.linalg.vector_norm(rounded) + inference.size_of_data()
    noise = float(eps * rounded / len(wide) ** 0.5 / sigma)
    share = torch.where(error > 0, step.abs() / error / sigma, 0.0)
    off = float(share.max())
    if not off > max(OFF, CLEAR * noise):
        return
    names = [
        name
        for name, at in zip(
            inference.fitter.parameters.variables, inference.held.tolist(), strict=True
        )
        if not at
    ]
    dtype = str(residual.dtype).removeprefix("torch.")
    warn_of_fit(
        f"the fit has ended short of its minimum: {names[int(share.argmax())]} is off by some "
        f"{off:.1g} of its standard error, as round-off in {dtype} hides how the cost still falls. "
        "Give tensors of float64."
    )


def steps(residual: Tensor, jacobian: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """How far the linear model goes on, and what errors are measured by.

    Args:
        residual: r (m,), in float64.
        jacobian: J (m, n), in float64, of entries that were rounded by a relative ε.
        eps: that ε. Directions that it leaves nothing of are left out.

    Returns:
        The step J⁺ r, but for its sign, and √((JᵀJ)⁻¹)_jj, both (n,).
    """
    lengths = torch.linalg.vector_norm(jacobian, dim=0)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    scaled = jacobian / lengths
    values, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    kept = values > (RESOLVED * eps) ** 2 * values[-1]
    inverse = torch.where(kept, 1 / values, 0.0)
    step = vectors @ (inverse * (vectors.mT @ (scaled.mT @ residual)))
    error = (vectors.square() @ inverse).sqrt()
    return step / lengths, error / lengths
