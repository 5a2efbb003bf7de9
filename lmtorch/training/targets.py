"""The targets of outputs that come in batches: read with the outputs, and forgotten with them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._errors import InputError
from ..losses.base import Expansion
from ..losses.criterion import Bound, Targeted


class RowsChangedError(InputError):
    """An evaluation returned another number of residuals than the one before."""

    rows_changed = True


class Read:
    """The loss of some rows, whose targets are those of the last evaluation.

    Args:
        read: evaluates the closure, where nothing else has done so yet.
        together: outputs of one sample of the batch, which stay in one block.
    """

    def __init__(self, read: Callable[[], Any], together: int) -> None:
        self.read = read
        self.together = together
        self.known: Bound | None = None

    def note(self, result: Any) -> None:
        """Take the targets of a result; they are data, and the same at any parameters."""
        if self.known is None:
            self.known = result.bound()

    @property
    def bound(self) -> Bound:
        """The loss with its targets.

        Raises:
            RowsChangedError: there are none.
        """
        if self.known is None:
            result = self.read()
            if not isinstance(result, Targeted):
                raise RowsChangedError(
                    "the closure returned residuals, and a criterion's outputs before."
                )
            self.note(result)
        assert self.known is not None
        return self.known

    def least(self) -> Tensor:
        """What has to be added to the cost for the usual value."""
        return self.bound.least()

    def some(self, rows: slice) -> Bound:
        """The loss of some of the rows, which are of whole samples."""
        return self.bound.some(rows)

    def cost(self, residual: Tensor) -> Tensor:
        """The cost above the least."""
        return self.bound.cost(residual)

    def expand(self, residual: Tensor) -> Expansion:
        """Cost, slope and root."""
        return self.bound.expand(residual)

    def sloped(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Cost and slope alone."""
        return self.bound.sloped(residual)

    def curvature(self, residual: Tensor) -> Tensor:
        """The exact second derivative in the outputs."""
        return self.bound.curvature(residual)

    def take(self, places: Tensor) -> "Read":
        """The loss itself: there is one problem."""
        return self
