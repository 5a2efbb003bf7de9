"""x of the shape of y: a row for each fit, or the variables of a function of several.

Curves that have been measured at points of their own have an x of the shape of y. As many curves as
a function has variables, (2, m) both, look the same; then the function takes its rows apart, and of
one row it makes one number, which fits as a constant does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import to_array
from ..._errors import InputError
from ..._threads import quiet
from ..models import Model
from .data import Data

MEANT = (
    "As xdata has the shape of ydata, {shape}, every row of ydata is fitted along its own row of "
    "xdata{seen}. If the rows of xdata are the variables of f, give each_x=False; then each row of "
    "ydata is a fit. Several responses of one fit are data sets: curve_fit([f1, f2], [xdata, "
    "xdata], list(ydata), shared=[names])."
)


def check_rows(model: Model, data: Data, start: Tensor) -> None:
    """Refuse a function of whole xdata where fits would have a row of it each.

    Args:
        model: the user's function.
        data: of a batch whose x were taken for their own.
        start: of the parameters, (P,) or (..., P).

    Raises:
        InputError: of one row f returns a number, and of all rows a curve.
    """
    p = start.detach().reshape(-1, start.shape[-1])[0]
    rows = data.x.detach()
    row = rows.reshape(-1, data.m)[0]
    if data.m > 1 and _count(model, row, p) == (1,) and _count(model, rows, p)[-1:] == (data.m,):
        seen = f", and f makes one number of a row and {data.m} of all"
        raise InputError(MEANT.format(shape=tuple(rows.shape), seen=seen))


def _count(model: Model, x: Tensor, p: Tensor) -> tuple[int, ...]:
    """The shape of what f returns, (1,) of a number; (): it refuses."""
    for given in ((x, p), (to_array(x), to_array(p))):  # it may take arrays
        try:
            with torch.no_grad(), np.errstate(all="ignore"), quiet():
                found: Any = model(*given)
            return tuple(np.shape(found)) or (1,)
        except Exception:  # whatever it is: the fit itself says what is wrong
            continue
    return ()


@contextmanager
def of_rows(data: Data) -> Iterator[None]:
    """Note on an error of f, or of what it returned, that it was given rows of xdata.

    Raises:
        ValueError: f or what reads its curve raised it.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        if "values to unpack" in said or said.startswith("f returned"):
            error.add_note(MEANT.format(shape=tuple(data.x.shape), seen=""))
        raise
