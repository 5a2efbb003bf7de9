"""What follows from the parameters of a fit, as the height of a peak, with its error."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._threads import forward_mode
from ..brought import parts_of
from .bands import variance
from .inference import Inference


class Derived(NamedTuple):
    """A quantity that follows from the parameters.

    Attributes:
        value: it, (...,).
        stderr: its standard error, (...,): infinite where it depends on what the data do not
            determine, NaN where it depends on a parameter that is held at a bound.
    """

    value: Any
    stderr: Any


def derived_of(fit: Inference) -> dict[str, tuple[Tensor, Tensor]]:
    """What models of the library derive from their parameters, with errors by the delta method.

    Args:
        fit: of one fit or many.

    Returns:
        Values and standard errors (...,) in float64, by name; of several data sets `height[0]`.
    """
    parts = fit.parts()
    if not parts:
        return _of_some(fit)
    some = [_of_some(part) for part in parts]

    def whole(name: str, side: int) -> Tensor:
        return torch.cat([one[name][side] for one in some]).reshape(fit.lead)

    return {name: (whole(name, 0), whole(name, 1)) for name in some[0]}


def _of_some(fit: Inference) -> dict[str, tuple[Tensor, Tensor]]:
    p = fit.p.detach().double()
    values = _values(fit, p)
    if not values:
        return {}
    count = p.shape[-1]
    units = torch.eye(count, dtype=p.dtype, device=p.device)
    units = units.reshape(count, *(1,) * (p.ndim - 1), count).expand(count, *p.shape).clone()
    with forward_mode():  # all directions at once, as more fits: a width may take many operations
        columns = torch.func.jvp(
            lambda q: _values(fit, q), (p.expand_as(units).clone(),), (units,)
        )[1]
    slopes = torch.stack([columns[name].movedim(0, -1) for name in values], -2)
    slopes = slopes @ fit.slopes.to(slopes)  # (..., k, n), in the variables
    error = variance(slopes, fit.covariance, fit.factor).sqrt()
    pinned = (fit.held & ~fit.equal_bounds)[..., None, :] & (slopes != 0)
    error = torch.where(pinned.any(-1), torch.nan, error)
    return {name: (value, error[..., i]) for i, (name, value) in enumerate(values.items())}


def _values(fit: Inference, p: Tensor) -> dict[str, Tensor]:
    """By name, of parameters p (..., P)."""
    known: Mapping[str, Tensor] = dict(zip(fit.names, p.unbind(-1), strict=True))
    found = {}
    for part in parts_of(fit.fitter.model):
        own = {short: known[full] for short, full in part.names.items()}
        place = "" if part.place is None else f"[{part.place}]"
        found.update({f"{n}{place}": v for n, v in part.model.derived_from(own).items()})
    return {name: value.to(p).expand(p.shape[:-1]) for name, value in found.items()}
