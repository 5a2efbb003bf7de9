"""The stand-in device computes as the CPU, refuses what a GPU refuses, and counts what waits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from . import stand_in

pytestmark = pytest.mark.skipif(stand_in.MISSING is not None, reason=str(stand_in.MISSING))
HERE = torch.arange(3.0)


def there() -> Tensor:
    return HERE.to(stand_in.NAME)


def test_a_module_moves_and_computes_as_on_the_cpu() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    expected = torch.func.jacrev(model)(HERE).detach()
    model.to(stand_in.NAME)
    assert {p.device.type for p in model.parameters()} == {stand_in.NAME}
    found = torch.func.jacrev(model)(there()).detach()
    assert found.device.type == stand_in.NAME
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize(
    "meet",
    [
        lambda a, b: a + b, lambda a, b: a @ b, lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: a.add_(b), lambda a, b: torch.stack([a, b]), lambda a, b: torch.maximum(b, a),
        lambda a, b: torch.stack([a.sum(), b.sum()]),
    ],
)  # fmt: skip
def test_tensors_of_two_devices_do_not_meet(meet: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        meet(there(), HERE)


@pytest.mark.parametrize(
    ("waits", "times"),
    [
        (lambda a: a.sum().item(), 1), (lambda a: bool(a.any()), 1), (lambda a: float(a[0]), 1),
        (lambda a: a.tolist(), 1), (lambda a: a.nonzero(), 1), (lambda a: a[a > 0], 1),
        (lambda a: a.cpu(), 1),
        (lambda a: torch.tensor(2.0, device=a.device), 1), (HERE.to, 1),
        (lambda a: torch.equal(a, a), 1),
        (lambda a: a.copy_(HERE), 1), (lambda a: a[torch.tensor([0, 1])], 1),
        (lambda a: a.masked_select(a > 0), 1),
        (lambda a: HERE.to(a.device, non_blocking=True), 0),
        (lambda a: a.to("cpu", non_blocking=True), 1),
        (lambda a: a + 2.0, 0), (lambda a: torch.where(a > 0, a, 0.0), 0), (lambda a: a[1:], 0),
        (lambda a: a.clamp(min=1).sqrt(), 0), (lambda a: torch.zeros(3, device=a.device), 0),
        (lambda a: a.new_full((), 0.1), 0), (lambda a: a <= 1, 0), (lambda a: a[a.argsort()], 0),
    ],
)  # fmt: skip
def test_what_waits_is_counted_and_what_does_not_is_not(
    waits: Callable[[Tensor], Any], times: int
) -> None:
    tensor = there()
    with stand_in.counted() as counter:
        waits(tensor)
    assert stand_in.waits(counter) == (times, 0)


@pytest.mark.parametrize(("factor", "times"), [
    (torch.linalg.svd, 1), (torch.linalg.eigh, 1), (torch.linalg.qr, 0),
    (torch.linalg.cholesky_ex, 0),
])  # fmt: skip
def test_factorisations_that_wait_are_counted_apart(
    factor: Callable[[Tensor], Any], times: int
) -> None:
    matrix = torch.eye(3, device=stand_in.NAME)
    with stand_in.counted() as counter:
        factor(matrix)
    assert stand_in.waits(counter) == (0, times)
    assert times == ("synchronizes that device with the CPU" in (factor.__doc__ or ""))
