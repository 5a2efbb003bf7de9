"""How the rule of an operator of torch is written: what it is given, and how it is entered."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .expressions import REAL, SINGLE, TRUTH, WHOLE
from .grids import Grid, Grids, kind_of

Rule = Callable[..., Any]


def entering(table: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """What enters rules into a table."""

    def rule(*names: str) -> Callable[[Rule], Rule]:
        """Enter a rule for operators of these names."""

        def enter(function: Rule) -> Rule:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return rule


class Call:
    """One operator of the graph: its arguments as grids, and what its result looks like.

    Args:
        grids: makes grids.
        value: torch's own idea of the result: its shape and dtype.
    """

    def __init__(self, grids: Grids, value: Any) -> None:
        self.grids = grids
        self.make = grids.make
        self.value = value
        if isinstance(value, Tensor):
            self.dtype, self.shape = value.dtype, tuple(value.shape)

    @property
    def kind(self) -> str:
        """The kind of number of the result."""
        return kind_of(self.dtype)

    def grid(self, value: Any, kind: str) -> Grid:
        """An argument, a grid or a number, as a grid of numbers of a kind."""
        if not isinstance(value, Grid):
            entry = np.empty((), dtype=object)
            entry[()] = self.make.constant(value, kind)
            return Grid(entry)
        return self.grids.each(lambda e: self.make.convert(e, kind), value)

    def apply(self, operator: str, *values: Any, kind: str | None = None, to: str = "") -> Grid:
        """An operator of expressions, entry by entry."""
        of, made = kind or self.kind, to or kind or self.kind
        return self.grids.each(
            lambda *e: self.make.apply(operator, *e, kind=made),
            *(
                # a copy is for those who return it
                value if isinstance(value, Grid) and _all_are(value, of) else self.grid(value, of)
                for value in values
            ),
        )


def _all_are(grid: Grid, kind: str) -> bool:
    """Whether all entries are numbers of this kind."""
    return all(entry.kind == kind for entry in grid.entries.flat)


def common(*values: Any) -> str:
    """The kind of number in which values are compared."""
    kinds = [v.entries.flat[0].kind for v in values if isinstance(v, Grid) and v.entries.size]
    for kind in (REAL, SINGLE, WHOLE):
        if kind in kinds:
            if kind == WHOLE and any(isinstance(v, float) for v in values):
                return SINGLE
            return kind
    return TRUTH if all(isinstance(v, Grid | bool) for v in values) else WHOLE
