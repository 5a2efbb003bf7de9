"""What is said where every fit of an array has failed, and nothing of it was raised.

That one pixel of a million fails is its status. That all do is a mistake in the call, and a map of
NaN says too little of it.
"""

from collections.abc import Container, Sequence

import numpy as np
import xarray as xr

from .._errors import warn_of_fit
from .blocks import failed
from .reading import Stack
from .variables import EMPTY, words


def tell_of_none(stacks: Sequence[Stack], result: xr.Dataset) -> None:
    """Warn of arrays of pixels of which none has succeeded; what Dask holds is not known yet.

    Args:
        stacks: what was fitted.
        result: what came of it.
    """
    for stack in stacks:
        status = result[f"{stack.name}_curvefit_status" if stack.name else "curvefit_status"]
        if status.chunks is not None or not status.ndim:  # the status of one is seen
            continue
        found = status.to_numpy().reshape(-1)
        found = found[found != EMPTY]
        if not len(found) or not failed(found).all():
            continue
        kinds, counts = np.unique(found, return_counts=True)
        most = words(int(kinds[counts.argmax()]))
        of = f" of {stack.name!r}" if stack.name else ""
        warn_of_fit(
            f"none of {len(found)} fits{of} has succeeded; most: {most}"
            f"{_exchanged(stack.task.names, stack.data.coords)}. errors='raise' stops at the first."
        )


def _exchanged(names: Sequence[str], coords: Container[object]) -> str:
    """What is said of parameters that are called as a coordinate is."""
    same = [name for name in names if name in coords]
    if not same:
        return ""
    return (
        f". {', '.join(map(repr, same))} is a parameter of the function and a coordinate as well: "
        "the function takes the coordinates first, f(x, a, b)"
    )
