"""What is fitted in every pixel, as one object that can be sent to another process."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch

from .._errors import InputError, InputTypeError
from ..fitting.models import model_of
from ..models import Model

# pixels that are fitted in one call: it has a price of its own, of some hundred fits
TILE = 2**14


class Named:
    """A function f(x, *p) whose parameters are given names.

    Args:
        function: the user's.
        names: of its parameters.
    """

    def __init__(self, function: Callable[..., Any], names: Sequence[str]) -> None:
        self.function = function
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, kind) for name in ("x_", *names)]
        )

    def __call__(self, x: Any, *values: Any) -> Any:
        """f(x, *p)."""
        return self.function(x, *values)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


@dataclass(frozen=True)
class Task:
    """A fit that is the same for all pixels.

    Attributes:
        func: f(x, *p), with the names of its parameters.
        names: of the parameters.
        reduced: how many dimensions a pixel's data have.
        coords: how many coordinates f takes.
        fields: what the other arrays are, in their order: ("sigma", ""), ("p0", name), ...
        start: p0 by name, where it is a number; the others are arrays, or not given.
        bounds: pairs by name, where both are numbers.
        options: of `curve_fit`.
        skipna: leave out points with NaN, instead of the pixels that have one.
        errors: "raise", "ignore" or "keep".
        tile: dimensions of the parts of a block that are fitted in one call.
        neighbours: whether a second pass follows.
        alone: whether torch gets one thread.
    """

    func: Callable[..., Any]
    names: tuple[str, ...]
    reduced: int
    coords: int
    fields: tuple[tuple[str, str], ...]
    start: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    skipna: bool = True
    errors: str = "ignore"
    tile: tuple[int, ...] = ()
    neighbours: bool = False
    alone: bool = False

    @property
    def box(self) -> dict[str, tuple[float, float]]:
        """Bounds that are numbers: those of a model, and in their place those of the call."""
        own = self.func.bounds if isinstance(self.func, Model) else {}
        return {**own, **self.bounds}

    @property
    def held(self) -> set[str]:
        """The parameters that are fixed, tied, or have equal bounds."""
        fixed = self.options.get("fixed", ())
        held = {fixed} if isinstance(fixed, str) else set(fixed)
        held |= set(self.options.get("ties") or ())
        held |= {name for name, (low, high) in self.box.items() if low == high}
        if isinstance(self.func, Model):
            held |= {*self.func.fixed, *self.func.ties}
        return held

    @property
    def least(self) -> int:
        """Points that a pixel needs at least: as many as there are parameters that vary."""
        held = self.held
        return max(1, len([name for name in self.names if name not in held]))


def names_of(func: Any, names: Sequence[str] | None) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The function with named parameters, and their names.

    Raises:
        InputError: they cannot be told, or func is no function.
    """
    if names is not None:
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list | tuple) or not names or not all(map(_is_name, names)):
            raise InputError(f"param_names={names!r} must be a list of names, ['a', 'b'].")
        if len(set(names)) < len(names):
            raise InputError(f"param_names={names!r} has a name twice.")
        func = Named(func, names)
    if isinstance(func, torch.nn.Module):
        raise InputError(
            "func is a module, whose parameters are tensors: give a function f(x, a, b) of numbers."
        )
    try:
        return func, tuple(model_of(func, None, None, 0).names)
    except InputError as error:
        if names is None and callable(func) and not isinstance(error, InputTypeError):
            raise InputError(
                "the parameters of func cannot be told from its signature: name them, "
                "param_names=['a', 'b']."
            ) from error
        raise


def tile_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Dimensions of the parts that are fitted in one call, as near to a cube as can be.

    They depend on the shape of the whole array, and on nothing else: blocks whose borders are at
    multiples of them are fitted by the same calls as the array without blocks.
    """
    tile = [1] * len(shape)
    while True:
        growing = [i for i, size in enumerate(shape) if tile[i] < size]
        pixels = 1
        for side in tile:
            pixels *= side
        if not growing or pixels >= TILE:
            return tuple(tile)
        # the last of the smallest, which lies closest in memory
        tile[min(reversed(growing), key=lambda i: tile[i])] *= 2


def tiles(shape: Sequence[int], tile: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The places of all tiles of a block."""
    starts = (range(0, size, side) for size, side in zip(shape, tile, strict=True))
    for corner in product(*starts):
        yield tuple(
            slice(begin, min(begin + side, size))
            for begin, side, size in zip(corner, tile, shape, strict=True)
        )


def tile_numbers(
    shape: Sequence[int], tile: Sequence[int], place: Sequence[slice]
) -> list[np.ndarray]:
    """Numbers along each dimension that add up to that of the tile that a pixel lies in.

    Args:
        shape: of the whole array.
        tile: dimensions of a tile.
        place: the pixels that are asked for.
    """
    found, stride = [], 1
    for size, side, part in zip(shape, tile, place, strict=True):
        found.append(stride * (np.arange(size)[part] // side))
        stride *= -(-size // side)
    return found
