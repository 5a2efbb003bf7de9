"""The linear model of the residuals at a point, r(x + s) ≈ r + J s, behind one protocol.

The *form* in which it is held is a choice of its own: the Jacobian whole (`Dense`), only the sums
JᵀJ and Jᵀr (`Normal`), or the blocks of points with variables of their own (`Blocks`). Rows arrive
block by block, of a kind that the form takes; its accumulator hands out the workspace into which
dense rows are written, so that a matrix is filled in place, and adds them up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..arrays import (
    all_finite,
    at_most,
    inner,
    is_nan,
    largest,
    maximum,
    norm,
    nowhere,
    spread,
    sqrt,
    to_type,
    where,
)
from ..distributed.processes import Processes
from ..rows.base import Rows


class Prior(NamedTuple):
    """Rows diag(root)·(x − 0) that a quadratic penalty adds below the Jacobian: ½ Σ (root·x)²."""

    root: Tensor  # (..., n)
    residual: Tensor  # (..., n), root · x


Values = tuple[Tensor, ...] | None  # r(x) as evaluated, (..., m) of each part; None: not kept
Sums = tuple[Tensor, ...]  # what an accumulator has summed over rows


class Exact(NamedTuple):
    """What is known of all rows, where the rows that were added are a sample of them."""

    gradient: Tensor  # (..., n), Jᵀr of all rows
    factor: float  # rows in all over rows sampled


class Linearization(Protocol):
    """What the loop and solvers ask of a linear model of `n` parameters, with any batch (...)."""

    @property
    def cost(self) -> Tensor:
        """½‖r‖², or ½Σρ, with the prior, (...,)."""

    @property
    def gradient(self) -> Tensor:
        """Jᵀr, (..., n)."""

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, the square roots of the diagonal of JᵀJ, (..., n), or estimates of them."""

    @property
    def normal(self) -> Tensor:
        """JᵀJ, (..., n, n), made where it is not there."""

    @property
    def values(self) -> Values:
        """r(x) of each part, before the loss; None where it was not kept."""

    @property
    def rows(self) -> Rows | None:
        """The rows as the loss has scaled them, without the prior's; None if they are not kept."""

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖² of a step (..., n), (...,)."""

    def freeze(self, free: Tensor) -> "Linearization":
        """The model with zero columns and gradient for parameters outside `free` (..., n)."""

    def shifted(self, shift: Tensor) -> "Linearization":
        """The same model with the step counted from `shift` (..., n) on: r + J shift, and J."""


class Accumulator(Protocol):
    """Takes the rows of J and r block by block and becomes a linearization."""

    @property
    def kinds(self) -> tuple[type[Any], ...]:
        """The kinds of rows that are taken, the richest first."""

    @property
    def sums(self) -> Sums:
        """What has been summed over the rows: sums over other rows may be added and put back."""

    @sums.setter
    def sums(self, sums: Sums) -> None: ...

    def workspace(self, rows: int) -> Tensor:
        """Where the next block of dense rows is to be written, (..., rows, n)."""

    def add(self, residual: Tensor, rows: Any) -> None:
        """Take a block: residuals (..., rows), and rows of one of the kinds that are taken."""

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Linearization:
        """The linearization of all that was added; with `exact`, of what it is a sample of."""


@runtime_checkable
class Sharing(Protocol):
    """An accumulator to which many processes add, each rows of its own; not all are."""

    def share(self, processes: Processes) -> Callable[[], None]:
        """Begin to take what the others have added; what is returned waits until it is there.

        All processes call it at the same point, and one may have added nothing.
        """


class Form(Protocol):
    """In which form the linear model is held."""

    @property
    def sampled(self) -> bool:
        """Whether JᵀJ may be made of a sample of the rows, while Jᵀr is that of all."""

    def entries(self, n: int, m: int) -> int:
        """How many numbers this form keeps for n parameters and m residuals."""

    def described(self, n: int, m: int) -> str:
        """What the numbers of `entries` are, for messages: "Jacobian (m x n)"."""

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> Accumulator:
        """Begin for x of `shape` (..., n) and so many residuals, on the device of `like`."""


def optimality(model: Linearization) -> Tensor:
    """How far from stationary, (...,) in [0, 1]: the largest cosine between r and a column of J.

    It has no units and is zero exactly at a stationary point. Its square is the share of the cost
    that the linear model promises for the best move of one parameter alone. MINPACK has it as the
    scaled gradient.

    Reference: Moré, Garbow & Hillstrom (1980), MINPACK user guide, LMDER's `gtol`.
    """
    length = to_type(spread(sqrt(2 * model.cost)), model.gradient.dtype)
    cosine = abs(model.gradient) / (model.column_norms * length)
    found = largest(cosine)
    if not nowhere(is_nan(found)):  # a column is zero, or the residuals are
        found = largest(where(model.gradient == 0, 0.0, cosine))
    return at_most(found, 1.0)  # where norms are estimates it would be more


def rounding_of_cost(model: Linearization, x: Tensor, eps: float) -> Tensor:
    """How far round-off alone may move the cost, (...,): ε (F + ‖r‖ ‖J∘x‖).

    A relative change ε of each parameter, which is what storing them costs, moves the residuals by
    up to ε Σ ‖J e_j‖ |x_j|, and so the cost by up to ‖r‖ times that.
    """
    moved = to_type(norm(model.column_norms * x), model.cost.dtype)
    return eps * (model.cost + sqrt(2 * model.cost) * moved)


def relative_length(model: Linearization, x: Tensor, step: Tensor) -> Tensor:
    """The largest entry of a step beside its x, (...,): max |s_j| / max(|x_j|, ‖r‖ / ‖J e_j‖).

    Moving a parameter alone by ‖r‖ / ‖J e_j‖ changes the residuals by as much as they are: that
    length stands in for a parameter near zero. A norm over all parameters, as ‖D s‖ / ‖D x‖ in
    MINPACK, would not do: one parameter that runs away makes ‖D x‖ so large that every step is
    short beside it.
    """
    norms = model.column_norms
    alone = to_type(spread(sqrt(2 * model.cost)), norms.dtype) / norms
    beside = maximum(abs(x), alone)
    if nowhere(model.cost == 0):  # beside a column of zeros, or a step of zero, zero follows
        return to_type(largest(abs(step) / beside), model.cost.dtype)
    beside = where(norms > 0, beside, torch.inf)
    return to_type(largest(where(step == 0, 0.0, abs(step) / beside)), model.cost.dtype)


def longest_single_move(model: Linearization, x: Tensor) -> Tensor:
    """The longest of the best moves of one parameter alone, g_j / ‖J e_j‖², relative, (...,)."""
    norms = model.column_norms
    moves = where(norms > 0, abs(model.gradient) / norms / norms, 0.0)
    return relative_length(model, x, moves)


class Measures(NamedTuple):
    """What a linear model says of its point, the same for every trial from there, (...,) each."""

    optimality: Tensor
    noise: Tensor  # how far round-off alone may move the cost
    finite: Tensor  # bool: gradient and column norms are


def measures(linearization: Linearization, x: Tensor, eps: float) -> Measures:
    """The measures at x (..., n), for residuals of round-off ε."""
    finite = all_finite(linearization.gradient) & all_finite(linearization.column_norms)
    return Measures(optimality(linearization), rounding_of_cost(linearization, x, eps), finite)


def predicted_decrease(linearization: Linearization, step: Tensor) -> Tensor:
    """What the linear model promises of a step: −gᵀs − ½‖J s‖², (...,)."""
    slope = inner(linearization.gradient, step)
    return -slope - linearization.squared_length(step) / 2


def cost_beyond(linearization: Linearization, shift: Tensor) -> Tensor:
    """What the linear model has the cost be after a step (..., n), (...,)."""
    return linearization.cost - to_type(
        predicted_decrease(linearization, shift), linearization.cost.dtype
    )


def shifted_rows(model: Any, shift: Tensor) -> Any:
    """`shifted` of a model that is a NamedTuple with `residual`, `rows`, `prior` and `gradient`."""
    image, prior = model.rows.times(shift), model.prior
    gradient = model.gradient + model.rows.transposed_times(image)
    if prior is not None:
        moved = prior.root * shift
        gradient = gradient + prior.root * moved
        prior = Prior(prior.root, prior.residual + moved)
    return model._replace(
        residual=model.residual + image,
        prior=prior,
        cost=cost_beyond(model, shift),
        gradient=gradient,
        values=None,
    )
