"""Residuals that are a table by mistake: a model's column (n, 1) less data (n,) is n × n.

NumPy and torch make that of the two without a word, and its minimum is the mean of the data.
"""

import torch
from torch import Tensor

from .._advice import of_columns
from ..core.bounds import Bounds
from ..residuals.probe import Probe
from .user_function import UserFunction

LEAST = 3  # rows: of smaller tables more are of this kind by chance
ASIDE = 0.1  # share of itself, or of 1, by which each parameter is moved
DIGITS = 100  # round-offs of the largest entry up to which what should be zero is


def warn_if_each_against_each(calling: UserFunction, probe: Probe, box: Bounds | None) -> bool:
    """Warn if the residuals are every prediction against every datum.

    Where all predictions are one number, as at a start of zeros, what tells is one evaluation
    beside the start.

    Args:
        calling: the function, which knows whether it has returned a table.
        probe: the facts about it.
        box: outside of which the function is not evaluated.

    Returns:
        Whether it has warned.
    """
    side, found = calling.side, probe.residual
    if side < LEAST or found is None or not probe.finite or calling.unknowns.batched:
        return False
    vary = _parts_vary(found, side)
    if vary is None or not any(vary):
        return False
    if not all(vary):
        x = calling.unknowns.start
        # each by a share of its own, lest predictions stay alike
        x = x + ASIDE * x.abs().clamp(min=1.0) * torch.arange(1, x.shape[-1] + 1).to(x)
        x = x if box is None else box.project(x)
        with torch.no_grad():
            moved = calling.residual(calling.unknowns.layout.split(x), *calling.shares)
        vary = _parts_vary(moved.detach(), side)
    if vary is None or not all(vary):
        return False
    of_columns(side)
    return True


def _parts_vary(residual: Tensor, side: int) -> tuple[bool, bool] | None:
    """Whether the column and the vector have entries that differ; None: it is no table of those."""
    table = residual.reshape(side, side)
    column, vector = table.mean(1, keepdim=True), table.mean(0, keepdim=True)
    tiny = DIGITS * torch.finfo(table.dtype).eps * table.abs().max()
    if not bool((table - column - vector + table.mean()).abs().max() <= tiny):
        return None
    return bool(column.max() - column.min() > tiny), bool(vector.max() - vector.min() > tiny)
