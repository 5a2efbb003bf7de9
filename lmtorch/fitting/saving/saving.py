"""Fits in files of JSON: what `save` writes.

A file has what was fitted and what came out, so that nothing has to be fitted again: names, values,
errors and covariance in front, for any reader of JSON; then the model, the data, the options, the
end of the minimisation, and the numbers that would otherwise be computed from its Jacobian.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._files import head_of
from ..._records import encoded
from ..inference.counting import CountedInference
from ..inference.goodness import STATISTICS
from ..inference.inference import Inference
from ..measurements.data import Data
from ..orthogonal.data import PointData
from .specs import (
    likelihood_record,
    model_record,
    options_record,
    ties_record,
)

# of a solution: not what is made when it is asked for, nor what was said on the way
ENTRIES = (
    "x", "cost", "optimality", "grad", "active_mask", "nfev", "njev", "calls", "message",
    "success", "promise", "lost", "f_scale", "eta", "curve", "normals",
)  # fmt: skip
KEPT = ("p", "slopes", "factor", "chisqr", "pcov")
OF_COUNTS = ("residual", "deviance_residual", "deviance", "loglikelihood")
DATA = ("x", "y", "weights", "root", "count", "total")


def record_of(fit: Any) -> dict[str, Any]:
    """A fit in the terms of JSON.

    Args:
        fit: a `CurveFit`.

    Returns:
        The record.

    Raises:
        InputError: a part of it cannot be written.
    """
    inference: Inference = fit._inference
    fitter, solution = inference.fitter, inference.solution
    parameters = fitter.parameters
    whole = _whole(inference)
    record = {
        **head_of(fit),
        "names": list(inference.names),
        "values": encoded(_numpy(inference.p)),
        "errors": encoded(_numpy(inference.stderr)),
        "covariance": encoded(_numpy(inference.pcov)),
        "message": solution.message,
        "notes": list(fit.notes),
        "statistics": {
            "ndata": encoded(_numpy(fitter.data.count.to(torch.int64))),
            "nvarys": inference.n,
            "nfree": encoded(_numpy(inference.freedom.to(torch.int64))),
            **{name: encoded(_numpy(getattr(inference, name))) for name in STATISTICS},
        },
        "model": model_record(fitter.model),
        "fixed": list(parameters.fixed),
        "ties": ties_record(parameters.ties),
        "transforms": encoded(dict(parameters.transforms)),
        "start": encoded(fitter.start),
        "bounds": encoded(list(fitter.bounds)),
        "options": options_record({"jac": fitter.jac, **fitter.options}),
        "likelihood": likelihood_record(fitter.likelihood),
        "absolute_sigma": inference.absolute,
        "robust": inference.loss is not None,
        "full_output": fit._full,
        "failed": fit._failed,
        "data": {
            **{name: encoded(getattr(fitter.data.unwritten(), name)) for name in DATA},
            "numpy": fitter.data.numpy,
            "each_x": fitter.data.each_x,
            "sizes": list(fitter.data.sizes),
        },
        "points": _points_record(fitter.data),
        "solution": _solution_record(inference, whole),
        "inference": {name: encoded(value) for name, value in whole.items() if name != "fun"},
    }
    return record


def _points_record(data: Data) -> dict[str, Any] | None:
    """What data with errors in x have beside others; None: they have none."""
    if not isinstance(data, PointData):
        return None
    return {name: encoded(getattr(data, name)) for name in PointData.more}


def _whole(inference: Inference) -> dict[str, Any]:
    """What follows from the Jacobian, of all fits, made in blocks where there are many."""
    parts = [] if "covariance" in vars(inference) or not inference.lead else inference.parts()

    def made(name: str) -> Tensor:
        if not parts:
            return getattr(inference, name)
        found = torch.cat([getattr(part, name) for part in parts])
        return found.reshape(*inference.lead, *found.shape[1:])

    covariances = [part.covariance for part in parts] or [inference.covariance]
    matrix, null = (
        torch.cat(sides) if parts else sides[0] for sides in zip(*covariances, strict=True)
    )
    shape = (*inference.lead, *matrix.shape[-2:])
    counted = OF_COUNTS if isinstance(inference, CountedInference) else ()
    found: dict[str, Any] = {name: made(name) for name in (*KEPT, *counted)}
    found |= {"covariance": matrix.reshape(shape), "null": null.reshape(shape)}
    found |= {name: getattr(inference, name) for name in inference.extras}
    if parts and inference.solution["fun"] is None:
        found["fun"] = torch.cat([tensor_of(part.solution.fun) for part in parts])
    return found


def _solution_record(inference: Inference, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The end of the minimisation; J of a single fit alone."""
    solution = inference.solution
    found = {name: solution[name] for name in ENTRIES if name in solution}
    found["fun"] = whole["fun"] if "fun" in whole else solution["fun"]
    status = solution["status"]
    found["status"] = int(status) if not inference.lead else status
    if not inference.lead and "jac" in solution:
        found["jac"] = solution["jac"]

    record = {name: encoded(value) for name, value in found.items()}
    return record | {"explanation": solution.explanation}


def _numpy(value: Tensor) -> Any:
    array = to_array(value)
    return array.item() if array.ndim == 0 else array
