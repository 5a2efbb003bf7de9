"""What follows from a fit, from the record of it that `saving` has made."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from ..._arrays import tensor_of, to_array
from ..._errors import InputError, level
from ..._records import decoded
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
from ..orthogonal.fitter import OrthogonalFitter
from ..orthogonal.inference import OrthogonalInference
from ..parameters import Parameters
from .saving import DATA
from .specs import Code, likelihood_from, model_from, options_from, ties_from, unsaved_in
from .unsaved import Unsaved

# what comes of entries of another kind or size than was written
DAMAGE = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError,
          RuntimeError)  # fmt: skip


def inference_of(
    record: Mapping[str, Any], f: Any, *, imports: bool, device: Any, told: bool
) -> Inference:
    """What follows from a fit, by its record, and by its function if that is still the same.

    Args:
        record: as `read` gives it.
        f: the user's function; None: that of the record.
        imports: whether modules may be imported.
        device: of tensors.
        told: whether a warning says what is missing.

    Returns:
        The inference.

    Raises:
        InputError: the record is damaged, or f is of another fit.
    """
    found = Code(f, imports, [])
    with undamaged():
        inference = inference_from(record, found, device)
        wrong = check(inference)
    if wrong:
        if f is not None:
            raise InputError(f"f is not the function of this fit: {wrong}.")
        path = record["model"].get("function", {}).get("path", "one of the functions")
        found = Code(None, False, [])
        found = found._replace(why=f"{path} is not what it was: {wrong}")
        inference = inference_from(record, found, device)
    if told and found.lost:
        warnings.warn(f"{'; '.join(found.lost)}.", UserWarning, stacklevel=level())
    return inference


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
