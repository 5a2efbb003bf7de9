"""A user's ρ: torch or NumPy code, in scipy's form or in ours."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._arrays import tensor_of
from .._errors import InputError
from .base import Rho


def given_rho(function: Callable[..., Any]) -> Callable[[Tensor], Rho]:
    """z → ρ, ρ′, ρ″ from a function of a vector z that returns them as a tuple or as the rows of a (3, m) array."""

    def rho(z: Tensor) -> Rho:
        flat = z.reshape(-1)
        try:
            found = function(flat)
        except (TypeError, RuntimeError):
            found = function(flat.detach().cpu().numpy())
        rows = [tensor_of(row).to(z) for row in found]
        if len(rows) != 3 or any(row.shape != flat.shape for row in rows):
            raise InputError(
                f"the loss returned {len(rows)} rows of shapes {[tuple(row.shape) for row in rows]} for z of "
                f"{tuple(flat.shape)}. It must return ρ, ρ′ and ρ″, each of the shape of z."
            )
        return Rho(*(row.view_as(z) for row in rows))

    return rho
