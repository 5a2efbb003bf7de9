"""A model of points with errors in x: its residuals, and the user's derivatives of them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._arrays import is_tensor, tensor_of, to_array
from ..._errors import InputError
from ..._threads import forward_mode
from ...minimising.solution import Solution
from ..fitter import Fitter, in_kind
from .data import PointData
from .point_errors import displacement, used

TRIALS = 1000  # evaluations at most, unless max_nfev says otherwise


class Points(NamedTuple):
    """What differs between fits, (b, ...) each; of a single fit (1, ...)."""

    x: Tensor  # (m,) or (k, m)
    spread: Tensor  # T, (k, m) or (k, k, m)
    y: Tensor  # (q, m)
    whitening: Tensor  # R, (q, m) or (q, q, m)
    eta: Tensor  # (m, k), where the displacements start


@dataclass(frozen=True)
class OrthogonalFitter(Fitter):
    """A `Fitter` of points with errors in x.

    Attributes:
        tolerances: ftol, xtol and gtol, None for the usual.
        trials: evaluations of a fit at most.
    """

    data: PointData
    tolerances: tuple[float | None, ...] = (None, None, None)
    trials: int = TRIALS

    @property
    def computes(self) -> tuple[Any, Any] | None:
        """As of a `Fitter`, told apart from the fits without errors in x."""
        found = super().computes
        return found and (found[0], ("errors in x", found[1]))

    @property
    def points(self) -> Points:
        """Those of the data."""
        data = self.data
        found = Points(data.x, data.spread, data.grid, data.whitening, data.eta)
        return found if data.lead else Points(*(one[None] for one in found))

    def solve(
        self,
        u: Tensor,  # (n,) or (b, n)
        *,
        y: Tensor | None = None,
        weights: Tensor | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
        points: Points | None = None,
        near: bool = True,
        callback: Any = None,
        **options: Any,
    ) -> Solution:
        """Minimise from every row of u against the points, of which each fit may have its own.

        Args:
            u: the variables at the start.
            y: not used: `points` has it.
            weights: likewise.
            bounds: of u; None: those of the fitter.
            points: None: those of the data.
            near: u is near a minimum, as where a fit has been made. Otherwise its end without
                errors in x is looked at as well.
            callback: is shown every iteration.
            options: not used.

        Returns:
            The solution.
        """
        from .run import minimised  # which knows of the fitter

        points = self.points if points is None else points
        box = self.bounds if bounds is None else bounds
        return minimised(self, u, points, box, near=near, callback=callback)

    def curve(self, values: Any, p: Tensor, count: int) -> Tensor:
        """What the model returned as q curves one after the other, (q·count/q,)."""
        each = self.data.each
        if each == 1:
            return super().curve(values, p, count)
        if isinstance(values, list | tuple):
            values = torch.stack(list(values)) if any(map(is_tensor, values)) else to_array(values)
        rows = values if is_tensor(values) else tensor_of(values)
        if tuple(rows.shape) != (each, count // each):
            raise InputError(
                f"f returned {tuple(rows.shape)}; of {each} responses at {count // each} points it "
                f"must return ({each}, {count // each}), or a tuple of them."
            )
        return rows.reshape(-1).to(p.device)

    def residual_at(
        self, theta: Any, eta: Any, x: Any, spread: Any, y: Any, whitening: Any, start: Any
    ) -> Any:
        """R (f − y) of one fit at θ = (u, τ), all points displaced by T (η + τ), (q·m,)."""
        values = self.values_at(theta, eta, x, spread, start)
        left = distances(values, y, whitening, every=self.data.every)
        return in_kind(left.reshape(-1), theta)

    def still_at(self, u: Any, x: Any, y: Any, whitening: Any, start: Any) -> Any:
        """The same with no point displaced, (q·m,)."""
        p = self.parameters_at(u, start)
        found = self.curve(self.model(x, in_kind(p, u)), p, self.data.each * self.data.points)
        values = found.reshape(self.data.each, self.data.points)
        left = distances(values, y, whitening, every=self.data.every)
        return in_kind(left.reshape(-1), u)

    def still_rows(self, u: Any, x: Any, y: Any, whitening: Any, start: Any) -> Any:
        """The user's ∂f/∂p as derivatives of `still_at` in u, (q·m, n)."""
        k, m, given = self.data.predictors, self.data.points, tensor_of(u)
        theta, rest = torch.cat([given, given.new_zeros(k)]), in_kind(given.new_zeros(k, m), u)
        rows = self.given_rows(in_kind(theta, u), rest, x, rest, y, whitening, start)
        return rows[:, : given.shape[-1]]

    def values_at(self, theta: Any, eta: Any, x: Any, spread: Any, start: Any) -> Tensor:
        """f at θ, (q, m)."""
        k, m = eta.shape
        p = self.parameters_at(theta[:-k], start)
        points = self._moved(theta[-k:], eta, x, spread)
        values = self.model(points, in_kind(p, theta))
        return self.curve(values, p, self.data.each * m).reshape(self.data.each, m)

    @staticmethod
    def _moved(tau: Any, eta: Any, x: Any, spread: Any) -> Any:
        shift = displacement(spread, eta + tau[:, None])
        return x + (shift[0] if x.ndim == 1 else shift)

    def given_rows(
        self, theta: Any, eta: Any, x: Any, spread: Any, y: Any, whitening: Any, start: Any
    ) -> Any:
        """The user's ∂f/∂p and ∂f/∂x as derivatives of `residual_at` in θ, (q·m, n + k)."""
        (k, m), q = eta.shape, self.data.each
        p, u = self.parameters_at(theta[:-k], start), tensor_of(theta[:-k])
        points = self._moved(theta[-k:], eta, x, spread)
        arguments = [in_kind(p, theta)[i] for i in range(p.shape[-1])]
        of_p, of_x = (tensor_of(function(points, *arguments)).to(p) for function in self.jac)
        whole = (m, p.shape[-1]) if q == 1 else (q, m, p.shape[-1])
        if of_p.shape != whole and tuple(of_p.shape) != (q, *whole[-2:]):
            raise InputError(
                f"jac[0] returned {tuple(of_p.shape)}: ∂f/∂p is {whole}, points by parameters."
            )
        across = (m,) if x.ndim == 1 else (k, m)
        if of_x.numel() != q * k * m or of_x.shape[-1] != m:
            of_all = across if q == 1 else (q, *across)
            raise InputError(
                f"jac[1] returned {tuple(of_x.shape)}: ∂f/∂x is {of_all}, in the layout of x."
            )
        with forward_mode():
            inner = torch.func.jacfwd(lambda v: self.parameters_at(v, start))(u)
        of_u = of_p.reshape(q, m, -1) @ inner.to(of_p)
        spread, whitening = tensor_of(spread), tensor_of(whitening)
        of_x = of_x.reshape(q, k, m)
        of_eta = of_x * spread if spread.ndim == 2 else torch.einsum("qkm,klm->qlm", of_x, spread)
        rows = torch.cat([of_u, of_eta.mT], -1)
        seen = used(whitening)[..., None]
        rows = torch.where(seen, rows, 0.0)
        if whitening.ndim == 2:
            rows = whitening[..., None] * rows
        else:
            rows = torch.einsum("abm,bmn->amn", whitening, rows)
        return in_kind(rows.flatten(0, 1), theta)


def distances(values: Tensor, y: Any, whitening: Any, *, every: bool = False) -> Tensor:
    """R (f − y) of one fit, (q, m), for values f of that shape; zero for what has no weight.

    Args:
        values: of f.
        y: the responses, (q, m).
        whitening: R.
        every: whether each of them is known to have a weight.

    Returns:
        Them.
    """
    whitening, left = tensor_of(whitening), values - tensor_of(y).to(values)
    if not every:  # what has none may be infinite
        left = torch.where(used(whitening), left, 0.0)
    return whitening * left if whitening.ndim == 2 else (whitening * left).sum(-2)
