"""Residuals that are numbers where their derivatives are none: a power or a root of zero.

(t/τ)^β at t = 0 is zero whatever τ is, and its derivative in τ the product of zero and infinity,
which no rule of differentiation makes a number. A difference of values does: it is zero, as the
derivative is. So a minimisation that has ended there is made again by finite differences.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np
import torch

from .._arrays import tensor_of
from .._errors import FallbackWarning, level
from ..core.termination import Status
from .solution import Solution

NOT_FINITE = int(Status.NOT_FINITE)
Solve = Callable[..., Solution]


def by_differences_where_needed(solve: Solve) -> Solve:
    """Decorate `least_squares`: where exact derivatives are no numbers, finite differences serve.

    Args:
        solve: the function, in whose arguments `jac` is None where it may choose.

    Returns:
        It, which solves once more, and warns, where that leads on.
    """
    order = signature(solve)

    @wraps(solve)
    def call(*args: Any, **kwargs: Any) -> Solution:
        solution = solve(*args, **kwargs)
        status = solution["status"]
        if status is Status.NOT_FINITE or not isinstance(status, int):
            asked = order.bind(*args, **kwargs).arguments
            free = asked.get("jac") is None and asked.get("process_group") is None
            if free and met(solution):
                second = by_differences(solve, asked)
                if better(second, solution):
                    _tell(solution)
                    return second
        return solution

    return call


def met(solution: Solution) -> bool:
    """Whether a run has ended where the residuals are numbers, and exact derivatives are none.

    Of a batch all must have failed: problems that came to an end keep every digit, whatever their
    neighbours do.

    Returns:
        True where finite differences may lead on.
    """
    status = tensor_of(solution.status)
    lost = status == NOT_FINITE
    return not bool((status > 0).any()) and bool((lost & tensor_of(solution.cost).isfinite()).any())


def by_differences(solve: Solve, asked: dict[str, Any]) -> Solution:
    """Solve by finite differences.

    Args:
        solve: `least_squares`.
        asked: its arguments, by name.

    Returns:
        The solution.
    """
    with np.errstate(all="ignore"):  # what the exact run has met is met again, on arrays
        return solve(**{**asked, "jac": "2-point", "compile": False})


def better(second: Solution, first: Solution) -> bool:
    """Whether a second run has more problems that came to an end than the first had."""
    ended = (tensor_of(one.status) > 0 for one in (second, first))
    others, own = (int(torch.count_nonzero(one)) for one in ended)
    return others > own


def _tell(solution: Solution) -> None:
    """Warn that finite differences serve, and say which residual has no finite derivatives."""
    place, jacobian = "", solution.jac
    if jacobian is not None:
        bad = ~tensor_of(jacobian).detach().isfinite().all(-1)
        if bool(bad.any()):
            row = int(bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[0])
            place = f", first of residual {row}"
    warnings.warn(
        f"the derivatives of fun are not finite{place}, where fun itself is, as with a power or a "
        'root of zero; finite differences serve, jac="2-point". A residual there that tells '
        "nothing may be left out, and derivatives are exact.",
        FallbackWarning,
        stacklevel=level(),
    )
