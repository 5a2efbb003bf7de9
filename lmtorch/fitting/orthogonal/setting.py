"""From a fitter of points with errors in x to the loop's problem: what is minimised, and how."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from ... import choose
from ..._arrays import to_array
from ..._errors import InputError
from ...arrays import arrays_of, quiet, tensors_of
from ...choose import Facts, Options
from ...core.bounds import Bounds
from ...core.method import Method
from ...core.problem import Problem
from ...core.small import of_arrays, small
from ...jacobians.finite_difference import FiniteDifference
from ...jacobians.given import GivenJacobian
from ...jacobians.ladder import Ladder
from ...jacobians.learned import OfFit
from ...linearizations.blocks import Blocks
from ...losses.linear import Linear
from ...minimising.probing import probe
from ...minimising.unknowns import Unknowns
from ...minimising.user_function import UserFunction
from .checks import check_apart, check_given
from .fitter import OrthogonalFitter, Points
from .memory import Kind, Look
from .residual import DisplacementResidual, OwnColumns
from .still import way_of

T = TypeVar("T")


class End(NamedTuple):
    """What is left where a fit has ended."""

    whole: Callable[[], Blocks]  # the linear model with all variables
    values: Tensor  # (..., q·m), its residuals r
    residual: Tensor  # (..., q·m), R r̃
    rows: Tensor  # (..., q·m, n), R G
    gradient: Tensor  # (..., n)

    @classmethod
    def of(cls, model: Blocks, floor: Tensor | float) -> Self:
        """The end at a linear model, with `floor` as of `Blocks.reduced`."""
        dense = model.reduced(floor=floor).dense
        parts = dense.residual, dense.jacobian, dense.gradient
        return cls(partial(tensors_of, model), model.residual, *parts)


class Setting(NamedTuple):
    """What is minimised, how, and from where."""

    problem: Problem
    method: Method
    x: Tensor  # (..., n + m·k)
    shares: tuple[Tensor, ...]
    n: int
    look: Look
    kind: Kind | None  # of fits that were made before
    opened: list[OfFit]  # evaluations that are replayed, to be closed at the end

    def of(self, shares: tuple[Tensor, ...]) -> Problem:
        """The problem with other arguments."""
        residual, source = self.problem.residual, self.problem.source
        assert isinstance(residual, DisplacementResidual)
        assert isinstance(source, OwnColumns)
        return replace(
            self.problem,
            residual=replace(residual, shares=shares),
            source=OwnColumns(source.inner, _learned(self.kind, shares, self.opened)),
        )

    def blocks(self, problem: Problem, x: Tensor) -> Blocks:
        """The linear model at x, on NumPy's arrays where the loop has run on them."""
        if not small(problem, self.method, x):
            model: Any = problem.model(x)
        else:
            with quiet():
                model = tensors_of(of_arrays(problem).model(arrays_of(x)))
        assert isinstance(model, Blocks)
        return model

    def ready(self) -> Problem:
        """The problem as the loop runs on it, which remembers the linear model where that ended."""
        return of_arrays(self.problem) if small(self.problem, self.method, self.x) else self.problem

    def end(self, ready: Problem, x: Tensor) -> End:
        """What is left at x of the linear model without the own variables of points.

        Args:
            ready: on which the loop has run.
            x: where that has ended.

        Returns:
            It.
        """
        if ready.noises is None:
            model: Any = ready.model(x)
            return End.of(model, 1.0)
        with quiet():
            array: Any = ready.model_at_end(arrays_of(x))
            dense = array.condensed
        parts = tensors_of((array.residual, dense.residual, dense.jacobian, dense.gradient))
        return End(partial(tensors_of, array), *parts)

    def distance(self, ready: Problem, x: Tensor) -> Tensor:
        """Σ of the squares that the linear model leaves when points have moved, (...,)."""
        if ready.noises is None:
            model: Any = ready.model(x)
            return model.apart
        with quiet():
            array: Any = ready.model(arrays_of(x))
            return tensors_of(array.apart)


