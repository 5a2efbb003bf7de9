"""The two ends of a minimisation: what the loop is given, and the solution from where it ended."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .. import choose
from .._arrays import tensor_of
from .._errors import InputError
from ..choose import Facts, Options, Plan
from ..choose.agreed import check_same
from ..core.bounds import Bounds
from ..core.problem import Problem
from ..damping.scaling import FixedScale
from ..distributed.processes import Processes
from ..jacobians.base import JacobianSource
from ..jacobians.finite_difference import FiniteDifference
from ..jacobians.given import GivenJacobian
from ..jacobians.ladder import Ladder
from ..jacobians.latest import ENTRIES, Latest
from ..jacobians.learned_many import LearnedMany
from ..linearizations.normal import NormalForm
from ..linearizations.products import ProductsForm
from ..losses.base import Loss
from ..losses.criterion import Bound
from ..losses.linear import Linear
from ..losses.robust import Robust
from ..residuals.probe import Probe
from .blackboxes import looked_at, remembering
from .ending import Ending
from .implicit import attach
from .jacobians_at_end import Jacobians
from .minimise import block_size, together
from .opinions import Opinion
from .problems import ProblemsResidual
from .ranks import facts_together
from .repeated_batches import learned_of
from .results import Results, pick
from .row_blocks import learned_rows, row_blocks, rows_of_blocks
from .solution import Solution
from .starts import Starts, best, sample
from .targets import bound_of, check
from .unknowns import Unknowns
from .user_function import UserFunction

# Where parameters have no influence at a start its exponents may be too large: shares to try of it.
SMALLER = (0.1, 0.01)
# Further starts differ in size from a start that nobody chose by up to so many powers of ten.
DECADES = 2.0
SEED = 0  # seed of the generator that draws these sizes


class Run(NamedTuple):
    """A minimisation that is ready to run."""

    unknowns: Unknowns  # the structure of x0
    calling: UserFunction  # with the graph that leads to its arguments
    probe: Probe
    box: Bounds | None  # of the problems, without their further starts
    x: Tensor  # (n,) or (b, n): every start of every problem
    lead: tuple[int, ...]  # x has these dimensions in front for its user: (starts,), (b,), both
    starts: int  # for each problem
    block: int  # problems that fit the memory together
    plan: Plan
    problem: Problem
    estimate: bool  # C of the loss is estimated in turn with the fit
    gradients: bool  # the solution carries gradients to the arguments
    limit: int | None  # bytes that one allocation may take

    @property
    def batched(self) -> bool:
        """Whether the loop runs on several starts or problems."""
        return self.x.ndim > 1

    @property
    def keeps_jacobian(self) -> bool:
        """Whether J at the end is kept, and not made again where somebody asks for it."""
        residual = self.problem.residual
        if isinstance(residual, ProblemsResidual) and residual.blocks:
            return False
        if self.problem.across is not None:  # of the rows of this process it is made again
            return False
        if not self.batched and isinstance(self.problem.form, ProductsForm):
            return False  # nothing m × n was made on the way, nor is it for the end
        return not self.batched or self.starts > 1 or self.probe.black_box

    @property
    def ladders(self) -> list[Ladder]:
        """The sources of derivatives, as they stand now."""
        source = self.problem.source
        return [source] if isinstance(source, Ladder) else []

    @property
    def least(self) -> Tensor | None:
        """What has to be added to the loop's cost of each start, (...,), for that of a criterion.

        None: there is nothing to add.
        """
        return self.problem.loss.least() if isinstance(self.problem.loss, Bound) else None

    def believed(self, acceptable: Tensor | None, least: Tensor | None) -> Tensor | None:
        """The largest cost of each problem that is believed, (...,), in the loop's terms."""
        if acceptable is None:
            return None
        bar = acceptable.reshape(self.x.shape[:-1])
        if least is not None:
            bar = bar - least
        return bar * self.calling.unit * self.calling.unit


