"""The optimizer for training loops: gathers a problem, takes one step, writes the result back."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from .. import choose
from .._advice import Batches, of_derivatives, of_not_finite, of_rate, of_strange
from .._autocast import apart_from_autocast
from .._checks import count, flag, to_compile
from .._errors import InputError, RankError
from .._faces import face
from .._printing import say
from ..choose import Facts, Options
from ..choose.docstrings import with_names
from ..core.clock import Clock
from ..core.loop import descend
from ..core.report import Report
from ..core.state import State, Told
from ..core.termination import Status
from ..damping.base import Damping
from ..damping.scaling import Scaling
from ..distributed.processes import Processes, alone
from ..jacobians.base import JacobianSource
from ..losses.base import Loss
from ..residuals.layout import real
from ..solvers.base import Solver
from .checkpoints import values_as_saved
from .compiled import Forms
from .groups import check_group, check_names, check_tensors, has_gradients, listed, named
from .joint import TermResidual, TermsResidual
from .kept import Kept
from .loaders import Loaders, RecountedError
from .not_finite import source_of
from .preparation import Preparation, Preparations
from .ranks import (
    changed,
    counted_anew,
    met,
    name_not_finite,
    plain,
    refuse_sharded,
    spread_buffers,
    spread_first,
    unwrapped,
    warn_if_alone,
)
from .targets import RowsChangedError
from .task import Task, gained_beside_sample, problem_of, residual_of, sample_of
from .terms import Closure, Term, terms_of
from .variables import variables_of

OPTIONS = ("lr", "weight_decay", "lower", "upper")  # of a param group
MISSING: Any = object()  # no closure was passed, not even None
APART = 2**32  # between the seeds of processes, which draw from samples of their own


@with_names
class LevenbergMarquardt(torch.optim.Optimizer):
    """Levenberg–Marquardt as a `torch.optim.Optimizer`: the closure returns residuals.

    Every step linearizes the residuals, solves the damped normal equations and keeps the trial only
    if the loss ½Σr² went down; a refused trial raises the damping and is repeated, at most
    `max_trials` times. After a failed step (all trials refused, NaN, an exception in the closure)
    the parameters are exactly those from before.

    Without arguments it suits small problems and networks: up to 64 parameters an exact trust
    region with Moré's scaling, by SVD in float64; beyond, Nielsen's damping of the normal
    equations, whose rows stream (docs/choices.md has the rule and its measurements, `explain` what
    it came to).

    Args:
        params: an `nn.Module`, an iterable of tensors or of (name, tensor) pairs, or param groups
            (dicts). Give the module if you have it: more models can be differentiated when their
            parameters are swapped in the module.
        lr: factor of the step. Default: 1; less only where a scheduler asks for it.
        weight_decay: w in ½·w·‖θ‖², as rows of the least-squares problem. Default: 0.
        lower: bound on the parameters of a group, a number or a tensor that broadcasts to each.
            Default: none.
        upper: as `lower`.
        solver: <SOLVERS> or an object with `factor`. Default: "auto", by shape.
        damping: <DAMPINGS> or an object with `propose`. Default: "auto", by size.
        scaling: <SCALINGS> or an object with `update`. Default: "auto", by size.
        jacobian: <SOURCES> or a function that returns the Jacobian, called as the closure is; it
            goes with one closure, not with several terms. Default: "auto", by shape.
        curvature: "full", or "sampled": JᵀJ from a random part of the samples, cost and gradient
            from all; with solver="dual" residuals and rows of that part alone, the cost from all.
            Default: "auto", sampled for networks with many more samples than parameters, and for
            several terms with fewer rows than parameters, but many.
        acceleration: geodesic acceleration of the step, True or False. Default: "auto", for more
            than 64 parameters with the default damping, where no gradient of all samples goes with
            the `curvature` of some.
        momentum: μ, the share of the last step that a step begins with, from 0 to below 1: of all
            steps that solve the rows as well, the one nearest to μ times the last is taken. It is
            tried once in a step, and a trial that does not lower the loss is repeated without.
            Default: "auto", 0.7 for fewer residuals than parameters where the loss at the start
            shows that the data are not those of the last step, and otherwise none.
        loss: <LOSSES>, a function z → ρ, ρ′, ρ″ of squared scaled residuals, or an object with
            `cost` and `expand`. It is for residuals: criteria have their own.
        loss_scale: residual from which a robust loss counts less, in the units of the residuals.
            Default: 1.
        ftol: relative decrease of the loss that counts as none. Default: 1e-10; in float32 1e-6, or
            1.2e-7 for more than 64 parameters or a loader, where no Hessian is looked at.
        xtol: relative length of a step that counts as none. Default: 1e-10, in float32 1e-6.
        gtol: cosine between residuals and columns of J that counts as a right angle. Default: as
            `xtol`.
        polish: Gauss–Newton steps at most after convergence, as long as the scaled gradient falls.
            Default: 60 for small problems, otherwise none.
        max_trials: trials of one step at most. Default: 20.
        memory_limit: bytes that one allocation may take. Default: a quarter of what the device has
            free.
        precision: of sums over rows and of factors, where parameters are float32 or less: "single",
            float32; "mixed", products in float32 that are added up and factored in float64;
            "double", all of it in float64. Residuals and derivatives are always of the parameters'
            dtype. Default: "auto", double up to 64 parameters, otherwise single
            (docs/numerics.md#precision has what each buys).
        seed: of the random choice of samples for `curvature`. Default: 0.
        compile: True compiles what a step evaluates, the closure and its derivatives, by torch's
            inductor; tensors that the closure holds may change between steps, and where numbers,
            code or modes change it is compiled anew. "auto" does so once an evaluation has taken a
            minute of the run. What cannot be compiled runs as without, with one
            `FallbackWarning`. Default: False.
        process_group: processes that share the data, `torch.distributed.group.WORLD` or another
            group: each passes samples of its own to `step`, and the step is that of all of them.
            All get the parameters and buffers of the first. Default: this process alone.
        progress: show by a bar (needs tqdm) which pass over a loader a step makes, and how far it
            has come: the linear model takes a pass, or two, and every trial one. Of several
            processes the first shows those of its own loader; a step on tensors, which makes no
            passes, shows none. Default: False.

    Raises:
        InputError: a parameter list, bound or option that cannot be used. It is also a
            `ValueError`.

    References: Levenberg (1944); Marquardt (1963); Moré (1978), The Levenberg–Marquardt algorithm:
        implementation and theory; Madsen & Nielsen (2010), Introduction to Optimization and Data
        Fitting.

    Example:
        >>> import torch, lmtorch
        >>> t = torch.linspace(0, 4, 30, dtype=torch.float64)
        >>> y = 2.5 * torch.exp(-1.3 * t)
        >>> theta = torch.ones(2, dtype=torch.float64, requires_grad=True)
        >>> opt = lmtorch.LevenbergMarquardt([theta])
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda: theta[0] * torch.exp(-theta[1] * t) - y)
        >>> [round(value, 6) for value in theta.tolist()]
        [2.5, 1.3]
    """

    _last: Preparation | None = None  # of the last step
    _report: Report | None = None
    _advised = False  # about derivatives that the closure takes by itself
    _strange: tuple[str, ...] = ()  # the module's parameters that no group has, as was said
    _warned = False  # of a Jacobian that fell back: once for each optimizer
    _refused = False  # steps because of NaN: said once for each optimizer
    _compile: bool | str = False
    _processes: Processes | None = None
    _around: tuple[nn.Module, ...] = ()  # DistributedDataParallel

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float | Tensor = 1.0,
        *,
        weight_decay: float = 0.0,
        lower: float | Tensor | None = None,
        upper: float | Tensor | None = None,
        solver: str | Solver = "auto",
        damping: str | Damping = "auto",
        scaling: str | Scaling = "auto",
        jacobian: str | JacobianSource | Callable[..., Any] = "auto",
        curvature: str = "auto",
        acceleration: bool | str = "auto",
        momentum: float | str = "auto",
        loss: str | Loss | Callable[..., Any] = "linear",
        loss_scale: float = 1.0,
        ftol: float | None = None,
        xtol: float | None = None,
        gtol: float | None = None,
        polish: int | None = None,
        max_trials: int = 20,
        memory_limit: int | None = None,
        precision: str = "auto",
        seed: int = 0,
        compile: bool | str = False,
        process_group: Any = None,
        progress: bool = False,
    ) -> None:
        params, self._around = unwrapped(params)
        self._processes = None if process_group is None else Processes(process_group)
        if self._processes is None:
            warn_if_alone(self._around)
        self._module = params if isinstance(params, nn.Module) else None
        self._options = Options(
            solver, damping, scaling, jacobian, curvature, acceleration, loss, loss_scale,
            ftol, xtol, gtol, polish, memory_limit, precision, momentum,
        )  # fmt: skip
        self._max_trials = count(max_trials, "max_trials", 1)
        self._seed = count(seed, "seed", 0)
        self._compile = to_compile(compile)
        self._progress = flag(progress, "progress")
        self._forget()
        of_rate(lr)
        defaults = {"lr": lr, "weight_decay": weight_decay, "lower": lower, "upper": upper}
        super().__init__(listed(params), defaults)
        if self._processes is not None:
            spread_first(self._processes, self.param_groups, self._module)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, between steps if need be; the damping is kept.

        Args:
            param_group: "params", and any of "lr", "weight_decay", "lower", "upper".

        Raises:
            InputError: a bound, rate or penalty that cannot be used, or an option that is one for
                all parameters.
        """
        check_tensors([param_group])
        check_names(param_group, WHOLE)
        if isinstance(param_group["params"], nn.Module):
            param_group = {**param_group, "params": list(param_group["params"].named_parameters())}
        if self.param_groups and "param_names" in self.param_groups[0]:
            param_group = named(param_group, len(self.param_groups))
        super().add_param_group(param_group)
        try:
            added = self.param_groups[-1]["params"]
            refuse_sharded((f"parameter {place}", p) for place, p in enumerate(added))
            check_group(self.param_groups[-1])
        except InputError:
            self.param_groups.pop()
            raise

    @property
    def status(self) -> Status:
        """Where the minimisation stands after the last step, on the data of that step.

        `status.converged` for a minimum, `status.final` when further steps on the same data gain
        nothing, `status.message` in words.
        """
        return Status.RUNNING if self._report is None else self._report.status

    @property
    def converged(self) -> bool:
        """Whether the last step came to a minimum, to the tolerances."""
        return self.status.converged

    @property
    def report(self) -> Report | None:
        """What the last step did; None before the first."""
        return self._report

    def explain(self) -> None:
        """Print what was chosen for the last step and the numbers behind it."""
        if self._last is None:
            text = "nothing is chosen yet: the first step shows the shape of the problem"
        else:
            text = choose.explanation(self._last.plan, self._last.ladders)
        say(text)

    @face
    @torch.no_grad()
    # to read the loss as a float, as torch's step returns it, would wait for the device
    def step(  # type: ignore[override]  # torch's closure returns a loss, this one residuals
        self, closure: Closure | Sequence[Any] | None = MISSING, *batch: Any
    ) -> Tensor | None:
        """One step: linearize, then try until the loss goes down.

        Args:
            closure: returns the residuals (model − data): a tensor of any shape, or a tuple, list
                or dict of tensors; or a criterion's outputs and targets,
                `lmtorch.CrossEntropyLoss()(model(x), y)`. An explicit None takes no step, it
                prepares the state: so `torch.distributed.checkpoint` calls it; with gradients in
                the parameters, as a loop of `backward()` and `step()` leaves them, it is an error.
                A tuple is a term: a
                closure followed by its batch.
            batch: the closure's arguments, with samples in the first dimension of every tensor. The
                closure is then called with parts of the batch and must return a row of residuals
                for each sample, which depends on that sample alone; rows stream, so that the whole
                Jacobian is never held. Or a loader of batches in its place,
                `step(closure, loader)`: a `DataLoader`, a list of batches or any other object that
                can be read again and again. A step then makes a pass over it for each evaluation,
                and keeps nothing of its batches but sums. After a term, further terms, each with
                samples of its own: `step((equation, inside), (condition, boundary))`.

        Returns:
            The loss before the step, ½Σr² with robust loss and penalty, of a criterion its sum over
            the samples, as a float64 scalar on the device. None if the closure is None.

        Raises:
            InputError: there is no closure; what it returned are no residuals, or they depend on no
                parameter; several terms with a function for their Jacobian; a loader yields other
                samples in one pass than in another, or can be read once only. Then, as after any
                other exception, the parameters are those from before.
        """
        if closure is MISSING or (closure is None and has_gradients(self.param_groups)):
            missing = InputError(
                "step() needs a closure that returns the residuals: opt.step(lambda: model(x) - "
                "y), or opt.step(lambda x, y: model(x) - y, x, y). Gradients of a loss do not "
                "help Levenberg–Marquardt: leave out loss.backward(), zero_grad() and GradScaler, "
                "and call opt.step(closure) itself."
            )
            if self._processes is not None:
                self._processes.failed(missing)
            raise missing
        if closure is None:
            self._prepare_state()
            return None
        with apart_from_autocast() as under, plain(self._around), self._loaders.bar:
            if self._processes is None:
                terms = terms_of(closure, batch)
                return self._step(tuple(t._replace(closure=under(t.closure)) for t in terms))
            try:
                terms = terms_of(closure, batch, empty=True)
                return self._step(tuple(t._replace(closure=under(t.closure)) for t in terms))
            except BaseException as error:
                self._processes.failed(error)
                raise

    def _step(self, terms: tuple[Term, ...]) -> Tensor:
        """A step on these terms; the loss before it."""
        begun = time.perf_counter()
        task = self._task(terms)
        self._advise(task)
        ended: tuple[State, Told] | None = None
        recounted = False
        clock = Clock()
        while ended is None:
            try:
                ended = descend(
                    replace(task.problem, clock=clock),
                    task.method,
                    task.start,
                    trials=self._max_trials,
                    single=True,
                )
            except BaseException as error:
                # nothing was written; what was found out may be wrong: an exception of the closure
                # itself may have looked like a source of derivatives that fails
                self._preparations.forget()
                if not isinstance(error, RecountedError):
                    self._loaders.known.clear()
                counted = not recounted and counted_anew(error, self._processes)
                if not (counted or (task.remembered and changed(error))):
                    raise
                recounted |= counted
                task = self._task(terms)  # a closure of the same code on other data: look anew
        (state, told), parts = ended, clock.seconds()
        gained = gained_beside_sample(task.problem, task.start.x, state)
        plan, layout = task.prepared.plan, task.variables.layout
        if self._processes is not None and told.ended == Status.NOT_FINITE:
            self._preparations.forget()
            name_not_finite(self._processes, task.problem, task.start.x)
        if told.ended == Status.NOT_FINITE and not self._refused:
            self._refused = True
            of_not_finite(source_of(task))
        if told.resting or told.ended not in (Status.NOT_FINITE, Status.REFUSED):
            alone(self._processes, "buffers", task.leave_traces)
            spread_buffers(self._processes, task.variables.swap.buffers)
        task.finish()
        self._warned = any(ladder.warned for ladder in task.prepared.ladders)
        if not told.resting:  # a schedule at zero teaches nothing about the damping
            self._kept.keep(layout, plan, state, told, task.start)
            if told.ended != Status.NOT_FINITE:
                # in one call, so that nothing can come between
                parameters = [real(t.detach()) for t in layout.tensors]
                torch._foreach_copy_(parameters, list(layout.split(state.x)))
        self._last = task.prepared
        seconds = parts | {"total": time.perf_counter() - begun}
        least = task.least
        self._report = Report(state, seconds, task.prepared.sources, least)
        self._kept.judge_share(plan, told, task.start, gained, state.changed)
        if state.changed is not None:
            rows, n = task.problem.rows, layout.n
            self._batches.look(state.trial.cost, state.cost, state.changed, rows, n)
        self._forms.tell()
        return state.trial.cost if least is None else state.trial.cost + least

    def _task(self, terms: tuple[Term, ...]) -> Task:
        """What a step on these terms minimises."""
        variables = variables_of(self.param_groups, self._module)
        if variables.strange != self._strange:  # a step on the same module says it once
            self._strange = variables.strange
            if variables.strange:
                of_strange(variables.strange)
        x = variables.layout.flatten()
        across, asked, others = self._processes, terms, tuple[int, ...]()

        def opened() -> tuple[Term, ...]:
            self._preparations.check(asked)
            return tuple(term.opened(x.device, self._loaders) for term in asked)

        terms = alone(across, "terms", opened)
        if across is not None:
            others = met(across, variables, terms, x, self._kept, self._asked(), self._preparations)
        prepared, remembered = self._preparations.of(variables, terms, x, others)
        for ladder in prepared.ladders:
            ladder.warned = self._warned
        through = self._forms.of(variables, terms, prepared.probes)

        def made() -> TermResidual | TermsResidual:
            return residual_of(variables, terms, prepared, through, x, alone=across is None)

        try:
            residual = alone(across, "targets", made)
        except (RowsChangedError, RankError) as error:
            if not (remembered and changed(error)):
                raise
            self._preparations.forget()
            return self._task(terms)
        share, seed = self._kept.share(prepared.plan), self._seed + self._kept.steps
        if across is not None:
            seed += APART * across.rank
        problem = problem_of(
            variables,
            prepared,
            residual,
            x,
            choose.loss(self._options),
            sample_of(residual, share, seed, mixes=prepared.plan.mixes),
            across,
        )
        start = self._kept.start(variables.layout, prepared.plan, x)
        return Task(variables, terms, prepared, remembered, residual, problem, start)

    def _asked(self) -> dict[str, Any]:
        """What steps are asked for, by name; of param groups what each of them has."""
        groups = {name: [group[name] for group in self.param_groups] for name in OPTIONS}
        return {**groups, **vars(self._options), "max_trials": self._max_trials}

    def _advise(self, task: Task) -> None:
        """Warn of habits of first-order training that cost dearly here."""
        if not self._advised and any(probe.differentiates for probe in task.prepared.probes):
            self._advised = True
            of_derivatives()

    @property
    def _kept(self) -> Kept:
        """What is kept between steps, in the state of now: torch replaces it when it loads."""
        return Kept(self.state, self.param_groups)

    def _prepare_state(self) -> None:
        """Give the state the shapes that it will have, which a checkpoint is loaded into."""
        if self.state:
            return
        layout = variables_of(self.param_groups, self._module).layout
        x = layout.flatten()
        facts = Facts(layout.n, layout.n, layout.n, 0, x.dtype, x.device)
        self._kept.prepare(layout, choose.plan([facts], self._options))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where `state_dict` was made, bit for bit.

        Args:
            state_dict: from `state_dict`, possibly of an optimizer on another device.

        Raises:
            InputError: it is the state of another optimizer, or of another model. Nothing is
                changed then.
        """
        with values_as_saved(self, self._forget):
            super().load_state_dict(state_dict)

    def _forget(self) -> None:
        """Begin with nothing found out, nothing done and no batch seen."""
        self._preparations = Preparations(self._options, self._module, self._processes)
        self._last = None
        self._report = None
        self._batches = Batches()
        self._forms = Forms(self._compile)
        first = self._processes is None or self._processes.rank == 0
        self._loaders = Loaders(self._progress and first)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the plans, which name closures of this process."""
        own = {
            name: self.__dict__[name]
            for name in (
                "_module",
                "_options",
                "_max_trials",
                "_seed",
                "_compile",
                "_processes",
                "_around",
                "_progress",
            )
        }
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, with nothing planned yet; an option newer than the state gets its default."""
        super().__setstate__(state)
        for group in self.param_groups:
            for option in OPTIONS:
                group.setdefault(option, self.defaults[option])
        self._forget()


# what is asked for once, and not by group
WHOLE = frozenset(signature(LevenbergMarquardt.__init__).parameters) - {"self", "params", *OPTIONS}
