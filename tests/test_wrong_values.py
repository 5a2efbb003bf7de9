"""Options with values that cannot work are named before any work, and nothing is changed."""

import inspect
import re
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lmtorch
from lmtorch import InputError
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.solvers.svd import SVD

F64 = torch.float64
NAN, INF = float("nan"), float("inf")
T = torch.linspace(0, 3, 12, dtype=F64)
Y = 2 * torch.exp(-0.7 * T)
X = torch.rand(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))


class Thing:
    """Of no use as anything."""

    def __repr__(self) -> str:
        return "a thing"


THING = Thing()
PAIR = np.ones(2)  # where one value is wanted
FLAGS = [None, "x", 2, 0.5, PAIR, THING]
COUNTS = ["x", -1, 1.5, NAN, True, PAIR, THING, 1j]
TOLERANCES = ["x", -1.0, NAN, 1j, [1e-3], PAIR, THING, True]
POSITIVE = [None, "x", 0.0, -1.0, NAN, INF, 1j, [1.0, 2.0], PAIR, THING, True]
MEMBERS = [None, "x", 3, THING, PAIR]
NAMES = ["x", 3, None, PAIR, THING]

ARRAYS = ["x", 1j, THING, [1.0, "x"], {"a": 1.0}]  # where numbers are wanted
BOUNDS = [None, 3, "x", (0, 1, 2), (9, -9), (NAN, 9), ("x", 9), (0, THING), ([0, 0, 0], 9), THING]
ROLES = [3, THING, None, "x", [3], {"x": 1.0}]

LEAST_SQUARES: dict[str, list[Any]] = {
    "fun": [None, 3, "x", PAIR, THING],
    "x0": [None, "x", 1j, [NAN, 1.0], [INF, 1.0], [1.0, "x"], THING, {}],
    "compile": ["x", 2, None, PAIR, THING],
    "jac": ["x", 3, "cs", PAIR, THING, Forward],
    "bounds": BOUNDS,
    "method": NAMES,
    "ftol": TOLERANCES,
    "xtol": TOLERANCES,
    "gtol": TOLERANCES,
    "x_scale": [
        "x",
        0.0,
        -1.0,
        NAN,
        INF,
        1j,
        [1.0, 1.0, 1.0],
        [1.0, "x"],
        {"a": 1.0},
        {1.0},
        THING,
        More,
    ],
    "loss": [*MEMBERS, SVD],
    "f_scale": POSITIVE,
    "diff_step": ["x", 0.0, NAN, INF, 1j, [1e-3] * 3, THING],
    "tr_solver": ["x", 3, PAIR, THING],
    "tr_options": ["x", 3, PAIR, THING],
    "max_nfev": [0, *COUNTS],
    "verbose": ["x", 3, -1, None, PAIR, THING],
    "kwargs": ["x", 3, PAIR, THING],
    "callback": ["x", 3, PAIR, THING],
    "in_dims": ["x", 1.5, True, (None, 0), [0, 0], {"x": 0}, THING],
    "solver": [*MEMBERS, SVD],
    "damping": [*MEMBERS, TrustRegion],
    "acceleration": FLAGS,
    "polish": COUNTS,
    "second_opinion": [None, "x", -1, 1.5, PAIR, THING],
    "acceptable": ["x", NAN, 1j, [1.0, 2.0, 3.0], THING],
    "names": ["x", 3, ["a"], THING],
    "n_starts": [None, 0, *COUNTS],
    "sampler": ["x", 3, PAIR, THING],
    "seed": [None, *COUNTS],
    "history": FLAGS,
    "progress": FLAGS,
    "memory_limit": [0, *COUNTS],
    "precision": NAMES,
    "process_group": ["x", 3, PAIR, THING],
}
# anything goes: it is for the function to judge, or ignored
LATER = {"args", "jac_sparsity", "workers"}

LEASTSQ: dict[str, list[Any]] = {
    "func": [None, 3, "x", PAIR, THING],
    "x0": LEAST_SQUARES["x0"],
    "Dfun": [3, "x", PAIR, THING],
    "full_output": FLAGS,
    "col_deriv": FLAGS,
    "ftol": TOLERANCES,
    "xtol": TOLERANCES,
    "gtol": TOLERANCES,
    "maxfev": [None, *COUNTS],
    "epsfcn": ["x", -1.0, NAN, INF, 1j, PAIR, THING, True],
    "factor": [None, "x", 0.0, -1.0, NAN, INF, 1j, PAIR, THING, True],
    "diag": ["x", 0.0, -1.0, NAN, INF, 1j, [1.0, 1.0, 1.0], [1.0, "x"], {"a": 1.0}, THING],
}

