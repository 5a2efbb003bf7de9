"""A fit that has ended beside its data because a parameter changed its sign says what to bound."""

import warnings

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.optimize import OptimizeWarning

import lmtorch
from lmtorch.fitting.doubts import signs

W = 2 * np.pi * np.logspace(-1, 5, 50)
TRUE = [10, 100, 1e-5, 50, 2e-3]
FAR = [15.05, 53.96, 6e-6, 26.3, 3.29e-3]  # each within a factor of two
NEAR = [12, 80, 2e-5, 40, 1e-3]


def arcs(w, solution, first, slow, second, fast):
    one = first / (1 + 1j * w * first * slow)
    return solution + one + second / (1 + 1j * w * second * fast)


def parts(w, *p):
    z = arcs(w, *p)
    joined = torch.cat if isinstance(z, torch.Tensor) else np.concatenate
    return joined([z.real, z.imag])


def circuit(w, solution, first, slow, second, fast):
    return parts(w, solution, first, slow, second, fast)


def measured(seed, *lead):
    rng, z = np.random.default_rng(seed), arcs(W, *TRUE)
    noise = rng.standard_normal((*lead, 50)) + 1j * rng.standard_normal((*lead, 50))
    z = z + 0.01 * np.abs(z) * noise
    return np.concatenate([z.real, z.imag], -1)


def test_a_time_below_zero_is_told_with_the_bounds_that_lead_to_the_minimum():
    y = measured(1)
    with pytest.warns(OptimizeWarning, match="changed its sign") as said:
        fit = lmtorch.curve_fit(circuit, W, y, FAR)
    assert fit["fast"] < 0
    assert "bounds={'fast': (0, inf)}" in str(said[0].message)
    bounded = lmtorch.curve_fit(circuit, W, y, FAR, bounds={"fast": (0, np.inf)})
    assert bounded.chisqr < fit.chisqr / 100
    # the minimum that scipy finds from the truth
    theirs = optimize.curve_fit(parts, W, y, TRUE)[0]
    np.testing.assert_allclose(bounded.popt, theirs, rtol=1e-4)


def test_a_loop_of_fits_says_so_of_those_that_have():
    for seed in range(14):  # enough of them for what is remembered of a kind
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fit = lmtorch.curve_fit(circuit, W, measured(seed), FAR if seed % 2 else NEAR)
        assert (fit["fast"] < 0) == any("its sign" in str(one.message) for one in said)


@pytest.mark.parametrize("lead", [(4,), (2, 2)], ids=str)
def test_a_batch_counts_them(lead):
    starts = np.array([FAR, NEAR, FAR, NEAR]).reshape(*lead, 5)
    with pytest.warns(OptimizeWarning, match="2 of 4 fits .* that of index 0 "):
        fits = lmtorch.curve_fit(circuit, W, measured(1, *lead), starts)
    assert ((fits.popt[..., 4] < 0).reshape(-1) == [True, False, True, False]).all()


def test_of_many_some_are_looked_at_and_of_few_among_many_none():
    many = [FAR] * 40 + [NEAR] * 10
    with pytest.warns(
        OptimizeWarning, match="40 of 50 fits .* Of the 14 .* 14 need not have"
    ) as said:
        lmtorch.curve_fit(circuit, W, measured(1, 50), np.array(many))
    assert "bounds={'fast': (0, inf)}" in str(said[0].message)
    few = np.array([FAR] + [NEAR] * 149)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        fits = lmtorch.curve_fit(circuit, W, measured(1, 150), few)
    assert fits.popt[0, 4] < 0


@pytest.mark.parametrize("beside", [0, 16, 80])
def test_of_very_many_whose_sign_changed_a_part_tells_whether_all_are_looked_at(
    beside, monkeypatch
):
    looked, plain = [], signs.each_beside

    def each_beside(data, residual):
        found = plain(data, residual)
        looked.append((len(residual), int(found.sum())))
        return found

    monkeypatch.setattr(signs, "each_beside", each_beside)
    monkeypatch.setattr(signs, "_held", lambda fitter, which, *rest: torch.zeros(len(which)))
    t = np.linspace(1, 2, 20)
    y = t + 0.01 * np.random.default_rng(0).standard_normal((4000, 20))
    y[: 50 * beside : 50] += 10 * t**3  # which no line through zero follows
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fits = lmtorch.curve_fit(lambda t, slope: slope * t, t, y, [-1.0])
    assert (fits.popt > 0).all()
    told = [str(one.message) for one in said if "changed its sign" in str(one.message)]
    if beside == 80:
        _, (every, count) = looked
        assert every == 4000
        assert beside <= count < 1.2 * beside  # noise alone is taken for it once in 500 lines
        assert f"{count} of 4000 fits" in told[0]
    else:  # fewer than one in a hundred
        assert not told
    if not beside:
        ((few, _),) = looked
        assert 1900 < few < 2100


@pytest.mark.parametrize("amplitude", [-2.0, 2.0])
def test_a_sign_that_makes_no_difference_or_that_the_data_have_is_no_fault(amplitude):
    x = np.linspace(0, 3, 40)
    y = amplitude * np.exp(-x) + 0.02 * np.sin(7 * x)  # which no exponential follows
    fit = lmtorch.curve_fit(lambda x, a, k: a * torch.exp(-k * x), x, y, [1.0, 1.0])
    assert abs(fit["a"] - amplitude) < 0.1
    x = np.linspace(-3, 3, 40)
    y = np.exp(-(x**2) / 2) + 0.05 * np.sin(2 * x)
    lmtorch.curve_fit(lambda x, a, s: a * torch.exp(-(x**2) / (2 * s**2)), x, y, [1.0, -0.5])


def test_a_function_that_refuses_zero_costs_no_fit():
    def refusing(w, solution, first, slow, second, fast):
        if bool(torch.as_tensor(fast == 0).any()):
            raise ValueError("no capacity")
        return parts(w, solution, first, slow, second, fast)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lmtorch.curve_fit(refusing, W, measured(1), FAR)
    assert np.isfinite(fit.popt).all()
