"""Functions that are none: at the same parameters they return other residuals when called again.

Residuals of random numbers, of a counter or of data that are written to in place may lead to an
end that counts as a success, and says nothing. The gradient is not zero there, as it is at most
ends to the last digits: where it is not, one evaluation more is made.
"""

import torch
from torch import Tensor

from .._errors import stopped, warn_of_fit
from .._threads import quiet
from .ending import Ending
from .run import Run

# a cosine up to which an end is one that derivatives by differences have led to
OF_DIFFERENCES = 1e-3
MOST = 2**20  # residuals, which may not fit the memory at once
CHANGES = (
    "the function returned other residuals when it was called again at the same parameters, and "
    "the result is not to be trusted: it draws random numbers, counts its calls, keeps a state "
    "for the next, or writes into its data. Draw and copy outside of the function."
)


def warn_if_changing(run: Run, ending: Ending) -> None:
    """Warn if the function changes from call to call, where a success of one problem looks like it.

    Args:
        run: what was minimised.
        ending: where it ended.
    """
    found, x = ending.residual, ending.state.x
    if found is None or x.ndim > 1 or run.problem.across is not None or run.calling.targeted:
        return
    if x.device.type != "cpu" or run.probe.rows > MOST or run.calling.unit != 1:
        return
    near = run.problem.eps(x) ** 0.5
    exact = near if not run.probe.black_box else OF_DIFFERENCES
    if not (int(ending.state.status) > 0 and float(ending.cosine) > exact):
        return
    try:
        again = _residual(run, x)
        size = near * max(run.probe.size, float(again.abs().amax()))
        if _alike(again, found, size):
            return
        # round-off depends on the way, and the run may have gone another than a plain call
        if not run.probe.black_box and _alike(_residual(run, x), again, size):
            return
    except Exception as error:  # a look at a fit may not cost it
        if stopped(error):
            raise
        return
    warn_of_fit(CHANGES)


def _residual(run: Run, x: Tensor) -> Tensor:
    """What a plain call returns."""
    calling = run.calling.detached()
    shares = tuple(share[0] for share in calling.shares)
    with torch.no_grad(), quiet():
        return calling.residual(run.unknowns.layout.split(x.clone()), *shares).detach().clone()


def _alike(one: Tensor, other: Tensor, size: float) -> bool:
    return one.shape == other.shape and torch.allclose(
        one, other.to(one.dtype), rtol=0, atol=size, equal_nan=True
    )
