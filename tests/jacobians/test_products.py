"""J v and Jᵀw of every source are the products with the J of `torch.func.jacfwd`."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from lmtorch.jacobians.autograd import Autograd
from lmtorch.jacobians.base import JacobianSource, pull, push
from lmtorch.jacobians.by_term import ByTerm
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.given import GivenJacobian
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.jacobians.reverse import Reverse
from lmtorch.residuals.base import Part

F64 = torch.float64
WEIGHT = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
BIAS = torch.randn(3, dtype=F64, generator=torch.Generator().manual_seed(1))
X = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
PARAMS = (WEIGHT, BIAS)


def outputs(params: tuple[Tensor, ...], x: Tensor) -> Tensor:
    return torch.tanh(torch.nn.functional.linear(x, *params)) ** 2


def part() -> Part:
    return Part(
        lambda params: outputs(params, X).reshape(-1),
        lambda other, params: other(params),
        sample=lambda params, x: outputs(params, x[None]).reshape(-1),
        samples=(X,),
    )


def jacobian(params: tuple[Tensor, ...] = PARAMS) -> Tensor:
    blocks = jacfwd(lambda p: outputs(p, X).reshape(-1))(params)
    return torch.cat([block.flatten(1) for block in blocks], 1)


SOURCES: dict[str, Any] = {
    "forward": Forward,
    "reverse": Reverse,
    "autograd": Autograd,
    "per sample": PerSample,
    "layerwise": LayerWise,
    "given": lambda: GivenJacobian(jacobian),
    "3-point": lambda: FiniteDifference("3-point"),
    "ladder": lambda: Ladder([PerSample(), Autograd()]),
    "terms": lambda: ByTerm([Forward()]),
}
# truncation and round-off of the central difference
ROOM = {"3-point": 1e-8}


@pytest.mark.parametrize("name", SOURCES)
def test_products_are_those_with_the_jacobian(name: str) -> None:
    source: JacobianSource = SOURCES[name]()
    v = (torch.cos(WEIGHT), torch.sin(BIAS))
    w = torch.linspace(-1, 2, 12, dtype=F64)
    flat, J, room = torch.cat([t.flatten() for t in v]), jacobian(), ROOM.get(name, 1e-12)
    torch.testing.assert_close(push(source, part(), PARAMS, v), J @ flat, rtol=room, atol=room)
    values, along = pull(source, part(), PARAMS)
    torch.testing.assert_close(values, outputs(PARAMS, X).reshape(-1))
    for weights in (w, w.flip(0)):  # again and again from one evaluation
        torch.testing.assert_close(along(weights), J.mT @ weights, rtol=room, atol=room)


@pytest.mark.parametrize("name", ["forward", "reverse", "autograd"])
def test_products_of_a_batch_are_those_of_each_problem(name: str) -> None:
    x = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    fun = lambda x: torch.stack([x[..., 0] * x[..., 1], x.sin().sum(-1)], -1)
    of_batch = Part(lambda params: fun(params[0]), lambda other, params: other(params), batch=1)
    v, w = torch.cos(x), torch.linspace(0, 1, 10, dtype=F64).view(5, 2)
    J = torch.stack([jacfwd(fun)(point) for point in x])
    source = SOURCES[name]()
    torch.testing.assert_close(push(source, of_batch, (x,), (v,)), (J @ v[..., None])[..., 0])
    _, along = pull(source, of_batch, (x,))
    torch.testing.assert_close(along(w), (J.mT @ w[..., None])[..., 0])


# a given Jacobian says by itself what depends, and layers have no rows where there is no layer
@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("given", "layerwise")])
def test_residuals_that_do_not_depend_on_the_parameters_have_no_products(name: str) -> None:
    constant = Part(
        lambda params: X.flatten(),
        lambda other, params: other(params),
        sample=lambda params, x: x,
        samples=(X,),
    )
    source = SOURCES[name]()
    assert not push(source, constant, PARAMS, PARAMS).any()
    _, along = pull(source, constant, PARAMS)
    assert not along(torch.ones(8, dtype=F64)).any()


@pytest.mark.parametrize("black_box", [False, True])
def test_of_a_black_box_the_given_jacobian_is_the_only_one(black_box: bool) -> None:
    # torch would find other derivatives, which the user has said not to trust
    source = GivenJacobian(lambda params: 2 * jacobian(params))
    w, of = torch.linspace(-1, 2, 12, dtype=F64), replace(part(), black_box=black_box)
    _, along = pull(source, of, PARAMS)
    torch.testing.assert_close(along(w), (2 if black_box else 1) * jacobian().mT @ w)
