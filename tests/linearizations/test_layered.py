"""Steps by the factors of layers are those of the matrix that they stand for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.linearizations.dense import Dense, DenseForm
from lmtorch.linearizations.layered import Layered, LayeredForm
from lmtorch.solvers.dual import Dual
from lmtorch.training.terms import terms_of

F64 = torch.float64
Make = Callable[[], tuple[nn.Module, tuple[Any, ...]]]


class Tied(nn.Module):
    """One weight in two layers, whose bias is used in one of them; and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same = nn.Linear(9, 9, dtype=F64), nn.Linear(9, 9, bias=False, dtype=F64)
        self.same.weight = self.first.weight
        self.last, self.factor = nn.Linear(9, 1, dtype=F64), nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.last(torch.tanh(self.same(torch.tanh(self.first(x)))))


def network(inputs: int = 2, outputs: int = 1) -> nn.Sequential:
    """Two layers of twelve."""
    return nn.Sequential(
        nn.Linear(inputs, 12, dtype=F64), nn.Tanh(), nn.Linear(12, 12, dtype=F64), nn.Tanh(),
        nn.Linear(12, outputs, dtype=F64),
    )  # fmt: skip


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def regression() -> tuple[nn.Module, tuple[Any, ...]]:
    net = network(2, 3)
    return net, (lambda x, y: net(x) - y, drawn(20, 2), drawn(20, 3))


def tied() -> tuple[nn.Module, tuple[Any, ...]]:
    net = Tied()
    return net, (lambda x, y: net(x) - y, drawn(20, 9), drawn(20, 1))


def places() -> tuple[nn.Module, tuple[Any, ...]]:
    """Each sample has five places at which the layers are applied."""
    net = network()
    return net, (lambda x, y: net(x).sum(1) - y, drawn(20, 5, 2), drawn(20, 1))


def equation() -> tuple[nn.Module, tuple[Any, ...]]:
    """The layers act on the derivatives of their inputs inside, and on the values at the wall."""
    net = network()
    inside, wall = drawn(30, 2), drawn(10, 2)
    terms = (
        (lambda x: lmtorch.laplacian(net, x)[:, 0] + x.sin().prod(-1), inside),
        (lambda x: net(x)[:, 0], wall),
    )
    return net, terms


def mixed() -> tuple[nn.Module, tuple[Any, ...]]:
    """A term whose rows are known by layers, and one that is only a matrix."""
    net = network()
    return net, (
        (lambda x, y: net(x) - y, drawn(20, 2), drawn(20, 1)),
        (lambda: 0.1 * net[2].weight.sinh().sum(1),),
    )


def closure() -> tuple[nn.Module, tuple[Any, ...]]:
    """No batch is passed."""
    net = network()
    x, y = drawn(20, 2), drawn(20, 1)
    return net, (lambda: net(x) - y,)


CASES: list[Make] = [regression, tied, places, equation, mixed, closure]
cases = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def optimizer(make: Make, form: Any, **options: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    torch.manual_seed(0)
    net, passed = make()
    return lmtorch.LevenbergMarquardt(net, solver=Dual(form), **options), net, passed


def model(make: Make, form: Any, **options: Any) -> Any:
    """The linear model at the start."""
    opt, _, passed = optimizer(make, form, **options)
    with torch.no_grad():
        task = opt._task(terms_of(passed[0], tuple(passed[1:])))
        return task.problem.linearize(task.start.x)


@cases
def test_the_rows_are_those_of_the_matrix(make: Make) -> None:
    by_layers, whole = model(make, LayeredForm()), model(make, DenseForm())
    assert isinstance(by_layers, Dense if make is mixed else Layered)
    J = whole.jacobian
    torch.testing.assert_close(by_layers.rows.dense(), J)
    ones = J.new_ones(J.shape[1])
    torch.testing.assert_close(by_layers.rows.gram(ones), J @ J.mT)
    for name in ("residual", "cost", "gradient", "column_norms"):
        torch.testing.assert_close(getattr(by_layers, name), getattr(whole, name))


@cases
@pytest.mark.parametrize("decay", [0.0, 0.01], ids=["plain", "decay"])
def test_steps_are_those_with_the_matrix(make: Make, decay: float) -> None:
    ends = []
    for form in (LayeredForm(), DenseForm()):
        opt, net, passed = optimizer(make, form, weight_decay=decay)
        for _ in range(3):
            opt.step(*passed)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)


def test_groups_may_have_different_decays() -> None:
    ends = []
    for form in (LayeredForm(), DenseForm()):
        torch.manual_seed(0)
        net, passed = regression()
        weights = [p for p in net.parameters() if p.ndim > 1]
        biases = [p for p in net.parameters() if p.ndim == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 1.0}]
        opt = lmtorch.LevenbergMarquardt(groups, solver=Dual(form))
        for _ in range(3):
            opt.step(*passed)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)


def test_a_bound_makes_it_a_matrix() -> None:
    kept = model(regression, LayeredForm(), lower=-2.0, upper=2.0)
    assert isinstance(kept, Dense)


@pytest.mark.parametrize("robust", ["linear", "huber"])
def test_a_loss_scales_the_rows(robust: str) -> None:
    by_layers, whole = (
        model(regression, form, loss=robust) for form in (LayeredForm(), DenseForm())
    )
    torch.testing.assert_close(by_layers.rows.dense(), whole.jacobian)


def chosen(make: Make, **options: Any) -> Any:
    """What "auto" has chosen to solve with, after a step."""
    torch.manual_seed(0)
    net, passed = make()
    opt = lmtorch.LevenbergMarquardt(net, **options)
    opt.step(*passed)
    return opt._last.plan.method.solver, opt._last.ladders[0].current


def test_it_is_chosen_for_fewer_residuals_than_parameters_of_layers() -> None:
    solver, source = chosen(regression)
    assert solver == Dual(LayeredForm())
    assert isinstance(source, LayerWise)


def test_it_is_not_chosen_where_the_scaling_differs_within_a_parameter() -> None:
    assert chosen(regression, scaling="more")[0] == Dual()


@pytest.mark.parametrize("scaling", ["more", "marquardt"])
def test_another_scaling_is_refused_where_the_form_is_asked_for(scaling: str) -> None:
    opt, _, passed = optimizer(regression, LayeredForm(), scaling=scaling)
    with pytest.raises(lmtorch.InputError, match="scaling='levenberg'"):
        opt.step(*passed)
