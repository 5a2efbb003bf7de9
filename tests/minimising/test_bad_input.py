"""Mistakes that are easily made, and what is said of them before any work."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtorch import InputError, least_squares
from lmtorch.losses import Linear
from lmtorch.losses.base import Expansion

from .setting import F64, INF

X0 = [1.0, 2.0]
TENSOR = torch.tensor(X0, dtype=F64)


def residual(x: Any) -> Any:
    return x - 3


class Squares:
    """A loss that is an object, and has no scale."""

    def expand(self, residual: Tensor) -> Expansion:
        return Linear().expand(residual)


# what is passed beside (or in place of) residual and [1, 2], and what is said of it
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no function": ({"fun": None}, "fun is NoneType, not a function of x"),
    "residuals for the function": ({"fun": np.ones(3)}, "fun is ndarray, not a function"),
    "no numbers": ({"x0": "start"}, "x0 is str, not numbers"),
    "none at all": ({"x0": None}, "x0 is NoneType, not numbers"),
    "rows of different lengths": ({"x0": [[1.0], [1.0, 2.0]]}, "x0 is list, not numbers"),
    "a complex number": ({"x0": 2.0 + 0j}, "x0 is complex"),
    "a complex array": ({"x0": [1.0, 2.0 + 0j]}, "x0 is complex"),
    "a complex tensor": ({"x0": torch.tensor([1j])}, "x0 is complex"),
    "a complex leaf": ({"x0": {"a": torch.tensor([1j])}}, r"x0\['a'\] is complex"),
    "leaves of two dtypes": ({"x0": [torch.zeros(1), torch.zeros(1, dtype=F64)]},
        "several dtypes: 'x0.0.'"),
    "NaN in the start": ({"x0": [1.0, np.nan]}, "x0 has entries that are NaN or infinite"),
    "infinity in the start": ({"x0": [1.0, -np.inf]}, "x0 has entries that are NaN or infinite"),
    "an empty tree": ({"x0": {}}, "x0 is empty"),
    "an unknown Jacobian": ({"jac": "oops"}, "jac='oops' is not known"),
    "the complex step": ({"jac": "cs"}, "Exact derivatives need no complex step"),
    "a matrix for the Jacobian": ({"jac": 3}, "jac=3 is no name and no function"),
    "pairs of bounds": (
        {"bounds": [(0, 1), (None, 5)]},
        r"If they are pairs, one for each parameter, write bounds=\(\[0.0, -inf\], \[1.0, 5.0\]\)",
    ),
    "pairs of bounds that leave no room": ({"bounds": [(1, 2), (1, 5)]},
        r"by equal bounds.*=\(\[1.0, 1.0\], \[2.0"),
    "pairs of bounds of which two cross": ({"bounds": [(0, 5), (1, 3)]},
        r"above its upper bound.*\(\[0.0, 1.0\]"),
    "pairs of bounds for another start": ({"bounds": [(1, 3), (2, 4)], "x0": [2.5, 2.0]},
        r"infeasible.*\(\[1.0, 2.0"),
    "three pairs of bounds": ({"bounds": [(0, 9)] * 3, "x0": [1.0] * 3},
        r"write bounds=\(\[0.0, 0.0, 0.0\]"),
    "bounds of three": ({"bounds": (1.0, 2.0, 3.0)}, r"bounds must be a pair \(lower, upper\)"),
    "no bounds": ({"bounds": None}, "bounds must be a pair"),
    "bounds as a number": ({"bounds": 3.0}, "bounds must be a pair"),
    "bounds in words": ({"bounds": ("low", 3.0)},
        "the lower bound='low' is not made of real numbers"),
    "complex bounds": ({"bounds": (0.0, 5j)}, "the upper bound=5j is not made of real numbers"),
    "bounds exchanged": ({"bounds": (10.0, 0.0)},
        r"a lower bound is above its upper bound, or NaN: x0\[0\]"),
    "one pair of bounds exchanged": ({"bounds": ([0.0, 9.0], [9.0, 0.0])},
        r"above its upper bound, or NaN: x0\[1\]"),
    "NaN for a bound": ({"bounds": ([0.0, np.nan], INF)},
        r"above its upper bound, or NaN: x0\[1\]"),
    "a start outside": ({"bounds": (3.0, 4.0)}, r"x0 is infeasible: outside its bounds at x0\[0\]"),
    "too many bounds": ({"bounds": (0.0, [5.0, 5.0, 5.0])},
        r"upper bound of shape \(3,\) does not fit x0 of \(2,\)"),
    "a vector of one for two": ({"bounds": ([0.0], [5.0, 5.0])},
        r"the lower bound of shape \(1,\) does not fit"),
    "an unknown method": ({"method": "newton"}, "method='newton' is not known"),
    "an unknown trust region": ({"tr_solver": "best"}, "tr_solver='best' is not known"),
    "a tolerance in words": ({"ftol": "tight"}, "ftol='tight' is no number"),
    "a list of tolerances": ({"xtol": [1e-3]}, r"xtol=\[0.001\] is no number"),
    "a negative tolerance": ({"gtol": -1e-3}, "gtol=-0.001 must be zero or positive"),
    "NaN for a tolerance": ({"ftol": np.nan}, "ftol=nan must be zero or positive"),
    "no tolerance": ({"ftol": None, "xtol": None, "gtol": None},
        "all None: nothing would end the run"),
    "a negative scale": ({"x_scale": -1.0}, "x_scale must be positive and finite"),
    "a scale of zero": ({"x_scale": [1.0, 0.0]}, "x_scale must be positive and finite"),
    "an infinite scale": ({"x_scale": INF}, "x_scale must be positive and finite"),
    "a complex scale": ({"x_scale": 1 + 2j}, "x_scale=.* is not made of real numbers"),
    "too many scales": ({"x_scale": [1.0, 1.0, 1.0]},
        r"x_scale of shape \(3,\) does not fit x0 of \(2,\)"),
    "an unknown scaling": ({"x_scale": "oops"}, "x_scale='oops' is not known"),
    "an unknown loss": ({"loss": "hinge"}, "loss='hinge' is not known"),
    "a number for the loss": ({"loss": 3}, "loss=3 is no name"),
    "a threshold of zero": ({"f_scale": 0.0}, "f_scale=0.0 must be positive and finite"),
    "a negative threshold": ({"f_scale": -1.0}, "f_scale=-1.0 must be positive and finite"),
    "a threshold in words": ({"f_scale": "auto"},
        'f_scale=\'auto\' must be a positive number, or "mad"'),
    "no threshold": ({"f_scale": None}, "f_scale=None must be a positive number"),
    "a threshold of nothing": ({"f_scale": 1e-200, "loss": "huber"},
        "f_scale=1e-200 is too small for residuals of up"),
    "thresholds": ({"f_scale": [1.0, 2.0]}, r"f_scale=\[1.0, 2.0\] must be a positive number"),
    "a threshold to estimate of an object": (
        {"loss": Squares(), "f_scale": "mad"}, "needs a loss that has a scale: a name or a function"
    ),
    "a difference of zero": ({"diff_step": 0.0}, "diff_step=0.0 must be finite and not zero"),
    "NaN for a difference": ({"diff_step": [1e-3, np.nan]}, "must be finite and not zero"),
    "a difference in words": ({"diff_step": "small"},
        "diff_step='small' is not made of real numbers"),
    "too many differences": ({"diff_step": [1e-3] * 3}, r"diff_step of shape \(3,\) does not fit"),
    "no evaluations": ({"max_nfev": 0}, "max_nfev=0 must be a whole number, at least 1, or None"),
    "half an evaluation": ({"max_nfev": 1.5}, "max_nfev=1.5 must be a whole number"),
    "infinitely many evaluations": ({"max_nfev": INF}, "max_nfev=inf must be a whole number"),
    "evaluations in words": ({"max_nfev": "many"}, "max_nfev='many' must be a whole number"),
    "too much to say": ({"verbose": 3}, "verbose=3 is not known. Use one of 0, 1, 2"),
    "no callback": ({"callback": 3}, "callback is int, not a function"),
    "an unknown solver": ({"solver": "lu"}, "solver='lu' is not known"),
    "an object that solves nothing": ({"solver": 3},
        "solver=3 is no name and has no method 'factor'"),
    "an unknown damping": ({"damping": "oops"}, "damping='oops' is not known"),
    "an object that damps nothing": ({"damping": 3},
        "damping=3 is no name and has no method 'propose'"),
    "a negative polish": ({"polish": -1}, "polish=-1 must be a whole number, at least 0"),
    "a polish in words": ({"polish": "much"}, "polish='much' must be a whole number"),
    "no starts": ({"n_starts": 0}, "n_starts=0 must be a whole number, at least 1"),
    "half a start": ({"n_starts": 2.5}, "n_starts=2.5 must be a whole number"),
    "yes for starts": ({"n_starts": True}, "n_starts=True must be a whole number"),
    "a negative seed": ({"n_starts": 2, "seed": -1}, "seed=-1 must be a whole number, at least 0"),
    "no memory": ({"memory_limit": 1}, r"the Jacobian \(2 x 2\) takes"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_said_of(name: str) -> None:
    options, message = MISTAKES[name]
    given: dict[str, Any] = {"fun": residual, "x0": X0} | options
    with pytest.raises(InputError, match=message):
        least_squares(**given)


RETURNS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda x: None, "returned nothing. Return the residuals, model − data"),
    "a word": (lambda x: "no", "returned str"),
    "no residuals": (lambda x: x[:0], "m = 0"),
    "a sum of squares": (
        lambda x: (x**2).sum(),
        "a single number for 2 parameters: is it the sum of squares?",
    ),
    "a list of words": (lambda x: ["a", "b"], "returned (str|list)"),
    "NaN": (lambda x: x * np.nan, "the residuals are not finite at"),
    "infinity": (lambda x: x / 0.0, "the residuals are not finite at"),
}


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("jac", [None, "2-point"])
@pytest.mark.parametrize("start", [X0, TENSOR], ids=["array", "tensor"])
@pytest.mark.parametrize("name", RETURNS)
def test_what_is_said_of_a_function_that_returns(name: str, start: Any, jac: Any) -> None:
    function, message = RETURNS[name]
    with pytest.raises(InputError, match=message):
        least_squares(function, start, jac)


def test_integers_have_no_derivatives() -> None:
    with pytest.raises(InputError, match=r"returned torch\.int64, which has no derivatives"):
        least_squares(torch.Tensor.long, TENSOR)


def test_a_python_float_is_a_sum_of_squares_too() -> None:
    with pytest.raises(InputError, match="a single number for 2 parameters"):
        least_squares(lambda x: float(x[0] ** 2 + x[1] ** 2), X0, "2-point")


def test_one_residual_of_one_parameter_may_be_a_number() -> None:
    for start in (1.0, torch.tensor([1.0], dtype=F64)):
        assert float(least_squares(lambda x: x[0] - 3, start).x[0]) == pytest.approx(3)
    with pytest.warns(match="finite differences serve"):
        assert float(least_squares(lambda x: float(x[0]) - 3, 1.0).x[0]) == pytest.approx(3)


@pytest.mark.parametrize("name", ["auto", "forward", "reverse", "autograd"])
def test_a_function_that_torch_cannot_differentiate_is_refused_where_that_is_asked_for(
    name: str,
) -> None:
    def detached(x: Tensor) -> Tensor:
        return x.detach() - 3

    with pytest.raises(InputError, match=r"cannot be differentiated by torch: .* no graph"):
        least_squares(detached, TENSOR, name)


def test_a_lost_derivative_is_refused_where_an_exact_one_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"depends on x0\[1\], but no derivative in it does"):
        least_squares(lambda x: torch.stack([x[0] - 1, x[0] * float(x[1]) - 2]), TENSOR, "forward")


TREES: dict[str, tuple[dict[str, Any], str]] = {
    "another tree of bounds": ({"bounds": ({"a": 0.0, "c": 0.0}, INF)},
        "lower bound has another structure"),
    "a leaf that does not fit": (
        {"bounds": ({"a": torch.zeros(3), "b": torch.zeros(())}, INF)},
        r"of shape \(3,\) does not fit x0\['a'\]"
    ),
    "another tree of scales": ({"x_scale": {"a": torch.ones(2)}},
        "x_scale has another structure than x0"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_what_is_said_of_trees_beside_a_tree(name: str) -> None:
    options, message = TREES[name]
    start = {"a": torch.ones(2, dtype=F64), "b": torch.tensor(1.0, dtype=F64)}
    with pytest.raises(InputError, match=message):
        least_squares(lambda x: torch.cat([x["a"], x["b"][None]]) - 3, start, **options)


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize(("first", "later"), [(3, 2), (2, 3), (3, 1), (1, 3)])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_function_of_other_residuals_than_before_is_no_silent_success(
    jac: Any, at: int, first: int, later: int
) -> None:
    calls = count(1 if jac else 0)  # without a word on derivatives it is tried on a tensor first

    def changing(x: np.ndarray) -> np.ndarray:
        return np.ones(first if next(calls) <= at else later) * np.asarray(x)[0] - 3

    with pytest.raises(
        InputError, match=f"returned {later} residuals where it had returned {first}"
    ):
        least_squares(changing, [1.0], jac)


def test_residuals_on_another_device_are_refused(elsewhere: torch.device) -> None:
    with pytest.raises(InputError, match=f"the residuals are on cpu, x0 on {elsewhere.type}"):
        least_squares(lambda x: x.cpu() - 3, TENSOR.to(elsewhere))
