"""Likelihood profiles: S(θ), the least χ² with one parameter held at θ, on both sides of the fit.

τ(θ) = sign(θ − θ̂) √((S(θ) − S(θ̂)) / s²) is a straight line of slope 1/stderr where the model is
linear, and the interval is where |τ| stays under Student's t. All points of all parameters are one
batch of fits; where a side does not reach the limit, further points are added, and at last the
interval is open, or ends at the parameter's bound.

Reference: Bates & Watts, Nonlinear regression analysis and its applications (1988), §6.1.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ..._names import meant
from .inference import Inference
from .refits import rises

REACH = 1.5  # the first points reach so many times as far as the interval of the linear model
FURTHER = 4  # where τ has not come to its limit, the next ones reach so many times as far
ROUNDS = 4  # points are added at most so often, the first time included


@dataclass(frozen=True)
class Profile:
    """Likelihood profiles of some parameters.

    Attributes:
        level: the probability of the intervals.
        limit: |τ| at the ends of the intervals.
        intervals: by name, (lower, upper); an end that the data do not limit is infinite, or the
            parameter's bound.
        values: by name, the values at which the parameter was held, ascending.
        tau: by name, τ at these values.
        best: by name, the fitted value.
    """

    level: float
    limit: float
    intervals: dict[str, tuple[float, float]]
    values: dict[str, np.ndarray]
    tau: dict[str, np.ndarray]
    best: dict[str, float]

    def plot(self) -> Any:
        """Draw τ against each parameter, with the interval (needs matplotlib).

        Returns:
            The matplotlib figure.
        """
        from ..results.plot import draw_profile

        return draw_profile(
            self.values, self.tau, self.intervals, self.best, self.limit, self.level
        )


class Trace(NamedTuple):
    """One variable moved to both sides."""

    pairs: np.ndarray  # (k, 2), values of the variable, ascending, and τ there
    ends: tuple[float, float]  # where |τ| comes to its limit; infinite, or a bound, if nowhere


def trace(fit: Inference, names: Any, level: float, points: int) -> Profile:
    """Compute the profiles of some parameters of one fit."""
    variables = fit.fitter.parameters.variables
    names = variables if names is None else [names] if isinstance(names, str) else list(names)
    check(fit, names, level)
    limit = float(fit.quantile(level))
    found = traces(fit, names, limit, points)
    values, tau, intervals, best = {}, {}, {}, {}
    for name, (pairs, ends) in found.items():
        values[name] = outward(fit, name, pairs[:, 0])
        tau[name], best[name] = pairs[:, 1], float(fit.p.detach()[fit.names.index(name)])
        low, high = outward(fit, name, np.array(ends))
        intervals[name] = (float(low), float(high))
    return Profile(level, limit, intervals, values, tau, best)


def check(fit: Inference, names: list[str], level: float) -> None:
    """Check what a profile is asked for.

    Raises:
        InputError: a parameter does not vary, the level is no probability, or there are no degrees
            of freedom.
    """
    variables = fit.fitter.parameters.variables
    for name in names:
        if name not in fit.names:
            raise InputError(
                f"there is no parameter {name!r}: {fit.names}.{meant([name], fit.names)}"
            )
        if name not in variables:
            raise InputError(f"{name!r} does not vary: a profile is of one of {variables}.")
    if not 0 < level < 1:
        raise InputError(f"level={level} must be a probability between 0 and 1.")
    if not float(fit.variance) < np.inf:
        raise InputError(
            "no degrees of freedom are left to tell the errors from: a profile needs more points."
        )


def traces(fit: Inference, names: list[str], limit: float, points: int) -> dict[str, Trace]:
    """Move each of these variables to both sides until |τ| has come to the limit."""
    variables = fit.fitter.parameters.variables
    center, covariance = fit.u.detach().double(), fit.ucov
    low, high = (side.double() for side in fit.fitter.bounds)
    seen: dict[str, dict[float, float]] = {
        name: {float(center[variables.index(name)]): 0.0} for name in names
    }
    wanted = [(name, side) for name in names for side in (-1.0, 1.0)]
    reach = REACH * limit
    begun = 0.0
    for _ in range(ROUNDS):
        tasks: dict[tuple[str, float], None] = {}  # an ordered set
        for name, side in wanted:
            i = variables.index(name)
            error = float(covariance[i, i].sqrt())
            error = error if 0 < error < np.inf else max(1.0, abs(float(center[i])))
            for t in np.linspace(begun, reach, points + 1)[1:]:
                held = min(max(float(center[i]) + side * t * error, float(low[i])), float(high[i]))
                if held not in seen[name]:
                    tasks[name, held] = None
        if not tasks:
            break
        _refit(fit, list(tasks), seen)
        wanted = [(name, side) for name, side in wanted if _farthest(seen[name], side) < limit]
        begun, reach = reach, FURTHER * reach
        if not wanted:
            break
    found = {}
    for name in names:
        pairs = np.array(sorted(seen[name].items()))
        i = variables.index(name)
        first, last = (
            min(max(_crossing(pairs, side * limit), float(low[i])), float(high[i]))
            for side in (-1.0, 1.0)
        )
        found[name] = Trace(pairs, (first, last))
    return found


def _refit(
    fit: Inference, tasks: list[tuple[str, float]], seen: dict[str, dict[float, float]]
) -> None:
    """Refit all tasks, and keep τ of those that came to something."""
    variables, center = fit.fitter.parameters.variables, fit.u.detach()
    places = np.array([[variables.index(name)] for name, _ in tasks])
    found = rises(fit, places, np.array([[held] for _, held in tasks]))
    for (name, held), (place,), rise in zip(tasks, places, found, strict=True):
        if np.isfinite(rise):
            seen[name][held] = float(np.sign(held - float(center[place])) * np.sqrt(rise))


def _farthest(seen: dict[float, float], side: float) -> float:
    return max(side * t for t in seen.values())


def _crossing(pairs: np.ndarray, limit: float) -> float:
    """The value at which τ comes to the limit; infinite if it never does."""
    theta, tau = pairs.T
    side = np.sign(limit)
    inward = theta[np.abs(tau).argmin()]
    chosen = (theta - inward) * side >= 0
    theta, tau = theta[chosen][:: int(side)], tau[chosen][:: int(side)] * side  # outward, rising
    beyond = np.flatnonzero(tau >= abs(limit))
    if not beyond.size:
        return float(side * np.inf)
    rising = np.concatenate([[True], tau[1:] > np.maximum.accumulate(tau)[:-1]])
    theta, tau = theta[rising], tau[rising]
    from scipy.interpolate import PchipInterpolator  # is slow to import

    return float(PchipInterpolator(tau, theta)(abs(limit)))


def outward(fit: Inference, name: str, u: np.ndarray) -> np.ndarray:
    """Values of a parameter for values of its variable; a transform is monotonic."""
    parameters, fitter = fit.fitter.parameters, fit.fitter
    i = parameters.variables.index(name)
    many = fit.u.detach().double().expand(len(u), -1).clone()
    many[:, i] = tensor_of(u)
    p = parameters.outward(many, fitter.start.double().expand(len(u), -1))
    return to_array(p[:, parameters.names.index(name)])
