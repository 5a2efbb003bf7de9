"""What is to be compiled."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..core.method import Method
from ..core.problem import Problem
from ..jacobians.ladder import Ladder
from .given import Given
from .keys import key_of

ARRAYS = "arrays"  # the kind of device of what runs on NumPy's arrays
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

    def key(self, x: Tensor) -> str:
        """The key of the program for fits x (b, n), by which it is kept in memory and on disk.

        Returns:
            The key.

        Raises:
            NoKeyError: something that the function uses cannot be compared.
        """
        shapes = [(g.shared, tuple(g.tensor.shape[not g.shared :]), g.tensor.dtype)
                  for g in self.given]  # fmt: skip
        return key_of(
            self.alone, self.device, self.method, self.depends, shapes, x.shape[1:], x.dtype
        )

    def of(self, places: Tensor) -> "Recipe":
        """The recipe of some of the fits."""
        given = [g if g.shared else Given(g.tensor[places], False) for g in self.given]
        return self._replace(given=given)
