"""Jacobians of small networks of convolutions by products of matrices are those of autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

import lmtorch
from lmtorch.calculus.base import NoRuleError
from lmtorch.derivatives import first, unrolled
from lmtorch.derivatives.calling import checked

F64 = torch.float64


def network(*layers: nn.Module, dtype: torch.dtype = F64) -> nn.Sequential:
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers).to(dtype)


def classifier(dtype: torch.dtype = F64) -> nn.Sequential:
    return network(
        nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Conv2d(4, 5, 2), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(45, 3), dtype=dtype,
    )  # fmt: skip


CASES: dict[str, tuple[nn.Sequential, tuple[int, ...]]] = {
    "classes": (classifier(), (1, 9, 9)),
    "padding and groups": (
        network(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(4, 1, 4)),
        (2, 5, 4),
    ),
    "dilation, the same size": (
        network(nn.Conv1d(2, 3, 3, padding="same", dilation=2), nn.SiLU(), nn.Conv1d(3, 1, 2)),
        (2, 7),
    ),
    "without bias, an activation last": (
        network(nn.Conv1d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(10, 2), nn.Tanh()),
        (1, 7),
    ),
    "two maps in a row": (
        network(nn.Tanh(), nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 2)),
        (1, 3, 3, 3),
    ),
    "linear": (network(nn.Conv1d(1, 1, 3), nn.Flatten(), nn.Linear(5, 2)), (1, 7)),
}


def by_autograd(net: nn.Module, x: Tensor) -> Tensor:
    """Row by row, of the sum over samples."""
    x = x.detach().requires_grad_()
    y = net(x)
    rows = [
        torch.autograd.grad(one.sum(), x, retain_graph=True)[0] for one in y.flatten(1).unbind(1)
    ]
    return torch.stack(rows, 1).unflatten(1, y.shape[1:])


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `batch_jacobian` has come by: the shape of the result, or why not."""
    found: list[str] = []

    def by_matrices(call: Any) -> Tensor:
        try:
            made = unrolled.by_matrices(call)
        except NoRuleError as error:
            found.append(str(error))
            raise
        found.append("matrices")
        return made

    monkeypatch.setattr(first, "by_matrices", by_matrices)
    return found


@pytest.mark.parametrize("cache", [2**19, 2**10])
@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_reverse_mode(ways, monkeypatch, name, cache) -> None:
    monkeypatch.setattr(unrolled, "CACHE", cache)  # blocks of all samples, and of one
    net, shape = CASES[name]
    x = torch.randn(40, *shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = lmtorch.batch_jacobian(net, x)
    assert ways == ["matrices"]
    expected = vmap(jacrev(lambda one: net(one[None])[0]))(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert found.is_contiguous()
    assert not found.requires_grad


def test_single_precision_has_its_digits(ways) -> None:
    x = torch.randn(40, 1, 9, 9)
    with torch.no_grad():
        found = lmtorch.batch_jacobian(classifier(torch.float32), x)
    assert ways == ["matrices"]
    expected = by_autograd(classifier(), x.double())
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_what_is_no_number_stays_in_its_place() -> None:
    net = network(nn.Conv1d(1, 1, 2), nn.Tanh(), nn.Conv1d(1, 1, 2, stride=2))
    x = torch.randn(20, 1, 9, dtype=F64)
    x[3, 0, 1] = torch.nan
    with torch.no_grad():
        found = lmtorch.batch_jacobian(net, x)
    expected = by_autograd(net, x)
    assert expected[3].isnan().any()
    assert not expected[3].isnan().all()
    torch.testing.assert_close(found, expected, equal_nan=True)
    weight: Any = net[0].weight
    with torch.no_grad():
        weight[0, 0, 1] = torch.inf
        found = lmtorch.batch_jacobian(net, x)
    torch.testing.assert_close(found, by_autograd(net, x), equal_nan=True)


def test_a_graph_that_is_wanted_is_made(ways) -> None:
    net = classifier()
    x = torch.randn(40, 1, 9, 9, dtype=F64)
    found = lmtorch.batch_jacobian(net, x)
    assert ways == ["a graph is wanted"]
    found.square().sum().backward()
    first_weight: Any = net[0].weight
    assert first_weight.grad.abs().max() > 0
    ways.clear()
    lmtorch.batch_jacobian(classifier().requires_grad_(False), x)
    assert ways == ["matrices"]


def scaled(net: nn.Sequential) -> nn.Sequential:
    net[1].register_forward_hook(lambda module, given, made: 2 * made)
    return net


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


OTHERS = {
    "a hook": lambda: scaled(classifier()),
    "a convolution of the user's": lambda: network(
        Doubled(1, 2, 3), nn.Flatten(), nn.Linear(98, 2)
    ),
    "values from the other side": lambda: network(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(162, 2)
    ),
    "features that stay apart": lambda: network(nn.Conv2d(1, 1, 7), nn.Flatten(2), nn.Linear(9, 2)),
    "normalized by statistics": lambda: network(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(98, 2)
    ).eval(),
    "many channels": lambda: network(
        nn.Conv2d(1, 64, 1), nn.Tanh(), nn.Conv2d(64, 64, 1), nn.Flatten(), nn.Linear(5184, 2)
    ),
    "few channels of many points": lambda: network(
        nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(81, 2)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_go_the_ways_of_all_functions(ways, name) -> None:
    net = OTHERS[name]()
    x = torch.randn(50, 1, 9, 9, dtype=F64)
    with torch.no_grad():
        found = lmtorch.batch_jacobian(net, x)
    assert "matrices" not in ways
    torch.testing.assert_close(found, by_autograd(net, x))


def test_images_without_a_channel_are_none_of_a_convolution() -> None:
    """(s, 9, 9) is one image of s channels to it."""
    net = network(nn.Conv2d(40, 40, 3), nn.Tanh())
    call = checked(net, torch.randn(40, 9, 9, dtype=F64), 1, None)
    with torch.no_grad(), pytest.raises(NoRuleError):
        unrolled.by_matrices(call)
