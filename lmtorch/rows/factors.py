"""What is known of the columns of one parameter, by the layer that it acts in.

    Weight   W (p × q) of z = W a      Σ_t g_t a_tᵀ, for the uses t of the layer: g gradients in its
                                       outputs, a its inputs
    Lookup   E (v × q), rows looked up Σ_t e(i_t) g_tᵀ, for the unit vectors e of the places i
    Plain    anything else             the numbers themselves

Residual o of sample s has g_so, and all residuals of a sample share a and i.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from .base import scale

ENTRIES = 2**20  # numbers of a block that is made on the way, so that it stays in cache
FAR = 2**24  # on other devices, where a call costs more than to go through so few


class Factor(Protocol):
    """Columns of one parameter, for s samples with k residuals each."""

    @property
    def start(self) -> int:
        """The first column."""

    @property
    def columns(self) -> int:
        """How many there are."""

    @property
    def line(self) -> int:
        """Columns that are written out together: a multiple of so many."""

    def scaled(self, root: Tensor) -> Self:
        """The columns of R J; what belongs to a sample is shared with these."""

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another dtype."""

    def written(self, columns: slice) -> Tensor:
        """Some of the columns, whole lines of them, (s, k, columns)."""

    def add_squares_(self, squares: Tensor) -> None:
        """Add the squares of the entries of each column to its place in (n,)."""

    def squared_lengths(self, squares: Tensor) -> Tensor:
        """The share of these columns in the diagonal of J D⁻² Jᵀ, (s, k), with D² (n,)."""

    def times(self, v: Tensor) -> Tensor:
        """The share of these columns in J v, (s, k), of v (n,)."""

    def add_transposed_times_(self, found: Tensor, w: Tensor) -> None:
        """Add these columns' Jᵀw, w (s, k), to their place in (n,)."""

    def like(self, other: "Factor") -> bool:
        """Whether they may stand in one block, for other samples."""


