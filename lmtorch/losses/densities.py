"""Densities of numbers: normal with known or with learnt variance, Poisson, negative binomial.

Of counts y with mean μ = exp(f),

    Poisson      ℓ = μ − y f,                   ℓ′ = μ − y,               ℓ″ = μ
    neg. bin.    ℓ = (y + r) log(r + μ) − y f,  ℓ′ = r (μ − y)/(r + μ),   ℓ″ = r μ (y + r)/(r + μ)²

of numbers y with mean m and variance v,

    normal       ℓ = ½ (log v + (m − y)²/v)

Where the outputs are a mean itself, or a mean and a variance, the Hessian may vanish or be
indefinite; its expectation over the data that the model itself predicts, the Fisher matrix, is not:
1/μ (Poisson), r/(μ (r + μ)) (negative binomial), diag(1/v, ½/v²) (normal). R is its root then.

References: McCullagh & Nelder, Generalized linear models (1989), §2.5 and ch. 6; Hilbe, Negative
binomial regression (2011); Nix & Weigend, Estimating the mean and variance of the target
probability distribution (1994).
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


class PoissonNLLLoss(Criterion):
    """−Σ log of a Poisson density of counts, as torch's namesake with reduction="sum".

    Outputs are log μ, or μ itself, of any shape; targets, zero or more, of the same.

    Args:
        log_input: whether outputs are log μ. Otherwise μ + eps must stay positive, a trial at which
            it does not is refused, and the curvature is that of the Fisher matrix. Default: True.
        full: whether log y! counts, of y > 1 by Stirling's formula. Default: False.
        eps: added to μ in its logarithm where `log_input` is False. Default: 1e-8.
        reduction: "sum", the only one.

    Raises:
        InputError: another reduction; in the closure, a target of another shape.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.arange(5, dtype=torch.float64)[:, None]
        >>> y = torch.tensor([[1.0], [3], [6], [16], [31]], dtype=torch.float64)
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model)
        >>> criterion = lmtorch.PoissonNLLLoss()
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: criterion(model(x), y), x, y)
        >>> round(model(x).exp().sum().item(), 6)  # of a model with a constant, that of the counts
        57.0
    """

    elementwise = True

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-8,
        reduction: str = "sum",
    ) -> None:
        by_sum(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def cost(self, outputs: Tensor, target: Tensor) -> Tensor:
        """y (eᵗ − 1 − t) with t = log(μ/y), which is μ where y is zero."""
        log = outputs if self.log_input else (outputs + self.eps).log()
        t = log - torch.where(target == 0, 1.0, target).log()
        mean = outputs.exp() if self.log_input else outputs + self.eps
        # log − log is zero, or no number where μ is negative
        return torch.where(target == 0, mean + (log - log), target * (t.expm1() - t)).clamp(min=0)

    def least(self, k: int, target: Tensor) -> Tensor:
        """y − y log y, and log y! if it counts."""
        found = target - torch.xlogy(target, target)
        if not self.log_input:
            found = found - self.eps
        if not self.full:
            return found
        safe = target.clamp(min=1)
        stirling = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
        return found + torch.where(target > 1, stirling, 0.0)

    def slope(self, outputs: Tensor, target: Tensor) -> Tensor:
        """μ − y, or 1 − y/μ."""
        if self.log_input:
            return outputs.exp() - target
        return 1 - target / (outputs + self.eps)

    def root(self, outputs: Tensor, target: Tensor) -> Tensor:
        """√μ, or that of the Fisher matrix, 1/√μ."""
        found = outputs.exp() if self.log_input else 1 / (outputs + self.eps)
        return raised(found, self.slope(outputs, target)).sqrt()


class NegativeBinomialNLLLoss(Criterion):
    """−Σ log of a negative binomial density of counts: Poisson's with more scatter, μ + μ²/r.

    Outputs are log μ, or μ itself, of any shape; targets, zero or more, of the same. torch has no
    namesake; `torch.distributions.NegativeBinomial(r, logits=log μ − log r)` is the density.

    Args:
        total_count: r > 0, a number or a tensor that broadcasts to the outputs; one over what
            statisticians call the dispersion.
        log_input: whether outputs are log μ. Otherwise μ + eps must stay positive, a trial at which
            it does not is refused, and the curvature is that of the Fisher matrix. Default: True.
        full: whether terms in y and r alone count, so that the value is that of the density.
            Default: False.
        eps: added to μ where `log_input` is False. Default: 1e-8.
        reduction: "sum", the only one.

    Raises:
        InputError: a number r that is not positive, another reduction; in the closure, a target of
            another shape.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.arange(5, dtype=torch.float64)[:, None]
        >>> y = torch.tensor([[0.0], [5], [4], [25], [28]], dtype=torch.float64)
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model)
        >>> criterion = lmtorch.NegativeBinomialNLLLoss(total_count=4.0)
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: criterion(model(x), y), x, y)
        >>> opt.converged
        True
    """

    elementwise = True

    def __init__(
        self,
        total_count: float | Tensor,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-8,
        reduction: str = "sum",
    ) -> None:
        by_sum(reduction)
        if not isinstance(total_count, Tensor) and not total_count > 0:
            raise InputError(f"total_count={total_count} must be positive.")
        self.total_count = total_count
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def prepare(self, shape: torch.Size, target: Tensor) -> tuple[Tensor, ...]:
        """The target and r, (*lead, 1) each."""
        y = wide(target)
        r = self.total_count
        if not isinstance(r, Tensor):
            return y[..., None], torch.full_like(y, r)[..., None]
        return y[..., None], r.to(y).expand(y.shape)[..., None]

    def cost(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """(y + r) log((r + μ)/(r + y)) − y log(μ/y)."""
        log = outputs if self.log_input else (outputs + self.eps).log()
        grown = torch.logaddexp(log, r.log()) - (r + y).log()
        of_y = torch.where(y == 0, 0.0, y * (log - torch.where(y == 0, 1.0, y).log()))
        return ((y + r) * grown - of_y).clamp(min=0)

    def least(self, k: int, y: Tensor, r: Tensor) -> Tensor:
        """(y + r) log(r + y) − y log y, and what is of y and r alone if it counts."""
        found = (y + r) * (r + y).log() - torch.xlogy(y, y)
        if not self.full:
            return found
        return found - torch.lgamma(y + r) + torch.lgamma(r) + torch.lgamma(y + 1) - r * r.log()

    def slope(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """r (μ − y)/(r + μ), or that over μ."""
        if self.log_input:
            return r * torch.sigmoid(outputs - r.log()) - y * torch.sigmoid(r.log() - outputs)
        mean = outputs + self.eps
        return r * (mean - y) / (mean * (r + mean))

    def root(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """√(r μ (y + r))/(r + μ), or that of the Fisher matrix, √(r/(μ (r + μ)))."""
        if self.log_input:
            share = torch.sigmoid(outputs - r.log())  # μ/(r + μ)
            found = (y + r) * share * torch.sigmoid(r.log() - outputs)
        else:
            mean = outputs + self.eps
            found = r / (mean * (r + mean))
        return raised(found, self.slope(outputs, y, r)).sqrt()


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
