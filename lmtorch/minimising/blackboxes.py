"""Black boxes: values are remembered, and the first ones tell how long differences must be."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .._errors import as_raised
from ..choose import Options
from ..damping.scaling import FixedScale
from ..jacobians.finite_difference import FiniteDifference
from ..jacobians.given import GivenJacobian
from ..residuals.probe import Probe
from .problems import ProblemsResidual
from .user_function import UserFunction
from .values_at_points import ValuesAtPoints

JACOBIANS = 4  # a single problem's evaluations of so many Jacobians are remembered
# evaluations that are remembered at least: what a doubt about the end asks for where n <= 8, see
# core/curvature.py
LATEST = 48
NUMBERS = 2**22  # numbers that are remembered at most, unless the Jacobians have more
# the dtype of models that compute in it without showing it: JAX unless told otherwise, and casts
MEASURE = torch.float32
# relative moves: far below the ε of `MEASURE`, and well above it
FINE, COARSE = (torch.finfo(torch.float64).eps ** 0.75, torch.finfo(MEASURE).eps ** 0.5)


def remembering(
    residual: ProblemsResidual, options: Options, calling: UserFunction, probe: Probe, x: Tensor
) -> ProblemsResidual:
    """Give a black box a memory, which already holds its value at the start of the first problem.

    Tensors on a device get none: to compare points would wait for the device at every evaluation.
    """
    source, n = options.jacobian, residual.layout.n
    on_host = calling.arrays or calling.unknowns.start.device.type == "cpu"
    if not (
        residual.black_box and isinstance(source, FiniteDifference | GivenJacobian) and on_host
    ):
        return residual
    each = 1 + (source.evaluations(n) if isinstance(source, FiniteDifference) else 0)
    if residual.batched:
        memory = ValuesAtPoints(0, 2 * each)
    else:
        memory = ValuesAtPoints(each, max(JACOBIANS * each, min(LATEST, NUMBERS // residual.rows)))
    if residual.looped or not residual.batched:
        value = probe.residual
        assert value is not None
        value = value if calling.unit == 1 else value * calling.unit
        memory(residual.call, 0, residual.params(x[0] if x.ndim > 1 else x), lambda: value)
    return replace(residual, memory=memory, numbers=tuple(range(len(x))) if x.ndim > 1 else ())


@as_raised
def looked_at(
    residual: ProblemsResidual, source: FiniteDifference, x: Tensor, probe: Probe, scaling: Any
) -> tuple[Probe, ProblemsResidual]:
    """Learn from the first differences how large parameters are and how coarsely residuals round.

    The evaluations are those of the first Jacobian, so that they cost nothing.

    Returns:
        The probe with the precision that was seen, and the residual with it and with the sizes.
    """
    guess = x.abs()
    if isinstance(scaling, FixedScale):  # 1 is scipy's default, and says nothing
        typical = torch.where(scaling.scale == 1, 0.0, 1 / scaling.scale).to(x)
        guess = torch.where(x == 0, typical, guess)
    residual = replace(residual, sizes=guess)
    sizes, rough = _look(residual, source, x)
    double = torch.float64
    if rough and probe.precision == double and _coarse(replace(residual, sizes=sizes), x):
        probe = probe._replace(precision=MEASURE)
        residual = replace(residual, precision=MEASURE)
        sizes, _ = _look(residual, source, x)
    return probe, replace(residual, sizes=sizes)


def _look(residual: ProblemsResidual, source: FiniteDifference, x: Tensor) -> tuple[Tensor, bool]:
    (part,) = residual.parts()
    with torch.no_grad():
        return source.look(part, residual.params(x))


def _coarse(residual: ProblemsResidual, x: Tensor) -> bool:
    """Whether moves far below the ε of single precision change nothing, and moves of ε^½ do.

    Reference: Moré & Wild, Estimating computational noise (2011), on moves far below the noise.
    """
    (part,) = residual.parts()
    assert residual.sizes is not None
    size = torch.maximum(x.abs(), residual.sizes)

    def changed(share: float) -> Tensor:
        moved = x + share * size
        if residual.box is not None:
            moved = torch.minimum(torch.maximum(moved, residual.box[0]), residual.box[1])
        return part.function(residual.params(moved)) != here

    with torch.no_grad():
        here = part.function(residual.params(x))
        coarse, fine = changed(COARSE), changed(FINE)
    return bool((coarse & ~fine).sum() > coarse.sum() / 2)
