"""Errors in x and y: a residual in β and in displacements η of each point.

    F(β, η) = ½ Σ ‖R_i (f(x_i + T_i η_i, β) − y_i)‖² + ½ Σ ‖η_i‖²

T_i T_iᵀ is the covariance of x_i and R_iᵀR_i the inverse of that of y_i, so that all η have
deviation one. The second sum is a quadratic penalty, the problem's prior. In the first, points see
only their own x, so that ∂f_i/∂η_i is the derivative along a displacement τ of all points together:
n + k directions give every block of J, by whatever source of derivatives is at hand.

Reference: Boggs, Byrd & Schnabel (1987).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from ..._autodiff import Function, Params
from ...arrays import arrays_of
from ...jacobians.base import Bends, Block, Workspace, as_block
from ...jacobians.dual_numbers import DualNumbers, bent_vectors, vectors
from ...jacobians.ladder import Ladder
from ...jacobians.latest import POINTS
from ...jacobians.learned import OfFit
from ...linearizations.arrow import Arrow, Curvature, summed
from ...minimising.user_function import UserFunction
from ...residuals.base import Part
from ...rows.columns import Columns
from ...rows.own import OwnRows


@dataclass(frozen=True)
class PointsPart(Part):
    """All rows, and whose they are: what stands for some problems of a batch knows of these."""

    residual: "DisplacementResidual | None" = None


@dataclass(frozen=True)
class DisplacementResidual:
    """r(β, η), the first of the two sums, in one part; of a batch (b,) one for each.

    Attributes:
        calling: the residuals (q·m,) of one problem at (β, τ), called with ηᵀ and its shares.
        shares: arguments that differ between problems, (b, ...) each; (1, ...) of a single one.
        n: parameters.
        points: m.
        predictors: how many numbers x has at each point, k.
        each: how many residuals a point has, q.
        batched: there is a batch.
        looped: its problems are called one after the other, for what `torch.vmap` refuses.
        black_box: no derivatives lead through it.
    """

    calling: UserFunction
    shares: tuple[Tensor, ...]
    n: int
    points: int
    predictors: int
    each: int = 1
    batched: bool = False
    looped: bool = False
    black_box: bool = False

    @property
    def rows(self) -> int:
        """How many residuals there are, q·m."""
        return self.each * self.points

    @property
    def met(self) -> int:
        """How many variables a residual depends on: the shared ones and those of its point."""
        return self.n + self.predictors

    def params(self, x: Tensor) -> Params:
        """β (..., n) and η (..., m, k)."""
        return x[..., : self.n], x[..., self.n :].unflatten(-1, (self.points, self.predictors))

    def parts(self) -> Iterable[Part]:
        """All rows, in one part."""
        yield PointsPart(
            self._function, _run, int(self.batched), black_box=self.black_box, residual=self
        )

    def shifted(self, eta: Tensor) -> Part:
        """The rows as a function of (β, τ), with points displaced by T (η + τ)."""
        run = partial(self._run, eta)
        function = partial(run, self.calling.residual)
        return Part(function, run, int(self.batched), black_box=self.black_box)

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "DisplacementResidual":
        """Some problems of the batch."""
        return replace(self, shares=tuple(share[places] for share in self.shares))

    def with_tau(self, beta: Tensor) -> Tensor:
        """(β, τ) at τ = 0."""
        return torch.cat([beta, beta.new_zeros(*beta.shape[:-1], self.predictors)], -1)

    def _function(self, params: Params) -> Tensor:
        beta, eta = params
        return self._run(eta, self.calling.residual, (self.with_tau(beta),))

    def _run(self, eta: Tensor, function: Callable[..., Any], params: Params) -> Any:
        """What a function (params, ηᵀ, *shares) of one problem returns, for all of them."""
        eta = eta.mT
        if not self.batched:
            return function(params, eta, *(share[0] for share in self.shares))
        if not self.looped:
            return vmap(function)(params, eta, *self.shares)
        singles = zip(*(t.unbind(0) for t in (*params, eta, *self.shares)), strict=True)
        return torch.stack([function(one[:1], *one[1:]) for one in singles])


def _run(other: Callable[..., Any], params: Params) -> Any:
    return other(params)


class OwnColumns:
    """Rows with own columns, from the derivatives in (β, τ).

    Of one problem those of the latest points are remembered, see `jacobians/latest.py`.

    Args:
        inner: takes these derivatives.
        learned: evaluations of this problem that were recorded in earlier fits; None: there are
            none.
    """

    kinds = (OwnRows,)

    def __init__(self, inner: Ladder, learned: OfFit | None = None) -> None:
        self.inner, self.learned = inner, learned
        self._known: dict[tuple[bytes, ...], Block] = {}
        self._residual: DisplacementResidual | None = None  # that they are of

    @property
    def rows_are_cheap(self) -> bool:
        """Whether residuals and rows together cost little more than a plain call by itself."""
        return isinstance(self.inner.current, DualNumbers)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows in one block, from the blocks of the inner source."""
        residual, eta = _of(part), params[1]
        theta, n = residual.with_tau(params[0]), params[0].shape[-1]
        lead = theta.shape[:-1]
        dense = Workspace(lambda rows: workspace(rows).new_empty(*lead, rows, theta.shape[-1]))
        inner = self.inner.blocks(residual.shifted(eta), (theta,), dense)
        found = [(values, rows.dense()) for values, rows in map(as_block, inner)]
        matrix = torch.cat([rows for _, rows in found], -2)
        rows = OwnRows(matrix[..., :n], matrix[..., n:], residual.each)
        yield Block(torch.cat([values for values, _ in found], -1), rows)

    def at_once(self, part: Part, params: Params) -> Block | None:
        """The columns in β and τ, where dual numbers are sure to give them.

        Returns:
            The block; None: it is to be had of `blocks`.

        Raises:
            DescendedError: dual numbers have failed there, and another source is in use now.
        """
        point, residual = _numbers(params), _of(part)
        if residual is not self._residual:  # of other data
            self._known, self._residual = {}, residual
        block = self._known.get(point)
        if block is None:
            theta = residual.with_tau(params[0])
            block = self.inner.columns(residual.shifted(params[1]), (theta,))
            if block is not None:
                self._known[point] = block
                if len(self._known) > POINTS:
                    del self._known[next(iter(self._known))]
        return block

    def saw(self, part: Part, x: Any, found: Any) -> None:
        """Learn from what `at_once` gave at a point, an array: J and r, (n + k + 1, q·m)."""
        if self.learned is not None:
            evaluate = partial(_at, _of(part), vectors)
            self.learned.saw(self.learned.evaluations.first, x, evaluate, found)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals, as the inner source evaluates them."""
        block = None
        if self._known and _of(part) is self._residual:
            block = self._known.get(_numbers(params))
        return self.inner.evaluate(part, params) if block is None else block.residual

    @property
    def curves(self) -> bool:
        """Whether second derivatives are to be had with the first."""
        return self.inner.curves

    def curvature(self, part: Part, params: Params, on_numpy: bool) -> Curvature:
        """JᵀJ + Σ r ∇²r, block by block, and Jᵀr, as tensors or arrays.

        Points see only their own x: so these are sums of their second derivatives in (β, τ).
        Where dual numbers do not give these, reverse mode twice gives the sums.
        """
        residual = _of(part)
        bends = self.bends(residual, params)
        if bends is None or not isinstance(bends.rows, Columns):
            found = by_reverse_mode(part.function, params)
            return arrays_of(found) if on_numpy else found
        columns, values, second = bends.rows.columns, bends.residual, bends.second
        if on_numpy:
            columns, values = arrays_of((columns, values))
            second = {key: arrays_of(bend) for key, bend in second.items()}
        return summed(columns, values, second, residual.each, residual.n)

    def bends(self, residual: DisplacementResidual, params: Params) -> Any:
        """First and second derivatives in (β, τ), of the inner source or, as arrays, replayed."""
        learned, x = self.learned, None
        if learned is not None:
            x = torch.cat([params[0], params[1].flatten()]).numpy()
            rows, n = learned.bent(x), residual.n + residual.predictors
            if rows is not None:
                second = dict(zip(learned.evaluations.second.keys, rows[n + 1 :], strict=True))
                return Bends(rows[n], Columns(tuple(rows[:n])), second)
        found = self.inner.second(residual.shifted(params[1]), (residual.with_tau(params[0]),))
        if learned is not None and found is not None and isinstance(found.rows, Columns):
            known, keys = learned.evaluations.second, tuple(found.second)
            if known.record is None:
                known.keys = keys
            every = torch.stack([*found.rows.above(found.residual), *found.second.values()])
            same = every.numpy() if keys == known.keys else None
            learned.saw(known, x, partial(_at, residual, bent_vectors), same)
        return found

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0, (..., q·m), as the inner source has it."""
        return self.inner.bend(part, params, direction)


