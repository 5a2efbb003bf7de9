"""The Faddeeva function and the Voigt profile: values over the plane, limits, derivatives."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from lmtorch import InputError
from lmtorch.calculus.faddeeva import POINTS, profiles
from lmtorch.calculus.slopes import erfcx
from lmtorch.calculus.slopes import voigt_profile as slopes
from lmtorch.calculus.special import faddeeva, voigt_profile

F64 = torch.float64
QUADRANTS = [(1, 1), (-1, 1), (1, -1), (-1, -1)]
CLOSE = 1e-13  # what scipy's function is said to be right to


def plane() -> Any:
    """Points of the first quadrant: all sizes, near both axes, and where the method changes."""
    size = np.concatenate([[0.0], np.logspace(-300, 300, 61), np.logspace(-3, 2, 120)])
    x, y = (part.ravel() for part in np.meshgrid(size, size))
    generator = np.random.default_rng(0)
    near = generator.uniform(0, 8, (2, 20_000))
    h = math.sqrt(math.pi / 14)
    nodes = np.arange(30) * h / 4
    a, b = (part.ravel() for part in np.meshgrid(nodes, [0.0, 1e-12, 1e-3, h, 6.6, 6.7]))
    return np.concatenate([x + 1j * y, near[0] + 1j * near[1], a + 1j * b])


PLANE = plane()


def w(z: Any) -> Any:
    """The function of an array of complex numbers."""
    return faddeeva(torch.tensor(z)).numpy()


@pytest.mark.parametrize("signs", QUADRANTS, ids=str)
def test_it_is_scipys_over_the_plane(signs: tuple[int, int]) -> None:
    z = signs[0] * PLANE.real + 1j * (signs[1] * PLANE.imag)
    theirs = scipy.special.wofz(z)
    known = np.isfinite(theirs)  # the others overflow, as e^(y² − x²) does
    ours = w(z)
    # below the axis it has zeros, where 2 exp(−z²) and w(−z) cancel
    size = np.abs(theirs)
    if signs[1] < 0:
        size = size + np.abs(scipy.special.wofz(-z))
    assert (np.abs(ours - theirs)[known] <= CLOSE * size[known]).all()
    assert not np.isfinite(ours[~known]).any()


def test_both_parts_have_all_their_digits_above_the_axis() -> None:
    """scipy's own parts are right to some 1e-12 near the axes: these are of 40 digits."""
    generator = np.random.default_rng(1)
    z = 10 ** generator.uniform(-4, 3, 60) * np.exp(0.5j * np.pi * generator.uniform(0, 1, 60))
    thin = 10 ** generator.uniform(-3, 1.5, 60) + 1j * 10 ** generator.uniform(-12, 1, 60)
    for point, found in zip(np.concatenate([z, thin]), w(np.concatenate([z, thin])), strict=True):
        with mpmath.workdps(40):
            c = mpmath.mpc(point)
            right = mpmath.exp(-c * c) * mpmath.erfc(-1j * c)
        assert abs(found.real - right.real) <= 1e-14 * right.real
        assert abs(found.imag - right.imag) <= 1e-14 * abs(right.imag)


def test_on_the_real_axis_it_is_a_gaussian_and_dawsons_integral() -> None:
    x = np.concatenate([-np.logspace(-5, 5, 200), np.linspace(-30, 30, 301)])
    found = w(x + 0j)
    np.testing.assert_allclose(found.real, np.exp(-(x**2)), 1e-15, 1e-300)
    dawson = 2 / math.sqrt(math.pi) * scipy.special.dawsn(x)
    np.testing.assert_allclose(found.imag, dawson, 5e-14, 1e-300)
    real = faddeeva(torch.tensor(x))  # of real numbers
    np.testing.assert_array_equal(real.numpy(), found)


@pytest.mark.parametrize("n", range(5))
def test_derivatives_are_those_of_the_recurrence_in_many_digits(n: int) -> None:
    generator = np.random.default_rng(2)
    size = 10 ** generator.uniform(-3, 4, 60)
    z = size * np.exp(1j * np.pi * generator.uniform(0, 1, 60))
    x, y = torch.tensor(z.real), torch.tensor(z.imag)
    real, imag = profiles(x, y, torch.ones_like(x), n + 1)[n]
    for k, point in enumerate(z):
        with mpmath.workdps(60):
            c = mpmath.mpc(point)
            found = [mpmath.exp(-c * c) * mpmath.erfc(-1j * c)]
            found.append(-2 * c * found[0] + 2j / mpmath.sqrt(mpmath.pi))
            while len(found) <= n:
                found.append(-2 * c * found[-1] - 2 * (len(found) - 1) * found[-2])
            right = found[n] / mpmath.sqrt(mpmath.pi)
            error = abs(mpmath.mpc(float(real[k]), float(imag[k])) - right)
        # the error of the rule grows with the weight t^2n that the n-th derivative has
        assert error <= 1e-14 * 10 ** max(0, n - 2) ** 1.5 * abs(right)


