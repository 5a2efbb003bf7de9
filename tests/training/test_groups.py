"""Options of a group: rates, penalties, bounds."""

import warnings
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import nn
from torch.optim import lr_scheduler

from lmtorch import InputError, LevenbergMarquardt

F64 = torch.float64
SOLVERS = ["auto", "cholesky", "qr", "svd", "dual"]


def line(device):
    t = torch.linspace(0, 1, 10, dtype=F64, device=device)
    theta = torch.zeros(2, dtype=F64, device=device, requires_grad=True)
    return theta, lambda: theta[0] * t + theta[1] - (2 * t + 1)


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.9**k),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=20, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lr_scheduler.ReduceLROnPlateau,
}


@pytest.mark.parametrize(
    ("make", "tensor"),
    [
        pytest.param(
            *(make, tensor),
            id=f"{name}-{'tensor' if tensor else 'float'}",
            # in turn, as what a scheduler does to a rate is torch's
            marks=[] if tensor == bool(place % 2) else [pytest.mark.slow],
        )
        for place, (name, make) in enumerate(SCHEDULERS.items())
        for tensor in (False, True)
    ],
)
def test_every_scheduler_of_torch_drives_the_rate(make, tensor, device):
    theta, closure = line(device)
    opt = LevenbergMarquardt([theta], lr=torch.tensor(1.0) if tensor else 1.0)
    scheduler = make(opt)
    losses = []
    for _ in range(5):
        losses.append(opt.step(closure))
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(losses[-1])
        else:
            scheduler.step()
    assert losses[-1] < losses[0]
    assert all(after <= before for before, after in pairwise(losses))


@pytest.mark.parametrize(
    "lr", [0.25, torch.tensor(0.25), torch.tensor([0.25])], ids=["float", "0-d", "1-d"]
)
def test_the_rate_scales_the_step(lr, device):
    full, first = line(device)
    part, second = line(device)
    LevenbergMarquardt([full]).step(first)
    opt = LevenbergMarquardt([part], lr=lr)
    opt.step(second)
    torch.testing.assert_close(part.detach(), 0.25 * full.detach(), rtol=1e-14, atol=0)


def test_a_rate_of_zero_changes_neither_parameters_nor_damping(device):
    theta, closure = line(device)
    opt = LevenbergMarquardt([theta], damping="nielsen")
    opt.step(closure)
    before, damping = theta.detach().clone(), opt.state[theta]["damping"]["damping"].clone()
    opt.param_groups[0]["lr"] = 0.0
    for _ in range(5):
        opt.step(closure)
        assert not opt.converged
    assert torch.equal(theta, before)
    assert torch.equal(opt.state[theta]["damping"]["damping"], damping)


def test_a_tiny_rate_is_no_convergence(device):
    theta, closure = line(device)
    opt = LevenbergMarquardt([theta], lr=torch.tensor(1e-12))
    with torch.no_grad():
        theta += 1
    opt.step(closure)
    assert not opt.converged


def test_groups_have_rates_of_their_own(device):
    a = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    b = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([{"params": [a]}, {"params": [b], "lr": 0.5}], damping="nielsen")
    opt.step(lambda: torch.cat([a, b]))
    assert (1 - b.item()) == pytest.approx((1 - a.item()) / 2)


DAMPINGS = ["trust_region", "nielsen", "marquardt"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rows", [4, 20], ids=["wide", "tall"])
def test_weight_decay_is_ridge_regression(solver, rows, device):
    # the damping knows nothing of either; each of them comes with wide and with tall matrices
    damping = DAMPINGS[(SOLVERS.index(solver) + (rows == 4)) % len(DAMPINGS)]
    torch.manual_seed(7)
    A = torch.randn(rows, 6, dtype=F64, device=device)
    b = torch.randn(rows, dtype=F64, device=device)
    w = A.new_tensor([0.1, 0.1, 0.1, 0.7, 0.7, 0.7])
    first = torch.zeros(3, dtype=F64, device=device, requires_grad=True)
    second = torch.ones(3, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt(
        [{"params": [first], "weight_decay": 0.1}, {"params": [second], "weight_decay": 0.7}],
        solver=solver,
        damping=damping,
    )
    loss = None
    for _ in range(60):
        loss = opt.step(lambda: A @ torch.cat([first, second]) - b)
        if opt.status.final:
            break
    ridge = torch.linalg.solve(A.T @ A + w.diag(), A.T @ b)
    # the cost stops to tell at 1e-10 relative, so the parameters at its square root
    torch.testing.assert_close(torch.cat([first, second]).detach(), ridge, rtol=1e-4, atol=1e-4)
    cost = ((A @ ridge - b).square().sum() + (w * ridge.square()).sum()) / 2
    assert loss.item() == pytest.approx(cost.item(), rel=1e-8)


def test_a_python_number_keeps_its_digits(device):
    theta = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], weight_decay=0.1)
    assert opt.step(lambda: 0 * theta).item() == pytest.approx(0.05, rel=1e-15)


