"""Every example runs, at a small size, and ends where it should."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lmtorch
from examples import (
    curve_fit_nist,
    demo,
    enzyme_kinetics,
    fit_layer,
    global_fit,
    image_stack,
    own_damping,
    regression_table,
    resume_checkpoint,
    robust_fit,
    sinc_network,
    spectrum_peak,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def test_the_curve_fit_agrees_with_the_certificate(tmp_path: Path) -> None:
    assert curve_fit_nist.main(tmp_path) >= 9
    assert (tmp_path / "curve_fit_nist.png").stat().st_size > 10_000


def test_the_network_comes_closer_to_the_sinc_than_the_noise(tmp_path: Path) -> None:
    assert sinc_network.main(tmp_path, samples=2_000, steps=15) < 0.05  # half the noise of the data
    assert (tmp_path / "sinc_network.png").stat().st_size > 10_000


def test_the_table_is_predicted_better_than_by_a_line(tmp_path: Path) -> None:
    (x, y), (x_test, y_test), unit = regression_table.data()
    line = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    left = y_test - torch.cat([x_test, torch.ones(len(x_test), 1)], 1) @ line
    assert regression_table.main(tmp_path, steps=10) < 0.75 * unit * float(left.square().mean().sqrt())
    assert (tmp_path / "regression_table.png").stat().st_size > 10_000


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
    assert fit["center"] == pytest.approx(9.24277046, abs=1e-6)  # lmfit stops at 1e-8, by differences
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
        assert rise == pytest.approx(2.228138852**2, rel=2e-3)  # Student's t of 10; ends are interpolated


def test_a_shared_shape_narrows_the_duration_of_the_transit(tmp_path: Path) -> None:
    assert global_fit.main(tmp_path) > 1.4
    assert (tmp_path / "global_fit.png").stat().st_size > 10_000


def test_the_transits_came_when_the_ephemeris_said_and_are_as_deep_as_the_planet() -> None:
    hours, flux, error = global_fit.read()
    shared = global_fit.SHARED["shape and time"]
    fit = lmtorch.curve_fit(global_fit.transit, hours, flux, p0=global_fit.START, sigma=error, shared=shared)
    assert abs(fit["mid"]) < 3 * fit.stderr[fit.names.index("mid")]
    assert abs(fit["depth"] - 1e3 * 0.1088**2) < 3 * fit.stderr[fit.names.index("depth")]  # Brahm et al. (2018)


def test_tukeys_loss_does_not_see_the_outliers(tmp_path: Path) -> None:
    assert robust_fit.main(tmp_path) > 20
    assert (tmp_path / "robust_fit.png").stat().st_size > 10_000


def test_pixels_are_fitted_as_well_as_by_scipy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert image_stack.main(tmp_path, copies=2) >= 0.95  # biexponentials have local minima
    assert (tmp_path / "image_stack.png").stat().st_size > 10_000
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    np.testing.assert_allclose(*np.array([rows["value"], rows["SciPy"]], dtype=float), rtol=0.02)  # medians


def test_the_network_in_front_of_the_fit_learns_the_correction(tmp_path: Path) -> None:
    assert fit_layer.main(tmp_path, steps=5) > 100
    assert (tmp_path / "fit_layer.png").stat().st_size > 10_000


def test_the_demo_names_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(tmp_path)
    printed = capsys.readouterr().out
    for name in ("curve_fit_nist.png", "sinc_network.png"):
        assert str(tmp_path / name) in printed
