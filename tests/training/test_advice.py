"""Habits of first-order training that cost dearly bring one warning that says what to do."""

import warnings

import pytest
import torch
from torch import nn

import lmtorch
from lmtorch import LevenbergMarquardt

F64 = torch.float64


def network(inputs=2, width=8):
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 1)).to(F64)


def data(rows=60):
    torch.manual_seed(5)
    x = torch.randn(rows, 2, dtype=F64)
    return x, (x[:, :1] * x[:, 1:]).sin()


def told(call):
    """Messages of the warnings of a call."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in seen]


@pytest.mark.parametrize("lr", [1e-3, 0.01])
def test_a_small_learning_rate_is_told(lr):
    (message,) = told(lambda: LevenbergMarquardt(network(), lr=lr))
    assert f"lr={lr}" in message
    assert "Leave lr out" in message


@pytest.mark.parametrize("lr", [1.0, 0.5, 0.0, torch.tensor(0.001)])
def test_other_learning_rates_are_left_alone(lr):
    assert told(lambda: LevenbergMarquardt(network(), lr=lr)) == []


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize(
    ("change", "advised"),
    [
        (lambda x: x, False),
        (lambda x: 3 * x + 2, False),
        (lambda x: x + 20, True),
        (lambda x: 500 * x, True),
        (lambda x: torch.cat([x, torch.ones_like(x)], 1), False),  # a constant column is a bias
    ],
    ids=["standard", "near", "far from zero", "large", "with a constant"],
)
def test_inputs_far_from_zero_mean_and_unit_size_are_told(change, advised, batch):
    x, y = data()
    x = change(x)
    model = network(x.shape[1])
    opt = LevenbergMarquardt(model)

    def train():
        for _ in range(3):
            opt.step(lambda x, y: model(x) - y, x, y) if batch else opt.step(lambda: model(x) - y)

    messages = told(train)
    assert len(messages) == advised
    assert all("Scale them" in message for message in messages)


def test_inputs_that_the_model_scales_by_itself_are_left_alone():
    x, y = data()
    model = nn.Sequential(nn.LayerNorm(2), network()).to(F64)
    assert told(lambda: LevenbergMarquardt(model).step(lambda: model(500 * x) - y)) == []


def by_autograd(model, x):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return torch.autograd.grad(slope.sum(), x, create_graph=True)[0].sum(1, keepdim=True)


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_derivatives_by_autograd_are_told_of_the_operators(batch):
    x = data(12)[0]
    found = []
    for residual in (by_autograd, lmtorch.laplacian):
        model = network()
        opt = LevenbergMarquardt(model)
        step = (
            (lambda r=residual, m=model, o=opt: o.step(lambda x: r(m, x) + 1, x))
            if batch
            else (lambda r=residual, m=model, o=opt: o.step(lambda: r(m, x) + 1))
        )
        found.append([m for m in told(step) if "lmtorch.laplacian" in m])
        assert opt.report.accepted
    assert [len(messages) for messages in found] == [1, 0]


def test_the_line_that_refused_is_named():
    x, y = data(30)
    model = nn.Sequential(nn.ConvTranspose1d(1, 16, 1), nn.Flatten(), nn.Linear(32, 1)).to(F64)

    def closure(x, y):
        sign = -1 if (y > 100).any() else 1
        return sign * (model(x[:, None]) - y)

    (message,) = told(lambda: LevenbergMarquardt(model).step(closure, x, y))
    assert "in `sign = -1 if (y > 100).any() else 1`" in message
    assert "Autograd" in message.split("; ")[-1]  # what serves in the end, not what was tried next


def test_a_closure_without_a_batch_is_served_by_layers_as_one_with_it():
    x, y = data()
    models = network(), network()
    alone, with_batch = (LevenbergMarquardt(model) for model in models)
    for _ in range(3):
        alone.step(lambda: models[0](x) - y)
        with_batch.step(lambda x, y: models[1](x) - y, x, y)
    assert "LayerWise" in alone.report.jacobian
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


COUPLED = {
    "mean": lambda r: r - r.mean() / 2,
    "a little": lambda r: r + 1e-6 * r.flip(0),
    "sorted": lambda r: r.sort(0).values + 1e-3 * r.sum(),
    "cumulative": lambda r: r.cumsum(0),
    "norm": lambda r: r / (1 + r.norm()),
}


@pytest.mark.parametrize("name", COUPLED)
def test_rows_that_depend_on_other_samples_are_not_taken_for_independent(name):
    x, y = data()
    model, other = network(), network()
    couple = COUPLED[name]
    opt = LevenbergMarquardt(model)
    opt.step(lambda: couple(model(x) - y))
    assert "LayerWise" not in opt.report.jacobian
    reference = LevenbergMarquardt(other, jacobian="reverse")
    reference.step(lambda: couple(other(x) - y))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


class Direct(torch.autograd.Function):
    """Takes a layer's weight past every torch function, with a tiny share."""

    @staticmethod
    def forward(ctx, r, w):
        ctx.save_for_backward(w)
        return r + 1e-3 * w.square().sum()

    @staticmethod
    def backward(ctx, g):
        return g, 2e-3 * g.sum() * ctx.saved_tensors[0]


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_weight_that_acts_beside_its_layer_with_a_tiny_share_is_seen():
    x, y = data()
    model, other = network(), network()
    opt = LevenbergMarquardt(model)
    opt.step(lambda: Direct.apply(model(x) - y, model[0].weight))
    reference = LevenbergMarquardt(other, jacobian="reverse")
    reference.step(lambda: Direct.apply(other(x) - y, other[0].weight))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_mask_by_a_hook_on_the_gradient_holds_its_entries(batch):
    x, y = data()
    model = network()
    weight = model[0].weight
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(6)) < 0.5
    weight.register_hook(lambda g: g * mask)
    before = weight.detach().clone()
    opt = LevenbergMarquardt(model)
    for _ in range(3):
        opt.step(lambda x, y: model(x) - y, x, y) if batch else opt.step(lambda: model(x) - y)
    assert opt.report.accepted
    assert torch.equal(weight[~mask], before[~mask])
    assert bool((weight[mask] != before[mask]).all())


def test_equal_bounds_hold_the_entries_that_a_mask_would_hold():
    x, y = data()
    model = network()
    mask = torch.rand(model[0].weight.shape, generator=torch.Generator().manual_seed(6)) < 0.5
    before = model[0].weight.detach().clone()
    edge = torch.where(mask, torch.inf, before)
    groups = [
        {"params": [model[0].weight], "lower": torch.where(mask, -edge, before), "upper": edge},
        {"params": [model[0].bias, *model[2].parameters()]},
    ]
    opt = LevenbergMarquardt(groups)
    for _ in range(5):
        opt.step(lambda: model(x) - y)
    assert opt.report.accepted
    assert torch.equal(model[0].weight[~mask], before[~mask])
    assert bool((model[0].weight[mask] != before[mask]).all())


def test_parameters_that_were_replaced_by_loading_are_named_before_the_step_is_refused():
    x, y = data()
    model = network()
    opt = LevenbergMarquardt(model)
    model.load_state_dict(model.state_dict(), assign=True)

    def step():
        with pytest.raises(lmtorch.InputError, match="do not depend on any parameter"):
            opt.step(lambda: model(x) - y)

    (message,) = told(step)
    assert "'0.weight'" in message
    assert "Make the optimizer anew" in message
