"""Every example runs, at a small size, and ends where it should."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

import lmtorch
from examples import (
    burgers,
    curve_fit_nist,
    data_loader,
    demo,
    diffusion_tensor,
    digits,
    ellipse,
    enzyme_kinetics,
    fit_layer,
    global_fit,
    helmholtz,
    image_stack,
    inverse_burgers,
    own_damping,
    physics,
    poisson_1d,
    poisson_2d,
    regression_table,
    resume_checkpoint,
    robust_fit,
    shapes,
    sinc_network,
    spectrum_peak,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def test_an_ellipse_is_found_within_its_errors(tmp_path: Path) -> None:
    assert ellipse.main(tmp_path) < 3
    assert (tmp_path / "ellipse.png").stat().st_size > 10_000


def test_the_curve_fit_agrees_with_the_certificate(tmp_path: Path) -> None:
    assert curve_fit_nist.main(tmp_path) >= 9
    assert (tmp_path / "curve_fit_nist.png").stat().st_size > 10_000


def test_the_network_comes_closer_to_the_sinc_than_the_noise(tmp_path: Path) -> None:
    assert sinc_network.main(tmp_path, samples=2_000, steps=15) < 0.05  # half the noise of the data
    assert (tmp_path / "sinc_network.png").stat().st_size > 10_000


def test_every_shape_is_found_from_its_guess(tmp_path: Path) -> None:
    assert shapes.main(tmp_path) == len(shapes.SHAPES)
    assert (tmp_path / "shapes.png").stat().st_size > 10_000


def test_the_table_is_predicted_better_than_by_a_line(tmp_path: Path) -> None:
    (x, y), (x_test, y_test), unit = regression_table.data()
    line = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    left = y_test - torch.cat([x_test, torch.ones(len(x_test), 1)], 1) @ line
    assert regression_table.main(tmp_path, steps=10) < 0.75 * unit * float(
        left.square().mean().sqrt()
    )
    assert (tmp_path / "regression_table.png").stat().st_size > 10_000


def test_a_table_from_its_file_is_fitted_as_well_as_one_in_memory() -> None:
    (x, y), _, unit = regression_table.data()
    columns = torch.cat([x, torch.ones(len(x), 1)], 1)
    left = y - columns @ torch.linalg.lstsq(columns, y).solution
    assert data_loader.main(steps=8, workers=0) < 0.6 * unit * float(left.square().mean().sqrt())


def test_digits_are_recognised() -> None:
    assert digits.main() >= 0.98


def test_tensors_are_those_of_a_regression_of_logarithms(tmp_path: Path) -> None:
    for _ in range(2):  # the second finds the store
        success, apart = diffusion_tensor.main(tmp_path)
        assert success == 1.0
        assert apart < 0.5  # of an error: noise biases logarithms by less
    assert (tmp_path / "diffusion_tensor.png").stat().st_size > 10_000


def test_the_anisotropy_of_a_sphere_and_of_a_line_is_known() -> None:
    sphere = torch.tensor([2.0, 2, 2, 0, 0, 0], dtype=torch.float64)
    line = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert float(diffusion_tensor.anisotropy(sphere)) == pytest.approx(0, abs=1e-12)
    assert float(diffusion_tensor.anisotropy(line)) == pytest.approx(1)


def test_an_own_damping_reaches_the_minimum() -> None:
    steps = own_damping.main()
    assert set(steps) == {"delayed gratification", "nielsen", "trust region"}
    assert max(steps.values()) < 400


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    assert resume_checkpoint.main(tmp_path, samples=1_000, steps=3)


def test_the_peak_is_a_pseudo_voigt(tmp_path: Path) -> None:
    assert spectrum_peak.main(tmp_path) > 100  # by AIC: 10 would be decisive
    assert (tmp_path / "spectrum_peak.png").stat().st_size > 10_000


def test_a_gaussian_peak_is_that_of_lmfits_documentation() -> None:
    fit = spectrum_peak.fit(spectrum_peak.gaussian, fixed={"offset": 0.0})
    assert fit.chisqr == pytest.approx(29.9943157, abs=1e-7)
    assert fit.aic == pytest.approx(-1033.77437, abs=1e-5)
    # lmfit stops at 1e-8, by differences
    assert fit["center"] == pytest.approx(9.24277046, abs=1e-6)
    assert fit["fwhm"] == pytest.approx(2.90157379, abs=1e-5)
    assert fit.stderr[fit.names.index("fwhm")] == pytest.approx(0.01736695, rel=1e-4)


def test_the_michaelis_constant_and_its_profile_are_known(tmp_path: Path) -> None:
    assert enzyme_kinetics.main(tmp_path, samples=200) < 1e-5  # the digits that are known
    assert (tmp_path / "enzyme_kinetics.png").stat().st_size > 10_000


def test_the_profile_of_the_michaelis_constant_is_that_of_linear_regressions() -> None:
    c, y = enzyme_kinetics.CONCENTRATION, enzyme_kinetics.RATE
    fit = lmtorch.curve_fit(enzyme_kinetics.michaelis_menten, c, y, p0=[200, 0.1])

    def chisqr(k_m: float) -> float:
        """Least over v_max, which is linear."""
        curve = c / (k_m + c)
        return float(y @ y - (curve @ y) ** 2 / (curve @ curve))

    for end in fit.profile().intervals["k_m"]:
        rise = (chisqr(end) - chisqr(fit["k_m"])) / (chisqr(fit["k_m"]) / 10)
        # Student's t of 10; ends are interpolated
        assert rise == pytest.approx(2.228138852**2, rel=2e-3)


def test_a_shared_shape_narrows_the_duration_of_the_transit(tmp_path: Path) -> None:
    assert global_fit.main(tmp_path) > 1.4
    assert (tmp_path / "global_fit.png").stat().st_size > 10_000


def test_the_transits_came_when_the_ephemeris_said_and_are_as_deep_as_the_planet() -> None:
    hours, flux, error = global_fit.read()
    shared = global_fit.SHARED["shape and time"]
    fit = lmtorch.curve_fit(
        global_fit.transit, hours, flux, p0=global_fit.START, sigma=error, shared=shared
    )
    assert abs(fit["mid"]) < 3 * fit.stderr[fit.names.index("mid")]
    # Brahm et al. (2018)
    assert abs(fit["depth"] - 1e3 * 0.1088**2) < 3 * fit.stderr[fit.names.index("depth")]


def test_tukeys_loss_does_not_see_the_outliers(tmp_path: Path) -> None:
    assert robust_fit.main(tmp_path) > 20
    assert (tmp_path / "robust_fit.png").stat().st_size > 10_000


def test_pixels_are_fitted_as_well_as_by_scipy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image_stack.main(tmp_path, copies=2) >= 0.95  # biexponentials have local minima
    assert (tmp_path / "image_stack.png").stat().st_size > 10_000
    rows = {
        line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line
    }
    # medians
    np.testing.assert_allclose(*np.array([rows["value"], rows["SciPy"]], dtype=float), rtol=0.02)


def test_the_network_in_front_of_the_fit_learns_the_correction(tmp_path: Path) -> None:
    assert fit_layer.main(tmp_path, steps=5) > 100
    assert (tmp_path / "fit_layer.png").stat().st_size > 10_000


def test_the_demo_names_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(tmp_path)
    printed = capsys.readouterr().out
    for name in ("curve_fit_nist.png", "sinc_network.png"):
        assert str(tmp_path / name) in printed


# ---- physics-informed ----------------------------------------------------------------------------


class Solution(torch.nn.Module):
    """A known solution where a network is expected, (points, d) to (points, 1)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).reshape(len(x), 1)


