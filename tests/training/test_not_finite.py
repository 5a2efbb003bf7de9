"""A step that ends for NaN or infinity says where they are, once."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lmtorch
from lmtorch import InputError, Status


def table(count: int = 40) -> tuple[Tensor, Tensor]:
    """Samples of three numbers, and a target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator)
    return x, x.sum(1, keepdim=True).sin()


def network() -> nn.Module:
    """Small, tanh."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def test_infinity_in_the_inputs_is_found_where_the_loss_is_finite() -> None:
    x, y = table()
    x[7, 2] = x[9, 0] = torch.inf  # tanh makes ones of them, whose slope is zero times infinity
    net = network()
    opt = lmtorch.LevenbergMarquardt(net)
    before = [p.detach().clone() for p in net.parameters()]
    match = "derivatives are not; the data have NaN or infinity in 2 of 40 samples.*number 7"
    with pytest.warns(UserWarning, match=match):
        loss = opt.step(lambda x, y: net(x) - y, x, y)
    assert loss is not None
    assert loss.isfinite()
    assert opt.status is Status.NOT_FINITE
    assert all(map(torch.equal, before, net.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        opt.step(lambda x, y: net(x) - y, x, y)


@pytest.mark.parametrize("how", ["batch", "closure", "several outputs"])
def test_a_target_that_is_missing_is_named_by_its_place(how: str) -> None:
    x, y = table()
    if how == "several outputs":
        y = torch.cat([y, -y], 1)
    y[11, -1] = torch.nan
    net = network() if y.shape[1] == 1 else nn.Linear(3, 2)
    opt = lmtorch.LevenbergMarquardt(net)
    kind = "rows" if how == "closure" else "samples"
    batch = () if how == "closure" else (x, y)

    def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
        found: Tensor = (net(x) - y) * ~y.isnan()  # NaN times zero
        return found

    with pytest.warns(UserWarning, match=f"residuals of 1 of .* {kind}, the first .* number 11"):
        opt.step(closure, *batch)
    loss = opt.step(lambda x, y: torch.where(y.isnan(), 0.0, net(x) - y), x, y)
    assert loss is not None
    assert loss.isfinite()
    assert opt.report is not None
    assert opt.report.accepted


def test_a_criterion_and_a_loader_say_so_too() -> None:
    x, _ = table()
    labels = torch.arange(40) % 2
    x[3] = torch.nan
    net = nn.Linear(3, 2)
    opt, criterion = lmtorch.LevenbergMarquardt(net), lmtorch.CrossEntropyLoss()

    def closure(x: Tensor, labels: Tensor) -> Any:
        return criterion(net(x), labels)

    with pytest.warns(UserWarning, match=r"of 1 of 40 samples, .* number 3"):
        opt.step(closure, x, labels)
    opt = lmtorch.LevenbergMarquardt(net)
    with pytest.warns(UserWarning, match="of the loader's samples"):
        opt.step(closure, DataLoader(TensorDataset(x, labels), 10))


def test_rows_that_a_mask_takes_out_are_an_error_that_says_what_to_do() -> None:
    x, y = table()
    net = network()
    mask = torch.arange(40)[:, None] % 2 == 1
    opt = lmtorch.LevenbergMarquardt(net)
    with pytest.raises(InputError, match=r"torch.where\(mask, residuals, 0\)"):
        opt.step(lambda x, y, mask: (net(x) - y)[mask], x, y, mask)


def test_a_column_beside_a_vector_is_an_error_of_a_criterion_that_says_what_to_do() -> None:
    x, y = table()
    net = network()
    opt, criterion = lmtorch.LevenbergMarquardt(net), lmtorch.PoissonNLLLoss()
    with pytest.raises(InputError, match="squeeze the one or unsqueeze the other"):
        opt.step(lambda x, y: criterion(net(x), y), x, y.abs().round().squeeze(1))
