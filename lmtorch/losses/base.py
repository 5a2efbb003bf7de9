"""A loss of the residuals: its value, its slope, and a root of its curvature.

Near a point the cost is a quadratic function of the residuals with gradient ℓ′ and curvature
W = RᵀR. The Jacobian carries it to the parameters,

    gradient  Jᵀℓ′,    Gauss–Newton matrix  JᵀWJ = (RJ)ᵀ(RJ),

which are those of plain least squares with rows RJ and residuals R⁻ᵀℓ′: nothing downstream knows of
the loss. R is one number for each residual, or a k × k matrix for each sample whose residuals a
loss takes together, as a likelihood of several outputs does.

Reference: Triggs et al., Bundle adjustment: a modern synthesis (2000), §4.3; Martens, New insights
and perspectives on the natural gradient method (2020), §8, for roots of a matrix.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..arrays import on_numpy, to_type, total, where
from ..rows.base import Rows


class Rho(NamedTuple):
    """ρ(z), ρ′(z), ρ″(z), each of the shape of z."""

    value: Tensor
    first: Tensor
    second: Tensor


class Expansion(NamedTuple):
    """A loss near some residuals, to second order."""

    value: Tensor  # (...,), summed over these residuals
    slope: Tensor  # (..., rows), derivative of the loss in each residual
    root: Tensor | None  # (..., rows), or (..., samples, k, k); None: one for every residual
    solved: Tensor | None = None  # R⁻ᵀℓ′, (..., rows), where the loss has it in closed form

    @property
    def residual(self) -> Tensor:
        """R⁻ᵀℓ′, (..., rows): residuals whose plain squares have the slope of the loss.

        A singular root, as that of a softmax, takes the shortest of its solutions: zero where a
        residual has neither slope nor curvature. A loss has to keep its curvature well above zero
        wherever it has a slope: what of the slope lies outside the range of Rᵀ is lost.
        """
        if self.solved is not None:
            return self.solved
        if self.root is None:
            return self.slope
        if self.root.ndim <= self.slope.ndim:
            return where(self.slope == 0, self.slope, self.slope / self.root)
        by_sample = self.slope.unflatten(-1, self.root.shape[-3:-1])
        return shortest(self.root.mT, by_sample).flatten(-2)

    def rows(self, rows: Rows) -> Rows:
        """R J, the rows that go with `residual`."""
        return rows if self.root is None else rows.scaled(self.root)


def shortest(matrix: Tensor, rhs: Tensor) -> Tensor:
    """The shortest x (..., k) of those with A x nearest to rhs, for square A (..., k, k).

    Component by component: where a singular value that should be zero is round-off, and is too
    large to be dropped, its component is wrong and A takes it to nothing. The pseudo-inverse as a
    matrix holds the inverse of that number, and its round-off spoils the other components.
    """
    left, lengths, right = torch.linalg.svd(matrix)
    rounding = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * lengths[..., :1]
    inverse = torch.where(lengths > rounding, 1 / lengths, 0.0)
    parts = inverse * (left.mT @ rhs[..., None])[..., 0]
    found: Tensor = (right.mT @ parts[..., None])[..., 0]
    return found


class Loss(Protocol):
    """What the core asks of a loss.

    A loss that takes the k residuals of a sample together has an attribute `together` as well,
    which is k: then their rows come in one block.
    """

    def cost(self, residual: Tensor) -> Tensor:
        """The value alone, summed over the last dimension, (...,), in float64 if there is one."""

    def expand(self, residual: Tensor) -> Expansion:
        """Value, slope and root of the curvature at residuals (..., rows)."""

    def curvature(self, residual: Tensor) -> Tensor:
        """The exact second derivative in the residuals, (..., rows) or (..., samples, k, k).

        It may be negative, where `expand` gives a root of something positive in its place.
        """

    def take(self, places: Tensor) -> "Loss":
        """The loss of some problems of a batch (b,), by their numbers (k,)."""


def sloped(loss: Loss, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Value (...,) and slope (..., rows) of a loss, without a root of its curvature if it can."""
    own = getattr(loss, "sloped", None)
    if own is not None:
        found: tuple[Tensor, Tensor] = own(residual)
        return found
    expansion = loss.expand(residual)
    return expansion.value, expansion.slope


class Bound(Loss, Protocol):
    """The loss of some rows alone, outputs with their targets."""

    @property
    def together(self) -> int:
        """So many rows in a row belong together."""

    def some(self, rows: slice) -> "Bound":
        """The loss of some of the rows, which are of whole samples."""


def scalar_dtype(device: torch.device) -> torch.dtype:
    """float64, in which costs are summed, but where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(residual: Tensor) -> Tensor:
    """Residuals in the dtype in which costs are summed, where squares do not overflow.

    The square of 256 is beyond float16, that of 1e-23 below float32.
    """
    if on_numpy(residual):
        return to_type(residual, torch.float64)
    return residual.to(scalar_dtype(residual.device))


def half_sum(values: Tensor) -> Tensor:
    """½ Σ over the last dimension; float32 would lose decreases that residuals still resolve."""
    return total(wide(values)) / 2
