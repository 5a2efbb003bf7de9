"""How the sources and residuals of `members.py` are made, each residual beside its rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.utils._pytree import tree_leaves

from lmtorch.jacobians.base import JacobianSource
from lmtorch.minimising.problems import ProblemsResidual
from lmtorch.residuals.base import Residual
from lmtorch.residuals.function import FunctionResidual
from lmtorch.residuals.layout import Layout
from lmtorch.residuals.replay import Replay
from lmtorch.rows.columns import Columns
from lmtorch.rows.factors import Lookup, Plain, Weight
from lmtorch.rows.layers import LayerBlock, LayerRows
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.outer import Outer, OuterRows
from lmtorch.rows.own import OwnRows
from lmtorch.rows.products import ProductRows
from lmtorch.training.closure import ClosureResidual, SampleResidual
from lmtorch.training.joint import TermsResidual
from lmtorch.training.samples import Samples
from lmtorch.training.swap import ModuleSwap

F64 = torch.float64
Params = tuple[Tensor, ...]
Function = Callable[..., Tensor]  # of the parameters, and of a problem's share of the data


class Source(NamedTuple):
    """A source of derivatives."""

    make: Callable[[int | None, Function], JacobianSource]  # of a chunk and the user's function
    needs_samples: bool = False  # it refuses a part without them
    takes_batches: bool = True  # it serves many problems at once
    digits: float = 1.0  # of those of the dtype, the share to which its derivatives are known


class Case(NamedTuple):
    """A residual beside its rows, computed without it."""

    residual: Residual
    x: Tensor  # (n,), or (b, n)
    rows: Callable[[Tensor], Tensor]  # (..., n) -> (..., m); draws as the residual's parts do
    users: tuple[Callable[..., Any], ...]  # the function of each term, as its user wrote it
    kept: tuple[Tensor, ...] = ()  # the user's tensors, which no evaluation may change
    draws: bool = False  # it draws random numbers


class Failing:
    """Stands before a user's function, and can make it fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.at: int | None = None  # the call that fails, counted from zero

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            result = function(*args)
            self.calls += 1
            if self.at == self.calls - 1:
                raise ZeroDivisionError("the user's function has failed")
            return result

        return called


MakeCase = Callable[[Failing], Case]


def column(*values: float) -> Tensor:
    """A vector in float64, or a number."""
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F64)


def matrix_of(function: Function) -> Callable[..., Tensor]:
    """J (m, n) of a function of tensors, as a user may give it."""

    def jacobian(params: Params, *data: Tensor) -> Tensor:
        blocks = jacrev(function)(params, *data)
        m = blocks[0].shape[0]
        return torch.cat([block.reshape(m, -1) for block in blocks], 1)

    return jacobian


def blocks_of(function: Function) -> Callable[..., Params]:
    """J as a tuple with a tensor (m, *shape) for each parameter."""
    return jacrev(function)


def flat(result: Any) -> Tensor:
    """The numbers of whatever a closure returned."""
    return torch.cat([leaf.reshape(-1) for leaf in tree_leaves(result)])


# ---- functions and problems ----------------------------------------------------------------------

T = torch.linspace(0, 1, 5, dtype=F64)


