"""Densities of counts: Poisson, negative binomial, and binomial.

Of counts y with mean μ = exp(f), and of y among n with probability p = σ(f),

    Poisson      ℓ = μ − y f,                   ℓ′ = μ − y,               ℓ″ = μ
    neg. bin.    ℓ = (y + r) log(r + μ) − y f,  ℓ′ = r (μ − y)/(r + μ),   ℓ″ = r μ (y + r)/(r + μ)²
    binomial     ℓ = −y log p − (n − y) log(1 − p),   ℓ′ = n p − y,       ℓ″ = n p (1 − p)

Where the outputs are a mean or a probability itself, the Hessian vanishes for counts of zero, or is
indefinite; its expectation over the data that the model itself predicts, the Fisher matrix, is not:
1/μ, r/(μ (r + μ)), n/(p (1 − p)). R is its root then. Where nothing was counted, R may be anything
that is positive. There the mean is taken to be `LEAST` or more, so that a rate that has come to
zero (the far side of a peak) neither makes R infinite nor keeps the fit from moving.

References: McCullagh & Nelder, Generalized linear models (1989), ch. 4 and 6; Hilbe, Negative
binomial regression (2011).
"""

import math
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .base import wide
from .classes import BCEWithLogitsLoss, by_sum
from .criterion import Criterion, check_range, raised

NOTHING = 1e-150  # a mean up to which even the square of its inverse may be no number
LEAST = 1e-5  # mean from which on a count of zero has the curvature of the Fisher matrix


def apart(mean: Tensor, count: Tensor) -> Tensor:
    """y (eᵗ − 1 − t) with t = log(μ/y), which is μ where y is zero: half of a deviance."""
    t = mean.log() - torch.where(count == 0, 1.0, count).log()
    return torch.where(count == 0, mean, count * (t.expm1() - t)).clamp(min=0)


def over(mean: Tensor, count: Tensor) -> Tensor:
    """y/μ, and zero where y is, whatever μ."""
    return torch.where(count == 0, 0.0, count / mean)


def held(mean: Tensor, count: Tensor) -> Tensor:
    """The mean, kept away from zero where nothing was counted."""
    return torch.where(count == 0, mean.clamp(min=LEAST), mean)


def positive(mean: Tensor) -> Tensor:
    """The mean; a negative one is no number."""
    return torch.where(mean < 0, torch.nan, mean)


