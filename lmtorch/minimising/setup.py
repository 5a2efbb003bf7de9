"""From what was asked and what was found out to the loop's problem, method and starts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import choose
from .._arrays import tensor_of
from .._errors import InputError
from ..choose import Facts, Options
from ..core.bounds import Bounds
from ..core.problem import Problem
from ..damping.scaling import FixedScale
from ..jacobians.base import JacobianSource
from ..jacobians.finite_difference import FiniteDifference
from ..jacobians.given import GivenJacobian
from ..jacobians.ladder import Ladder
from ..losses.linear import Linear
from ..losses.robust import Robust
from ..residuals.probe import Probe
from .blackboxes import looked_at, remembering
from .minimise import block_size
from .opinions import Opinion
from .problems import ProblemsResidual
from .starts import Sampler, sample
from .unknowns import Unknowns
from .user_function import UserFunction

SMALLER = (
    0.1,
    0.01,
)  # of a start at which parameters have no influence: exponents that were too large
DECADES = 2.0  # up and down, by which further starts differ in size from a start that nobody chose
SEED = 0  # of their sizes


class Setup:
    """The problem as the loop takes it.

    Args:
        options: by name or object.
        unknowns: the structure of x0.
        calling: calls the user's function.
        probe: the facts about it.
        bounds: the box of x0.
        n_starts: starts in all.
        sampler: of further starts.
        seed: of the sampler.
        estimate: C of the loss is to be estimated.
        grad: the solution is to carry gradients.
    """

    def __init__(
        self,
        options: Options,
        unknowns: Unknowns,
        calling: UserFunction,
        probe: Probe,
        bounds: Bounds | None,
        n_starts: int,
        sampler: Sampler | None,
        seed: int,
        estimate: bool,
        grad: bool,
    ) -> None:
        calling = calling.in_unit(probe.size) if probe.finite else calling
        self.unit = calling.unit
        scale = min(options.loss_scale * self.unit, choose.LARGEST)
        plain = isinstance(options.loss, str) and options.loss in ("linear", "auto")
        if (
            probe.finite
            and not (plain or estimate)
            and probe.size * self.unit > choose.LARGEST * scale
        ):
            raise InputError(
                f"f_scale={options.loss_scale} is too small for residuals of up to {probe.size:.3g}: in units of it "
                "their squares are no numbers. Choose one nearer to the noise."
            )
        options = replace(options, loss_scale=scale or 1.0)
        self.calling = calling
        self.probe = probe
        self.unknowns = unknowns
        self.starts = n_starts
        self.grad = grad
        self.box = bounds  # of the problems themselves, without their starts
        x, shares = unknowns.start, calling.detached().shares
        if n_starts > 1:
            low, high = bounds or (torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf))
            x = sample(x, low, high, n_starts, sampler, seed)
            shares = tuple(share.repeat(n_starts, *(1,) * (share.ndim - 1)) for share in shares)
            if isinstance(options.scaling, FixedScale) and unknowns.batched:
                places = torch.arange(len(unknowns.start), device=x.device)
                options = replace(options, scaling=options.scaling.take(places.repeat(n_starts)))
            bounds = bounds and Bounds(
                *(side.expand(x.shape).reshape(-1, x.shape[-1]) for side in bounds)
            )
        self.lead = tuple(x.shape[:-1])
        self.x = x.flatten(0, -2) if x.ndim > 1 else x
        count = len(self.x) if self.x.ndim > 1 else 1
        n = x.shape[-1]
        self.block = block_size(probe.rows, n, probe.activations, x, options.memory_limit)
        together = min(count, self.block)
        activations = (probe.activations + 8 * probe.rows) * together
        options = replace(options, jacobian=source_for(options.jacobian, calling, probe))
        residual = remembering(self._residual(shares, bounds), options, calling, probe, self.x)
        source = options.jacobian
        if isinstance(source, FiniteDifference):
            probe, residual = looked_at(residual, source, self.x, probe, options.scaling)
        facts = Facts(n, probe.rows, None, activations, x.dtype, x.device, probe.precision)
        self.plan = choose.plan([facts], options)
        self.estimate = estimate
        self.loss = choose.loss(options)
        if estimate and not isinstance(self.loss, Robust):
            if not isinstance(self.loss, Linear):
                raise InputError(
                    'f_scale="mad" needs a loss that has a scale: a name or a function, not an object.'
                )
            self.estimate = False  # least squares has no scale
        elif estimate and grad and not unknowns.numpy and calling.differentiable():
            raise InputError(
                'f_scale="mad" passes no gradients to the data: C changes with them, by the median residual. Estimate '
                "it without (torch.no_grad(), or .detach() of the data), then give the number that was probe."
            )
        wide = bounds and Bounds(*(side.to(self.plan.dtype) for side in bounds))
        self.problem = Problem(
            residual,
            Ladder(self.plan.terms[0].rungs),
            self.plan.method.solver.form,
            self.loss,
            self.plan.dtype,
            bounds=wide,
            differences=self.plan.differences,
            precision=probe.precision,
        )

    def _residual(self, shares: tuple[Tensor, ...], bounds: Bounds | None) -> ProblemsResidual:
        """Without the graph that leads to the arguments, of all starts."""
        probe = self.probe
        return ProblemsResidual(
            self.calling.detached().residual,
            self.unknowns.layout,
            shares,
            probe.rows,
            batched=self.x.ndim > 1,
            looped=probe.looped,
            black_box=probe.black_box,
            box=bounds and (bounds.lower, bounds.upper),
        )

    def opinions(self, wanted: bool | int) -> tuple[Opinion, ...]:
        """What is asked about ends that are not sure; a number asks for so many starts of other sizes, too."""
        if wanted is False:
            return ()
        ways = [
            Opinion(other.name, other.method, other.restart) for other in self.plan.alternatives
        ]
        if ways:
            ways += [
                Opinion(
                    f"a start {round(1 / share)} times as small",
                    self.plan.method,
                    False,
                    torch.tensor(share, dtype=torch.float64, device="cpu"),
                    True,
                )
                for share in SMALLER
            ]
        if ways and wanted is not True:
            rng = np.random.default_rng(SEED)
            for factors in 10 ** rng.uniform(-DECADES, DECADES, (wanted, self.x.shape[-1])):
                ways.append(Opinion("another start", self.plan.method, False, tensor_of(factors)))
        return tuple(ways)

    @property
    def ladders(self) -> list[Ladder]:
        """The sources of derivatives, as they stand now."""
        source = self.problem.source
        return [source] if isinstance(source, Ladder) else []

    def bar(self, acceptable: Tensor | None) -> Tensor | None:
        """The largest cost of each problem that is believed, (...,), in the unit of the residuals."""
        return (
            None
            if acceptable is None
            else acceptable.reshape(self.x.shape[:-1]) * self.unit * self.unit
        )

    def with_graph(self) -> ProblemsResidual:
        """The residual that leads to the arguments, of one start for each problem."""
        calling = self.calling
        return ProblemsResidual(
            calling.residual,
            self.unknowns.layout,
            calling.shares,
            self.probe.rows,
            batched=self.unknowns.batched,
            looped=self.probe.looped,
        )


def source_for(
    asked: str | JacobianSource | Callable[..., Any], calling: UserFunction, probe: Probe
) -> str | JacobianSource:
    """The source of derivatives, now that the function is known."""
    if isinstance(asked, FiniteDifference) and not probe.black_box:
        return "auto"
    if isinstance(asked, str | JacobianSource):
        return asked
    return GivenJacobian(calling.jacobian(asked))
