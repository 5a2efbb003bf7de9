"""The diagonal D that says what a long step is: three rules, as in GSL's multifit_nlinear.

References: Levenberg (1944), D = I; Marquardt (1963), D = current column norms of J; Moré (1978),
eq. 6.3, their running maximum, which makes the path independent of the units of the parameters and
never forgets a steep column.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from ..arrays import filled, maximum, where, with_shape_of, with_type_of


class Scaling(Protocol):
    """A rule for D."""

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """D (..., n) from the one before (None: none yet; zeros count as none) and ‖J e_j‖."""


@dataclass(frozen=True)
class More:
    """Running maximum of the column norms: invariant to units; for curve fitting."""

    remembers: ClassVar[bool] = True  # D is the largest column norm of all points so far
    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """The larger of the last D and the column norms, entry by entry."""
        return column_norms if scale is None else maximum(scale, column_norms)


@dataclass(frozen=True)
class Levenberg:
    """The identity: parameters are of like size; for networks."""

    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """Ones, whatever the column norms."""
        return filled(column_norms, 1)


@dataclass(frozen=True)
class CurrentNorms:
    """The current column norms: as `More`, but forgets."""

    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """The column norms at this point."""
        return column_norms


@dataclass(frozen=True)
class FixedScale:
    """A fixed D: the inverse of what counts as a long way for each parameter.

    Args:
        scale: (n,), one number, or (b, n) for each problem of a batch; positive.
    """

    scale: Tensor
    arrays: ClassVar[bool] = True

    def take(self, places: Tensor) -> "FixedScale":
        """The fixed D of some problems of a batch, by their numbers (k,)."""
        return FixedScale(self.scale[places]) if self.scale.ndim > 1 else self

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """The fixed D, whatever the column norms."""
        return with_shape_of(with_type_of(self.scale, column_norms), column_norms)


def positive(scale: Tensor) -> Tensor:
    """D with ones where a column of J is zero: any D is good for a parameter without influence.

    Ones are MINPACK's choice.
    """
    return where(scale > 0, scale, 1.0)