def inverse(mean: Tensor) -> Tensor:
    """One over the mean; zero where it has come to zero, and with it its derivatives."""
    return torch.where(mean > NOTHING, 1 / mean, 0.0)


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

    def prepare(self, shape: torch.Size, target: Tensor) -> tuple[Tensor, ...]:
        """The counts, (*lead, 1)."""
        check_range(self, target, 0, math.inf)
        return (target[..., None],)

    def cost(self, outputs: Tensor, target: Tensor) -> Tensor:
        """y (eᵗ − 1 − t) with t = log(μ/y), which is μ where y is zero."""
        if not self.log_input:
            return apart(self._mean(outputs), target)
        t = outputs - torch.where(target == 0, 1.0, target).log()
        mean = outputs.exp()
        return torch.where(target == 0, mean, target * (t.expm1() - t)).clamp(min=0)

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
        return 1 - over(self._mean(outputs), target)

    def root(self, outputs: Tensor, target: Tensor) -> Tensor:
        """√μ, or that of the Fisher matrix, 1/√μ."""
        found = outputs.exp() if self.log_input else 1 / held(self._mean(outputs), target)
        return raised(found, self.slope(outputs, target)).sqrt()

    def fisher(self, outputs: Tensor, target: Tensor) -> Tensor:
        """μ, or 1/μ."""
        return outputs.exp() if self.log_input else inverse(self._mean(outputs))

    def curvature(self, outputs: Tensor, target: Tensor) -> Tensor:
        """μ, or y/μ², (s, 1, 1)."""
        if self.log_input:
            return outputs.exp()[..., None]
        mean = self._mean(outputs)
        return over(mean.square(), target)[..., None]

    def _mean(self, outputs: Tensor) -> Tensor:
        return positive(outputs + self.eps)


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
        check_range(self, y, 0, math.inf)
        r = self.total_count
        if not isinstance(r, Tensor):
            return y[..., None], torch.full_like(y, r)[..., None]
        return y[..., None], r.to(y).expand(y.shape)[..., None]

    def cost(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """(y + r) log((r + μ)/(r + y)) − y log(μ/y)."""
        log = outputs if self.log_input else self._mean(outputs).log()
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
        mean = self._mean(outputs)
        return r * (1 - over(mean, y)) / (r + mean)

    def root(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """√(r μ (y + r))/(r + μ), or that of the Fisher matrix, √(r/(μ (r + μ)))."""
        if self.log_input:
            found = self._curvature(outputs, y, r)
        else:
            mean = held(self._mean(outputs), y)
            found = r / (mean * (r + mean))
        return raised(found, self.slope(outputs, y, r)).sqrt()

    def fisher(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """r μ/(r + μ), or r/(μ (r + μ))."""
        if self.log_input:
            return r * torch.sigmoid(outputs - r.log())
        mean = self._mean(outputs)
        return r * inverse(mean) / (r + mean)

    def curvature(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        """r μ (y + r)/(r + μ)², or y/μ² − (y + r)/(r + μ)², (s, 1, 1)."""
        if self.log_input:
            return self._curvature(outputs, y, r)[..., None]
        mean = self._mean(outputs)
        return (over(mean.square(), y) - (y + r) / (r + mean).square())[..., None]

    def _curvature(self, outputs: Tensor, y: Tensor, r: Tensor) -> Tensor:
        share = torch.sigmoid(outputs - r.log())  # μ/(r + μ)
        return (y + r) * share * torch.sigmoid(r.log() - outputs)

    def _mean(self, outputs: Tensor) -> Tensor:
        return positive(outputs + self.eps)


class BinomialNLLLoss(BCEWithLogitsLoss):
    """−Σ log of a binomial density of y out of n: how many of those that were exposed responded.

    Outputs are logits of the probability p, or p itself, of any shape; targets, from 0 to n, of the
    same. torch has no namesake; `torch.distributions.Binomial(n, logits=f)` is the density.

    Args:
        total_count: n, a number or a tensor that broadcasts to the outputs.
        logits: whether outputs are logits. Otherwise p must stay between 0 and 1, a trial at which
            it does not is refused, and the curvature is that of the Fisher matrix. Default: True.
        full: whether the binomial coefficient counts, so that the value is that of the density.
            Default: False.
        reduction: "sum", the only one.

    Raises:
        InputError: a number n that is negative, another reduction; in the closure, a target of
            another shape.

    Example:
        >>> import torch, lmtorch
        >>> dose = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
        >>> died = torch.tensor([[1.0], [4.0], [9.0], [12.0]], dtype=torch.float64)
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model)
        >>> criterion = lmtorch.BinomialNLLLoss(total_count=12.0)
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: criterion(model(x), y), dose, died)
        >>> round((12 * model(dose).sigmoid()).sum().item(), 6)  # as many as have died
        26.0
    """

    def __init__(
        self,
        total_count: float | Tensor,
        logits: bool = True,
        full: bool = False,
        *,
        reduction: str = "sum",
    ) -> None:
        super().__init__(reduction=reduction)
        if not isinstance(total_count, Tensor) and not total_count >= 0:
            raise InputError(f"total_count={total_count} must not be negative.")
        self.total_count = total_count
        self.logits = logits
        self.full = full

    def prepare(self, shape: torch.Size, *targets: Any) -> tuple[Tensor, ...]:
        """y and n − y, (*lead, 1) each."""
        y = wide(targets[0])
        n = self.total_count
        whole = n.to(y).expand(y.shape) if isinstance(n, Tensor) else torch.full_like(y, n)
        check_range(self, y, 0, whole)
        return y[..., None], (whole - y)[..., None]

    def cost(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """y log(y/(n p)) + (n − y) log((n − y)/(n (1 − p)))."""
        if self.logits:
            return super().cost(outputs, ones, others)
        # as two counts, whose sum is what it is: what they miss has no part in it
        yes, no = self._means(outputs, ones, others)
        return apart(yes, ones) + apart(no, others)

    def least(self, k: int, ones: Tensor, others: Tensor) -> Tensor:
        """The entropy of the shares, less the logarithm of the coefficient if it counts."""
        found = self._entropy(ones, others)
        if not self.full:
            return found
        ways = torch.lgamma(ones + others + 1) - torch.lgamma(ones + 1) - torch.lgamma(others + 1)
        return found - ways

    def slope(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """n p − y, or that over p (1 − p)."""
        if self.logits:
            return super().slope(outputs, ones, others)
        return over(1 - self._share(outputs), others) - over(self._share(outputs), ones)

    def root(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """√(n p (1 − p)), or that of the Fisher matrix, √(n/(p (1 − p)))."""
        if self.logits:
            return super().root(outputs, ones, others)
        whole = ones + others
        yes, no = self._means(outputs, ones, others)
        found = whole.square() * (1 / held(yes, ones) + 1 / held(no, others))
        found = torch.where(whole > 0, found, 0.0)
        return raised(found, self.slope(outputs, ones, others)).sqrt()

    def fisher(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """n p (1 − p), or n/(p (1 − p))."""
        whole = ones + others
        if self.logits:
            return whole * torch.sigmoid(outputs) * torch.sigmoid(-outputs)
        share = self._share(outputs)
        return whole * inverse(share * (1 - share))

    def curvature(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """n p (1 − p), or y/p² + (n − y)/(1 − p)², (s, 1, 1)."""
        if self.logits:
            return super().curvature(outputs, ones, others)
        share = self._share(outputs)
        found = over(share.square(), ones) + over((1 - share).square(), others)
        return found[..., None]

    def _share(self, outputs: Tensor) -> Tensor:
        """p; what is no probability is no number."""
        return torch.where((outputs < 0) | (outputs > 1), torch.nan, outputs)

    def _means(self, outputs: Tensor, ones: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """n p and n (1 − p)."""
        share, whole = self._share(outputs), ones + others
        return whole * share, whole * (1 - share)
