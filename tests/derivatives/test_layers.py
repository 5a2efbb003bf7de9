"""Networks of linear layers and activations, whose derivatives are made for all layers at once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad

import lmtorch
from lmtorch.calculus import layered
from lmtorch.calculus.base import NoRuleError
from lmtorch.derivatives import layers
from lmtorch.derivatives.calling import checked

from .setting import F32, F64, close, hessians, jacobians

Operator = Callable[[Any, Tensor, str], Any]
OPERATORS: dict[str, Operator] = {
    "hessian": lambda f, x, mode: lmtorch.batch_hessian(f, x, mode=mode),
    "laplacian": lambda f, x, mode: lmtorch.laplacian(f, x, mode=mode),
    "part of it": lambda f, x, mode: lmtorch.laplacian(f, x, coordinates=[2, 0], mode=mode),
    "diagonal": lambda f, x, mode: lmtorch.hessian_diagonal(f, x, mode=mode),
    "all": lambda f, x, mode: lmtorch.value_jacobian_hessian(f, x, mode=mode),
    "one": lambda f, x, mode: lmtorch.value_jacobian_hessian(f, x, coordinates=-1, mode=mode),
    "two": lambda f, x, mode: lmtorch.value_jacobian_hessian(f, x, coordinates=[2, 0], mode=mode),
}


class Written(nn.Module):
    """A network with a forward of its own."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.sin) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 1)
        self.activation = activation
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """One hidden layer."""
        assert x.shape[-1] == 3
        return self.last(self.activation(self.first(x)))


def networks() -> Iterator[nn.Module]:
    """Of three inputs."""
    yield nn.Sequential(
        nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.SiLU(), nn.Linear(5, 1)
    )
    yield nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 2), nn.Tanh())
    yield nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Linear(5, 1))
    yield nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    yield Written()
    yield Written(torch.cos)


def network(place: int, dtype: torch.dtype = F64) -> nn.Module:
    """One of them."""
    torch.manual_seed(place)
    return list(networks())[place].to(dtype)


def parts(found: Any) -> list[Tensor]:
    """A tensor, or several, as a list."""
    return [found] if isinstance(found, Tensor) else list(found)


def samples(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=F64).to(dtype)


