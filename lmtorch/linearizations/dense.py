"""J held whole: for small, ill-conditioned problems (SVD, QR) and for m < n (dual)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._errors import InputError
from ..arrays import (
    apply,
    column_norms,
    diagonal,
    diagonal_matrix,
    gram,
    joined,
    on_numpy,
    put_beside,
    reduced,
    reduced_of,
    room,
    sqrt,
    squared,
    transposed,
    where,
)
from ..distributed.processes import Processes
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values, shifted_rows
from .roundoff import RoundOffForm, Told, turned, with_prior


class Dense(NamedTuple):
    """r and J as they are; a prior's rows stand beside them, unstacked."""

    residual: Tensor  # (..., m)
    jacobian: Tensor  # (..., m, n)
    prior: Prior | None
    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n)
    column_norms: Tensor  # (..., n)
    values: Values = None
    both: Any = None  # Jᵀ, and below it r, (n + 1, m), if they lie so in memory

    @staticmethod
    def recorded() -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What `recording` notes: attributes, and methods that are called, which go by rows."""
        return ("prior", "cost", "gradient", "column_norms"), ("squared_length", "freeze")

    @property
    def normal(self) -> Tensor:
        """JᵀJ with the prior's share, (..., n, n)."""
        jacobian, _ = self.stacked()
        return transposed(jacobian) @ jacobian

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖², (...,)."""
        length = squared(apply(self.jacobian, step))
        return length if self.prior is None else length + squared(self.prior.root * step)

    def freeze(self, free: Tensor) -> Self:
        """Zero columns and gradient outside `free`."""
        prior = self.prior and Prior(self.prior.root * free, self.prior.residual * free)
        return self._replace(  # not a product: a derivative may be infinite at a bound
            jacobian=where(free[..., None, :], self.jacobian, 0.0),
            prior=prior,
            gradient=where(free, self.gradient, 0.0),
            column_norms=where(free, self.column_norms, 0.0),
            both=None,
        )

    def shifted(self, shift: Tensor) -> Self:
        """Residuals and gradient where the linear model comes to by `shift` (..., n)."""
        shifted: Self = shifted_rows(self, shift)
        return shifted._replace(both=None)

    @property
    def rows(self) -> DenseRows:
        """The rows themselves, without the prior's."""
        return DenseRows(self.jacobian)

    def turned(self, directions: Tensor, x: Tensor) -> Told:
        """How far round-off turns the gradient along each direction."""
        found = turned(self.residual, self.rows, directions, x)
        return with_prior(found, self.prior, directions, x)

    def reduced(self) -> tuple[Tensor, Tensor]:
        """R (..., n, n) of a tall J = Q R, and Qᵀr, the prior's rows among theirs."""
        if self.both is not None and self.prior is None:
            return reduced_of(self.both)
        return reduced(*self.stacked())

    def stacked(self) -> tuple[Tensor, Tensor]:
        """J and r with the prior's rows below them, (..., m + n, n) and (..., m + n)."""
        if self.prior is None:
            return self.jacobian, self.residual
        return (
            joined([self.jacobian, diagonal_matrix(self.prior.root)], -2),
            joined([self.residual, self.prior.residual], -1),
        )


@dataclass(frozen=True)
class DenseForm:
    """The Jacobian whole, (m, n)."""

    sampled: ClassVar[bool] = False
    arrays: ClassVar[bool] = True

    def entries(self, n: int, m: int) -> int:
        """The Jacobian's entries, m n."""
        return m * n

    def described(self, n: int, m: int) -> str:
        """The Jacobian with its shape."""
        return f"Jacobian ({m} x {n})"

    @property
    def compared(self) -> "DenseForm":
        """The form in which J is compared with that of another point."""
        return self

    def of_roundoff(self, directions: Tensor, x: Tensor) -> RoundOffForm:
        """The form that says of the same rows how far round-off turns the gradient."""
        return RoundOffForm(directions, x)

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "DenseAccumulator":
        """One matrix for all rows, filled block by block."""
        *batch, n = shape
        return DenseAccumulator(room(like, *batch, rows, n), room(like, *batch, rows))

    def whole(self, both: Tensor, cost: Tensor, prior: Prior | None, values: Values) -> Dense:
        """The linear model of all rows of one small problem.

        Args:
            both: Jᵀ, and below it r, (n + 1, m), an array. It is kept.
            cost: as the accumulator is given it.
            prior: likewise.
            values: likewise.
        """
        products, n = gram(both), len(both) - 1
        norms = sqrt(diagonal(products)[:n])
        if prior is None:
            return Dense(both[n], both[:n].T, None, cost, products[n, :n], norms, values, both)
        return _dense(both[n], both[:n].T, cost, products[n, :n], norms, prior, values, both)


def _dense(
    residual: Tensor,
    jacobian: Tensor,
    cost: Tensor,
    gradient: Tensor,
    norms: Tensor,
    prior: Prior | None,
    values: Values,
    both: Any = None,
) -> Dense:
    """The linear model, with the prior's share of gradient and norms added."""
    if prior is not None:
        gradient = gradient + prior.root * prior.residual
        norms = sqrt(norms * norms + prior.root * prior.root)
    return Dense(residual, jacobian, prior, cost, gradient, norms, values, both)


class DenseAccumulator:
    """Blocks are written where they will stay."""

    kinds = (Columns, DenseRows)
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, jacobian: Tensor, residual: Tensor) -> None:
        self.jacobian = jacobian
        self.residual = residual
        self.filled = 0
        self.handed: Tensor | None = None  # rows that are filled where they will stay

    def workspace(self, rows: int) -> Tensor:
        """The next rows of the matrix itself."""
        self.handed = self.jacobian[..., self.filled : self.filled + rows, :]
        return self.handed

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Advance past the rows just filled, which are copied if they were not written in place."""
        count = residual.shape[-1]
        self.residual[..., self.filled : self.filled + count] = residual
        if isinstance(rows, Columns):
            put_beside(rows.columns, self.workspace(count))
        elif (matrix := rows.dense()) is not self.handed:
            self.workspace(count)[...] = matrix
        self.filled += count

    def share(self, processes: Processes) -> Callable[[], None]:
        """Take the rows of all processes, of those with many their triangular factor instead.

        J = Q R and Qᵀr say all that a step needs of J and r, whatever was done to Q: stacked they
        are as good as the rows.

        Reference: Demmel, Grigori, Hoemmen & Langou, Communication-optimal parallel and sequential
        QR and LU factorizations (2012).
        """
        both = torch.cat([self.jacobian, self.residual[:, None]], -1)
        if len(both) > both.shape[-1]:
            both = torch.linalg.qr(both, "r").R
        _, counts = processes.telling("rows", lambda: None, lambda _: [len(both)], 1)
        both = processes.rows(both, [int(count) for count in counts])
        self.jacobian, self.residual = both[:, :-1], both[:, -1].contiguous()
        return lambda: None

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Dense:
        """Jᵀr and the column norms, once."""
        if exact is not None:
            raise no_sample()
        if on_numpy(self.residual):  # one small problem, which is the same by whichever way
            both = joined([transposed(self.jacobian), self.residual[None]], 0)
            return DenseForm().whole(both, cost, prior, values)
        gradient = apply(transposed(self.jacobian), self.residual)
        norms = column_norms(self.jacobian)
        return _dense(self.residual, self.jacobian, cost, gradient, norms, prior, values)


def no_sample() -> InputError:
    """What is said where J is kept and JᵀJ was to be made of a sample of its rows."""
    return InputError("a sampled curvature needs the normal equations: choose solver='cholesky'")
