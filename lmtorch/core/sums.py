"""What blocks of rows are summed up to: all sums over rows end here."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..arrays import arrays_of, on_numpy, tensor_from
from ..jacobians.base import Workspace
from ..linearizations.base import Accumulator
from ..losses.base import Expansion, Loss
from ..rows.base import Rows

T = TypeVar("T")


def total(shares: Sequence[T]) -> T:
    """Sum what rows contribute, tensors or tuples of them."""
    first, several = shares[0], len(shares) > 1
    found: Any = first
    if several and isinstance(first, tuple):
        columns: Any = shares
        found = tuple(total(column) for column in zip(*columns, strict=True))
    elif several:
        tensors: Any = list(shares)
        found = sum(tensors[1:], tensors[0]) if on_numpy(first) else torch.stack(tensors).sum(0)
    return found


def nothing(x: Tensor) -> Tensor:
    """What no rows cost, (...,), for a process that has none."""
    return torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)


class Streamed:
    """What the blocks of rows have been summed up to.

    Args:
        accumulator: of the linear model's form.
        keep: whether r(x) is to be kept.
        on_numpy: whether the loop runs on NumPy's arrays.
    """

    def __init__(self, accumulator: Accumulator, keep: bool, on_numpy: bool) -> None:
        self.accumulator = accumulator
        self.on_numpy = on_numpy
        self.keep = keep
        self.costs: list[Tensor] = []
        self.values: list[Tensor] = []  # r(x) of each part, if it is to be kept

    def cost(self, x: Tensor) -> Tensor:
        """What the rows cost, (...,)."""
        return total(self.costs) if self.costs else nothing(x)

    def _room(self, rows: int) -> Tensor:
        """Where the next block of dense rows is to be written, always a tensor."""
        return tensor_from(self.accumulator.workspace(rows))

    def begin(self, place: int, loss: Loss, weight: float = 1.0) -> None:
        """Blocks of the part that stands at this place follow, with its loss.

        Args:
            place: of the part.
            loss: of its rows.
            weight: rows that each of them stands for in the linear model; costs are their own.
        """
        self.place, self.loss, self.taken, self.weight = place, loss, 0, weight
        together = getattr(loss, "together", 1)
        self.workspace = Workspace(self._room, self.accumulator.kinds, together)

    def add(self, values: Tensor, rows: Rows) -> None:
        """Take the next block of the part."""
        if self.on_numpy:
            values, rows = arrays_of(values), arrays_of(rows)
        place = self.place
        expansion, rows = self.scaled(values, rows)
        self.costs.append(expansion.value)
        residual = expansion.residual
        if self.weight != 1:
            root = torch.full_like(residual, self.weight**0.5)
            residual, rows = residual * root, rows.scaled(root)
        self.accumulator.add(residual, rows)
        if self.keep and place == len(self.values):
            self.values.append(values)
        elif self.keep:
            self.values[place] = torch.cat([self.values[place], values], -1)

    def scaled(self, values: Tensor, rows: Rows) -> tuple[Expansion, Rows]:
        """What the loss makes of the next block of the part, and its rows scaled."""
        loss, begun = self.loss, self.taken
        self.taken += values.shape[-1]
        if hasattr(loss, "some"):
            loss = loss.some(slice(begun, self.taken))
        expansion = loss.expand(values)
        return expansion, expansion.rows(rows)
