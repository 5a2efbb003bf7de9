"""Samples that meet inside a function have no derivatives of their own: it is refused in words."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError
from lmtorch.derivatives.coupling import MeetingError
from tests.derivatives.setting import built, close, jacobians, points

NET = built(lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)))
Function = Callable[[Tensor], Tensor]
MEETING: dict[str, Function] = {
    "centred": lambda x: NET(x - x.mean(0)),
    "a batch norm by hand": lambda x: NET((x - x.mean(0)) / x.std(0)),
    "over the largest": lambda x: NET(x / x.max()),
    "softmax over the batch": lambda x: NET(x).softmax(0),
    "distances between samples": lambda x: torch.cdist(x, x).square().sum(1),
    "attention over the batch": lambda x: torch.softmax(x @ x.T, -1) @ x,
    "the order turned round": lambda x: NET(x) * NET(x.flip(0)),
    "the neighbour": lambda x: NET(x) + x.roll(1, 0),
    "sums of those before": lambda x: NET(x).cumsum(0),
    "over a mean square": lambda x: NET(x) / NET(x).square().mean(),
    "a reshape across samples": lambda x: NET(x.T.reshape(x.shape)),
}
OPERATORS: dict[str, Callable[..., Any]] = {
    "batch_jacobian": lmtorch.batch_jacobian,
    "divergence": lmtorch.divergence,
    "laplacian": lmtorch.laplacian,
    "batch_hessian": lmtorch.batch_hessian,
    "hessian_diagonal": lmtorch.hessian_diagonal,
    "value_jacobian_hessian": lmtorch.value_jacobian_hessian,
    "second_directional_derivative": lambda f, x, **kw: lmtorch.second_directional_derivative(
        f, x, torch.ones_like(x), **kw
    ),
    "gradient": lambda f, x, **kw: lmtorch.gradient(lambda x: f(x).sum(-1), x, **kw),
    "hvp": lambda f, x, **kw: lmtorch.hvp(
        lambda x: f(x).sum(-1), x, torch.ones_like(x), batch_dims=1, **kw
    ),
}


@pytest.mark.parametrize("name", MEETING)
@pytest.mark.parametrize("size", [2, 5, 100])
def test_functions_in_which_samples_meet_are_refused_each_time(name: str, size: int) -> None:
    for _ in range(2):
        with pytest.raises(MeetingError, match="depend on other samples"):
            lmtorch.laplacian(MEETING[name], points(size, 2))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("record", [True, False], ids=["recorded", "no_grad"])
def test_every_operator_refuses_it(operator: str, record: bool) -> None:
    field = (
        (lambda x: x - x.square().mean(0))
        if operator == "divergence"
        else MEETING["softmax over the batch"]
    )
    with torch.set_grad_enabled(record), pytest.raises(InputError, match="batch_dims=0"):
        OPERATORS[operator](field, points(6, 2))


def test_samples_of_two_dimensions_meet_along_either() -> None:
    x = points(3, 4, 2)
    for dim in (0, 1):
        f = lambda x, dim=dim: torch.sin(x - x.mean(dim, keepdim=True))
        with pytest.raises(MeetingError):
            lmtorch.batch_jacobian(f, x, batch_dims=2)
    inside = lambda x: torch.sin(x - x.mean(1, keepdim=True))
    close(lmtorch.batch_jacobian(inside, x), jacobians(inside, x))  # within one sample, that is


APART: dict[str, Function] = {
    "a network": NET,
    "statistics that are detached": lambda x: NET(x - x.detach().mean(0)),
    "numbers of each sample": lambda x: NET(x) * torch.arange(1.0, 21.0, dtype=x.dtype)[:, None],
    "softmax within a sample": lambda x: NET(x).softmax(-1),
    "turned round and back": lambda x: NET(x.flip(0)).flip(0),
    "a column first": lambda x: NET.forward(x).T.sin().T,
    "no graph": torch.ones_like,
    "an infinite slope": lambda x: (x - x.detach()).sqrt() + x,
    "dropout": lambda x: nn.functional.dropout(NET(x), 0.5),
}


@pytest.mark.parametrize("name", APART)
@pytest.mark.filterwarnings("ignore::lmtorch.ZeroDerivativeWarning")
def test_nothing_is_refused_where_samples_are_apart(name: str) -> None:
    for operator in (lmtorch.batch_jacobian, lmtorch.laplacian):
        assert operator(APART[name], points(20, 2)).shape[0] == 20


def test_a_function_that_takes_no_fewer_samples_is_looked_at_whole() -> None:
    def f(x: Tensor) -> Tensor:
        assert len(x) == 50
        return x.sin() - x.mean(0)

    with pytest.raises(MeetingError):
        lmtorch.batch_jacobian(f, points(50, 2))


def test_a_function_is_asked_once_and_another_that_looks_alike_again() -> None:
    calls: list[int] = []

    class Counted(nn.Module):
        def __init__(self, meets: bool) -> None:
            super().__init__()
            self.meets = meets

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return x.sin() - (x.mean(0) if self.meets else 0)

    x, apart = points(20, 2), Counted(False)
    derivative = lambda module: lmtorch.batch_jacobian(lambda x: 2 * module(x), x)
    derivative(apart)
    once = len(calls)
    derivative(apart)
    assert len(calls) == 2 * once - 1  # by the glance at a few samples
    with pytest.raises(MeetingError):
        derivative(Counted(True))


def test_an_address_that_is_used_again_is_another_function() -> None:
    x = points(10, 2)
    for _ in range(20):
        module = built(lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
        lmtorch.batch_jacobian(module, x)
        del module
        gc.collect()
        with pytest.raises(MeetingError):
            lmtorch.batch_jacobian(Centred(), x)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin() - x.sin().mean(0)


def test_options_of_a_function_tell_it_apart() -> None:
    x = points(10, 2)
    soft = lambda x, dim: torch.softmax(2 * x, dim)
    lmtorch.batch_jacobian(partial(soft, dim=-1), x)
    with pytest.raises(MeetingError):
        lmtorch.batch_jacobian(partial(soft, dim=0), x)


def test_random_numbers_are_not_used_up_by_the_glance() -> None:
    x = points(20, 2)
    found = []
    for _ in range(2):  # the first time it looks, the second it does not
        torch.manual_seed(3)
        found.append(lmtorch.batch_jacobian(DROPPING, x))
        found.append(torch.rand(3, dtype=x.dtype))
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


DROPPING = built(lambda: nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5), nn.Linear(64, 2)))
DROPPING.train()


def test_parameter_jacobians_refuse_it_too() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = built(lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x - x.mean(0))

    with pytest.raises(MeetingError):
        lmtorch.parameter_jacobian(Model(), points(6, 2))


def test_across_the_whole_batch_samples_may_meet() -> None:
    x = points(4, 2)
    f = MEETING["centred"]
    close(lmtorch.jacobian(f, x), torch.autograd.functional.jacobian(f, x))
    assert not lmtorch.check_derivatives(f, x).ok


def test_a_network_that_centres_in_training_mode_only_is_asked_in_each_mode() -> None:
    class Centring(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x - x.mean(0)) if self.training else torch.tanh(x)

    network, x = Centring().eval(), points(5, 2)
    lmtorch.laplacian(network, x)
    with pytest.raises(MeetingError):
        lmtorch.laplacian(network.train(), x)
    lmtorch.laplacian(network.eval(), x)
