"""One problem or a batch of independent ones, each with its share of the arguments, called as `torch.vmap` would."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from .._autodiff import Params
from .base import Part
from .layout import Layout

Call = Callable[..., Tensor]  # (params, *shares) of one problem -> a tensor


@dataclass(frozen=True)
class ProblemsResidual:
    """r(x) of one problem, (m,), or of b of them, (b, m)."""

    call: Call  # the residuals (m,) of one problem from its parameters and its share of the arguments
    layout: Layout  # how the x of one problem is made of tensors
    shares: tuple[Tensor, ...]  # arguments that differ between the problems, (b, ...) each
    rows: int  # m
    batched: bool = False  # x is (b, n), not (n,)
    looped: bool = False  # problems are called one after the other, for what `torch.vmap` refuses
    black_box: bool = False  # no derivatives lead through `call`
    box: tuple[Tensor, Tensor] | None = None  # (n,) or (b, n), outside of which `call` is not to be evaluated

    def params(self, x: Tensor) -> Params:
        """Views of x."""
        return self.layout.split(x)

    def parts(self) -> Iterable[Part]:
        """All rows of all problems at once."""
        box = self.box and (self.layout.split(self.box[0]), self.layout.split(self.box[1]))
        yield Part(
            lambda params: self._run(self.call, params), self._run, int(self.batched), box, black_box=self.black_box
        )

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "ProblemsResidual":
        """Some of the problems, with their shares."""
        box = self.box and (_of(self.box[0], places), _of(self.box[1], places))
        shares = tuple(share[places] for share in self.shares)
        return replace(self, shares=shares, box=box)

    def _run(self, function: Callable[..., Any], params: Params) -> Any:
        if not self.batched:
            return function(params)
        if self.looped:
            singles = zip(*(t.unbind(0) for t in (*params, *self.shares)), strict=True)
            return torch.stack([function(one[: len(params)], *one[len(params) :]) for one in singles])
        return vmap(function)(params, *self.shares)


def _of(side: Tensor, places: Tensor) -> Tensor:
    return side[places] if side.ndim > 1 else side
