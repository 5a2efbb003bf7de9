"""Where an implicit fit may begin: distances to the curve to first order, without moving points.

Far from the curve points may move to another side of it than their own. Where they are, their
distance is to first order

    d_i = f_i / s_i,      s_i² = ‖V_i‖² + c mean ‖V‖²,      V = Tᵀ ∂f/∂x,

a plain function of the parameters (Sampson's). Its derivatives in β come from the second ones of f:

    ∂d_i/∂β = ∂f_i/∂β / s_i − f_i / s_i³ (V_i · ∂V_i/∂β + c mean V · ∂V/∂β).

Reference: Sampson, Fitting conic sections to very scattered data (1982).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..._autodiff import Params
from ..._errors import FallbackWarning
from ..._threads import quiet
from ...arrays import sqrt, tensor_from, zeros
from ...core.bounds import Bounds
from ...core.loop import descend
from ...core.method import Method
from ...core.problem import Problem
from ...core.state import Start
from ...core.termination import Status, Tolerances
from ...jacobians.base import Block, Workspace
from ...losses.linear import Linear
from ...minimising.least_squares import least_squares
from ...residuals.base import Part
from ...residuals.function import FunctionResidual
from ...rows.columns import Columns
from ...rows.matrix import DenseRows

LEAST = 1e-3  # √c: V of a point is taken for no less than this share of the others'


FINE = Tolerances(1e-6, 1e-6, 1e-6)  # along a valley looser ones end anywhere
FEW = 32  # trials; a run that takes more is in a valley, or far away, and wants second opinions


class Distances:
    """The distances of points and their derivatives in β, a source of derivatives for the loop.

    Args:
        raw: the problem with y zero, and with R one for the points that count and zero for others.
        point: β and η; the points stay where η has them.
        n: parameters.
    """

    rows_are_cheap = True  # what they are made of has them already

    def __init__(self, raw: Problem, point: Tensor, n: int) -> None:
        self._raw, self._source = raw.residual, raw.source
        self._n, self._eta = n, point[n:]
        self._last: tuple[bytes, Block] | None = None

    def at_once(self, part: Part, params: Params) -> Block | None:
        """Distances (m,) and their columns at β; None: second derivatives are not to be had."""
        (beta,) = params
        numbers = beta.numpy(force=True).tobytes()
        if self._last is None or self._last[0] != numbers:
            found = self._made(beta)
            if found is None:
                return None
            self._last = numbers, found
        return self._last[1]

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows, in one block."""
        block = self.at_once(part, params)
        assert block is not None
        yield Block(block.residual, DenseRows(block.rows.dense()))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The distances alone."""
        block = self.at_once(part, params)
        assert block is not None
        return block.residual

    def values(self, beta: Tensor) -> Tensor:
        """Distances at β, for the loop's residual."""
        (part,) = self._raw.parts()
        return self.evaluate(part, (beta,))

    def _made(self, beta: Tensor) -> Block | None:
        residual: Any = self._raw
        source: Any = self._source
        bends = source.bends(residual, residual.params(torch.cat([beta, self._eta])))
        if bends is None or not isinstance(bends.rows, Columns):
            return None
        n, f = self._n, bends.residual
        none = zeros(f)
        columns = [none if column is None else column for column in bends.rows.columns]
        own = columns[n:]
        squares = sum((slope * slope for slope in own), start=none)
        size = sqrt(squares + LEAST**2 * squares.mean())
        found = []
        for i, column in enumerate(columns[:n]):
            turned = none
            for k, slope in enumerate(own):
                bend = bends.second.get((i, n + k))
                turned = turned if bend is None else turned + slope * bend
            turned = turned + LEAST**2 * turned.mean()
            found.append(tensor_from(column / size - f / size**3 * turned))
        return Block(tensor_from(f / size), Columns(tuple(found)))


def nearest(
    raw: Problem, method: Method, point: Tensor, n: int, bounds: Bounds | None, trials: int
) -> tuple[Tensor, Tensor | int]:
    """From where to begin with an implicit model of one equation: p0, or where points are near it.

    Args:
        raw: the problem of `Distances`, whose derivatives have been held to a backward pass.
        method: how a fit without errors in x is minimised.
        point: p0, and displacements of the points.
        n: parameters.
        bounds: of these.
        trials: evaluations at most.

    Returns:
        The point, and the evaluations for that.
    """
    distances = Distances(raw, point, n)
    (part,) = raw.residual.parts()
    block = distances.at_once(part, (point[:n],))
    if block is None:
        return _by_differentiating(raw, part, point, n, bounds, trials)
    if not bool(block.residual.isfinite().all()):
        return point, 1
    residual = FunctionResidual(distances.values, point[:n])
    problem = Problem(residual, distances, method.solver.form, Linear(), raw.dtype, bounds=bounds)
    way = replace(method, tolerances=FINE)
    state, told = descend(problem, way, Start(point[:n]), trials=min(FEW, trials))
    if told.ended is None or not Status(told.ended).converged:
        return _by_differentiating(raw, part, point, n, bounds, trials)
    return torch.cat([state.x, point[n:]]), 1 + state.trials


def _by_differentiating(
    raw: Problem, part: Part, point: Tensor, n: int, bounds: Bounds | None, trials: int
) -> tuple[Tensor, Tensor | int]:
    """The same with second opinions, also for what dual numbers do not differentiate twice."""
    residual: Any = raw.residual
    eta = residual.params(point)[1]

    def apart(u: Tensor) -> Tensor:
        pulled: Any = torch.func.vjp(lambda eta: part.function((u, eta)), eta)
        f, pull = pulled
        squares = pull(torch.ones_like(f))[0].square().sum(-1)
        return f / (squares + LEAST**2 * squares.mean()).sqrt()

    if not bool(apart(point[:n]).isfinite().all()):
        return point, 1
    with quiet(FallbackWarning):
        found = least_squares(
            apart, point[:n], bounds=(-torch.inf, torch.inf) if bounds is None else tuple(bounds),
            max_nfev=trials, polish=0,
        )  # fmt: skip
    here, there = (float(apart(u).square().sum()) for u in (point[:n], found.x))
    other = torch.cat([found.x.detach(), point[n:]])
    return (other if there < here else point), 1 + int(found.nfev)
