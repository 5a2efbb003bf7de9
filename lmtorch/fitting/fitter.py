"""A model, its parameters and its data as one least-squares problem, solved once or a thousand times over."""

from dataclasses import dataclass, field
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
from .data import Data, curve_of
from .models import Model
from .parameters import Parameters
from .reading import numbers_of

BATCH = (
    " ydata of several dimensions is a batch of fits, one for each row: transpose it where its "
    "columns are the curves."
)


@dataclass(frozen=True)
class Fitter:
    """What is fitted.

    Attributes:
        model: f(x, p).
        parameters: p from the variables u.
        data: points and errors.
        start: p0, (..., P) with the batch of the data, or (P,).
        bounds: of u, (n,) each.
        jac: the user's Jacobian of f in p, or a name of `least_squares`.
        options: of `least_squares`.
    """

    model: Model
    parameters: Parameters
    data: Data
    start: Tensor
    bounds: tuple[Tensor, Tensor]
    jac: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def varying(self) -> int:
        """How many variables are fitted: those that equal bounds do not fix."""
        lower, upper = self.bounds
        return int((lower < upper).sum())

    def solve(
        self,
        u: Tensor,  # (n,) or (b, n)
        *,
        y: Tensor | None = None,  # (m,) or (b, m); None: the data's
        weights: Tensor | None = None,  # alike
        bounds: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Solution:
        """Minimise, from every row of u where it has any, against every row of y and weights where they have."""
        data = self.data
        lead = len(data.lead)
        y = flattened(data.y if y is None else y, 1)
        weights = data.weights if weights is None else weights
        weights = None if weights is None else flattened(weights, 1)
        root = None if data.root is None else flattened(data.root, 2)
        start = flattened(self.start, 1)
        x = flattened(data.x, data.x.ndim - lead) if data.each_x and lead else data.x
        batched = u.ndim > 1 or any(
            t is not None and t.ndim > k for t, k in ((y, 1), (weights, 1), (root, 2))
        )
        dims = None
        if batched:
            dims = (
                0 if u.ndim > 1 else None,
                0 if data.each_x and lead else None,
                *(
                    None if t is None or t.ndim == k else 0
                    for t, k in ((y, 1), (weights, 1), (root, 2), (start, 1))
                ),
            )
        jac = self._jacobian if callable(self.jac) else self.jac
        given: Any = u
        if data.numpy:  # how x0 comes says how results go back; the other arguments follow
            given = to_array(u)
        return least_squares(
            self._residual,
            given,
            jac,
            bounds=self.bounds if bounds is None else bounds,
            args=(x, y, weights, root, start),
            in_dims=dims,
            **{**self.options, **options},
        )

    def sensitivity(
        self,
        u: Tensor,  # (..., n)
        x: Any,
        count: int,
        place: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The curve at x, (..., count), and its derivatives in u, (..., count, n); x is the same for all problems."""

        def curve(u: Any, start: Any) -> Any:
            values = self.curve(
                u, x_arrays if isinstance(u, np.ndarray) else x, start, count, place
            )
            return values.numpy() if isinstance(u, np.ndarray) else values

        x_arrays = tree_map(to_array, x)
        lead = u.shape[:-1]
        start = flattened(self.start, 1)
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

    def curve(self, u: Any, x: Any, start: Any, count: int, place: int | None = None) -> Tensor:
        """f(x) at variables u (n,), (count,)."""
        p = self.parameters.outward(tensor_of(u), tensor_of(start))
        hint = BATCH if self.data.lead else ""
        return curve_of(
            self.model(x, p.numpy() if isinstance(u, np.ndarray) else p, place), p, count, hint
        )

    def whiten(self, values: Tensor, weights: Any, root: Any) -> Tensor:
        """Rows (m,) or (m, k) in units of their errors."""
        if weights is not None:
            weights = tensor_of(weights)
            weights = weights if values.ndim == 1 else weights[:, None]
            values = torch.where(
                weights > 0, weights * values, 0.0
            )  # not a product alone: a masked value may be NaN
        return values if root is None else tensor_of(root) @ values

    def _residual(self, u: Any, x: Any, y: Any, weights: Any, root: Any, start: Any) -> Any:
        """(f(x) − y)/σ of one problem."""
        y = tensor_of(y)
        residual = self.whiten(self.curve(u, x, start, y.shape[-1]) - y, weights, root)
        return residual.numpy() if isinstance(u, np.ndarray) else residual

    def _jacobian(self, u: Any, x: Any, y: Any, weights: Any, root: Any, start: Any) -> Any:
        """The user's ∂f/∂p, whitened, times ∂p/∂u."""
        arrays = isinstance(u, np.ndarray)
        start = tensor_of(start)
        p = self.parameters.outward(tensor_of(u), start)
        given = self.jac(x, *((p.numpy() if arrays else p)[i] for i in range(p.shape[-1])))
        rows = (given if isinstance(given, Tensor) else numbers_of(given, "what jac returned")).to(
            p.device
        )
        needed = (tensor_of(y).shape[-1], p.shape[-1])
        if tuple(rows.shape) != needed:
            raise InputTypeError(
                f"jac returned a matrix of {tuple(rows.shape)}; it must be {needed}, points by parameters."
            )
        with forward_mode():
            inner = torch.func.jacfwd(lambda v: self.parameters.outward(v, start))(tensor_of(u))
        result = self.whiten(rows.to(inner) @ inner, weights, root)
        return result.numpy() if arrays else result


def flattened(value: Tensor, kept: int) -> Tensor:
    """Leading dimensions as one, but for the last `kept`."""
    return value if value.ndim <= kept else value.flatten(0, value.ndim - kept - 1)