def test_single_precision_has_its_digits() -> None:
    z = np.concatenate([PLANE[np.abs(PLANE) < 1e15], [1e-30 + 1e-25j]])
    z = z[(np.abs(z) > 1e-30) | (z == 0)]
    found = faddeeva(torch.tensor(z, dtype=torch.complex64))
    assert found.dtype == torch.complex64
    theirs = scipy.special.wofz(z.astype(np.complex64).astype(np.complex128))
    assert (np.abs(found.numpy() - theirs) <= 1e-5 * np.abs(theirs)).all()


def test_many_points_are_those_of_a_few() -> None:
    count = POINTS["cpu"] + 77
    z = torch.complex(torch.linspace(-9, 9, count, dtype=F64), torch.full((count,), 0.3, dtype=F64))
    z = z.reshape(1, -1)
    some = z[:, ::1000]
    torch.testing.assert_close(faddeeva(z)[:, ::1000], faddeeva(some), rtol=1e-14, atol=0)


@pytest.mark.parametrize("given", ["2", [1.0], torch.ones(2, dtype=torch.int64)])
def test_what_is_no_complex_number_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="complex or real numbers"):
        faddeeva(given)


# ---- derivatives ---------------------------------------------------------------------------------

CASES = torch.tensor(
    [
        # x, sigma, gamma
        [0.0, 0.5, 0.2],
        [1.0, 1.0, 1e-9],
        [-3.0, 2.0, 3.0],
        [20.0, 0.1, 0.5],
        [0.3, 1e-3, 0.4],
        [0.4, 1.0, 0.0],
        [0.2, 0.7, -0.3],
    ],
    dtype=F64,
)


