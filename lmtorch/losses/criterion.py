"""A loss of outputs and targets, as torch's classes of losses are: likelihoods.

A closure returns `criterion(model(x), y)`: the outputs with their targets, not a number. Near a
point the cost of the outputs f of one sample is a quadratic function with slope ℓ′ and curvature
RᵀR, and the step sees rows R J and residuals R⁻ᵀℓ′: the generalised Gauss–Newton method.

Costs are counted from the least that any outputs could have with these targets. So they are zero or
more, as sums of squares are (of an exponential family twice the cost is the deviance), and a small
cost has all of its digits. What is reported is the usual value, with `least` added.

References: Schraudolph, Fast curvature matrix-vector products for second-order gradient descent
(2002); Martens, New insights and perspectives on the natural gradient method (2020), §8; McCullagh
& Nelder, Generalized linear models (1989), §2.3, for deviances.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._errors import InputError
from ..arrays import maximum, where
from .base import Expansion, scalar_dtype, wide
from .checking import check_own

# Curvature is kept at or above this share of the slope. A sample that is hopelessly wrong has a
# slope and hardly any curvature; a residual ℓ′/√ℓ″ without bound would cost the others their digits
FLOOR = 1e-6
SLACK = 1e-8  # a sample's cost may be less than zero by so much, through round-off


class Criterion(ABC):
    """What outputs cost beside their targets: a base for `lmtorch.CrossEntropyLoss` and its like.

    One of your own has `cost`, `slope` and `root`, and `least` if the usual value is not zero at
    best. Their arguments are the outputs (s, k) of s samples and each target (s, ...), floats in
    float64. Outputs may have more dimensions, (..., k): all but the last count samples. With
    `elementwise = True` every output has a target of its own, of equal shape, and k = 1.

    Example:
        >>> import torch, lmtorch
        >>> from lmtorch.losses import Criterion
        >>> class Exponential(Criterion):
        ...     '''Waiting times y of rate exp(f): ℓ = y exp(f) − f.'''
        ...     elementwise = True
        ...     def cost(self, outputs, y):
        ...         t = outputs + y.log()
        ...         return t.expm1() - t
        ...     def least(self, k, y):
        ...         return 1 + y.log()
        ...     def slope(self, outputs, y):
        ...         return y * outputs.exp() - 1
        ...     def root(self, outputs, y):
        ...         return (y * outputs.exp()).sqrt()
        >>> y = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
        >>> rate = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        >>> opt = lmtorch.LevenbergMarquardt([rate])
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda: Exponential()(rate.expand(3), y))
        >>> round(rate.exp().item(), 9)  # one over the mean
        0.666666667
    """

    elementwise: ClassVar[bool] = False

    def __call__(self, outputs: Any, *targets: Any, **_: Any) -> "Targeted":
        """Outputs (..., k) of a model with their targets, for the closure to return.

        Raises:
            InputError: shapes that do not go together.
        """
        self.check(outputs, *targets)
        return Targeted(self, outputs[..., None] if self.elementwise else outputs, targets)

    def check(self, outputs: Any, *targets: Any) -> None:
        """See whether outputs and targets go together.

        Raises:
            InputError: they do not.
        """
        shape = tuple(outputs.shape)
        lead = shape if self.elementwise else shape[:-1]
        for target in targets:
            found = tuple(target.shape)
            if found[: len(lead)] != lead or (self.elementwise and found != lead):
                raise InputError(mismatch(self, shape, found))

    def prepare(self, shape: torch.Size, *targets: Any, **_: Any) -> tuple[Tensor, ...]:
        """What the others are given: targets (*lead, ...) beside outputs of `shape` (*lead, k)."""
        return tuple(t[..., None] for t in targets) if self.elementwise else targets

    @abstractmethod
    def cost(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor:
        """The cost above the least, (s,) or (s, k), which are summed."""

    def least(self, k: int, *targets: Any, **_: Any) -> Tensor:
        """The least that any k outputs could cost, of any shape, summed. Default: zero."""
        first: Tensor = targets[0]
        return first.new_zeros((), dtype=scalar_dtype(first.device))

    @abstractmethod
    def slope(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor:
        """Derivative of the cost in the outputs, (s, k)."""

    @abstractmethod
    def root(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor:
        """R with RᵀR = ∂²ℓ/∂f², or something positive in its place: (s, k), diagonal; (s, k, k)."""

    def fisher(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor:
        """The expectation of ∂²ℓ/∂f² over targets that the outputs predict, (s, k) or (s, k, k).

        Errors of parameters are made of it. Default: RᵀR.
        """
        root = self.root(outputs, *targets)
        return root.square() if root.ndim <= outputs.ndim else root.mT @ root

    def residual(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor | None:
        """R⁻ᵀℓ′, (s, k), where it has a closed form; None: it is solved for."""
        return None

    def curvature(self, outputs: Tensor, *targets: Any, **_: Any) -> Tensor:
        """The exact ∂²ℓ/∂f², (s, k, k). Default: that of `cost`, by autograd."""

        def of_one(point: Tensor, *target: Tensor) -> Tensor:
            return self.cost(point[None], *(t[None] for t in target)).sum()

        found: Tensor = torch.func.vmap(torch.func.hessian(of_one))(outputs, *targets)
        return found

    def __repr__(self) -> str:
        """The class, which says most."""
        return f"{type(self).__name__}()"


def mismatch(
    criterion: Criterion, outputs: Sequence[int], target: Sequence[int], advice: str = ""
) -> str:
    """The words for shapes that do not go together, with what to do, if that is known."""
    advice = advice or "see its docstring for the shapes."
    if criterion.elementwise:
        advice = "every output has a target of its own, so squeeze the one or unsqueeze the other."
    return (
        f"{type(criterion).__name__} was given outputs {tuple(outputs)} and a target "
        f"{tuple(target)}, which do not go together: {advice}"
    )


def check_range(
    criterion: Criterion, target: Tensor, least: Any, most: Any, advice: str = ""
) -> None:
    """See whether targets are where the criterion is a likelihood; elsewhere its cost is no number.

    Only on a processor, and outside of transforms: elsewhere to look at them would wait.

    Args:
        criterion: whose targets they are.
        target: of any shape.
        least: the smallest that there may be.
        most: the largest, a number or a tensor that broadcasts to them.
        advice: what to do otherwise.

    Raises:
        InputError: one is outside.
    """
    if target.device.type != "cpu" or torch._C._are_functorch_transforms_active():
        return
    target = target.detach()
    outside = (target < least) | (target > most)
    if bool(outside.any()):
        bound = f"{most:g}" if isinstance(most, int | float) else "its total_count"
        span = f"from {least:g} to {bound}" if bound != "inf" else "zero or positive"
        raise InputError(
            f"{type(criterion).__name__} was given a target {target[outside][0].item():g}, and "
            f"they have to be {span}.{advice}"
        )


def raised(curvature: Tensor, slope: Tensor) -> Tensor:
    """Curvature that is nowhere less than a share of the slope."""
    return maximum(curvature, FLOOR * slope.abs())


@dataclass(frozen=True)
class Targeted:
    """Outputs of a model with what belongs to them; times a number, it counts so much more.

    Not a loss: `values` are what the step differentiates. `item()` gives the loss as a number.
    """

    criterion: Criterion
    values: Any  # (*lead, k)
    targets: tuple[Any, ...]
    factor: float = 1.0

    def __mul__(self, factor: Any) -> "Targeted":
        """The same, counting `factor` times."""
        if isinstance(factor, Tensor) or not 0 < factor < float("inf"):
            raise InputError(
                f"a criterion may be multiplied by a positive number, and not by {factor!r}. "
                "Weights of samples go into the criterion where it has them."
            )
        return replace(self, factor=self.factor * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Targeted":
        """The same, counting one over `divisor` times."""
        if isinstance(divisor, Tensor) or not 0 < divisor < float("inf"):
            return self * divisor  # which says what is wrong
        return self * (1 / divisor)

    def __add__(self, other: Any) -> "Targeted":
        """Not to be had: what is added to it would have no place in the step.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a criterion's outputs cannot be added to anything: pass each as a term of its own, "
            "opt.step((lambda x, y: criterion(model(x), y), x, y), (others, z))."
        )

    __radd__ = __add__

    def backward(self, *_: Any, **__: Any) -> None:
        """Not to be had: the step takes the derivatives of the outputs by itself.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{type(self.criterion).__name__} gives outputs with their targets, and no loss that "
            "could be summed or differentiated: return them from the closure of opt.step, without "
            "zero_grad() and backward(). item() is the loss as a number."
        )

    mean = sum = backward

    def __repr__(self) -> str:
        """The criterion and the shape; targets may be many."""
        return f"{self.criterion!r} of outputs {tuple(self.values.shape)}"

    def item(self) -> float:
        """The loss, summed over all samples, as torch's namesake by reduction="sum"."""
        loss = self.bound()
        found = loss.cost(self.values.detach().reshape(-1)) + loss.least()
        return float(found.detach())

    __float__ = item

    def __format__(self, spec: str) -> str:
        """The loss as a number where a format is given, as in f"{loss:.3f}"."""
        return format(self.item(), spec) if spec else repr(self)

    def bound(self) -> "Bound":
        """The loss of these outputs, with targets that do not depend on the parameters.

        Raises:
            InputError: they do.
        """
        if any(isinstance(t, Tensor) and t.requires_grad for t in self.targets):
            raise InputError(
                f"a target of {type(self.criterion).__name__} requires a gradient, as what depends "
                "on the parameters does. Targets are data: detach them."
            )
        return Bound(self.criterion, self.flat(), self.values.shape[-1], self.factor)

    def flat(self) -> tuple[Tensor, ...]:
        """What the criterion makes of the targets, (s, ...) each, one after the other."""
        lead = self.values.ndim - 1
        prepared = self.criterion.prepare(self.values.shape, *self.targets)
        return tuple(t.reshape(-1, *t.shape[lead:]) for t in prepared)


