"""Implicit models, several responses, weights, batches, resampling of fits with errors in x."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.fitting.orthogonal import saddles as orthogonal_saddles

T = np.linspace(0.2, 3, 24)
ANGLES = np.linspace(0, 5, 16)


def decay(x: Any, a: Any, k: Any) -> Any:
    return a * torch.exp(-k * x)


def two(x: Any, a: Any, k: Any) -> Any:
    return torch.stack([a * torch.exp(-k * x), a * k * x])


def circle(x: Any, a: Any, b: Any, r: Any) -> Any:
    return (x[0] - a) ** 2 + (x[1] - b) ** 2 - r**2


def simulated(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = 0.02 * rng.standard_normal(24)
    return T + 0.05 * rng.standard_normal(24), 2 * np.exp(-T) + noise


def of_two(seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = np.stack([2 * np.exp(-T), 2 * T])
    noise = np.array([[0.02], [0.1]]) * rng.standard_normal((2, 24))
    return T + 0.05 * rng.standard_normal(24), clean + noise


def ring(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.stack([1 + 3 * np.cos(ANGLES), 2 + 3 * np.sin(ANGLES)])
    return points + 0.05 * rng.standard_normal((2, 16))


def same(found: Any, expected: Any, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(found.popt, expected.popt, rtol=rtol)
    np.testing.assert_allclose(found.pcov, expected.pcov, rtol=100 * rtol)
    np.testing.assert_allclose(found.chisqr, expected.chisqr, rtol=1e-9)
    assert found.nfree == expected.nfree


# ---- implicit models -----------------------------------------------------------------------------


def test_a_circle_is_that_of_geometric_distances() -> None:
    points = ring()
    fit = lmtorch.odr(circle, points, None, p0=[0, 0, 1], sx=0.05)
    # of a circle the distances are known: they are fitted as residuals of their own
    x, y = torch.as_tensor(points)
    known = lmtorch.least_squares(
        lambda p: (((x - p[0]) ** 2 + (y - p[1]) ** 2).sqrt() - p[2]) / 0.05, np.array([1.0, 2, 3])
    )
    np.testing.assert_allclose(fit.popt, known.x, rtol=1e-9)
    np.testing.assert_allclose(fit.pcov, np.linalg.inv(known.jac.T @ known.jac) * fit.redchi, 1e-7)
    np.testing.assert_allclose(np.abs(fit.residual), np.abs(known.fun), atol=1e-8)
    np.testing.assert_allclose(fit.redchi, 2 * known.cost / 13, rtol=1e-10)
    assert np.abs(fit.eps).max() < 1e-12
    on = fit.x_fit - fit.popt[:2, None]
    np.testing.assert_allclose(np.hypot(*on), fit["r"], rtol=1e-13)


@pytest.mark.parametrize("unit", [1e-9, 1e7])
def test_the_unit_of_an_equation_does_not_matter(unit: float) -> None:
    points = ring()
    fit = lmtorch.odr(lambda x, a, b, r: unit * circle(x, a, b, r), points, None, [0, 0, 1])
    same(fit, lmtorch.odr(circle, points, None, [0, 0, 1]))


def test_an_explicit_model_is_also_an_implicit_one() -> None:
    x, y = simulated()
    both, deviations = np.stack([x, y]), [[0.05], [0.02]]
    fit = lmtorch.odr(lambda z, a, k: decay(z[0], a, k) - z[1], both, None, [1, 1], deviations)
    same(fit, lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02))


def test_two_equations_of_three_unknowns_are_a_curve_in_space() -> None:
    rng = np.random.default_rng(4)
    points = np.stack([T, 1 + 2 * T, 3 - T]) + 0.05 * rng.standard_normal((3, 24))

    def line(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return x[1] - a - b * x[0], x[2] - c - d * x[0]

    fit = lmtorch.odr(line, points, None, p0=[0, 1, 0, 1])
    middle = points.mean(1, keepdims=True)
    _, singular, vh = np.linalg.svd((points - middle).T, full_matrices=False)
    np.testing.assert_allclose(fit["b"], vh[0, 1] / vh[0, 0], rtol=1e-9)
    np.testing.assert_allclose(fit["d"], vh[0, 2] / vh[0, 0], rtol=1e-9)
    np.testing.assert_allclose(fit.chisqr, (singular[1:] ** 2).sum(), rtol=1e-10)
    assert fit.nfree == 2 * 24 - 4


@pytest.mark.parametrize(
    "f",
    [
        lambda x, a, b, c: a * x[0] + b * x[1] + c,
        lambda x, a, b, c: c * ((x[0] - a) ** 2 + x[1] ** 2 - b),
        lambda x, a, b, c: torch.exp(c) * ((x[0] - a) ** 2 + x[1] ** 2 - b),
    ],
    ids=["homogeneous", "a factor", "an exponential"],
)
def test_parameters_that_only_rescale_an_equation_are_refused(f: Callable[..., Any]) -> None:
    with pytest.raises(lmtorch.InputError, match="only rescale f"):
        lmtorch.odr(f, ring(), None, p0=[0.5, 1.5, 1.0])
    assert lmtorch.odr(f, ring(), None, p0=[0.5, 1.5, 1.0], fixed="c").success


def test_parameters_that_run_to_where_every_x_fits_are_no_fit() -> None:
    with pytest.raises(lmtorch.NotConvergedError, match="no curve was found"):
        lmtorch.odr(lambda x, a, b: a * x[0] + b**2 * x[1], ring(), None, p0=[1.0, 1.0])


def test_an_implicit_model_has_no_curve() -> None:
    fit = lmtorch.odr(circle, ring(), None, p0=[0, 0, 1])
    for asked in (lambda: fit([1.0, 2.0]), lambda: fit.confidence_band([1.0])):
        with pytest.raises(lmtorch.InputError, match=r"no curve y\(x\)"):
            asked()
    with pytest.raises(lmtorch.InputError, match="no errors of y"):
        lmtorch.odr(circle, ring(), None, p0=[0, 0, 1], sy=0.1)


# ---- several responses, weights ------------------------------------------------------------------


def test_responses_that_share_no_errors_are_a_joint_fit_of_their_points() -> None:
    x, y = of_two()
    fit = lmtorch.odr(two, x, y, [1, 1], sx=0.0, sy=[[0.02], [0.1]])
    known = lmtorch.curve_fit(
        lambda x, a, k: two(x, a, k).reshape(-1), x, y.reshape(-1), [1, 1],
        sigma=np.repeat([0.02, 0.1], 24),
    )  # fmt: skip
    same(fit, known, 1e-10)
    assert fit.eps.shape == fit.best_fit.shape == fit.residual.shape == (2, 24)
    assert fit([0.5, 1.0, 2.0]).shape == fit.confidence_band([0.5, 1.0, 2.0]).lower.shape == (2, 3)
    assert fit.nfree == 46  # responses, not points


def test_the_scatter_of_two_responses_is_judged_by_all_of_them() -> None:
    scatter = [
        lmtorch.odr(two, *of_two(seed), [2, 1], sx=0.05, sy=[[0.02], [0.1]]).redchi
        for seed in range(6)
    ]
    # the mean of 6 · 46 squares, within four of its deviations; by points it would be two
    assert abs(np.mean(scatter) - 1) < 4 * np.sqrt(2 / (6 * 46))


def rotated(values: list[float]) -> np.ndarray:
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    return turn @ np.diag(values) @ turn.T


def test_weights_are_inverse_squares_and_matrices_inverse_covariances() -> None:
    x, y = of_two()
    deviations = np.stack([0.02 + 0.01 * T, 0.1 + 0.02 * T])
    known = lmtorch.odr(two, x, y, [1, 1], sx=0.05, sy=deviations)
    diagonal = np.zeros((2, 2, 24))
    diagonal[[0, 1], [0, 1]] = deviations**2
    weights = np.zeros((2, 2, 24))
    weights[[0, 1], [0, 1]] = deviations**-2
    for given in ({"we": deviations**-2}, {"sy": diagonal}, {"we": weights}):
        same(lmtorch.odr(two, x, y, [1, 1], wd=1 / 0.05**2, **given), known)
    wrong = lmtorch.odr(two, x, y, [1, 1], sx=0.05, we=1 / deviations)
    assert abs(wrong["a"] - known["a"]) > 1e-4


def test_correlated_errors_are_those_of_turned_data() -> None:
    rng = np.random.default_rng(5)
    x, y = np.stack([T, 3 - T**2 / 3]), np.stack([2 + T, T**2])
    x, y = x + 0.05 * rng.standard_normal((2, 24)), y + 0.1 * rng.standard_normal((2, 24))
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])

    def planes(x: Any, a: Any, b: Any, c: Any) -> Any:
        return torch.stack([a + b * x[0] + 0 * x[1], c * x[0] * x[1]])

    def turned(x: Any, a: Any, b: Any, c: Any) -> Any:
        back = torch.as_tensor(turn.T).to(x) @ x
        return torch.as_tensor(turn).to(x) @ planes(back, a, b, c)

    known = lmtorch.odr(planes, x, y, [1, 1, 1], sx=[[0.05], [0.2]], sy=[[0.1], [0.3]])
    of_x, of_y = rotated([0.05**2, 0.2**2]), rotated([0.1**2, 0.3**2])
    for errors in (
        {"sx": of_x, "sy": of_y},
        {"wd": np.linalg.inv(of_x), "we": np.linalg.inv(of_y)},
        {"sx": np.tile(of_x[..., None], 24), "we": np.tile(np.linalg.inv(of_y)[..., None], 24)},
    ):
        fit = lmtorch.odr(turned, turn @ x, turn @ y, [1, 1, 1], **errors)
        same(fit, known)
        np.testing.assert_allclose(turn.T @ fit.delta, known.delta, atol=1e-9)


def test_what_has_no_weight_does_not_count_as_a_degree_of_freedom() -> None:
    x, y = of_two()
    weights = np.tile([[1 / 0.02**2], [1 / 0.1**2]], 24)
    weights[0, 3], weights[:, 7] = 0.0, 0.0
    y[0, 3], y[:, 7] = 50.0, -80.0
    kept = np.arange(24) != 7
    fit = lmtorch.odr(two, x, y, [1, 1], sx=0.05, we=weights)
    same(fit, lmtorch.odr(two, x[kept], y[:, kept], [1, 1], sx=0.05, we=weights[:, kept]))
    assert fit.ndata == 48 - 3
    assert fit.delta[7] == 0
    assert fit.delta[3] != 0  # its other response holds it
    matrices = np.zeros((2, 2, 24))
    matrices[[0, 1], [0, 1]] = weights
    same(lmtorch.odr(two, x, y, [1, 1], sx=0.05, we=matrices), fit)


def test_x_that_is_held_stays() -> None:
    x, y = simulated()
    held = np.arange(24) % 3 == 0
    fit = lmtorch.odr(decay, x, y, [1, 1], wd=400.0, we=2500.0, fixed_x=held)
    same(fit, lmtorch.odr(decay, x, y, [1, 1], np.where(held, 0, 0.05), 0.02))
    assert not fit.delta[held].any()
    with pytest.raises(lmtorch.InputError, match="delta0 moves an x that is exact"):
        lmtorch.odr(decay, x, y, [1, 1], fixed_x=held, delta0=0.1)


def test_displacements_begin_where_they_are_told_to() -> None:
    x, y = simulated()
    whole = lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02)
    again = lmtorch.odr(decay, x, y, whole.popt, 0.05, 0.02, delta0=whole.delta)
    same(again, whole, 1e-12)
    assert again.nfev < whole.nfev / 2


def test_a_fit_that_was_stopped_goes_on() -> None:
    x, y = simulated()
    whole = lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02)
    with pytest.raises(lmtorch.NotConvergedError) as stopped:
        lmtorch.odr(decay, x, y, [9, 4], 0.05, 0.02, max_nfev=4)
    same(stopped.value.fit.resume(), whole, 1e-9)
    assert whole.resume().nfev <= 4


# ---- given derivatives ---------------------------------------------------------------------------


def of_parameters(x: Any, a: Any, k: Any) -> Any:
    return np.stack([np.exp(-k * x), -a * x * np.exp(-k * x)], -1)


def of_x(x: Any, a: Any, k: Any) -> Any:
    return -a * k * np.exp(-k * x)


def test_given_derivatives_serve_numpy_code() -> None:
    x, y = simulated()
    fit = lmtorch.odr(
        lambda x, a, k: a * np.exp(-k * x), x, y, [1, 1], 0.05, 0.02, jac=(of_parameters, of_x)
    )
    same(fit, lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02), 1e-7)


def test_a_curve_that_mixes_points_is_refused() -> None:
    x = np.linspace(0, 3, 9)
    y = np.stack([2 * x, 3 * x])
    center = float(x.mean())
    assert lmtorch.odr(lambda x, a, b: a + b * (x - center), x, y[0])["b"] == pytest.approx(2)
    for batch in (False, True):
        data = (np.stack([x, x]), y) if batch else (x, y[0])
        with pytest.raises(lmtorch.InputError, match="its own x alone"):
            lmtorch.odr(lambda x, a, b: a + b * (x - x.mean()), *data, batch=batch)


@pytest.mark.parametrize("shift", range(1, 9))
def test_a_curve_that_takes_the_x_of_another_point_is_refused(shift: int) -> None:
    """Whichever other: half of the points are moved to see that, and no shift keeps to a half."""
    x = np.linspace(0, 3, 9)
    with pytest.raises(lmtorch.InputError, match="its own x alone"):
        lmtorch.odr(lambda x, a, b: a + b * torch.roll(x, shift), x, 2 * x, p0=[1, 1])


@pytest.mark.parametrize(
    ("jac", "message"),
    [
        ((lambda *z: of_parameters(*z) * [1, -1], of_x), r"jac\[0\], in 'k', is not the deriv"),
        ((of_parameters, lambda *z: 1.01 * of_x(*z)), r"jac\[1\] is not the derivative"),
        ((lambda *z: of_parameters(*z).T, of_x), r"jac\[0\] returned \(2, 24\)"),
        ((of_parameters, lambda *z: of_x(*z)[:5]), r"jac\[1\] returned \(5,\)"),
    ],
    ids=["sign", "one per cent", "turned", "short"],
)
def test_wrong_derivatives_are_seen(jac: Any, message: str) -> None:
    x, y = simulated()
    with pytest.raises(lmtorch.InputError, match=message):
        lmtorch.odr(lambda x, a, k: a * np.exp(-k * x), x, y, [1, 1], 0.05, 0.02, jac=jac)


# ---- batches, profiles, the bootstrap ------------------------------------------------------------


@pytest.mark.parametrize("tensors", [False, True], ids=["arrays", "tensors"])
def test_a_batch_is_its_fits(tensors: bool) -> None:
    pairs = [simulated(seed) for seed in range(4)]
    x, y = (np.stack(side) for side in zip(*pairs, strict=True))
    deviations = 0.05 + 0.01 * np.arange(4)[:, None] * np.ones(24)
    given = (torch.as_tensor(x), torch.as_tensor(y)) if tensors else (x, y)
    fit = lmtorch.odr(decay, *given, [1, 1], deviations, 0.02, batch=True)
    assert fit.delta.shape == fit.eps.shape == (4, 24)
    for i, (one, other) in enumerate(pairs):
        alone = lmtorch.odr(decay, one, other, [1, 1], deviations[i], 0.02)
        same(fit.at(i), alone, 1e-8)
        np.testing.assert_allclose(fit.popt[i], alone.popt, rtol=1e-8)
        np.testing.assert_allclose(fit.at(i).delta, alone.delta, atol=1e-8)


def test_a_batch_of_implicit_models_of_several_shapes() -> None:
    rings = np.stack([ring(seed) for seed in range(3)])
    fit = lmtorch.odr(circle, rings, None, [0, 0, 1], batch=True)
    assert fit.success.all()
    for i, one in enumerate(rings):
        same(fit.at(i), lmtorch.odr(circle, one, None, [0, 0, 1]))


def test_profiles_of_a_line_are_those_of_refits() -> None:
    x, y = simulated()
    fit = lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02)
    profile = fit.profile("k", points=6)
    for side in profile.intervals["k"]:
        held = lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02, fixed={"k": side})
        rise = (held.chisqr - fit.chisqr) / fit.redchi
        np.testing.assert_allclose(np.sqrt(rise), profile.limit, rtol=1e-3)


def test_a_profile_of_an_implicit_model() -> None:
    fit = lmtorch.odr(circle, ring(), None, [0, 0, 1])
    low, high = fit.profile("r", points=4).intervals["r"]
    held = lmtorch.odr(circle, ring(), None, [0, 0, 1], fixed={"r": high})
    limit = fit.profile("r", points=4).limit
    np.testing.assert_allclose((held.chisqr - fit.chisqr) / fit.redchi, limit**2, rtol=1e-2)
    assert low < fit["r"] < high


@pytest.mark.parametrize("kind", ["residuals", "cases", "normal"])
@pytest.mark.parametrize("what", ["explicit", "two responses", "implicit"])
def test_resampled_fits_scatter_as_their_errors_say(kind: str, what: str) -> None:
    if what == "explicit":
        fit = lmtorch.odr(decay, *simulated(), [1, 1], 0.05, 0.02)
    elif what == "implicit":
        fit = lmtorch.odr(circle, ring(), None, [0, 0, 1], sx=0.05)
    else:
        fit = lmtorch.odr(two, *of_two(), [1, 1], 0.05, [[0.02], [0.1]])
    drawn = fit.bootstrap(100, kind)
    assert drawn.failed == 0
    # a deviation of 100 draws is known to 7 %; resampling of few points is rough itself
    np.testing.assert_allclose(drawn.stderr, fit.stderr, rtol=0.3 if kind == "normal" else 0.6)
    np.testing.assert_allclose(
        drawn.samples.mean(0), fit.popt, atol=5 * fit.stderr.max() / np.sqrt(100) + 1e-2
    )


@pytest.mark.parametrize("implicit", [False, True])
def test_a_point_that_is_drawn_twice_counts_twice(implicit: bool) -> None:
    if implicit:
        f, x, y, given = circle, ring(), None, {"p0": [0, 0, 1], "sx": 0.05}
    else:
        f, (x, y), given = decay, simulated(), {"p0": [1, 1], "sx": 0.05, "sy": 0.02}
    m = x.shape[-1]
    drawn = lmtorch.odr(f, x, y, **given).bootstrap(2, "cases", seed=0)
    counts = np.random.default_rng(0).multinomial(m, np.full(m, 1 / m), size=2)
    for sample, count in zip(drawn.samples, counts, strict=True):
        places = np.repeat(np.arange(m), count)
        again = lmtorch.odr(f, x[..., places], None if y is None else y[places], **given)
        np.testing.assert_allclose(sample, again.popt, rtol=1e-7)


@pytest.mark.parametrize("what", ["implicit", "two responses", "a batch"])
def test_a_fit_of_points_comes_back_from_its_file(what: str, tmp_path: Path) -> None:
    if what == "implicit":
        f, fit = circle, lmtorch.odr(circle, ring(), None, [0, 0, 1])
    elif what == "a batch":
        f, pairs = decay, [simulated(seed) for seed in range(2)]
        x, y = (np.stack(side) for side in zip(*pairs, strict=True))
        fit = lmtorch.odr(decay, x, y, [1, 1], 0.05, 0.02, batch=True)
    else:
        f, fit = two, lmtorch.odr(two, *of_two(), [1, 1], 0.05, [[0.02], [0.1]])
    fit.save(tmp_path / "fit.json")
    again = lmtorch.load(tmp_path / "fit.json", f=f)
    for name in ("popt", "pcov", "delta", "x_fit", "eps", "residual"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fit, name))
    assert type(again) is lmtorch.OrthogonalFit
    if what != "a batch":
        assert again.report() == fit.report()
        same(again.resume(), fit, 1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wd": 1.0, "sx": 1.0}, "sx and wd both"),
        ({"we": 1.0, "sy": 1.0}, "sy and we both"),
        ({"wd": 0.0}, "every curve fit"),
        ({"we": [[1.0, 2.0], [2.0, 1.0]]}, "negative eigenvalue"),
        ({"sy": [[1.0, 2.0], [2.0, 1.0]]}, "not positive definite"),
        ({"we": np.zeros((3, 3))}, "does not fit y"),
        ({"y": np.ones((2, 9))}, "as many points as y"),
        ({"x": np.ones((2, 3, 24))}, "batch=True makes many fits"),
        ({"batch": True}, "with the fits in front|of \\(24,\\) fits|as many points"),
        ({"f": lambda x, a, k: two(x, a, k).mT}, r"must return \(2, 24\)"),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str) -> None:
    x, y = of_two()
    with pytest.raises(lmtorch.InputError, match=message):
        lmtorch.odr(**{"f": two, "x": x, "y": y, "p0": [1.0, 1.0], **change})


@pytest.mark.parametrize("m", [20, 400])
@pytest.mark.parametrize("f", [lambda x, a, b: a * b * x, lambda x, a, b: a**2 * x + b**2])
def test_a_saddle_is_left_however_many_points_there_are(
    m: int, f: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At zero nothing pulls the slope, and it is no minimum."""
    x = np.linspace(0.5, 2, m)
    y = x + 0.01 * np.cos(9 * x)
    errors = {"sx": 0.01, "sy": 0.01}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what only the product a·b determines
        fit = lmtorch.odr(f, x, y, p0=[0.0, 0.0], **errors)
        near = lmtorch.odr(f, x, y, p0=[0.9, 0.9], **errors)
        assert fit.success
        np.testing.assert_allclose(fit.chisqr, near.chisqr, rtol=1e-9)
        np.testing.assert_allclose(f(x, *fit.popt), f(x, *near.popt), rtol=1e-6)
        for few in (1, 3, 5, 8):
            try:
                short = lmtorch.odr(f, x, y, p0=[0.0, 0.0], max_nfev=few, **errors)
            except lmtorch.NotConvergedError as stopped:
                short = stopped.fit
            assert not short.success
            assert short.nfev <= few
        monkeypatch.setattr(orthogonal_saddles, "ROUNDS", 0)  # where no way leads away
        stays = lmtorch.odr(f, x, y, p0=[0.0, 0.0], **errors)
    assert stays.status == lmtorch.Status.SADDLE
    assert not stays.success


