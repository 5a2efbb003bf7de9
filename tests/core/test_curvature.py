"""The exact Hessian of the cost, by dual numbers and without them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from lmtorch.arrays import arrays_of, on_numpy, quiet, tensors_of
from lmtorch.core.curvature import exact_hessian
from lmtorch.core.problem import Problem
from lmtorch.core.small import of_arrays
from lmtorch.jacobians.base import JacobianSource
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.learned_many import MANY
from lmtorch.linearizations.dense import DenseForm
from lmtorch.losses.base import Loss
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Barron, Robust, cauchy
from lmtorch.minimising.problems import ProblemsResidual
from lmtorch.residuals.layout import Layout

F64 = torch.float64
T = torch.linspace(0, 1, 6, dtype=F64)
LOSSES: dict[str, Loss] = {
    "linear": Linear(),
    "cauchy": Robust(cauchy, 0.3),
    "barron": Robust(Barron(-2.0)),
}
SOURCES = {"dual numbers": DualNumbers, "forward mode": Forward}


def single(params: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Bent in two parameters, linear in the third, and not at all in the fourth."""
    a, b = params[0][:2].unbind()
    return a * torch.exp(-b * b * T) + T * params[0][2] - y


def problem(source: JacobianSource, loss: Loss, y: Tensor, penalty: Tensor | None) -> Problem:
    layout = Layout([torch.ones(4, dtype=F64)], ["x"])
    residual = ProblemsResidual(single, layout, (y,), len(T), batched=True)
    return Problem(residual, Ladder([source]), DenseForm(), loss, F64, penalty=penalty)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("penalized", [False, True])
def test_it_is_the_hessian_of_the_cost(source: type, loss: Loss, penalized: bool) -> None:
    x, y = torch.rand(3, 4, dtype=F64) + 0.5, torch.rand(3, 6, dtype=F64)
    penalty = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=F64) if penalized else None
    whole = problem(source(), loss, y, penalty)
    assert isinstance(whole.residual, ProblemsResidual)
    found = exact_hessian(whole, x)
    assert found is not None

    for place in range(3):

        def cost(p: Tensor, place: int = place) -> Tensor:
            prior = 0 if penalty is None else (penalty * p.square()).sum() / 2
            return loss.cost(single((p,), y[place])) + prior

        torch.testing.assert_close(found.matrix[place], torch.func.hessian(cost)(x[place]))
        torch.testing.assert_close(found.gradient[place], torch.func.grad(cost)(x[place]))
        one = of_arrays(replace(whole, residual=whole.residual.alone(place)))
        with quiet():
            alone = exact_hessian(one, arrays_of(x[place]))
        assert alone is not None
        assert on_numpy(alone.matrix)
        torch.testing.assert_close(tensors_of(alone.matrix), found.matrix[place])
        torch.testing.assert_close(tensors_of(alone.gradient), found.gradient[place])


@pytest.mark.parametrize("loss", ["linear", "cauchy"])
def test_it_is_that_of_many_problems_which_are_last_in_memory(loss: str) -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(4, MANY, generator=rng, dtype=F64).T + 0.5
    y = torch.rand(6, MANY, generator=rng, dtype=F64).T
    found = exact_hessian(problem(DualNumbers(), LOSSES[loss], y, None), x)
    assert found is not None

    def cost(p: Tensor, data: Tensor) -> Tensor:
        return LOSSES[loss].cost(single((p,), data))

    torch.testing.assert_close(found.matrix, vmap(hessian(cost))(x, y), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.gradient, vmap(grad(cost))(x, y), rtol=1e-11, atol=1e-11)