@dataclass(frozen=True)
class Bound:
    """A criterion with the targets of some rows: a loss of the outputs (..., rows) alone.

    Args:
        criterion: of k outputs and their targets.
        targets: (s, ...) each, or (b, s, ...) of the problems of a batch.
        together: k.
        factor: how many times it counts.
        batched: whether there is a batch.
    """

    criterion: Criterion
    targets: tuple[Tensor, ...]
    together: int
    factor: float = 1.0
    batched: bool = False

    @property
    def rows(self) -> int:
        """How many outputs there are, of each problem."""
        return self.targets[0].shape[int(self.batched)] * self.together

    def some(self, rows: slice) -> "Bound":
        """The loss of some of the rows, which are of whole samples."""
        if rows.start == 0 and rows.stop >= self.rows:
            return self
        chosen = slice(rows.start // self.together, rows.stop // self.together)
        every = (slice(None),) * self.batched
        return replace(self, targets=tuple(t[(*every, chosen)] for t in self.targets))

    def of(self, samples: Tensor, per_sample: int) -> "Bound":
        """The loss of some samples of `per_sample` rows each, by their numbers."""
        each = per_sample // self.together
        targets = tuple(t.unflatten(0, (-1, each))[samples].flatten(0, 1) for t in self.targets)
        return replace(self, targets=targets)

    def take(self, places: Any) -> "Bound":
        """The loss of some problems of a batch, by their numbers, or of one, by its number."""
        if not self.batched:
            return self
        targets = tuple(t[places] for t in self.targets)
        return replace(self, targets=targets, batched=not isinstance(places, int))

    def least(self) -> Tensor:
        """What has to be added to the cost for the usual value, (...,)."""
        targets = self._given()
        found = self.criterion.least(self.together, *targets)
        if not self.batched:
            return self.factor * found.sum()
        b, s = self.targets[0].shape[:2]
        found = found.expand(b * s) if found.ndim == 0 else found
        return self.factor * found.reshape(b, -1).sum(-1)

    def cost(self, residual: Tensor) -> Tensor:
        """The cost above the least, (...,); NaN if it is less than zero, which it cannot be."""
        found = self._summed(residual)
        # not zero, which would be a minimum
        samples = residual.shape[-1] // self.together
        rounded = torch.where(found < -SLACK * samples, torch.nan, -found)
        return self.factor * torch.where(found < 0, rounded, found)

    def each(self, residual: Tensor) -> Tensor:
        """The cost above the least of every sample, (..., s)."""
        found = self.criterion.cost(self._outputs(residual), *self._given())
        found = self.factor * (found.sum(-1) if found.ndim > 1 else found)
        return found.reshape(*residual.shape[:-1], -1)

    def check(self, residual: Tensor) -> None:
        """See whether costs are counted from their least, and one of the user's is right.

        Raises:
            InputError: they are not, or it is not.
        """
        if bool((self.cost(residual).isnan() & residual.isfinite().all(-1)).any()):
            found = self._summed(residual)
            if bool((found < 0).any()):
                raise InputError(
                    f"{type(self.criterion).__name__} costs {float(found.min()):.3g}, less than "
                    "zero. Costs are counted from the least that is possible with the targets: "
                    "subtract it in `cost`, and give it as `least`, so that it is added to what is "
                    "reported."
                )
        check_own(self.criterion, self._outputs(residual), self._given())

    def expand(self, residual: Tensor) -> Expansion:
        """Cost, slope, root, and R⁻ᵀℓ′ where it has a closed form."""
        outputs, targets, of = self._outputs(residual), self._given(), self.criterion
        slope, root = of.slope(outputs, *targets), of.root(outputs, *targets)
        solved = of.residual(outputs, *targets)
        if root.ndim <= outputs.ndim:
            solved = where(slope == 0, slope, slope / root)
            root = root.reshape(residual.shape)
        else:
            root = root.reshape(*residual.shape[:-1], -1, *root.shape[-2:])
        share = self.factor**0.5
        return Expansion(
            self.cost(residual),
            self.factor * slope.reshape(residual.shape),
            share * root,
            None if solved is None else share * solved.reshape(residual.shape),
        )

    def sloped(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Cost and slope alone, where no curvature is asked for."""
        slope = self.criterion.slope(self._outputs(residual), *self._given())
        return self.cost(residual), self.factor * slope.reshape(residual.shape)

    def mixed(self, residual: Tensor, signs: Tensor) -> Tensor:
        """Rᵀv for vectors v (s, r, rows / s) of s samples: weights of outputs, of that shape.

        Of random signs v the outputs by these weights have rows whose squares are on average those
        of R J: E[Rᵀv vᵀR] = RᵀR.
        """
        root = self.factor**0.5 * self.criterion.root(self._outputs(residual), *self._given())
        s, r, rows = signs.shape
        own = signs.to(root.dtype).view(s, r, -1, self.together)
        root = root.view(s, 1, *own.shape[2:], *root.shape[2:])
        weights = own * root if root.ndim == own.ndim else (own[..., None, :] @ root)[..., 0, :]
        return weights.reshape(s, r, rows)

    def curvature(self, residual: Tensor) -> Tensor:
        """The exact second derivative, (..., s, k, k), or (..., rows) if k is 1."""
        found = self.factor * self.criterion.curvature(self._outputs(residual), *self._given())
        if self.together == 1:
            return found.reshape(residual.shape)
        return found.reshape(*residual.shape[:-1], -1, self.together, self.together)

    def _outputs(self, residual: Tensor) -> Tensor:
        """Outputs (s, k) in the dtype in which costs are summed; of all problems one by one."""
        return wide(residual).reshape(-1, self.together)

    def _given(self) -> tuple[Tensor, ...]:
        """Targets (s, ...), as the criterion takes them; of all problems one after the other."""
        flat = (t.flatten(0, 1) for t in self.targets) if self.batched else self.targets
        return tuple(
            wide(t) if t.is_floating_point() or self.criterion.elementwise else t for t in flat
        )

    def _summed(self, residual: Tensor) -> Tensor:
        """What the criterion says that outputs cost, (...,)."""
        found = self.criterion.cost(self._outputs(residual), *self._given())
        return found.reshape(*residual.shape[:-1], -1).sum(-1)


def joined(bounds: Sequence[Bound]) -> Bound:
    """The loss of the rows of all of them, one after the other."""
    columns = zip(*(bound.targets for bound in bounds), strict=True)
    return replace(bounds[0], targets=tuple(torch.cat(column) for column in columns))
