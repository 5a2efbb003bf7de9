"""Fits with errors in x of a kind that was fitted before: the same ends, with fewer calls."""

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.fitting.orthogonal import memory
from lmtorch.fitting.orthogonal import run as running
from lmtorch.fitting.orthogonal.fitter import OrthogonalFitter
from lmtorch.jacobians.learned import OfFit

FITS = memory.LEARNING + 8  # after which evaluations are replayed
EXACT = 1e-9  # of a standard error: both ends are polished to round-off


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is remembered of the fits of other tests."""
    monkeypatch.setattr(memory, "_KNOWN", type(memory._KNOWN)())
    monkeypatch.setattr(memory, "_CHANGED", {})


@pytest.fixture
def again(monkeypatch):
    """Of each fit of a kind that is known whether it was made so."""
    found = []
    plain = running._again

    def solve(*args, **options):
        solution = plain(*args, **options)
        found.append(solution is not None)
        return solution

    monkeypatch.setattr(running, "_again", solve)
    return found


@pytest.fixture
def replayed(monkeypatch):
    """How often each run of a fit was replayed at the end."""
    found = []
    plain = OfFit.close

    def close(self):
        found.append(self.replayed)
        plain(self)

    monkeypatch.setattr(OfFit, "close", close)
    return found


def decay(x, a, k):
    return a * torch.exp(-k * x)


def plane(x, a, b, c):
    return a * torch.sin(b * x[0]) + c * x[1]


def both(x, a, k):
    return a * torch.exp(-k * x), k * torch.exp(-a * x)


def ellipse(x, a, b, c, d):
    return ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1


def data(seed):
    rng = np.random.default_rng(seed)
    t = np.linspace(0.1, 3, 20)
    return t + 0.05 * rng.standard_normal(20), 2 * np.exp(-t) + 0.02 * rng.standard_normal(20)


def case(name, seed):
    """A fit of a kind: other data in each call."""
    x, y = data(seed)
    rng = np.random.default_rng(seed)
    if name == "plain":
        return decay, x, y, [1.0, 1.0], {"sx": 0.05, "sy": 0.02}
    if name == "weights":
        we = np.where(np.arange(20) == seed % 20, 0.0, 2500.0 + seed)
        return decay, x, y, [1.0, 1.0], {"sx": 0.02 + 0.001 * seed, "we": we}
    if name == "bounds":
        return decay, x, y, [1.0, 1.0], {"sx": 0.05, "sy": 0.02, "bounds": ([0, 0], [1.9, 3])}
    if name == "tensors":
        return decay, *map(torch.from_numpy, (x, y)), [1.0, 1.0], {"sx": 0.05, "sy": 0.02}
    if name == "two predictors":
        grid = np.stack([x, x[::-1] ** 2])
        values = 2 * np.sin(1.5 * grid[0]) + 0.3 * grid[1] + 0.02 * rng.standard_normal(20)
        return plane, grid, values, [1.8, 1.4, 0.2], {"sx": 0.02, "sy": 0.02}
    if name == "two responses":
        values = np.stack([y, np.exp(-2 * x) + 0.02 * rng.standard_normal(20)])
        return both, x, values, [1.5, 0.8], {"sx": 0.05, "sy": 0.02}
    angle = np.linspace(0, 4.5, 20)
    ring = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    ring = ring + 0.05 * rng.standard_normal(ring.shape)
    return ellipse, ring, None, [1.0, 1.0, 2.0, 2.0], {"sx": 0.05}


def fitted(given):
    f, x, y, p0, options = given
    return lmtorch.odr(f, x, y, p0, **options)


CASES = (
    "plain", "weights", "bounds", "tensors", "two predictors", "two responses", "implicit",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_they_end_where_the_first_way_ends(name, again, replayed):
    found = [fitted(case(name, seed)) for seed in range(FITS)]
    assert again == [True] * (FITS - 1)
    assert any(replayed[-2:])
    for seed in (1, FITS - 2, FITS - 1):
        memory._KNOWN.clear()
        memory._CHANGED.clear()
        first, later = fitted(case(name, seed)), found[seed]
        apart = np.abs(np.asarray(later.popt) - np.asarray(first.popt)) / np.asarray(first.stderr)
        assert np.nanmax(apart) < (1e-6 if name == "implicit" else EXACT)
        np.testing.assert_allclose(
            np.asarray(later.pcov), np.asarray(first.pcov), rtol=1e-6, atol=1e-30
        )
        np.testing.assert_allclose(np.asarray(later.x_fit), np.asarray(first.x_fit), rtol=1e-6)
        assert type(later.popt) is type(first.popt)
        assert later.report().splitlines()[0] == first.report().splitlines()[0]


def test_the_function_is_hardly_called_any_more(monkeypatch):
    calls = []

    def counted(name):
        plain = getattr(OrthogonalFitter, name)

        def call(*args):
            calls.append(name)
            return plain(*args)

        monkeypatch.setattr(OrthogonalFitter, name, call)

    counted("values_at")
    counted("still_at")
    counts = []
    for seed in range(FITS):
        calls.clear()
        lmtorch.odr(decay, *data(seed), [1.0, 1.0], sx=0.05, sy=0.02)
        counts.append(len(calls))
    assert counts[0] > counts[1] > 4
    assert counts[-1] <= 2  # where it ends, and in no iteration


def test_a_changed_function_is_looked_at_anew(again):
    factor = np.array([1.0])
    x, y = data(0)

    def curve(x, a, k):
        return float(factor[0]) * a * torch.exp(-k * x)

    first = [lmtorch.odr(curve, x, y, [1.0, 1.0], sx=0.05, sy=0.02) for _ in range(FITS)][-1]
    factor[0] = 0.5
    second = lmtorch.odr(curve, x, y, [1.0, 1.0], sx=0.05, sy=0.02)
    assert len(again) == FITS - 1
    assert second["a"] == pytest.approx(2 * first["a"], rel=1e-8)


class Held:
    factor = 1.0


def test_a_change_that_nobody_sees_is_found_at_the_end(again, replayed, monkeypatch):
    monkeypatch.setattr(memory.Unchanged, "holds", lambda *_: True)
    held, (x, y) = Held(), data(0)

    def curve(x, a, k):
        return held.factor * a * torch.exp(-k * x)

    for _ in range(FITS):
        first = lmtorch.odr(curve, x, y, [1.0, 1.0], sx=0.05, sy=0.02)
    held.factor, before = 0.5, len(again)
    assert any(replayed[-3:])
    second = lmtorch.odr(curve, x, y, [1.0, 1.0], sx=0.05, sy=0.02)
    assert again[before:] == [False]
    assert second["a"] == pytest.approx(2 * first["a"], rel=1e-8)
    assert lmtorch.odr(curve, x, y, [1.0, 1.0], sx=0.05, sy=0.02)["a"] == second["a"]


def test_what_fails_says_what_it_says_the_first_time():
    x, y = data(0)
    for _ in range(3):
        lmtorch.odr(decay, x, y, [1.0, 1.0], sx=0.05, sy=0.02)
        with pytest.raises(lmtorch.NotConvergedError, match="max_nfev"):
            lmtorch.odr(decay, x, y, [1.0, 1.0], sx=0.05, sy=0.02, max_nfev=2)


def test_a_callback_sees_every_fit():
    x, y = data(0)
    counts = []
    for _ in range(FITS):
        seen = []
        lmtorch.odr(decay, x, y, [1.0, 1.0], sx=0.05, sy=0.02, callback=seen.append)
        counts.append(len(seen))
    assert len(set(counts)) == 1
    assert counts[0] > 1


def test_a_response_that_does_not_count_may_be_infinite_after_fits_where_all_do(again) -> None:
    """What is left out where each response has a weight is not left out where one has none."""

    def f(x, a, k):
        return a * torch.exp(-k * x) + torch.where(x == 0, torch.inf, 0.0)

    x, y = data(0)
    for _ in range(FITS):
        lmtorch.odr(f, x, y, [1.0, 1.0], sx=0.05, sy=0.02)
    assert again[-1]
    gone = np.arange(len(x)) == 3
    x, we = np.where(gone, 0.0, x), np.where(gone, 0.0, 2500.0)
    found = lmtorch.odr(f, x, y, [1.0, 1.0], sx=0.05, we=we)
    some = lmtorch.odr(decay, x[~gone], y[~gone], [1.0, 1.0], sx=0.05, sy=0.02)
    assert found.success
    np.testing.assert_allclose(found.popt, some.popt, rtol=1e-9)