@pytest.mark.parametrize("device", ["batch", "implicit"])
def test_saddles_of_a_batch_and_of_an_implicit_model_are_left(device: str) -> None:
    x = np.linspace(0.5, 2, 20)
    y = x + 0.01 * np.cos(9 * x)
    if device == "implicit":
        fit = lmtorch.odr(
            lambda at, a, b: at[1] - a**2 * at[0] - b, np.stack([x, y]), None, p0=[0, 0], sx=0.01
        )
        assert abs(fit["a"]) == pytest.approx(1, rel=1e-2)
        return
    many = np.stack([y, y + 1, 2 * y])
    fits = lmtorch.odr(
        lambda x, a, b: a**2 * x + b, np.stack([x, x, x]), many, p0=[[0, 0], [1, 1], [0, 0]],
        sx=0.01, sy=0.01, batch=True,
    )  # fmt: skip
    assert fits.success.all()
    np.testing.assert_allclose(np.abs(fits.popt[:, 0]), [1, 1, 2**0.5], rtol=1e-2)


@pytest.mark.parametrize("kind", ["explicit", "implicit", "batch"])
def test_a_callback_sees_the_parameters_and_ends_the_fit(kind: str) -> None:
    """As of `least_squares`: what it sees last is the fit, and StopIteration is no success."""
    x, y = simulated()
    calls = {
        "explicit": lambda seen: lmtorch.odr(decay, x, y, p0=[1, 1], sx=0.05, callback=seen),
        "implicit": lambda seen: lmtorch.odr(circle, ring(), None, p0=[0, 0, 1], callback=seen),
        "batch": lambda seen: lmtorch.odr(
            decay, np.stack([x, x]), np.stack([y, 2 * y]), p0=[1, 1], batch=True, callback=seen
        ),
    }
    iterates: list[Any] = []
    fit = calls[kind](iterates.append)
    shape = np.shape(fit.popt)
    assert [one.nit for one in iterates] == list(range(1, len(iterates) + 1))
    assert all(np.shape(one.x) == shape for one in iterates)
    assert [one.nfev for one in iterates] == sorted(one.nfev for one in iterates)
    assert iterates[-1].nfev <= np.max(fit.nfev)
    np.testing.assert_allclose(iterates[-1].x, fit.popt, rtol=1e-3)  # before it is polished

    def enough(iterate: Any) -> None:
        if iterate.nit == 2:
            raise StopIteration

    stopped = calls[kind](enough)
    assert not np.any(stopped.success)
    assert np.all(np.asarray(stopped.status) == lmtorch.Status.STOPPED)
    assert not np.allclose(stopped.popt, fit.popt, rtol=1e-9)
    if kind != "batch":
        np.testing.assert_allclose(stopped.resume().popt, fit.popt, rtol=1e-6)


