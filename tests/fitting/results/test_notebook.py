"""What a notebook shows of a fit."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch import CurveFit, curve_fit
from lmtorch.fitting.results.notebook import plus_minus

from ..setting import UNDETERMINED, T, decay, line, noise, noisy

Y = noisy()


def tree(fit: CurveFit) -> ElementTree.Element:
    return ElementTree.fromstring(fit._repr_html_())


def cells(fit: CurveFit) -> list[list[str]]:
    """Rows of all tables."""
    return [["".join(cell.itertext()) for cell in row] for row in tree(fit).iter("tr")]


def test_a_fit_has_values_with_errors_statistics_and_correlations() -> None:
    fit = curve_fit(decay, T, Y, [2, 1, 0.6], bounds={"b": (0, 5)})
    rows = {row[0]: row[1:] for row in cells(fit)}
    assert rows["b"][0] == plus_minus(fit["b"], fit.errors["b"])
    assert rows["b"][2:4] == ["1", "0 to 5"]
    assert float(rows["reduced chi-square"][0]) == pytest.approx(fit.redchi, rel=1e-7)
    assert float(rows["C(b, c)"][0]) == pytest.approx(fit.correlation[1, 2], abs=5e-4)
    text = "".join(tree(fit).itertext())
    assert "decay(t, a, b, c)" in text
    assert fit.status.message in text


@UNDETERMINED
def test_roles_and_notes_are_told() -> None:
    fit = curve_fit(decay, T, Y, fixed={"c": 0.5}, ties={"b": lambda p: p["a"] / 2})
    rows = {row[0]: row for row in cells(fit)}
    assert (rows["c"][1], rows["c"][-1]) == ("0.5", "fixed")
    assert rows["b"][-1] == "tied"
    double = curve_fit(lambda t, a, b, k: (a + b) * torch.exp(-k * t) + 0.5, T, Y)
    (note,) = tree(double).iter("li")
    assert note.text == double.notes[0]
    held = curve_fit(decay, T, Y, [2, 1, 1], bounds={"c": (0.7, 2)})
    assert "at its bound" in held._repr_html_()


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_names_of_the_user_are_escaped() -> None:
    fit = curve_fit(lambda x, p: p["<b>&"] * x, T, Y, {"<b>&": 1.0})
    assert any(row[0] == "<b>&" for row in cells(fit))


def test_of_many_fits_there_is_a_summary() -> None:
    fits = curve_fit(line, T, np.concatenate([T + noise((9, 40)), np.full((1, 40), np.nan)]),
                     check_finite=False)  # fmt: skip
    text = "".join(tree(fits).itertext())
    assert "10 fits" in text
    assert "90.0%: converged" in text
    rows = {row[0]: row for row in cells(fits)}
    good = fits.popt[np.asarray(fits.success)]
    assert float(rows["slope"][2]) == pytest.approx(np.median(good[:, 0]), rel=1e-5)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.512035, 0.0155945, "2.512 ± 0.016"),
        (-0.40470309, 0.006848, "-0.4047 ± 0.0068"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (1234.56, 23.1, "1235 ± 23"),
        (123456.0, 2345.0, "(1.235 ± 0.023)e+5"),
        (1e-9, 2e-11, "(1.000 ± 0.020)e-9"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (3.0, 0.0, "3"),
        (3.0, math.inf, "3 ± ∞ (undetermined)"),
        (3.0, math.nan, "3 (at its bound)"),
    ],
)
def test_a_value_has_two_digits_of_its_error(value: float, error: float, text: str) -> None:
    assert plus_minus(value, error) == text


@given(st.floats(-1e12, 1e12), st.floats(1e-12, 1e12))
def test_what_is_shown_is_within_half_of_the_last_digit(value: float, error: float) -> None:
    text = plus_minus(value, error)
    found = re.fullmatch(r"\(?(-?[\d.]+) ± ([\d.]+)(?:\)e([+-]\d+))?", text)
    assert found is not None, text
    scale = 10.0 ** int(found[3] or 0)
    last = 10.0 ** -len(found[2].partition(".")[2]) * scale
    assert float(found[2]) * scale == pytest.approx(error, abs=0.5001 * last)
    assert float(found[1]) * scale == pytest.approx(value, abs=0.5001 * last + 1e-15 * abs(value))
    assert last <= 0.11 * error
