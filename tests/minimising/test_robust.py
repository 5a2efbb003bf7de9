"""Robust losses: scipy's minima, zeros of the robust gradient, and a scale from the data."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from lmtorch import InputError, LevenbergMarquardt, Solution, Status, least_squares
from lmtorch.losses.robust import Barron, Robust, cauchy
from lmtorch.minimising import scale

from ..references import scipy_solution
from .setting import F64, T, decay, noisy

START = [2.0, 1.0, 0.1]
SCIPYS = ("soft_l1", "huber", "cauchy", "arctan")
# written out once more, from the papers, as functions of z = (r/C)²
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "soft_l1": lambda z: 2 * ((1 + z).sqrt() - 1),
    "huber": lambda z: torch.where(z <= 1, z, 2 * z.clamp(min=1).sqrt() - 1),
    "cauchy": torch.log1p,
    "arctan": torch.arctan,
    "tukey": lambda z: (1 - (1 - z.clamp(max=1)) ** 3) / 3,
    "geman_mcclure": lambda z: z / (1 + z),
    "barron": lambda z: 2 * torch.log1p(z / 2),  # α = 0
}
ALPHAS = [2.0, 1.0, 0.5, 0.0, -2.0, -10.0, -math.inf]


def barron(alpha: float) -> Callable[[Tensor], Tensor]:
    """Barron (2019), eq. 8, times two, in r = √z with c = 1."""
    if alpha == 2:
        return lambda z: z
    if alpha == 0:
        return lambda z: 2 * torch.log(z / 2 + 1)
    if alpha == -math.inf:
        return lambda z: 2 * (1 - torch.exp(-z / 2))
    return lambda z: 2 * abs(alpha - 2) / alpha * ((z / abs(alpha - 2) + 1) ** (alpha / 2) - 1)


def contaminated(
    seed: int = 0, share: float = 0.15, size: float = 2.0, *, both: bool = False
) -> Tensor:
    """Data of a decay, some of them far above, or (with `both`) below."""
    y = noisy(seed=seed)
    generator = torch.Generator().manual_seed(seed + 100)
    chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    signs = torch.where(torch.arange(len(chosen)) % 2 == 0, 1, -1 if both else 1)
    y[chosen] += size * signs
    return y


def cost(formula: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, scale: float) -> Tensor:
    """½ Σ C² ρ((r/C)²)."""
    return 0.5 * scale**2 * formula(((decay(x) - y) / scale) ** 2).sum()


def fit(y: Tensor, **options: Any) -> Solution:
    return least_squares(lambda x: decay(x) - y, torch.tensor(START, dtype=F64), **options)


@pytest.mark.parametrize("loss", SCIPYS)
@pytest.mark.parametrize("f_scale", [0.05, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_minimum_is_scipys(loss: str, f_scale: float, seed: int) -> None:
    y = contaminated(seed)
    mine = fit(y, loss=loss, f_scale=f_scale)
    theirs = scipy_solution(lambda x: decay(x) - y, START, loss=loss, f_scale=f_scale)
    assert mine.success
    assert float(mine.cost) == pytest.approx(theirs.cost, rel=1e-9)
    # the default tolerance leaves 1e-10 of the cost, and that is the square of what it leaves of x
    np.testing.assert_allclose(mine.x, theirs.x, rtol=1e-5, atol=1e-6)
    assert mine.f_scale == f_scale


@pytest.mark.parametrize("loss", FORMULAS)
@pytest.mark.parametrize("f_scale", [0.2, 1.0])
def test_cost_and_gradient_are_those_of_the_formula_and_the_gradient_vanishes(
    loss: str, f_scale: float
) -> None:
    y = contaminated()
    solution = fit(y, loss=loss, f_scale=f_scale, ftol=1e-15, xtol=1e-15, gtol=1e-15)
    x = solution.x.clone().requires_grad_()
    value = cost(FORMULAS[loss], x, y, f_scale)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(solution.cost, value.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(solution.grad, gradient, rtol=1e-9, atol=1e-12)
    start = torch.tensor(START, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(cost(FORMULAS[loss], start, y, f_scale), start)
    assert gradient.norm() <= 1e-7 * slope.norm()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_barrons_family_is_fitted_at_every_alpha(alpha: float) -> None:
    y = contaminated()
    solution = fit(y, loss=Barron(alpha), f_scale=0.2)
    x = solution.x.clone().requires_grad_()
    value = cost(barron(alpha), x, y, 0.2)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(solution.cost, value.detach(), rtol=1e-11, atol=0)
    assert gradient.abs().max() <= 1e-6
    # the Hessian of the cost is positive: a minimum, not only a stationary point
    hessian = torch.func.hessian(lambda v: cost(barron(alpha), v, y, 0.2))(solution.x)
    assert torch.linalg.eigvalsh(hessian)[0] > 0


@pytest.mark.parametrize(
    ("alpha", "loss", "scale"), [(1.0, "soft_l1", 1.0), (-2.0, "geman_mcclure", 2.0)]
)
def test_members_of_barrons_family_are_the_named_losses(
    alpha: float, loss: str, scale: float
) -> None:
    y = contaminated()
    member = fit(y, loss=Barron(alpha), f_scale=0.2)
    named = fit(y, loss=loss, f_scale=0.2 * scale)
    torch.testing.assert_close(member.x, named.x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", ["tukey", "geman_mcclure", "barron"])
def test_losses_that_scipy_lacks_have_the_minimum_that_it_finds_by_a_function(loss: str) -> None:
    y = contaminated()

    def rows(z: np.ndarray) -> np.ndarray:
        t = torch.from_numpy(z)
        first = torch.func.grad(lambda v: FORMULAS[loss](v).sum())
        second = torch.func.grad(lambda v: first(v).sum())
        return torch.stack([FORMULAS[loss](t), first(t), second(t)]).numpy()

    mine = fit(y, loss=loss, f_scale=0.3)
    theirs = scipy_solution(lambda x: decay(x) - y, START, loss=rows, f_scale=0.3)
    assert float(mine.cost) == pytest.approx(theirs.cost, rel=1e-9)
    np.testing.assert_allclose(mine.x, theirs.x, rtol=1e-5, atol=1e-6)


def cubic_torch(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    t = 1 + z
    return 3 * (t ** (1 / 3) - 1), t ** (-2 / 3), -2 / 3 * t ** (-5 / 3)


def cubic_numpy(z: np.ndarray) -> list[np.ndarray]:
    t = 1 + np.power(z, 1.0, out=np.empty(len(z)))  # refuses tensors that need no conversion, too
    return [3 * (t ** (1 / 3) - 1), t ** (-2 / 3), -2 / 3 * t ** (-5 / 3)]


def cubic_rows(z: np.ndarray) -> np.ndarray:
    return np.stack(cubic_numpy(z))


def cubic_tensor_rows(z: Tensor) -> Tensor:
    return torch.stack(cubic_torch(z))


@pytest.mark.parametrize("loss", [cubic_torch, cubic_numpy, cubic_rows, cubic_tensor_rows])
@pytest.mark.parametrize("f_scale", [0.1, 1.0, "mad"])
def test_a_function_may_be_the_loss_in_torch_or_numpy(loss: Any, f_scale: Any) -> None:
    y = contaminated()
    mine = fit(y, loss=loss, f_scale=f_scale)
    theirs = scipy_solution(
        lambda x: decay(x) - y, START, loss=cubic_rows, f_scale=float(mine.f_scale)
    )
    np.testing.assert_allclose(mine.x, theirs.x, rtol=1e-5, atol=1e-6)


def test_an_object_may_be_the_loss() -> None:
    y = contaminated()
    named = fit(y, loss="cauchy", f_scale=0.3)
    given = fit(y, loss=Robust(cauchy, 0.3))
    torch.testing.assert_close(given.x, named.x)


@pytest.mark.parametrize(
    "loss", [lambda z: (z, z), lambda z: torch.ones(3, 1, dtype=F64),
        lambda z: np.ones((2, len(z)))],
    ids=["two rows", "short rows", "two rows of NumPy"],
)  # fmt: skip
def test_a_function_that_returns_no_three_rows_is_refused(loss: Any) -> None:
    with pytest.raises(InputError, match="It must return ρ, ρ′ and ρ″"):
        fit(contaminated(), loss=loss)


NAMED = ["soft_l1", "huber", "cauchy", "arctan", "tukey", "geman_mcclure", "barron"]


@cache
def mad(loss: str, seed: int = 0) -> Solution:
    return fit(contaminated(seed), loss=loss, f_scale="mad")


def deviation(r: Tensor, n: int) -> float:
    """Huber & Ronchetti (2009), §7.8: the median of the m − n + 1 largest |r|, for normal noise."""
    return float(np.median(np.sort(np.abs(r.numpy()))[n - 1 :]) / norm.ppf(0.75))


def efficiency(loss: str, c: float) -> float:
    """(E ψ′)² / E ψ² of normal noise, with ψ(r) = ½ d/dr C² ρ(r²/C²), by quadrature."""

    def derivatives(r: float) -> tuple[float, float]:
        t = torch.tensor(r, dtype=F64)
        psi = torch.func.grad(lambda v: 0.5 * c**2 * FORMULAS[loss]((v / c) ** 2))
        return float(psi(t)), float(torch.func.grad(psi)(t))

    kinks = [c] if loss in ("huber", "tukey") else None
    bend = quad(
        lambda r: 2 * derivatives(r)[1] * norm.pdf(r), 0, 12, points=kinks, epsabs=1e-7, epsrel=1e-7
    )[0]
    square = quad(
        lambda r: 2 * derivatives(r)[0] ** 2 * norm.pdf(r),
        0,
        12,
        points=kinks,
        epsabs=1e-7,
        epsrel=1e-7,
    )[0]
    return bend**2 / square


@pytest.mark.parametrize("loss", NAMED)
def test_the_estimated_scale_has_95_percent_efficiency_on_normal_noise(loss: str) -> None:
    solution = mad(loss)
    c = float(solution.f_scale) / deviation(solution.fun, 3)
    # the scale settles to 1e-6, and c is found to 1e-6
    assert efficiency(loss, c) == pytest.approx(0.95, abs=1e-6)


# Holland & Welsch (1977), printed to three digits
TUNINGS = {"huber": 1.345, "cauchy": 2.385, "tukey": 4.685}


@pytest.mark.parametrize("loss", TUNINGS)
@pytest.mark.parametrize("seed", range(2))
def test_the_estimated_scale_is_a_fixed_point_with_the_published_constants(
    loss: str, seed: int
) -> None:
    solution = mad(loss, seed)
    assert float(solution.f_scale) == pytest.approx(
        TUNINGS[loss] * deviation(solution.fun, 3), rel=4e-4
    )
    again = fit(contaminated(seed), loss=loss, f_scale=float(solution.f_scale))
    torch.testing.assert_close(again.x, solution.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", NAMED)
@pytest.mark.parametrize("factor", [10.0, 1e-3])
def test_the_estimated_scale_follows_the_units_of_the_data(loss: str, factor: float) -> None:
    y = contaminated()
    plain = mad(loss)
    residual = lambda x: decay(x) - factor * y
    scaled = least_squares(
        residual,
        torch.tensor([2.0 * factor, 1.0, 0.1 * factor], dtype=F64),
        loss=loss,
        f_scale="mad",
    )
    assert float(scaled.f_scale) == pytest.approx(factor * float(plain.f_scale), rel=1e-5)
    torch.testing.assert_close(scaled.x[1], plain.x[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled.x[::2] / factor, plain.x[::2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["tukey", "geman_mcclure"])
@pytest.mark.parametrize("seed", range(4))
def test_forty_percent_outliers_are_rejected(loss: str, seed: int) -> None:
    y = contaminated(seed, share=0.4, size=30.0, both=True)
    inliers = (y - decay(torch.tensor([2.5, 1.3, 0.3], dtype=F64))).abs() < 1
    assert inliers.sum() == 24
    solution = fit(y, loss=loss, f_scale="mad")
    clean = scipy_solution(lambda x: (decay(x) - y)[inliers], START)
    # within two of the standard errors that the good data leave
    J = clean.jac
    errors = np.sqrt(np.diag(np.linalg.inv(J.T @ J)) * 2 * clean.cost / (24 - 3))
    assert (np.abs(solution.x.numpy() - clean.x) <= 2 * errors).all()


def test_data_that_are_met_exactly_but_for_outliers_are_fitted_exactly() -> None:
    y = decay(torch.tensor([2.5, 1.3, 0.3], dtype=F64))
    y[::9] += 1.0
    solution = fit(y, loss="tukey", f_scale="mad")
    torch.testing.assert_close(
        solution.x, torch.tensor([2.5, 1.3, 0.3], dtype=F64), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("n", [1, 2])
def test_the_width_of_data_of_which_more_than_half_are_met_exactly_is_positive(
    n: int, dtype: torch.dtype
) -> None:
    exact = torch.zeros(9, dtype=dtype)
    outliers = torch.tensor([0, 0, 0, 0, 0, 0, 3, -5, 0.1], dtype=dtype)
    counted = torch.ones(9, dtype=torch.bool)
    widths = scale.deviation(torch.stack([exact, outliers]), n, counted.expand(2, 9))
    assert (widths > 0).all()
    assert widths[1] < 1e-3  # everything that differs is an outlier
    assert (1 / widths).isfinite().all()


@pytest.mark.parametrize("loss", ["huber", "tukey", "cauchy"])
def test_a_start_at_data_that_are_met_exactly_but_for_outliers_stays(loss: str) -> None:
    t = torch.arange(1.0, 11, dtype=F64)
    y = 2 * t
    y[::4] += 30.0
    solution = least_squares(
        lambda x: x[0] * t - y, torch.tensor([2.0], dtype=F64), loss=loss, f_scale="mad"
    )
    assert 0 < float(solution.f_scale) < 1e-6
    assert float(solution.x[0]) == pytest.approx(2, rel=1e-9)


def test_a_start_that_is_the_end_has_a_scale_to_estimate() -> None:
    # of two starts the first one is at the minimum, and has nothing left to do
    solution = least_squares(
        lambda x: x - torch.arange(5.0, dtype=F64),
        [3.0],
        bounds=(-1, 5),
        loss="huber",
        f_scale="mad",
        n_starts=2,
    )
    assert solution.x[0] == pytest.approx(2.0)
    batch = least_squares(
        lambda x, y: x - y, [[2.0], [0.0], [4.0]], in_dims=0, loss="huber", f_scale="mad",
        args=(torch.arange(5.0, dtype=F64) * torch.tensor([[1.0], [0.0], [3.0]], dtype=F64),),
    )  # fmt: skip
    np.testing.assert_allclose(batch.x[:, 0], [2.0, 0.0, 6.0], atol=1e-9)


@pytest.mark.parametrize(
    "loss", [*NAMED, lambda z: (torch.log1p(z), 1 / (1 + z), -1 / (1 + z) ** 2)]
)
@pytest.mark.parametrize("f_scale", [1e120, 1e200, 1e308])
def test_a_scale_beyond_all_residuals_is_least_squares(loss: Any, f_scale: float) -> None:
    y = contaminated()
    torch.testing.assert_close(fit(y, loss=loss, f_scale=f_scale).x, fit(y).x, rtol=1e-9, atol=1e-9)
    theta = torch.ones(1, dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt([theta], loss=loss, loss_scale=f_scale)
    opt.step(lambda: theta - torch.arange(5.0, dtype=F64))
    assert theta.item() == pytest.approx(2.0)


def test_least_squares_has_no_scale_to_estimate() -> None:
    y = contaminated()
    torch.testing.assert_close(fit(y, f_scale="mad").x, fit(y).x, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(2))
def test_outliers_pull_robust_fits_less(seed: int) -> None:
    truth = torch.tensor([2.5, 1.3, 0.3], dtype=F64)
    y = contaminated(seed)
    plain = (fit(y).x - truth).norm()
    # from far off the others may end in a minimum on outliers
    for loss in ("soft_l1", "huber", "cauchy", "barron"):
        assert (fit(y, loss=loss, f_scale=0.1).x - truth).norm() < plain, loss


def test_a_loss_that_rejects_every_residual_is_no_success() -> None:
    solution = least_squares(
        lambda x: x - torch.tensor([5.0, 6.0]), torch.zeros(2), loss="tukey", f_scale=0.1
    )
    assert solution.status is Status.FLAT
    assert "f_scale" in solution.message


def test_huber_comes_to_rest_on_its_straight_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, 30, dtype=F64)
    y = 1 + 2 * t + 0.1 * torch.randn(300, 30, dtype=F64, generator=generator)
    y[torch.rand(300, 30, generator=generator) < 0.1] += 1
    solution = least_squares(
        lambda x, y: x[0] + x[1] * t - y, torch.zeros(2, dtype=F64), args=(y,), in_dims=(None, 0),
        loss="huber",
        f_scale=0.15,
    )  # fmt: skip
    assert solution.success.all()  # no digits are lost to rows whose curvature is gone


def test_black_boxes_are_fitted_robustly_too() -> None:
    y = contaminated().numpy()
    t = T.numpy()
    residual = lambda x: x[0] * np.exp(-x[1] * t) + x[2] - y
    mine = least_squares(residual, START, "3-point", loss="cauchy", f_scale=0.2)
    theirs = scipy.optimize.least_squares(
        residual, START, "3-point", loss="cauchy", f_scale=0.2, ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    np.testing.assert_allclose(mine.x, theirs.x, rtol=1e-5)
