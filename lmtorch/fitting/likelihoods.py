"""Likelihoods of counts in the place of squares: which there are, and what the data must be.

f gives the mean of the counts, or the probability of a response, as it is written in books, and not
its logarithm or logit; of a criterion of one's own it gives the outputs that this one takes. The
errors are those of the Fisher information, and need no scale: counts bring their own scatter.

References: McCullagh & Nelder, Generalized linear models (1989), ch. 2; Cash, Parameter estimation
in astronomy through application of the likelihood ratio (1979); Laurence & Chromy, Efficient
maximum likelihood estimator fitting of histograms (2010).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from ..losses.base import wide
from ..losses.counts import BinomialNLLLoss, NegativeBinomialNLLLoss, PoissonNLLLoss
from ..losses.criterion import Criterion, Targeted
from .measurements.data import Data, as_points
from .measurements.owned import owned, versions_of
from .measurements.reading import numbers_of

NAMES = ("gaussian", "poisson", "binomial", "negative_binomial")
NEEDS = {
    "binomial": "the number of trials at each point",
    "negative_binomial": "r of the variance μ + μ²/r, one over the dispersion",
}
ANYWHERE = 0.5  # an output that every likelihood here takes, of points that are left out


class Poisson(PoissonNLLLoss):
    """Poisson's density with log y! as it is, and not by Stirling's formula."""

    def __init__(self) -> None:
        super().__init__(log_input=False, eps=0.0)

    def least(self, k: int, target: Tensor) -> Tensor:
        """y − y log y + log y!."""
        return target - torch.xlogy(target, target) + torch.lgamma(target + 1)


class NegativeBinomial(NegativeBinomialNLLLoss):
    """That density, with r as a second target: it may differ from fit to fit."""

    def __init__(self) -> None:
        super().__init__(1.0, log_input=False, full=True, eps=0.0)

    def prepare(self, shape: torch.Size, *targets: Any) -> tuple[Tensor, ...]:
        """y and r, (*lead, 1) each."""
        y, r = map(wide, targets)
        return y[..., None], r[..., None]


class Binomial(BinomialNLLLoss):
    """That density, with n as a second target."""

    def __init__(self) -> None:
        super().__init__(1.0, logits=False, full=True)

    def prepare(self, shape: torch.Size, *targets: Any) -> tuple[Tensor, ...]:
        """y and n − y, (*lead, 1) each."""
        y, n = map(wide, targets)
        return y[..., None], (n - y)[..., None]


CRITERIA: dict[str, Criterion] = {
    "poisson": Poisson(),
    "binomial": Binomial(),
    "negative_binomial": NegativeBinomial(),
}


class Counted(Criterion):
    """A criterion of one output for each target, of which each counts so many times."""

    elementwise = True

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def prepare(self, shape: torch.Size, *targets: Any) -> tuple[Tensor, ...]:
        """The weights, and what the criterion makes of its targets."""
        first, *others = targets
        weights = wide(first).expand(shape[:-1])[..., None]
        return weights, *self.criterion.prepare(shape, *others)

    def check(self, outputs: Any, *targets: Any) -> None:
        """See whether outputs and targets go together; weights may broadcast."""
        self.criterion.check(outputs, *targets[1:])

    def cost(self, outputs: Tensor, weights: Tensor, *targets: Any) -> Tensor:
        """w ℓ."""
        return _weighted(weights, self.criterion.cost(outputs, *targets))

    def least(self, k: int, weights: Tensor, *targets: Any) -> Tensor:
        """w times the least."""
        return _weighted(weights, self.criterion.least(k, *targets))

    def slope(self, outputs: Tensor, weights: Tensor, *targets: Any) -> Tensor:
        """w ℓ′."""
        return _weighted(weights, self.criterion.slope(outputs, *targets))

    def root(self, outputs: Tensor, weights: Tensor, *targets: Any) -> Tensor:
        """√w R."""
        return _weighted(weights.sqrt(), self.criterion.root(outputs, *targets))

    def fisher(self, outputs: Tensor, weights: Tensor, *targets: Any) -> Tensor:
        """w times that of one."""
        return _weighted(weights, self.criterion.fisher(outputs, *targets))

    def curvature(self, outputs: Tensor, weights: Tensor, *targets: Any) -> Tensor:
        """w ℓ″."""
        return _weighted(weights[..., None], self.criterion.curvature(outputs, *targets))


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """The product; what does not count is zero, whatever it is."""
    return torch.where(weights > 0, weights * values, 0.0)


@dataclass(frozen=True)
class Likelihood:
    """What the data of a fit are distributed as.

    Attributes:
        name: one of `NAMES`, or the class of a criterion of the user's.
        given: that criterion; None: the one of the name.
    """

    name: str
    given: Criterion | None = None

    @property
    def criterion(self) -> Criterion:
        """The criterion of one output for each point."""
        return CRITERIA[self.name] if self.given is None else self.given

    def of(self, curve: Any, y: Tensor, weights: Tensor | None, total: Tensor | None) -> Targeted:
        """The outputs (..., m) with counts, of points that count so many times each."""
        targets = (y,) if total is None else (y, total.expand(y.shape))
        if weights is None:
            return self.criterion(curve, *targets)
        kept = torch.where(weights > 0, curve, ANYWHERE)
        return Counted(self.criterion)(kept, weights, *targets)

    def variance(self, curve: Tensor, total: Tensor | None) -> Tensor:
        """The variance of counts of this mean (..., k).

        Returns:
            It, (..., k).

        Raises:
            InputError: it is not known.
        """
        if self.name == "poisson":
            return curve
        if self.name == "negative_binomial" and total is not None:
            least, most = total.aminmax()
            if bool(least == most):
                return curve + curve.square() / most
        raise InputError(
            f"the scatter of new data is not known of likelihood={self.name!r}: there are "
            "prediction bands of Poisson counts, and of negative binomial ones of a single "
            "total_count. confidence_band(x) is that of the curve."
        )

    def drawn(self, rng: np.random.Generator, curve: Any, total: Any, samples: int) -> Any:
        """Draw counts of these means (m,).

        Returns:
            They, (samples, m).

        Raises:
            InputError: it is not known how they are drawn.
        """
        size = (samples, len(curve))
        if self.name == "poisson":
            return rng.poisson(curve, size).astype(float)
        if self.name == "binomial":
            return rng.binomial(total.astype(np.int64), curve, size).astype(float)
        if self.name == "negative_binomial":  # Poisson counts of a mean that varies itself
            return rng.poisson(curve * rng.gamma(total, 1 / total, size)).astype(float)
        raise InputError(
            f"it is not known how data of likelihood={self.name!r} are drawn: use kind='cases'."
        )

    def level(self, data: Data) -> Tensor | None:
        """The best constant in the place of the curve, (..., 1); None: it is not known."""
        if self.given is not None:
            return None
        y = data.y.detach().double()
        count = (
            torch.ones_like(y) if data.weights is None else data.weights.double().expand(y.shape)
        )
        whole = count
        if self.name == "binomial":
            assert data.total is not None
            whole = count * data.total.double()
        return ((count * y).sum(-1) / whole.sum(-1))[..., None]


def likelihood_of(
    asked: Any, total_count: Any, options: Mapping[str, Any], sigma: Any
) -> Likelihood | None:
    """What was asked for.

    Returns:
        The likelihood; None: least squares.

    Raises:
        InputError: it is not known, or does not go with other arguments.
    """
    if asked is None or (isinstance(asked, str) and asked == "gaussian"):
        if total_count is not None:
            raise InputError(
                "total_count goes with likelihood='binomial' or 'negative_binomial', and this fit "
                "is by least squares."
            )
        return None
    if isinstance(asked, Criterion):
        if not asked.elementwise:
            raise InputError(
                f"{type(asked).__name__} takes several outputs of a point together, and a curve "
                "has one: use least_squares with a function that returns criterion(outputs, y)."
            )
        found = Likelihood(type(asked).__name__, asked)
    elif isinstance(asked, str) and asked in NAMES:
        found = Likelihood(asked)
    else:
        raise InputError(
            f"likelihood={asked!r} is not known: use one of {NAMES}, or a criterion such as "
            "lmtorch.PoissonNLLLoss()."
        )
    if sigma is not None:
        raise InputError(
            f"sigma does not go with likelihood={found.name!r}, whose scatter follows from its "
            "mean. Leave sigma out; for errors of another size use likelihood='gaussian'."
        )
    robust = {"loss", "f_scale"} & options.keys()
    if robust:
        raise InputError(
            f"{' and '.join(sorted(robust))} are for residuals, and likelihood={found.name!r} is a "
            "loss of its own. Leave them out, or mask outliers."
        )
    if (found.name in NEEDS and found.given is None) != (total_count is not None):
        raise InputError(
            f"likelihood={found.name!r} needs total_count, {NEEDS[found.name]}."
            if total_count is None
            else f"total_count does not go with likelihood={found.name!r}: it is for 'binomial' "
            "and 'negative_binomial'."
        )
    return found


def with_total(data: Data, total: Any) -> Data:
    """The data with what a likelihood knows of each point: a number, or one for each.

    Returns:
        They, with `total`.

    Raises:
        InputError: a shape that does not fit, or no numbers.
    """
    if total is None:
        return data
    (total,) = owned(total)
    if data.sizes and isinstance(total, list | tuple):
        if len(total) != len(data.sizes):
            raise InputError(
                "total_count must be a number, or a list with an entry for each of the "
                f"{len(data.sizes)} data sets."
            )
        parts = [numbers_of(part, f"total_count[{i}]") for i, part in enumerate(total)]
        pairs = zip(parts, data.sizes, strict=True)
        given = torch.cat([part.reshape(-1).expand(size) for part, size in pairs])
    else:
        given = numbers_of(total, "total_count")
    given = given.to(data.y)
    points = as_points(given, data.y, "total_count", ": give a number, or one for each point")
    if given.ndim <= 1 and data.lead:  # the same for all fits of a batch
        points = points.reshape(-1, data.m)[0]
    if data.weights is not None and data.weights.ndim == points.ndim:
        # of points that are left out nothing is known
        points = torch.where(data.weights > 0, points, 1.0)
    return replace(data, total=points, versions=versions_of(data.x, data.y, points))


def check(likelihood: Likelihood, data: Data) -> None:
    """See whether the data are such counts.

    Raises:
        InputError: they are not.
    """
    if likelihood.given is not None:
        return
    y, total = data.y.detach(), data.total
    kept = torch.ones_like(y, dtype=torch.bool) if data.weights is None else data.weights > 0
    if bool(((y < 0) & kept).any()):
        raise InputError(
            f"ydata has negative values, and likelihood={likelihood.name!r} is of counts. Where a "
            "background was subtracted, put it into f, and fit the counts as they were."
        )
    if bool(((y != y.round()) & kept).any()):
        raise InputError(
            f"ydata has values that are no whole numbers, and likelihood={likelihood.name!r} is of "
            "counts: of scaled ones the errors would be wrong. Put the scale (a time, a width, an "
            "efficiency) into f, and fit the counts as they were; a criterion, such as "
            "likelihood=lmtorch.PoissonNLLLoss(log_input=False), takes any numbers."
        )
    if total is None:
        return
    if likelihood.name == "binomial":
        bad = (total < 0) | (total != total.round()) | (y > total)
        needs = "whole numbers, and no smaller than ydata"
    else:
        bad, needs = ~(total > 0), "positive"
    if bool((bad & kept).any()):
        raise InputError(f"total_count must be {needs}: it is {NEEDS[likelihood.name]}.")
