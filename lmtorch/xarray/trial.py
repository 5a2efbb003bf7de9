"""Options of `curve_fit`, tried before any block is: what is wrong with them is told at once."""

import warnings
from typing import Any

import numpy as np
import torch

from .._errors import InputError
from ..fitting.curve_fit import curve_fit
from .task import Named, Task


def try_options(task: Task) -> None:
    """Fit a few made-up points with the options of a task, and with another function than its own.

    Where blocks run later or elsewhere, a wrong option would be told there, by each of them.

    Raises:
        InputError: the options cannot work, whatever the data are.
    """
    count = len(task.names)
    options = dict(task.options)
    if options.get("compile") in (True, "auto"):
        del options["compile"]
    if callable(options.get("jac")):  # it is of the user's function
        del options["jac"]
    options.setdefault("max_nfev", 3)
    y = np.ones((2, count + 3))
    for kind in ("sigma", "total_count"):
        if (kind, "") in task.fields:
            options[kind] = np.ones_like(y)
    if task.bounds:
        options["bounds"] = task.bounds
    func = Named(_smooth, task.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            curve_fit(func, np.linspace(0, 1, count + 3), y, task.start or None, **options)
        except InputError:
            raise
        except Exception:  # of a fit that fails, which tells nothing of another
            return


def _smooth(x: Any, *values: Any) -> Any:
    """Between 0.1 and 0.9 whatever the parameters are, as means of counts and shares must be."""
    waves = [torch.sin(value) * torch.cos(k * x) for k, value in enumerate(values)]
    return 0.5 + 0.4 / len(waves) * sum(waves)
