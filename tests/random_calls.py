"""Random calls: each ends in a typed error with nothing changed, or in a result that is right.

A call is made of its face and its number alone: `python -m tests.random_calls curve_fit 17` makes
one again, and `python -m tests.random_calls curve_fit 0 10000` so many.
"""

import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeWarning
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import lmtorch
from lmtorch import FallbackWarning, InputError, NotConvergedError, Status

from .test_wrong_values import TABLE

F64 = torch.float64
TYPED = (InputError, NotConvergedError)
SPOKEN = (FallbackWarning, OptimizeWarning, UserWarning)
RARE = 0.04  # of calls have a wrong value among their options
# relative difference of a cost or a residual computed again
SLACK = {torch.float64: 1e-7, torch.float32: 2e-3}
# largest cosine between residuals and columns of J at what is called a minimum
COSINE = {torch.float64: 1e-3, torch.float32: 3e-2}


class BrokenPromiseError(AssertionError):
    """What a call has done and may not do."""


def promise(holds: Any, what: str) -> None:
    """Say what is broken, if it is."""
    if not bool(holds):
        raise BrokenPromiseError(what)


# ---- models, for tensors and arrays alike --------------------------------------------------------

Curve = Callable[..., Any]
CURVES: dict[str, tuple[int, Curve]] = {
    "line": (2, lambda xp, t, a, b: a + b * t),
    "parabola": (3, lambda xp, t, a, b, c: a + b * t + c * t**2),
    "slope": (1, lambda xp, t, a: a * t),
    "constant": (1, lambda xp, t, a: a + 0 * t),
    "decay": (2, lambda xp, t, a, b: a * xp.exp(-b * t)),
    "decay and level": (3, lambda xp, t, a, b, c: a * xp.exp(-b * t) + c),
    "peak": (3, lambda xp, t, a, b, c: a * xp.exp(-(((t - b) / c) ** 2))),
    "wave": (2, lambda xp, t, a, b: a * xp.sin(b * t)),
    "pole": (3, lambda xp, t, a, b, c: (a + b * t) / (1 + c * t)),
    "saturation": (2, lambda xp, t, a, b: a * t / (b + t)),
    "logarithm": (2, lambda xp, t, a, b: xp.log(a + b * t)),  # NaN beyond a wall
    "root": (2, lambda xp, t, a, b: a * xp.sqrt(t - b)),  # NaN where t < b
    "power": (2, lambda xp, t, a, b: a * (t + 0.1) ** b),
    "kink": (2, lambda xp, t, a, b: a * abs(t - b)),
    "product": (2, lambda xp, t, a, b: a * b * t),  # a saddle at zero, and a valley
    "squares": (2, lambda xp, t, a, b: a**2 - b**2 + t),
    "nothing": (2, lambda xp, t, a, b: 0 * a * t + 0 * b),
    "one of two": (2, lambda xp, t, a, b: a * t + 0 * b),
    "logistic": (3, lambda xp, t, a, b, c: a / (1 + xp.exp(-b * (t - c)))),
}
LOSSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda z: z,
    "soft_l1": lambda z: 2 * (np.sqrt(1 + z) - 1),
    "huber": lambda z: np.where(z <= 1, z, 2 * np.sqrt(np.maximum(z, 1)) - 1),
    "cauchy": np.log1p,
    "arctan": np.arctan,
    "tukey": lambda z: np.where(z <= 1, (1 - (1 - np.minimum(z, 1)) ** 3) / 3, 1 / 3),
    "geman_mcclure": lambda z: z / (1 + z),
}