def set_up(
    options: Options,
    source: str | JacobianSource | Callable[..., Any],  # differences, if for a black box alone
    unknowns: Unknowns,
    calling: UserFunction,
    probe: Probe,
    box: Bounds | None,
    starts: Starts,
    *,
    estimate: bool,  # C of the loss
    gradients: bool,  # the solution is to carry them
    processes: Processes | None = None,  # those that share the rows
) -> Run:
    """Make the loop's problem, and plan how to solve it.

    Raises:
        InputError: the loss does not fit the residuals, or what is asked of it.
    """
    if probe.finite and not calling.targeted:  # a likelihood has no unit
        calling = calling.in_unit(probe.size)
    options = _changed(
        options,
        loss_scale=_loss_scale(options, probe, calling.unit, estimate),
        jacobian=_source(source, calling, probe),
    )
    _refuse_losses(calling, options, estimate)
    estimate = _estimated(choose.loss(options), estimate, gradients and _differentiable(calling))
    points, shares, bounds, options = _every_start(unknowns, calling, box, starts, options)
    x = points.flatten(0, -2) if points.ndim > 1 else points
    n, count = x.shape[-1], x.shape[:-1].numel()
    block = block_size(probe.rows, n, probe.activations, x, options.memory_limit)

    residual = ProblemsResidual(
        calling.detached().residual,
        unknowns.layout,
        shares,
        probe.rows,
        batched=x.ndim > 1,
        looped=probe.looped,
        black_box=probe.black_box,
        box=bounds and (bounds.lower, bounds.upper),
        learned=learned_of(calling, x) if x.ndim > 1 and starts.number == 1 else LearnedMany(),
    )
    targets = _targets(calling, probe, x, shares)
    residual = remembering(residual, options, calling, probe, x)
    if isinstance(options.jacobian, FiniteDifference):
        probe, residual = looked_at(residual, options.jacobian, x, probe, options.scaling)

    plain = x.ndim == 1 and not (probe.black_box or estimate) and options.jacobian == "auto"
    if plain and probe.rows * n > choose.DENSE and n <= choose.SMALL:
        blocks = row_blocks(calling.detached(), probe, x, box)
        places = rows_of_blocks(probe.rows, x) if blocks else ()
        learned, data = learned_rows(calling.detached(), probe.rows, x) if blocks else (None, ())
        residual = replace(
            residual, blocks=blocks, places=places, loss=targets, by_rows=learned, row_data=data
        )
    activations = (probe.activations + 8 * probe.rows) * min(count, block)
    facts = Facts(
        n,
        probe.rows,
        None,
        activations,
        x.dtype,
        x.device,
        probe.precision,
        problems=count,
        functional=bool(residual.blocks) or probe.rows * n <= choose.DENSE or n > choose.SMALL,
    )
    counts = None
    if processes is not None:
        facts, options = facts_together(processes, facts, options, x)
        counts = facts.residuals, 0
    plan = choose.plan([facts], options)
    if processes is not None:
        check_same(processes, plan)
    problem = Problem(
        residual,
        # what is known of all rows is not what a block of them asks for
        Ladder(plan.terms[0].rungs)
        if residual.blocks
        else _ladder(plan.terms[0].rungs, x, calling, probe),
        plan.method.solver.form,
        targets or choose.loss(options),
        plan.dtype,
        bounds=bounds and Bounds(*(side.to(plan.dtype) for side in bounds)),
        differences=plan.differences,
        keep=plan.keep,
        precision=probe.precision,
        together=together(probe.rows, x) if plan.method.careful is not None else None,
        ahead=bool(residual.blocks) and isinstance(plan.method.solver.form, NormalForm),
        across=processes,
        counts=counts,
    )
    lead = tuple(points.shape[:-1])
    return Run(
        unknowns, calling, probe, box, x, lead, starts.number, block, plan, problem,
        estimate, gradients, options.memory_limit,
    )  # fmt: skip


def _refuse_losses(calling: UserFunction, options: Options, estimate: bool) -> None:
    """See that no loss of residuals is asked for beside a criterion.

    Raises:
        InputError: one is.
    """
    plain = options.loss in ("linear", "auto") and options.loss_scale == 1.0
    if calling.targeted and (estimate or not plain):
        raise InputError(
            "loss and f_scale are for residuals, and the function returns a criterion's outputs, "
            "which have their own loss. Leave them out."
        )


