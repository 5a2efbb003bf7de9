"""Fits in float32 that have ended short of their minimum say so; those that have not are silent."""

import re
import warnings
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeWarning
from torch import Tensor

import lmtorch
from lmtorch.fitting.doubts import stopped_short
from lmtorch.fitting.doubts.stopped_short import shares, steps

SINGLE = torch.finfo(torch.float32).eps


def bumps(x: Tensor, *parameters: Tensor) -> Tensor:
    """Gaussians side by side, which overlap: heights first, then centers."""
    height, center = torch.stack(parameters).chunk(2)
    width = 0.8 / len(height)
    return (height * torch.exp(-0.5 * ((x[:, None] - center) / width) ** 2)).sum(1)


def measured(count: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """x and y of so many Gaussians, and what they are made of."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 12 * count, dtype=torch.float64)
    height = 1 + torch.rand(count, generator=generator, dtype=torch.float64)
    center = torch.linspace(0.02, 0.98, count, dtype=torch.float64)
    truth = torch.cat([height, center])
    scatter = torch.randn(len(x), generator=generator, dtype=torch.float64)
    return x, bumps(x, *truth) + noise * scatter, truth


@cache
def in_float32(count: int, noise: float) -> tuple[float, list[str]]:
    """How many standard errors float32 is off where float64 ends, and what was said of it."""
    x, y, truth = measured(count, noise)
    fine = lmtorch.curve_fit(bumps, x, y, p0=truth)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        coarse = lmtorch.curve_fit(bumps, x.float(), y.float(), p0=truth.float())
    moved = float(((coarse.popt.double() - fine.popt).abs() / fine.stderr).max())
    return moved, [str(one.message) for one in said if one.category is OptimizeWarning]


@pytest.mark.parametrize(
    ("count", "noise"),
    [(5, 1e-4), (20, 1e-4), pytest.param(20, 1e-3, marks=pytest.mark.slow), (33, 1e-4)],
)
def test_a_fit_that_says_nothing_is_where_float64_ends(count: int, noise: float) -> None:
    moved, said = in_float32(count, noise)
    assert said or moved < 0.2


def test_one_that_has_ended_short_is_told_of_with_how_far_it_is_off() -> None:
    moved, said = in_float32(33, 1e-4)
    pattern = re.compile(r"ended short of its minimum: p\d+ is off by some")
    assert any(map(pattern.search, said))
    assert moved > 0.1


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("seed", range(3))
def test_ordinary_fits_are_silent(noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 10, 200, dtype=torch.float64)
    model = lmtorch.models.Gaussian() + lmtorch.models.Linear()
    y = model(x, amplitude=5.0, center=5.0, sigma=0.7, slope=0.2, intercept=1.0)
    y = y + noise * torch.randn(200, generator=generator, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmtorch.curve_fit(model, x.float(), y.float())


def test_what_is_held_and_errors_that_are_given_count() -> None:
    x, y, truth = measured(33, 1e-3)
    bounds = (truth.float() - 10, truth.float() + 10)
    with pytest.warns(OptimizeWarning, match="ended short"):
        lmtorch.curve_fit(
            bumps, x.float(), y.float(), p0=truth.float(), sigma=1e-3, absolute_sigma=True
        )
    with pytest.warns(OptimizeWarning, match="ended short"):
        lmtorch.curve_fit(bumps, x.float(), y.float(), p0=truth.float(), bounds=bounds)
    with warnings.catch_warnings():  # errors so large that what is missing is nothing beside them
        warnings.simplefilter("error")
        lmtorch.curve_fit(
            bumps, x.float(), y.float(), p0=truth.float(), sigma=1.0, absolute_sigma=True
        )


def test_steps_are_those_of_least_squares_without_what_rounding_has_left_nothing_of() -> None:
    generator = torch.Generator().manual_seed(1)
    jacobian = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    jacobian = jacobian * torch.tensor([1.0, 1e6, 1e-5, 1.0], dtype=torch.float64)
    residual = torch.randn(30, generator=generator, dtype=torch.float64)
    step, error = steps(residual, jacobian, SINGLE)
    expected = torch.linalg.lstsq(jacobian, residual[:, None]).solution[:, 0]
    inverse = torch.linalg.pinv(jacobian, rtol=1e-15)
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(error, inverse.norm(dim=1), rtol=1e-6, atol=0)
    jacobian[:, 3] = jacobian[:, 0] * (1 + 1e-9 * residual)  # no more than rounding
    step, error = steps(residual, jacobian, SINGLE)
    kept = torch.linalg.lstsq(jacobian[:, :3], residual[:, None]).solution[:, 0]
    torch.testing.assert_close(step[1:3], kept[1:], rtol=1e-6, atol=0)
    torch.testing.assert_close(step[0] + step[3], kept[0], rtol=1e-6, atol=0)


def test_what_is_held_at_a_bound_has_not_ended_short() -> None:
    x = torch.linspace(0, 1, 50)
    y = 1 + 2 * x + 0.1 * torch.sin(9 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(
            lambda x, a, b: a + b * x, x, y, p0=[1.0, 1.0], bounds=([-9, -9], [9, 1.5])
        )
    assert float(fit.popt[1]) == 1.5  # and the cost would fall beyond


# ---- batches -------------------------------------------------------------------------------------


def sigmoids(noise: float, count: int = 50) -> tuple[Tensor, Tensor]:
    """x and y of a batch of sigmoids, between 0 and 100 to 200."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 10, 60, dtype=torch.float64)
    height, center, width = torch.rand(3, count, 1, generator=generator, dtype=torch.float64)
    y = 100 * (1 + height) * torch.sigmoid((x - 4 - 2 * center) / (0.5 + width))
    return x, y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)


