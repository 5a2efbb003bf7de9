"""After a step that failed, parameters are exactly as before, and the next step works."""

import math
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lmtorch import InputError, LevenbergMarquardt, Status

F64 = torch.float64


class Fit:
    """A network, its data, and closures that fail at a chosen evaluation."""

    def __init__(self, device, **options):
        torch.manual_seed(2)
        self.model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).to(device, F64)
        self.x = torch.randn(40, 2, dtype=F64, device=device)
        self.y = (self.x[:, :1] * self.x[:, 1:]).sin()
        self.opt = LevenbergMarquardt(self.model, **options)
        self.calls = 0

    def closure(self, x, y):
        return self.model(x) - y

    def step(self, batch, closure=None):
        closure = closure or self.closure
        if batch:
            return self.opt.step(closure, self.x, self.y)
        return self.opt.step(lambda: closure(self.x, self.y))

    def flat(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


ERRORS = [RuntimeError, ValueError, StopIteration, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize(
    ("steps", "at", "error", "batch"),
    [
        pytest.param(
            *(steps, at, ERRORS[which], batch),
            id=f"{steps}-{at}-{ERRORS[which].__name__}-{'samples' if batch else 'opaque'}",
            # which error it is matters at one place alone: at each it is one of them, in turn
            marks=[] if which == (at + steps + 3 * batch) % len(ERRORS) else [pytest.mark.slow],
        )
        for steps, at, which, batch in product([0, 2], [1, 2, 3, 4], range(5), [False, True])
    ],
)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_an_exception_in_the_closure_leaves_everything_as_it_was(steps, at, error, batch, device):
    fit = Fit(device)
    for _ in range(steps):
        fit.step(batch)
    before = fit.flat()
    calls = 0

    def failing(x, y):
        nonlocal calls
        calls += 1
        if calls >= at:
            raise error("from the closure")
        return fit.model(x) - y

    try:
        fit.step(batch, failing)
    except error as problem:
        caught = problem
    else:
        assert calls < at  # a step may need fewer evaluations
        return
    assert "from the closure" in str(caught)
    assert torch.equal(fit.flat(), before)
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in fit.model.parameters())
    loss, parameters = untouched(batch, steps, device)
    torch.testing.assert_close(fit.step(batch), loss, rtol=1e-9, atol=0)
    assert fit.opt.report.accepted
    torch.testing.assert_close(fit.flat(), parameters)


@cache
def untouched(batch, steps, device):
    """The step after so many that nothing has disturbed, and where it leads."""
    fit = Fit(device)
    for _ in range(steps):
        fit.step(batch)
    return fit.step(batch), fit.flat()


OPTIONS = [{}, {"damping": "nielsen"}, {"solver": "cholesky"}, {"solver": "dual"}]


@pytest.mark.parametrize(
    ("by", "value", "options", "batch"),
    [
        pytest.param(
            *(by, value, options, batch),
            # NaN and infinity in turn; the others run apart
            marks=[] if (place + number + batch + math.isnan(value)) % 2 else [pytest.mark.slow],
        )
        for place, by in enumerate(["module", "parameters"])
        for value in (float("nan"), float("inf"))
        for number, options in enumerate(OPTIONS)
        for batch in (False, True)
    ],
    ids=str,
)
def test_residuals_that_are_not_finite_stop_the_step_and_are_forgotten(
    by, value, options, batch, device
):
    fit = Fit(device, **options)
    if by == "parameters":
        fit.opt = LevenbergMarquardt(fit.model.parameters(), **options)
    before = fit.flat()
    good = fit.y.clone()
    fit.y[3] = value
    with pytest.warns(UserWarning, match="the step was not taken"):
        loss = fit.step(batch)
    assert not loss.isfinite()
    assert fit.opt.status is Status.NOT_FINITE
    assert fit.opt.status.final
    assert not fit.opt.converged
    assert not fit.opt.report.accepted
    assert torch.equal(fit.flat(), before)
    fit.y = good
    fit.step(batch)
    assert fit.opt.report.accepted
    assert fit.opt.report.loss_after < fit.opt.report.loss


def test_a_bad_batch_in_between_leaves_the_damping_alone(device):
    fit, other = Fit(device, damping="nielsen"), Fit(device, damping="nielsen")
    fit.step(True)
    other.step(True)
    good = fit.y.clone()
    fit.y[0] = float("nan")
    with pytest.warns(UserWarning, match="the step was not taken"):
        fit.step(True)
    fit.y = good
    assert fit.step(True) == other.step(True)
    assert torch.equal(fit.flat(), other.flat())


@pytest.mark.parametrize("scaling", ["more", "levenberg", "marquardt"])
@pytest.mark.parametrize("damping", ["trust_region", "nielsen", "marquardt"])
def test_a_jacobian_that_is_not_finite_leaves_scale_and_damping_alone(damping, scaling, device):
    fit, other = (Fit(device, damping=damping, scaling=scaling) for _ in range(2))

    def bad(x, y):  # residuals are those of before, the slope in the last bias is infinite
        bias = fit.model[2].bias
        return fit.model(x) - y + (bias - bias.detach()).sqrt()

    fit.step(True)
    other.step(True)
    with pytest.warns(UserWarning, match="the step was not taken"):
        assert fit.step(True, bad).isfinite()
    assert fit.opt.status is Status.NOT_FINITE
    for _ in range(2):
        assert fit.step(True) == other.step(True)
    assert torch.equal(fit.flat(), other.flat())


def test_a_parameter_that_is_not_finite_stops_the_step(device):
    theta = torch.tensor([float("nan"), 1.0], dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    with pytest.warns(UserWarning, match="the parameter 'group 0, parameter 0' is not finite"):
        opt.step(lambda: theta[0] * theta[1] - torch.ones(3, dtype=F64, device=device))
    assert opt.status is Status.NOT_FINITE
    assert torch.equal(theta[1:], torch.ones_like(theta[1:]))


def test_a_jacobian_that_is_not_finite_stops_the_step(device):
    theta = torch.zeros(1, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    with pytest.warns(UserWarning, match="the step was not taken"):
        opt.step(lambda: theta.sqrt() + 1)  # the slope at zero is infinite
    assert opt.status is Status.NOT_FINITE
    assert theta.item() == 0


@pytest.mark.parametrize("damping", ["trust_region", "nielsen", "marquardt"])
def test_a_step_of_which_every_trial_is_refused_changes_nothing(damping, device):
    theta = torch.tensor([1.0, 2.0], dtype=F64, device=device, requires_grad=True)
    # the closure claims another slope than it has, so that no step along it gains
    wrong = lambda: -torch.eye(2, dtype=F64, device=device)
    opt = LevenbergMarquardt([theta], damping=damping, jacobian=wrong, max_trials=5)
    opt.step(lambda: theta * 1.0)
    assert opt.status is Status.REFUSED
    assert opt.report.trials == 5
    assert not opt.report.accepted
    assert opt.report.loss_after == opt.report.loss
    assert not opt.converged
    assert theta.tolist() == [1.0, 2.0]


def test_a_trial_that_is_not_finite_is_refused_and_a_shorter_one_tried(device):
    theta = torch.tensor([0.1], dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], damping="nielsen")
    for _ in range(50):
        opt.step(lambda: torch.log(theta) + theta)  # NaN beyond zero
        if opt.status.final:
            break
    assert opt.converged
    assert theta.item() == pytest.approx(0.5671432904097838)  # Lambert's W(1)


# ---- bad input -----------------------------------------------------------------------------------

RETURNS = {
    "scalar loss": (lambda t: t.square().sum(), "return the residuals, not their sum"),
    "a loss of each sample, classes": (
        lambda t: F.cross_entropy(
            t.expand(3, 2), torch.zeros(3, device=t.device).long(), reduction="none"
        ),
        "one for each sample.*CrossEntropyLoss",
    ),
    "a loss of each sample, squares": (
        lambda t: F.mse_loss(t, torch.zeros_like(t), reduction="none"),
        "one for each sample",
    ),
    "nothing": (lambda t: None, "None"),
    "an empty tuple": (lambda _: (), "None"),
    "a number": (lambda t: 3.0, "float"),
    "an array": (lambda t: t.detach().cpu().numpy(), "ndarray"),
    "integers": (torch.Tensor.long, "int64"),
    "booleans": (lambda t: t > 0, "bool"),
    "no dependence": (torch.ones_like, "do not depend on any parameter"),
    "detached": (lambda t: t.detach() * 2, "do not depend on any parameter"),
    "no residuals": (lambda t: t[:0], "m = 0"),
}


@pytest.mark.parametrize(("result", "says"), RETURNS.values(), ids=RETURNS)
def test_results_that_are_no_residuals_are_refused_with_advice(result, says, device):
    theta = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    with pytest.raises(InputError, match=says) as caught:
        opt.step(lambda: result(theta))
    assert isinstance(caught.value, ValueError)
    assert theta.tolist() == [1.0, 2.0]
    opt.step(lambda: theta - 3)
    assert opt.report.accepted


# what only the first look at a closure sees
AT_FIRST = ("an array", "no dependence", "detached", "a loss of each sample, squares")
LATER = {name: RETURNS[name] for name in RETURNS if name not in AT_FIRST}


@pytest.mark.parametrize(("result", "says"), LATER.values(), ids=LATER)
def test_the_same_results_are_refused_after_good_ones(result, says, device):
    theta = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    bad = False

    def closure():
        return result(theta) if bad else theta - 3

    opt.step(closure)
    before, bad = theta.detach().clone(), True
    with pytest.raises(InputError, match=says):
        opt.step(closure)
    assert torch.equal(theta, before)


@pytest.mark.parametrize(
    "given", [[], (), iter(()), nn.Module(), nn.ReLU()], ids=lambda g: type(g).__name__
)
def test_no_parameters_are_refused_with_advice(given):
    with pytest.raises(InputError, match="no parameters"):
        LevenbergMarquardt(given)


def test_a_single_tensor_is_refused_as_in_torch():
    with pytest.raises(TypeError, match="iterable"):
        LevenbergMarquardt(torch.ones(2, requires_grad=True))


def test_integer_parameters_are_refused():
    with pytest.raises(InputError, match="int64"):
        LevenbergMarquardt([torch.ones(2, dtype=torch.int64)])


def test_shapes_that_change_within_a_step_are_refused(device):
    theta = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        return theta.repeat(calls)

    with pytest.raises(InputError, match="same data"):
        LevenbergMarquardt([theta]).step(closure)
    assert theta.tolist() == [1.0, 2.0]


def test_shapes_may_change_between_steps(device):
    theta = torch.tensor([1.0, 2.0], dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    for rows in (2, 3, 2, 5):
        opt.step(lambda rows=rows: (theta - 1.5).repeat(rows))
        assert opt.report.trials >= 1
    torch.testing.assert_close(theta.detach(), torch.full_like(theta, 1.5))


def test_batch_tensors_that_disagree_in_length_are_refused():
    fit = Fit("cpu")
    before = fit.flat()
    with pytest.raises(InputError, match=r"disagree.*\[40, 39\]"):
        fit.opt.step(fit.closure, fit.x, fit.y[:39])
    with pytest.raises(InputError, match="no samples"):
        fit.opt.step(fit.closure, fit.x[:0], fit.y[:0])
    with pytest.raises(InputError, match="no tensor"):
        fit.opt.step(fit.closure, 1.0, 2.0)
    assert torch.equal(fit.flat(), before)


def test_a_closure_that_averages_over_the_samples_is_refused(device):
    fit = Fit(device)
    with pytest.raises(InputError, match=r"no dimension for the samples|single number"):
        fit.opt.step(lambda x, y: (fit.model(x) - y).square().mean(), fit.x, fit.y)


def test_something_that_cannot_be_called_is_refused():
    fit = Fit("cpu")
    with pytest.raises(InputError, match="closure"):
        fit.opt.step(fit.model(fit.x) - fit.y)


@pytest.mark.parametrize(
    "option", ["solver", "damping", "scaling", "jacobian", "loss", "curvature"]
)
@pytest.mark.parametrize("value", ["nonsense", None, 3])
def test_unknown_options_are_refused_by_name(option, value):
    with pytest.raises(InputError, match=f"{option}="):
        LevenbergMarquardt([torch.ones(1, requires_grad=True)], **{option: value})


@pytest.mark.parametrize(
    "options", [{"max_trials": 0}, {"ftol": -1.0}, {"gtol": float("nan")}, {"loss_scale": 0.0},
        {"loss_scale": -1.0}],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        LevenbergMarquardt([torch.ones(1, requires_grad=True)], **options)


def test_residuals_on_another_device_are_refused():
    theta = torch.ones(2, requires_grad=True)
    with pytest.raises(InputError, match="on meta, the parameters on cpu"):
        LevenbergMarquardt([theta]).step(lambda: (theta * 1).to("meta"))
