"""What is known of some columns of J beyond their numbers: that they are outer products, as those of a linear layer."""

from typing import NamedTuple

from torch import Tensor


class Outer(NamedTuple):
    """In columns `start` to `start` + p·q the row of residual o of sample s is left[s, o] right[s]ᵀ, flattened."""

    start: int
    left: Tensor  # (s, k, p)
    right: Tensor  # (s, q)
