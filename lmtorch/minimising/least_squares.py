"""`least_squares`: scipy's signature and result, exact derivatives, the optimizer's loop."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .. import choose
from .._autocast import without_autocast
from .._checks import count, flag, to_compile
from .._errors import InputError
from .._faces import face
from .._printing import say
from ..choose import Options
from ..choose.docstrings import with_names
from ..damping.base import Damping
from ..jacobians.base import JacobianSource
from ..losses.base import Loss
from ..solvers.base import Solver
from . import kinds, repeated_compiled, repeated_eager
from .arguments import (
    believed,
    bounds_of,
    check_functions,
    check_scipys,
    dims_of,
    limits,
    real_number,
    refuse_sides,
    scaling_of,
    solver_of,
    source_of,
    tolerances,
)
from .changing import warn_if_changing
from .compiled import Compiling
from .infinite_slopes import by_differences_where_needed
from .minimise import minimise
from .probing import probe
from .ranks import ending_together, probe_together, refuse_batches
from .results import Results
from .run import finish, opinions, set_up
from .solution import Solution
from .starts import Sampler, Starts
from .tables import warn_if_each_against_each
from .unknowns import Unknowns
from .user_function import Calls, UserFunction
from .watch import Watcher, bar_of

# parameters up to which the end of a run is looked at: an eigendecomposition of n × n
CERTIFIED = 512


@face
@without_autocast
@with_names
@by_differences_where_needed
@ending_together
def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    jac: str | Callable[..., Any] | JacobianSource | None = None,
    bounds: Any = (-torch.inf, torch.inf),
    method: str = "auto",
    ftol: float | str | None = "auto",
    xtol: float | str | None = "auto",
    gtol: float | str | None = "auto",
    x_scale: Any = None,
    loss: str | Loss | Callable[..., Any] = "linear",
    f_scale: float | str = 1.0,
    diff_step: Any = None,
    tr_solver: str | None = None,
    tr_options: Mapping[str, Any] | None = None,
    jac_sparsity: Any = None,
    max_nfev: int | None = None,
    verbose: int = 0,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callback: Callable[..., Any] | None = None,
    workers: Any = None,
    *,
    in_dims: Any = None,
    solver: str | Solver = "auto",
    damping: str | Damping = "auto",
    acceleration: bool = False,
    polish: int | None = None,
    second_opinion: bool | int = True,
    acceptable: Any = None,
    names: Sequence[str] | None = None,
    n_starts: int = 1,
    sampler: Sampler | None = None,
    seed: int = 0,
    history: bool = False,
    progress: bool = False,
    memory_limit: int | None = None,
    precision: str = "auto",
    compile: bool | str = False,
    process_group: Any = None,
) -> Solution:
    """Minimise ½ Σ C² ρ((r(x)/C)²) within a box, by Levenberg–Marquardt.

    To come from `scipy.optimize.least_squares`, change the import; docs/least_squares.md lists what
    differs. Write `fun` in torch operations and derivatives are exact. NumPy code is fitted by
    finite differences after a warning.

    Args:
        fun: r(x, *args, **kwargs): residuals (model − data) of any shape, or a tuple, list or dict
            of them. It gets x in the structure of x0, and tensors; or arrays, if it refuses
            tensors. Or criterion(outputs, targets), as `lmtorch.PoissonNLLLoss()(model(x, t), y)`:
            then the criterion is minimised. `cost` is its value, as that of torch's namesake with
            reduction="sum", `fun` are the outputs, and `jac` is such that JᵀJ is its generalised
            Gauss–Newton matrix.
        x0: the start: a number, an array, a tensor of any shape, or a dict, list or tuple of
            tensors. Integers become float64; otherwise dtype and device are those of the fit.
            Without entries there is nothing to fit, and the result is the cost as it is.
        jac: None for exact derivatives where possible, "auto", "forward", "reverse" or "autograd"
            to insist on them, "2-point" or "3-point" for finite differences, or jac(x, *args,
            **kwargs) → (m, n).
        bounds: (lower, upper), each a number, an array of the shape of x0, or a tree like it; or
            `scipy.optimize.Bounds`. Equal bounds fix a variable. Default: none.
        method: scipy's names are accepted and all mean the same loop.
        ftol: stop when the relative decrease of the cost, found and promised, is no more than that;
            None: never. Default: "auto", 1e-10; in float32 1e-6, or 1.2e-7 for more than 64
            parameters.
        xtol: stop when the relative length of a step, ‖D p‖ / ‖D x‖, is no more than that. With
            2-point differences 1.5e-8.
        gtol: stop when the largest cosine between the residuals and a column of J, which has no
            units, is no more than that.
        x_scale: <SCALINGS> or "jac" (scipy's name of "more") for a rule, or an object with
            `update`; or the typical size of each parameter, as bounds are given (in a batch it may
            differ between problems).
            Default: None, the column norms of J where there are few parameters.
        loss: <LOSSES>, a function z → (ρ, ρ′, ρ″) of a vector, such as
            `lmtorch.losses.Barron(alpha)`, or an object with `cost` and `expand`.
        f_scale: C, from which a residual counts as large, in its units; or "mad", estimated in turn
            with the fit from the median absolute residual, for 95 % efficiency on normal noise.
            Default: 1.
        diff_step: step of finite differences relative to the size of the parameter, one number or
            one for each. The size is |x|, but no less than a part of the start.
        tr_solver: "lsmr" means solver="cg" for more than 64 parameters, unless `solver` is given;
            otherwise it is ignored, as `tr_options`, `jac_sparsity` and `workers` are.
        tr_options: ignored.
        jac_sparsity: ignored.
        max_nfev: evaluations of the residuals at most, of all runs together and with the steps
            after convergence, those of finite differences not counted. Default: 1000 for each run,
            and of a black box for all.
        verbose: 0 silent, 1 the end, 2 a row for every iteration.
        args: further arguments of fun and jac.
        kwargs: keyword arguments of both.
        callback: called after every iteration with an `Iterate`; may raise StopIteration to end the
            run.
        workers: ignored.
        in_dims: for many independent problems at once, as in `torch.vmap`: the dimension of x0 and
            of each of `args` that counts problems, None where they share. Every field of the result
            has the batch (b,) in front.
        solver: <SOLVERS> or an object with `factor`. Default: "auto", by shape.
        damping: <DAMPINGS> or an object with `propose`. Default: "auto", by size.
        acceleration: geodesic acceleration of the step. Default: False.
        polish: Gauss–Newton steps at most after convergence. Default: 60 for small problems, of a
            black box only where its end would be in doubt; otherwise none.
        second_opinion: run again in other ways what does not end at a certified minimum, and keep
            the best; a number asks for so many starts of other sizes, too. It has no effect where
            you choose `solver` or `damping`. Default: True.
        acceptable: the largest cost that is believed, one number or one for each problem: above it
            other ways are tried, and what they don't better ends as POOR, no success. Default: any.
        names: of the parameters, one for each entry of the flattened x0, for messages. Default:
            x0[0], x0[1], ...
        n_starts: starts, run as one batch: x0 and points of the box (or about x0 where it is
            infinite). The best is returned, all are in `starts`. Default: 1.
        sampler: (count, generator) → (count, n), further starts of your own, with a NumPy
            generator.
        seed: of that generator. Default: 0.
        history: keep all iterates in `history`.
        progress: show a bar (needs tqdm): of many fits how many are done, how many a second, and
            the share of failures among them; of one its iterations and cost.
        memory_limit: bytes that one allocation may take. Default: a quarter of what the device has
            free.
        precision: of sums over rows and of factors, where x0 is float32 or less: "single", float32;
            "mixed", products in float32 that are added up and factored in float64, with
            solver="cholesky"; "double", all of it in float64. Residuals and derivatives are always
            of the dtype of x0. Default: "auto", double up to 64 parameters, otherwise single
            (docs/numerics.md#precision has what each buys).
        compile: trace fun, and the loop with it, and compile them to machine code, once for all
            fits of the kind, at the price of seconds; "auto": once fits of the kind, of this call
            and of earlier ones, are as much work as that (their last bits change then).
            Needs a C++ compiler, or on a GPU NVRTC, which comes with torch; what cannot be
            compiled runs as ever, after a warning, see docs/least_squares.md. Default: False, no
            machine code; large batches are traced for a program of NumPy's operations.
        process_group: processes that share the rows, `torch.distributed.group.WORLD` or another
            group: fun returns the residuals of its own data on each, and all come to the same
            solution, whose `fun` and `jac` have the rows of this process alone. Default: this
            process alone.

    Returns:
        A `Solution`. Its x carries gradients to tensors in `args` and `kwargs` that require them,
        by the implicit function theorem; so do cost and fun.

    Raises:
        InputError: what was passed cannot be minimised. It is also a `ValueError`.

    References: Moré (1978), The Levenberg–Marquardt algorithm: implementation and theory; Kanzow,
        Yamashita & Fukushima (2004), for bounds; Triggs et al. (2000), for robust losses.

    Example:
        >>> import torch, lmtorch
        >>> def fun(x, t, y):
        ...     return x[0] * torch.exp(-x[1] * t) - y
        >>> t = torch.linspace(0, 4, 30, dtype=torch.float64)
        >>> y = 2.5 * torch.exp(-1.3 * t)
        >>> solution = lmtorch.least_squares(fun, [1.0, 1.0], args=(t, y))
        >>> solution.x.round(6).tolist(), solution.success
        ([2.5, 1.3], True)
        >>> data = torch.stack([y, 2 * y])
        >>> both = lmtorch.least_squares(fun, [1.0, 1.0], args=(t, data), in_dims=(None, None, 0))
        >>> both.x.round(6).tolist()
        [[2.5, 1.3], [5.0, 1.3]]
    """
    compiled = to_compile(compile)
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    calls, kind = Calls(), None
    silent = history is progress is False and type(verbose) is int and verbose == 0
    # of many problems nothing is remembered, and to look at all their starts takes long
    one = in_dims is None or (type(in_dims) is tuple and all(dim is None for dim in in_dims))
    alone = silent and process_group is None and one
    if alone and (kwargs is None or (type(kwargs) is dict and not kwargs)):
        kind = kinds.call_of(
            fun, x0, args,
            (jac, method, ftol, xtol, gtol, x_scale, loss, f_scale, diff_step, max_nfev,
             in_dims, solver, damping, acceleration, polish, second_opinion, n_starts, seed,
             memory_limit, precision, tuple(names) if type(names) is list else names, compiled),
            (tr_solver, tr_options, jac_sparsity, workers, callback, sampler), acceptable, bounds,
        )  # fmt: skip
        if kind and (found := kinds.solved(fun, kind, calls)):
            return found
    check_scipys(method, tr_solver, tr_options, jac_sparsity, workers, verbose)
    check_functions(fun, callback, sampler, kwargs)
    refuse_sides(jac, bounds)
    history, progress = flag(history, "history"), flag(progress, "progress")
    dims = dims_of(in_dims, len(args))
    unknowns = Unknowns(x0, dims[0], UserFunction.count(args, dims[1:]))
    box, names = bounds_of(bounds, unknowns), unknowns.named(names)
    starts = Starts(count(n_starts, "n_starts", 1), sampler, count(seed, "seed", 0))
    source, exact = source_of(jac, diff_step, unknowns)
    if unknowns.layout.n == 0:
        # as in scipy: a success, of one evaluation, with nothing to differentiate in
        starts, source, exact = starts._replace(number=1), "auto", False
    if not isinstance(second_opinion, bool):
        second_opinion = count(second_opinion, "second_opinion", 0)
    lead = (starts.number, *unknowns.start.shape)[starts.number == 1 : -1]
    acceptable = believed(acceptable, lead, unknowns.start.device)
    estimate = isinstance(f_scale, str) and f_scale == "mad"
    ftol, xtol, gtol = tolerances(ftol=ftol, xtol=xtol, gtol=gtol)
    options = Options(
        solver=solver_of(solver, tr_solver, unknowns.layout.n),
        damping=damping,
        scaling=scaling_of(x_scale, unknowns),
        jacobian="auto" if exact is None else source,
        acceleration=acceleration,
        loss=loss,
        loss_scale=1.0 if estimate else real_number(f_scale, "f_scale"),
        polish=polish,
        memory_limit=memory_limit,
        precision=precision,
        certified=CERTIFIED,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
    )
    trials = limits(max_nfev)

    def make(arrays: bool) -> UserFunction:
        return UserFunction(fun, unknowns, args, kwargs or {}, dims[1:], arrays, calls)

    if process_group is None:
        calling, probed = probe(make, exact, box)
        if warn_if_each_against_each(calling, probed, box):
            kind = None  # what is remembered would say nothing
    else:
        refuse_batches(in_dims, starts.number, compiled, exact, f_scale)
        asked = {**vars(options), "max_nfev": max_nfev, "second_opinion": second_opinion}
        calling, probed = probe_together(process_group, make, exact, box, asked)
    if not probed.finite and not unknowns.batched and starts.number == 1:
        raise InputError(
            "the residuals are not finite at the start: NaN or infinity among them. Start "
            "elsewhere, keep the parameters where the model is defined by bounds, or look for NaN "
            "in the data."
        )
    run = set_up(
        options, source, unknowns, calling, probed, box, starts,
        estimate=estimate, gradients=torch.is_grad_enabled() and process_group is None,
        processes=process_group,
    )  # fmt: skip
    others, least = opinions(run, second_opinion), run.least
    results = Results(
        unknowns, run.lead, run.problem.bounds, options.loss_scale,
        names, [other.name for other in others], run.calling.unit, least,
    )  # fmt: skip
    bar = bar_of(len(run.x) if run.batched else None) if progress else None
    table = verbose == 2
    compiling = None
    with (
        Watcher(results.iterate, callback, history=history, table=table, bar=bar) as watcher,
        torch.no_grad(),
    ):
        compiles = compiled or (run.batched and not watcher.sees_all)
        compiling = Compiling(compiled, fun, watcher.sees_all) if compiles else None
        ending = minimise(
            run.problem,
            run.plan.method,
            run.x,
            trials,
            block=len(run.x) if watcher.sees_all else run.block,
            estimate=run.estimate,
            opinions=others,
            # a black box is evaluated n times for each Jacobian, and may be slow: its runs share
            # the default
            in_all=trials if max_nfev is not None or probed.black_box else None,
            acceptable=run.believed(acceptable, least),
            watcher=watcher,
            limit=memory_limit,
            compiling=compiling,
            jacobian=run.keeps_jacobian,
        )
    solution = finish(run, results, ending)
    solution.calls = calls.made
    solution.history = watcher.history
    warn_if_changing(run, ending)
    solution.explained(partial(choose.explanation, run.plan, run.ladders))
    if compiling:
        compiling.count(ending, run.probe.rows)
    # of several starts there are as many runs
    sure = kind and not run.batched and bool(ending.runs == 1 and solution.success)
    if kind and sure and compiling and compiling.program:
        assert compiling.numbers is not None
        program, numbers = compiling.program, compiling.numbers
        repeated_compiled.keep(kind, fun, run, program, numbers, results, trials)
    elif kind and sure and not (compiled is True or run.batched):
        effort = None if compiling is None else compiling.effort
        if compiling is None or not compiling.known:
            repeated_eager.keep(kind, run, results, trials, effort)
    if verbose:
        say(solution.message if isinstance(solution.message, str) else _summary(solution))
    return solution


def _summary(solution: Solution) -> str:
    """How many problems ended how."""
    reasons = solution.reasons
    counts = {reason: reasons.count(reason) for reason in sorted(set(reasons), reverse=True)}
    return "; ".join(
        f"{number} {reason.message.split(':')[0]} ({reason.name})"
        for reason, number in counts.items()
    )
