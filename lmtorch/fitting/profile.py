"""Likelihood profiles: S(θ), the least χ² with one parameter held at θ, on both sides of the fit.

τ(θ) = sign(θ − θ̂) √((S(θ) − S(θ̂)) / s²) is a straight line of slope 1/stderr where the model is
linear, and the interval is where |τ| stays under Student's t. All points of all parameters are one
batch of fits; where a side does not reach the limit, further points are added, and at last the
interval is open, or ends at the parameter's bound.

Reference: Bates & Watts, Nonlinear regression analysis and its applications (1988), §6.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._arrays import tensor_of, to_array
from .._errors import InputError
from ..core.termination import Status
from .inference import Inference

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
        from .plot import draw_profile

        return draw_profile(
            self.values, self.tau, self.intervals, self.best, self.limit, self.level
        )


def trace(fit: Inference, names: Any, level: float, points: int) -> Profile:
    """Compute the profiles of some parameters of one fit."""
    fitter, variables = fit.fitter, fit.fitter.parameters.variables
    names = variables if names is None else [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in variables:
            raise InputError(f"{name!r} does not vary: a profile is of one of {variables}.")
    if not 0 < level < 1:
        raise InputError(f"level={level} must be a probability between 0 and 1.")
    if not float(fit.variance) < np.inf:
        raise InputError(
            "no degrees of freedom are left to tell the errors from: a profile needs more points."
        )
    limit = float(fit.quantile(level))
    center = fit.u.detach().double()
    covariance, variance = fit.ucov, float(fit.variance)
    least = float(fit.twice_cost)
    low, high = (side.double() for side in fitter.bounds)
    seen: dict[str, dict[float, float]] = {
        name: {float(center[variables.index(name)]): 0.0} for name in names
    }
    wanted = [(name, side) for name in names for side in (-1.0, 1.0)]
    reach = REACH * limit
    begun = 0.0
    for _ in range(ROUNDS):
        tasks: dict[tuple[str, int, float], None] = {}  # an ordered set
        for name, side in wanted:
            i = variables.index(name)
            error = float(covariance[i, i].sqrt())
            error = error if 0 < error < np.inf else max(1.0, abs(float(center[i])))
            for t in np.linspace(begun, reach, points + 1)[1:]:
                held = min(max(float(center[i]) + side * t * error, float(low[i])), float(high[i]))
                if held not in seen[name]:
                    tasks[name, i, held] = None
        if not tasks:
            break
        _refit(fit, list(tasks), seen, least, variance)
        wanted = [(name, side) for name, side in wanted if _farthest(seen[name], side) < limit]
        begun, reach = reach, FURTHER * reach
        if not wanted:
            break
    values, tau, intervals, best = {}, {}, {}, {}
    for name in names:
        pairs = np.array(sorted(seen[name].items()))
        i = variables.index(name)
        ends = [
            min(max(_crossing(pairs, side * limit), float(low[i])), float(high[i]))
            for side in (-1.0, 1.0)
        ]
        values[name], ends = (
            _outward(fit, name, pairs[:, 0]),
            list(_outward(fit, name, np.array(ends))),
        )
        tau[name], best[name] = pairs[:, 1], float(fit.p.detach()[fit.names.index(name)])
        intervals[name] = (float(ends[0]), float(ends[1]))
    return Profile(level, limit, intervals, values, tau, best)


def _refit(
    fit: Inference,
    tasks: list[tuple[str, int, float]],
    seen: dict[str, dict[float, float]],
    least: float,
    variance: float,
) -> None:
    """Fit all tasks as one batch, each with one variable held by equal bounds."""
    fitter, center = fit.fitter, fit.u.detach()
    covariance = fit.ucov.to(center)
    lower, upper = (side.expand(len(tasks), -1).clone() for side in fitter.bounds)
    start = center.expand(len(tasks), -1).clone()
    for row, (_, i, held) in enumerate(tasks):
        # start where the linear model has its least with this variable held
        ridge = (
            covariance[:, i] / covariance[i, i]
            if covariance[i, i] > 0
            else torch.zeros_like(center)
        )
        start[row] = torch.minimum(
            torch.maximum(center + ridge * (held - center[i]), lower[row]), upper[row]
        )
        start[row, i] = lower[row, i] = upper[row, i] = held
    solution = fitter.solve(start, bounds=(lower, upper), verbose=0, callback=None, history=False)
    cost, found = to_array(tensor_of(solution.cost)), to_array(tensor_of(solution.status))
    for (name, i, held), c, status in zip(tasks, cost, found, strict=True):
        if np.isfinite(c) and status != Status.NOT_FINITE.value:
            rise = max(0.0, (2 * float(c) - least) / variance)
            seen[name][held] = float(np.sign(held - float(center[i])) * np.sqrt(rise))


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


def _outward(fit: Inference, name: str, u: np.ndarray) -> np.ndarray:
    """Values of a parameter for values of its variable; a transform is monotonic."""
    parameters, fitter = fit.fitter.parameters, fit.fitter
    i = parameters.variables.index(name)
    many = fit.u.detach().double().expand(len(u), -1).clone()
    many[:, i] = tensor_of(u)
    p = parameters.outward(many, fitter.start.double().expand(len(u), -1))
    return to_array(p[:, parameters.names.index(name)])
