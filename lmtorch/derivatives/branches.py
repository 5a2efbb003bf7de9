"""Whether a function that seems linear or constant in its input is so, or what autograd sees of it.

A mask that is made by a comparison is a constant to autograd, so that the graph of a leaky ReLU
that is written by hand is that of a linear function. Between two points x and x′ a linear function
is known from its ends, f((x + x′)/2) = (f(x) + f(x′))/2, and one with several pieces is another
there, where a piece ends between some pair of points. Pairs are of neighbours in the batch.
Likewise a function has no graph at all where it does not depend on x, or where it is cut off from x
by `detach` or a comparison; then its values differ between neighbours.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .asked import look, unless_asked
from .bends import Noted
from .draws import alike
from .uncompiled import Uncompiled

ROUNDING = 100.0  # times ε: what rounding is taken for
SOME = 0.1  # the part of what bends between neighbours that is straight nearby, for pieces
BRANCHES = "a choice between branches (a mask, torch.where, an index)"
CUT = "a comparison, a rounding, detach, no_grad or a number taken out of a tensor"


def look_at_branches(
    function: Callable[[Tensor], Any], x: Tensor, batch: int, noted: Noted, watched: bool
) -> None:
    """Note that a function is not as linear or as constant as it seems; one that is is asked once.

    Args:
        function: the user's.
        x: (*batch, *in).
        batch: how many dimensions are samples.
        noted: what is known of it, and where it is noted.
        watched: whether a transform or mode would take what is tried for a part of its own.
    """
    if watched or noted.bends or noted.steps or noted.cuts:
        return
    remember = unless_asked(("branches", batch, noted.constant), function)
    if remember is None:
        return
    try:
        otherwise = _otherwise(function, x.detach(), batch, noted.constant)
    except Exception:  # it does not take other points; what it seems is then as good a guess
        return
    if not otherwise:
        remember()
    elif noted.constant:
        noted.cuts[CUT] = None
    else:
        noted.bends[BRANCHES] = None


def _otherwise(function: Callable[[Tensor], Any], x: Tensor, batch: int, constant: bool) -> bool:
    """Whether values between neighbours are not those of a line, or neighbours' values differ."""
    samples = x.shape[:batch]
    if samples.numel() > 1:
        other = x.flatten(0, batch - 1).roll(1, 0).view_as(x)
    else:  # of one input, its entries in another order
        other = x.flatten().roll(1).view_as(x)
    step = (other - x) * (2.0**-6 if x.dtype == torch.float32 else 2.0**-10)
    points = [x, other, (x + other) / 2, x + step, x + 2 * step]
    with torch.no_grad(), Uncompiled(), look():
        values = [function(p.clone()).detach() for p in alike(points, x)]
    first, second, between, near, beyond = values
    if constant:
        return bool((first != second).any())
    size = torch.stack(values).abs().nan_to_num(0).max()
    rounding = ROUNDING * torch.finfo(first.dtype).eps * size
    bent = (between - (first + second) / 2).abs() > rounding
    # what is scaled by something detached bends everywhere, pieces only where two of them meet
    straight = (first - 2 * near + beyond).abs() <= rounding
    return bool((bent & straight).sum() > SOME * bent.sum())