def _targets(
    calling: UserFunction, probe: Probe, x: Tensor, shares: tuple[Tensor, ...]
) -> Bound | None:
    """The loss of every start of every problem, where the function returns a criterion's outputs.

    Raises:
        InputError: it does not fit the arguments or the start.
    """
    if not calling.targeted:
        return None
    bound = bound_of(calling.detached(), x, shares, looped=probe.looped)
    first = x[0] if x.ndim > 1 else x
    check(calling.detached(), bound.take(0), first)
    return bound


def _changed(options: Options, **values: Any) -> Options:
    """The options with other values; to check them once more takes time where nothing changes."""
    known = {name: getattr(options, name) for name in values}
    if all(known[name] is value or _same(known[name], value) for name, value in values.items()):
        return options
    return replace(options, **values)


def _same(one: Any, other: Any) -> bool:
    """Whether both are the same name or number."""
    return isinstance(one, str | float) and type(one) is type(other) and one == other


def _ladder(
    rungs: Sequence[JacobianSource], x: Tensor, calling: UserFunction, probe: Probe
) -> Ladder:
    """The sources; of a small problem what is asked for twice at a point is remembered."""
    small = x.ndim == 1 and len(x) * probe.rows <= ENTRIES and x.device.type == "cpu"
    if not small or probe.black_box:  # which has a memory of its own
        return Ladder(rungs)
    there = probe.pulled if calling.unit == 1 else None
    return Latest(rungs, there and (calling.unknowns.layout.split(x), there))


def opinions(run: Run, wanted: bool | int) -> tuple[Opinion, ...]:
    """The ways to run again what is not sure; a number asks for as many starts of other sizes."""
    if wanted is False:
        return ()
    method = run.plan.method
    ways = [Opinion(other.name, other.method, other.restart) for other in run.plan.alternatives]
    if not ways:
        return ()
    if method.careful is not None:  # they are few
        method = replace(method, solver=method.careful, careful=None)
    for share in SMALLER:
        name = f"a start {round(1 / share)} times as small"
        ways.append(Opinion(name, method, False, share, of_lost=True))
    if wanted is not True:
        rng = np.random.default_rng(SEED)
        for factors in 10 ** rng.uniform(-DECADES, DECADES, (wanted, run.x.shape[-1])):
            ways.append(Opinion("another start", method, False, tensor_of(factors)))
    return tuple(ways)


def finish(run: Run, results: Results, ending: Ending) -> Solution:
    """The solution of each problem's best start, with the graph that leads to the arguments."""
    every = None
    if run.starts > 1:
        every = results.solution(ending)
        ending = pick(ending, best(ending.state.cost.view(run.lead)))
        results = results.of_best(run.lead[1:], run.box)
    again = None if run.keeps_jacobian or run.x.shape[-1] == 0 else _jacobians(run, ending)
    solution = results.solution(ending, _with_graph(run, ending), again)
    solution.starts = every
    return solution


def _loss_scale(options: Options, probe: Probe, unit: float, estimate: bool) -> float:
    """C of the loss in the unit of the loop's residuals.

    Raises:
        InputError: residuals in units of it cannot be squared.
    """
    scale = min(options.loss_scale * unit, choose.LARGEST)
    plain = isinstance(options.loss, str) and options.loss in ("linear", "auto")
    if not (plain or estimate) and probe.finite and probe.size * unit > choose.LARGEST * scale:
        raise InputError(
            f"f_scale={options.loss_scale} is too small for residuals of up to {probe.size:.3g}: "
            "in units of it their squares are no numbers. Choose one nearer to the noise."
        )
    return scale or 1.0


