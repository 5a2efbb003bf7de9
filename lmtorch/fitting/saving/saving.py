"""Fits in files of JSON: what `save` writes and `load` reads.

A file has what was fitted and what came out, so that nothing has to be fitted again: names, values,
errors and covariance in front, for any reader of JSON; then the model, the data, the options, the
end of the minimisation, and the numbers that would otherwise be computed from its Jacobian.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ..._files import head_of
from ..._records import decoded, encoded
from ...core.termination import Status
from ...losses.robust import Robust
from ...minimising.solution import Solution
from ..fitter import Fitter
from ..inference.counting import CountedInference
from ..inference.covariance import Covariance
from ..inference.inference import Inference
from ..inference.rho import robust_of
from ..measurements.data import Data
from ..orthogonal.data import PointData
from ..orthogonal.fit import OrthogonalInference
from ..orthogonal.fitter import OrthogonalFitter
from ..parameters import Parameters
from .specs import (
    Code,
    likelihood_from,
    likelihood_record,
    model_from,
    model_record,
    options_from,
    options_record,
    ties_from,
    ties_record,
    unsaved_in,
)
from .unsaved import Unsaved

STATISTICS = (
    "chisqr", "redchi", "deviance", "loglikelihood", "rsquared", "aic", "bic", "pvalue",
)  # fmt: skip
# of a solution: not what is made when it is asked for, nor what was said on the way
ENTRIES = (
    "x", "cost", "optimality", "grad", "active_mask", "nfev", "njev", "calls", "message",
    "success", "promise", "lost", "f_scale", "eta", "curve", "normals",
)  # fmt: skip
KEPT = ("p", "slopes", "factor", "chisqr", "pcov")
OF_COUNTS = ("residual", "deviance_residual", "deviance", "loglikelihood")
# what comes of entries of another kind or size than was written
DAMAGE = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError,
          RuntimeError)  # fmt: skip
DATA = ("x", "y", "weights", "root", "count", "total")


# ---- from a fit to a record ----------------------------------------------------------------------


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


# ---- and back ------------------------------------------------------------------------------------


@contextmanager
def undamaged() -> Iterator[None]:
    """Word what entries of another kind or size than was written lead to.

    Raises:
        InputError: the record is damaged.
        OutOfMemoryError: torch's own.
    """
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except DAMAGE as error:
        raise InputError(f"the file is damaged, or was changed by hand: {error!r}.") from error


def inference_from(record: Mapping[str, Any], code: Code, device: Any) -> Inference:
    """What follows from a fit, as its record has it.

    Args:
        record: as from `read`.
        code: what there is beside it.
        device: of the tensors; None: the CPU.

    Returns:
        The inference.

    Raises:
        InputError: the code is of another fit. What a damaged record raises, `undamaged` words.
    """
    device = None if record["data"]["numpy"] else device

    def read(value: Any) -> Any:
        return decoded(value, device)

    of_data = {name: read(record["data"][name]) for name in DATA} | {
        "numpy": record["data"]["numpy"],
        "each_x": record["data"]["each_x"],
        "sizes": tuple(record["data"]["sizes"]),
    }
    names = list(record["names"])
    parameters = Parameters(
        names,
        tuple(record["fixed"]),
        ties_from(record["ties"], code),
        read(record["transforms"]),
    )
    model = model_from(record["model"], code)
    options = options_from(record["options"], code)
    jac = options.pop("jac", None)
    likelihood = likelihood_from(record["likelihood"], code)
    lower, upper = read(record["bounds"])
    rest = (read(record["start"]), (lower, upper), jac, options, likelihood)
    orthogonal, fitter = None, Fitter(model, parameters, Data(**of_data), *rest)
    if record["kind"] == "OrthogonalFit":
        of_data |= {name: read(value) for name, value in record["points"].items()}
        orthogonal = OrthogonalFitter(model, parameters, PointData(**of_data), *rest)
    ended = dict(record["solution"])
    told = ended.pop("explanation")
    entries = {name: read(value) for name, value in ended.items()}
    if not fitter.data.lead:
        entries["status"] = Status(entries["status"])
    solution = Solution(**entries, history=None, starts=None)
    if told is not None:
        solution.explained(partial(str, told))
    known = {name: read(value) for name, value in record["inference"].items()}
    known["covariance"] = Covariance(known["covariance"], known.pop("null"))
    absolute, loss = record["absolute_sigma"], _loss(record, options)
    if orthogonal is not None:
        found: Inference = OrthogonalInference(orthogonal, solution, absolute, None)
    elif likelihood is not None:
        found = CountedInference(fitter, solution)
    else:
        found = Inference(fitter, solution, absolute, loss)
    return found.keep(known, code.lost)


def _loss(record: Mapping[str, Any], options: Mapping[str, Any]) -> Robust | None:
    """The robust loss of the options, or what stands in for it."""
    if not record["robust"]:
        return None
    if isinstance(options.get("loss", None), str):
        return robust_of(options)
    given = options.get("loss")
    if given is None or isinstance(given, Unsaved):
        return Robust(Unsaved("the loss", "it was saved without its code"))
    return robust_of(options)


def check(inference: Inference) -> str:
    """See whether the model gives the curve that was saved.

    Args:
        inference: of a fit that was read.

    Returns:
        What is wrong; empty if nothing is, or if there is no model.
    """
    if unsaved_in(inference.fitter.model):
        return ""
    one = inference
    if inference.lead:  # the first that has a minimum tells
        good = np.flatnonzero(to_array(tensor_of(inference.solution.success)))
        if not good.size:
            return ""
        place = np.unravel_index(int(good[0]), inference.lead)
        one = inference.at(tuple(map(int, place)))
    try:
        now = one.again().double()
    except Exception as error:  # the user's function may raise anything
        return f"it cannot be evaluated at the data: {type(error).__name__}: {error}"
    then = one.curve.double()
    kept = then.isfinite()
    size = then[kept].abs().amax() if bool(kept.any()) else then.new_zeros(())
    apart = (now - then)[kept].abs().amax() if bool(kept.any()) else then.new_zeros(())
    close = torch.finfo(one.fitter.data.y.dtype).eps ** 0.5
    if bool(apart <= close * size) or not bool(kept.any()):
        return ""
    return f"at the data it differs by up to {float(apart):.3g} from the curve that was saved"
