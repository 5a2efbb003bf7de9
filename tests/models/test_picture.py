"""A model as a picture."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lmtorch import InputError, models

plt = pytest.importorskip("matplotlib.pyplot")
X = np.linspace(0, 9, 40)
MODEL = models.Gaussian("g") + models.Linear()
VALUES = {"g_amplitude": 3.0, "g_center": 4.0, "g_sigma": 0.5, "slope": 0.1, "intercept": 2.0}
Y = MODEL(X, **VALUES)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def curves(figure: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_a_picture_has_the_curve_its_terms_and_the_data() -> None:
    found = curves(MODEL.plot(X, Y, VALUES))
    assert list(found) == ["data", "g + Linear", "g", "Linear"]
    np.testing.assert_array_equal(found["data"].get_ydata(), Y)
    grid = found["g"].get_xdata()
    np.testing.assert_allclose(found["g"].get_ydata(), MODEL.left(grid, 3.0, 4.0, 0.5))
    np.testing.assert_allclose(found["g + Linear"].get_ydata(), MODEL(grid, **VALUES))


def test_without_values_the_guess_is_drawn_into_given_axes() -> None:
    ax = plt.subplots()[1]
    assert MODEL.plot(X, Y, ax=ax) is ax.figure
    grid = curves(ax.figure)["g"].get_xdata()
    guess = MODEL(grid, **MODEL.guess(X, Y))
    np.testing.assert_allclose(curves(ax.figure)["g + Linear"].get_ydata(), guess)


@pytest.mark.parametrize("data", [(X,), (np.stack([X, X]), Y), (X, np.stack([Y, Y]))])
def test_what_cannot_be_drawn_is_refused(data: Any) -> None:
    with pytest.raises(InputError):
        MODEL.plot(*data)