def test_errors_of_as_many_predictors_as_points_are_not_guessed() -> None:
    """(2,) may be of each point, or of each predictor, and the fits differ."""
    x, y = np.array([[1.0, 2.0], [0.5, 0.1]]), np.array([1.0, 2.2])
    for batch in (False, True):
        data = (np.stack([x, x]), np.stack([y, y])) if batch else (x, y)
        with pytest.raises(lmtorch.InputError, match="several ways"):
            lmtorch.odr(
                lambda x, a: a * x[0] + x[1], *data, p0=[1], sx=np.array([0.1, 0.2]), batch=batch
            )
    found = [
        lmtorch.odr(lambda x, a: a * x[0] + x[1], x, y, p0=[1], sx=np.array(sx)).popt[0]
        for sx in ([[0.1, 0.2]], [[0.1], [0.2]])
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "matrix", [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]]]
)
@pytest.mark.parametrize("where", ["sx", "wd", "sy"])
def test_what_is_no_covariance_is_refused(matrix: Any, where: str) -> None:
    """Singular or indefinite matrices, by name."""
    x, y = simulated()
    if where == "sy":
        call = (two, x, np.stack([y, y]))
    else:
        call = (lambda x, a, k: a * x[0] + k * x[1], np.stack([x, x**2]), y)
    with pytest.raises(lmtorch.InputError, match=f"{where}.*(positive definite|symmetric)"):
        lmtorch.odr(*call, p0=[1, 1], **{where: np.array(matrix)})


