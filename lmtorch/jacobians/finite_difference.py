"""Finite differences, for residuals that cannot be differentiated: black boxes.

The step balances truncation against round-off: h = ε^½ s for two points and ε^⅓ s for three, with
the size s of the parameter and ε of the parameters or of the residuals, whichever are coarser. It
is made exact as (x + h) − x, and never leaves the box in which the function is defined.

The size is |x|, so that the units of a parameter do not matter; but a parameter that passes through
zero keeps a size, ε^¼ of its start at least. That is halfway, in decades, between what a parameter
needs whose own size is what matters and one that is merely added to something; where the difference
drowns in round-off, it is more, up to that of the start. Of a parameter that starts at zero the
size is 1 at first, and then what the difference itself says.

References: Dennis & Schnabel, Numerical Methods for Unconstrained Optimization (1996), §5.4, with
the typical size of a parameter; Nocedal & Wright (2006), §8.1; Gill, Murray, Saunders & Wright,
Computing forward-difference intervals for numerical optimization (1983), on a step that is judged
by its own difference.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._autodiff import Params
from ..arrays import seen, select
from ..residuals.base import Part
from .base import Pull, Workspace, pull_by_rows, push_by_rows

DROWNED = 100  # a change of the residuals by fewer roundings says nothing of the derivative
AGREE = 1e-3  # relative difference of two slopes up to which the longer step is short enough
TRIALS = 6  # other sizes that are tried at most, each a factor of ε^¼ or more from the last
KINK = 1e-3  # share by which the two halves of a difference may differ before it looks like noise


class Column(NamedTuple):
    """A column of J, and what its difference says of the step."""

    slope: Tensor  # (..., m)
    change: Tensor  # (...,), of the residuals by the step, ‖r(x + h) − r(x)‖
    size: Tensor  # (...,), of the parameter
    # (...,) bool: it looks as if residuals were rounded more coarsely than their dtype
    rough: Tensor


@dataclass(frozen=True)
class FiniteDifference:
    """Columns of J from differences of residuals.

    Args:
        method: "2-point" (n more evaluations, error of order ε^½) or "3-point" (2n, of order
            ε^⅔). Default: "2-point".
        step: h/s, one number or one for each parameter, flat (n,). Default: that of `method`.
    """

    method: Literal["2-point", "3-point"] = "2-point"
    step: float | Tensor | None = None

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of the part, in one block."""
        residual = part.function(params)
        jacobian = workspace(residual.shape[-1])
        for number, column in enumerate(self._columns(part, params, residual)):
            jacobian[..., number] = column.slope
        yield residual, jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v, of the columns that `blocks` gives."""
        return push_by_rows(self, part, params, direction)

    def pull(self, part: Part, params: Params) -> tuple[Tensor, Pull]:
        """Residuals, and w ↦ Jᵀw of the columns that `blocks` gives."""
        return pull_by_rows(self, part, params)

    def evaluations(self, n: int) -> int:
        """How many a Jacobian of n columns takes beside that of the point itself."""
        return n if self.method == "2-point" else 2 * n

    def look(self, part: Part, params: Params) -> tuple[Tensor, bool]:
        """Which sizes (..., n) of parameters to use from here on, and how residuals are rounded.

        The part's own sizes are taken as a guess here. With the sizes that are returned, the steps
        at these parameters are those that were found good.
        """
        residual = part.function(params)
        found = [
            (column.size, column.rough)
            for column in self._columns(part, params, residual, guessed=True)
        ]
        return torch.stack([size for size, _ in found], -1), bool(
            torch.stack([rough for _, rough in found]).any()
        )

    def _columns(
        self, part: Part, params: Params, residual: Tensor, guessed: bool = False
    ) -> Iterator[Column]:
        number = 0
        for which, param in enumerate(params):
            for entry in range(param.shape[part.batch :].numel()):
                yield self._column(part, params, which, entry, number, residual, guessed)
                number += 1

    def _column(
        self,
        part: Part,
        params: Params,
        which: int,
        entry: int,
        number: int,
        residual: Tensor,
        guessed: bool,
    ) -> Column:
        line = _Line.of(part, params, which, entry, residual)
        value = line.value
        eps = max(
            torch.finfo(kind).eps
            for kind in (value.dtype, residual.dtype, part.precision or value.dtype)
        )
        share = self._share(number, eps, value)
        formula = line.two_points if self.method == "2-point" else line.three_points

        def differ(size: Tensor) -> Column:
            step = share * size
            slope, change, rough = formula(torch.where(value < 0, -step, step))
            return Column(slope, change, size, rough)

        least = torch.zeros_like(value) if part.sizes is None else part.sizes[..., number].to(value)
        unknown = least == 0
        # a step that was given is a share of |x|, whatever that is, unless x is zero
        guess = torch.ones_like(value) if self.step is None else (value == 0).to(value)
        size = torch.maximum(value.abs(), torch.where(unknown, guess, least))
        most = share.rsqrt() * value.abs().clamp(min=1)
        if not guessed:  # at most the size of the parameter at the start, of which `least` is ε^¼
            most = torch.where(unknown, most, least * eps**-0.25)
        column = differ(size)
        if not (guessed or seen(unknown | (size < most))):
            return column
        column, judged = _judged(differ, column, residual, value.abs(), most, share, eps, unknown)
        # from here on: what was found where nothing was known, otherwise a share of the start
        own = unknown | judged | (value == 0)
        return column._replace(size=torch.where(own, column.size, eps**0.25 * size))

    def _share(self, number: int, eps: float, value: Tensor) -> Tensor:
        """h/s (), positive."""
        if self.step is None:
            return value.new_full((), eps ** (1 / 2 if self.method == "2-point" else 1 / 3))
        step = self.step[number] if isinstance(self.step, Tensor) and self.step.ndim else self.step
        return (step.to(value) if isinstance(step, Tensor) else value.new_full((), step)).abs()


@dataclass(frozen=True)
class _Line:
    """The residuals as a function of one entry of the parameters."""

    value: Tensor  # (...,), of the entry
    lower: Tensor  # (...,), its bounds
    upper: Tensor
    residual: Tensor  # (..., m), where the entry has its value
    moved: Callable[[Tensor], tuple[Tensor, Tensor]]  # entry (...,) -> residuals there, and itself

    @classmethod
    def of(cls, part: Part, params: Params, which: int, entry: int, residual: Tensor) -> "_Line":
        """The line along an entry of the parameter at place `which`."""
        param, batch = params[which], part.batch
        # a parameter of a problem may be a single number, and there may be no problem
        flat = (*param.shape[:batch], param.shape[batch:].numel())
        value = param.reshape(flat)[..., entry]
        lower, upper = torch.full_like(value, -torch.inf), torch.full_like(value, torch.inf)
        if part.box is not None:
            sides = (side[which].expand(param.shape).reshape(flat) for side in part.box)
            lower, upper = (side[..., entry] for side in sides)

        def moved(to: Tensor) -> tuple[Tensor, Tensor]:
            others = param.clone().reshape(flat)
            others[..., entry] = to
            point = (*params[:which], others.view_as(param), *params[which + 1 :])
            return part.function(point), others[..., entry]

        return cls(value, lower, upper, residual, moved)

    def at(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """The residuals at a distance (...,), and how far it is exactly, (..., 1)."""
        # value + (upper - value) may round to a number above upper
        to = torch.minimum(torch.maximum(self.value + distance, self.lower), self.upper)
        residual, there = self.moved(to)
        return residual, (there - self.value)[..., None].to(self.residual.dtype)

    def two_points(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope (..., m), change (...,) and roughness (...,) by a difference over a step (...,)."""
        below, above = self.value - self.lower, self.upper - self.value
        # away from a wall, and where both are nearer than the step, as far as the farther one
        ahead = torch.where(step > 0, above, below)
        behind = torch.where(step > 0, below, above)
        turned = (step.abs() > ahead) & (behind > ahead)
        room = torch.maximum(ahead, behind)
        f, h = self.at(torch.where(turned, -step, step).clamp(min=-room, max=room))
        still = ((f == self.residual) & (h != 0)).double().mean(-1)
        change = torch.linalg.vector_norm(f - self.residual, dim=-1)
        return torch.where(h == 0, 0.0, (f - self.residual) / h), change, still > 1 / 2

    def three_points(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `two_points` gives, by the parabola through three points at 0, h₁, h₂."""
        below, above, r = self.value - self.lower, self.upper - self.value, self.residual
        size = step.abs()
        central = (size <= below) & (size <= above)
        # one-sided: to the wider side
        outward = torch.where(above >= below, 1.0, -1.0).to(self.value)
        size = torch.where(central, size, torch.minimum(size, torch.maximum(below, above) / 2))
        first, h1 = self.at(torch.where(central, size, outward * size))
        second, h2 = self.at(torch.where(central, -size, 2 * outward * size))
        rise = h2.square() * (first - r) - h1.square() * (second - r)
        slope = rise / (h1 * h2 * (h2 - h1))
        # where h₂ = −h₁ it is the same, without the round-off
        plain = (first - second) / (h1 - h2)
        bend = torch.linalg.vector_norm(first - 2 * r + second, dim=-1)
        rough = central & (bend > KINK * torch.linalg.vector_norm(first - second, dim=-1))
        change = torch.linalg.vector_norm(first - r, dim=-1)
        chosen = torch.where(h1 == 0, 0.0, torch.where(central[..., None], plain, slope))
        return chosen, change, rough


def _judged(
    differ: Callable[[Tensor], Column],
    given: Column,
    residual: Tensor,
    least: Tensor,  # (...,), sizes between which others are tried
    most: Tensor,
    share: Tensor,
    eps: float,
    unknown: Tensor,  # (...,) bool: the size is no more than a guess, and may be too large
) -> tuple[Column, Tensor]:
    """The column with another size if its difference is out of proportion, and where, (...,).

    A change beneath the rounding of the residuals asks for a longer step, one that is nearly as
    large as the residuals themselves for a shorter one, unless that shows the same slope: the
    residuals may be what is small.
    """
    length = torch.linalg.vector_norm(residual, dim=-1)
    column, judged = given, torch.zeros_like(unknown)
    drowned, loud = torch.ones_like(unknown), unknown
    for _ in range(TRIALS):
        drowned = drowned & (column.change < DROWNED * eps * length)
        loud = loud & (column.change > share.sqrt() * length) & (column.size > least)
        longer = drowned & (column.size < most)
        if not bool((longer | loud).any()):
            break
        # half of the decades to go
        far = torch.maximum(column.size * eps**-0.25, (column.size * most).sqrt())
        size = torch.where(longer, torch.minimum(far, most), column.size)
        other = differ(torch.where(loud, torch.maximum(column.size * eps**0.25, least), size))
        apart = torch.linalg.vector_norm(other.slope - column.slope, dim=-1)
        alike = apart <= AGREE * torch.linalg.vector_norm(column.slope, dim=-1)
        taken = (longer | (loud & ~alike)) & other.slope.isfinite().all(-1)
        column = select(taken, other, column)
        judged, drowned, loud = judged | taken, drowned & (taken | ~longer), loud & taken
    # where no step was long enough, the parameter has no influence
    mute = drowned & (column.change < DROWNED * eps * length)
    return select(mute, given, column)._replace(rough=given.rough), judged & ~mute
