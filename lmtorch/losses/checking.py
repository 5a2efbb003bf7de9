"""Holds a criterion of the user's to itself, once: its slope to its cost, its root to both.

A wrong slope leads elsewhere, and a wrong root is slow, or makes wrong errors of parameters:
neither would show. Ours are held to torch's own losses by the tests.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._errors import InputError
from .base import shortest

LOOKED_AT = 8  # samples
STEP = 1e-4  # of differences, relative; half of the digits of the cost's third root remain
AGREE = 1e-3  # relative difference that is allowed
STRAIGHT = 0.1  # share of a difference by which those of both sides may differ
SMOOTH = 1e-4  # by which differences of two lengths may differ where the cost has no corner


def check_own(criterion: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> None:
    """See whether slope and root of a criterion are those of its cost, at some outputs (s, k).

    Raises:
        InputError: a shape is wrong, the slope is not that of the cost, or the root is none.
    """
    if type(criterion).__module__.split(".")[0] == "lmtorch":
        return
    chosen = torch.linspace(0, len(outputs) - 1, min(len(outputs), LOOKED_AT)).long()
    chosen = chosen.to(outputs.device)
    outputs, targets = outputs[chosen], tuple(target[chosen] for target in targets)
    name = type(criterion).__name__
    found = criterion.slope(outputs, *targets), criterion.root(outputs, *targets)
    slope, root = (one.to(outputs.dtype) for one in found)
    s, k = outputs.shape
    if tuple(slope.shape) != (s, k):
        raise InputError(
            f"{name}.slope returned {tuple(slope.shape)} for outputs {(s, k)}: it is the "
            "derivative of the cost in each output."
        )
    if tuple(root.shape) not in ((s, k), (s, k, k)):
        raise InputError(
            f"{name}.root returned {tuple(root.shape)} for outputs {(s, k)}: a diagonal root is "
            f"{(s, k)}, and a matrix for each sample {(s, k, k)}."
        )
    _check_slope(criterion, outputs, targets, slope)
    _check_root(criterion, outputs, targets, slope, root)


class _Moved(NamedTuple):
    """The cost on both sides of an output, and its slope by their difference, (s,) each."""

    ahead: Tensor
    behind: Tensor
    slope: Tensor


def _moved(
    criterion: Any, outputs: Tensor, targets: tuple[Tensor, ...], column: int, by: Tensor
) -> _Moved:
    move = torch.zeros_like(outputs)
    move[:, column] = by
    ahead, behind = (_each(criterion, outputs + sign * move, targets) for sign in (1.0, -1.0))
    return _Moved(ahead, behind, (ahead - behind) / (2 * by))


def _check_slope(
    criterion: Any, outputs: Tensor, targets: tuple[Tensor, ...], slope: Tensor
) -> None:
    """Compare the slope with differences of the cost, where these show no corner."""
    size, here = outputs.abs().clamp(min=1e-3), _each(criterion, outputs, targets)
    for column in range(outputs.shape[-1]):
        near, far = (
            _moved(criterion, outputs, targets, column, share * STEP * size[:, column])
            for share in (0.5, 1.0)
        )
        expected, rough = near.slope, far.slope
        noise = here.abs() * 1e-15 / (STEP * size[:, column])
        sized = expected.abs() + slope[:, column].abs()
        smooth = (rough - expected).abs() <= SMOOTH * sized + noise
        # on top of a corner, or of a minimum, the differences of both sides are of another sign
        bend = near.ahead - 2 * here + near.behind
        smooth &= bend.abs() <= STRAIGHT * (near.ahead - near.behind).abs()
        apart = (slope[:, column] - expected).abs() > AGREE * sized + 10 * noise
        wrong = apart & smooth & expected.isfinite()
        if bool(wrong.any()):
            place = int(wrong.nonzero()[0])
            raise InputError(
                f"{type(criterion).__name__}.slope is not the derivative of its cost: at the "
                f"outputs {outputs[place].tolist()} it gives {float(slope[place, column]):.6g} in "
                f"output {column}, and differences of cost {float(expected[place]):.6g}."
            )


def _check_root(
    criterion: Any, outputs: Tensor, targets: tuple[Tensor, ...], slope: Tensor, root: Tensor
) -> None:
    """See that no slope is lost, and that it is the root and not the curvature."""
    name, diagonal = type(criterion).__name__, root.ndim == outputs.ndim
    matrix = torch.diag_embed(root) if diagonal else root
    solved = criterion.residual(outputs, *targets)
    if solved is None:
        solved = shortest(matrix.mT, slope)
    back = (matrix.mT @ solved[..., None])[..., 0]
    lost = (back - slope).abs() > AGREE * slope.abs().amax(-1, keepdim=True)
    if bool((lost & back.isfinite() & slope.isfinite()).any()):
        raise InputError(
            f"{name}.root is zero in a direction in which the cost has a slope, and that part of "
            "the slope would be lost. Keep RᵀR well above zero there, as by its expectation."
        )
    try:
        curvature = criterion.curvature(outputs, *targets)
    except RuntimeError:  # a cost that torch cannot differentiate twice
        return
    alike = torch.isclose(matrix, curvature, rtol=1e-9, atol=0).all()
    root_of_it = torch.isclose(matrix.mT @ matrix, curvature, rtol=1e-6, atol=0).all()
    if bool(alike & ~root_of_it):
        raise InputError(
            f"{name}.root returned the second derivative of the cost: return R with RᵀR equal to "
            "it, of a diagonal one the square root."
        )


def _each(criterion: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
    """The cost of each sample, (s,)."""
    found: Tensor = criterion.cost(outputs, *targets)
    return found.sum(-1) if found.ndim > 1 else found
