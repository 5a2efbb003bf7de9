"""Natural mistakes, each of which is told in words."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from lmtorch import InputError, NotConvergedError, curve_fit, odr
from lmtorch.losses.linear import Linear

from .setting import T, decay, line, noise, noisy

Y = noisy()
NAN = float("nan")


def bad(message: str, **arguments: Any) -> Any:
    """A case: what is wrong beside good arguments, and what is said of it."""
    return pytest.param(arguments, message, id=message)


def refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curve_fit(**{"f": decay, "xdata": T, "ydata": Y, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("ydata is empty", ydata=[]),
        bad("ydata is no array of real numbers: .*'a'.*to_numeric", ydata=["a", "b"]),
        bad("ydata is no array .*'1,5'.* decimal=','", ydata=["1,5", "0,7"]),
        bad("sigma is no array .*'0,1'.* decimal=','", sigma=["0,1"] * 40),
        bad("ydata is no array of real numbers: .*inhomogeneous", ydata=[[1, 2], [3]]),
        bad("ydata is complex", ydata=1j * Y),
        bad("ydata is complex: give numpy.concatenate", ydata=torch.as_tensor(1j * Y)),
        bad(
            r"ydata has NaN or infinity, first at \(3,\)",
            ydata=np.where(np.arange(40) == 3, NAN, Y),
        ),
        bad(
            r"ydata has NaN or infinity, first at \(1, 3\)",
            ydata=np.stack([Y, np.where(np.arange(40) == 3, NAN, Y)]),
        ),
        bad(
            r"xdata has NaN or infinity, first at \(3,\)",
            xdata=np.where(np.arange(40) == 3, np.inf, T),
        ),
        bad("every point has a NaN or infinity", ydata=NAN * Y, nan_policy="omit"),
        bad("nan_policy='drop' must be 'raise', 'omit' or None", nan_policy="drop"),
        bad(r"mask of shape \(3,\) does not fit ydata, \(40,\)", mask=[True] * 3),
        bad("0 points cannot determine 3 parameters", mask=np.zeros(40, dtype=bool)),
        bad("2 points cannot determine 3 parameters", xdata=T[:2], ydata=Y[:2]),
        bad("2 points cannot determine 3 parameters. Fix some", mask=np.arange(40) < 2),
        bad(
            r"each_x, xdata must be one array that begins with the dimensions \(2,\)",
            ydata=[Y, Y],
            each_x=True,
        ),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad(r"sigma of shape \(3,\) does not fit ydata, \(40,\)", sigma=np.ones(3)),
        bad(r"sigma of shape \(3, 3\) does not fit", sigma=np.eye(3)),
        bad(r"sigma has .* zero, negative or NaN, 1 of them, first at \(0,\)", sigma=np.arange(40)),
        bad("sigma has entries that are zero, negative or NaN", sigma=-1.0),
        bad("sigma has entries that are zero, negative", sigma=np.where(T < 1, NAN, 1)),
        bad("sigma is no array of real numbers", sigma="poisson"),
        bad("sigma is complex", sigma=np.full(40, 1j)),
        bad("sigma is a matrix, and not symmetric", sigma=np.triu(np.ones((40, 40)))),
        bad("sigma is not positive definite", sigma=np.ones((40, 40))),
        bad("sigma is not positive definite: it must be a covariance", sigma=-np.eye(40)),
        bad(
            "entries that are NaN or masked between points that count",
            sigma=np.where(np.eye(40) > 0, NAN, 0),
        ),
        bad(
            "are NaN or masked between points",
            sigma=np.ma.array(np.eye(40), mask=np.arange(1600).reshape(40, 40) == 1),
            mask=T < 3,
        ),
    ],
)
def test_errors_that_are_none_are_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("p0 has 2 entries, and f has 3 parameters after x", p0=[1, 1]),
        bad("p0 has 1 entries, and f has 3 parameters", p0=1.0),
        bad(r"p0 of shape \(4, 3\) does not fit: 3 parameters", p0=np.ones((4, 3))),
        bad(
            r"p0 of shape \(3, 3\) does not fit: .* of \(2,\) fits",
            p0=np.ones((3, 3)),
            ydata=[Y, Y],
        ),
        bad("p0 has entries that are NaN or infinite", p0=[1, 1, NAN]),
        bad("p0 has entries that are NaN", p0=[1, None, 1]),
        bad("p0 has 'abc', where numbers are needed", p0="abc"),
        bad(r"p0 names \['d'\], which f does not have", p0={"a": 1, "d": 1}),
        bad(
            "p0 is infeasible: 'a' starts outside its bounds, 0.0 to 0.5",
            p0=[1, 1, 1],
            bounds={"a": (0, 0.5)},
        ),
        bad("p0 has 4 entries, and f has 3 parameters after x", p0=[1] * 4),
        bad(
            "p0 has entries of shapes that do not fit",
            p0={"a": [1, 2], "b": [1, 2, 3]},
            ydata=[Y, Y],
        ),
        bad(
            "one of them for flag=True, which is no number: name",
            f=lambda x, a, flag=True, b=1.0: a * x,
            p0=[1, 1],
        ),
        bad(
            "one of them for kind='lin'.*p0={'a': 1.0", f=lambda x, a, kind="lin": a * x, p0=[1, 1]
        ),
        bad(r"not MATLAB's \(fun, x0, xdata, ydata\)", xdata=[1, 1, 1], ydata=T, p0=Y),
        bad(
            "p0 has 40 entries, as many as ydata",
            f=lambda p, t: p[0] * t,
            xdata=[1, 1, 1],
            ydata=T,
            p0=Y,
        ),
        bad(
            "as many as ydata, and xdata 3",
            f=lambda x, *p: p[0] * x,
            xdata=np.ones(3),
            ydata=T,
            p0=Y,
        ),
    ],
)
def test_a_start_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("the lower bound of 'a' is above its upper bound", bounds=(1, 0)),
        bad("the lower bound of 'b' is above its upper bound", bounds={"b": (1, 0)}),
        bad("the lower bound of 'a' is above its upper bound, or NaN", bounds=(NAN, 1)),
        bad(r"bounds have \(2,\) entries for the 3 parameters", bounds=([0, 0], [1, 1])),
        bad(r"write bounds=\(\[0.0, 0.0, 0.0\], \[9.0, 9.0, 9.0\]\)", bounds=[(0, 9)] * 3),
        bad(
            r"write bounds=\(\[0.0, -inf, 0.0\], \[9.0, 9.0, inf\]\)",
            bounds=[(0, 9), (None, 9), (0, None)],
        ),
        bad(
            r"'intercept' is above.* write bounds=\(\[0.0, 1.0\], \[5.0, 3.0",
            f=line,
            bounds=[(0, 5), (1, 3)],
        ),
        bad(
            r"infeasible: 'slope'.*pairs, .*\(\[1.0, 2.0\]",
            f=line,
            p0=[2.5, 2.5],
            bounds=[(1, 3), (2, 4)],
        ),
        bad(
            "by equal bounds: if so, write lists. If they are pairs, one for each",
            f=line,
            bounds=[(0, 1), (0, 2)],
        ),
        bad("bounds must be a pair \\(lower, upper\\), or a dict", bounds=None),
        bad(r"bounds name \['d'\], which the model does not have", bounds={"d": (0, 1)}),
        bad("the bounds of 'a' are 1: give a pair", bounds={"a": 1}),
        bad("bounds must be numbers", bounds=("low", "high")),
        bad("'a' is fixed: it cannot have bounds, too", bounds={"a": (0, 1)}, fixed=["a"]),
        bad(
            "'a' is tied: it cannot have bounds, too",
            bounds={"a": (0, 1)},
            ties={"a": lambda p: p["b"]},
        ),
        bad(
            "'a' is positive: it cannot have bounds, too",
            bounds={"a": (0, 1)},
            transforms={"a": "positive"},
        ),
    ],
)
def test_bounds_that_are_none_are_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad(r"fixed names \['d'\], which the model does not have", fixed=["d"]),
        bad(r"ties names \['d'\], which the model does not have", ties={"d": lambda p: 1}),
        bad(
            r"transforms names \['d'\], which the model does not have", transforms={"d": "positive"}
        ),
        bad("every parameter is fixed or tied", fixed=["a", "b", "c"]),
        bad(r"\['a'\] have two roles", fixed=["a"], ties={"a": lambda p: p["b"]}),
        bad(
            r"\['a'\] have two roles: a parameter is fixed, tied",
            fixed=["a"],
            transforms={"a": "positive"},
        ),
        bad(r"\['b'\] have two roles", ties={"b": lambda p: p["a"]}, transforms={"b": "positive"}),
        bad("circle: a ← b ← a", ties={"a": "2 * b", "b": "a"}),
        bad("the transform of 'a' is 'log': 'positive', or", transforms={"a": "log"}),
        bad(r"the transform of 'a' is \(2, 1\)", transforms={"a": (2, 1)}),
        bad(r"the transform of 'a' is \(nan, 1\)", transforms={"a": (NAN, 1)}),
        bad("'a' starts outside", p0=[-1, 1, 1], transforms={"a": "positive"}),
    ],
)
def test_roles_that_contradict_are_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("f is str: give a function", f="a * x + b"),
        bad("f is list: give a function", f=[decay, decay]),
        bad("f takes no arguments", f=lambda: 1.0),
        bad("number of parameters cannot be told", f=lambda x, *p: p[0] * x),
        bad("number of parameters cannot be told from f", f=lambda x, **p: x),
        bad("f returned 39 values for 40 points", f=lambda t, a: a * t[1:]),
        bad("f returned 80 values for 40 points", f=lambda t, a: a * torch.stack([t, t])),
        bad("f returned 39 values for 40 points. It must return one for each", xdata=T[:-1]),
        bad("f returned nothing", f=lambda t, a: None),
        bad("f returned complex numbers", f=lambda t, a: a * torch.exp(1j * t)),
        bad(
            r"several parameters are called \['w\[0\]'\]",
            f=lambda t, p: p["w"] * t + p["w[0]"], p0={"w": [1.0], "w[0]": 1.0},
        ),
        bad(r"jac returned a matrix of \(3, 40\); it must be \(40, 3\)",
            jac=lambda t, a, b, c: torch.ones(3, 40)),
        bad("jac='cs' is not known", jac="cs"),
        bad("the residuals are not finite", f=lambda t, a: torch.log(-(a**2) * (t + 1))),
    ],
)  # fmt: skip
def test_functions_that_are_no_model_are_refused(arguments: dict[str, Any], message: str) -> None:
    refused(arguments, message)


def test_a_start_where_the_curve_does_not_move_is_no_fit() -> None:
    with pytest.raises(
        NotConvergedError, match=r"flat: .* Start where the curve depends on its parameters"
    ):
        curve_fit(lambda t, a: 0 * a * t, T, Y)


@pytest.mark.parametrize("x", ["x", None], ids=repr)
def test_new_points_that_are_none_are_refused(x: Any) -> None:
    fit = curve_fit(line, T, T + noise(40))
    with pytest.raises(
        InputError, match="new points must be arrays or tensors in the layout of xdata"
    ):
        fit.confidence_band(x)


# ---- wrong types ---------------------------------------------------------------------------------

TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "fixed": ({"fixed": 3}, "fixed=3 must be a list of names"),
    "a value of fixed": ({"fixed": {"b": None}}, r"fixed\['b'\]=None is no number"),
    "ties": ({"ties": 3}, "ties=3 must be a dict by name"),
    "a list of ties": ({"ties": [3]}, "a tie is 3: write it as a text"),
    "a number for ties": ({"ties": 3}, "ties=3 must be a dict by name"),
    "a tie": ({"ties": {"b": 2}}, "the tie of 'b' is int: give a text"),
    "a tie that returns nothing": (
        {"ties": {"b": lambda p: None}},
        "the tie of 'b' returned None, not a number",
    ),
    "a tie that returns text": (
        {"ties": {"b": lambda p: "x"}},
        "the tie of 'b' returned 'x', not a number",
    ),
    "a tie that returns many": (
        {"ties": {"b": lambda p: np.ones(3)}},
        "the tie of 'b' returned array.*, not a number",
    ),
    "transforms": ({"transforms": 3}, "transforms=3 must be a dict by name"),
    "absolute_sigma": ({"absolute_sigma": "x"}, "absolute_sigma='x' must be True or False"),
    "p0": ({"p0": "x"}, "p0 has 'x', where numbers are needed"),
    "p0 of an object": ({"p0": object()}, "p0 has <object.*, where numbers are needed"),
    "p0 by name": ({"p0": {"a": "x"}}, "p0 has 'x', where numbers are needed"),
    "a complex p0": ({"p0": 1j}, "p0 has 1j, where numbers are needed"),
    "a ragged p0": ({"p0": [[1, 2], [3]]}, "p0 has .*, where numbers are needed"),
    "a bound": ({"bounds": ("low", "high")}, "bounds must be numbers, not 'low'"),
    "f": ({"f": None}, "f is NoneType: give a function"),
    "what f returns": ({"f": lambda x, a: "x"}, "what f returned is no array of real numbers"),
    "an object that f returns": (
        {"f": lambda x, a: object()},
        "what f returned is no array of real numbers",
    ),
}
OF_CURVE_FIT: dict[str, tuple[dict[str, Any], str]] = {
    "mask": ({"mask": "x"}, "mask='x' must hold True for each point that counts"),
    "mask of words": ({"mask": ["yes"] * 40}, "mask=.* must hold True for each point that counts"),
    "sigma": ({"sigma": "x"}, "sigma is no array of real numbers"),
    "shared": ({"shared": 3, "xdata": [T], "ydata": [Y]}, "shared=3 must be a list of names"),
    "each_x": ({"each_x": "x"}, "each_x='x' must be True or False"),
    "full_output": ({"full_output": "x"}, "full_output='x' must be True or False"),
    "check_finite": ({"check_finite": "x"}, "check_finite='x' must be True or False"),
    "weights": (
        {"weights": np.ones(40)},
        "weights is not an option .* sigma=1/weights; .* sigma=1/numpy.sqrt",
    ),
    "what jac returns": (
        {"jac": lambda t, *p: "x"},
        "what jac returned is no array of real numbers",
    ),
    "nothing that jac returns": (
        {"jac": lambda t, *p: None},
        r"jac returned a matrix of \(\); it must be \(40, 3\)",
    ),
}


@pytest.mark.parametrize("name", [*TYPES, *OF_CURVE_FIT])
def test_what_is_of_a_wrong_type_is_named_and_also_a_type_error(name: str) -> None:
    arguments, message = (TYPES | OF_CURVE_FIT)[name]
    with pytest.raises(TypeError, match=message) as caught:
        curve_fit(**{"f": decay, "xdata": T, "ydata": Y, **arguments})
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("name", TYPES)
def test_odr_names_what_is_of_a_wrong_type(name: str) -> None:
    arguments, message = TYPES[name]
    with pytest.raises(TypeError, match=message) as caught:
        odr(**{"f": decay, "x": T, "y": Y, "sx": 0.1, "sy": 0.1, **arguments})
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("name", ["nan_policy", "jac", "f_scale"])
def test_values_that_an_option_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}="):
        curve_fit(decay, T, Y, **{name: 3 if name != "f_scale" else None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        bad("1 points cannot determine 2 parameters", x=T[:1], y=Y[:1]),
        bad("p0 has 1 entries, and f has 2 parameters", p0=[1.0]),
        bad("p0 has 3 entries, and f has 2 parameters", p0=[1.0, 1.0, 1.0]),
        bad("f returned nothing", f=lambda x, a: None),
        bad("f is int: give a function", f=3),
        bad("bounds must be a pair", bounds=None),
    ],
)
def test_what_is_a_type_error_of_scipys_is_one_here(
    arguments: dict[str, Any], message: str
) -> None:
    given = {"f": line, "x": T, "y": Y, **arguments}
    f, x, y = (given.pop(name) for name in ("f", "x", "y"))
    with pytest.raises(TypeError):
        scipy.optimize.curve_fit(f, x, y, **given)
    for fit in (curve_fit, odr):
        with pytest.raises(TypeError, match=message) as ours:
            fit(f, x, y, **given)
        assert isinstance(ours.value, InputError)


class Opaque:
    """A loss that is an object of the user's, with rows and a cost, and no ρ to ask for."""

    def cost(self, residual: Tensor) -> Tensor:
        return Linear().cost(residual)

    def expand(self, residual: Tensor) -> Any:
        return Linear().expand(residual)


def test_a_loss_without_its_rho_has_no_errors() -> None:
    refused({"loss": Opaque()}, "the errors of the parameters need ρ itself")