@pytest.mark.parametrize(
    "p0",
    [[-0.75, -2.7, 24.0, 0.8], [0.5, -1.1, 0.5, 2.0], [2.4, 0.1, 0.3, 0.3], [5.3, -1.7, 7.9, 4.2]],
    ids=["long", "small", "tiny", "large"],
)
def test_an_ellipse_is_found_from_far_away(p0: list[float]) -> None:
    """Points first look from where they are: moving, they went to another side than their own."""

    def ellipse(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1

    rng = np.random.default_rng(3)
    angle = np.linspace(0, 6, 30)
    points = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    points += 0.05 * rng.standard_normal(points.shape)
    near = lmtorch.odr(ellipse, points, None, p0=[1, 2, 3, 1.5], sx=0.05)
    fit = lmtorch.odr(ellipse, points, None, p0=p0, sx=0.05)
    assert fit.success
    assert fit.chisqr == pytest.approx(near.chisqr, rel=1e-9)
    np.testing.assert_allclose(np.abs(fit.popt), near.popt, rtol=1e-6)


def test_an_implicit_fit_may_begin_where_the_equation_is_flat() -> None:
    """With the center on a point its slope is zero there, and no distance to first order."""
    points = ring()
    near = lmtorch.odr(circle, points, None, p0=[1, 2, 3])
    fit = lmtorch.odr(circle, points, None, p0=[*points[:, 3], 1.0])
    assert fit.success
    np.testing.assert_allclose(fit.popt, near.popt, rtol=1e-7)
