"""Curvature as a whole matrix in units of the parameters, with its eigenvalues.

Where points have variables of their own, `linearizations/arrow.py` answers the same questions.
"""

from typing import Any, ClassVar

from torch import Tensor

from ..arrays import (
    all_entries_finite,
    apply,
    diagonal,
    eigh,
    every_entry,
    identity,
    on_numpy,
    spread,
    sqrt,
    transposed,
    where,
)
from ..recording.outside import outside


class Whole:
    """A symmetric matrix of all variables, (..., n, n)."""

    of_all: ClassVar[bool] = True  # its directions are of all variables

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @staticmethod
    def recorded() -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What `recording` notes: attributes, and methods that are called."""
        return ("diagonal", "finite", "zero"), ("between", "scaled", "spectrum")

    def between(self, free: Tensor) -> "Whole":
        """Zero rows and columns outside `free` (..., n)."""
        return Whole(where(free[..., :, None] & free[..., None, :], self.matrix, 0.0))

    @property
    def diagonal(self) -> Tensor:
        """The diagonal, (..., n)."""
        return diagonal(self.matrix)

    def scaled(self, units: Tensor) -> "Whole":
        """U⁻¹ H U⁻¹ for U = diag(units), (..., n)."""
        return Whole(self.matrix / units[..., :, None] / units[..., None, :])

    @property
    def finite(self) -> Tensor:
        """Whether all entries are, (...,)."""
        return all_entries_finite(self.matrix)

    @property
    def zero(self) -> Tensor:
        """Whether all entries are zero, (...,)."""
        return every_entry(self.matrix == 0)

    def spectrum(self, finite: Tensor) -> "WholeSpectrum":
        """Eigenvalues, where the matrix is finite."""
        matrix = self.matrix
        return WholeSpectrum(*eigh(where(spread(spread(finite)), matrix, identity(matrix))))


@outside
def whole(matrix: Any) -> Any:
    """A matrix of all variables as a `Whole`; one that knows its spectrum as it is."""
    return matrix if hasattr(matrix, "spectrum") else Whole(matrix)


class WholeSpectrum:
    """Eigenvalues and eigenvectors.

    Attributes:
        values: rising, (..., n).
        vectors: (..., n, n).
    """

    def __init__(self, values: Tensor, vectors: Tensor) -> None:
        self.values, self.vectors = values, vectors

    @staticmethod
    def recorded() -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What `recording` notes: attributes, and methods that are called."""
        return ("values", "vectors", "every", "lowest"), ("error",)

    @property
    def every(self) -> Tensor:
        """All values that stand in the way of a minimum, where they are negative."""
        return self.values

    @property
    def lowest(self) -> Tensor:
        """The smallest of these, (...,)."""
        # of NumPy's an ellipsis makes an array of no dimension, no number
        return self.values[0] if on_numpy(self.values) else self.values[..., 0]

    def along(self, gradient: Tensor) -> Tensor:
        """The gradient in the coordinates of `every`."""
        return apply(transposed(self.vectors), gradient)

    def error(self, unclear: Tensor) -> Tensor:
        """How far `along` is off for a gradient whose entries are by so much."""
        return sqrt(apply(transposed(self.vectors * self.vectors), unclear * unclear))

    def back(self, coordinates: Tensor) -> Tensor:
        """The step in all variables with these coordinates, which `along` belongs to."""
        return apply(self.vectors, coordinates)
