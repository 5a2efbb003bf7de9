"""Every optimizer behind the same two calls: a step, and the network it has trained."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

import lmtorch

from .tasks import PYPOSE

Step = Callable[[], None]
PEER = "torch-levenberg-marquardt"


def lmtorch_default(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """lmtorch without an argument."""
    opt = lmtorch.LevenbergMarquardt(net)
    return lambda: _drop(opt.step(lambda x, y: net(x) - y, x, y))


def lmtorch_full(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """lmtorch with JᵀJ from all rows: the same equations as the peers solve."""
    opt = lmtorch.LevenbergMarquardt(
        net, curvature="full", solver="cholesky", damping="nielsen", scaling="levenberg"
    )
    return lambda: _drop(opt.step(lambda x, y: net(x) - y, x, y))


def lmtorch_products(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """lmtorch by conjugate gradients on products: rough steps."""
    opt = lmtorch.LevenbergMarquardt(net, solver="cg")
    return lambda: _drop(opt.step(lambda x, y: net(x) - y, x, y))


def lmtorch_exact(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """lmtorch with exact steps, by the smaller of the two matrices."""
    n = sum(p.numel() for p in net.parameters())
    opt = lmtorch.LevenbergMarquardt(net, solver="dual" if len(y) < n else "cholesky")
    return lambda: _drop(opt.step(lambda x, y: net(x) - y, x, y))


def torch_levenberg_marquardt(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """The peer at its fastest: Cholesky, the batch whole."""
    from torch_levenberg_marquardt.loss import MSELoss
    from torch_levenberg_marquardt.training import LevenbergMarquardtModule

    peer = LevenbergMarquardtModule(
        net, loss_fn=MSELoss(), learning_rate=1.0, solve_method="cholesky"
    )
    return lambda: _drop(peer.training_step(x, y))


def pypose_lm(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """PyPose's LM with its adaptive damping; it differentiates the whole batch at once."""
    import pypose

    opt = pypose.optim.LM(net, strategy=pypose.optim.strategy.Adaptive())
    return lambda: _drop(opt.step(x, target=y))


def lbfgs(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """torch's L-BFGS with strong Wolfe line search, 20 iterations a step."""
    opt = torch.optim.LBFGS(
        net.parameters(), line_search_fn="strong_wolfe", max_iter=20, history_size=50
    )

    def closure() -> Tensor:
        opt.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    return lambda: _drop(opt.step(closure))


def adam(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    """torch's Adam on the whole batch, rate 1e-2, ten updates a step."""
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step() -> None:
        for _ in range(10):
            opt.zero_grad()
            (net(x) - y).square().mean().backward()
            opt.step()

    return step


def _drop(value: object) -> None:
    """Steps return nothing here."""


LM = {
    "lmtorch (all rows)": lmtorch_full,
    PEER: torch_levenberg_marquardt,
}
ALL = {
    "lmtorch": lmtorch_default,
    'lmtorch, solver="cg"': lmtorch_products,
    "lmtorch, exact steps": lmtorch_exact,
    **LM,
    PYPOSE: pypose_lm,
    "torch L-BFGS": lbfgs,
    "torch Adam": adam,
}
NEEDED = {PEER: "torch_levenberg_marquardt", PYPOSE: "pypose"}


def there() -> list[str]:
    """The rivals whose packages are installed."""
    return [name for name in ALL if name not in NEEDED or find_spec(NEEDED[name])]
