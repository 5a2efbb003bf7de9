"""Whether fits pass their data by, at a minimum beside a lower one or for want of a term.

Such an end is a true minimum, and its errors look like any others. What tells is the order of the
residuals: they keep their sign along x, and a smooth curve through them would explain a good part
of what the data vary by.

Real data never have quite the shape of a model, and that is in `notes`. A warning has what leaves
a large part of the data without an explanation.
"""

from typing import Any

from torch import Tensor

from ..._arrays import tensor_of
from ..inference.runs import runs_of
from ..inference.selection import of_some
from .runaways_of_many import silent

# share of the squares about a constant that a fit leaves, and a smooth curve would explain
LARGE = 0.1
SAMPLE = 256  # fits of a batch that are looked at
SHARE = 0.02  # of these, beyond which the user is told: twenty times what chance does
ADVICE = (
    "would explain {share} what the data vary by. Another start (p0, n_starts) may end "
    "at a lower minimum, or the model lacks a term"
)


def passed_by(inference: Any, constants: Tensor | None = None) -> str:
    """What is said of fits by squares that pass their data by.

    Args:
        inference: of a fit, or of a batch. Of a robust loss or a likelihood nothing is said.
        constants: of a batch, the squares about a constant, halved, (b,); None: nothing is said.

    Returns:
        A sentence; empty: they do not.
    """
    if inference.loss is not None or inference.fitter.likelihood is not None:
        return ""
    if inference.lead:
        return "" if constants is None or silent() else _of_many(inference, constants)
    missed = 1 - float(inference.rsquared.detach())
    if not (missed > LARGE and inference.solution.success):
        return ""
    runs = inference.run
    share = missed * float(runs.smooth)
    if not (share > LARGE and bool(runs.patterned)):
        return ""
    return (
        f"the curve passes the data by: {inference.told_of_runs()}, and a smooth curve through the "
        f"residuals {ADVICE.format(share=_told(share))}; plot() shows it."
    )


def _told(share: float) -> str:
    return f"another {share:.0%} of" if share < 1 else "as much as"  # a constant would do better


def _of_many(inference: Any, constants: Tensor) -> str:
    """As `passed_by`, of those fits of a batch that leave much, or of a sample of them."""
    solution, data = inference.solution, inference.fitter.data
    missed = tensor_of(solution.cost).detach().reshape(-1) / constants.detach().reshape(-1)
    left = ((missed > LARGE) & (tensor_of(solution.status).reshape(-1) > 0)).nonzero()[:, 0]
    if not len(left):
        return ""
    rows = left[:: -(-len(left) // SAMPLE)]
    runs = runs_of(data.some(rows), of_some(solution, "fun", rows))
    share = missed[rows] * runs.smooth
    found = runs.patterned & (share > LARGE)
    if not int(found.sum()) > SHARE * len(rows):
        return ""
    of = f"{len(missed)} fits"
    if len(rows) < len(left):
        of = f"{len(rows)} fits that were looked at"
    middle = _told(float(share[found].median()))
    return (
        f"of {of} {int(found.sum())} pass their data by: their residuals keep their sign along "
        f"x (fits.runs_pvalue is below 0.001), and a smooth curve through them "
        f"{ADVICE.format(share=middle)}. fits.at({int(rows[found][0])}) is one of them."
    )
