"""The robust loss that options of `least_squares` ask for, as the errors of a fit need it."""

from collections.abc import Mapping
from typing import Any

from ..._errors import InputError
from ...choose import Options
from ...choose import loss as loss_of
from ...losses.linear import Linear
from ...losses.robust import Robust
from ...minimising.arguments import real_number


def robust_of(options: Mapping[str, Any]) -> Robust | None:
    """The robust loss, or None for plain least squares.

    Args:
        options: of `least_squares`.

    Returns:
        The loss.

    Raises:
        InputError: ρ itself is not given.
    """
    if not {"loss", "f_scale"} & options.keys():
        return None
    scale = options.get("f_scale", 1.0)
    scale = 1.0 if isinstance(scale, str) else scale
    loss = loss_of(
        Options(loss=options.get("loss", "linear"), loss_scale=real_number(scale, "f_scale"))
    )
    if isinstance(loss, Linear):
        return None
    if not isinstance(loss, Robust):
        raise InputError(
            "the errors of the parameters need ρ itself: give the loss by name or as a function."
        )
    return loss
