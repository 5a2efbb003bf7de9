"""Columns of J that are nothing but round-off: their parameters stay, and short columns that mean
something move all the same."""

import math

import pytest
import torch

import lmtorch

F64 = torch.float64


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    """So many threads of torch: where sums are split, other round-off arises."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


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


def shares(t, a, b, c):
    """Two of three shares, side by side; c is added to all inputs of the softmax."""
    common = c * torch.cos(t)
    inputs = torch.stack([a * t + common, b * t * t + common, common])
    return torch.softmax(inputs, 0)[:2].reshape(-1)


def measured(points, count, dtype=F64):
    """Noisy shares of several fits, and where each starts."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=F64)

    t = torch.linspace(0, 1, points, dtype=F64)
    true = draw(count, 3) * torch.tensor([2.0, -3.0, 1.0], dtype=F64)
    y = torch.stack([shares(t, *row) for row in true])
    y = y + 2e-3 * (draw(*y.shape) - 0.5)
    start = torch.tensor([1.0, 1.0, 0.7], dtype=F64) + 0.5 * draw(count, 3)
    return t.to(dtype), y.to(dtype), start.to(dtype)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (F64, {}),
        (F64, {"bounds": (-9.0, 9.0)}),
        (F64, {"solver": "qr"}),
        (F64, {"solver": "cholesky"}),
        (F64, {"loss": "huber", "f_scale": 1e-3}),
        (torch.float32, {}),
    ],
    ids=["svd", "bounds", "qr", "normal equations", "huber", "float32"],
)
def test_what_is_added_to_all_inputs_of_a_softmax_stays_in_fits_that_succeed(dtype, options):
    t, ys, starts = measured(40, 8, dtype)
    for y, start in zip(ys, starts, strict=True):
        found = lmtorch.least_squares(lambda p, y=y: shares(t, *p) - y, start, **options)
        assert found.success
        assert found.x[2] == start[2]
        without = lmtorch.least_squares(
            lambda p, y=y, start=start: shares(t, *p, start[2]) - y, start[:2], **options
        )
        # in single precision two runs end where the cost hardly tells points apart
        accuracy = 1e-8 if dtype == F64 else 1e-3
        torch.testing.assert_close(found.x[:2], without.x, rtol=accuracy, atol=0)


def test_it_stays_by_two_threads_as_by_one(threads):
    t, ys, starts = measured(40, 3)
    for y, start in zip(ys, starts, strict=True):
        found = lmtorch.least_squares(lambda p, y=y: shares(t, *p) - y, start)
        assert found.success
        assert found.x[2] == start[2]


def test_it_stays_where_the_rows_are_too_many_to_be_kept():
    t, (y, _), (start, _) = measured(60_000, 2)
    found = lmtorch.least_squares(lambda p: shares(t, *p) - y, start)
    assert found.success
    assert found.x[2] == start[2]


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("count", [3, 60])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:.*not compiled", "ignore:.*ended short of their minima")
def test_it_stays_in_every_fit_of_a_batch(count, dtype, compiled):
    t, y, start = measured(40, count, dtype)
    second = torch.arange(80) >= 40

    def share(x, a, b, c):
        common = c * torch.cos(x)
        whole = [torch.exp(e + common) for e in (a * x, b * x * x, 0 * x)]
        return torch.where(second, whole[1], whole[0]) / (whole[0] + whole[1] + whole[2])

    found = lmtorch.curve_fit(share, torch.cat([t, t]), y, p0=start, compile=compiled)
    assert found.success.all()
    assert torch.equal(found.popt[:, 2], start[:, 2])


def test_what_is_said_of_an_end_is_said_of_columns_that_mean_something():
    t, (y,), (start,) = measured(40, 1)
    found = lmtorch.least_squares(lambda p: shares(t, *p) - y, start)
    # the cosine between the residuals and noise is as large as chance has it
    assert float(found.message.partition("column of J ")[2].split(",")[0]) < 1e-10


def test_a_column_that_vanishes_at_one_point_alone_hides_no_saddle():
    t = torch.linspace(0.1, 1, 20, dtype=F64)

    def residuals(p):  # ∂r/∂p₁ is 6e-17 t at π/2, where the cost is largest along p₁
        return torch.cat([2 + t * torch.sin(p[1]), p[0] * t - 1])

    start = torch.tensor([1.0, math.pi / 2], dtype=F64)
    found = lmtorch.least_squares(residuals, start, second_opinion=False)
    assert found.status == lmtorch.Status.SADDLE


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