def _estimated(loss: Loss, wanted: bool, gradients: bool) -> bool:
    """Whether there is a scale to estimate, and it is wanted.

    Raises:
        InputError: the loss has no scale to set, or gradients are to pass through the estimate.
    """
    if not wanted or isinstance(loss, Linear):  # least squares has no scale
        return False
    if not isinstance(loss, Robust):
        raise InputError(
            'f_scale="mad" needs a loss that has a scale: a name or a function, not an object.'
        )
    if gradients:
        raise InputError(
            'f_scale="mad" passes no gradients to the data: C changes with them, by the median '
            "residual. Estimate it without (torch.no_grad(), or .detach() of the data), then give "
            "the number that was found."
        )
    return True


def _every_start(
    unknowns: Unknowns,
    calling: UserFunction,
    box: Bounds | None,
    starts: Starts,
    options: Options,
) -> tuple[Tensor, tuple[Tensor, ...], Bounds | None, Options]:
    """All starts (..., n) with their arguments, bounds and options, as if each were a problem."""
    x, shares = unknowns.start, calling.detached().shares
    if starts.number == 1:
        return x, shares, box, options
    low, high = box or (torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf))
    points = sample(x, low, high, starts)
    shares = tuple(share.repeat(starts.number, *(1,) * (share.ndim - 1)) for share in shares)
    if isinstance(options.scaling, FixedScale) and unknowns.batched:
        places = torch.arange(len(x), device=x.device).repeat(starts.number)
        options = replace(options, scaling=options.scaling.take(places))
    bounds = box and Bounds(*(side.expand(points.shape).reshape(-1, x.shape[-1]) for side in box))
    return points, shares, bounds, options


def _source(
    asked: str | JacobianSource | Callable[..., Any], calling: UserFunction, probe: Probe
) -> str | JacobianSource:
    """The source of derivatives, now that the function is known."""
    if isinstance(asked, FiniteDifference) and not probe.black_box:
        return "auto"
    if isinstance(asked, str | JacobianSource):
        return asked
    return GivenJacobian(calling.jacobian(asked))


def _differentiable(calling: UserFunction) -> bool:
    """Whether the solution is a tensor that can carry gradients to the function's arguments."""
    return not calling.unknowns.numpy and not calling.arrays and calling.differentiable()


def _jacobians(run: Run, ending: Ending) -> Jacobians:
    """What makes J at the end of every problem again."""
    leaves = [*run.calling.leaves, *tree_leaves(run.calling.kwargs), *run.calling.shares]
    written = [(leaf, leaf._version) for leaf in leaves if isinstance(leaf, Tensor)]
    problem = replace(run.problem, loss=_loss_at(run, ending), across=None, counts=None)
    state, unit, limit = ending.state, run.calling.unit, run.limit
    # the solution shows x itself, and the cost where it is of that dtype
    shown = state.cost.dtype == state.x.dtype
    cost = state.cost.clone() if shown else state.cost
    if run.problem.across is not None and ending.residual is not None:
        cost = problem.loss.cost(ending.residual)  # of the rows of this process
    ends = state.x.clone(), cost
    return Jacobians(problem, *ends, unit, run.block, limit, written)


def _loss_at(run: Run, ending: Ending) -> Loss:
    """The loss, with the scale of each problem where that was estimated."""
    loss = run.problem.loss
    if ending.scale is None:
        return loss
    assert isinstance(loss, Robust)
    return Robust(loss.rho, ending.scale)


def _with_graph(run: Run, ending: Ending) -> tuple[Tensor, Tensor, Tensor] | None:
    """x, cost and residuals with a graph that leads to the arguments, if one asks for it."""
    if not run.gradients or not _differentiable(run.calling):
        return None
    graph = ProblemsResidual(
        run.calling.residual,
        run.unknowns.layout,
        run.calling.shares,
        run.probe.rows,
        batched=run.unknowns.batched,
        looped=run.probe.looped,
    )
    loss = _loss_at(run, ending)
    with torch.enable_grad():
        if run.calling.targeted:  # the data are in the targets, too
            loss = bound_of(
                run.calling, ending.state.x, run.calling.shares, looped=run.probe.looped
            )
        x = attach(graph, loss, ending.state.x, ending.free)
        (part,) = graph.parts()
        residual = part.function(graph.params(x))
        return x, loss.cost(residual), residual
