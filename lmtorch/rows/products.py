"""Rows of which only products are known, J v and Jᵀw, never written out: for matrix-free steps.

Reference: Martens, Deep learning via Hessian-free optimization (2010), §3; Bekas, Kokiopoulou &
Saad, An estimator for the diagonal of a matrix (2007), for the column norms.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ..arrays import to_type
from .base import Rows, scale_each

PROBES = (
    8  # products from which column norms are estimated; what has fewer columns has them exactly
)
SPREAD = 3**0.5  # of numbers that are uniform from −SPREAD to SPREAD, and of mean square one


class LinearMap(Protocol):
    """J of some residuals at one point."""

    @property
    def shape(self) -> torch.Size:
        """(..., rows, n)."""

    @property
    def like(self) -> Tensor:
        """A tensor on its device and of its dtype."""

    def push(self, v: Tensor) -> Tensor:
        """J v of v (..., n), (..., rows)."""

    def pull(self, w: Tensor) -> Tensor:
        """Jᵀw of w (..., rows), (..., n)."""

    def around(self, v: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """Jᵀ weigh(J v), (..., n), of one evaluation."""


class ProductRows(NamedTuple):
    """R J of a linear map J, where R is the product of what it was scaled by."""

    map: LinearMap
    roots: tuple[Tensor, ...] = ()  # (..., rows), or (..., samples, k, k), the first scaled first

    @property
    def shape(self) -> torch.Size:
        """(..., rows, n)."""
        return self.map.shape

    @property
    def column_norms(self) -> Tensor:
        """‖R J e_j‖, (..., n), estimated for more than `PROBES` columns.

        For random z of mean square one the expectation of (Jᵀz)² is Σᵢ J²ᵢⱼ; of eight of them the
        root is off by a quarter. Signs alone would do, but for entries that are alike and may
        cancel in all eight: with sizes a column of zeros has the norm zero exactly, and only that.
        The numbers are always the same.
        """
        *batch, rows, n = self.shape
        if n <= PROBES:
            return self._columns(n).square().sum(-1).sqrt()
        generator = torch.Generator().manual_seed(0)
        squares = self.map.like.new_zeros(*batch, n)
        for _ in range(PROBES):
            drawn = torch.empty((*batch, rows), device="cpu", dtype=torch.float32)
            drawn.uniform_(-SPREAD, SPREAD, generator=generator)
            squares += self.transposed_times(drawn.to(squares)).square()
        return (squares / PROBES).sqrt_()

    def scaled(self, root: Tensor) -> Self:
        """R J: nothing is computed yet."""
        return self._replace(roots=(*self.roots, root))

    def times(self, v: Tensor) -> Tensor:
        """R J v, (..., rows)."""
        return self._scaled(self.map.push(v))

    def transposed_times(self, w: Tensor) -> Tensor:
        """JᵀRᵀw, (..., n)."""
        return self.map.pull(self._scaled_back(w))

    def normal_times(self, v: Tensor) -> Tensor:
        """JᵀRᵀR J v, (..., n), of one evaluation."""
        return self.map.around(v, lambda moved: self._scaled_back(self._scaled(moved)))

    def dense(self) -> Tensor:
        """All entries, (..., rows, n), by as many products as there are rows or columns."""
        *batch, rows, n = self.shape
        if n <= rows:
            return self._columns(n).mT
        found = self.map.like.new_zeros(*batch, rows, n)
        for row in range(rows):
            unit = found.new_zeros(*batch, rows)
            unit[..., row] = 1
            found[..., row, :] = self.transposed_times(unit)
        return found

    def _columns(self, n: int) -> Tensor:
        """All columns, (..., n, rows)."""
        *batch, rows, _ = self.shape
        found = self.map.like.new_zeros(*batch, n, rows)
        for column in range(n):
            unit = found.new_zeros(*batch, n)
            unit[..., column] = 1
            found[..., column, :] = self.times(unit)
        return found

    def _scaled(self, values: Tensor) -> Tensor:
        for root in self.roots:
            values = scale_each(values, to_type(root, values.dtype))
        return values

    def _scaled_back(self, values: Tensor) -> Tensor:
        for root in reversed(self.roots):
            matrices = root.ndim > values.ndim
            values = scale_each(values, to_type(root.mT if matrices else root, values.dtype))
        return values


def normal_times(rows: Rows, v: Tensor) -> Tensor:
    """JᵀJ v of v (..., n), (..., n), by the rows' own way if they have one."""
    own = getattr(rows, "normal_times", None)
    found: Tensor = rows.transposed_times(rows.times(v)) if own is None else own(v)
    return found
