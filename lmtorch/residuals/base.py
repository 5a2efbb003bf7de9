"""What is minimised: residuals as a pure function of the parameters, in parts that can stream.

A residual knows how the flat vector x is made of tensors and hands out *parts*: some of the rows
each, evaluated one after another. A part is a pure function of the parameter tensors; where the
rows belong to independent samples, it also gives the function of a single sample and the samples
themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .._autodiff import Function, Params
from ..losses.base import Bound

T = TypeVar("T")
Through = Callable[[str, Callable[..., Any], Sequence[Tensor]], Any]


@dataclass(frozen=True)
class Part:
    """Some of the rows, as a function of the parameter tensors."""

    function: Function  # params -> (..., m)
    # (other, params) -> other(...), called as the user's function is, at params and on this batch
    run: Callable[[Callable[..., Any], Params], Any]
    batch: int = 0  # leading dimensions of every parameter that are problems of a batch
    # of a batch: (params, *shares) of one problem -> (m,), which `run` calls for all of them
    problem: Callable[..., Tensor] | None = None
    shares: tuple[Tensor, ...] = ()  # of the problems, (b, ...) each
    # whether it is known that `problem` takes no dual numbers of many problems; shared with parts
    # of other problems of the same function
    refused: list[bool] = field(default_factory=list)
    # `LearnedMany`: what is known of evaluations of all problems at once; shared likewise
    learned: Any = None
    # lower and upper sides, as params, outside of which the function is not to be evaluated
    box: tuple[Params, Params] | None = None
    sample: Callable[..., Tensor] | None = None  # (params, *one sample) -> (k,)
    samples: tuple[Tensor, ...] = ()  # (s, ...) each
    random: bool = False  # the function draws random numbers
    kept: tuple[Tensor, ...] = ()  # what it writes to, and must not leave changed
    black_box: bool = False  # no derivatives lead through it
    term: int = 0  # which of several terms the rows belong to
    loss: Bound | None = None  # of these rows, outputs with targets; None: the problem's
    # rows are in so many blocks of equal size, which may be of independent samples
    leading: int | None = None
    whole: bool = True  # there is no other part, of this or another term
    weight: float = 1.0  # rows that each row stands for, where the others are left out
    # (..., n), sizes of the parameters: finite differences take a share of them; None: not known
    sizes: Tensor | None = None
    # the dtype in which rows are computed, where their own does not show it
    precision: torch.dtype | None = None
    # calls a pure function of tensors, named so that it is known again: perhaps a compiled form
    through: Through | None = None
    # of rows that follow the data, `LearnedRows`: what is known of evaluations of some of them
    by_rows: Any = None
    row_data: tuple[Tensor, ...] = ()  # the data of these rows, (rows, ...) each

    def evaluate(self, params: Params) -> Tensor:
        """Residuals (..., m), by a compiled form of the function if there is one."""
        if self.through is None:
            return self.function(params)
        return self.pure("values", lambda *tensors: self.function(tensors), params)

    def pure(self, name: str, function: Callable[..., T], tensors: Sequence[Tensor]) -> T:
        """function(*tensors), tensors in any structure, by its compiled form if there is one.

        Args:
            name: of the function; of the same name are the same functions at other tensors.
            function: depends on nothing that changes but its arguments, the samples of the part and
                what the user's function holds.
            tensors: what it is called with.
        """
        if self.through is None:
            return function(*tensors)
        found: T = self.through(name, function, tensors)
        return found

    @property
    def count(self) -> int | None:
        """How many samples the rows are of; None: there are none."""
        return self.samples[0].shape[0] if self.sample is not None else self.leading


class Residual(Protocol):
    """r(x), evaluated part by part."""

    @property
    def rows(self) -> int:
        """m, of all parts together."""

    def params(self, x: Tensor) -> Params:
        """The flat vector (..., n) as the tensors it is made of."""

    def parts(self) -> Iterable[Part]:
        """The rows, in order."""

    def replay(self) -> AbstractContextManager[None]:
        """Around each evaluation: all of them within a step draw the same random numbers."""

    def take(self, places: Tensor) -> "Residual":
        """The residual of some problems of a batch (b,), by their numbers (k,)."""
