"""The drop-in optimizer: gathers a problem from a training loop, runs one step of the loop, writes the result back."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .. import choose
from .._advice import Batches, of_derivatives, of_rate
from .._checks import count
from .._errors import InputError
from .._faces import face
from .._printing import say
from ..choose import Facts, Options, Plan
from ..core.bounds import Bounds
from ..core.loop import descend
from ..core.problem import Problem
from ..core.report import Report
from ..core.state import State
from ..core.termination import Status
from ..damping.base import Damping
from ..damping.scaling import Scaling
from ..jacobians.base import JacobianSource
from ..jacobians.by_term import ByTerm
from ..jacobians.ladder import Ladder
from ..losses.base import Loss
from ..residuals.layout import Layout, real
from ..residuals.probe import Probe
from ..solvers.base import Solver
from .checkpoints import blank_damping, check_loaded, label, moved
from .closure import RowsChangedError, SampleResidual
from .closure_probe import probe_closure, probe_samples, refuse_batch_statistics
from .groups import check_group, check_tensors, check_values, listed, named
from .joint import TermResidual, TermsResidual
from .swap import Swap, TensorSwap, combined
from .terms import Closure, Preparation, Term, as_residual, gathered, shape_of

DOUBLING = 0.25  # gain ratio under which the sample of rows for JᵀJ doubles
PLANS = 16  # shapes remembered
OPTIONS = ("lr", "weight_decay", "lower", "upper")  # of a param group
MISSING: Any = object()  # no closure was passed, not even None


class LevenbergMarquardt(torch.optim.Optimizer):
    """Levenberg–Marquardt as a `torch.optim.Optimizer`: the closure returns residuals instead of a loss.

    Every step linearizes the residuals, solves the damped normal equations and keeps the trial only if the loss
    ½Σr² went down; a refused trial raises the damping and is repeated, at most `max_trials` times. After a failed
    step (all trials refused, NaN, an exception in the closure) the parameters are exactly those from before.

    Without arguments it serves small problems and networks: up to 64 parameters an exact trust region with Moré's
    scaling, by SVD in float64; beyond, Nielsen's damping of the normal equations, whose rows stream
    (docs/choices.md has the rule and its measurements, `explain` what it came to).

    Args:
        params: an `nn.Module`, an iterable of tensors or of (name, tensor) pairs, or param groups (dicts). Give the
            module if you have it: more models can be differentiated when their parameters are swapped in the module.
        lr: factor of the step. Default: 1; less only where a scheduler asks for it.
        weight_decay: w in ½·w·‖θ‖², as rows of the least-squares problem. Default: 0.
        lower: bound on the parameters of a group, a number or a tensor that broadcasts to each. Default: none.
        upper: as `lower`.
        solver: "cholesky", "qr", "svd", "dual" or an object with `factor`. Default: "auto", by shape.
        damping: "trust_region", "nielsen", "marquardt" or an object with `propose`. Default: "auto", by size.
        scaling: "more", "levenberg", "marquardt" or an object with `update`. Default: "auto", by size.
        jacobian: "forward", "reverse", "per_sample", "autograd", "2-point", "3-point" or a function that returns the
            Jacobian, called as the closure is; it goes with one closure, not with several terms. Default: "auto", by
            shape.
        curvature: "full", or "sampled": JᵀJ from a random part of the samples, cost and gradient from all. Default:
            "auto", sampled for networks with many more samples than parameters.
        acceleration: geodesic acceleration of the step, True or False. Default: "auto", for more than 64 parameters
            with the default damping and `curvature` from all samples.
        loss: "linear", "soft_l1", "huber", "cauchy", "arctan", "tukey", "geman_mcclure", "barron", a function
            z → ρ, ρ′, ρ″ of squared scaled residuals, or an object with `cost` and `rescale`.
        loss_scale: residual from which a robust loss counts less, in the units of the residuals. Default: 1.
        ftol: relative decrease of the loss that counts as none. Default: 1e-10, in float32 1e-6.
        xtol: relative length of a step that counts as none. Default: as `ftol`.
        gtol: cosine between residuals and columns of J that counts as a right angle. Default: as `ftol`.
        polish: Gauss–Newton steps at most after convergence, as long as the scaled gradient falls. Default: 60 for
            small problems, otherwise none.
        max_trials: trials of one step at most. Default: 20.
        memory_limit: bytes that one allocation may take. Default: a quarter of what the device has free.
        seed: of the random choice of samples for `curvature`. Default: 0.

    Raises:
        InputError: a parameter list, bound or option that cannot serve. It is also a `ValueError`.

    References: Levenberg (1944); Marquardt (1963); Moré (1978), The Levenberg–Marquardt algorithm: implementation
    and theory; Madsen & Nielsen (2010), Introduction to Optimization and Data Fitting.

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

    _advised = False  # about derivatives that the closure takes by itself
    _warned = False  # of a Jacobian that fell back: once for each optimizer

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
        loss: str | Loss | Callable[..., Any] = "linear",
        loss_scale: float = 1.0,
        ftol: float | None = None,
        xtol: float | None = None,
        gtol: float | None = None,
        polish: int | None = None,
        max_trials: int = 20,
        memory_limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self._module = params if isinstance(params, nn.Module) else None
        self._options = Options(
            solver, damping, scaling, jacobian, curvature, acceleration, loss, loss_scale, ftol, xtol, gtol, polish,
            memory_limit,
        )  # fmt: skip
        self._max_trials = count(max_trials, "max_trials", 1)
        self._seed = count(seed, "seed", 0)
        self._plans: dict[Any, Preparation] = {}
        self._last: Preparation | None = None
        self._report: Report | None = None
        self._batches = Batches()
        of_rate(lr)
        defaults = {"lr": lr, "weight_decay": weight_decay, "lower": lower, "upper": upper}
        super().__init__(listed(params), defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, between steps if need be; the damping is kept.

        Args:
            param_group: "params", and any of "lr", "weight_decay", "lower", "upper".

        Raises:
            InputError: a bound, rate or penalty that cannot serve.
        """
        check_tensors([param_group])
        if isinstance(param_group["params"], nn.Module):
            param_group = {**param_group, "params": list(param_group["params"].named_parameters())}
        if self.param_groups and "param_names" in self.param_groups[0]:
            param_group = named(param_group, len(self.param_groups))
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except InputError:
            self.param_groups.pop()
            raise

    @property
    def status(self) -> Status:
        """Where the minimisation stands after the last step, on the data of that step.

        `status.converged` for a minimum, `status.final` when further steps on the same data gain nothing,
        `status.message` in words.
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
    # an override of another type: torch's closure returns a loss, and step a float; here residuals are tensors, and to
    # read the loss as a float would wait for the device
    def step(self, closure: Closure | Sequence[Any] | None = MISSING, *batch: Any) -> Tensor | None:  # type: ignore[override]
        """One step: linearize, then try until the loss goes down.

        Args:
            closure: returns the residuals (model − data): a tensor of any shape, or a tuple, list or dict of tensors.
                An explicit None takes no step, it prepares the state: so `torch.distributed.checkpoint` calls it. A
                tuple is a term: a closure followed by its batch.
            batch: the closure's arguments, with samples in the first dimension of every tensor. The closure is then
                called with parts of the batch and must return a row of residuals for each sample, which depends on
                that sample alone; rows stream, so that the whole Jacobian is never held. After a term, further terms,
                each with samples of its own: `step((equation, inside), (condition, boundary))`.

        Returns:
            The loss before the step, ½Σr² with robust loss and penalty, a float64 scalar on the device. None if the
            closure is None.

        Raises:
            InputError: there is no closure; what it returned are no residuals, or they depend on no parameter; several
                terms with a function for their Jacobian.
        """
        if closure is MISSING:
            raise InputError(
                "step() needs a closure that returns the residuals: opt.step(lambda: model(x) - y), or "
                "opt.step(lambda x, y: model(x) - y, x, y). Gradients of a loss do not serve Levenberg–Marquardt: "
                "leave out loss.backward(), zero_grad() and GradScaler, and call opt.step(closure) itself."
            )
        if closure is None:
            self._prepare_state()
            return None
        return self._take_step(gathered(closure, batch))

    # ---- the step ------------------------------------------------------------------------------------------------

    def _take_step(self, terms: list[Term]) -> Tensor:
        """Gather, run the loop until a trial is kept, write back."""
        begun = time.perf_counter()
        layout, groups = self._gather()
        swap = self._swap(layout)
        x = layout.flatten()
        known, fresh = self._prepare(layout, swap, terms, x)
        plan, ladders = known.plan, known.ladders
        if not self._advised and any(probe.differentiates for probe in known.probes):
            self._advised = True
            of_derivatives()
        residual = as_residual(layout, swap, terms, known)
        self._batches.look([t.samples.tensors for t in terms if t.samples], residual.rows, layout.n)
        problem = self._problem(layout, groups, known, residual, x)
        try:
            state = descend(
                problem,
                plan.method,
                self._load(layout, plan, x),
                trials=self._max_trials,
                single=True,
            )
        except BaseException as error:
            # nothing was written; what was found out may be wrong: a closure of the same code on other data, or an
            # exception of the closure itself that looked like a source of derivatives that fails
            self._plans.clear()
            if fresh or not isinstance(error, RowsChangedError):
                raise
            return self._take_step(terms)
        failed = state.ended in (Status.NOT_FINITE, Status.REFUSED) and not state.resting
        buffers = (*swap.buffers, *residual.draws.kept)
        if buffers and not failed:
            # evaluations left them as they were; they see one forward pass a step, as in any training loop
            residual.draws.kept = buffers
            with residual.draws(leave=True), torch.enable_grad():
                for term in terms:
                    term.closure(*term.batch)
        residual.draws.finish()
        self._warned = any(ladder.warned for ladder in ladders)
        if not state.resting:  # a schedule at zero teaches nothing about the damping
            self._write(layout, plan, state)
        self._last = known
        seconds = state.seconds._asdict() | {"total": time.perf_counter() - begun}
        self._report = Report(
            state, seconds, ", ".join(dict.fromkeys(repr(ladder.current) for ladder in ladders))
        )
        if plan.share is not None and state.gain < DOUBLING:
            self._kept["share"] = min(1.0, 2 * (self._kept.get("share") or plan.share))
        assert state.trial is not None
        return state.trial.cost

    # ---- gathering -----------------------------------------------------------------------------------------------

    def _gather(self) -> tuple[Layout, list[dict[str, Any]]]:
        """The parameters that are not frozen, and the group of each."""
        tensors: list[Tensor] = []
        names, groups = [], []
        for place, group in enumerate(self.param_groups):
            called = group.get("param_names") or [
                f"group {place}, parameter {i}" for i in range(len(group["params"]))
            ]
            for name, tensor in zip(called, group["params"], strict=True):
                if tensor.requires_grad and not any(
                    tensor is known for known in tensors
                ):  # torch allows it twice
                    check_values(name, tensor)
                    tensors.append(tensor)
                    names.append(name)
                    groups.append(group)
        if not tensors:
            raise InputError(
                "every parameter is frozen. Call requires_grad_() on those that are to be fitted."
            )
        return Layout(tensors, names), groups

    def _swap(self, layout: Layout) -> Swap:
        """Through the module where the parameters are known to be its own."""
        if self._module is None:
            return TensorSwap(layout.tensors)
        names = {id(parameter): name for name, parameter in self._module.named_parameters()}
        return combined(self._module, names, layout.tensors)

    def _prepare(
        self, layout: Layout, swap: Swap, terms: list[Term], x: Tensor
    ) -> tuple[Preparation, bool]:
        """What is known of problems of this shape, and whether it was found out just now."""
        module, given = self._module, self._options.jacobian
        if len(terms) > 1 and callable(given) and not isinstance(given, JacobianSource):
            raise InputError(
                f"a function for the Jacobian goes with one closure, and this step has {len(terms)} terms, of which it "
                "would not know which one is asked for. Pass one closure that returns all residuals and one function "
                "that returns all rows, or choose a source of derivatives by name."
            )
        if (
            module is not None
            and module.training
            and any(term.samples is not None for term in terms)
        ):
            refuse_batch_statistics(module)
        key = (layout.n, x.dtype, x.device, tuple(shape_of(term) for term in terms))
        fresh = key not in self._plans
        if fresh:
            probes = [self._probe(layout, swap, term) for term in terms]
            counts = [None if term.samples is None else term.samples.count for term in terms]
            facts = [
                Facts(
                    layout.n,
                    probe.rows * (count or 1),
                    count,
                    probe.activations,
                    x.dtype,
                    x.device,
                    leading=probe.leading,
                )
                for probe, count in zip(probes, counts, strict=True)
            ]
            plan = choose.plan(facts, self._options)
            if len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = Preparation(
                plan, tuple(probes), tuple(Ladder(term.rungs) for term in plan.terms)
            )
        known = self._plans[key]
        for ladder in known.ladders:
            ladder.warned = self._warned
        return known, fresh

    def _probe(self, layout: Layout, swap: Swap, term: Term) -> Probe:
        """What a closure turns out to be."""
        exact = not callable(self._options.jacobian) and self._options.jacobian not in (
            "2-point",
            "3-point",
        )
        if term.samples is None:
            return probe_closure(layout, swap, term.closure, exact)
        return probe_samples(layout, swap, term.closure, term.samples, exact)

    def _problem(
        self,
        layout: Layout,
        groups: list[dict[str, Any]],
        known: Preparation,
        residual: TermResidual | TermsResidual,
        x: Tensor,
    ) -> Problem:
        """The residual with its loss, penalty, bounds and rates."""
        plan = known.plan
        like = x.new_empty(0, dtype=plan.dtype)

        def vector(option: str, neutral: float, kind: Tensor = like) -> Tensor | None:
            values = [group[option] for group in groups]
            if all(
                value is None or (isinstance(value, int | float) and value == neutral)
                for value in values
            ):
                return None
            return layout.vector(values, neutral, kind).to(like)

        # rounded to the parameters, so that a parameter can lie on its bound
        lower, upper = vector("lower", -math.inf, x), vector("upper", math.inf, x)
        bounds = None
        if lower is not None or upper is not None:
            bounds = Bounds(
                like.new_full((layout.n,), -math.inf) if lower is None else lower,
                like.new_full((layout.n,), math.inf) if upper is None else upper,
            )
        return Problem(
            residual,
            known.ladders[0] if len(known.ladders) == 1 else ByTerm(known.ladders),
            plan.method.solver.form,
            choose.loss(self._options),
            plan.dtype,
            penalty=vector("weight_decay", 0.0),
            bounds=bounds,
            rate=vector("lr", 1.0),
            sample=self._sample(plan, residual),
            differences=plan.differences,
        )

    def _sample(
        self, plan: Plan, residual: TermResidual | TermsResidual
    ) -> SampleResidual | TermsResidual | None:
        """The samples that JᵀJ is made of in this step; None: all."""
        terms = residual.terms if isinstance(residual, TermsResidual) else (residual,)
        share = None if plan.share is None else self._kept.get("share") or plan.share
        if share is None or share >= 1:
            return None
        generator = torch.Generator().manual_seed(self._seed + self._kept.get("step", 0))
        chosen = []
        for term in terms:
            assert isinstance(term, SampleResidual)  # a plan with a share has samples
            count = term.samples.count
            indices = (
                torch.randperm(count, generator=generator, device="cpu")[: math.ceil(share * count)]
                .sort()
                .values
            )
            # not to wait for the device
            chosen.append(
                term.subset(indices.to(term.samples.tensors[0].device, non_blocking=True))
            )
        return TermsResidual(chosen) if len(chosen) > 1 else chosen[0]

    # ---- what is kept between steps ------------------------------------------------------------------------------

    @property
    def _kept(self) -> dict[str, Any]:
        """State that belongs to no parameter, under one, where `torch.optim.LBFGS` keeps its own.

        It is the first that is not frozen: of others torch's checkpoints take none.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        holder = next((p for p in parameters if "step" in self.state.get(p, {})), None)
        if holder is None:
            holder = next((p for p in parameters if p.requires_grad), parameters[0])
        kept: dict[str, Any] = self.state[holder]
        return kept

    def _prepare_state(self) -> None:
        """Before the first step, the state in the shapes that it will have: what a checkpoint is loaded into."""
        if self.state:
            return
        layout, _ = self._gather()
        x = layout.flatten()
        plan = choose.plan(
            [Facts(layout.n, layout.n, layout.n, 0, x.dtype, x.device)], self._options
        )
        like = x.new_empty(0, dtype=plan.dtype)
        self._kept.update(
            step=0, strategy=0, share=0.0, damping=blank_damping(plan.method.damping, like)
        )
        for tensor, scale in zip(layout.tensors, layout.split(x), strict=True):
            self.state[tensor]["scale"] = torch.zeros_like(scale, dtype=plan.dtype)

    def _load(self, layout: Layout, plan: Plan, x: Tensor) -> State:
        """The state of the loop at the parameters, with the damping and scaling of the last step."""
        kept = self._kept
        if not kept.get("step", 0):
            return State(x)
        known = [self.state[t].get("scale") if t in self.state else None for t in layout.tensors]
        scale = None
        if any(part is not None for part in known):
            scale = layout.vector(
                [0.0 if part is None else part for part in known], 0.0, x.to(plan.dtype)
            )
        carried = (
            kept.get("damping") if kept.get("strategy") == label(plan.method.damping) else None
        )
        return State(x, scale=scale, damping=carried)

    def _write(self, layout: Layout, plan: Plan, state: State) -> None:
        """Keep what the next step needs; then the parameters, in one call, so that nothing can come between."""
        assert state.scale is not None
        assert state.status is not None
        kept = self._kept
        kept["step"] = kept.get("step", 0) + 1
        kept.setdefault("share", 0.0)  # none yet
        if (
            state.ended == Status.NOT_FINITE
        ):  # it says nothing of the scale or damping of the next batch
            return
        for tensor, scale in zip(layout.tensors, layout.split(state.scale), strict=True):
            self.state[tensor]["scale"] = scale.clone()
        kept["strategy"] = label(plan.method.damping)
        kept["damping"] = state.damping._asdict()
        torch._foreach_copy_(
            [real(t.detach()) for t in layout.tensors], list(layout.split(state.x))
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where `state_dict` was made, bit for bit.

        Args:
            state_dict: from `state_dict`, possibly of an optimizer on another device.

        Raises:
            InputError: it is the state of another optimizer, or of another model. Nothing is changed then.
        """
        loaded = state_dict

        def notice(_: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
            nonlocal loaded
            check_loaded(state_dict, self.param_groups)
            loaded = state_dict  # as the user's own hooks left it

        def restore(_: torch.optim.Optimizer) -> None:
            # torch casts every tensor of the state to the dtype of its parameter, which rounds a damping in half
            # precision to zero and turns flags into numbers: take the values themselves, on the parameter's device
            saved = chain.from_iterable(group["params"] for group in loaded["param_groups"])
            own = chain.from_iterable(group["params"] for group in self.param_groups)
            for key, parameter in zip(saved, own, strict=True):
                if key in loaded["state"]:
                    self.state[parameter] = moved(loaded["state"][key], parameter.device)
            self._forget()

        last = self.register_load_state_dict_pre_hook(notice)
        first = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()
            first.remove()

    def _forget(self) -> None:
        """Drop what can be found out again."""
        self._plans = {}
        self._last = None
        self._report = None
        self._batches = Batches()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the plans, which name closures of this process."""
        own = {
            name: self.__dict__[name] for name in ("_module", "_options", "_max_trials", "_seed")
        }
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, with nothing planned yet; an option that is newer than the state gets its default."""
        super().__setstate__(state)
        for group in self.param_groups:
            for option in OPTIONS:
                group.setdefault(option, self.defaults[option])
        self._forget()
