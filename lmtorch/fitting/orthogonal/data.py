"""Data with errors in x and y: checks, masks, and what gives every error deviation one.

Of m points with k predictors and q responses, x is (m,) or (k, m) and y (m,) or (q, m); a batch of
fits has its dimension in front. Errors come as deviations, covariances or weights, and leave as

    T (k, m) or (k, k, m):  T_i T_iᵀ is the covariance of x_i, zero where x is exact
    R (q, m) or (q, q, m):  R_iᵀR_i is the weight of y_i, zero where it does not count
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..._errors import InputError, InputTypeError
from ..measurements.data import Data
from ..measurements.reading import is_table, merged, numbers_of, shown_of
from .point_errors import arranged, displacement, spread_of, used, whitening_of


@dataclass(frozen=True)
class PointData(Data):
    """Data of points with errors in x.

    Attributes:
        y: (..., q·m), all points in their first response, then in their second; zero of an implicit
            model.
        weights: as of any data; of weight matrices one for what counts.
        each: q, how many responses a point has, or equations that it fulfils.
        implicit: there is no y, f is to be zero.
        spread: T, with the batch in front.
        whitening: R, likewise.
        eta: where the displacements start, (..., m, k), in units of their deviations.
        more: what they have beside other data.
    """

    more: ClassVar[tuple[str, ...]] = ("each", "implicit", "spread", "whitening", "eta")
    each: int = 1
    implicit: bool = False
    spread: Tensor = torch.empty(0)
    whitening: Tensor = torch.empty(0)
    eta: Tensor = torch.empty(0)
    every: bool = False  # each response is known to count

    @property
    def points(self) -> int:
        """How many points there are, m."""
        return self.y.shape[-1] // self.each

    @property
    def flat(self) -> bool:
        """Whether x is one number for each point, (m,)."""
        return bool(self.x.ndim == 1 + len(self.lead))

    @property
    def predictors(self) -> int:
        """How many numbers x has at each point, k."""
        return 1 if self.flat else int(self.x.shape[-2])

    @property
    def grid(self) -> Tensor:
        """The responses, (..., q, m)."""
        return self.y.unflatten(-1, (self.each, self.points))

    @property
    def counts(self) -> Tensor:
        """Which responses count, (..., q, m) bool."""
        return used(self.whitening, len(self.lead))

    def displaced(self, eta: Tensor) -> Tensor:
        """The displacements δ = T η of η (..., m, k), in the shape of x."""
        return self.shaped(displacement(self.spread, eta.mT, len(self.lead)))

    def shaped(self, values: Tensor) -> Tensor:
        """Numbers (..., k, m) in the shape of x."""
        return values[..., 0, :] if self.flat else values

    def with_equations(self, each: int) -> "PointData":
        """The data of an implicit model of so many equations."""
        shape = (*self.lead, each, self.points)
        kept = self.counts[..., :1, :].expand(shape).to(self.y)
        return replace(
            self,
            y=self.y.new_zeros(*self.lead, each * self.points),
            weights=None if self.weights is None else kept.flatten(-2),
            count=self.count * each,
            whitening=kept,
            each=each,
        )

    def some(self, chosen: slice | Tensor) -> "PointData":
        """The data of some fits of the batch."""
        found: Any = super().some(chosen)
        return self._with(found, chosen)

    def at(self, index: tuple[int, ...]) -> "PointData":
        """The data of one fit."""
        found: Any = super().at(index)
        return self._with(found, index[0])

    def _with(self, data: "PointData", chosen: Any) -> "PointData":
        return replace(
            data,
            spread=self.spread[chosen],
            whitening=self.whitening[chosen],
            eta=self.eta[chosen],
        )


@dataclass(frozen=True)
class Given:
    """What a user of `odr` tells about errors, see there."""

    sx: Any = None
    sy: Any = None
    wd: Any = None
    we: Any = None
    fixed_x: Any = None
    delta0: Any = None


def read(x: Any, y: Any, given: Given, batch: bool) -> PointData:
    """Check and convert the data; y None is an implicit model, of one equation for the time being.

    Returns:
        The data.

    Raises:
        InputError: they are empty, not finite, no numbers, or of shapes that do not fit.
    """
    dims, implicit = int(batch), y is None
    points, shown_x = _numbers(x, "x")
    if points.ndim not in (1 + dims, 2 + dims):
        raise InputError(
            f"x has shape {tuple(points.shape)}: it must be (m,), or (k, m) for k predictors"
            + (", with the fits in front." if batch else "; batch=True makes many fits.")
        )
    lead = tuple(points.shape[:dims])
    if implicit and (given.sy is not None or given.we is not None):
        raise InputError("an implicit model, y=None, has no errors of y: leave sy and we out.")
    if implicit:
        values, shown_y = points.new_zeros(*lead, 1, points.shape[-1]), None
    else:
        values, shown_y = _responses(y, points, lead)
    points = points.to(values)
    grid = points if points.ndim == 2 + dims else points[..., None, :]
    spread, shown_sx = spread_of(given.sx, given.wd, given.fixed_x, grid, lead)
    whitening, shown_sy = whitening_of(given.sy, given.we, values, lead)
    shown_x = None if shown_x is None else shown_x.to(grid.device).reshape(grid.shape)
    kept_x = _all(shown_x, grid) & _all(shown_sx, grid)  # (..., 1, m)
    kept = kept_x & _each(shown_y, values) & _each(shown_sy, values)
    _finite("x", grid, kept_x)
    if not implicit:
        _finite("y", values, kept)
    whitening = _without(whitening, kept, dims)
    counts = used(whitening, dims)
    there = counts.any(-2, keepdim=True)  # (..., 1, m)
    # in one read of the device
    left, defined, every = torch.stack([there.any(-1).all(), kept_x.all(), counts.all()]).tolist()
    if not left:
        raise InputError("every point is masked, or has we = 0: nothing is left to fit.")
    spread = torch.where(there if spread.ndim == grid.ndim else there[..., None, :], spread, 0.0)
    if not defined:  # f is called only where it is defined
        first = kept_x.to(torch.int8).argmax(-1, keepdim=True)
        first = first.expand(*grid.shape[:-1], 1)
        grid = torch.where(kept_x, grid, torch.take_along_dim(grid, first, -1))
    matrices = whitening.ndim > values.ndim
    rank = (whitening != 0).any(-2) if matrices else counts
    plain = given.sy is None and given.we is None and every
    data = PointData(
        x=grid if points.ndim == 2 + dims else grid[..., 0, :],
        y=torch.where(counts, values, 0.0).flatten(-2),
        weights=None if plain else (counts.to(values) if matrices else whitening).flatten(-2),
        root=None,
        count=rank.to(values).sum((-2, -1)),
        numpy=not isinstance(x if implicit else y, Tensor),
        each_x=batch,
        sizes=(),
        each=values.shape[-2],
        implicit=implicit,
        spread=spread,
        whitening=whitening,
        every=every,
    )
    return replace(data, eta=_start(given.delta0, data, grid))


def _numbers(given: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Data as numbers, and which of them are not masked.

    Returns:
        Both, the second None where none is masked.

    Raises:
        InputError: there are none.
        InputTypeError: they are a table.
    """
    if type(given).__module__.startswith("scipy.odr"):
        raise InputTypeError(
            f"{name} is a {type(given).__name__} of scipy.odr: give its arrays, odr(f, data.x, "
            "data.y, p0, sx=..., sy=...), or keep the program with the classes of the recipe "
            "docs/recipes/scipy_odr.md."
        )
    if is_table(given):
        raise InputTypeError(f"{name} is a table: give its columns as an array (k, m).")
    values = numbers_of(given, name)
    if values.numel() == 0:
        raise InputError(f"{name} is empty: there is nothing to fit.")
    return values.detach(), shown_of(merged(given, name))


