"""One problem or a batch of independent ones, each with its share of the arguments."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from .._autodiff import Function, Params
from ..arrays import last, take
from ..jacobians.learned_many import LearnedMany
from ..jacobians.learned_rows import LearnedRows
from ..losses.criterion import Bound
from ..residuals.base import Part
from ..residuals.layout import Layout
from .values_at_points import ValuesAtPoints

Call = Callable[..., Tensor]  # (params, *shares) of one problem -> a tensor


@dataclass(frozen=True)
class ProblemsResidual:
    """The residuals r(x) of one problem, (m,), or of b of them, (b, m)."""

    # the residuals (m,) of one problem from its parameters and its share of the arguments
    call: Call
    layout: Layout  # how the x of one problem is made of tensors
    shares: tuple[Tensor, ...]  # arguments that differ between the problems, (b, ...) each
    rows: int  # m
    batched: bool = False  # x is (b, n), not (n,)
    looped: bool = False  # problems are called one after the other, for what `torch.vmap` refuses
    black_box: bool = False  # no derivatives lead through `call`
    # (n,) or (b, n), outside of which `call` is not to be evaluated
    box: tuple[Tensor, Tensor] | None = None
    # (n,) or (b, n), sizes of the parameters: finite differences take a share of them at least
    sizes: Tensor | None = None
    # the dtype in which `call` computes, where its results do not show it
    precision: torch.dtype | None = None
    memory: ValuesAtPoints | None = None  # of a black box, whose points are evaluated once
    numbers: tuple[int, ...] = ()  # of the problems in the memory, where they are looped
    refused: list[bool] = field(default_factory=list)  # see `Part`
    learned: LearnedMany = field(default_factory=LearnedMany)  # see `Part`
    # the residuals of one problem in blocks of rows, where they follow its data; (): all at once
    blocks: tuple[Function, ...] = ()
    places: tuple[slice, ...] = ()  # rows of each block
    by_rows: LearnedRows | None = None  # see `Part`, of the blocks
    row_data: tuple[tuple[Tensor, ...], ...] = ()  # of each block
    loss: Bound | None = None  # of outputs with targets, where they come in blocks

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.layout.split(x)

    def parts(self) -> Iterable[Part]:
        """All rows of all problems at once, or those of one problem in blocks."""
        if self.rows == 0:  # other processes have them
            return ()
        return self._blocks if self.blocks else (self._part,)

    @cached_property
    def _blocks(self) -> tuple[Part, ...]:
        """A part for each block of rows."""
        return tuple(
            replace(
                self._part, function=block, run=partial(_at, block), whole=False,
                loss=self.loss and self.loss.some(rows),
                by_rows=self.by_rows, row_data=data,
            )
            for block, rows, data in zip(
                self.blocks, self.places, self.row_data or [()] * len(self.blocks), strict=True
            )
        )  # fmt: skip

    @cached_property
    def _part(self) -> Part:
        """The only part; to make one costs microseconds, and each evaluation asks for it."""
        box = self.box and (self.layout.split(self.box[0]), self.layout.split(self.box[1]))
        bare = replace(self)  # what a part led back to would stay until cycles are looked for
        return Part(
            bare._function,
            bare._run,
            int(self.batched),
            self.call if self.batched and not self.looped else None,
            self.shares,
            self.refused,
            self.learned if self.batched else None,
            box,
            black_box=self.black_box,
            sizes=self.sizes,
            precision=self.precision,
        )

    @property
    def _function(self) -> Callable[[Params], Tensor]:
        """The residuals of all problems; of a single one without a memory the function itself."""
        if self.batched or self.memory is not None:
            return partial(self._run, self.call)
        return self.call

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor | slice) -> "ProblemsResidual":
        """Some of the problems, with their shares."""
        box = self.box and (_of(self.box[0], places), _of(self.box[1], places))
        shares = tuple(_some(share, places) for share in self.shares)
        memory, numbers = self.memory, self.numbers
        if memory is not None and self.looped:
            numbers = tuple(torch.tensor(numbers)[places].tolist())
        elif memory is not None:  # it has seen these problems only together with the others
            memory = memory.anew()
        sizes = self.sizes if self.sizes is None else _of(self.sizes, places)
        return replace(self, shares=shares, box=box, sizes=sizes, memory=memory, numbers=numbers)

    def last(self) -> "ProblemsResidual":
        """The same with the numbers of all problems side by side in memory, as evaluations run."""
        if not self.batched or self.looped or self.black_box or self.refused:
            return self
        return replace(self, shares=tuple(last(s) if s.ndim > 1 else s for s in self.shares))

    def alone(self, place: int) -> "ProblemsResidual":
        """One problem of a batch by itself, whose x has no batch dimension."""
        shares = tuple(share[place] for share in self.shares)
        return replace(
            self,
            call=partial(_with_shares, self.call, shares),
            shares=(),
            batched=False,
            looped=False,
            box=self.box and (_of(self.box[0], place), _of(self.box[1], place)),
            sizes=self.sizes if self.sizes is None else _of(self.sizes, place),
        )

    @property
    def own(self) -> tuple[Tensor, ...]:
        """The share of the arguments of a problem that is `alone`."""
        call = self.call
        shares: tuple[Tensor, ...] = ()
        if isinstance(call, partial) and call.func is _with_shares:
            _, shares = call.args
        return shares

    def _run(self, function: Callable[..., Any], params: Params) -> Any:
        """What a function (params, *shares) of one problem returns, for all of them."""
        once = _evaluated if self.memory is None else self.memory
        if not self.batched:
            return once(function, 0, params, partial(function, params))
        if self.looped:
            singles = zip(*(t.unbind(0) for t in (*params, *self.shares)), strict=True)
            numbers, n = self.numbers or range(len(params[0])), len(params)
            return torch.stack([
                once(function, number, one[:n], partial(function, one[:n], *one[n:]))
                for number, one in zip(numbers, singles, strict=True)
            ])  # fmt: skip
        return once(function, 0, params, partial(vmap(function), params, *self.shares))


def _with_shares(call: Call, shares: tuple[Tensor, ...], params: Params) -> Tensor:
    """The residuals of one problem, whose share of the arguments is known."""
    return call(params, *shares)


def _at(block: Function, other: Callable[..., Any], params: Params) -> Any:
    """A function of the parameters, with the points of a block; no other knows of them."""
    return block(params) if other is block else other(params)


def _evaluated(function: Any, problem: int, params: Params, make: Callable[[], Any]) -> Any:
    """Evaluate, where there is no memory: it is called as a memory is."""
    return make()


def _some(share: Tensor, places: Tensor | slice) -> Tensor:
    """An argument of some of the problems, in the same order in memory."""
    return share[places] if isinstance(places, slice) else take(share, places)


def _of(side: Tensor, places: Tensor | slice | int) -> Tensor:
    """A bound or size of some of the problems, unless it is the same for all."""
    return side[places] if side.ndim > 1 else side
