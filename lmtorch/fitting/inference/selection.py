"""Some fits of a batch: one by its place, or blocks of them whose Jacobians fit a cache."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ... import _memory
from ..._arrays import tensor_of
from ..._autodiff import ranges
from ..._errors import InputError
from ...core.termination import Status
from ...losses.robust import Robust
from ...minimising.solution import Solution
from ..fitter import Fitter


class Selection(ABC):
    """What follows from the fits of a batch, of which some may be chosen."""

    fitter: Fitter
    solution: Solution
    absolute: bool
    loss: Robust | None
    lead: tuple[int, ...]
    kept: tuple[str, ...] = ()  # attributes that were saved, and are not computed again
    lost: tuple[str, ...] = ()  # what a saved fit came without

    @abstractmethod
    def __init__(
        self, fitter: Fitter, solution: Solution, absolute: bool, loss: Robust | None
    ) -> None:
        """From a fit; `at` makes another one of the same kind."""

    @property
    @abstractmethod
    def u(self) -> Tensor:
        """The variables (..., n)."""

    def keep(self, known: Mapping[str, Any], lost: Sequence[str] = ()) -> Self:
        """Take numbers as they were saved instead of computing them anew, bit for bit.

        Args:
            known: values of attributes, with the batch in front.
            lost: what was not saved, in words for `notes`.

        Returns:
            The inference itself.
        """
        self.kept, self.lost = tuple(known), tuple(lost)
        vars(self).update(known)
        return self

    def at(self, index: tuple[int, ...]) -> Self:
        """One fit of a batch.

        Returns:
            What follows from it alone.

        Raises:
            InputError: there is no such fit.
        """
        inside = len(index) == len(self.lead) and all(
            _is_place(i) and -n <= i < n for i, n in zip(index, self.lead, strict=True)
        )
        if not inside or not self.lead:
            raise InputError(
                f"at({index}) does not name one of {self.lead} fits: it takes a place, whole "
                "numbers from 0, one for each leading dimension of ydata."
            )
        index = tuple(i % n for i, n in zip(index, self.lead, strict=True))
        place, size = int(np.ravel_multi_index(index, self.lead)), math.prod(self.lead)
        parts = {
            key: self._part(key, slice(place, place + 1), size, one=True)
            for key in self.solution
            if key not in ("history", "starts")
        }
        parts |= {"status": Status(int(parts["status"])), "success": bool(parts["success"])}
        start = self.fitter.start[index] if self.fitter.start.ndim > 1 else self.fitter.start
        fitter = replace(self.fitter, data=self.fitter.data.at(index), start=start)
        solution = Solution(history=None, starts=None, **parts)
        one = type(self)(fitter, solution, self.absolute, self.loss)
        return one.keep({key: self._kept(key, place) for key in self.kept}, self.lost)

    def _kept(self, name: str, place: int) -> Any:
        """What was saved of one fit."""
        value, depth = getattr(self, name), len(self.lead)
        if isinstance(value, tuple):
            return type(value)(*(part.flatten(0, depth - 1)[place] for part in value))
        return value.flatten(0, depth - 1)[place]

    def parts(self) -> list[Self]:
        """The fits in blocks whose Jacobians are small; none where one block holds all."""
        total, data = math.prod(self.lead), self.fitter.data
        each = 2 * data.m * self.u.shape[-1] * torch.float64.itemsize
        block = _memory.stream_rows(each, self.u.device, cache=_memory.CACHE_ROWS)
        if total <= block and not self._without_rows():
            return []
        return [self._some(chosen, total) for chosen in ranges(total, block)]

    def _without_rows(self) -> bool:
        """Whether J of all fits together is more than `memory_limit` allows, and can be made."""
        there = "jac" in self.solution  # it is not in a fit that was loaded
        return there and self.solution.waits("jac") and self.solution["jac"] is None

    def _some(self, chosen: slice, total: int) -> Self:
        """Some fits of a batch, whose leading dimensions are flattened."""
        names = ("x", "cost", "fun", "jac", "active_mask", "f_scale")
        solution = Solution({name: self._part(name, chosen, total) for name in names})
        start = self.fitter.start
        start = start if start.ndim == 1 else start.flatten(0, -2)[chosen]
        fitter = replace(self.fitter, data=self.fitter.data.some(chosen), start=start)
        return type(self)(fitter, solution, self.absolute, self.loss)

    def _part(self, name: str, chosen: slice, total: int, *, one: bool = False) -> Any:
        """What the solution has of some fits, or of `one`; what is the same for all stays."""
        if not self.solution.waits(name):
            value: Any = self.solution[name]
            if not (hasattr(value, "__len__") and len(value) == total):
                return value
        part = self.solution.part(name, chosen)
        return part[0] if one else part


def _is_place(value: Any) -> bool:
    """Whether it counts, as integers of Python, NumPy and torch do, and labels do not."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def of_some(solution: Solution, name: str, rows: Tensor) -> Tensor:
    """An entry of some fits of a batch, (k, ...), whether it was kept or is made now."""
    if solution.waits(name):
        return tensor_of(solution.part(name, rows)).detach()
    return tensor_of(solution[name]).detach()[rows]