BOUNDED = {  # residual, start, lower, upper: minima inside, on a face, in a corner
    "rosenbrock on a face": (
        lambda x: [10 * (x[1] - x[0] ** 2), 1 - x[0]],
        [-1.2, 1.0],
        [-2.0, -2.0],
        [0.5, 2.0],
    ),
    "rosenbrock inside": (
        lambda x: [10 * (x[1] - x[0] ** 2), 1 - x[0]],
        [-1.2, 1.0],
        [-2.0, -2.0],
        [2.0, 2.0],
    ),
    "corner": (lambda x: [x[0] - 3, x[1] + 3, x[0] * x[1]], [0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]),
    "one side": (
        lambda x: [x[0] + 2 * x[1] - 3, x[0] - x[1] - 4],
        [0.0, 1.0],
        [-np.inf, 0.5],
        [np.inf, np.inf],
    ),
}


@pytest.mark.parametrize(
    ("name", "solver"),
    # the dual is for m < n: with a parameter frozen at its bound, the two equations
    # of "one side" have rank 1
    [
        # every other pair: solvers know nothing of bounds
        pytest.param(*(name, solver), marks=[] if (place + number) % 2 == 0 else [pytest.mark.slow])
        for (place, name), (number, solver) in product(enumerate(BOUNDED), enumerate(SOLVERS))
        if (name, solver) != ("one side", "dual")
    ],
)
def test_bounds_lead_where_scipy_goes(name, solver, device):
    residual, start, lower, upper = BOUNDED[name]
    expected = least_squares(
        lambda x: np.array(residual(x)),
        start,
        bounds=(lower, upper),
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-15,
    )
    theta = torch.tensor(start, dtype=F64, device=device, requires_grad=True)
    low, high = torch.tensor(lower, dtype=F64), torch.tensor(upper, dtype=F64)
    opt = LevenbergMarquardt([{"params": [theta], "lower": low, "upper": high}], solver=solver)
    for _ in range(300):
        opt.step(lambda: torch.stack(residual(theta)))
        inside = (theta.detach().cpu() >= low) & (theta.detach().cpu() <= high)
        assert inside.all()
        if opt.status.final:
            break
    assert opt.report.loss_after == pytest.approx(expected.cost, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(theta.detach().cpu(), expected.x, rtol=1e-5, atol=1e-5)


def test_each_group_has_bounds_of_its_own(device):
    a = torch.zeros(1, dtype=F64, device=device, requires_grad=True)
    b = torch.zeros(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([{"params": [a], "upper": 0.5}, {"params": [b], "lower": -0.25}])
    for _ in range(4):
        opt.step(lambda: torch.cat([a - 1, b + 1, a - 1]))
    assert (a.item(), b.item()) == (0.5, -0.25)


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
def test_a_start_on_its_bound_is_inside(dtype, device):
    theta = torch.full((1,), 0.1, dtype=dtype, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], lower=0.1, upper=0.1)
    opt.step(lambda: torch.cat([theta - 1, theta]))
    assert torch.equal(theta.detach(), torch.full_like(theta, 0.1))


BAD = {
    "negative rate": ({"lr": -1.0}, "lr"),
    "negative tensor rate": ({"lr": torch.tensor(-1.0)}, "lr"),
    "NaN rate": ({"lr": float("nan")}, "lr"),
    "negative penalty": ({"weight_decay": -0.1}, "weight_decay"),
    "infinite penalty": ({"weight_decay": float("inf")}, "weight_decay"),
    "reversed": ({"lower": 2.0, "upper": -2.0}, "above its upper"),
    "NaN bound": ({"lower": float("nan")}, "NaN"),
    "outside below": ({"lower": 1.0}, "outside"),
    "outside above": ({"upper": torch.tensor([1.0, -1.0])}, "outside"),
    "bound of another shape": ({"upper": torch.ones(3)}, "shape"),
}


@pytest.mark.parametrize(("options", "says"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("later", [False, True], ids=["at first", "added"])
def test_options_that_cannot_serve_are_refused(options, says, later):
    theta = torch.zeros(2, requires_grad=True)
    if later:
        opt = LevenbergMarquardt([torch.ones(1, requires_grad=True)])
        with pytest.raises(InputError, match=says):
            opt.add_param_group({"params": [theta], **options})
        assert len(opt.param_groups) == 1
    else:
        with pytest.raises(InputError, match=says):
            LevenbergMarquardt([theta], **options)
    assert theta.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("option", ["momentum", "damping", "seed", "ftol"])
def test_what_is_one_for_all_parameters_is_refused_in_a_group(option):
    theta, closure = line("cpu")
    group = {"params": [theta], option: 0.5}
    with pytest.raises(InputError, match=rf"{option}, which is one for all.*the optimizer itself"):
        LevenbergMarquardt([group])
    other = LevenbergMarquardt([{"params": [theta], "name": "mine", "initial": 3}])
    other.step(closure)  # words of the user's own are kept, as by torch's optimizers
    assert other.param_groups[0]["name"] == "mine"
    with pytest.raises(InputError, match=option):
        other.add_param_group({**group, "params": [torch.zeros(1, requires_grad=True)]})
    assert len(other.param_groups) == 1


def test_bounds_on_complex_parameters_are_refused():
    with pytest.raises(InputError, match="complex"):
        LevenbergMarquardt([torch.zeros(1, dtype=torch.complex64, requires_grad=True)], lower=0.0)


def test_a_parameter_twice_in_a_group_warns_as_in_torch_and_is_fitted_once(device):
    theta = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate"):
        opt = LevenbergMarquardt([theta, theta])
    for _ in range(3):
        opt.step(lambda: theta - 3)
    assert theta.item() == pytest.approx(3)


def test_a_parameter_in_two_groups_is_an_error_as_in_torch():
    theta = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="more than one parameter group"):
        LevenbergMarquardt([{"params": [theta]}, {"params": [theta]}])


def test_a_group_can_be_added_between_steps(device):
    a = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    b = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([a])

    def closure():
        return torch.cat([a * b - 6, a - 2, b - 3])

    opt.step(closure)
    assert b.item() == 1
    damping = opt.state[a]["damping"]
    opt.add_param_group({"params": [b], "upper": 2.5})
    assert opt.state[a]["damping"] is damping
    for _ in range(20):
        opt.step(closure)
    assert b.item() == 2.5


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_mores_scale_of_a_parameter_that_was_added_later_begins_with_its_own_column(size, device):
    a = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    b = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([a], scaling="more")

    def closure():  # columns of length 5 and `size`
        return torch.cat([3 * a - 2, 4 * a - 3, size * b - 3])

    opt.step(closure)
    assert opt.state[a]["scale"].item() == pytest.approx(5)
    opt.add_param_group({"params": [b]})
    opt.step(closure)
    assert opt.state[a]["scale"].item() == pytest.approx(5)
    assert opt.state[b]["scale"].item() == pytest.approx(size)


def test_a_group_may_rest_while_another_moves(device):
    a = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    b = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([{"params": [a], "lr": 0.0}, {"params": [b]}])
    for _ in range(3):
        opt.step(lambda: torch.cat([a - 2, b - 3]))
    assert a.item() == 1
    assert b.item() == pytest.approx(3)


def test_nothing_warns_on_the_way(device):
    model = nn.Linear(2, 1).to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LevenbergMarquardt(model).step(lambda: model(torch.ones(4, 2, device=device)))
