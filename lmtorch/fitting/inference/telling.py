"""What is to be said of the errors of a fit: notes for a reader, and warnings."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._errors import warn_of_fit
from ...arrays import all_entries_finite, eigvalsh, quiet
from ..preparing import offset
from .absent import absent, met
from .covariance import CLEARLY, combinations, determines
from .selection import Selection

FELT = 0.1  # of the residuals, above which round-off is no small part of them
CLOSE = 1e-5  # of the data: residuals so small are of no curve that is wrong
CANCELLED = (
    "the curve is made of terms that cancel to round-off, and what is left is as large as the "
    "residuals: neither it nor the parameters are to be trusted. "
)
UNSEEN = 1e-3  # of its standard error: what is less, and started as less, is not told from zero


class Telling(Selection):
    """What of an inference says how far its errors can be trusted.

    Its methods are those of an `Inference`, and `self: Any` has that one's attributes.
    """

    @cached_property
    def met(self: Any) -> bool:
        """Whether a single fit may have met its data to round-off."""
        cost, size = self._glance[:2]
        return met(cost, size)

    @cached_property
    def _glance(self: Any) -> tuple[float, float, float, list[float], list[float]]:
        """A single fit in one read of its device: what a quick look at it needs.

        Returns:
            ½‖r‖², the norm of the data, the number of points, |p| and |p0|.
        """
        size, cost = self.size_of_data(), self.solution.cost
        known = not isinstance(cost, Tensor)
        asked = [size if known else cost, size, self.fitter.data.count, self.p, self.fitter.start]
        told = torch.cat([part.detach().to(size).reshape(-1) for part in asked]).abs().tolist()
        half = 3 + len(self.names)
        return float(cost) if known else told[0], told[1], told[2], told[3:half], told[half:]

    def size_of_data(self) -> Tensor:
        """The norm of the data in units of their errors, (...,)."""
        data = self.fitter.data
        y, weights = data.y.detach(), data.weights
        if weights is not None:
            y = torch.where(weights > 0, weights * y, 0.0)
        return torch.linalg.vector_norm(y.reshape(*self.lead, -1).double(), dim=-1)

    @cached_property
    def absent(self: Any) -> Tensor | None:
        """Which variables belong to what is zero to round-off, (..., n) bool; None: none does."""
        return absent(self)

    def model_at(self: Any, u: Tensor) -> tuple[Tensor, Tensor] | None:
        """Residuals (b, m) and J (b, m, n) of all fits, or of one, at other variables (..., n).

        Returns:
            None where that is not known.
        """
        found = self.fitter.linear_model(u)
        left, rows = tensor_of(found.fun), tensor_of(found.jac)
        return left.detach().double(), rows.detach().double()

    def undetermined(self: Any) -> list[str]:
        """Combinations of parameters that do not change the curve, for a single fit."""
        return combinations(self.covariance.null @ self.slopes.mT, self.names)

    @property
    def edge(self: Any) -> str:
        """Of a single fit: why it has no minimum inside of where the model is defined."""
        return ""  # squares are defined wherever the model is

    def notes(self: Any) -> list[str]:
        """What a reader of a single fit should know."""
        return list(self.lost) + self.notes_on_errors() + self.notes_on_residuals()

    def notes_on_residuals(self: Any) -> list[str]:
        """That the residuals of a single fit follow a pattern along x, if they do."""
        if not bool(self.run.patterned):
            return []
        return [
            f"{self.told_of_runs()}: the model lacks something that the data have, or this is a "
            "minimum beside a lower one. Errors are too small; plot() shows it"
        ]

    def told_of_runs(self: Any) -> str:
        """In words, how often the residuals of a single fit change their sign."""
        found = self.run
        count, expected = (round(float(part)) - 1 for part in found[:2])
        times = {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
        return (
            f"the residuals change their sign {times} along x, where {expected} times would be "
            f"expected (p = {float(found.pvalue):.0g})"
        )

    def notes_on_errors(self: Any) -> list[str]:
        """What a reader of the errors of a single fit should know."""
        notes = []
        pinned = self.held & ~self.equal_bounds
        names = [
            name
            for name, at in zip(self.fitter.parameters.variables, pinned.tolist(), strict=True)
            if at
        ]
        if names:
            notes.append(
                f"{', '.join(names)} ended at a bound: no error is given for it, and those of the "
                "others hold with it there"
            )
        if self._spent:
            notes.append(
                "as many parameters as points: no degrees of freedom are left to tell the errors "
                "from"
            )
        return notes + [
            f"undetermined: changing {text} does not change the curve"
            for text in self.undetermined()
        ]

    def warn(self: Any, away: Collection[str] = ()) -> None:
        """Warn if a single fit does not determine its parameters.

        Args:
            away: names of parameters of which this has been said.
        """
        if self._spent or (not self.clear and self.undetermined()):
            told = "; ".join([*self.lost, *self.notes_on_errors()])
            helps = f"{CANCELLED if self._cancelled() else ''}{offset(self.fitter.data)}"
            warn_of_fit(
                f"the covariance of the parameters is infinite in part: {told}. {helps}".rstrip()
            )
        elif self.solution.success and (
            names := [name for name in self.loose() if name not in away]
        ):
            warn_of_fit(
                f"the data hardly determine {', '.join(names)}: the error is a thousand times the "
                "value, and the start. Fix one of the parameters, bound it, or leave its term out."
            )

    def _cancelled(self: Any) -> bool:
        """Whether the residuals of a single fit may be what its terms lose when they cancel.

        Data that are met to round-off have terms of their own size.

        Returns:
            Whether they may be.
        """
        cost, size = self._glance[:2]
        u = to_array(self.u.detach()).astype(np.float64)
        with quiet():
            terms = float((self._normal.diagonal() * u * u).sum()) ** 0.5
        lost = torch.finfo(self.fitter.data.y.dtype).eps * terms
        return lost > FELT * max((2 * cost) ** 0.5, CLOSE * size)

    def loose(self: Any) -> list[str]:
        """Parameters of a single fit with finite errors that say nothing of them.

        Returns:
            Names of those whose errors exceed value and start a thousand times.
        """
        if self.clear and self._firm():
            return []
        size, begun = map(np.asarray, self._glance[3:])
        error = to_array(self.stderr.detach())
        found = np.isfinite(error) & (begun > 0) & (np.maximum(size, begun) < UNSEEN * error)
        return [self.names[i] for i in np.flatnonzero(found)]

    def _firm(self: Any) -> bool:
        """Whether JᵀJ, which is far from singular, shows at a glance that nothing is loose.

        With columns of length one its least eigenvalue is above `CLEARLY`, so that no error exceeds
        σ / (|J_j| √CLEARLY).

        Returns:
            False where it may be so nonetheless.
        """
        cost, _, count, sizes, begun = self._glance
        freedom = count - self.n
        if not self.fitter.parameters.free or freedom <= 0:
            return False
        least = UNSEEN**2 * (1.0 if self.absolute else 2 * cost / freedom) / CLEARLY
        lengths = self._normal.diagonal().tolist()
        return all(
            start == 0 or length * max(size, start) * max(size, start) > least
            for length, size, start in zip(lengths, sizes, begun, strict=True)
        )

    @cached_property
    def _normal(self: Any) -> Any:
        """JᵀJ (n, n) of a single fit, in NumPy."""
        if self.solution.normal is not None:
            return self.solution.normal
        jacobian: Any = to_array(self.solution.jac).astype(np.float64, copy=False)
        with quiet():  # it may hold what is no number
            return jacobian.T.dot(jacobian)

    @cached_property
    def clear(self: Any) -> bool:
        """Whether the data of a single fit determine every variable, beyond doubt: a quick look."""
        if self.loss is not None or (self.fitter.bounded and bool(self.held.any())):
            return False
        if self.met and self.absent is not None:
            return False
        normal = self._normal
        if determines(normal):
            return True
        if self.solution.normal is not None and self._at_once is not None:
            return True
        with quiet():  # of what is no number nothing is clear
            length = normal.diagonal() ** 0.5
            scaled = normal / length / length[:, None]
            return bool(all_entries_finite(scaled) and eigvalsh(scaled)[0] > CLEARLY)

    @property
    def _spent(self: Any) -> bool:
        """Whether no degrees of freedom are left to tell the errors of a single fit from."""
        if self.absolute or self._glance[2] > self.n:
            return False
        return float(self.freedom) <= 0