def test_autograd_and_the_transforms_find_all_derivatives() -> None:
    given = tuple(part.clone().requires_grad_() for part in CASES.T)
    assert torch.autograd.gradcheck(voigt_profile, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(voigt_profile, given)
    z = torch.tensor([1 + 1j, 3 - 0.5j, -2 + 0.1j, 0.1 + 8j], dtype=torch.complex128)
    assert torch.autograd.gradcheck(faddeeva, z.requires_grad_(), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(faddeeva, z)


WAYS: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "forward over reverse": torch.func.hessian,
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
    "reverse over reverse": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
}


@pytest.mark.parametrize("way", WAYS)
def test_second_derivatives_are_those_in_closed_form(way: str) -> None:
    """One that is zero in silence, where transforms are nested, would be found here."""

    def value(p: Tensor) -> Tensor:
        found: Tensor = voigt_profile(p[0], p[1], p[2])
        return found

    found = torch.func.vmap(WAYS[way](value))(CASES)
    aa, ab, ac, bb, bc, cc = slopes(*CASES.T).curvatures()
    closed = torch.stack([aa, ab, ac, ab, bb, bc, ac, bc, cc], -1).reshape(-1, 3, 3)
    size = closed.abs().amax((-1, -2), keepdim=True)
    torch.testing.assert_close(found / size, closed / size, rtol=0, atol=1e-11)


def test_slopes_are_those_of_many_digits_also_far_out() -> None:
    """The recurrence −2zw + 2i/√π would have no digit left at z = 1e9."""
    for x, sigma, gamma in [(0.3, 1.0, 0.5), (1e9, 1.0, 0.5), (2.0, 1e-6, 0.1), (5.0, 1.0, 1e-8)]:

        def profile(a: Any, s: Any, g: Any) -> Any:
            z = mpmath.mpc(a, g) / (mpmath.sqrt(2) * s)
            w = mpmath.exp(-z * z) * mpmath.erfc(-1j * z) if abs(z) < 1e3 else _far(z)
            return w.real / (s * mpmath.sqrt(2 * mpmath.pi))

        with mpmath.workdps(80):
            right = [
                float(mpmath.diff(profile, (x, sigma, gamma), n))
                for n in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
            ]
        found = slopes(*(torch.tensor(v, dtype=F64) for v in (x, sigma, gamma))).slopes
        np.testing.assert_allclose([float(v) for v in found], right, 1e-13)


def _far(z: Any) -> Any:
    """Abramowitz & Stegun 7.1.23, at |z| > 1000: twelve terms are 70 digits."""
    terms = [mpmath.fac2(2 * k - 1) / (2 * z * z) ** k for k in range(1, 13)]
    return 1j / (mpmath.sqrt(mpmath.pi) * z) * (1 + sum(terms))


# ---- limits --------------------------------------------------------------------------------------


def test_without_gamma_it_is_a_gaussian_and_without_sigma_a_lorentzian() -> None:
    x = torch.linspace(-6, 6, 41, dtype=F64)
    gauss = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(voigt_profile(x, 1.0, 0.0), gauss, rtol=1e-14, atol=0)
    lorentz = 0.5 / (math.pi * (x * x + 0.25))
    for sigma in (0.0, 1e-200, 1e-12):
        torch.testing.assert_close(voigt_profile(x, sigma, 0.5), lorentz, rtol=1e-14, atol=0)


def test_at_the_limits_derivatives_are_finite_and_right() -> None:
    x = torch.tensor([0.0, 0.4, 2.0, 30.0], dtype=F64)
    zero, one = torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64)
    # σ = 0: V_σ = 0, V_γ = (x² − γ²) / (π (x² + γ²)²)
    _, of_sigma, of_gamma = slopes(x, zero, 0.3 * one).slopes
    torch.testing.assert_close(of_sigma, zero)
    square = x * x + 0.09
    torch.testing.assert_close(
        of_gamma, (x * x - 0.09) / (math.pi * square * square), rtol=1e-13, atol=0
    )
    # γ = 0: V_γ is the derivative of Dawson's integral, here by its equation D′ = 1 − 2uD
    of_x, of_sigma, of_gamma = slopes(x, one, zero).slopes
    gauss = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(of_x, -x * gauss, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_sigma, (x * x - 1) * gauss, rtol=1e-12, atol=1e-300)
    dawson = torch.tensor(scipy.special.dawsn(x.numpy() / math.sqrt(2)))
    rise = -(1 - math.sqrt(2) * x * dawson) / math.pi
    torch.testing.assert_close(of_gamma, rise, rtol=1e-12, atol=0)  # 1 − 2uD cancels at x = 30


def test_it_is_even_in_sigma_and_has_a_width_of_zero_nowhere_but_at_the_centre() -> None:
    x = torch.tensor([0.0, 0.7, -2.0], dtype=F64)
    assert torch.equal(voigt_profile(x, -1.3, 0.2), voigt_profile(x, 1.3, 0.2))
    found = voigt_profile(x, 0.0, 0.0)
    assert found[0].isnan()
    assert torch.equal(found[1:], torch.zeros(2, dtype=F64))


def test_numbers_take_the_dtype_of_the_tensors_and_integers_are_made_real() -> None:
    x = torch.tensor([0.5], dtype=torch.float32)
    assert voigt_profile(x, 1.0, 0.5).dtype == torch.float32
    assert voigt_profile(x, torch.tensor([1.0], dtype=F64), 0.5).dtype == F64
    assert voigt_profile(torch.tensor([1]), 1, 1).dtype == torch.get_default_dtype()


def test_it_runs_where_its_arguments_are(elsewhere: torch.device) -> None:
    x = torch.linspace(-2, 2, 9, dtype=F64)
    there = voigt_profile(x.to(elsewhere), 1.0, 0.3)
    assert there.device.type == elsewhere.type
    torch.testing.assert_close(there.cpu(), voigt_profile(x, 1.0, 0.3), rtol=1e-14, atol=0)


def test_the_derivatives_of_erfcx_keep_their_digits() -> None:
    z = torch.tensor([-3.0, 0.0, 2.0, 19.9, 20.1, 300.0, 1e8], dtype=F64)
    found = erfcx(z)
    for k, point in enumerate(z.tolist()):
        with mpmath.workdps(60):
            c = mpmath.mpf(point)
            value = mpmath.exp(c * c) * mpmath.erfc(c) if c < 1e4 else _far(1j * c)
            right = mpmath.re(2 * c * mpmath.re(value) - 2 / mpmath.sqrt(mpmath.pi))
        # 2zy − 2/√π cancels by 2z² where the series does not yet serve
        assert abs(float(found.slope[k]) - right) <= 1e-12 * abs(right)
