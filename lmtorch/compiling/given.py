"""What a program reads."""

from typing import NamedTuple

from torch import Tensor


class Given(NamedTuple):
    """A tensor that a problem is made of: of all fits (b, ...), or shared by them."""

    tensor: Tensor
    shared: bool
