"""Densities of numbers y: normal with known variance, or with a mean m and variance v both learnt.

    normal       ℓ = ½ (log v + (m − y)²/v)

Its Hessian in m and v is indefinite far from a minimum; its expectation over the data that the
model itself predicts, the Fisher matrix diag(1/v, ½/v²), is not. R is its root.

References: McCullagh & Nelder, Generalized linear models (1989), §2.5; Nix & Weigend, Estimating
the mean and variance of the target probability distribution (1994).
"""

import math
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .base import wide
from .classes import by_sum
from .criterion import Criterion, Targeted, mismatch, raised


class MSELoss(Criterion):
    """Σ (f − y)², as `torch.nn.MSELoss` with reduction="sum": plain least squares, times two.

    Outputs of any shape, targets of the same.

    Args:
        reduction: "sum", the only one.

    Raises:
        InputError: another reduction; in the closure, a target of another shape.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model)
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: lmtorch.MSELoss()(model(x), y), x, 3 * x - 1)
        >>> [round(p.item(), 6) for p in model.parameters()]
        [3.0, -1.0]
    """

    elementwise = True

    def __init__(self, *, reduction: str = "sum") -> None:
        by_sum(reduction)

    def cost(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(f − y)²."""
        return (outputs - target).square()

    def slope(self, outputs: Tensor, target: Tensor) -> Tensor:
        """2 (f − y)."""
        return 2 * (outputs - target)

    def root(self, outputs: Tensor, target: Tensor) -> Tensor:
        """√2."""
        return torch.full_like(outputs, math.sqrt(2))


class GaussianNLLLoss(Criterion):
    """½ Σ (log v + (m − y)²/v), as `torch.nn.GaussianNLLLoss` with reduction="sum".

    It is called as torch's: `criterion(mean, target, variance)`, with a mean of any shape, a target
    of the same, and a variance of the same, or without the last dimension, or one there. Both mean
    and variance are outputs, to be learnt. The variance must stay positive (softplus or exp of an
    output); a trial at which it is negative is refused. The Hessian is indefinite far from a
    minimum, so the curvature is that of the Fisher matrix.

    Args:
        full: whether ½ log 2π counts. Default: False.
        eps: variances below it count as this. Default: 1e-6.
        reduction: "sum", the only one.

    Raises:
        InputError: an `eps` that is not positive, another reduction; in the closure, shapes that do
            not go together.

    Example:
        >>> import torch, lmtorch
        >>> y = torch.tensor([1.0, 2, 4, 5], dtype=torch.float64)
        >>> theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        >>> opt = lmtorch.LevenbergMarquardt([theta])
        >>> criterion = lmtorch.GaussianNLLLoss()
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda: criterion(theta[0].expand(4), y, theta[1].exp().expand(4)))
        >>> round(theta[0].item(), 6), round(theta[1].exp().item(), 6)
        (3.0, 2.5)
    """

    def __init__(self, full: bool = False, *, eps: float = 1e-6, reduction: str = "sum") -> None:
        by_sum(reduction)
        if not eps > 0:
            raise InputError(f"eps={eps} must be positive.")
        self.full = full
        self.eps = eps

    def __call__(self, outputs: Any, target: Tensor, variance: Any) -> Targeted:
        """Means, targets and variances.

        Raises:
            InputError: shapes that do not go together.
        """
        shape, found = tuple(outputs.shape), tuple(variance.shape)
        if tuple(target.shape) != shape:
            raise InputError(mismatch(self, shape, target.shape))
        if found not in (shape, shape[:-1], (*shape[:-1], 1)):
            raise InputError(
                f"GaussianNLLLoss was given means {shape} and a variance {found}. It has the shape "
                "of the means, or lacks their last dimension, or has one there."
            )
        if found == shape[:-1] != shape:
            variance = variance[..., None]
        return Targeted(self, torch.stack([outputs, variance.expand(shape)], -1), (target,))

    def prepare(self, shape: torch.Size, *targets: Any) -> tuple[Tensor, ...]:
        """The target, (*lead)."""
        return tuple(map(wide, targets))

    def cost(self, outputs: Tensor, target: Tensor) -> Tensor:
        """½ (log(v/eps) + (m − y)²/v), (s,)."""
        mean, variance = self._both(outputs)
        return ((variance / self.eps).log() + (mean - target).square() / variance) / 2

    def least(self, k: int, target: Tensor) -> Tensor:
        """½ log eps, that of the smallest variance, and ½ log 2π if it counts."""
        return torch.full_like(target, math.log(self.eps * (2 * math.pi if self.full else 1)) / 2)

    def slope(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(m − y)/v and ½ (1/v − (m − y)²/v²), (s, 2)."""
        mean, variance = self._both(outputs)
        apart = (mean - target) / variance
        return torch.stack([apart, (1 / variance - apart.square()) / 2], -1)

    def root(self, outputs: Tensor, target: Tensor) -> Tensor:
        """√(1/v) and √½/v, (s, 2), those of the Fisher matrix."""
        _, variance = self._both(outputs)
        found = torch.stack([1 / variance, variance**-2 / 2], -1)
        return raised(found, self.slope(outputs, target)).sqrt()

    def _both(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance; a negative one is no number."""
        mean, variance = outputs.unbind(-1)
        kept = torch.where(variance < 0, torch.nan, variance.clamp(min=self.eps))
        return mean, kept
