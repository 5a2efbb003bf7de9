"""A likelihood of several outputs is one loss: a softmax has a root for each sample."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch.losses.base import Expansion, wide
from lmtorch.rows.matrix import DenseRows

F64 = torch.float64
CLASSES = 3


@dataclass(frozen=True)
class Softmax:
    """−Σ log p(class 0) of logits, classes in a row: the data are differences to the right class.

    With p the softmax, the slope is p − e₀ and the curvature diag(p) − ppᵀ = RᵀR for
    R = diag(√p) − √p pᵀ.
    """

    k: int = CLASSES
    together: int = CLASSES

    def cost(self, residual: Tensor) -> Tensor:
        """Of all samples."""
        logits = wide(residual).unflatten(-1, (-1, self.k))
        return -torch.log_softmax(logits, -1)[..., 0].sum(-1)

    def expand(self, residual: Tensor) -> Expansion:
        """Value, slope and the root above."""
        p = torch.softmax(wide(residual).unflatten(-1, (-1, self.k)), -1)
        slope = p.clone()
        slope[..., 0] -= 1
        root = torch.diag_embed(p.sqrt()) - p.sqrt()[..., :, None] * p[..., None, :]
        return Expansion(self.cost(residual), slope.flatten(-2), root)

    def curvature(self, residual: Tensor) -> Tensor:
        """The exact one."""
        p = torch.softmax(wide(residual).unflatten(-1, (-1, self.k)), -1)
        return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]

    def take(self, places: Tensor) -> "Softmax":
        """For all problems alike."""
        return self


def test_rows_and_residuals_have_its_gradient_and_hessian() -> None:
    logits = torch.randn(4 * CLASSES, dtype=F64, generator=torch.Generator().manual_seed(0))
    loss = Softmax()
    found = loss.expand(logits)
    rows = found.rows(DenseRows(torch.eye(len(logits), dtype=F64)))
    gradient = torch.func.grad(loss.cost)(logits)
    torch.testing.assert_close(rows.transposed_times(found.residual), gradient)
    matrix = rows.dense()
    torch.testing.assert_close(matrix.mT @ matrix, torch.func.hessian(loss.cost)(logits))


def test_round_off_in_place_of_a_zero_singular_value_spoils_no_slope() -> None:
    """Its inverse, 1e15, stood in the pseudo-inverse: slopes of such samples were off by 1e-5."""
    logits = 3 * torch.randn(
        10_000 * CLASSES, dtype=F64, generator=torch.Generator().manual_seed(0)
    )
    found = Softmax().expand(logits)
    root, residual = found.root, found.residual.unflatten(-1, (-1, CLASSES))
    assert root is not None
    back = (root.mT @ residual[..., None]).flatten()
    assert float((back - found.slope).abs().max()) < 1e-14


def data() -> tuple[Tensor, Tensor]:
    """Points and their classes, some on the wrong side, so that there is an optimum."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(90, 2, dtype=F64, generator=generator)
    centres = torch.tensor([[1.0, 0], [-1, 1], [-1, -1]], dtype=F64)
    y = (x @ centres.mT + torch.randn(90, 3, dtype=F64, generator=generator)).argmax(1)
    return x, y


def first_is_right(logits: Tensor, y: Tensor) -> Tensor:
    """Logits with that of the right class in front."""
    order = (torch.arange(CLASSES) + y[:, None]) % CLASSES
    return logits.gather(1, order)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "cholesky"},
        {"solver": "qr"},
        {"solver": "cholesky", "curvature": "sampled"},
        {"jacobian": "forward"},
        {"acceleration": True},
        {"solver": "cholesky", "damping": "nielsen"},
    ],
    ids=str,
)
def test_a_classifier_comes_to_the_optimum_that_lbfgs_finds(options: dict[str, Any]) -> None:
    x, y = data()

    def fitted(make: Any, steps: int) -> tuple[float, nn.Module]:
        torch.manual_seed(0)
        net = nn.Linear(2, CLASSES).double()
        make(net, steps)
        return float(nn.functional.cross_entropy(net(x), y, reduction="sum").detach()), net

    def lbfgs(net: nn.Module, steps: int) -> None:
        opt = torch.optim.LBFGS(
            net.parameters(), max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure() -> Any:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y, reduction="sum")
            loss.backward()
            return loss

        opt.step(closure)

    def ours(net: nn.Module, steps: int) -> None:
        opt = lmtorch.LevenbergMarquardt(net, loss=Softmax(), **options)
        for _ in range(steps):
            opt.step(lambda x, y: first_is_right(net(x), y), x, y)

    expected, _ = fitted(lbfgs, 1)
    found, _ = fitted(ours, 25)
    assert found == pytest.approx(expected, rel=1e-9)


def test_columns_that_are_outer_products_keep_their_structure() -> None:
    ends = []
    for solver in ("cholesky", "qr"):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(2, 14), nn.Tanh(), nn.Linear(14, 14), nn.Tanh()).double()
        net.append(nn.Linear(14, CLASSES).double())
        x, y = data()
        opt = lmtorch.LevenbergMarquardt(
            net, loss=Softmax(), solver=solver, damping="nielsen", scaling="levenberg"
        )
        for _ in range(3):
            opt.step(lambda x, y, net=net: first_is_right(net(x), y), x, y)
        assert "LayerWise" in opt.report.jacobian
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("jacobian", ["reverse", "autograd"])
@pytest.mark.parametrize("batch", [True, False])
def test_rows_of_a_sample_stay_together_where_memory_is_short(jacobian: str, batch: bool) -> None:
    x, y = data()
    ends = []
    for limit in (None, 3_000):
        torch.manual_seed(0)
        net = nn.Linear(2, CLASSES).double()
        # without decay the logits of all classes may be raised alike, and the damping that a
        # singular matrix needs hangs on round-off
        opt = lmtorch.LevenbergMarquardt(
            net,
            loss=Softmax(),
            solver="cholesky",
            jacobian=jacobian,
            memory_limit=limit,
            weight_decay=1e-3,
        )
        for _ in range(4):
            if batch:
                opt.step(lambda x, y, net=net: first_is_right(net(x), y), x, y)
            else:
                opt.step(lambda net=net: first_is_right(net(x), y))
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-10)


def test_a_loss_that_knows_no_problems_apart_needs_no_take() -> None:
    class Plain:
        def cost(self, residual: Tensor) -> Tensor:
            return residual.square().sum(-1) / 2

        def expand(self, residual: Tensor) -> Expansion:
            return Expansion(self.cost(residual), residual, None)

    targets = torch.linspace(0, 1, 40, dtype=F64)[:, None]
    found = lmtorch.least_squares(
        lambda p, y: torch.stack([p[0] ** 3 - y[0], 0.1 * (p[0] - 1)]),
        torch.ones(1, dtype=F64),
        args=(targets,),
        in_dims=(None, 0),
        loss=Plain(),
        n_starts=2,
    )
    plain = lmtorch.least_squares(
        lambda p, y: torch.stack([p[0] ** 3 - y[0], 0.1 * (p[0] - 1)]),
        torch.ones(1, dtype=F64),
        args=(targets,),
        in_dims=(None, 0),
        n_starts=2,
    )
    torch.testing.assert_close(found.cost, plain.cost, rtol=1e-6, atol=1e-12)
