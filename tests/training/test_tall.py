"""Many samples of few parameters: dual numbers stand in for the parameters of a closure."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import choose

F64 = torch.float64
X = torch.linspace(0, 2, 60, dtype=F64)
Y = 2 * torch.exp(-((X - 0.8) ** 2)) + 0.2 + 0.01 * torch.sin(40 * X)
START = (1.5, 0.6, 1.2, 0.0)


@pytest.fixture(autouse=True)
def _small_is_tall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "DENSE", 10)


class Peak(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(START[:3], dtype=F64))
        self.offset = nn.Parameter(torch.tensor(START[3], dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.p[0] * torch.exp(-(((x - self.p[1]) / self.p[2]) ** 2)) + self.offset


class Smoothed(Peak):
    """Keeps count in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def numbers() -> Any:
    """Parameters one by one, in operators from the left and from the right."""
    a, b, c, d = (torch.tensor(v, dtype=F64, requires_grad=True) for v in START)
    return [a, b, c, d], lambda x, y: torch.exp(-(((x - b) / c) ** 2)) * a + d - y


def vector() -> Any:
    p = torch.tensor(START, dtype=F64, requires_grad=True)
    return [p], lambda x, y: p[0] * torch.exp(-(((x - p[1]) / p[2]) ** 2)) + p[3] - y


def module() -> Any:
    net = Peak()
    return net, lambda x, y: net(x) - y


def several_of_a_sample() -> Any:
    net = Peak()
    return net, lambda x, y: (net(x) - y, 0.1 * net(x))


def misled() -> Any:
    """A method of a dual number, which no mode sees, takes a parameter."""
    a, b, c, d = (torch.tensor(v, dtype=F64, requires_grad=True) for v in START)
    return [a, b, c, d], lambda x, y: torch.exp(-(((x - b) / c) ** 2)).mul(a) + d - y


def constant() -> Any:
    """A write, which has no rule."""
    p = torch.tensor(START, dtype=F64, requires_grad=True)

    def closure(x: Tensor, y: Tensor) -> Tensor:
        found = torch.zeros_like(y)
        found += p[0] * torch.exp(-(((x - p[1]) / p[2]) ** 2)) + p[3]
        return found - y

    return [p], closure


def counting() -> Any:
    net = Smoothed()
    return net, lambda x, y: net(x) - y


def fitted(made: Callable[[], Any], capsys: Any, **options: Any) -> tuple[Tensor, str]:
    params, closure = made()
    optimizer = lmtorch.LevenbergMarquardt(params, solver="cholesky", **options)
    for _ in range(3):
        optimizer.step(closure, X, Y)
    optimizer.explain()
    tensors = params.parameters() if isinstance(params, nn.Module) else params
    return torch.cat([t.detach().reshape(-1) for t in tensors]), capsys.readouterr().out


@pytest.mark.parametrize("made", [numbers, vector, module, several_of_a_sample])
def test_steps_by_dual_numbers_are_those_by_reverse_mode(made, capsys) -> None:
    found, told = fitted(made, capsys)
    assert "jacobian        DualNumbers()" in told
    torch.testing.assert_close(found, fitted(made, capsys, jacobian="per_sample")[0])


@pytest.mark.parametrize("made", [misled, constant, counting])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_closures_that_take_no_dual_numbers_have_the_next_source(made, capsys) -> None:
    found, told = fitted(made, capsys)
    assert "jacobian        DualNumbers()" not in told
    torch.testing.assert_close(found, fitted(made, capsys, jacobian="per_sample")[0])


def test_linear_layers_keep_their_own_rows(capsys) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        return net, lambda x, y: net(x[:, None])[:, 0] - y

    assert "jacobian        LayerWise" in fitted(made, capsys)[1]


def test_on_a_cpu_a_chunk_stays_in_cache(monkeypatch, capsys) -> None:
    monkeypatch.setattr(choose.derivations, "COLUMN", 16)
    found, told = fitted(vector, capsys)
    assert "15 of 60 samples" in told
    torch.testing.assert_close(found, fitted(vector, capsys, jacobian="per_sample")[0])
