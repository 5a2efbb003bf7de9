"""Covariance of fitted variables: what the data say about them, and what they do not.

With whitened residuals r (m,) and J (m, n), the covariance is σ̂² (JᵀJ)⁻¹, where σ̂² = ‖r‖²/(m − n)
unless the errors are absolute, and n counts the variables that are not held at a bound. A robust
loss has the sandwich A⁻¹BA⁻¹ with A = Σ ψ′ J_i J_iᵀ and B = Σ ψ²(1 − h_i)^−δ_i J_i J_iᵀ, where
h_i = ψ′ J_iᵀA⁻¹J_i is the share of a point in its own curve. A point with a large share draws the
curve to itself, and its residual is smaller than its error was: without the power, the error of
what a few points determine, as the height of a decay, is a fifth too small. If J is deficient, the
pseudo-inverse gives the covariance of what is determined, and the null vectors name what is not.

References: Press et al., Numerical recipes (2007), §15.4; Huber & Ronchetti, Robust
statistics (2009), §7.6; of δ Cribari-Neto & da Silva, A new heteroskedasticity-consistent
covariance matrix estimator for the linear regression model (2011), HC4m.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...arrays import cholesky
from ...losses.base import Rho
from ...minimising.user_function import LARGEST, SMALLEST

# trace of (JᵀJ)⁻¹, for columns of length one, below which it has at least ten digits
INDEPENDENT = 1e4
CLEAR = 1e6  # the same for a single fit that has JᵀJ and no J: eight digits of an error suffice
# smallest eigenvalue of JᵀJ, for columns of length one, above which no rounding hides a zero
CLEARLY = 1e-8
INVOLVED = 1e-6  # of the largest: smaller parts of a combination are not written
OWN = 0.99  # share of a point in its own curve beyond which its residual tells nothing
# h_i/h̄ up to which each of the two parts of δ grows, HC4m's γ
FIRST, SECOND = 1.0, 1.5
ROUNDINGS = 8  # of n numbers, which entries of a null vector are off by


class Covariance(NamedTuple):
    """The covariance of the variables u, with any leading batch dimensions."""

    matrix: Tensor  # (..., n, n), without the undetermined directions
    # (..., n, n), rows are directions of u that change nothing; unused rows are zero
    null: Tensor


def inverse_normal(
    jacobian: Tensor,  # (..., m, n)
    held: Tensor,  # (..., n) bool, variables that do not vary
) -> Covariance:
    """(JᵀJ)⁺ for the variables that vary.

    In a batch it is the inverse of JᵀJ where the columns of J are far from dependent, which loses
    no digits that matter there and takes a tenth of the time.
    """
    if jacobian.ndim == 2:
        return _by_svd(jacobian, held)
    lead, (m, n) = jacobian.shape[:-2], jacobian.shape[-2:]
    jacobian, held = jacobian.reshape(-1, m, n), held.reshape(-1, n)
    matrix = _of_normal(jacobian, held)
    null = torch.zeros_like(matrix)
    (doubted,) = matrix.isnan().any(-1).any(-1).nonzero(as_tuple=True)
    if len(doubted):
        found = _by_svd(jacobian[doubted], held[doubted])
        matrix, null = (
            matrix.index_copy(0, doubted, found.matrix),
            null.index_copy(0, doubted, found.null),
        )
    return Covariance(matrix.reshape(*lead, n, n), null.reshape(*lead, n, n))


def of_one(normal: Any) -> Any:
    """Invert JᵀJ (n, n) of one fit, in NumPy.

    Args:
        normal: JᵀJ.

    Returns:
        The inverse (n, n); None where columns of J may be dependent, or their squares no numbers.
    """
    squares = normal.diagonal()
    if not (squares.min() >= SMALLEST**2 and squares.max() <= LARGEST**2):
        return None
    length = np.sqrt(squares)
    both = length * length[:, None]
    try:
        inverse = np.linalg.inv(normal / both)
    except np.linalg.LinAlgError:
        return None
    # the trace of the inverse of what is positive is no less than one over its least eigenvalue
    entries = inverse.diagonal()
    if not (entries.min() > 0 and float(entries.sum()) < CLEAR):
        return None
    inverse /= both
    return (inverse + inverse.T) / 2


def determines(normal: Any) -> bool:
    """Tell at a glance whether JᵀJ (n, n) of one fit, in NumPy, determines every variable.

    With columns of length one the eigenvalues of JᵀJ add up to n, so that the product of all but
    the least is no more than (n / (n − 1))ⁿ⁻¹ < e, and the least no less than det / e. One Cholesky
    factorisation gives the determinant, at a fifth of what an inverse takes.

    Args:
        normal: JᵀJ.

    Returns:
        Whether the least eigenvalue is above `CLEARLY`; False where it may be nonetheless.
    """
    if normal.dtype != np.float64:
        return False
    squares = normal.diagonal().tolist()
    if not (min(squares) >= SMALLEST**2 and max(squares) <= LARGEST**2):
        return False
    pivots = cholesky(normal)
    if pivots is None:
        return False
    share = 1.0
    for pivot, square in zip(pivots.tolist(), squares, strict=True):
        share *= pivot * pivot / square
    return share > math.e * CLEARLY


def _of_normal(jacobian: Tensor, held: Tensor) -> Tensor:
    """(JᵀJ)⁻¹ (b, n, n) of the variables that vary; NaN where columns may be dependent."""
    # of n × m times m × n kernels round alike wherever a fit stands in the batch; where the columns
    # of J lie across, or in an inverse of LAPACK, it would depend on the address
    columns = jacobian.mT.contiguous()
    normal = columns @ columns.mT
    out = held[:, None, :] | held[:, :, None]
    normal = torch.where(out, torch.diag_embed(held.to(normal)), normal)
    length = normal.diagonal(dim1=-2, dim2=-1).sqrt()
    both = length[:, :, None] * length[:, None, :]
    factor, failed = torch.linalg.cholesky_ex(normal / both)
    sound = (failed == 0) & factor.isfinite().all(-1).all(-1)
    factor = torch.where(sound[:, None, None], factor, torch.diag_embed(torch.ones_like(length)))
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    inverse = root.mT @ root
    # the trace is no less than one over the smallest eigenvalue
    clear = sound & (inverse.diagonal(dim1=-2, dim2=-1).sum(-1) < INDEPENDENT)
    matrix = torch.where(out, 0.0, _symmetric(inverse / both))
    return torch.where(clear[:, None, None], matrix, torch.nan)


def _by_svd(
    jacobian: Tensor,  # (..., m, n)
    held: Tensor,  # (..., n) bool
) -> Covariance:
    """(JᵀJ)⁺ by an SVD of J with columns scaled to length one, and the null vectors."""
    jacobian = torch.where(held[..., None, :], 0.0, jacobian)
    length = torch.linalg.vector_norm(jacobian, dim=-2)
    scale = torch.where(length > 0, length, 1.0)
    finite = jacobian.isfinite().all(-1).all(-1)
    scaled = torch.where(finite[..., None, None], jacobian / scale[..., None, :], 0.0)
    rows, n = scaled.shape[-2:]
    if rows < n:  # add rows of zeros, so that V has all null vectors
        scaled = torch.cat([scaled, scaled.new_zeros(*scaled.shape[:-2], n - rows, n)], -2)
    _, singular, vh = torch.linalg.svd(scaled, full_matrices=False)
    kept = singular > max(rows, n) * torch.finfo(singular.dtype).eps * singular[..., :1]
    inverse = torch.where(kept, 1 / torch.where(kept, singular, 1.0), 0.0)
    root = vh.mT * inverse[..., None, :] / scale[..., None]
    # each variable that is held has a null vector of its own, which says nothing about the data
    own = (vh.square() * held[..., None, :]).sum(-1) > 0.5
    null = torch.where((kept | own | ~finite[..., None])[..., None], 0.0, vh)
    matrix = _symmetric(root @ root.mT)
    matrix = torch.where(finite[..., None, None], matrix, torch.nan)
    # nothing bounds what goes along a null vector: a variable has its part in it however small its
    # entry is, if only it is more than round-off, which the least of the others enlarges
    least = torch.where(kept, singular, math.inf).amin(-1)
    noise = ROUNDINGS * n * torch.finfo(singular.dtype).eps * singular[..., 0] / least
    involved = null.abs() > noise.clamp(max=INVOLVED)[..., None, None]
    null = torch.where(involved, null, 0.0) / scale[..., None, :]
    return Covariance(matrix, null)


def sandwich(
    jacobian: Tensor,  # (..., m, n), not rescaled by the loss
    residual: Tensor,  # (..., m)
    rho: Rho,  # at (r/C)²
    scale: Tensor,  # (...,) or (), C
    count: Tensor,  # (...,), m, of the points that were not left out
    freedom: Tensor,  # (...,), m − n, of the variables that vary
    held: Tensor,  # (..., n) bool
) -> Covariance:
    """The covariance A⁻¹BA⁻¹ for a robust loss with ψ = ρ′r and ψ′ = ρ′ + 2zρ″."""
    z = (residual / scale[..., None]).square()
    influence = rho.first * residual
    bend = rho.first + 2 * z * rho.second
    # a loss that bends back makes some rows count negative; if A is not positive definite because
    # of them, take ρ′ instead of ψ′
    curvature = jacobian.mT @ (bend[..., None] * jacobian)
    positive = torch.linalg.eigvalsh(curvature.nan_to_num())[..., 0] > 0
    weight = torch.where(positive[..., None], bend, rho.first)
    sign = weight.sign()
    outer = inverse_normal(weight.abs().sqrt()[..., None] * jacobian, held)
    if bool((sign < 0).any()):
        free = torch.where(
            held[..., None, :] | held[..., :, None],
            0.0,
            jacobian.mT @ (weight[..., None] * jacobian),
        )
        outer = outer._replace(matrix=torch.linalg.pinv(free, hermitian=True))
    share = (weight * (jacobian @ outer.matrix * jacobian).sum(-1)).clamp(min=0.0, max=OWN)
    relative = share * (count / (count - freedom).clamp(min=1))[..., None]  # to their mean, n/m
    power = relative.clamp(max=FIRST) + relative.clamp(max=SECOND)
    scores = (influence * (1 - share) ** (-power / 2))[..., None] * jacobian
    middle = scores.mT @ scores
    return outer._replace(matrix=_symmetric(outer.matrix @ middle @ outer.matrix))


def _symmetric(matrix: Tensor) -> Tensor:
    """Make a matrix symmetric to the last bit, as matrix products are not on every processor."""
    return (matrix + matrix.mT) / 2


def combinations(
    null: Tensor,  # (n, P) or fewer rows, directions of p that change nothing
    names: list[str],
) -> list[str]:
    """Write each direction as a combination of names, relative to its largest entry."""
    texts = []
    for direction in null:
        largest = direction.abs().max()
        if not largest > 0:
            continue
        parts = direction / direction[direction.abs().argmax()]
        terms = [
            f"{float(part):+.3g}·{name}"
            for part, name in zip(parts, names, strict=True)
            if abs(part) > INVOLVED
        ]
        texts.append(" ".join(terms).removeprefix("+"))
    return texts