@pytest.fixture(params=["at once", "in blocks", "by torch"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches as they are, and as large ones are treated."""
    if request.param == "in blocks":
        monkeypatch.setattr(layered, "CACHE", 1)
    if request.param == "by torch":
        monkeypatch.setattr(layered, "SMALL", -1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("name", OPERATORS)
def test_they_are_those_of_reverse_mode_and_so_are_their_gradients_twice(
    name: str, place: int
) -> None:
    net, operator = network(place), OPERATORS[name]
    layers.layers_of(checked(net, samples(2, 3), 1))  # it is a network of layers
    found = []
    for mode in ("auto", "reverse"):
        x = samples(19, 3).requires_grad_()
        results = parts(operator(net, x, mode))
        at = [x, *net.parameters()]
        torch.manual_seed(5)
        number = sum((r.sin() * torch.randn(r.shape, dtype=F64)).sum() for r in results)
        once = grad(number, at, create_graph=True, materialize_grads=True)
        plain = grad(number, at, retain_graph=True, materialize_grads=True)
        again = grad(sum(g.square().sum() for g in once), at, materialize_grads=True)
        with torch.no_grad():
            bare = parts(operator(net, x, mode))
        assert not any(r.requires_grad for r in bare)
        found.append([*results, *once, *plain, *again, *bare])
    for mine, other in zip(*found, strict=True):
        close(mine, other)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3), (2, 4, 3)], ids=str)
def test_any_batch_has_them_in_its_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    net, x, batch = network(0, dtype), samples(*shape, dtype=dtype), len(shape) - 1
    for record in (True, False):
        with torch.set_grad_enabled(record):
            u, J, H = lmtorch.value_jacobian_hessian(net, x, batch_dims=batch)
        assert u.shape == (*shape[:-1], 1)
        assert H.shape == (*shape[:-1], 1, 3, 3)
        assert J.shape == (*shape[:-1], 1, 3)
        if len(x):
            close(J, jacobians(net, x, batch))
            close(H, hessians(net, x, batch))
        assert u.requires_grad == record


@pytest.mark.usefixtures("size")
def test_several_gradients_at_once_are_those_one_by_one() -> None:
    net, x = network(0), samples(9, 3)
    lap = lmtorch.laplacian(net, x)
    # the last bias, on which nothing depends, gets one zero from torch and not several
    weights, at = torch.stack([samples(9, 1), samples(9, 1).cos()]), list(net.parameters())[:-1]
    together = grad(
        lap, at, weights, is_grads_batched=True, retain_graph=True, materialize_grads=True
    )
    for place, w in enumerate(weights):
        alone = grad(lap, at, w, retain_graph=True, materialize_grads=True)
        for whole, single in zip(together, alone, strict=True):
            close(whole[place], single)


def test_parameters_that_need_no_gradient_get_none() -> None:
    net = network(0)
    assert isinstance(net, nn.Sequential)
    net[0].requires_grad_(False)
    lmtorch.laplacian(net, samples(9, 3)).sum().backward()
    assert net[0].weight.grad is None
    wanted = net[2].weight.grad
    assert wanted is not None
    net.zero_grad()
    lmtorch.laplacian(net, samples(9, 3), mode="reverse").sum().backward()
    assert net[2].weight.grad is not None
    close(wanted, net[2].weight.grad)


def test_a_weight_that_was_written_to_before_the_pass_back_is_told() -> None:
    net = network(0)
    lap = lmtorch.laplacian(net, samples(9, 3))
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        lap.sum().backward()


def test_what_a_user_writes_over_the_results_does_not_change_the_gradients() -> None:
    net, x = network(1), samples(9, 3)
    at, found = list(net.parameters()), []
    for spoilt in (False, True):
        value, J, H = lmtorch.value_jacobian_hessian(net, x)
        number = 3 * H.sum() + J.sum() + value.sum()
        if spoilt:
            for part in (value, J):
                part.detach().zero_()
        found.append(grad(number, at))
    for mine, other in zip(*found, strict=True):
        close(mine, other)


def test_weights_that_are_changed_or_layers_that_are_exchanged_count_at_once() -> None:
    net, x = network(0), samples(9, 3)
    assert isinstance(net, nn.Sequential)
    lmtorch.laplacian(net, x)
    with torch.no_grad():
        net[0].weight.mul_(1.5)
    close(lmtorch.laplacian(net, x), lmtorch.laplacian(net, x, mode="reverse"))
    net[1] = nn.Softplus()
    close(lmtorch.laplacian(net, x), lmtorch.laplacian(net, x, mode="reverse"))
    written = Written().double()
    for activation in (torch.tanh, torch.exp, lambda z: z.detach() * z, torch.cos):
        written.activation = activation
        found = lmtorch.laplacian(written, x)
        close(found, lmtorch.laplacian(written, x, mode="reverse"))


def hooked(net: nn.Sequential) -> nn.Module:
    """A network whose hook changes what a layer returns."""
    net[1].register_forward_hook(lambda module, args, y: 2 * y)
    return net


def replaced(net: nn.Sequential) -> nn.Module:
    """A network of which a layer has a forward of its own."""
    net[1].forward = torch.exp
    return net


class Doubled(nn.Linear):
    """A layer that looks like another."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice what it would be."""
        return 2 * super().forward(x)


class Square(torch.autograd.Function):
    """What no mode sees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x²."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """2x."""
        return 2 * ctx.saved_tensors[0] * g


def others() -> Iterator[Callable[[nn.Sequential], Any]]:
    """What is made of a network and is no network of layers any more."""
    yield hooked
    yield replaced
    yield lambda net: nn.Sequential(Doubled(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    yield lambda net: nn.Sequential(*net, nn.ReLU())
    yield lambda net: lambda x: net(x) * x[:, :1]
    yield lambda net: lambda x: net(x) + net[2](net[1](net[0](x))).sum(-1, keepdim=True)
    yield lambda net: lambda x: net(2 * x)
    yield lambda net: lambda x: net(x.detach()) + x.sum(-1, keepdim=True) ** 2
    yield lambda net: lambda x: torch.tanh(nn.functional.linear(x, Square.apply(x)[:3]))
    yield lambda net: lambda x: net(Square.apply(x))  # type: ignore[no-untyped-call]
    yield lambda net: lambda x: net(torch.cat([x[:, :1], x[:, 1:]], 1))


@pytest.mark.parametrize("place", range(11))
def test_what_only_looks_like_layers_is_differentiated_as_it_is(place: int) -> None:
    net = network(0)
    assert isinstance(net, nn.Sequential)
    f, x = list(others())[place](net), samples(9, 3)
    with pytest.raises(NoRuleError):
        layers.layers_of(checked(f, x, 1))
    for _ in range(2):
        if place != 8:  # there samples meet
            close(lmtorch.laplacian(f, x), lmtorch.laplacian(f, x, mode="reverse"))


def test_global_hooks_are_heeded() -> None:
    net, x = network(0), samples(9, 3)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, y: 2 * y if isinstance(module, nn.Tanh) else None
    )
    try:
        found, expected = lmtorch.laplacian(net, x), lmtorch.laplacian(net, x, mode="reverse")
    finally:
        handle.remove()
    close(found, expected)
    assert not torch.allclose(found, lmtorch.laplacian(net, x))


def test_a_function_that_is_no_network_is_asked_once_and_draws_no_more_numbers() -> None:
    def f(x: Tensor) -> Tensor:
        net.calls += 1
        return x.square().sum(-1) * torch.rand(1, dtype=F64)

    net, x = Written(), samples(9, 3)
    counts, drawn = [], []
    for _ in range(3):
        net.calls = 0
        torch.manual_seed(0)
        lmtorch.laplacian(f, x)
        counts.append(net.calls)
        drawn.append(torch.rand(1))
    assert counts[1] == counts[2] == 1
    assert drawn[0] == drawn[1] == drawn[2]


def test_under_other_modes_and_transforms_another_way_is_taken() -> None:
    net, x = network(0), samples(9, 3)
    expected = lmtorch.laplacian(net, x, mode="reverse")
    inside = torch.func.vmap(lambda s: lmtorch.laplacian(net, s[None])[0])(x)
    close(inside, expected)
    slope = torch.func.grad(lambda x: lmtorch.laplacian(net, x).sum())(x)
    at = x.clone().requires_grad_()
    close(slope, grad(lmtorch.laplacian(net, at).sum(), at)[0])
    twice = lmtorch.laplacian(lambda x: lmtorch.laplacian(net, x), x)
    close(twice, lmtorch.laplacian(lambda x: lmtorch.laplacian(net, x, mode="reverse"), x), 2**14)
