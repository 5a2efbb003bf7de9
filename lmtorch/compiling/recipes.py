"""What is to be compiled."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..core.method import Method
from ..core.problem import Problem
from ..jacobians.ladder import Ladder
from .given import Given

Make = Callable[[Sequence[Tensor]], Problem]  # the problem of arguments of one fit, (1, ...)


class Recipe(NamedTuple):
    """What is to be compiled.

    Attributes:
        make: the problem of one fit, (1, ...), from its arguments.
        given: the arguments of all fits.
        method: how each is minimised.
        source: of derivatives, with which the loop would run.
        alone: whether it is for one fit at a time.
        depends: everything that the program depends on beside the shapes of arguments.
        device: the kind of device that it is for.
    """

    make: Make
    given: Sequence[Given]
    method: Method
    depends: Any
    source: Ladder
    alone: bool = False
    device: str = "cpu"

    def of(self, places: Tensor) -> "Recipe":
        """The recipe of some of the fits."""
        given = [g if g.shared else Given(g.tensor[places], False) for g in self.given]
        return self._replace(given=given)
