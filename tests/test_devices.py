"""Every fit of data elsewhere stays there, and comes to what it comes to on the CPU.

What only a GPU can show is skipped without one, each with its reason; the rest runs on the
stand-in.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import _memory, choose
from lmtorch.minimising import row_blocks, run
from lmtorch.residuals.replay import Replay

from .faces import curve, data

F64 = torch.float64
P0 = [1.0, 1.0, 1.0]
CURVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "sigma": {"sigma": lambda y: torch.full_like(y, 0.05), "absolute_sigma": True},
    "covariance": {"sigma": lambda y: torch.eye(len(y), dtype=y.dtype, device=y.device) / 400},
    "robust": {"loss": "huber", "f_scale": 0.1},
    "redescending": {"loss": "tukey", "f_scale": 0.3},
    "estimated scale": {"loss": "huber", "f_scale": "mad"},
    "bounds": {"bounds": (0, 2)},
    "fixed": {"fixed": {"c": 0.5}},
    "tied": {"ties": {"c": lambda p: 0.2 * p["a"]}},
    "mask": {"mask": lambda y: y < 2},
    "starts": {"bounds": (0, 5), "n_starts": 3},
}
ORTHOGONAL: dict[str, dict[str, Any]] = {
    "plain": {}, "errors": {"sx": 0.1, "sy": 0.05}, "bounds": {"bounds": (0, 5)},
    "fixed": {"fixed": {"c": 0.5}},
}  # fmt: skip


def given(options: dict[str, Any], y: Tensor) -> dict[str, Any]:
    """The options of this y."""
    made = {"sigma", "mask"}
    return {key: value(y) if key in made else value for key, value in options.items()}


def same(found: Any, expected: Any) -> None:
    """To the digits that the order of sums leaves; the values of `found` are elsewhere."""
    torch.testing.assert_close(
        found.detach().cpu(), expected.detach(), rtol=1e-6, atol=1e-9, equal_nan=True
    )


@pytest.mark.parametrize("options", CURVES)
def test_a_fit_and_its_errors_are_those_of_the_cpu(options: str, elsewhere: torch.device) -> None:
    (t, y), (u, v) = data("cpu"), data(str(elsewhere))
    expected = lmtorch.curve_fit(curve, t, y, P0, **given(CURVES[options], y))
    found = lmtorch.curve_fit(curve, u, v, P0, **given(CURVES[options], v))
    for name in ("popt", "pcov", "stderr", "residual", "best_fit"):
        assert getattr(found, name).device.type == elsewhere.type, name
        same(getattr(found, name), getattr(expected, name))
    assert found.status == expected.status
    ours, theirs = found.confidence_band(u), expected.confidence_band(t)
    same(ours.lower, theirs.lower)
    same(ours.upper, theirs.upper)
    for text in (found.report(), found.to_json(), repr(found)):
        assert "tensor(" not in text


@pytest.mark.parametrize("options", ORTHOGONAL)
def test_a_fit_with_errors_in_x_is_that_of_the_cpu(options: str, elsewhere: torch.device) -> None:
    (t, y), (u, v) = data("cpu"), data(str(elsewhere))
    expected = lmtorch.odr(curve, t, y, P0, **ORTHOGONAL[options])
    found = lmtorch.odr(curve, u, v, P0, **ORTHOGONAL[options])
    for name in ("popt", "pcov", "delta"):
        assert getattr(found, name).device.type == elsewhere.type, name
        same(getattr(found, name), getattr(expected, name))
    assert found.report()


def test_profile_and_bootstrap_go_where_the_data_are(elsewhere: torch.device) -> None:
    (t, y), (u, v) = data("cpu"), data(str(elsewhere))
    expected, found = lmtorch.curve_fit(curve, t, y, P0), lmtorch.curve_fit(curve, u, v, P0)
    wanted, intervals = (fit.profile("b", points=5).intervals["b"] for fit in (expected, found))
    assert intervals == pytest.approx(wanted, rel=1e-5)
    for kind in ("residuals", "cases", "normal"):
        first, second = (fit.bootstrap(8, kind=kind) for fit in (expected, found))
        torch.testing.assert_close(
            torch.as_tensor(second.samples).cpu(),
            torch.as_tensor(first.samples),
            rtol=1e-5,
            atol=1e-8,
        )


@pytest.mark.parametrize(
    "x", [lambda u: u.cpu().numpy(), lambda u: torch.arange(len(u), device=u.device)]
)
@pytest.mark.parametrize("policy", [None, "omit"])
def test_x_may_be_an_array_or_whole_numbers(
    x: Callable[[Tensor], Any], policy: str | None, elsewhere: torch.device
) -> None:
    u, v = data(str(elsewhere))
    if policy == "omit":
        v = torch.where(v > 2.5, torch.nan, v)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the curve passes the data by")
        fit = lmtorch.curve_fit(lambda x, a, b: a * x + b, x(u), v, nan_policy=policy)
    assert fit.popt.device.type == elsewhere.type


@pytest.mark.parametrize(
    "options",
    [
        {"x_scale": [1.0, 2.0, 3.0]}, {"bounds": ([0, 0, 0], [5, 5, 5])},
        {"bounds": (torch.zeros(3), 5.0)},
        {"jac": "3-point"}, {"jac": "reverse"}, {"jac": "autograd"}, {"solver": "qr"},
        {"solver": "dual"}, {"solver": "cg"},
        {"damping": "nielsen"}, {"acceleration": True}, {"loss": "barron", "f_scale": 0.1},
        {"history": True},
        {"n_starts": 2, "sampler": lambda n, rng: rng.uniform(0, 2, (n, 3))}, {"acceptable": 1.0},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)  # fmt: skip
# finite differences, which are the point
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_least_squares_goes_where_x0_is(options: dict[str, Any], elsewhere: torch.device) -> None:
    found = []
    for device in ("cpu", str(elsewhere)):
        t, y = data(device)
        x0 = torch.ones(3, dtype=F64, device=device)
        found.append(lmtorch.least_squares(lambda x, t=t, y=y: curve(t, *x) - y, x0, **options))
    expected, there = found
    assert {there.x.device.type, there.fun.device.type, there.jac.device.type} == {elsewhere.type}
    same(there.x, expected.x)


@pytest.mark.parametrize(("far", "room", "expected"), [(20, 2**27, 2), (20, 8, 3), (100, 2**27, 0)])
def test_blocks_of_rows_are_larger_elsewhere(
    far: int, room: int, expected: int, elsewhere: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def spied(*args: Any) -> Any:
        made.append(row_blocks.row_blocks(*args))
        return made[-1]

    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(run, "row_blocks", spied)
    for name, value in {"ROWS": 16, "FAR": far, "FAR_BYTES": room}.items():
        monkeypatch.setattr(row_blocks, name, value)
    found = []
    for device in ("cpu", str(elsewhere)):
        t, y = data(device)
        x0 = torch.ones(3, dtype=F64, device=device)
        found.append(lmtorch.least_squares(lambda x, t, y: curve(t, *x) - y, x0, args=(t, y)))
    same(found[1].x, found[0].x)
    assert [len(blocks) for blocks in made] == [-(-len(found[0].fun) // 16), expected]


def test_more_is_evaluated_together_elsewhere(elsewhere: torch.device) -> None:
    here, there = (_memory.stream_rows(1000, device) for device in (torch.device("cpu"), elsewhere))
    assert there > here
    assert _memory.stream_rows(1000, elsewhere, 10_000) == 10
    assert _memory.stream_rows(2**40, elsewhere) == 1


def test_gradients_lead_back_to_data_elsewhere(elsewhere: torch.device) -> None:
    gradients = []
    for device in ("cpu", str(elsewhere)):
        t, y = data(device)
        y.requires_grad_()
        x0 = torch.ones(3, dtype=F64, device=device)
        lmtorch.least_squares(lambda x, y, t=t: curve(t, *x) - y, x0, args=(y,)).x.sum().backward()
        assert y.grad is not None
        gradients.append(y.grad)
    same(gradients[1], gradients[0])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU alone has a generator of its own")
def test_the_generator_of_a_gpu_is_put_back() -> None:
    replay = Replay(torch.device("cuda"))
    drawn = []
    for _ in range(2):
        with replay():
            drawn.append(torch.rand(3, device="cuda"))
    assert torch.equal(*drawn)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU alone has memory of its own")
def test_the_memory_of_a_gpu_is_what_its_driver_tells() -> None:
    device = torch.device("cuda")
    whole = torch.cuda.get_device_properties(device).total_memory
    assert 0 < _memory.free_bytes(device) <= whole
    # a small part of it is evaluated together
    assert _memory.stream_rows(1, device) == min(_memory.STREAM, whole // _memory.PART)
