"""Columns of J that are nothing but round-off: their parameters stay, and short columns that mean
something move all the same."""

import pytest
import torch

import lmtorch


class Attention(torch.nn.Module):
    """One head on three tokens; the bias of its keys changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(1, 2) for _ in range(3))
        self.out = torch.nn.Linear(2, 1)

    def forward(self, tokens):
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        weights = torch.softmax(query @ key.mT, -1)
        return self.out(weights @ value).mean(1)


def attention(seed, dtype=torch.float64):
    torch.manual_seed(seed)
    net, tokens = Attention(), torch.randn(30, 3, 1)
    target = tokens.amax(1) + 0.1 * torch.randn(30, 1)
    return net.to(dtype), tokens.to(dtype), target.to(dtype)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_bias_of_keys_stays_where_it_was_and_all_ways_to_derivatives_agree(seed):
    losses = []
    for jacobian in ("auto", "forward", "reverse"):
        net, tokens, target = attention(seed)
        start = net.key.bias.detach().clone()
        optimizer = lmtorch.LevenbergMarquardt(net, jacobian=jacobian)
        for _ in range(20):
            loss = optimizer.step(lambda net=net, of=tokens, to=target: net(of) - to)
        assert torch.equal(net.key.bias.detach(), start)
        losses.append(loss)
    # noise in J moves the other parameters by round-off as well, which twenty steps enlarge
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-7, atol=0)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-7, atol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bias_of_keys_stays_where_it_was_in_single_precision(seed):
    net, tokens, target = attention(seed, torch.float32)
    start = net.key.bias.detach().clone()
    optimizer = lmtorch.LevenbergMarquardt(net)
    for _ in range(20):
        optimizer.step(lambda: net(tokens) - target)
    assert torch.equal(net.key.bias.detach(), start)


def test_what_is_added_to_all_inputs_of_a_softmax_stays_in_a_fit_that_succeeds():
    t = torch.linspace(0, 1, 40, dtype=torch.float64)

    def shares(p):
        logits = torch.stack([p[0] * t, p[1] * t * t, torch.zeros_like(t)]) + p[2] * torch.cos(t)
        return torch.softmax(logits, 0)[:2].reshape(-1)

    y = shares(torch.tensor([2.0, -3.0, 0.0], dtype=torch.float64))
    y = y + 1e-3 * torch.sin(37 * torch.arange(80, dtype=torch.float64))
    found = lmtorch.least_squares(lambda p: shares(p) - y, torch.tensor([1.0, 1.0, 0.7]).double())
    assert found.success
    assert found.x[2] == torch.tensor(0.7).double()
    without = lmtorch.least_squares(
        lambda p: shares(torch.cat([p, p.new_zeros(1)])) - y, torch.tensor([1.0, 1.0]).double()
    )
    torch.testing.assert_close(found.x[:2], without.x, rtol=1e-9, atol=0)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_powers_of_nanoseconds_are_as_short_as_round_off_and_are_found_to_their_last_digits(start):
    t = torch.linspace(1, 9, 20, dtype=torch.float64)
    y = 3 - 2 * t + 0.5 * t * t + 1e-3 * torch.sin(5 * t)
    columns = torch.stack([torch.ones_like(t), t, t * t], 1)
    expected = torch.linalg.lstsq(columns, y[:, None]).solution[:, 0]
    seconds = 1e-9 * t
    x0 = torch.tensor([1.0, start, start], dtype=torch.float64)
    found = lmtorch.least_squares(lambda p: p[0] + p[1] * seconds + p[2] * seconds**2 - y, x0)
    assert float(found.jac.norm(dim=0).min() / found.jac.norm(dim=0).max()) < 1e-16
    assert found.success
    units = torch.tensor([1.0, 1e-9, 1e-18], dtype=torch.float64)
    torch.testing.assert_close(found.x * units, expected, rtol=1e-10, atol=0)


def test_short_columns_of_a_curve_that_bends_strongly_mean_something():
    volts = torch.linspace(0.3, 0.7, 30, dtype=torch.float64)

    def current(p):  # Shockley's diode, its parameters in amperes and volts
        return torch.log(p[0] * torch.expm1(volts / p[1])) + p[2] * 1e-12 * volts**2

    true = torch.tensor([1e-12, 0.026, 3e11], dtype=torch.float64)
    y = current(true) + 1e-3 * torch.cos(91 * volts)
    found = lmtorch.least_squares(
        lambda p: current(p) - y, torch.tensor([1e-11, 0.03, 1e11], dtype=torch.float64)
    )
    assert found.success
    torch.testing.assert_close(found.x, true, rtol=0.05, atol=0)
