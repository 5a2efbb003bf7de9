"""Buffers see one forward pass a step, as in any training loop, and none of a step that fails."""

from itertools import product

import pytest
import torch
from torch import nn

from lmtorch import InputError, LevenbergMarquardt, Status

F64 = torch.float64


class Counting(nn.Module):
    """Writes to its buffer whether it is trained or not."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=F64))

    def forward(self, x):
        self.calls += 1
        return x


def network(device, layer):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 4), layer, nn.Tanh(), nn.Linear(4, 1)).to(device, F64)


def problem(device):
    x = torch.randn(30, 2, dtype=F64, device=device)
    return x, (x[:, :1] * x[:, 1:]).sin()


def optimizer(model, by):
    return LevenbergMarquardt(model if by == "module" else list(model.parameters()))


def buffers(model):
    return [b.clone() for b in model.buffers()]


def same(a, b):
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def spectral():
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))


LAYERS = {"batch norm": lambda: nn.BatchNorm1d(4), "counting": Counting, "spectral norm": spectral}
BY = ["module", "tensors"]


def in_turn(*options):
    """All combinations, with the module and its tensors in turn; those with the other are slow."""
    return [
        pytest.param(
            *(*(each[place] for each, place in zip(options, places, strict=True)), BY[by]),
            marks=[] if (sum(places) + by) % 2 else [pytest.mark.slow],
        )
        for *places, by in product(*(range(len(each)) for each in options), range(2))
    ]


@pytest.mark.parametrize(
    ("layer", "mode", "by"), in_turn(list(LAYERS), ["train", "child in train", "eval"])
)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_step_leaves_one_forward_pass(layer, mode, by, device):
    model, plain = network(device, LAYERS[layer]()), network(device, LAYERS[layer]())
    plain.load_state_dict(model.state_dict())
    x, y = problem(device)
    for each in (model, plain):
        each.train(mode == "train")
        each[1].train(mode != "eval")
    opt = optimizer(model, by)
    for _ in range(3):
        weights = [p.detach().clone() for p in model.parameters()]
        opt.step(lambda: model(x) - y)
        with torch.no_grad():
            for p, w in zip(plain.parameters(), weights, strict=True):
                p.copy_(w)
        plain(x)
        assert same(buffers(model), buffers(plain))


@pytest.mark.parametrize(
    ("at", "layer", "mode", "by"),
    in_turn([1, 2, 3, 5], list(LAYERS), ["train", "child in train"]),
)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_an_exception_leaves_none(at, layer, mode, by, device):
    model = network(device, LAYERS[layer]())
    model.train(mode == "train")
    model[1].train()
    x, y = problem(device)
    opt = optimizer(model, by)
    opt.step(lambda: model(x) - y)
    before, calls = buffers(model), 0

    def failing():
        nonlocal calls
        residual = model(x) - y
        calls += 1
        if calls >= at:
            raise KeyboardInterrupt
        return residual

    try:
        opt.step(failing)
    except KeyboardInterrupt:
        assert same(buffers(model), before)
    else:
        assert calls < at


@pytest.mark.parametrize("by", ["module", "tensors"])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_refused_step_and_one_that_is_not_finite_leave_none(by, device):
    model = network(device, nn.BatchNorm1d(4))
    x, y = problem(device)
    # biases before the normalisation have no influence but round-off: in units of that D would let
    # them go so far that the cost is noise
    of = model if by == "module" else list(model.parameters())
    opt = LevenbergMarquardt(of, max_trials=2, scaling="levenberg")
    opt.step(lambda: model(x) - y)
    before = buffers(model)
    start = [p.detach().clone() for p in model.parameters()]

    def walled():  # any move makes it worse
        away = sum((p - s).abs().sum() for p, s in zip(model.parameters(), start, strict=True))
        return model(x) - y + 1e6 * away

    opt.step(walled)
    assert opt.status is Status.REFUSED
    assert same(buffers(model), before)
    with pytest.warns(UserWarning, match="the step was not taken"):
        opt.step(lambda: model(x) - y * torch.nan)
    assert opt.status is Status.NOT_FINITE
    assert same(buffers(model), before)


@pytest.mark.parametrize("by", ["module", "tensors"])
@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_statistics_of_a_single_row_are_refused(batch, by, device):
    model = network(device, nn.BatchNorm1d(4))
    x, y = (t[:1] for t in problem(device))
    opt, before = optimizer(model, by), buffers(model)
    with pytest.raises(InputError, match="BatchNorm"):
        opt.step(lambda x, y: model(x) - y, x, y) if batch else opt.step(lambda: model(x) - y)
    assert same(buffers(model), before)