def set_up(
    fitter: OrthogonalFitter,
    u: Tensor,
    points: Points,
    bounds: tuple[Tensor, Tensor],
    kind: Kind | None = None,
) -> Setting:
    """The loop's problem."""
    data, n, k, m = fitter.data, u.shape[-1], fitter.data.predictors, fitter.data.points
    batched, count = u.ndim > 1, len(u) if u.ndim > 1 else 1
    x, spread, y, whitening, eta = (one.detach().expand(count, *one.shape[1:]) for one in points)
    begin = fitter.start.expand(count, -1)
    shares = (x, spread, y, whitening, begin)
    theta = torch.cat([u, u.new_zeros(*u.shape[:-1], k)], -1)
    given = to_array(theta) if data.numpy else theta
    unknowns = Unknowns(given, 0, count) if batched else Unknowns(given)

    def make(arrays: bool) -> UserFunction:
        arguments = (eta.mT, *shares)
        return UserFunction(
            fitter.residual_at, unknowns, arguments, {}, (0,) * len(arguments), arrays
        )

    def box_of(free: int) -> Bounds:
        room = theta.new_full((*bounds[0].shape[:-1], free), math.inf)
        return Bounds(torch.cat([bounds[0], -room], -1), torch.cat([bounds[1], room], -1))

    if kind is None:
        calling, look = _looked(fitter, make, box_of(k), theta, shares, eta, batched=batched)
    else:
        calling, look = make(False), kind.look
        calling.rows = data.each * m
    residual = DisplacementResidual(
        calling.detached(), shares, n, m, k, data.each, batched=batched, looped=look.looped,
        black_box=look.black_box and fitter.jac is None,
    )  # fmt: skip
    start = eta if batched else eta[0]
    point = torch.cat([u, start.flatten(-2)], -1)
    box = box_of(m * k)
    bounded = fitter.bounded
    if bounds is not fitter.bounds:
        bounded = bool((box.lower.isfinite() | box.upper.isfinite()).any())
    inner = Ladder(look.rungs)
    inner.verified = kind is not None
    plan, opened = look.plan, list[OfFit]()
    problem = Problem(
        residual,
        OwnColumns(inner, _learned(kind, shares, opened)),
        plan.method.solver.form,
        Linear(),
        plan.dtype,
        penalty=torch.cat([u.new_zeros(n), u.new_ones(m * k)]).to(plan.dtype),
        bounds=Bounds(*(side.to(plan.dtype) for side in box)) if bounded else None,
        differences=plan.differences,
    )
    return Setting(problem, plan.method, point, shares, n, look, kind, opened)


def _learned(kind: Kind | None, shares: tuple[Tensor, ...], opened: list[OfFit]) -> OfFit | None:
    """The evaluations of a kind that were recorded, with these arguments; None: there are none."""
    if kind is None or not kind.learns:
        return None
    opened.append(kind.moved.of_fit(shares))
    return opened[-1]


def _looked(
    fitter: OrthogonalFitter,
    make: Callable[[bool], UserFunction],
    box: Bounds,
    theta: Tensor,
    shares: tuple[Tensor, ...],
    eta: Tensor,
    *,
    batched: bool,
) -> tuple[UserFunction, Look]:
    """Look at a function that is not known, and plan how it is fitted.

    Returns:
        How it is called, and what was seen.

    Raises:
        InputError: it is no curve whose values depend on their own x alone, its values are not
            finite at the start, or the given derivatives are not its own.
    """
    data, (k, m) = fitter.data, eta.shape[-1:-3:-1]
    first, given = theta[0] if batched else theta, (eta.mT, *shares)
    calling, probed = probe(make, None if fitter.jac is None else False, box)
    if not probed.finite and not batched:
        raise InputError(
            "the residuals are not finite at p0: start elsewhere, or look for NaN in the data."
        )
    if not data.implicit:
        check_apart(calling, first, given, data.each)
    source: str | GivenJacobian | FiniteDifference = "auto"
    if fitter.jac is not None:
        rows = calling.jacobian(fitter.given_rows)
        check_given(fitter, calling, rows, first, given)
        source = GivenJacobian(rows)
    elif probed.black_box:
        source = FiniteDifference()
    ftol, xtol, gtol = fitter.tolerances
    options = Options(
        solver=choose.elimination(k),
        damping="trust_region",
        scaling="more",
        jacobian=source,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
        polish=choose.POLISH,
    )
    count = len(eta)
    facts = Facts(
        first.shape[-1], data.each * m, None, probed.activations * count, theta.dtype, theta.device,
        problems=count, functional=not batched,
    )  # fmt: skip
    plan = choose.plan([facts], options)
    look = Look(
        plan, way_of(plan.method), plan.terms[0].rungs,
        arrays=calling.arrays, looped=probed.looped, black_box=probed.black_box,
    )  # fmt: skip
    return calling, look