class Weight(NamedTuple):
    """Columns of a weight (p, q): Σ_t left[s, o, t] right[s, t]ᵀ for residual o of sample s."""

    start: int
    left: Tensor  # (s, k, t, p)
    right: Tensor  # (s, t, q)
    bias: int | None = None  # the first column of a bias that is used with it, once: t = 1

    @property
    def columns(self) -> int:
        """p q."""
        return self.left.shape[-1] * self.right.shape[-1]

    @property
    def line(self) -> int:
        """q, all columns that belong to one output."""
        return self.right.shape[-1]

    def scaled(self, root: Tensor) -> "Weight":
        """Of R J: only the left factor belongs to a residual."""
        return self._replace(left=scaled(self.left, root))

    def to(self, dtype: torch.dtype) -> "Weight":
        """In another dtype."""
        return self._replace(left=self.left.to(dtype), right=self.right.to(dtype))

    def written(self, columns: slice) -> Tensor:
        """Some lines of the weight, (s, k, lines · q)."""
        left = self.left[..., columns.start // self.line : columns.stop // self.line]
        if left.shape[2] == 1:
            products = left[:, :, 0, :, None] * self.right[:, :, None]
        else:
            # Σ_t g aᵀ: all residuals of a sample in one product, not in one of a few lines each
            samples, residuals, uses, lines = left.shape
            products = left.mT.reshape(samples, residuals * lines, uses) @ self.right
        return products.reshape(*left.shape[:2], left.shape[-1] * self.line)

    def add_squares_(self, squares: Tensor) -> None:
        """Of a product of two numbers the square is that of both; a sum is written out."""
        if self.left.shape[2] == 1:
            left = self.left.square().sum(1)[:, 0]  # (s, p)
            found = left.mT @ self.right[:, 0].square()
            squares[self.start : self.start + self.columns] += found.flatten()
        else:
            # some samples at a time, not some columns: of few columns each product is a small one
            place = slice(self.start, self.start + self.columns)
            width = at_once(self.left.shape[1] * self.columns, self.left.device)
            for left, right in zip(self.left.split(width), self.right.split(width), strict=True):
                some = self._replace(left=left, right=right).written(slice(0, self.columns))
                squares[place] += some.square_().sum((0, 1))
        if self.bias is not None:
            p = self.left.shape[-1]
            squares[self.bias : self.bias + p] += self.left.square().sum((0, 1, 2))

    def squared_lengths(self, squares: Tensor) -> Tensor:
        """Σ_tu (g_tᵀg_u)(a_tᵀa_u) of each residual, with the bias's share."""
        found = _of_pairs(self.left, self.right @ self.right.mT) / squares[self.start]
        if self.bias is None:
            return found
        return found + self.left.square().sum((-2, -1)) / squares[self.bias]

    def times(self, v: Tensor) -> Tensor:
        """J v: the outputs move by V a, with the bias's share."""
        p, q = self.left.shape[-1], self.right.shape[-1]
        matrix = v[self.start : self.start + p * q].view(p, q).mT
        found = []
        for left, right in self._in_pieces():
            moved = right @ matrix  # (s, t, p)
            if self.bias is not None:
                moved += v[self.bias : self.bias + p]
            if left.shape[1] == 1:  # a product for each sample would be one of single lines
                found.append((left.flatten(1) * moved.flatten(1)).sum(1, keepdim=True))
            else:
                found.append((left.flatten(2) @ moved.flatten(1)[..., None])[..., 0])
        return found[0] if len(found) == 1 else torch.cat(found)

    def add_transposed_times_(self, found: Tensor, w: Tensor) -> None:
        """Jᵀw = Σ_st (Σ_o w g) aᵀ."""
        p, q, done = self.left.shape[-1], self.right.shape[-1], 0
        place = found[self.start : self.start + p * q].view(p, q)
        for left, right in self._in_pieces():
            left = weighted(left, w[done : done + len(left)])  # (s, t, p)
            done += len(left)
            place.addmm_(left.flatten(0, 1).mT, right.flatten(0, 1))
            if self.bias is not None:
                found[self.bias : self.bias + p] += left.sum((0, 1))

    def _in_pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Both factors, some samples at a time, so that what is made of them stays in cache."""
        uses, p = self.left.shape[-2:]
        width = at_once(uses * max(p, self.right.shape[-1]), self.left.device)
        return zip(self.left.split(width), self.right.split(width), strict=True)

    def like(self, other: Factor) -> bool:
        """Of the same weight, with as many uses and the bias in the same place."""
        return (
            isinstance(other, Weight)
            and (self.start, self.bias) == (other.start, other.bias)
            and self.left.shape[1:] == other.left.shape[1:]
        )


class Lookup(NamedTuple):
    """Columns of a table (v, q): row places[s, t] of it is used, and left[s, o, t] is its share."""

    start: int
    left: Tensor  # (s, k, t, q)
    places: Tensor  # (s, t), integers
    entries: int  # v

    @property
    def columns(self) -> int:
        """v q."""
        return self.entries * self.left.shape[-1]

    @property
    def line(self) -> int:
        """q, a row of the table."""
        return self.left.shape[-1]

    def scaled(self, root: Tensor) -> "Lookup":
        """Of R J."""
        return self._replace(left=scaled(self.left, root))

    def to(self, dtype: torch.dtype) -> "Lookup":
        """In another dtype."""
        return self._replace(left=self.left.to(dtype))

    def written(self, columns: slice) -> Tensor:
        """Some rows of the table, (s, k, rows · q)."""
        rows = torch.arange(
            columns.start // self.line, columns.stop // self.line, device=self.places.device
        )
        chosen = (self.places[..., None] == rows).to(self.left.dtype)  # (s, t, rows)
        return (chosen.mT[:, None] @ self.left).flatten(2)

    def add_squares_(self, squares: Tensor) -> None:
        """What a sample looks up several times has the square of the sum, once."""
        same = (self.places[:, :, None] == self.places[:, None]).to(self.left.dtype)  # (s, t, t)
        sums = same[:, None] @ self.left
        each = sums.square().sum(1) / same.sum(-1, keepdim=True)  # (s, t, q)
        self._add_(squares, each)

    def squared_lengths(self, squares: Tensor) -> Tensor:
        """Of pairs that look up the same."""
        same = self.places[:, :, None] == self.places[:, None]
        return _of_pairs(self.left, same.to(self.left.dtype)) / squares[self.start]

    def times(self, v: Tensor) -> Tensor:
        """J v."""
        moved = v[self.start : self.start + self.columns].view(self.entries, -1)[self.places]
        return (self.left * moved[:, None]).sum((-2, -1))

    def add_transposed_times_(self, found: Tensor, w: Tensor) -> None:
        """Jᵀw."""
        self._add_(found, weighted(self.left, w))

    def _add_(self, found: Tensor, each: Tensor) -> None:
        """Add rows (s, t, q) to those of the table that they belong to."""
        table = found[self.start : self.start + self.columns].view(self.entries, -1)
        table.index_add_(0, self.places.flatten(), each.flatten(0, 1))

    def like(self, other: Factor) -> bool:
        """Of the same table, looked up as often."""
        return (
            isinstance(other, Lookup)
            and self.start == other.start
            and self.left.shape[1:] == other.left.shape[1:]
        )


class Plain(NamedTuple):
    """Columns of which nothing is known but their numbers."""

    start: int
    matrix: Tensor  # (s, k, c)

    @property
    def columns(self) -> int:
        """c."""
        return self.matrix.shape[-1]

    @property
    def line(self) -> int:
        """Any columns will do."""
        return 1

    def scaled(self, root: Tensor) -> "Plain":
        """Of R J."""
        return self._replace(matrix=scaled(self.matrix, root))

    def to(self, dtype: torch.dtype) -> "Plain":
        """In another dtype."""
        return self._replace(matrix=self.matrix.to(dtype))

    def written(self, columns: slice) -> Tensor:
        """As they are."""
        return self.matrix[..., columns]

    def add_squares_(self, squares: Tensor) -> None:
        """Entry by entry."""
        squares[self.start : self.start + self.columns] += self.matrix.square().sum((0, 1))

    def squared_lengths(self, squares: Tensor) -> Tensor:
        """Sums of squares."""
        return self.matrix.square().sum(-1) / squares[self.start]

    def times(self, v: Tensor) -> Tensor:
        """J v."""
        return self.matrix @ v[self.start : self.start + self.columns]

    def add_transposed_times_(self, found: Tensor, w: Tensor) -> None:
        """Jᵀw."""
        both = w.flatten() @ self.matrix.flatten(0, 1)
        found[self.start : self.start + self.columns] += both

    def like(self, other: Factor) -> bool:
        """Of the same columns."""
        return (
            isinstance(other, Plain)
            and self.start == other.start
            and self.matrix.shape[1:] == other.matrix.shape[1:]
        )


def together(factors: Sequence[Factor]) -> Factor:
    """Factors that are alike as one, of the samples of all of them."""
    return _changed(factors[0], lambda name: torch.cat([getattr(f, name) for f in factors]))


def taken(factor: Factor, samples: Tensor) -> Factor:
    """The factor of some samples, by their numbers (s,)."""
    return _changed(factor, lambda name: getattr(factor, name)[samples])


def _changed(factor: Factor, change: Callable[[str], Tensor]) -> Factor:
    """The factor with other tensors of samples, by their names."""
    names = [name for name in ("left", "right", "places", "matrix") if hasattr(factor, name)]
    changes = {name: change(name) for name in names}
    found: Factor = factor._replace(**changes)  # type: ignore[attr-defined]  # a factor is a NamedTuple, which its protocol cannot say
    return found


def pieces(columns: int, line: int, rows: int, device: torch.device, most: int = 0) -> list[slice]:
    """Columns in pieces of whole lines, each of `most` or `room` numbers with so many rows."""
    width = line * at_once(rows * line, device, most)
    return [slice(begin, min(begin + width, columns)) for begin in range(0, columns, width)]


def room(device: torch.device) -> int:
    """Numbers of a block that is made on the way."""
    return ENTRIES if device.type == "cpu" else FAR


def at_once(entries: int, device: torch.device, most: int = 0) -> int:
    """How many things of so many entries are made together."""
    return max(1, max(room(device), most) // max(1, entries))


def _of_pairs(left: Tensor, inputs: Tensor) -> Tensor:
    """Σ_tu (g_tᵀg_u) inputs_tu of each residual, (s, k), of left (s, k, t, p), inputs (s, t, t)."""
    return ((inputs[:, None] @ left) * left).sum((-2, -1))


def scaled(left: Tensor, root: Tensor) -> Tensor:
    """(s, k, ...) times a root of each row or of each sample."""
    return scale(left.flatten(0, 1).flatten(1), root).view_as(left)


def weighted(left: Tensor, w: Tensor) -> Tensor:
    """Σ_o w left, (s, t, p), of w (s, k) and left (s, k, t, p)."""
    if w.shape[1] == 1:
        return left[:, 0] * w[:, :, None]
    return (w[:, None] @ left.flatten(2)).view(left.shape[0], *left.shape[2:])