def by_reverse_mode(function: Function, params: Params) -> Curvature:
    """JᵀJ + Σ r ∇²r by n + k reverse passes through the gradient, as points see only their own η.

    Args:
        function: the residuals (..., q·m).
        params: β (..., n) and η (..., m, k).

    Returns:
        It, and Jᵀr.

    Raises:
        RuntimeError: the residuals depend on nothing, or an operator has no second derivative.
    """
    with torch.enable_grad():
        beta, eta = twins = tuple(p.detach().requires_grad_() for p in params)
        residual = function(twins)
        if not residual.requires_grad:
            raise RuntimeError("the residuals depend on no variable")

        def slopes(of: Tensor, of_what: Params, keep: bool) -> tuple[Tensor, ...]:
            if not of.requires_grad:
                return tuple(map(torch.zeros_like, of_what))
            return torch.autograd.grad(
                of.sum(), of_what, create_graph=not keep, retain_graph=True, allow_unused=True,
                materialize_grads=True,
            )  # fmt: skip

        of_beta, of_eta = slopes(residual.square() / 2, twins, keep=False)
        rows = [slopes(entry, twins, keep=True) for entry in of_beta.unbind(-1)]
        own = [slopes(entry, (eta,), keep=True)[0] for entry in of_eta.unbind(-1)]
    shared, border = (torch.stack(parts, beta.ndim - 1) for parts in zip(*rows, strict=True))
    blocks = torch.stack(own, -1)
    gradient = torch.cat([of_beta, of_eta.flatten(-2)], -1).detach()
    return Curvature(Arrow((shared + shared.mT) / 2, border, (blocks + blocks.mT) / 2), gradient)


def _at(residual: DisplacementResidual, evaluate: Callable[..., Any], x: Tensor) -> Any:
    """What is evaluated at a point x, with the derivatives in (β, τ)."""
    beta, eta = residual.params(x)
    return evaluate(residual.shifted(eta), (residual.with_tau(beta),))


def _of(part: Part) -> DisplacementResidual:
    """The residual that a part is of."""
    assert isinstance(part, PointsPart)
    assert part.residual is not None
    return part.residual


def _numbers(params: Params) -> tuple[bytes, ...]:
    return tuple([p.numpy(force=True).tobytes() for p in params])
