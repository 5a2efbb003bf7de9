"""Global fits: several data sets with parameters in common, beside one fit of all by scipy."""

from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import InputError, curve_fit

from .setting import T, decay, line, noise, scipys

SHORT = np.linspace(0, 2, 25)
Y = [
    2.5 * np.exp(-1.3 * T) + 0.5 + noise(40, 0.03),
    1.2 * np.exp(-1.3 * SHORT) - 0.2 + noise(25, 0.03, seed=1),
]
SIGMA = [0.03 + 0.01 * T, np.full(25, 0.05)]
ALL = np.concatenate([T, SHORT])


def concatenated(_: Any, a0: Any, a1: Any, b: Any, c0: Any, c1: Any) -> Any:
    """Both decays with one rate."""
    return torch.cat(
        [decay(torch.as_tensor(T), a0, b, c0), decay(torch.as_tensor(SHORT), a1, b, c1)]
    )


def test_shared_and_local_parameters_have_names() -> None:
    fit = curve_fit(decay, [T, SHORT], Y, shared=["b"])
    assert fit.names == ["a[0]", "a[1]", "b", "c[0]", "c[1]"]
    assert fit["a[1]"] == fit.popt[1]


@pytest.mark.parametrize("sigma", [None, SIGMA], ids=["equal", "sigma"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_global_fit_is_one_fit_of_all_data(sigma: Any, absolute: bool) -> None:
    fit = curve_fit(
        decay,
        [T, SHORT],
        Y,
        sigma=sigma,
        shared=["b"],
        absolute_sigma=absolute and sigma is not None,
    )
    popt, pcov = scipys(
        concatenated, ALL, np.concatenate(Y), np.ones(5),
        sigma=None if sigma is None else np.concatenate(sigma),
        absolute_sigma=absolute and sigma is not None,
    )  # fmt: skip
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    assert (fit.ndata, fit.nvarys) == (65, 5)


def test_nothing_shared_is_two_fits() -> None:
    fit = curve_fit(decay, [T, SHORT], Y, shared=[])
    alone = [curve_fit(decay, x, y).popt for x, y in zip([T, SHORT], Y, strict=True)]
    np.testing.assert_allclose(fit.popt, np.stack(alone, 1).ravel(), rtol=1e-8)


def test_everything_shared_is_one_longer_data_set() -> None:
    y = [2 * T + 1 + noise(40), 2 * SHORT + 1 + noise(25, seed=1)]
    fit = curve_fit(line, [T, SHORT], y, shared=["slope", "intercept"])
    one = curve_fit(line, ALL, np.concatenate(y))
    np.testing.assert_allclose(fit.popt, one.popt, rtol=1e-10)
    np.testing.assert_allclose(fit.pcov, one.pcov, rtol=1e-10)


def test_one_number_of_sigma_stands_for_a_data_set() -> None:
    one = curve_fit(decay, [T, SHORT], Y, sigma=[0.03, 0.05], shared=["b"])
    other = curve_fit(
        decay, [T, SHORT], Y, sigma=[np.full(40, 0.03), np.full(25, 0.05)], shared=["b"]
    )
    np.testing.assert_allclose(one.pcov, other.pcov, rtol=1e-12)


def test_sigma_may_be_tensors_beside_arrays() -> None:
    one = curve_fit(decay, [T, SHORT], Y, sigma=[torch.as_tensor(SIGMA[0]), SIGMA[1]], shared=["b"])
    np.testing.assert_allclose(
        one.pcov, curve_fit(decay, [T, SHORT], Y, sigma=SIGMA, shared=["b"]).pcov, rtol=1e-12
    )


def test_functions_may_differ() -> None:
    def rise(t: Any, b: Any, top: Any) -> Any:
        return top * (1 - torch.exp(-b * t))

    y = [Y[0], 3 * (1 - np.exp(-1.3 * SHORT)) + noise(25, 0.03, seed=2)]
    fit = curve_fit([decay, rise], [T, SHORT], y, shared=["b"])
    popt, pcov = scipys(
        lambda _, a, b, c, top: torch.cat([decay(torch.as_tensor(T), a, b, c),
                rise(torch.as_tensor(SHORT), b, top)]),
        ALL, np.concatenate(y), np.ones(4),
    )  # fmt: skip
    assert fit.names == ["a[0]", "b", "c[0]", "top[1]"]
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)


@pytest.mark.parametrize(
    "p0",
    [
        [2, 1, 0.3],
        {"a": 2, "c": 0.3},
        {"a": [2, 2], "b": 1, "c": [0.3, 0.3]},
        {"a[0]": 2, "a[1]": 2, "b": 1, "c": 0.3},
        [2, 2, 1, 0.3, 0.3],
    ],
    ids=str,
)
def test_a_start_may_be_common_or_of_each(p0: Any) -> None:
    fit = curve_fit(decay, [T, SHORT], Y, p0, shared=["b"])
    assert [p["start"] for p in fit.to_dict()["parameters"].values()] == [2, 2, 1, 0.3, 0.3]


def test_local_parameters_may_be_fixed_tied_and_bounded_by_their_full_names() -> None:
    fit = curve_fit(
        decay, [T, SHORT], Y, {"a": 1, "c": 0.1}, shared=["b"], fixed={"c[0]": 0.5},
        ties={"a[1]": lambda p: p["a[0]"] / 2}, bounds={"c[1]": (-0.15, 1.0)},
    )  # fmt: skip
    popt, _ = scipys(
        lambda x, a, b: concatenated(x, a, a / 2, b, 0.5, -0.15), ALL, np.concatenate(Y), [1, 1]
    )
    np.testing.assert_allclose(fit.popt, [popt[0], popt[0] / 2, popt[1], 0.5, -0.15], rtol=1e-8)


def test_masks_are_of_each_data_set() -> None:
    kept = [np.arange(40) % 3 != 0, np.arange(25) < 20]
    y = [np.where(k, v, 1e6) for k, v in zip(kept, Y, strict=True)]
    masked = curve_fit(decay, [T, SHORT], y, mask=kept, shared=["b"])
    shorter = curve_fit(
        decay,
        [T[kept[0]], SHORT[kept[1]]],
        [v[k] for k, v in zip(kept, Y, strict=True)],
        shared=["b"],
    )
    np.testing.assert_allclose(masked.popt, shorter.popt, rtol=1e-9)
    np.testing.assert_allclose(masked.pcov, shorter.pcov, rtol=1e-8)


def test_nan_is_omitted_from_each_data_set() -> None:
    y = [Y[0].copy(), Y[1].copy()]
    x = [T.copy(), SHORT.copy()]
    y[0][3], y[1][4], x[1][7] = np.nan, np.nan, np.nan
    omitted = curve_fit(decay, x, y, shared=["b"], nan_policy="omit")
    shorter = curve_fit(
        decay,
        [np.delete(T, 3), np.delete(SHORT, [4, 7])],
        [np.delete(Y[0], 3), np.delete(Y[1], [4, 7])],
        shared=["b"],
    )
    np.testing.assert_allclose(omitted.popt, shorter.popt, rtol=1e-9)


def test_data_sets_of_one_length_are_no_batch() -> None:
    y = np.stack([2 * T + 1, 2 * T - 1]) + noise((2, 40), 0.1)
    fit = curve_fit(line, [T, T], list(y), shared=["slope"])
    assert fit.names == ["slope", "intercept[0]", "intercept[1]"]
    assert fit.popt.shape == (3,)
    expected = np.polyfit(np.concatenate([T, T]), np.concatenate([v - v.mean() for v in y]), 1)[0]
    assert fit["slope"] == pytest.approx(expected, rel=1e-10)


def test_tensors_come_back_as_tensors() -> None:
    fit = curve_fit(
        decay,
        [torch.as_tensor(T), torch.as_tensor(SHORT)],
        [torch.as_tensor(y) for y in Y],
        shared=["b"],
    )
    assert isinstance(fit.popt, torch.Tensor)
    np.testing.assert_allclose(
        fit.popt, curve_fit(decay, [T, SHORT], Y, shared=["b"]).popt, rtol=1e-10
    )


def test_a_curve_is_that_of_its_data_set() -> None:
    fit = curve_fit(decay, [T, SHORT], Y, shared=["b"])
    for place, x in enumerate([T, SHORT]):
        expected = decay(torch.as_tensor(x), fit[f"a[{place}]"], fit["b"], fit[f"c[{place}]"])
        np.testing.assert_allclose(fit(x, dataset=place), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((decay, T, Y), {}, "lists of the same length"),
        ((decay, [T], Y), {}, "lists of the same length"),
        (
            (decay, [T, SHORT], Y),
            {"sigma": [0.1]},
            "sigma must be a list with an entry for each of the 2",
        ),
        ((decay, [T, SHORT], Y), {"sigma": 0.1}, "sigma must be a list"),
        ((decay, [T, SHORT], Y), {"mask": [True]}, "mask must be a list"),
        (
            (decay, [T, SHORT], Y),
            {"shared": ["rate"]},
            r"shared names \['rate'\], which no function has",
        ),
        (([decay] * 3, [T, SHORT], Y), {}, "there are 3 functions for 2 data sets"),
        ((decay, [T, SHORT], Y, [1, 1, 1, 1]), {}, "p0 has 4 entries for the parameters"),
        ((decay, [T, SHORT], Y, {"rate": 1}), {}, r"p0 names \['rate'\]"),
        ((decay, [T, SHORT], Y, {"a": [1, 2, 3]}), {}, "p0 of 'a' has 3 entries for 2 data sets"),
        (
            (decay, [T, SHORT], Y),
            {"sigma": [np.ones(3), np.ones(25)]},
            r"sigma\[0\] of shape \(3,\) does not fit",
        ),
        ((decay, [T, SHORT], [Y[0], []]), {}, r"ydata\[1\] is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_global_fit_is_refused(
    arguments: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        curve_fit(*arguments, **{"shared": ["b"], **options})


def test_there_are_as_many_data_sets_as_there_are() -> None:
    fit = curve_fit(decay, [T, SHORT], Y, shared=["b"])
    with pytest.raises(InputError, match=r"dataset=2 .* 2 data sets"):
        fit(T, dataset=2)