OPTIMIZER: dict[str, list[Any]] = {
    "params": [None, 3, [], [1.0], ["x"], {}, [{}], [{"lr": 1.0}], THING],
    "lr": [None, "x", -1.0, NAN, INF, 1j, [1.0, 1.0, 1.0], {}, THING],
    "weight_decay": [None, "x", -1.0, NAN, INF, 1j, [1.0, 1.0, 1.0], {}, THING],
    "lower": ["x", NAN, 2.0, 1j, [0.0, 0.0, 0.0], {}, THING],
    "upper": ["x", NAN, -2.0, 1j, [9.0, 9.0, 9.0], {}, THING],
    "solver": [*MEMBERS, SVD],
    "damping": [*MEMBERS, TrustRegion],
    "scaling": [*MEMBERS, More],
    "jacobian": [*MEMBERS, Forward],
    "curvature": NAMES,
    "acceleration": FLAGS,
    "loss": [*MEMBERS, SVD],
    "loss_scale": POSITIVE,
    "ftol": TOLERANCES,
    "xtol": TOLERANCES,
    "gtol": TOLERANCES,
    "polish": COUNTS,
    "max_trials": [None, 0, *COUNTS],
    "memory_limit": [0, *COUNTS],
    "seed": [None, *COUNTS],
    "compile": ["x", 2, None, PAIR, THING],
    "precision": NAMES,
    "momentum": ["x", True, -0.1, 1.0, NAN, 1j, PAIR, THING],
    "progress": FLAGS,
    "process_group": ["x", 3, PAIR, THING],
}
GROUP = {name: OPTIMIZER[name] for name in ("lr", "weight_decay", "lower", "upper")}
# torch takes a group without any
GROUP["params"] = [value for value in OPTIMIZER["params"] if value != []]

SHARED = {
    "p0": [3, "x", [1.0], [1.0, NAN], [1.0, "x"], {"x": 1.0}, THING],
    "bounds": [value for value in BOUNDS if value != ([0, 0, 0], 9)]
    + [{"x": (0, 1)}, {"a": 3}, {"a": ("x", 1)}],
    "fixed": [*(role for role in ROLES if role is not None), {"a": None}, {"a": "x"}, {"a": PAIR}],
    "ties": [
        3,
        "x",
        THING,
        ["a"],
        {"x": abs},
        {"a": 3},
        {"a": "2 * q"},
        {"a": "a"},
        ["a = b", "b = a"],
        {"a": None},
    ],
    "transforms": [
        3,
        "x",
        THING,
        ["a"],
        {"x": "positive"},
        {"a": "x"},
        {"a": 3},
        {"a": (2, 1)},
        {"a": ("x", 1)},
    ],
    "absolute_sigma": FLAGS,
}
CURVE_FIT: dict[str, list[Any]] = {
    "f": [None, 3, "x", PAIR, THING],
    "xdata": [[NAN] * 12, [INF] * 12, {"t": [NAN] * 12}],  # what are no numbers, f may understand
    "ydata": ["x", None, [], 1j, [NAN] * 12, ["x"] * 12, THING],
    "sigma": ["x", 0.0, -1.0, NAN, 1j, [1.0, 1.0], THING, {"a": 1.0}],
    "check_finite": ["x", 2, THING],
    "method": ["x", 3, THING],
    "jac": ["x", 3, "cs", PAIR, THING],
    "full_output": FLAGS,
    "nan_policy": ["x", 3, THING],
    "mask": ["x", 3, [True, False], 1j, THING, ["x"] * 12],
    "shared": ["x", 3, ["x"], THING],
    "each_x": ["x", 2, THING],
    "likelihood": ["x", 3, PAIR, THING],
    "total_count": ["x", 3, 0, -1, NAN, THING],  # without likelihood="binomial", any
    **SHARED,
    **{name: LEAST_SQUARES[name] for name in LEAST_SQUARES if name not in (
        "fun", "x0", "jac", "bounds", "method", "kwargs", "in_dims"
    )},
}  # fmt: skip
ODR: dict[str, list[Any]] = {
    "f": [None, 3, "x", PAIR, THING],
    "x": ["x", None, [NAN] * 12, [1.0, 2.0], THING],
    "y": ["x", [], 1j, [NAN] * 12, THING],  # None is an implicit model
    "sx": ["x", -1.0, NAN, INF, 1j, [1.0, 1.0], THING],
    "sy": ["x", 0.0, -1.0, NAN, INF, 1j, [1.0, 1.0], THING],
    "wd": ["x", 0.0, -1.0, NAN, INF, 1j, [1.0, 1.0], THING],
    "we": ["x", 0.0, -1.0, NAN, INF, 1j, [1.0, 1.0], THING],
    "fixed_x": ["x", [True, False], THING],
    "delta0": ["x", NAN, 1j, [1.0, 1.0], THING],
    "jac": ["x", 3, abs, (abs,), PAIR, THING],
    "batch": FLAGS,
    "ftol": TOLERANCES,
    "xtol": TOLERANCES,
    "gtol": TOLERANCES,
    "max_nfev": [0, *COUNTS],
    "callback": ["x", 3, PAIR, THING],
    **SHARED,
}

