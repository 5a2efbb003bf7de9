"""The terms of a fitted sum of models."""

from typing import Any

from torch import Tensor

from ..._errors import InputError
from ...models.base import Model
from ..inference.inference import Inference
from ..measurements.curves import points_of
from ..models import Joint, OfNumbers


def components_at(inference: Inference, x: Any, place: int | None) -> dict[str, Tensor]:
    """Curves (..., k) of the terms by their labels, at x or at the data.

    Returns:
        Tensors.

    Raises:
        InputError: the model is no model of the library, or there is no such data set.
    """
    fitter, called = inference.fitter, inference.fitter.model
    names = list(called.names)
    function: Any = called.function if isinstance(called, OfNumbers) else None
    known = fitter.data.x
    if isinstance(called, Joint):
        if place is None or not 0 <= place < len(called.functions):
            raise InputError(
                f"there are {len(called.functions)} data sets: say which, "
                "fit.components(x, dataset=0)."
            )
        function, known = called.functions[place], known[place]
        names = [names[i] for i in called.picks[place]]
    if not isinstance(function, Model):
        raise InputError(
            "components are the terms of a sum of lmtorch.models: make the function one of them, "
            "models.from_function(f)."
        )
    if x is None:
        fitter.data.unwritten()
    points = known if x is None else points_of(x, known, fitter.data)[0]
    p = inference.p.detach()
    where = [inference.names.index(name) for name in names]
    return function.components(points, *(p[..., i] for i in where))
