"""Functions that are none: at the same parameters they return other residuals when called again.

Residuals of random numbers, of a counter or of data that are written to in place may lead to an
end that counts as a success, and says nothing; or to none, of which nobody sees why. The gradient
is not zero there, as it is at most ends to the last digits: where it is not, one evaluation more is
made, of a batch two of the problem where the gradient is largest.
"""

import torch
from torch import Tensor

from .._errors import stopped, warn_of_fit
from .._threads import quiet
from ..core.termination import Status
from .ending import Ending
from .run import Run

# a cosine up to which an end is one that derivatives by differences have led to
OF_DIFFERENCES = 1e-3
MOST = 2**20  # residuals, which may not fit the memory at once
# trials from which on to be out of evaluations is no wish of the user's
MANY = 100
CHANGES = (
    "the function returned other residuals when it was called again at the same parameters, and "
    "the result is not to be trusted: it draws random numbers, counts its calls, keeps a state "
    "for the next, or writes into its data. Draw and copy outside of the function."
)


def warn_if_changing(run: Run, ending: Ending) -> None:
    """Warn if the function changes from call to call, where an end looks like it.

    Args:
        run: what was minimised.
        ending: where it ended.
    """
    x = ending.state.x
    if run.starts > 1 or run.problem.across is not None or run.calling.targeted:
        return
    if x.device.type != "cpu" or run.probe.rows > MOST or run.calling.unit != 1:
        return
    near = run.problem.eps(x) ** 0.5
    which = _strangest(ending, near if not run.probe.black_box else OF_DIFFERENCES)
    if which is None:
        return
    try:
        again = _residual(run, x.reshape(-1, x.shape[-1])[which], which)
        size = near * max(run.probe.size, float(again.abs().amax()))
        found = ending.residual if x.ndim == 1 else None
        if found is not None and _alike(again, found, size):
            return
        # round-off depends on the way, and the run may have gone another than a plain call
        if found is None or not run.probe.black_box:
            other = _residual(run, x.reshape(-1, x.shape[-1])[which], which)
            if _alike(other, again, size):
                return
    except Exception as error:  # a look at a fit may not cost it
        if stopped(error):
            raise
        return
    warn_of_fit(CHANGES)


def _strangest(ending: Ending, near: float) -> int | None:
    """The problem whose end looks most like that of a function that changes; None: no one's does.

    Args:
        ending: where the problems ended.
        near: the cosine that ends of functions have at most.

    Returns:
        Its place in the batch, zero for one problem.
    """
    status, cosine = ending.state.status.reshape(-1), ending.cosine.reshape(-1)
    chosen = (status == Status.STOPPED) | (status == Status.EVALUATIONS)
    chosen = chosen & (ending.state.trials.reshape(-1) < MANY)
    strange = torch.where(status > 0, cosine > near, ~chosen)
    if not bool(strange.any()):
        return None
    # a success that is none comes before a failure, which says at least that it is one
    rank = cosine.nan_to_num(nan=0.0) + 2.0 * (status > 0)
    return int(torch.where(strange, rank, -1.0).argmax())


def _residual(run: Run, x: Tensor, which: int) -> Tensor:
    """What a plain call returns for one of the problems."""
    calling = run.calling.detached()
    shares = tuple(share[which] for share in calling.shares)
    with torch.no_grad(), quiet():
        return calling.residual(run.unknowns.layout.split(x.clone()), *shares).detach().clone()


def _alike(one: Tensor, other: Tensor, size: float) -> bool:
    return one.shape == other.shape and torch.allclose(
        one, other.to(one.dtype), rtol=0, atol=size, equal_nan=True
    )
