"""What is seen at the start of a fit with errors in x: whether f may be fitted so at all."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..._errors import InputError
from ...minimising.user_function import UserFunction
from .fitter import OrthogonalFitter

COUPLED = 1e-6  # share of the change of values that others may show, whose x are not moved
DIFFERENT = 1e-3  # of the largest derivative: by so much the user's may differ from differences


def check_apart(
    calling: UserFunction, theta: Tensor, shares: tuple[Tensor, ...], each: int
) -> None:
    """See at the start of the first fit whether each value of f depends on its own x alone.

    Raises:
        InputError: it does not.
    """
    eta, *others = (share[0] for share in shares)
    # a half of the points without an order, so that no shift of points stays within a half
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(eta.shape[-1], generator=generator, device="cpu")
    moved = (order % 2 == 0).to(eta.device)
    with torch.no_grad():
        here, there = [
            calling.residual((theta,), one, *others) for one in (eta, eta + moved.to(eta))
        ]
    change, moved = (there - here).abs(), moved.repeat(each)
    noise = 1e3 * torch.finfo(here.dtype).eps * here.abs().amax()
    if bool((change[~moved] > COUPLED * change[moved].nan_to_num(0.0, 0.0).amax() + noise).any()):
        raise InputError(
            "values of f change where the x of other points are moved, as by x.mean() in f. With "
            "errors in x each value may depend on its own x alone: compute such numbers before."
        )


def check_given(
    fitter: OrthogonalFitter,
    calling: UserFunction,
    rows: Callable[..., Tensor],
    theta: Tensor,
    shares: tuple[Tensor, ...],
) -> None:
    """Hold the user's derivatives to differences of f at the start, of the first fit.

    Raises:
        InputError: they are far apart.
    """
    first, k = [share[0] for share in shares], fitter.data.predictors
    with torch.no_grad():
        given = rows((theta,), *first)
        x, spread = first[1], first[2]
        # τ moves x by T τ: a step that x resolves
        reach = float(x.abs().amax() / spread.amax()) if float(spread.amax()) > 0 else 1.0
        step = torch.finfo(theta.dtype).eps ** (1 / 3)
        sizes = theta.abs().clamp(min=1.0)
        sizes[-k:] = max(1.0, reach)
        for column, length in enumerate((step * sizes).tolist()):
            move = torch.zeros_like(theta)
            move[column] = length
            ahead, behind = (calling.residual((theta + sign * move,), *first) for sign in (1, -1))
            found = (ahead - behind) / (2 * length)
            noise = 100 * torch.finfo(theta.dtype).eps * (ahead.abs() + behind.abs()) / length
            apart = (given[:, column] - found).abs()
            wrong = apart > DIFFERENT * found.abs().amax() + noise
            if bool(wrong.any()):
                place = int(torch.where(wrong, apart, 0.0).nan_to_num().argmax())
                names = fitter.parameters.variables
                n = len(names)
                which = f"jac[0], in {names[column]!r}," if column < n else (
                    "jac[1]" if k == 1 else f"jac[1], in x[{column - n}],"
                )  # fmt: skip
                raise InputError(
                    f"{which} is not the derivative of f: in the units of the errors it is "
                    f"{float(given[place, column]):.6g} at point {place % fitter.data.points}, and "
                    f"differences of f give {float(found[place]):.6g}."
                )