DERIVATIVES: dict[str, list[Any]] = {
    "f": [None, 3, "x", PAIR, THING],
    "x": [
        None,
        3.0,
        "x",
        PAIR,
        [1.0],
        torch.ones(4, 3, dtype=torch.int64),
        torch.ones(4, 0),
        THING,
    ],
    "v": [None, "x", PAIR, torch.ones(7, dtype=F64), [[1.0], [1.0, 2.0]], THING],
    "batch_dims": [None, "x", -1, 3, 1.5, True, PAIR, THING],
    "mode": ["x", 3, None, ("auto",), THING],
    "chunk_size": [0, *COUNTS],
    "coordinates": ["x", [], [3], [0, -4], 1.5, [0.5], THING, ["x"]],
    "method": NAMES,
    "step": ["x", 0.0, -1.0, NAN, INF, 1j, PAIR, THING, True],
    "names": ["x", 3, [], ["x"], [3], THING],
    "output": ["x", 1.5, ("x",), THING],  # whether it is there, the first evaluation shows
    "name": ["x", 3, None, [], ["x"], THING],
    "index": ["x", 1.5, 99, (9, 9), None, [], THING],
    "model": [None, 3, "x", PAIR, THING, abs],
    "inputs": [None, 3.0, "x", PAIR, THING],
}
LOAD: dict[str, list[Any]] = {
    "path": [3, None, THING, PAIR],
    "f": [3, "x", THING, PAIR, []],
    "code": FLAGS,
    "device": ["nowhere", 1.5, THING, PAIR],
}
OPERATORS = [
    "jacobian", "batch_jacobian", "gradient", "divergence", "curl", "jvp", "vjp", "hessian",
    "batch_hessian",
    "hessian_diagonal", "value_jacobian_hessian", "laplacian", "hvp",
    "second_directional_derivative",
    "finite_difference_jacobian", "check_derivatives", "parameter_jacobian", "parameter_column",
]  # fmt: skip


def derivative_table(face: str) -> dict[str, list[Any]]:
    """The rows of the options that an operator has."""
    table = {}
    for name in inspect.signature(getattr(lmtorch, face)).parameters:
        values = DERIVATIVES["v" if name == "w" else name]
        if face == "vjp":  # whether w fits, the first evaluation shows
            values = [value for value in values if not hasattr(value, "shape")]
        if (face, name) == ("parameter_column", "inputs"):  # whatever the model takes
            continue
        optional = face == "second_directional_derivative" and name == "w"
        table[name] = [value for value in values if not (optional and value is None)]
    return table


TABLE: dict[str, dict[str, list[Any]]] = {
    "LevenbergMarquardt": OPTIMIZER,
    "add_param_group": GROUP,
    "least_squares": LEAST_SQUARES,
    "leastsq": LEASTSQ,
    "curve_fit": CURVE_FIT,
    "odr": ODR,
    "load": LOAD,
    **{face: derivative_table(face) for face in OPERATORS},
}
# in which words an option is spoken of, where its name is none
WORDS = {
    "bounds": "bound",
    "f": r"\bf\b|function|model",
    "fun": r"\bfun\b",
    "diag": "diag|x_scale",
    "params": "param",
    "ties": r"\bties?\b",
    "transforms": r"\btransforms?\b",
    "inputs": "input",
    "model": "model|module",
    "index": "index|place",
    "name": r"\bname\b|parameter",
    "names": r"\bnames\b|parameter",
}


