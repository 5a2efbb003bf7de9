"""Rows of differential residuals by layers, where a layer is more than once what it seems.

The reference is reverse mode, residual by residual. The second of two models is made without the
check of the first evaluation.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch.linearizations.layered import Layered, LayeredForm
from lmtorch.solvers.dual import Dual
from lmtorch.training.terms import terms_of

F64 = torch.float64
WIDTH = 9


class Plain(nn.Module):
    """Three layers; what derives from it uses them otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, WIDTH, dtype=F64)
        self.second = nn.Linear(WIDTH, WIDTH, dtype=F64)
        self.last = nn.Linear(WIDTH, 1, dtype=F64)
        self.scale = nn.Parameter(torch.tensor(1.3, dtype=F64))
        self.norm = nn.LayerNorm(WIDTH, dtype=F64)

    def begin(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.begin(x))))


class Twice(Plain):
    def forward(self, x: Tensor) -> Tensor:
        h = self.begin(x)
        h = h + torch.tanh(self.second(h))
        return self.last(h + torch.tanh(self.second(h)))


class Transposed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(self.begin(x)))
        return self.last(torch.tanh(nn.functional.linear(h, self.second.weight.T)))


class Normed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.second(self.begin(x)))))


class OfWeights(Plain):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.second.weight / self.second.weight.norm()
        return self.last(torch.tanh(nn.functional.linear(self.begin(x), weight)))


class BiasTwice(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.begin(x)) + self.first.bias))


class Adaptive(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.scale * self.second(self.begin(self.scale * x))))


class Zero(Plain):
    """u = 0 at the border of the square, whatever the parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * (1 - x)).prod(-1, keepdim=True) * super().forward(x)


Function = Callable[[Tensor], Tensor]


def laplacian(u: Function, x: Tensor) -> Tensor:
    return lmtorch.laplacian(u, x)[:, 0]


def at_two_places(u: Function, x: Tensor) -> Tensor:
    return (u(x) - u(x + 1) + lmtorch.jvp(u, x, torch.ones_like(x)))[:, 0]


def product(u: Function, x: Tensor) -> Tensor:
    return u(x.flip(-1))[:, 0] * lmtorch.laplacian(u, x, coordinates=[1])[:, 0]


def squares(u: Function, x: Tensor) -> Tensor:
    return lmtorch.hessian_diagonal(u, x).flatten(1).square().sum(1)


@pytest.mark.parametrize("operator", [laplacian, at_two_places, product, squares])
@pytest.mark.parametrize(
    "network", [Plain, Twice, Transposed, Normed, OfWeights, BiasTwice, Adaptive, Zero]
)
def test_inner_products_and_gradient_are_those_of_reverse_mode(
    network: type[Plain], operator: Callable[[Function, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    net, inside, edge = network(), torch.rand(7, 2, dtype=F64), torch.rand(3, 2, dtype=F64)
    inside[0, 0] = 0.0

    def equation(x: Tensor) -> Tensor:
        return operator(net, x) - 1

    def condition(x: Tensor) -> Tensor:
        return net(x)[:, 0]

    opt = lmtorch.LevenbergMarquardt(net, solver=Dual(LayeredForm()))
    task = opt._task(terms_of((equation, inside), ((condition, edge),)))
    task.problem.model(task.start.x)
    model = task.problem.model(task.start.x)
    if network in (Plain, Twice, Normed, Zero):
        assert isinstance(model, Layered)

    params = list(net.parameters())
    residual = torch.cat([equation(inside), condition(edge)])
    rows = [
        torch.autograd.grad(r, params, retain_graph=True, materialize_grads=True) for r in residual
    ]
    jacobian = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    ones = jacobian.new_ones(jacobian.shape[1])
    expected = jacobian @ jacobian.mT
    torch.testing.assert_close(model.rows.gram(ones), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        model.gradient, jacobian.mT @ residual.detach(), rtol=1e-9, atol=1e-12
    )