class Draw:
    """A generator of its own for each call, and what calls are made of."""

    def __init__(self, face: str, number: int) -> None:
        self.rng = np.random.default_rng([list(FACES).index(face), number])
        self.told: dict[str, Any] = {}  # what the call is, for whoever reads of a failure

    def one(self, *values: Any) -> Any:
        """One of them."""
        return values[self.rng.integers(len(values))]

    def rarely(self, share: float = 0.1) -> bool:
        """Now and then."""
        return bool(self.rng.random() < share)

    def size(self) -> float:
        """A number of one of many sizes, and of either sign."""
        return float(self.rng.normal() * 10.0 ** self.one(0, 0, 0, 0, -2, 1, 3))

    def curve(self) -> tuple[int, Curve]:
        """A model with its number of parameters."""
        name = self.one(*CURVES)
        self.told["model"] = name
        return CURVES[name]

    def points(self, n: int) -> np.ndarray:
        """Abscissas: few or many, as many as parameters, or fewer."""
        count = int(self.one(n, n + 1, 5, 12, 30, 30, max(1, n - 1), 1))
        return np.sort(self.rng.uniform(*self.one((0, 1), (0, 4), (-2, 2), (0, 1000)), count))

    def start(self, n: int) -> np.ndarray:
        """Any start; now and then zeros, or one that is no number."""
        found = np.array([self.size() for _ in range(n)])
        if self.rarely(0.1):
            found = np.zeros(n) if self.rarely(0.5) else np.ones(n)
        if self.rarely(0.02):
            found[0] = np.nan
        return found

    def data(self, curve: Curve, n: int, t: np.ndarray) -> np.ndarray:
        """The model with noise, or something else; now and then a NaN or an outlier."""
        with np.errstate(all="ignore"):
            y = np.asarray(curve(np, t, *(self.size() for _ in range(n))), dtype=float)
        if self.rarely(0.15) or not np.isfinite(y).all():
            y = self.rng.normal(size=len(t)) * 10.0 ** self.one(0, 0, -3, 4)
        size = np.abs(y).max() if len(y) else 1.0
        y = y + self.one(0, 0.01, 0.1, 1.0) * size * self.rng.normal(size=len(t))
        if self.rarely(0.1):
            y[self.rng.integers(len(y))] += 100 * size
        if self.rarely(0.03):
            y[self.rng.integers(len(y))] = self.one(np.nan, np.inf)
        return y

    def box(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds around a start: wide, narrow, one-sided, touching, equal, sometimes elsewhere."""
        width = np.abs(self.rng.normal(size=len(x))) * 10.0 ** self.one(-1, 0, 2)
        low, high = x - width, x + width[::-1]
        kind = self.rng.integers(0, 5, len(x))
        low = np.where(kind == 0, -np.inf, np.where(kind == 1, x, low))
        high = np.where(kind == 2, np.inf, np.where((kind == 1) & self.rarely(0.2), x, high))
        return (low + 10 * width, high) if self.rarely(0.03) else (low, high)

    def options(self, known: dict[str, list[Any]], share: float = 0.12) -> dict[str, Any]:
        """Some options by name."""
        return {name: self.one(*values) for name, values in known.items() if self.rarely(share)}

    def wrong(self, face: str, given: dict[str, Any]) -> bool:
        """Now and then a wrong value takes a place among the options."""
        if not self.rarely(RARE):
            return False
        name = self.one(*(name for name in TABLE[face] if name in given or name in ASKED[face]))
        given[name] = self.one(*TABLE[face][name])
        return True


SOLVING = {
    "ftol": [1e-3, 1e-8, 1e-12, 0.0],
    "xtol": [1e-3, 1e-8, 1e-12, 0.0],
    "gtol": [1e-3, 1e-8, 1e-12, 0.0],
    "loss": [*LOSSES, *LOSSES],
    "solver": ["auto", "svd", "qr", "cholesky", "dual", "cg"],
    "damping": ["auto", "trust_region", "nielsen", "marquardt"],
    "acceleration": [True, False],
    "polish": [0, 1, 5, None],
    "memory_limit": [None, 10**6, 10**9],
}
SEARCHING = {
    **{name: [*values, None] for name, values in SOLVING.items() if name.endswith("tol")},
    **{name: values for name, values in SOLVING.items() if not name.endswith("tol")},
    "f_scale": [1.0, 0.01, 1e3, 1e200, "mad"],
    "x_scale": [None, 1.0, "jac", "levenberg", "marquardt"],
    "max_nfev": [1, 2, 5, 30, None],
    "n_starts": [1, 2, 4],
    "second_opinion": [True, False, 2],
    "acceptable": [None, 0.0, 1.0],
    "history": [True, False],
    "seed": [0, 7],
    "callback": [None, lambda iterate: None],
}
ASKED = {
    "least_squares": {*SEARCHING, "bounds", "jac"},
    "curve_fit": {*SEARCHING, "bounds", "jac", "p0"},
    "odr": {"bounds", "p0", "ftol", "xtol", "gtol", "max_nfev"},
    "LevenbergMarquardt": {
        *SOLVING,
        "lr",
        "weight_decay",
        "lower",
        "upper",
        "curvature",
        "scaling",
    },
}


# ---- what every call keeps -----------------------------------------------------------------------


def state_of(*things: Any) -> list[Any]:
    """Copies of all arrays and tensors among them, and of the generators."""
    # ruff would have us use a generator of our own: the global one is what must not be touched
    numpy = np.random.get_state()  # noqa: NPY002
    leaves = [leaf for leaf in tree_leaves(things) if isinstance(leaf, np.ndarray | Tensor | float)]
    return [deepcopy(leaf.detach() if isinstance(leaf, Tensor) else leaf) for leaf in leaves] + [
        torch.get_rng_state(), numpy[1], numpy[2]
    ]  # fmt: skip


def same(before: list[Any], after: list[Any]) -> bool:
    """Bit for bit."""
    return len(before) == len(after) and all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(before, after, strict=True)
    )


def called(call: Callable[[], Any], *inputs: Any) -> Any:
    """The result or the typed error; inputs and generators are unchanged, and warnings are ours."""
    before = state_of(*inputs)
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            result = call()
        except TYPED as error:
            promise(str(error).strip(), "an error says nothing")
            result = error
    promise(same(before, state_of(*inputs)), "an input, a parameter or a generator was changed")
    for warning in caught:
        ours = issubclass(warning.category, SPOKEN) and "torch" not in Path(warning.filename).parts
        own = "Complex" not in str(warning.message) and warning.category is not RuntimeWarning
        promise(
            ours or (own and "`torch.jit" in str(warning.message)),
            f"a warning: {warning.category.__name__} {warning.message}",
        )
    return result


def numbers(value: Any) -> np.ndarray:
    """In double precision."""
    return (
        value.detach().double().numpy()
        if isinstance(value, Tensor)
        else np.asarray(value, dtype=float)
    )


def cost_of(r: np.ndarray, loss: str, scale: float) -> float:
    """½ Σ C² ρ((r/C)²)."""
    if loss == "linear" or scale > 1e100:
        return float(np.square(r).sum() / 2)
    return float(scale**2 * LOSSES[loss](np.square(r / scale)).sum() / 2)


def cosine_of(
    residual: Callable[[Tensor], Tensor], x: np.ndarray, loss: str, scale: float, free: np.ndarray
) -> float:
    """The largest cosine between residuals and a free column of J, both rescaled by the loss."""
    point = torch.as_tensor(x, dtype=F64)
    r = residual(point).detach().numpy()
    J = torch.autograd.functional.jacobian(residual, point).numpy()
    if loss != "linear" and scale < 1e100:
        z = torch.as_tensor(np.square(r / scale)).requires_grad_()
        rho = {
            "soft_l1": lambda z: 2 * ((1 + z).sqrt() - 1),
            "cauchy": torch.log1p,
            "arctan": torch.atan,
        }.get(loss)
        if rho is None:
            step = 1e-7 * (1 + z.detach().numpy())
            first = (
                LOSSES[loss](z.detach().numpy() + step) - LOSSES[loss](z.detach().numpy())
            ) / step
        else:
            first = torch.autograd.grad(rho(z).sum(), z)[0].numpy()
        root = np.sqrt(np.maximum(first, 0))
        r, J = root * r, root[:, None] * J
    size, norms = np.linalg.norm(r), np.linalg.norm(J, axis=0)
    usable = free & (norms > 0)
    if size == 0 or not usable.any():
        return 0.0
    return float((np.abs(J.T @ r)[usable] / (norms[usable] * size)).max())


def is_minimum(
    residual: Callable[[Tensor], Tensor],
    x: np.ndarray,
    loss: str,
    scale: float,
    free: np.ndarray,
    cost: float,
) -> bool:
    """Whether the quadratic model of the cost promises next to nothing, and has no way down."""
    if loss not in ("linear", "soft_l1", "cauchy", "arctan") and scale < 1e100:
        return True  # not looked at
    rho = {
        "soft_l1": lambda z: 2 * ((1 + z).sqrt() - 1),
        "cauchy": torch.log1p,
        "arctan": torch.atan,
    }.get(loss)
    scale = min(scale, 1e100)

    def total(point: Tensor) -> Tensor:
        r = residual(point)
        return (
            r.square().sum() / 2 if rho is None else scale**2 * rho((r / scale).square()).sum() / 2
        )

    point = torch.as_tensor(x, dtype=F64).requires_grad_()
    g = torch.autograd.grad(total(point), point)[0].numpy()[free]
    H = torch.autograd.functional.hessian(total, point.detach()).numpy()[free][:, free]
    unit = np.sqrt(np.abs(np.diag(H)))
    unit = np.where(unit > 0, unit, 1)
    values, vectors = np.linalg.eigh(H / unit / unit[:, None])
    along = vectors.T @ (g / unit)
    usable = values > 1e-8
    return bool(
        values.min() > -1e-5 and (along[usable] ** 2 / values[usable]).sum() / 2 <= 1e-4 * cost
    )


# ---- least_squares -------------------------------------------------------------------------------


def least_squares(draw: Draw) -> None:
    """One fit or a batch, of arrays, tensors or a tree."""
    n, curve = draw.curve()
    t, x = draw.points(n), draw.start(n)
    form = draw.one("array", "array", "tensor", "tensor", "float32", "tree", "numpy function")
    batch = 0 if form in ("numpy function",) or draw.rarely(0.75) else int(draw.one(1, 2, 5))
    y = np.stack([draw.data(curve, n, t) for _ in range(max(1, batch))])
    y = y if batch else y[0]
    dtype = torch.float32 if form == "float32" else F64
    given: dict[str, Any] = draw.options(SEARCHING)
    if draw.rarely(0.3):
        given["bounds"] = draw.box(x)
    if draw.rarely(0.2):
        given["jac"] = draw.one("2-point", "3-point", "forward", "reverse", "autograd", "auto")
    tt, yy = torch.as_tensor(t, dtype=dtype), torch.as_tensor(y, dtype=dtype)

    def fun(u: Any, t: Any, y: Any) -> Any:
        u = torch.cat([u["a"], u["b"]]) if isinstance(u, dict) else u
        return curve(np if isinstance(u, np.ndarray) else torch, t, *(u[i] for i in range(n))) - y

    start: Any = x.copy()
    args: tuple[Any, Any] = (tt, yy)
    if form in ("tensor", "float32"):
        start = torch.as_tensor(x, dtype=dtype)
    elif form == "tree":
        start = {"a": torch.as_tensor(x[:1]), "b": torch.as_tensor(x[1:])}
        if "bounds" in given:
            given["bounds"] = tuple(
                {"a": torch.as_tensor(s[:1]), "b": torch.as_tensor(s[1:])} for s in given["bounds"]
            )
    elif form == "numpy function":
        args = (t, y)
        if given.get("jac") in ("forward", "reverse", "autograd", "auto"):
            del given["jac"]
        fun_of_arrays = fun
        fun = lambda u, t, y: fun_of_arrays(
            np.asarray(u) if not isinstance(u, Tensor) else u.numpy(), t, y
        )
    if batch:
        given["in_dims"] = (None, None, 0)
    draw.told |= {"x0": start, "t": t, "y": y, "form": form, "options": given}
    wrong = draw.wrong("least_squares", given)
    found = called(
        lambda: lmtorch.least_squares(fun, start, args=args, **given),
        start,
        args,
        given.get("bounds"),
    )
    if isinstance(found, Exception) or wrong:
        return
    problems = found.x if form != "tree" else torch.cat([found.x["a"], found.x["b"]], -1)
    for i in range(batch or 1):
        of = (lambda field, i=i: numbers(field)[i]) if batch else numbers
        each = lambda p, i=i: (
            curve(torch, torch.as_tensor(t), *p) - torch.as_tensor(y[i] if batch else y)
        )
        _solved(
            draw,
            found,
            of,
            numbers(problems)[i] if batch else numbers(problems),
            x,
            each,
            given,
            dtype,
        )


def _solved(
    draw: Draw, found: Any, of: Callable[[Any], Any], x: np.ndarray, x0: np.ndarray,
    residual: Callable[[Tensor], Tensor], given: dict[str, Any], dtype: torch.dtype,
) -> None:  # fmt: skip
    """What a solution promises, of one problem."""
    promise(np.isfinite(x).all(), "x is not finite")
    status, success, cost = int(of(found.status)), bool(of(found.success)), float(of(found.cost))
    promise(
        status in list(Status) and success == (status > 0),
        "status and success contradict each other",
    )
    promise(int(of(found.nfev)) >= 1, "no evaluations")
    free = np.ones(len(x), dtype=bool)
    if "bounds" in given:
        low, high = (
            np.concatenate([numbers(v).ravel() for v in tree_leaves(side)])
            for side in given["bounds"]
        )
        low, high = (
            np.asarray(torch.as_tensor(side, dtype=dtype), dtype=float) for side in (low, high)
        )
        promise(((low <= x) & (x <= high)).all(), "x lies outside its bounds")
        free = (x > low) & (x < high)
        active = of(found.active_mask)
        promise((active[free] == 0).all() and (active[~free] != 0).all(), "active_mask is wrong")
    loss, scale = given.get("loss", "linear"), given.get("f_scale", 1.0)
    scale = (
        float(of(found.f_scale)) if scale == "mad" and np.ndim(numbers(found.f_scale)) else scale
    )
    scale = float(numbers(found.f_scale)) if scale == "mad" else scale
    r = residual(torch.as_tensor(x)).numpy()
    here, slack = cost_of(r, loss, scale), SLACK[dtype]
    if not np.isfinite(here):
        promise(not success, "success where the residuals are not finite")
        return
    size = np.abs(r).max() + np.abs(draw.told["y"][np.isfinite(draw.told["y"])]).max(initial=0)
    room = slack * max(here, abs(cost)) + (1e-14 if dtype == F64 else 1e-6) * size**2 * len(r)
    promise(abs(here - cost) <= room, f"cost is {cost}, and at x it is {here}")
    np.testing.assert_allclose(
        of(found.fun), r, rtol=0, atol=max(10 * slack * size, 1e-300), err_msg="fun is not r(x)"
    )
    begun = cost_of(residual(torch.as_tensor(x0)).numpy(), loss, scale)
    if np.isfinite(begun) and given.get("f_scale") != "mad":
        promise(here <= begun + room, f"the cost has risen from {begun} to {here}")
    loose = any((given.get(name) or 0.0) > 1e-8 for name in ("ftol", "xtol", "gtol"))
    noise = 100 * float(torch.finfo(dtype).eps) * size
    nothing = max(1e-16 * max(begun if np.isfinite(begun) else 0.0, size**2), noise**2 * len(r))
    if success and not loose and here > nothing:
        cosine = cosine_of(residual, x, loss, scale, free)
        minimum = cosine <= COSINE[dtype] or is_minimum(residual, x, loss, scale, free, here)
        promise(minimum, f"success ({Status(status).name}) at a cosine of {cosine:.2g}")


# ---- curve_fit -----------------------------------------------------------------------------------


def curve_fit(draw: Draw) -> None:
    """With sigma, masks, bounds, and parameters that are fixed, tied or transformed."""
    n, curve = draw.curve()
    names = ["a", "b", "c"][:n]
    t, p0 = draw.points(n), draw.start(n)
    batch = 0 if draw.rarely(0.8) else int(draw.one(1, 3))
    y = np.stack([draw.data(curve, n, t) for _ in range(max(1, batch))])
    y = y if batch else y[0]
    given: dict[str, Any] = draw.options(
        {k: v for k, v in SEARCHING.items() if k != "n_starts"}, 0.08
    )
    if draw.rarely(0.3):
        given["sigma"] = draw.one(
            0.1, np.full(len(t), 0.5), 0.1 + np.arange(len(t)), np.eye(len(t)) * 0.3
        )
    if draw.rarely(0.15):
        given["mask"] = draw.rng.random(len(t)) < 0.8
    if draw.rarely(0.2):
        given["absolute_sigma"] = True
    if draw.rarely(0.15):
        given["nan_policy"] = draw.one("omit", "raise")
    roles = list(draw.rng.permutation(names))
    if n > 1 and draw.rarely(0.2):
        role = str(roles.pop())
        given["fixed"] = draw.one([role], role, {role: draw.size()})
    if len(roles) > 1 and draw.rarely(0.15):
        tied, other = str(roles.pop()), str(roles[0])
        given["ties"] = {tied: lambda p: 2 * p[other]}
    if roles and draw.rarely(0.2):
        given["transforms"] = {str(roles.pop()): draw.one("positive", (-10.0, 10.0))}
    if draw.rarely(0.2):
        low, high = draw.box(p0)
        given["bounds"] = draw.one(
            (low, high), {m: (low[i], high[i]) for i, m in enumerate(names) if m in roles}
        )
    if draw.rarely(0.8):
        given["p0"] = draw.one(p0, list(p0), dict(zip(names, p0.tolist(), strict=True)))
    kind = draw.one("array", "tensor", "list", "numpy function")
    convert = {
        "array": np.asarray,
        "tensor": torch.as_tensor,
        "list": lambda v: v.tolist(),
        "numpy function": np.asarray,
    }
    x, data = convert[kind](t), convert[kind](y)
    draw.told |= {"kind": kind, "t": t, "y": y, "options": given}
    wrong = draw.wrong("curve_fit", given)
    found = called(
        lambda: lmtorch.curve_fit(_named(curve, n, kind), x, data, **given), x, data, given
    )
    if isinstance(found, NotConvergedError):
        found = found.fit
        promise(not bool(np.all(found.success)), "a success is raised as a failure")
    if isinstance(found, Exception) or wrong:
        return
    popt, pcov = numbers(found.popt), numbers(found.pcov)
    promise(np.isfinite(popt).all(), "popt is not finite")
    promise(
        popt.shape == (*y.shape[:-1], n) and pcov.shape == (*y.shape[:-1], n, n), "a shape is wrong"
    )
    for p, C in zip(popt.reshape(-1, n), pcov.reshape(-1, n, n), strict=True):
        values = dict(zip(names, p, strict=True))
        fixed = given.get("fixed", ())
        for role in [fixed] if isinstance(fixed, str) else fixed:
            held = fixed[role] if isinstance(fixed, dict) else _begun(given, names, role)
            promise(
                held is None or values[role] == held,
                f"{role} was to be {held}, and is {values[role]}",
            )
        for role, tie in given.get("ties", {}).items():
            promise(
                np.isclose(values[role], tie(values), rtol=1e-12),
                f"the tie of {role} does not hold",
            )
        for role, kept in given.get("transforms", {}).items():
            low, high = (0.0, np.inf) if kept == "positive" else kept
            promise(low <= values[role] <= high, f"{role}={values[role]} leaves its transform")
        if "bounds" in given:
            bounds = given["bounds"]
            sides = (
                bounds
                if isinstance(bounds, dict)
                else {m: (bounds[0][i], bounds[1][i]) for i, m in enumerate(names)}
            )
            for role, (low, high) in sides.items():
                held = (
                    role in fixed
                    or role in given.get("ties", {})
                    or role in given.get("transforms", {})
                )
                promise(
                    held or low <= values[role] <= high,
                    f"{role}={values[role]} lies outside {low}, {high}",
                )
        known = np.isfinite(C)
        promise(
            np.array_equal(known, known.T) and np.allclose(C[known], C.T[known], rtol=1e-9),
            "pcov is not symmetric",
        )
        if known.all():
            scale = np.sqrt(np.abs(np.diag(C)))
            unit = C / np.where(scale > 0, scale, 1) / np.where(scale > 0, scale, 1)[:, None]
            promise(np.linalg.eigvalsh(unit).min() >= -1e-6, "pcov has a negative eigenvalue")
    promise(len(repr(found)) > 0 and (batch or found.report()), "it cannot be printed")


def _named(curve: Curve, n: int, kind: str) -> Callable[..., Any]:
    """The model with the signature of so many parameters."""
    xp = np if kind == "numpy function" else torch

    def of(t: Any, *p: Any) -> Any:
        if xp is np and any(isinstance(v, Tensor) for v in (t, *p)):
            raise TypeError("NumPy alone")
        return curve(xp, t, *p)

    # ruff would have us use `of` itself: its signature has no names, and names
    # are what curve_fit reads
    signatures: list[Curve] = [
        lambda t, a: of(t, a),  # noqa: PLW0108
        lambda t, a, b: of(t, a, b),  # noqa: PLW0108
        lambda t, a, b, c: of(t, a, b, c),  # noqa: PLW0108
    ]
    return signatures[n - 1]


def _begun(given: dict[str, Any], names: list[str], role: str) -> float | None:
    p0 = given.get("p0")
    if p0 is None:
        return None
    return float(p0[role] if isinstance(p0, dict) else p0[names.index(role)])


# ---- odr -----------------------------------------------------------------------------------------


def odr(draw: Draw) -> None:
    """With errors in x and in y."""
    n, curve = draw.curve()
    names = ["a", "b", "c"][:n]
    t, p0 = draw.points(n), draw.start(n)
    y = draw.data(curve, n, t)
    given: dict[str, Any] = draw.options({k: SEARCHING[k] for k in ("ftol", "xtol", "gtol")}, 0.1)
    given["max_nfev"] = draw.one(1, 5, 60)
    given["sx"] = draw.one(
        0.01, 1.0, np.full(len(t), 0.1), np.where(np.arange(len(t)) == 0, 0.0, 0.1), None
    )
    given["sy"] = draw.one(0.1, 1.0, np.full(len(t), 0.1), None)
    if draw.rarely(0.25):
        given["bounds"] = draw.box(p0)
    if n > 1 and draw.rarely(0.2) and "bounds" not in given:
        given["fixed"] = {names[-1]: draw.size()}
    given["p0"] = draw.one(p0, list(p0))
    kind = draw.one("array", "tensor", "numpy function")
    convert = {"array": np.asarray, "tensor": torch.as_tensor, "numpy function": np.asarray}[kind]
    x, data = convert(t), convert(y)
    draw.told |= {"kind": kind, "t": t, "y": y, "options": given}
    wrong = draw.wrong("odr", given)
    found = called(lambda: lmtorch.odr(_named(curve, n, kind), x, data, **given), x, data, given)
    found = found.fit if isinstance(found, NotConvergedError) else found
    if isinstance(found, Exception) or wrong or found is None:
        return
    popt, delta = numbers(found.popt), numbers(found.delta)
    promise(np.isfinite(popt).all() and np.isfinite(delta).all(), "popt or delta is not finite")
    promise(popt.shape == (n,) and delta.shape == t.shape, "a shape is wrong")
    if "bounds" in given:
        promise(
            ((given["bounds"][0] <= popt) & (popt <= given["bounds"][1])).all(),
            "popt lies outside its bounds",
        )
    for role, held in given.get("fixed", {}).items():
        promise(popt[names.index(role)] == held, f"{role} was to be {held}")
    if given["sx"] is not None:
        exact = np.broadcast_to(given["sx"], t.shape) == 0
        promise((delta[exact] == 0).all(), "an exact point was moved")
    begun = (
        np.square(
            (curve(np, t, *_held(p0, given, names)) - y)
            / (1.0 if given["sy"] is None else given["sy"])
        ).sum()
        / 2
    )
    cost = float(found.solution.cost)
    if np.isfinite(begun):
        promise(cost <= begun * (1 + 1e-9) + 1e-300, f"the cost has risen from {begun} to {cost}")
    promise(not bool(found.success) or np.isfinite(cost), "success without a cost")


def _held(p0: np.ndarray, given: dict[str, Any], names: list[str]) -> np.ndarray:
    """The start, with what is fixed in its place."""
    return np.array(
        [given.get("fixed", {}).get(name, value) for name, value in zip(names, p0, strict=True)]
    )


# ---- the optimizer -------------------------------------------------------------------------------


def optimizer(draw: Draw) -> None:
    """Some steps with a closure, a batch or terms; of tensors, groups or a network."""
    torch.manual_seed(int(draw.rng.integers(2**31)))
    form = draw.one("closure", "closure", "batch", "terms", "network", "network batch")
    dtype = draw.one(F64, F64, torch.float32)
    n, curve = draw.curve()
    t, x = draw.points(n), draw.start(n)
    y = draw.data(curve, n, t)
    tt, yy = torch.as_tensor(t, dtype=dtype), torch.as_tensor(y, dtype=dtype)
    if form.startswith("network"):
        model: Any = nn.Sequential(
            nn.Linear(1, 4), draw.one(nn.Tanh(), nn.ReLU(), nn.Softplus()), nn.Linear(4, 1)
        ).to(dtype)
        tensors, whole = list(model.parameters()), lambda t: model(t[:, None])[:, 0]
    else:
        tensors = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in x]
        model, whole = tensors, lambda t: curve(torch, t, *tensors)
    given: dict[str, Any] = draw.options(SOLVING)
    given |= draw.options({
        "lr": [1.0, 0.5, 0.0], "weight_decay": [0.0, 0.1], "loss_scale": [1.0, 0.01, 1e200],
        "max_trials": [1, 3, 20],
        "scaling": ["auto", "more", "levenberg", "marquardt"], "curvature": ["auto", "full"],
        "jacobian": ["auto", "autograd", "2-point", "3-point"],
    })  # fmt: skip
    if draw.rarely(0.2):
        given |= {"lower": -float(np.abs(draw.size())), "upper": float(np.abs(draw.size()))}
    if not form.startswith("network") and n > 1 and draw.rarely(0.3):
        model = [
            {"params": tensors[:1]},
            {"params": tensors[1:], **draw.options({"lr": [0.5, 1.0], "weight_decay": [0.1]})},
        ]
    if draw.rarely(0.1) and len(tensors) > 1:
        tensors[0].requires_grad_(False)
    draw.told |= {"form": form, "dtype": dtype, "x0": x, "t": t, "y": y, "options": given}
    draw.wrong("LevenbergMarquardt", given)
    before = state_of(tensors)
    opt = called(lambda: lmtorch.LevenbergMarquardt(model, **given))
    promise(same(before, state_of(tensors)), "a constructor has changed a parameter")
    if isinstance(opt, Exception):
        return
    step: dict[str, tuple[Any, ...]] = {
        "closure": (lambda: whole(tt) - yy,),
        "network": (lambda: whole(tt) - yy,),
        "batch": (lambda t, y: whole(t) - y, tt, yy),
        "network batch": (lambda t, y: whole(t) - y, tt, yy),
        "terms": ((lambda: whole(tt) - yy,), (lambda: torch.stack([p.sum() for p in tensors]),)),
    }
    frozen = [p.detach().clone() for p in tensors if not p.requires_grad]
    for _ in range(draw.one(1, 2, 4)):
        before = state_of(tensors)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                loss = opt.step(*step[form])
            except TYPED:
                promise(
                    same(before, state_of(tensors)), "a step that was refused has changed something"
                )
                return
        _stepped(draw, opt, loss, tensors, before, frozen, given)


def _stepped(
    draw: Draw,
    opt: Any,
    loss: Tensor,
    tensors: list[Tensor],
    before: list[Any],
    frozen: list[Tensor],
    given: dict[str, Any],
) -> None:
    """What a step promises."""
    report = opt.report
    after = state_of(tensors)
    promise(same(before[-3:], after[-3:]), "a step has drawn random numbers")
    moved = not same(before, after)
    if moved:
        promise(
            report.accepted or report.status.converged,
            "parameters have moved in a step that was not accepted",
        )
        promise(
            all(bool(torch.isfinite(p).all()) for p in tensors),
            "parameters are not finite after a step",
        )
        promise(
            report.loss_after <= report.loss,
            f"the loss has risen from {report.loss} to {report.loss_after}",
        )
    else:
        promise(
            report.loss_after == report.loss
            or not np.isfinite(report.loss)
            or given.get("lr") == 0.0
            or report.accepted,
            "another loss, and the same parameters",
        )
    if not np.isfinite(report.loss):
        promise(not moved and not report.status.converged, "a step from a loss that is not finite")
    promise(
        float(loss) == report.loss or not np.isfinite(report.loss),
        "the loss that is returned is another one",
    )
    still = [p for p in tensors if not p.requires_grad]
    promise(
        all(torch.equal(a, b) for a, b in zip(frozen, still, strict=True)),
        "a frozen parameter has moved",
    )
    promise(all(p.grad is None for p in tensors), "a gradient was left behind")
    if "lower" in given:
        low, high = (torch.tensor(given[side]).to(tensors[0]) for side in ("lower", "upper"))
        inside = all(bool(((low <= p) & (p <= high)).all()) for p in tensors)
        promise(inside, "a parameter lies outside its bounds")


# ---- derivatives ---------------------------------------------------------------------------------

FIELDS: dict[str, Callable[[Tensor], Tensor]] = {
    "polynomial": lambda x: x**3 - 2 * x,
    "waves": lambda x: torch.sin(x) * x.sum(-1, keepdim=True),
    "products": lambda x: x * x.flip(-1),
    "exponentials": lambda x: torch.exp(-x.square()),
    "kinks": lambda x: x.abs() + x.clamp(min=0.1),
    "norms": lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x,
    "logistic": lambda x: (
        torch.sigmoid(x)
        @ torch.linspace(-1, 1, x.shape[-1] ** 2, dtype=x.dtype).view(2 * x.shape[-1:])
    ),
    "constant": torch.ones_like,
    "softmax": lambda x: torch.softmax(x, -1),
    "quotient": lambda x: x / (1 + x.square().sum(-1, keepdim=True)),
}


def derivatives(draw: Draw) -> None:
    """Every operator beside plain autograd, sample by sample."""
    field = draw.one(*FIELDS)
    f, d, count = FIELDS[field], int(draw.one(1, 2, 3, 5)), int(draw.one(1, 2, 4))
    dtype = draw.one(F64, F64, torch.float32)
    x = torch.as_tensor(draw.rng.normal(size=(count, d)), dtype=dtype)
    v = torch.as_tensor(draw.rng.normal(size=(count, d)), dtype=dtype)
    name = draw.one(*OPERATORS)
    mode = {} if name in ("vjp", "finite_difference_jacobian") else draw.options(
        {"mode": ["auto", "forward", "reverse", "taylor", "autograd"]}, 0.5
    )  # fmt: skip
    draw.told |= {"field": field, "x": x, "v": v, "operator": name, "mode": mode}
    given, reference = OPERATORS[name]
    grad = torch.no_grad() if draw.rarely(0.5) else torch.enable_grad()
    with grad:
        found = called(lambda: given(f, x, v, **mode), x, v)
    if isinstance(found, Exception):
        promise("mode" in str(found) or "curl" in str(found), f"refused: {found}")
        return
    jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
    J = torch.stack([jacobian(f, one.double()) for one in x])
    H = torch.stack([
        torch.stack([hessian(lambda p, k=k: f(p)[k], one.double()) for k in range(d)])
        for one in x
    ])  # fmt: skip
    expected = reference(J, H, v.double())
    size = max(1.0, float(J.abs().max()), float(H.abs().max())) * max(
        1.0, float(v.abs().max()) ** 2
    )
    slack = (
        (1e-6 if dtype == F64 else 1e-2)
        if name == "finite_difference_jacobian"
        else 1e-11
        if dtype == F64
        else 1e-4
    )
    promise(
        found.shape == expected.shape,
        f"a shape of {tuple(found.shape)} and not {tuple(expected.shape)}",
    )
    promise(bool(((found.double() - expected).abs() <= slack * size).all()),
            f"off by {float((found.double() - expected).abs().max()):.2g}")  # fmt: skip


# f, x, v, options, and what it is in J (b, d, d), H (b, d, d, d) and v (b, d)
OPERATORS: dict[str, tuple[Callable[..., Any], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "batch_jacobian": (lambda f, x, v, **o: lmtorch.batch_jacobian(f, x, **o), lambda J, H, v: J),
    "jacobian": (
        lambda f, x, v, **o: lmtorch.jacobian(lambda p: f(p[None])[0], x[0], **o),
        lambda J, H, v: J[0]
    ),
    "gradient": (lambda f, x, v, **o: lmtorch.gradient(lambda p: f(p)[..., 0], x, **o),
        lambda J, H, v: J[:, 0]),
    "divergence": (
        lambda f, x, v, **o: lmtorch.divergence(f, x, **o),
        lambda J, H, v: J.diagonal(dim1=1, dim2=2).sum(-1)
    ),
    "jvp": (lmtorch.jvp, lambda J, H, v: (J @ v[..., None])[..., 0]),
    "vjp": (lmtorch.vjp, lambda J, H, v: (J.mT @ v[..., None])[..., 0]),
    "batch_hessian": (lambda f, x, v, **o: lmtorch.batch_hessian(f, x, **o), lambda J, H, v: H),
    "hessian_diagonal": (
        lambda f, x, v, **o: lmtorch.hessian_diagonal(f, x, **o),
        lambda J, H, v: H.diagonal(dim1=2, dim2=3)
    ),
    "laplacian": (
        lambda f, x, v, **o: lmtorch.laplacian(f, x, **o),
        lambda J, H, v: H.diagonal(dim1=2, dim2=3).sum(-1)
    ),
    "hvp": (
        lambda f, x, v, **o: lmtorch.hvp(lambda p: f(p)[..., 0], x, v, batch_dims=1, **o),
        lambda J, H, v: (H[:, 0] @ v[..., None])[..., 0],
    ),
    "second_directional_derivative": (
        lmtorch.second_directional_derivative,
        lambda J, H, v: torch.einsum("bkij,bi,bj->bk", H, v, v),
    ),
    "finite_difference_jacobian": (
        lambda f, x, v: lmtorch.finite_difference_jacobian(f, x, batch_dims=1, method="3-point"),
        lambda J, H, v: J
    ),
}  # fmt: skip

FACES: dict[str, Callable[[Draw], None]] = {
    "least_squares": least_squares,
    "curve_fit": curve_fit,
    "odr": odr,
    "optimizer": optimizer,
    "derivatives": derivatives,
}


def make(face: str, number: int) -> None:
    """One call.

    Raises:
        BrokenPromiseError: what it has done and may not do, with what the call was.
    """
    draw = Draw(face, number)
    try:
        FACES[face](draw)
    except Exception as error:
        what = (
            f"{type(error).__name__}: {error}"
            if not isinstance(error, BrokenPromiseError)
            else str(error)
        )
        raise BrokenPromiseError(
            f"python -m tests.random_calls {face} {number}\n{what}\n{draw.told}"
        ) from error


def main(face: str, first: int, count: int) -> int:
    """Make many calls, and print those that break a promise."""
    broken = 0
    for number in range(first, first + count):
        try:
            make(face, number)
        except BrokenPromiseError as error:
            broken += 1
            sys.stdout.write(f"{error}\n\n")
            sys.stdout.flush()
            if count == 1:
                raise
    sys.stdout.write(f"{face}: {broken} of {count} calls break a promise\n")
    return broken


if __name__ == "__main__":
    face, first, *rest = sys.argv[1:]
    sys.exit(bool(main(face, int(first), int(rest[0]) if rest else 1)))