def decay(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 5)."""
    return x[..., :1] * torch.exp(-x[..., 1:2] * T) + x[..., 2:]


def function(failing: Failing) -> Case:
    fun, x = failing(decay), torch.rand(3, dtype=F64)
    return Case(FunctionResidual(fun, x), x, decay, (fun,))


def function_of_a_batch(failing: Failing) -> Case:
    fun, x = failing(decay), torch.rand(4, 3, dtype=F64)
    return Case(FunctionResidual(fun, x), x, decay, (fun,))


LAYOUT = Layout([torch.zeros(2, dtype=F64), torch.zeros((), dtype=F64)], ["rates", "offset"])


def share_of_a_decay(params: Params, y: Tensor) -> Tensor:
    """(5,) of one problem: its parameters in two tensors, and data of its own."""
    (amplitude, rate), offset = params[0].unbind(-1), params[1]
    return amplitude * torch.exp(-rate * T) + offset - y


def one_problem(failing: Failing) -> Case:
    y, x = torch.randn(5, dtype=F64), torch.rand(3, dtype=F64)
    call = failing(lambda params: share_of_a_decay(params, y))
    residual = ProblemsResidual(call, LAYOUT, (), 5)
    return Case(residual, x, lambda x: decay(x) - y, (call,))


def problems(failing: Failing, looped: bool = False) -> Case:
    y, x = torch.randn(4, 5, dtype=F64), torch.rand(4, 3, dtype=F64)
    call = failing(share_of_a_decay)
    residual = ProblemsResidual(call, LAYOUT, (y,), 5, batched=True, looped=looped)
    return Case(residual, x, lambda x: decay(x) - y, (call,))


def problems_one_by_one(failing: Failing) -> Case:
    return problems(failing, looped=True)


# ---- closures ------------------------------------------------------------------------------------


class Network:
    """A module, a batch, and the rows of both without the package.

    Args:
        middle: a layer between the others, which may have running statistics or draw numbers.
    """

    def __init__(self, middle: nn.Module) -> None:
        self.module = nn.Sequential(nn.Linear(2, 4, dtype=F64), middle, nn.Linear(4, 3, dtype=F64))
        self.names = [name for name, _ in self.module.named_parameters()]
        self.tensors = tuple(self.module.parameters())
        self.layout = Layout(self.tensors, self.names)
        self.swap = ModuleSwap(self.module, self.names, self.tensors)
        self.draws = isinstance(middle, nn.Dropout)
        self.replay = Replay(torch.device("cpu"), random=self.draws)
        self.inputs, self.targets = torch.randn(10, 2, dtype=F64), torch.randn(10, 3, dtype=F64)
        self.x = torch.randn(self.layout.n, dtype=F64)

    def at(self, x: Tensor, inputs: Tensor) -> Tensor:
        """The outputs at other parameters."""
        values = x.split([p.numel() for p in self.tensors])
        twins = {
            name: value.reshape(p.shape)
            for name, value, p in zip(self.names, values, self.tensors, strict=True)
        }
        twins |= {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        return functional_call(self.module, twins, (inputs,))

    def case(
        self,
        residual: Residual,
        rows: Callable[[Tensor], Tensor],
        *users: Callable[..., Any],
    ) -> Case:
        """At its x, with all tensors of the module."""
        kept = (*self.tensors, *self.module.buffers())
        return Case(residual, self.x, rows, users, kept, self.draws)


def normalised() -> nn.Module:
    """Writes to its running statistics at every evaluation, and mixes the samples."""
    return nn.BatchNorm1d(4, dtype=F64)


def closure(failing: Failing, middle: Callable[[], nn.Module] = normalised) -> Case:
    net = Network(middle())

    def of(outputs: Tensor) -> dict[str, Tensor]:
        return {"misfit": outputs - net.targets, "size": 0.1 * outputs.sum(0)}

    user = failing(lambda: of(net.module(net.inputs)))
    residual = ClosureResidual(net.layout, net.swap, user, 33, net.replay)
    return net.case(residual, lambda x: flat(of(net.at(x, net.inputs))), user)


def closure_with_dropout(failing: Failing) -> Case:
    return closure(failing, nn.Dropout)


def samples(failing: Failing, middle: Callable[[], nn.Module] = nn.Tanh) -> Case:
    net = Network(middle())
    user = failing(lambda x, y: net.module(x) - y)
    batch = Samples((net.inputs, net.targets))
    residual = SampleResidual(net.layout, net.swap, user, batch, 4, 3, net.replay)

    def rows(x: Tensor) -> Tensor:
        chunks = zip(net.inputs.split(4), net.targets.split(4), strict=True)  # 4, 4 and 2 samples
        return torch.cat([(net.at(x, inputs) - y).reshape(-1) for inputs, y in chunks])

    return net.case(residual, rows, user)


def samples_with_dropout(failing: Failing) -> Case:
    return samples(failing, nn.Dropout)


def terms(failing: Failing) -> Case:
    net = Network(nn.Tanh())
    users = (
        failing(lambda: net.module(net.inputs[:2]).square()),
        failing(lambda x, y: net.module(x) - y),
    )
    batch = Samples((net.inputs, net.targets))
    residual = TermsResidual(
        [
            ClosureResidual(net.layout, net.swap, users[0], 6, net.replay),
            SampleResidual(net.layout, net.swap, users[1], batch, 4, 3, net.replay),
        ]
    )

    def rows(x: Tensor) -> Tensor:
        square, misfit = net.at(x, net.inputs[:2]).square(), net.at(x, net.inputs) - net.targets
        return torch.cat([square.reshape(-1), misfit.reshape(-1)])

    return net.case(residual, rows, *users)


MakeRows = Callable[[torch.Generator, int, int], Any]  # samples, and rows of each


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def dense_rows(generator: torch.Generator, samples: int, k: int) -> DenseRows:
    """A matrix with five columns."""
    return DenseRows(drawn(generator, samples * k, 5))


def dense_rows_of_a_batch(generator: torch.Generator, samples: int, k: int) -> DenseRows:
    """The matrices of two problems."""
    return DenseRows(drawn(generator, 2, samples * k, 5))


def columns(generator: torch.Generator, samples: int, k: int) -> Columns:
    """Columns of which one is zero everywhere."""
    first, *last = drawn(generator, 3, samples * k).unbind()
    return Columns((first, None, *last))


def columns_of_a_batch(generator: torch.Generator, samples: int, k: int) -> Columns:
    """Columns of two problems, which are last in memory."""
    *first, last = drawn(generator, 3, samples * k, 2).mT.unbind()
    return Columns((*first, None, last))


def outer_rows(generator: torch.Generator, samples: int, k: int) -> OuterRows:
    """Columns 1 to 128 are outer products: enough that their structure is made use of."""
    known = Outer(1, drawn(generator, samples, k, 8), drawn(generator, samples, 16))
    first, last = drawn(generator, samples * k, 1), drawn(generator, samples * k, 2)
    return OuterRows(torch.cat([first, written(known), last], 1), (known,))


def layer_rows(generator: torch.Generator, samples: int, k: int) -> LayerRows:
    """Two blocks: the layer of the first is used once, that of the second three times."""
    blocks = []
    for count, uses in ((samples // 2, 1), (samples - samples // 2, 3)):
        left, right = drawn(generator, count, k, uses, 4), drawn(generator, count, uses, 3)
        own, last = drawn(generator, count, k, 4), Plain(17, drawn(generator, count, k, 2))
        joint = Weight(1, left, right, 13 if uses == 1 else None)
        # a table of three rows of two, which a sample may look up at the same place again
        places = torch.randint(3, (count, uses), generator=generator)
        table = Lookup(20, drawn(generator, count, k, uses, 2), places, 3)
        more = (last, table) if uses == 1 else (Plain(13, own), last, table)
        blocks.append(LayerBlock(count, k, (joint, *more)))
    return LayerRows(26, tuple(blocks), own)


def own_rows(generator: torch.Generator, samples: int, k: int) -> OwnRows:
    """One row for each of so many points, with three shared and two own variables."""
    return OwnRows(drawn(generator, samples, 3), drawn(generator, samples, 2))


class MatrixMap:
    """A matrix (..., m, n) that shows its products alone."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = self.like = matrix
        self.shape = matrix.shape

    def push(self, v: Tensor) -> Tensor:
        return (self.matrix @ v[..., None])[..., 0]

    def pull(self, w: Tensor) -> Tensor:
        return (self.matrix.mT @ w[..., None])[..., 0]

    def around(self, v: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        return self.pull(weigh(self.push(v)))

    def some(self, places: slice) -> "MatrixMap":
        return MatrixMap(self.matrix[..., places, :])


def product_rows(generator: torch.Generator, samples: int, k: int) -> ProductRows:
    """Few enough columns that their norms are exact."""
    return ProductRows(MatrixMap(drawn(generator, samples * k, 5)))


def product_rows_of_a_batch(generator: torch.Generator, samples: int, k: int) -> ProductRows:
    """Products of two problems."""
    return ProductRows(MatrixMap(drawn(generator, 2, samples * k, 5)))


def written(known: Outer) -> Tensor:
    """The columns that are outer products, from their factors."""
    products = known.left[..., :, None] * known.right[:, None, None, :]
    return products.flatten(2).flatten(0, 1)
