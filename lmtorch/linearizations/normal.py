"""JᵀJ and Jᵀr, summed over blocks of rows, so that J is never whole: for many residuals.

JᵀJ is symmetric: only its lower triangle is summed, and mirrored once at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._symmetric import add_gram_, mirror_, vectors_last
from ..arrays import inner
from ..distributed.processes import Processes
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from ..rows.outer import Outer, OuterRows
from . import coarse
from .base import Accumulator, Exact, Prior, Sums, Values, cost_beyond
from .kronecker import KroneckerSum, worth_it
from .roundoff import RoundOffForm
from .sketch import SketchForm

TOGETHER = 8192  # rows whose products are summed in their own dtype, before these sums are added up
FEW = 16  # parameters up to which the sums of a batch of problems are made all at once


class Normal(NamedTuple):
    """The normal equations' two sides."""

    normal: Tensor  # (..., n, n), JᵀJ, undamped
    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n), Jᵀr
    values: Values = None
    norms: Tensor | None = None  # (..., n), ‖J e_j‖, where they are kept

    @property
    def column_norms(self) -> Tensor:
        """Square roots of the diagonal."""
        return _norms(self.normal) if self.norms is None else self.norms

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖² = sᵀ JᵀJ s, (...,)."""
        if step.ndim > 1:  # many small products: a kernel for each would cost more than they do
            rows, entries = self.normal.unbind(-2), step.unbind(-1)
            moved = rows[0] * entries[0][..., None]
            for row, entry in zip(rows[1:], entries[1:], strict=True):
                moved = torch.addcmul(moved, row, entry[..., None])
            return inner(moved, step)
        return ((self.normal @ step[..., None])[..., 0] * step).sum(-1)

    def freeze(self, free: Tensor) -> Self:
        """Zero rows, columns and gradient outside `free`."""
        both = free[..., :, None] & free[..., None, :]
        norms = None if self.norms is None else self.norms * free
        return self._replace(normal=self.normal * both, gradient=self.gradient * free, norms=norms)

    def shifted(self, shift: Tensor) -> Self:
        """The gradient where the linear model comes to by `shift` (..., n)."""
        moved = (self.normal @ shift[..., None])[..., 0]
        cost = cost_beyond(self, shift)
        return self._replace(cost=cost, gradient=self.gradient + moved, values=None)

    @property
    def rows(self) -> None:
        """None: rows are not kept."""


def _norms(normal: Tensor) -> Tensor:
    return normal.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


@dataclass(frozen=True)
class NormalForm:
    """Only the sums JᵀJ (n, n) and Jᵀr (n); rows stream.

    Args:
        products: the dtype in which products of a few thousand rows are summed, where it is another
            than that of the equations. Default: none, products are of their dtype.
    """

    products: torch.dtype | None = None
    sampled: ClassVar[bool] = True

    def entries(self, n: int, m: int) -> int:
        """The normal matrix's, whatever the number of residuals."""
        return n * n if self.products is None else 2 * n * n

    def described(self, n: int, m: int) -> str:
        """The normal matrix with its shape."""
        return f"normal matrix ({n} x {n})"

    @property
    def compared(self) -> SketchForm:
        """The form in which J is compared with that of another point."""
        return SketchForm()

    def of_roundoff(self, directions: Tensor, x: Tensor) -> RoundOffForm:
        """The form that says of the same rows how far round-off turns the gradient."""
        return RoundOffForm(directions, x)

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> Accumulator:
        """Sums that start at zero."""
        *batch, n = shape
        if len(batch) == 1 and n <= FEW:
            return ManyAccumulator(batch[0], n, like)
        whole = NormalAccumulator(like.new_zeros(*batch, n, n), like.new_zeros(*batch, n))
        return whole if self.products in (None, like.dtype) else Pieces(whole, self.products)


class NormalAccumulator:
    """Adds up blocks, all of which are written into one workspace."""

    kinds = (OuterRows, Columns, DenseRows)

    def __init__(self, normal: Tensor, gradient: Tensor) -> None:
        self.normal = normal
        self.gradient = gradient
        self.rows = normal.new_empty(*normal.shape[:-2], 0, normal.shape[-1])
        self.kronecker: dict[int, KroneckerSum] = {}  # by the first column

    @property
    def sums(self) -> Sums:
        """JᵀJ but for the columns that are outer products, Jᵀr, and the sums of these columns."""
        return self.normal, self.gradient, *(k.packed for k in self.kronecker.values())

    @sums.setter
    def sums(self, sums: Sums) -> None:
        self.normal, self.gradient, *packed = sums
        for products, summed in zip(self.kronecker.values(), packed, strict=True):
            products.packed = summed

    def workspace(self, rows: int) -> Tensor:
        """A block's rows, overwritten by the next block."""
        if self.rows.shape[-2] < rows:
            self.rows = self.normal.new_empty(*self.normal.shape[:-2], rows, self.normal.shape[-1])
        return self.rows[..., :rows, :]

    def add(self, residual: Tensor, rows: DenseRows | OuterRows | Columns) -> None:
        """Sum up JᵀJ and Jᵀr of the block."""
        jacobian = rows.dense().to(self.normal.dtype)
        self.gradient += (jacobian.mT @ residual.to(self.normal.dtype)[..., None])[..., 0]
        outer: Sequence[Outer] = rows.outer if isinstance(rows, OuterRows) else ()
        known = []
        for columns in outer:
            (_, k, p), q = columns.left.shape, columns.right.shape[-1]
            if worth_it(p, q, k):
                known.append(slice(columns.start, columns.start + p * q))
                if columns.start not in self.kronecker:
                    self.kronecker[columns.start] = KroneckerSum(p, q, self.normal)
                self.kronecker[columns.start].add(columns)
        add_gram_(self.normal, jacobian, known)

    def share(self, processes: Processes) -> Callable[[], None]:
        """Add JᵀJ, one triangle of it, and Jᵀr over all processes."""
        self._unfold()
        triangle = processes.add_triangle_(self.normal)
        gradient = processes.adding([self.gradient])

        def arrived() -> None:
            triangle()
            (self.gradient,) = gradient()

        return arrived

    def _unfold(self) -> None:
        """Put what is summed as Kronecker products into JᵀJ, where the others add to it."""
        for start, products in self.kronecker.items():
            block = slice(start, start + products.p * products.q)
            self.normal[block, block] += products.whole()
        self.kronecker.clear()

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Normal:
        """The sums, with the prior's on the diagonal."""
        self._unfold()
        mirror_(self.normal)
        if exact is not None:
            self.normal *= exact.factor
            self.gradient = exact.gradient
        if prior is not None:
            self.normal.diagonal(dim1=-2, dim2=-1).add_(prior.root.square())
            self.gradient = self.gradient + prior.root * prior.residual
        return Normal(self.normal, cost, self.gradient, values)


