"""Other starts of a single fit for which none was given: from the units of the data.

A function whose parameters start at 1 is fitted well from there where they are of that size. An
adsorption constant of 1e-5 per pascal is not, nor a capacitance of microfarads: the curve has gone
to one of its limits at the start, and what the fit then finds is a minimum beside the data, or a
parameter that was lost; or it is no number there, as a difference of two equal rates in the
denominator. Parameters are mostly of the size of x, of 1/x, of y, of y/x or of 1: many starts of
such sizes are compared by their squares, and the fit is made again from the best of them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ..._threads import quiet
from ...core.termination import Status
from ...losses.robust import Robust
from ...minimising.solution import Solution
from ...models.base import Model
from ..fitter import Fitter
from ..measurements.data import Data
from ..models import OfNumbers
from .blind import FEWEST, far_off

DRAWN = 512  # starts that are compared, each at the price of one evaluation
TRIED = 8  # of which the best are fitted from
DECADES = 1.0  # by which a start is larger or smaller than its unit, at most
NEGATIVE = 0.25  # share of the entries that are
PLACES = 0.25  # share of the entries that are one of x, as the place of a peak is
MISSING = 0.01  # of the squares about a constant; what leaves less has found the data
MOST = 0.1  # of them, beyond which the user is told
HALF = 0.5  # of them, beyond which other starts are tried whatever the scatter is
PAIRS = 4  # of starts between which a linear model is looked for
STRAIGHT = 1e-9  # of the largest residual, by which a linear model is off
UNLIKE = 1e-6  # of the cost, by which ends are different minima
BETTER = 0.9  # of the squares before, at most
NOWHERE = "the residuals are not finite at the start"
HOPELESS = (Status.LOST, Status.FLAT, Status.POOR, Status.NOT_FINITE)  # another start may mend it
ADVICE = (
    "the curve misses the data by far more than they scatter, and much of their shape. No start "
    "was given, and another one may end at a lower minimum: give p0 of the size that you expect."
)


def searched(fitter: Fitter, robust: Robust | None, p0: Any) -> bool:
    """Whether other starts may be looked for: nothing was said, and squares are minimised."""
    model: Any = fitter.model
    own = type(model) is OfNumbers and not isinstance(model.function, Model)
    plain = fitter.likelihood is None and robust is None and not fitter.parameters.transforms
    return p0 is None and own and plain and not (fitter.data.lead or fitter.data.sizes)


class Blind:
    """A single fit of a function whose start nobody knew.

    Args:
        fitter: of the fit.
        asked: what `least_squares` is called with.
        minimised: it.
    """

    def __init__(
        self, fitter: Fitter, asked: dict[str, Any], minimised: Callable[..., Solution]
    ) -> None:
        self.fitter, self.asked, self.minimised = fitter, asked, minimised
        self.ends: list[float] = []  # the costs of minima from other starts
        self.several = False  # some of them are other minima

    @property
    def constant(self) -> float:
        """The squares about a constant, halved."""
        constant = self.asked.get("acceptable")
        return math.inf if constant is None else _number(constant)

    def first(self, u: Tensor) -> tuple[Solution, Tensor]:
        """The fit from u (n,), or from elsewhere where f is no number there.

        Returns:
            Where it has ended, and from where it began.

        Raises:
            InputError: f is no number anywhere.
        """
        try:
            return self.minimised(**self.asked), u
        except InputError as error:
            if NOWHERE not in str(error) or (other := self._again(u, self.asked)) is None:
                raise
            return other

    def second(self, solution: Solution, u: Tensor, differences: bool) -> tuple[Solution, Tensor]:
        """The fit from elsewhere, where that ends lower than one that came to nothing.

        Args:
            solution: where the fit from u has ended.
            u: from where it began.
            differences: finite differences serve, as there are no derivatives.

        Returns:
            The end that is better, and from where it began.
        """
        doubt = int(solution.status) in HOPELESS or _lost(solution)
        if (doubt or self._misses(solution, MISSING)) and not self._straight(u):
            asked = {**self.asked, "jac": "2-point"} if differences else self.asked
            other = self._again(u, asked)
            if other is not None:
                costs = [*self.ends, _number(solution.cost)]
                self.several = max(costs) > (1 + UNLIKE) * min(costs)
                if better(other[0], solution):
                    return other
        return solution, u

    def amiss(self, solution: Solution) -> bool:
        """Whether an end that was taken for a minimum may be none of the lowest."""
        return bool(solution.success) and self.several and self._misses(solution, MOST)

    def _misses(self, solution: Solution, share: float) -> bool:
        return misses(self.fitter.data, solution, self.constant, share)

    def _straight(self, u: Tensor) -> bool:
        """Whether the model is linear in its parameters, as far as is seen: it has one minimum."""
        drawn = self._drawn(u)
        for one, other in zip(drawn[:PAIRS], drawn[PAIRS : 2 * PAIRS], strict=True):
            ends = [
                _rows(self.fitter, v, self.asked["args"]) for v in (one, (one + other) / 2, other)
            ]
            first, middle, last = ends
            if first is None or middle is None or last is None:
                return False
            scale = float(torch.stack([first, last]).abs().max())
            if not bool((first + last - 2 * middle).abs().max() <= STRAIGHT * scale):
                return False
        return True

    def _again(self, u: Tensor, asked: dict[str, Any]) -> tuple[Solution, Tensor] | None:
        """The best end from other starts, and its start; None: f is no number at any."""
        fitter = self.fitter
        drawn = self._drawn(u)
        costs = [_cost(fitter, one, asked["args"]) for one in drawn]
        best: tuple[Solution, Tensor] | None = None
        for place in np.argsort(costs, kind="stable")[:TRIED]:
            if not math.isfinite(costs[place]):
                continue
            one = drawn[place]
            given = to_array(one) if fitter.data.numpy else one
            try:
                found = self.minimised(**{**asked, "x0": given, "second_opinion": False})
            except Exception:  # see `_rows`: f is refused on the way from a start of ours
                continue
            if found.success:
                self.ends.append(_number(found.cost))
            if best is None or _before(found, best[0]):
                best = found, one
        return best

    def _drawn(self, u: Tensor) -> list[Tensor]:
        """Starts of the size of the data, within the bounds; defaults of the function are kept."""
        fitter = self.fitter
        model: Any = fitter.model
        rng = np.random.default_rng(0)
        shape = (DRAWN, len(u))
        size = rng.choice(_units(fitter.data), shape) * 10.0 ** rng.uniform(
            -DECADES, DECADES, shape
        )
        size = np.where(rng.random(shape) < NEGATIVE, -size, size)
        places = _places(fitter.data)
        if len(places):
            size = np.where(rng.random(shape) < PLACES, rng.choice(places, shape), size)
        found = torch.from_numpy(size).to(u)
        low, high = (side.to(u) for side in fitter.bounds)
        inside = torch.from_numpy(rng.random(shape)).to(u)
        between = torch.where(
            low.isfinite() & high.isfinite(),
            low + inside * (high - low),
            torch.where(low.isfinite(), low + found.abs(), high - found.abs()),
        )
        found = torch.where((found < low) | (found > high), between, found)
        said = [name in model.defaults for name in fitter.parameters.variables]
        found = torch.where(torch.tensor(said, device=u.device), u, found)
        return list(found.unbind(0))


def misses(data: Data, solution: Solution, constant: float, share: float = MISSING) -> bool:
    """Whether a curve misses its data by far more than they scatter, and by a share of them.

    Args:
        data: of a single fit.
        solution: its end.
        constant: the squares about a constant, halved.
        share: of these, that are missed at least.

    Returns:
        Whether it does.
    """
    rows = tensor_of(solution.fun).detach()
    cost = _number(solution.cost)
    if rows.ndim != 1 or not cost > share * constant:
        return False
    if share == MISSING and (len(rows) < FEWEST or cost > HALF * constant):
        return True  # to look costs time alone
    x = data.x
    line = isinstance(x, Tensor) and x.ndim == 1 and len(x) == len(rows)
    return far_off(data, rows[x.argsort()] if line else rows)


def better(found: Solution, before: Solution) -> bool:
    """Whether another end is to be taken: it must have come to a minimum, and to a lower one."""
    here, there = _number(before.cost), _number(found.cost)
    return bool(found.success) and (not math.isfinite(here) or there < BETTER * here)


def _lost(solution: Solution) -> bool:
    """Whether a parameter has no influence at the end, as one that lies beyond the data."""
    jacobian = tensor_of(solution.jac).detach()
    return bool((jacobian == 0).all(0).any())


def _before(found: Solution, best: Solution) -> bool:
    """Whether one end comes before another: a success first, then the lower one."""
    if bool(found.success) != bool(best.success):
        return bool(found.success)
    return _number(found.cost) < _number(best.cost)


def _cost(fitter: Fitter, u: Tensor, arguments: tuple[Any, ...]) -> float:
    """The sum of squares at u; infinity where there is none."""
    rows = _rows(fitter, u, arguments)
    square = math.inf if rows is None else float(rows.square().sum())
    return square if math.isfinite(square) else math.inf


def _rows(fitter: Fitter, u: Tensor, arguments: tuple[Any, ...]) -> Tensor | None:
    """The residuals at u (n,) in float64; None where the function refuses."""
    with torch.no_grad(), np.errstate(all="ignore"), quiet(Warning):
        try:
            rows = fitter.residual(u, *arguments)
        except Exception:  # whatever tensors meet in NumPy, as an IndexError in its piecewise
            try:  # it takes arrays
                rows = fitter.residual(*(_array(part) for part in (u, *arguments)))
            except Exception:  # the user knows nothing of this start, nor of what it is refused by
                return None
        return tensor_of(rows).detach().double()


def _number(cost: Any) -> float:
    """A cost as a number; of tensors it may carry a graph."""
    return float(tensor_of(cost).detach())


def _array(value: Any) -> Any:
    return to_array(value) if isinstance(value, Tensor) else value


def _units(data: Data) -> list[float]:
    """The sizes that parameters are likely to have."""
    y = _size(data.y)
    sizes = [1.0, y]
    if isinstance(data.x, Tensor) and data.x.is_floating_point():
        x = _size(data.x)
        sizes += [x, 1 / x, y / x]
    return [size for size in sizes if 0 < size < math.inf]


def _places(data: Data) -> np.ndarray:
    """Where peaks and steps may be: at the points."""
    if not (isinstance(data.x, Tensor) and data.x.is_floating_point()):
        return np.zeros(0)
    numbers = to_array(data.x.detach().double().reshape(-1))
    return numbers[np.isfinite(numbers)]


def _size(values: Tensor) -> float:
    """The middle of the largest and the median of numbers, by their logarithms."""
    numbers = values.detach().double().abs().reshape(-1)
    numbers = numbers[numbers.isfinite() & (numbers > 0)]
    if not numbers.numel():
        return 1.0
    # roots first: the product of two numbers may be more or less than any number
    return float(numbers.max().sqrt() * numbers.median().sqrt())
