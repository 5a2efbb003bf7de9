"""Whether a sum with a term whose start was not known has ended beside its data.

A function of the user's starts at 1 where neither it nor p0 says otherwise, and a wave or a network
does not come from there to its data: the fit ends at a minimum, but at another one.
"""

from typing import Any

import torch
from torch import Tensor

from ..brought import Brought, parts_of
from ..measurements.data import Data
from ..models import Model

NORMAL = 1.4826  # from the median of |r| to a standard deviation, for normal r
SECOND = 6**0.5  # from the noise of points to that of their second differences
BESIDE = 9.0  # so many times the squares of their own scatter are no residuals of a curve that fits
FEWEST = 12  # points from which scatter is told


def unknown(called: Model, p0: Any, rules: Brought) -> list[str]:
    """The names of parameters whose start nobody knew: neither the model, nor a rule, nor p0."""
    if p0 is not None and not isinstance(p0, dict):
        return []
    said = {*(p0 or {}), *rules.starts, *rules.values, *rules.ties}
    found: list[str] = []
    for part in parts_of(called):
        for term in part.model.terms.values():
            if term._blind:
                found += [part.names[name] for name in term.names if name not in said]
    return [name for name in found if name not in said]


def beside(data: Data, residual: Tensor) -> bool:
    """Whether residuals (..., m) go far beyond their scatter from point to point, of any curve.

    Args:
        data: points of one coordinate; of others nothing is told. Real and imaginary parts, or the
            like, may stand one after the other, as many as the points each.
        residual: in units of their errors.

    Returns:
        Whether they do.
    """
    return bool(each_beside(data, residual).any())


def each_beside(data: Data, residual: Tensor) -> Tensor:
    """As `beside`, for each fit, (...,)."""
    x, none = data.x, torch.zeros(residual.shape[:-1], dtype=torch.bool, device=residual.device)
    if not isinstance(x, Tensor) or x.ndim != 1 or data.sizes or not len(x):
        return none
    if residual.shape[-1] % len(x) or len(x) < FEWEST or _left_out(data):
        return none
    parts = residual.unflatten(-1, (-1, len(x)))[..., x.argsort()]
    return _missing(parts, _size(data)[..., None]).any(-1)


def far_off(data: Data, rows: Tensor) -> bool:
    """Whether residuals (..., m) in the order of their points go far beyond their scatter.

    Points in no order scatter as widely as their residuals are: of them nothing is told.

    Returns:
        Whether they do.
    """
    if rows.shape[-1] < FEWEST or _left_out(data):
        return False
    return bool(_missing(rows, _size(data)).any())


def _left_out(data: Data) -> bool:
    """Whether points are left out, whose residuals are zero."""
    return data.weights is not None and not bool((data.weights > 0).all())


def _size(data: Data) -> Tensor:
    """The mean square of the data in units of their errors, (...,)."""
    values = data.y if data.weights is None else data.y * data.weights
    return values.square().mean(-1)


def _missing(rows: Tensor, size: Tensor) -> Tensor:
    """Which rows (..., m) go far beyond their scatter; size is the mean square of the data."""
    scatter = NORMAL / SECOND * rows.diff(n=2).abs().median(-1).values
    missed = rows.square().mean(-1)
    # of data without noise a fit leaves what round-off does, which need not scatter
    least = torch.finfo(rows.dtype).eps * size
    return (missed > BESIDE * scatter.square()) & (missed > least)