def sigmoid(x: Tensor, height: Tensor, center: Tensor, width: Tensor, offset: Tensor) -> Tensor:
    return height * torch.sigmoid((x - center) / width) + offset


BEGIN = [100.0, 5.0, 1.0, 0.001]
WIDE = ([0.0, 0.0, 0.0, -10.0], [1e3, 10.0, 10.0, 10.0])


def off_by(noise: float, **options: Any) -> tuple[list[str], Tensor]:
    """What a batch in float32 says, and standard errors by which its parameters are off, (b,)."""
    x, y = sigmoids(noise)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        coarse = lmtorch.curve_fit(sigmoid, x.float(), y.float(), BEGIN, **options)
    fine = lmtorch.curve_fit(sigmoid, x, y.float().double(), BEGIN, **options)
    moved = ((coarse.popt.double() - fine.popt).abs() / fine.stderr).amax(-1)
    return [str(warning.message) for warning in said], moved


@pytest.mark.parametrize("bounds", [None, WIDE], ids=["free", "in a box"])
def test_a_batch_that_has_ended_short_says_of_how_many_and_by_how_much(bounds: Any) -> None:
    said, moved = off_by(1e-4, **({} if bounds is None else {"bounds": bounds}))
    (text,) = said
    found = re.match(r"(\d+) of (\d+) fits that were looked at .* by up to ([\d.]+) of a", text)
    assert found is not None
    short, looked, most = int(found[1]), int(found[2]), float(found[3])
    assert 0 < short <= int((moved > 0.1).sum())
    assert looked == len(moved)
    assert most == pytest.approx(float(moved.max()), rel=0.3)


@pytest.mark.parametrize("noise", [1e-2, 1.0])
def test_ordinary_batches_are_silent(noise: float) -> None:
    said, moved = off_by(noise)
    assert not said
    assert bool((moved < 0.1).all())


def test_errors_of_a_batch_that_are_given_count() -> None:
    said, _ = off_by(1e-4, sigma=1e-4, absolute_sigma=True)
    assert "ended short" in said[0]
    assert not off_by(1e-4, sigma=1.0, absolute_sigma=True)[0]


def test_a_batch_in_float64_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sigmoids(1e-4)
    monkeypatch.setattr(stopped_short, "shares", lambda *_: pytest.fail("looked at"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmtorch.curve_fit(sigmoid, x, y, BEGIN)


@given(st.integers(0, 1000))
def test_shares_of_a_batch_are_those_of_its_fits(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(3, 12, generator=generator)
    jacobian = torch.randn(3, 12, 2, generator=generator)
    x, size = torch.randn(3, 2, generator=generator), torch.ones(3, dtype=torch.float64)
    sigma = torch.rand(3, generator=generator, dtype=torch.float64)
    jacobian[1, :, 0] = 0  # it is held
    whole = shares(residual, jacobian, x, sigma, size)
    for i in range(3):
        one = slice(i, i + 1)
        alone = shares(residual[one], jacobian[one], x[one], sigma[one], size[one])
        torch.testing.assert_close(whole[one], alone)
    assert whole[1, 0] == 0
    step = torch.linalg.lstsq(jacobian[0].double(), residual[0, :, None].double()).solution[:, 0]
    error = torch.linalg.inv(jacobian[0].double().mT @ jacobian[0].double()).diagonal().sqrt()
    torch.testing.assert_close(whole[0], step.abs() / error / sigma[0] * (whole[0] > 0))


def test_a_batch_on_another_device_is_looked_at_as_well(device: torch.device) -> None:
    x, y = sigmoids(1e-4)
    sigma = torch.full((60,), 1e-4, device=device)
    for options in ({}, {"bounds": WIDE}, {"sigma": sigma}):
        with pytest.warns(OptimizeWarning, match=r"\d+ of 50 fits that were looked at"):
            lmtorch.curve_fit(sigmoid, x.float().to(device), y.float().to(device), BEGIN, **options)
