"""A model, its parameters and its data as one least-squares problem, to be solved many times."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .._arrays import tensor_of, to_array
from .._errors import FallbackWarning, InputTypeError
from .._threads import forward_mode, quiet
from ..minimising.least_squares import least_squares
from ..minimising.solution import Solution
from .likelihoods import Likelihood
from .measurements.curves import curve_of
from .measurements.data import Data
from .measurements.reading import numbers_of
from .models import Model, OfNumbers
from .parameters import Parameters

BATCH = (
    " ydata of several dimensions is a batch of fits, one for each row: transpose it where its "
    "columns are the curves."
)


@dataclass(frozen=True)
class Fitter:
    """A model, its parameters and its data.

    Attributes:
        model: f(x, p).
        parameters: p from the variables u.
        data: points and errors.
        start: p0, (..., P) with the batch of the data, or (P,).
        bounds: of u, (n,) each.
        jac: the user's Jacobian of f in p, or a name of `least_squares`.
        options: of `least_squares`.
        likelihood: of the data; None: squares.
    """

    model: Model
    parameters: Parameters
    data: Data
    start: Tensor
    bounds: tuple[Tensor, Tensor]
    jac: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    likelihood: Likelihood | None = None

    @cached_property
    def bounded(self) -> bool:
        """Whether a variable has a bound."""
        return any(bool(np.isfinite(to_array(side)).any()) for side in self.bounds)

    @cached_property
    def varying(self) -> int:
        """How many variables are fitted: those that equal bounds do not fix."""
        lower, upper = self.bounds
        return int((lower < upper).sum()) if self.bounded else lower.numel()

    @property
    def compiled_by(self) -> tuple[Any, ...]:
        """What a compiled residual depends on; data are its arguments."""
        return self.model, self.parameters, bool(self.data.lead), self.likelihood

    @property
    def computes(self) -> tuple[Any, Any] | None:
        """As `evaluates`, of one curve; of several None."""
        return None if self.data.lead else self.evaluates

    @property
    def evaluates(self) -> tuple[Any, Any] | None:
        """The user's function, and all else that tells what `residual` makes of its arguments.

        None where that is more than names.
        """
        model = self.model
        plain = self.likelihood is None
        if type(model) is not OfNumbers or not self.parameters.free or not plain:
            return None
        return model.function, (model.arguments.open_ended, *model.names)

    def solve(
        self,
        u: Tensor,  # (n,) or (b, n)
        *,
        y: Tensor | None = None,  # (m,) or (b, m); None: the data's
        weights: Tensor | None = None,  # alike
        bounds: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Solution:
        """Minimise from every row of u against every row of y and weights, where there are rows.

        Raises:
            InputError: the data were changed in place after the first fit.
        """
        self.data.unwritten()
        return least_squares(**self.minimisation(u, y=y, weights=weights, bounds=bounds, **options))

    def linear_model(self, u: Tensor) -> Solution:
        """Residuals and J at u (..., n), by a minimisation that may not take a step.

        Returns:
            A solution of a batch, of one where the fit is single: its values need not be finite.
        """
        rows = u.reshape(-1, u.shape[-1])
        once: dict[str, Any] = {
            "max_nfev": 1,
            "polish": 0,
            "second_opinion": False,
            "compile": False,
        }
        self.data.unwritten()
        # what is to be said was said when it was fitted
        with quiet(FallbackWarning), np.errstate(all="ignore"):
            return least_squares(**self.minimisation(rows, bounds=(-math.inf, math.inf), **once))

    def minimisation(
        self,
        u: Tensor,
        *,
        y: Tensor | None = None,
        weights: Tensor | None = None,
        bounds: tuple[Tensor | float, Tensor | float] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """What `solve` calls `least_squares` with."""
        if bounds is None:
            bounds = self.bounds if self.bounded else (-math.inf, math.inf)
        data = self.data
        lead = len(data.lead)
        y = flattened(data.y if y is None else y, 1)
        weights = data.weights if weights is None else weights
        weights = None if weights is None else flattened(weights, 1)
        root = None if data.root is None else flattened(data.root, 2)
        total = None if data.total is None else flattened(data.total, 1)
        start = flattened(self.start, 1)
        x = flattened(data.x, data.x.ndim - lead) if data.each_x and lead else data.x
        batched = u.ndim > 1 or any(
            t is not None and t.ndim > k for t, k in ((y, 1), (weights, 1), (root, 2), (total, 1))
        )
        dims = None
        if batched:
            dims = (
                0 if u.ndim > 1 else None,
                0 if data.each_x and lead else None,
                *(
                    None if t is None or t.ndim == k else 0
                    for t, k in ((y, 1), (weights, 1), (root, 2), (start, 1), (total, 1))
                ),
            )
        jac = self._jacobian if callable(self.jac) else self.jac
        given: Any = u
        if data.numpy:  # how x0 comes says how results go back; the other arguments follow
            given = to_array(u)
        return {
            "fun": self.residual,
            "x0": given,
            "jac": jac,
            "bounds": bounds,
            "args": (x, y, weights, root, start, total),
            "in_dims": dims,
            **self.options,
            **options,
        }

    def sensitivity(
        self,
        u: Tensor,  # (..., n)
        x: Any,
        count: int,
        place: int | None = None,
        *,
        start: Tensor | None = None,  # (..., P) of these problems; None: of all
    ) -> tuple[Tensor, Tensor]:
        """The curve at x, (..., count), and its derivatives in u, (..., count, n).

        All problems have the same x.
        """

        def curve(u: Any, start: Any) -> Any:
            p = self.parameters_at(u, start)
            points = x_arrays if isinstance(u, np.ndarray) else x
            return in_kind(self.curve(self.model(points, in_kind(p, u), place), p, count), u)

        x_arrays = tree_map(to_array, x)
        lead = u.shape[:-1]
        start = flattened(self.start if start is None else start, 1)
        many = u.reshape(-1, u.shape[-1])  # at least one: in a batch values need not be finite
        given = to_array(many) if self.data.numpy else many
        names = self.jac if isinstance(self.jac, str) else None
        with quiet(FallbackWarning):  # said when it was fitted
            # a minimisation that may not take a step: the linear model at u
            found = least_squares(
                curve,
                given,
                names,
                args=(start,),
                in_dims=(0, 0 if start.ndim > 1 else None),
                max_nfev=1,
                polish=0,
            )
        values, slopes = tensor_of(found.fun), tensor_of(found.jac)
        return values.reshape(*lead, count), slopes.reshape(*lead, count, u.shape[-1])

    def parameters_at(self, u: Any, start: Any) -> Tensor:
        """p (P,) at the variables u (n,), which are an array or a tensor."""
        return self.parameters.outward(tensor_of(u), tensor_of(start))

    def curve(self, values: Any, p: Tensor, count: int) -> Tensor:
        """What the model returned at the parameters p as a curve (count,)."""
        return curve_of(values, p, count, BATCH if self.data.lead else "")

    def whiten(self, values: Tensor, weights: Any, root: Any) -> Tensor:
        """Rows (m,) or (m, k) in units of their errors."""
        if weights is not None:
            weights = tensor_of(weights)
            weights = weights if values.ndim == 1 else weights[:, None]
            # not a product alone: a masked value may be NaN
            values = torch.where(weights > 0, weights * values, 0.0)
        return values if root is None else tensor_of(root) @ values

    def residual(
        self, u: Any, x: Any, y: Any, weights: Any, root: Any, start: Any, total: Any = None
    ) -> Any:
        """The residuals (f(x) − y)/σ of one problem, or its curve with the counts."""
        weighed = not (weights is root is self.likelihood is None)
        if type(u) is type(y) is Tensor and self.parameters.free and not weighed:
            # what follows comes to the same, and its questions take a third of a small curve
            return self.curve(self.model(x, u), u, y.shape[-1]) - y
        y, p = tensor_of(y), self.parameters_at(u, start)
        curve = self.curve(self.model(x, in_kind(p, u)), p, y.shape[-1])
        if self.likelihood is not None:
            weights, total = (None if t is None else tensor_of(t) for t in (weights, total))
            return self.likelihood.of(curve, y, weights, total)
        return in_kind(self.whiten(curve - y, weights, root), u)

    def _jacobian(
        self, u: Any, x: Any, y: Any, weights: Any, root: Any, start: Any, total: Any = None
    ) -> Any:
        """The user's ∂f/∂p, whitened, times ∂p/∂u."""
        p = self.parameters_at(u, start)
        given = self.jac(x, *(in_kind(p, u)[i] for i in range(p.shape[-1])))
        rows = (given if isinstance(given, Tensor) else numbers_of(given, "what jac returned")).to(
            p.device
        )
        needed = (tensor_of(y).shape[-1], p.shape[-1])
        if tuple(rows.shape) != needed:
            raise InputTypeError(
                f"jac returned a matrix of {tuple(rows.shape)}; it must be {needed}, points by "
                "parameters."
            )
        with forward_mode():
            inner = torch.func.jacfwd(lambda v: self.parameters_at(v, start))(tensor_of(u))
        if self.likelihood is not None and weights is not None:  # they do not scale outputs
            weights = (tensor_of(weights) > 0).to(inner)
        return in_kind(self.whiten(rows.to(inner) @ inner, weights, root), u)


def in_kind(value: Tensor, like: Any) -> Any:
    """A tensor as an array where `like` is one."""
    return to_array(value) if isinstance(like, np.ndarray) else value


def flattened(value: Tensor, kept: int) -> Tensor:
    """Flatten all dimensions but the last `kept` into one."""
    return value if value.ndim <= kept else value.flatten(0, value.ndim - kept - 1)
