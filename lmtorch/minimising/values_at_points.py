"""Remembers what a black box has returned: one evaluation a point, however often it is asked."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params


class ValuesAtPoints:
    """Values of functions at the first points, where every further run begins, and at the latest.

    Args:
        first: values of each function and problem that are kept for ever.
        latest: further ones, of which those that were not asked for the longest make room.
    """

    def __init__(self, first: int, latest: int) -> None:
        self.first, self.latest = first, latest
        self.kept: dict[tuple[Any, int], tuple[dict[bytes, Tensor], dict[bytes, Tensor]]] = {}

    def __call__(
        self, function: Any, problem: int, params: Params, make: Callable[[], Tensor]
    ) -> Tensor:
        """The value of a function at these very parameters, evaluated now or remembered.

        Args:
            function: whose value it is.
            problem: its number.
            params: where.
            make: evaluates it.
        """
        first, latest = self.kept.setdefault((function, problem), ({}, {}))
        point = b"".join(
            p.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for p in params
        )
        if point in first:
            return first[point]
        value = latest.pop(point, None)
        if value is None:
            value = make().clone()  # it may be a buffer that the function writes into again
        if len(first) < self.first:
            first[point] = value
            return value
        latest[point] = value
        while len(latest) > self.latest:
            del latest[next(iter(latest))]
        return value

    def anew(self) -> "ValuesAtPoints":
        """A memory of the same size that has seen nothing."""
        return ValuesAtPoints(self.first, self.latest)