def _responses(given: Any, points: Tensor, lead: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """y as (..., q, m), and which of it is not masked.

    Returns:
        Both, the second None where none is masked.

    Raises:
        InputError: its shape does not fit x.
    """
    values, shown = _numbers(given, "y")
    m = points.shape[-1]
    if not lead and values.ndim == 0:  # a single value is taken for all points
        values, shown = values.expand(m), None
    if not lead and tuple(values.shape) == (m, 1):  # a column is one curve
        values, shown = values.mT, None if shown is None else shown.mT
    elif values.ndim == 1 + len(lead):
        values, shown = values[..., None, :], None if shown is None else shown[..., None, :]
    if values.ndim != 2 + len(lead) or values.shape[-1] != m or values.shape[:-2] != lead:
        shape = (*lead, m)
        raise InputError(
            f"x has shape {tuple(points.shape)}, y {tuple(numbers_of(given, 'y').shape)}: x must "
            f"have as many points as y, which is {shape}, or (…, q, {m}) of q responses"
            + (f" of {lead[0]} fits." if lead else ". Many fits at once need batch=True.")
        )
    return values, shown


def _all(shown: Tensor | None, like: Tensor) -> Tensor:
    """Where all numbers of a point are shown, (..., 1, m) bool."""
    if shown is None:
        return torch.ones_like(like[..., :1, :], dtype=torch.bool)
    return shown.expand(like.shape).all(-2, keepdim=True)


def _each(shown: Tensor | None, like: Tensor) -> Tensor:
    """Where a number is shown, (..., q, m) bool."""
    if shown is None:
        return torch.ones_like(like, dtype=torch.bool)
    return shown.to(like.device).expand(like.shape)


def _finite(name: str, values: Tensor, kept: Tensor) -> None:
    """Check that all numbers that count are finite.

    Raises:
        InputError: one is not.
    """
    bad = ~values.isfinite() & kept
    if bool(bad.any()):
        place = tuple(bad.nonzero()[0].tolist())
        place = place[:-2] + place[-1:] if values.shape[-2] == 1 else place
        raise InputError(
            f"{name} has NaN or infinity, first at {place}. Clean it, or hide such points in a "
            "masked array (numpy.ma)."
        )


def _without(whitening: Tensor, kept: Tensor, lead: int) -> Tensor:
    """R without what is left out; of a weight matrix, what is left of the others' weights.

    Returns:
        R.

    Raises:
        InputError: some responses of a point with a weight matrix are masked, and others are not.
    """
    if whitening.ndim == lead + 2:
        return torch.where(kept, whitening, 0.0)
    if not torch.equal(kept.any(-2), kept.all(-2)):
        raise InputError(
            "with matrices for the errors of y, mask all responses of a point, or none."
        )
    return torch.where(kept[..., None, :, :], whitening, 0.0)


def _start(delta0: Any, data: PointData, grid: Tensor) -> Tensor:
    """The displacements at the start.

    Returns:
        η, (..., m, k).

    Raises:
        InputError: they are not finite, do not fit x, or move what is exact.
    """
    if delta0 is None:
        return grid.new_zeros(*data.lead, grid.shape[-1], grid.shape[-2])
    delta, square = arranged(numbers_of(delta0, "delta0").to(grid), "delta0", "x", grid, data.lead)
    if square or not bool(delta.isfinite().all()):
        raise InputError("delta0 has a finite number for each of x.")
    spread, lead = data.spread, len(data.lead)
    if spread.ndim == grid.ndim:
        eta = torch.where(spread > 0, delta / spread, 0.0)
    else:
        inverse = torch.linalg.pinv(spread.movedim(-1, -3))
        eta = (inverse @ delta.mT[..., None])[..., 0].mT
    there = data.counts.any(-2, keepdim=True)
    apart = displacement(spread, eta, lead) - torch.where(there, delta, 0.0)
    if bool((apart.abs() > 1e-6 * delta.abs()).any()):
        raise InputError("delta0 moves an x that is exact: give zero there.")
    return eta.mT.contiguous()
