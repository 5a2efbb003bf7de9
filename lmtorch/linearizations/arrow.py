"""Curvature of a problem whose points have variables of their own, which is never written out.

    H = [ A   B ]     A (n, n) of the shared variables, D a block (k, k) for each of m points
        [ Bᵀ  D ]

With D = L P Lᵀ point by point, H is congruent to diag(S, P) where S = A − B D⁻¹ Bᵀ is n × n,
whatever the points. By Sylvester's law H is positive definite if S and P are.

References: Golub & Van Loan, Matrix Computations (2013), §4.1.2 and §8.1.5; Boggs, Byrd & Schnabel,
A stable and efficient algorithm for nonlinear orthogonal distance regression (1987), §3.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .._triangles import Triangle
from ..arrays import (
    all_entries_finite,
    all_finite,
    apply,
    diagonal,
    eigh,
    every,
    identity,
    is_nan,
    joined,
    largest,
    room,
    settled,
    spread,
    sqrt,
    transposed,
    where,
    zeros,
)
from ..rows.own import flat


class Arrow(NamedTuple):
    """The blocks of a symmetric matrix of all variables."""

    shared: Tensor  # (..., n, n), A
    border: Tensor  # (..., n, m, k), B
    own: Tensor  # (..., m, k, k), D

    @property
    def diagonal(self) -> Tensor:
        """The diagonal, (..., n + m·k)."""
        return joined([diagonal(self.shared), flat(_diagonals(self.own))], -1)

    def between(self, free: Tensor) -> "Arrow":
        """Zero rows and columns outside `free` (..., n + m·k)."""
        of_shared, of_own = self._parts(free)
        both = of_shared[..., :, None] & of_shared[..., None, :]
        across = of_shared[..., :, None, None] & of_own[..., None, :, :]
        points = of_own[..., :, None] & of_own[..., None, :]
        return Arrow(
            *(
                where(mask, part, 0.0)
                for mask, part in zip((both, across, points), self, strict=True)
            )
        )

    def scaled(self, units: Tensor) -> "Arrow":
        """U⁻¹ H U⁻¹ for U = diag(units), (..., n + m·k)."""
        a, b = self._parts(units)
        return Arrow(
            self.shared / a[..., :, None] / a[..., None, :],
            self.border / a[..., :, None, None] / b[..., None, :, :],
            self.own / b[..., :, None] / b[..., None, :],
        )

    @property
    def finite(self) -> Tensor:
        """Whether all entries are, (...,)."""
        return all_finite(self._entries)

    @property
    def zero(self) -> Tensor:
        """Whether all entries are zero, (...,)."""
        return every(self._entries == 0)

    def spectrum(self, finite: Tensor) -> "ArrowSpectrum":
        """diag(S, P), where the matrix is finite."""
        if not settled(finite):
            a, b, d = self
            shared = where(spread(spread(finite)), a, identity(a))
            border = where(spread(spread(spread(finite))), b, 0.0)
            own = where(spread(spread(spread(finite))), d, identity(d[..., 0, :, :]))
            return ArrowSpectrum(Arrow(shared, border, own))
        return ArrowSpectrum(self)

    @property
    def _entries(self) -> Tensor:
        lead = self.shared.shape[:-2]
        return joined([part.reshape(*lead, -1) for part in self], -1)

    def plus(self, root: Tensor) -> "Arrow":
        """H with the squares of (..., n + m·k) added to its diagonal."""
        a, b = self._parts(root**2)
        return self._replace(
            shared=self.shared + a[..., :, None] * identity(self.shared),
            own=self.own + b[..., :, None] * identity(self.own[..., 0, :, :]),
        )

    def _parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        n, (m, k) = self.shared.shape[-1], self.border.shape[-2:]
        return vector[..., :n], vector[..., n:].reshape(*vector.shape[:-1], m, k)


class ArrowSpectrum:
    """diag(S, P) of a matrix in units in which its diagonal is at most one.

    Args:
        matrix: the blocks, finite.

    Attributes:
        values: eigenvalues of S (..., n), rising.
        every: these and P, (..., n + m·k).
        vectors: for each of `values` the direction in all variables, (..., n + m·k, n).
    """

    def __init__(self, matrix: Arrow) -> None:
        k = matrix.own.shape[-1]
        # entries (..., 1, m), which vectors over points (..., n, m) are multiplied with
        entries = [[matrix.own[..., None, :, i, j] for j in range(k)] for i in range(k)]
        self._triangle = Triangle(entries, [entries[i][i] for i in range(k)])
        # a pivot that is not positive is one of a saddle, of which no more is asked than the sign;
        # those after it are NaN
        pivots = [where(is_nan(pivot), -1.0, pivot) for pivot in self._triangle.pivots]
        positive = [where(pivot > 0, pivot, 1.0) for pivot in pivots]
        self._inverse = [1 / pivot for pivot in positive]
        self._triangle.inverse = self._inverse
        self._across = self._triangle.forward([matrix.border[..., i] for i in range(k)])
        shared = matrix.shared
        for seen, inverse in zip(self._across, self._inverse, strict=True):
            shared = shared - (seen * inverse) @ transposed(seen)
        safe = all_entries_finite(shared)
        self.values, self._basis = eigh(where(spread(spread(safe)), shared, identity(shared)))
        self.every = joined([self.values, self._beside(pivots)], -1)

    @property
    def lowest(self) -> Tensor:
        """The smallest of all, (...,)."""
        return -largest(-self.every)

    @property
    def vectors(self) -> Tensor:
        """The directions of `values` in all variables."""
        found = [
            -(transposed(seen) @ self._basis) * inverse[..., 0, :, None]
            for seen, inverse in zip(self._across, self._inverse, strict=True)
        ]
        for j in reversed(range(len(found))):
            for i in range(j + 1, len(found)):
                found[j] = found[j] - self._triangle.lower[i][j][..., 0, :, None] * found[i]
        both = joined([part[..., :, None, :] for part in found], -2)  # (..., m, k, n)
        *lead, m, k, n = both.shape
        return joined([self._basis, both.reshape(*lead, m * k, n)], -2)

    def along(self, gradient: Tensor) -> Tensor:
        """The gradient in the coordinates of `every`."""
        n = self.values.shape[-1]
        shared, own = gradient[..., :n], self._triangle.forward(self._points(gradient[..., n:]))
        for seen, part, inverse in zip(self._across, own, self._inverse, strict=True):
            shared = shared - apply(seen, (part * inverse)[..., 0, :])
        return joined([apply(transposed(self._basis), shared), self._beside(own)], -1)

    def error(self, unclear: Tensor) -> Tensor:
        """How far `along` is off for a gradient whose entries are by so much."""
        n = self.values.shape[-1]
        shared, own = unclear[..., :n] ** 2, list[Tensor]()
        for part, row in zip(self._points(unclear[..., n:]), self._triangle.lower, strict=True):
            for known, factor in zip(own, row, strict=True):
                part = part + abs(factor) * known
            own.append(part)
        for seen, part, inverse in zip(self._across, own, self._inverse, strict=True):
            shared = shared + apply((seen * inverse) ** 2, part[..., 0, :] ** 2)
        found = sqrt(apply(transposed(self._basis * self._basis), shared))
        return joined([found, self._beside(own)], -1)

    def back(self, coordinates: Tensor) -> Tensor:
        """The step in all variables with these coordinates, which `along` belongs to."""
        n = self.values.shape[-1]
        shared = apply(self._basis, coordinates[..., :n])
        found = [
            part - apply(transposed(seen), shared)[..., None, :] * inverse
            for part, seen, inverse in zip(
                self._points(coordinates[..., n:]), self._across, self._inverse, strict=True
            )
        ]
        for j in reversed(range(len(found))):
            for i in range(j + 1, len(found)):
                found[j] = found[j] - self._triangle.lower[i][j] * found[i]
        return joined([shared, self._beside(found)], -1)

    def _points(self, vector: Tensor) -> list[Tensor]:
        """Numbers (..., m·k) as k vectors (..., 1, m)."""
        k = len(self._across)
        by_point = vector.reshape(*vector.shape[:-1], vector.shape[-1] // k, k)
        return [by_point[..., None, :, i] for i in range(k)]

    def _beside(self, points: list[Tensor]) -> Tensor:
        """k vectors (..., 1, m) as numbers (..., m·k), point by point."""
        return flat(joined([part[..., 0, :, None] for part in points], -1))


def _diagonals(own: Tensor) -> Tensor:
    """The diagonals of (..., m, k, k), (..., m, k)."""
    return joined([own[..., i, i, None] for i in range(own.shape[-1])], -1)


class Curvature(NamedTuple):
    """H and the gradient that goes with it, (..., n + m·k)."""

    matrix: Arrow
    gradient: Tensor


def summed(
    columns: Sequence[
        Tensor | None
    ],  # (..., q·m) of the n shared variables and the k of a point; None: zero
    residual: Tensor,
    bends: Mapping[tuple[int, int], Tensor],
    each: int,
    n: int,
) -> Curvature:
    """JᵀJ + Σ r ∇²r and Jᵀr, without the prior.

    Args:
        columns: derivatives of the rows (..., q·m) in the n shared variables, then in the k of
            their point; None: zero.
        residual: r, (..., q·m).
        bends: second derivatives (..., q·m) in two of these; one that is zero is not there.
        each: q, rows of a point.
        n: shared variables.

    Returns:
        Both.
    """
    *lead, rows = residual.shape
    m, k = rows // each, len(columns) - n

    def of_points(values: Tensor) -> Tensor:
        found: Tensor = values.reshape(*lead, each, m).sum(-2)
        return found

    none = zeros(residual)
    there = [none if column is None else column for column in columns]
    shared = zeros(room(residual, *lead, n, n))
    border = zeros(room(residual, *lead, n, m, k))
    own = zeros(room(residual, *lead, m, k, k))
    jacobian = joined([column[..., None, :] for column in there[:n]], -2)
    shared = shared + jacobian @ transposed(jacobian)
    for j in range(k):
        for i in range(n):
            border[..., i, :, j] = of_points(there[i] * there[n + j])
        for i in range(j + 1):
            own[..., i, j] = own[..., j, i] = of_points(there[n + i] * there[n + j])
    for (i, j), bend in bends.items():
        weighed = residual * bend
        if j < n:
            entry = weighed.sum(-1)
            shared[..., i, j] += entry
            if i != j:
                shared[..., j, i] += entry
        elif i < n:
            border[..., i, :, j - n] += of_points(weighed)
        else:
            entry = of_points(weighed)
            own[..., i - n, j - n] += entry
            if i != j:
                own[..., j - n, i - n] += entry
    of_own = joined([of_points(column * residual)[..., None] for column in there[n:]], -1)
    return Curvature(
        Arrow(shared, border, own), joined([apply(jacobian, residual), flat(of_own)], -1)
    )