class Watched:
    """What may not be called, and what may not be changed, by a call that is refused."""

    def __init__(self) -> None:
        self.calls = 0
        self.theta = torch.ones(2, dtype=F64, requires_grad=True)
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double().eval()
        self.model.register_forward_pre_hook(self.noticed)

    def noticed(self, *_: Any) -> None:
        self.calls += 1

    def fun(self, x: Any) -> Any:
        self.calls += 1
        return x[0] * torch.exp(-x[1] * T) - Y

    def curve(self, t: Any, a: Any, b: Any) -> Any:
        self.calls += 1
        return a * torch.exp(-b * t)

    def field(self, x: Any) -> Any:
        self.calls += 1
        return x**2

    def number(self, x: Any) -> Any:
        self.calls += 1
        return (x**2).sum(-1)

    def state(self) -> list[Any]:
        """All that could change."""
        tensors = [self.theta, *self.model.state_dict().values()]
        # ruff would have us use a generator of our own: the global one is what must not be touched
        drawn = np.random.get_state()[1]  # noqa: NPY002
        return [
            *(t.detach().clone() for t in tensors),
            torch.get_rng_state(),
            torch.as_tensor(drawn.astype(np.int64)),
        ]


def call(face: str, option: str, value: Any, watched: Watched) -> Any:
    """The face with good values but for one."""
    changed = {option: value}
    if face == "LevenbergMarquardt":
        given = {"params": [watched.theta], **changed}
        return lmtorch.LevenbergMarquardt(**given)
    if face == "add_param_group":
        opt = lmtorch.LevenbergMarquardt([torch.zeros(1, dtype=F64, requires_grad=True)])
        before = len(opt.param_groups)
        try:
            return opt.add_param_group({"params": [watched.theta], **changed})
        finally:
            assert len(opt.param_groups) == before
    if face == "least_squares":
        return lmtorch.least_squares(**{"fun": watched.fun, "x0": [1.0, 1.0], **changed})
    if face == "leastsq":
        return lmtorch.leastsq(**{"func": watched.fun, "x0": [1.0, 1.0], **changed})
    if face == "curve_fit":
        given = {"f": watched.curve, "xdata": T.numpy(), "ydata": Y.numpy(), **changed}
        return lmtorch.curve_fit(**given)
    if face == "odr":
        return lmtorch.odr(**{"f": watched.curve, "x": T.numpy(), "y": Y.numpy(), **changed})
    if face == "load":
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/fit.json"
            lmtorch.curve_fit(lambda t, a, b: a * t + b, T, Y).save(path)
            return lmtorch.load(**{"path": path, **changed})
    operator = getattr(lmtorch, face)
    if face.startswith("parameter"):
        given = {
            "model": watched.model,
            **({"name": "0.weight", "index": (0, 1)} if face == "parameter_column" else {}),
        }
        inputs = X if option != "inputs" else value
        first = [given.pop(name) if name != option else value for name in list(given)]
        return operator(
            *first, inputs, **({} if option in ("model", "name", "index", "inputs") else changed)
        )
    single = face in ("gradient", "hessian", "hvp")
    given = {"f": watched.number if single else watched.field, "x": X}
    if face == "hessian":
        given["x"] = X[0]
    if face in ("jvp", "hvp", "second_directional_derivative"):
        given["v"] = torch.ones_like(X)
    if face == "vjp":
        given["w"] = torch.ones_like(X)
    if face == "hvp":
        given["batch_dims"] = 1
    return operator(**{**given, **changed})


# mended on another branch; the marks go with the merge
def cases() -> list[tuple[str, str]]:
    """Each option of each face."""
    return [(face, option) for face in TABLE for option in TABLE[face]]


@pytest.mark.parametrize(("face", "option"), cases())
def test_a_wrong_value_is_told_by_name_before_any_work(face: str, option: str) -> None:
    said = WORDS.get(option, rf"\b{option}\b")
    for value in TABLE[face][option]:
        watched = Watched()
        before = watched.state()
        with pytest.raises(InputError) as caught:
            call(face, option, value, watched)
        assert re.search(said, str(caught.value)), (value, str(caught.value))
        assert watched.calls == 0, value
        assert all(torch.equal(a, b) for a, b in zip(before, watched.state(), strict=True)), value


@pytest.mark.parametrize("face", [face for face in TABLE if face != "add_param_group"])
def test_the_table_has_every_option(face: str) -> None:
    of: Callable[..., Any] = getattr(lmtorch, face)
    parameters = inspect.signature(of).parameters
    options = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    # further options are those of `least_squares`; odr has none, and only says so
    if len(options) < len(parameters) and face != "odr":
        options |= set(inspect.signature(lmtorch.least_squares).parameters) - {
            "fun",
            "x0",
            "kwargs",
            "in_dims",
        }
    assert options - LATER - ({"inputs"} if face == "parameter_column" else set()) == set(
        TABLE[face]
    )
    assert all(len(values) > 2 for values in TABLE[face].values())