class Pieces:
    """Sums over some thousand rows in one dtype, which are added up in another.

    Round-off of products in float32 is independent from piece to piece: of B of them the relative
    error of the sum is that of one over √B, where a sum in float32 itself has √B times as much.

    Args:
        whole: adds up the pieces.
        dtype: of the products.
    """

    kinds = NormalAccumulator.kinds

    def __init__(self, whole: NormalAccumulator, dtype: torch.dtype) -> None:
        self.whole = whole
        self.piece = NormalAccumulator(*(t.to(dtype) for t in (whole.normal, whole.gradient)))
        self.count = 0  # rows of the piece

    @property
    def sums(self) -> Sums:
        """Those of all rows, as `NormalAccumulator` has them."""
        self._flush()
        return self.whole.sums

    @sums.setter
    def sums(self, sums: Sums) -> None:
        self.whole.sums = sums

    def workspace(self, rows: int) -> Tensor:
        """A block's rows, overwritten by the next block."""
        return self.piece.workspace(rows)

    def add(self, residual: Tensor, rows: DenseRows | OuterRows | Columns) -> None:
        """Sum up JᵀJ and Jᵀr of the block."""
        self.piece.add(residual, rows)
        self.count += residual.shape[-1]
        if self.count >= TOGETHER:
            self._flush()

    def share(self, processes: Processes) -> Callable[[], None]:
        """Add JᵀJ and Jᵀr over all processes."""
        self._flush()
        return self.whole.share(processes)

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Normal:
        """The sums, with the prior's on the diagonal."""
        self._flush()
        return self.whole.finish(cost, prior, exact, values)

    def _flush(self) -> None:
        """Add the piece, and begin with nothing."""
        whole, piece = self.whole, self.piece
        for start, products in piece.kronecker.items():
            if start not in whole.kronecker:
                whole.kronecker[start] = KroneckerSum(products.p, products.q, whole.normal)
            whole.kronecker[start].packed += products.packed
            products.packed.zero_()
        whole.normal += piece.normal
        whole.gradient += piece.gradient
        piece.normal.zero_()
        piece.gradient.zero_()
        self.count = 0


class ManyAccumulator:
    """Sums over the rows of b problems of n parameters, which are few.

    [J r]ᵀ[J r] is one batched product of matrices of few columns, and holds JᵀJ and Jᵀr. The sums
    lie in memory with the problems last, so that what follows, entry by entry, runs over whole
    vectors.

    Args:
        b: how many problems.
        n: parameters of each.
        like: on this device, in this dtype.
    """

    kinds = (Columns, DenseRows)

    def __init__(self, b: int, n: int, like: Tensor) -> None:
        self.shape = b, n
        self.like = like
        self.products: Tensor | None = None  # (b, n + 1, n + 1)

    @property
    def sums(self) -> Sums:
        """[J r]ᵀ[J r]."""
        return () if self.products is None else (self.products,)

    @sums.setter
    def sums(self, sums: Sums) -> None:
        self.products = sums[0] if sums else None

    def workspace(self, rows: int) -> Tensor:
        """A block's rows, column after column in memory."""
        return self.like.new_empty(self.shape[0], self.shape[1], rows).mT

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Sum up the products of a block."""
        given = rows.columns if isinstance(rows, Columns) else rows.matrix.unbind(-1)
        if vectors_last(residual):
            products = coarse.products([*given, residual], self.like.dtype)
        else:
            zero = torch.zeros_like(residual) if any(c is None for c in given) else residual
            columns = [zero if column is None else column for column in given]
            both = torch.stack([*columns, residual.to(columns[0].dtype)], -2).to(self.like.dtype)
            products = both @ both.mT
        self.products = products if self.products is None else self.products + products

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Normal:
        """The sums, with the prior's on the diagonal."""
        (b, n), products = self.shape, self.products
        if products is None:
            products = self.like.new_zeros(b, n + 1, n + 1)
        last = products.movedim(0, -1).contiguous().movedim(-1, 0)
        normal, gradient = last[:, :n, :n], last[:, n, :n]
        if exact is not None:
            normal, gradient = normal * exact.factor, exact.gradient
        if prior is not None:
            normal = normal + torch.diag_embed(prior.root.square())
            gradient = gradient + prior.root * prior.residual
        return Normal(normal, cost, gradient, values, _norms(normal))  # a trial asks many times
