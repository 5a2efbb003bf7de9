"""What laws are tried on: equations written out, paths of trials, a small network."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from lmtorch.core.linearizing import begin, linearize
from lmtorch.core.loop import attempt
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start, State
from lmtorch.core.termination import Status, Tolerances
from lmtorch.damping.base import Damping, LinearModel
from lmtorch.damping.scaling import More, Scaling
from lmtorch.jacobians.base import JacobianSource, Workspace, as_block
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.ladder import Ladder
from lmtorch.linearizations.base import Linearization, Prior
from lmtorch.losses.linear import Linear
from lmtorch.residuals.base import Part
from lmtorch.residuals.function import FunctionResidual
from lmtorch.rows.matrix import DenseRows
from lmtorch.solvers.base import Solver
from lmtorch.solvers.svd import SVD

from ..problems import CLASSICAL

EPS = torch.finfo(torch.float64).eps
# curved valleys, a singular minimum, and a problem whose parameters differ by five decades
NAMES = ["rosenbrock", "kowalik_osborne", "bard", "freudenstein_roth", "wood", "meyer"]

Params = tuple[Tensor, ...]


class System:
    """r, J, a prior, D and λ, drawn at random; and the same equations written out as one matrix."""

    def __init__(
        self,
        shape: tuple[int, int],
        batch: tuple[int, ...] = (),
        *,
        penalized: bool = False,
        condition: float = 10.0,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*size: int) -> Tensor:
            return torch.randn((*batch, *size), dtype=torch.float64, generator=generator)

        m, n = shape
        u, v = torch.linalg.qr(draw(m, m)).Q, torch.linalg.qr(draw(n, n)).Q
        k = min(m, n)
        singular = torch.logspace(
            0, -torch.log10(torch.tensor(condition)).item(), k, dtype=torch.float64
        )
        self.jacobian = u[..., :k] * singular @ v[..., :k].mT
        self.residual = draw(m)
        self.scale = draw(n).exp()
        self.damping = draw().exp() * 0.1
        self.prior = None
        if penalized:
            root, x = draw(n).exp(), draw(n)
            self.prior = Prior(root, root * x)

    def linearization(self, solver: Solver) -> Linearization:
        """In the form that the solver takes, filled in two blocks where there are two rows."""
        m, n = self.jacobian.shape[-2:]
        accumulator = solver.form.accumulator(
            (*self.residual.shape[:-1], n), m, self.jacobian.new_empty(0)
        )
        for rows in filter(None, (range(m)[: m // 2], range(m)[m // 2 :])):
            block = slice(rows[0], rows[-1] + 1)
            workspace = accumulator.workspace(len(rows))
            workspace.copy_(self.jacobian[..., block, :])
            accumulator.add(self.residual[..., block], DenseRows(workspace))
        return accumulator.finish(self.residual.square().sum(-1) / 2, self.prior)

    @property
    def gradient(self) -> Tensor:
        """Jᵀr with the prior's."""
        gradient = (self.jacobian.mT @ self.residual[..., None])[..., 0]
        return gradient if self.prior is None else gradient + self.prior.root * self.prior.residual

    def matrix(self, damping: Tensor) -> Tensor:
        """JᵀJ + W + λD², (..., n, n)."""
        diagonal = damping[..., None] * self.scale.square()
        if self.prior is not None:
            diagonal = diagonal + self.prior.root.square()
        return self.jacobian.mT @ self.jacobian + torch.diag_embed(diagonal)


def problem_of(fun: Any, x: Tensor, solver: Solver) -> Problem:
    """Plain least squares."""
    return Problem(
        FunctionResidual(fun, x), Ladder([Forward()]), solver.form, Linear(), torch.float64
    )


def path(
    fun: Any,
    x: Tensor,
    damping: Damping,
    *,
    solver: Solver | None = None,
    scaling: Scaling | None = None,
    trials: int = 60,
) -> list[tuple[State, LinearModel, State]]:
    """(before, linear model, after) of every trial."""
    solver = solver or SVD()
    method = Method(solver, damping, scaling or More(), Tolerances(0, 0, 0))
    problem = problem_of(fun, x, solver)
    state, model = begin(problem, method, Start(x))
    history = []
    for _ in range(trials):
        after, _ = attempt(problem, method, state, model)
        history.append((state, model, after))
        if (after.status != Status.RUNNING).all():
            break
        state = after
        if after.trial.accepted.any():
            state, model = linearize(problem, method, after)
        if (state.status != Status.RUNNING).all():
            break
    return history


def start_of(name: str) -> Tensor:
    """In float64."""
    return torch.tensor(CLASSICAL[name].start, dtype=torch.float64)


class Model:
    """A small network on a few samples, k residuals each, and its Jacobian by `jacrev`."""

    def __init__(
        self,
        widths: tuple[int, ...],
        samples: int,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
        unused: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, dtype=dtype), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        self.names = [name for name, _ in self.net.named_parameters()]
        self.params: Params = tuple(p.detach() for p in self.net.parameters())
        if unused:
            self.params += (torch.ones(unused, dtype=dtype),)
        self.inputs = torch.randn(samples, widths[0], dtype=dtype)
        self.targets = torch.randn(samples, widths[-1], dtype=dtype)

    def residual(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Rows (s, k)."""
        twins = dict(zip(self.names, params, strict=False))  # without what is not used
        return functional_call(self.net, twins, (inputs,)) - targets

    def function(self, params: Params) -> Tensor:
        """All rows, flat."""
        return self.residual(params, self.inputs, self.targets).reshape(-1)

    def part(self, sampled: bool = True) -> Part:
        """As the optimizer hands it out, with or without the samples."""

        def run(other: Callable[..., Any], params: Params) -> Any:
            return other(params)

        if not sampled:
            return Part(self.function, run)

        def sample(params: Params, x: Tensor, y: Tensor) -> Tensor:
            return self.residual(params, x[None], y[None]).reshape(-1)

        return Part(self.function, run, sample=sample, samples=(self.inputs, self.targets))

    def jacobian(self) -> Tensor:
        """(m, n), one parameter's columns after the other's."""
        m = self.function(self.params).shape[0]
        return torch.cat([block.reshape(m, -1) for block in jacrev(self.function)(self.params)], 1)


def whole(source: JacobianSource, part: Part, params: Params) -> tuple[Tensor, Tensor]:
    """A source's blocks, put together; what it does not write into the workspace stays NaN."""
    batch, n = params[0].shape[: part.batch], sum(p.shape[part.batch :].numel() for p in params)
    residuals, rows = [], []
    workspace = Workspace(lambda m: params[0].new_full((*batch, m, n), torch.nan))
    for residual, block in map(as_block, source.blocks(part, params, workspace)):
        residuals.append(residual.detach().clone())
        rows.append(block.dense().detach().clone())
    return torch.cat(residuals, -1), torch.cat(rows, -2)