@pytest.mark.parametrize(
    ("example", "solution", "rounding"),
    [
        (poisson_1d, poisson_1d.solution, 1e-10),
        (poisson_2d, poisson_2d.solution, 1e-12),
        (helmholtz, helmholtz.solution, 1e-11),
        # exp(1/πν) in the weights: second derivatives cancel to ten digits
        (burgers, burgers.cole_hopf, 2e-6),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_solution_solves_the_terms_of_its_example(
    example: Any, solution: Any, rounding: float
) -> None:
    net = Solution(solution)
    for closure, *batch in example.terms(net):
        if example is burgers:
            batch = (
                [tx.clamp(min=1e-3) for tx in batch[:1]]
                if closure.__name__ == "equation"
                else batch
            )
        assert float(closure(*batch).detach().abs().max()) < rounding
    assert example.error(net) < 1e-14


def test_the_solution_of_burgers_equation_is_that_of_quadrature() -> None:
    t, x, nu = 0.5, 0.3, burgers.VISCOSITY

    def weight(y: float) -> float:
        return math.exp(
            -(1 + math.cos(math.pi * y)) / (2 * math.pi * nu) - (x - y) ** 2 / (4 * nu * t)
        )

    options = {"limit": 1000, "epsabs": 0, "epsrel": 1e-13, "points": [x, 1, -1]}
    above, _ = integrate.quad(lambda y: math.sin(math.pi * y) * weight(y), -2, 3, **options)
    below, _ = integrate.quad(weight, -2, 3, **options)
    found = burgers.cole_hopf(torch.tensor([[t, x]], dtype=torch.float64))
    assert float(found) == pytest.approx(-above / below, rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "steps", "error"),
    [(poisson_1d, 250, 1e-5), (poisson_2d, 150, 1e-6), (inverse_burgers, 120, 1e-3)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_levenberg_marquardt_solves_the_equation(example: Any, steps: int, error: float) -> None:
    run = physics.train(example.PROBLEM, "Levenberg–Marquardt", math.inf, steps)
    assert run.errors[-1] < error
    if example is inverse_burgers:
        assert (
            abs(float(run.network.log_viscosity.detach().exp()) - inverse_burgers.BEST)
            < inverse_burgers.STDERR
        )


@pytest.mark.parametrize(
    "example",
    [poisson_1d, poisson_2d, helmholtz, burgers, inverse_burgers],
    ids=lambda e: e.__name__,
)
def test_methods_are_compared_in_a_table_and_a_picture(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example.main(tmp_path, seconds=0.3)
    printed = capsys.readouterr().out
    assert all(f"\n{method}" in printed for method in physics.METHODS)
    picture = tmp_path / f"{example.__name__.rpartition('.')[2]}.png"
    assert str(picture) in printed
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("method", physics.METHODS)
def test_every_method_lowers_the_loss(method: str) -> None:
    net = poisson_1d.PROBLEM.network()
    before = physics.loss(poisson_1d.terms(net)).item()
    run = physics.train(poisson_1d.PROBLEM, method, math.inf, 30)
    assert physics.loss(poisson_1d.terms(run.network)).item() < before
    assert run.steps == 30
