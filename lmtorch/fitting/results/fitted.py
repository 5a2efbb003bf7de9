"""What every part of a result needs: the inference behind it, and how its numbers are returned."""

from typing import Any

from torch import Tensor

from ..._arrays import to_array
from ..._errors import InputError
from ..inference.bands import Band
from ..inference.inference import Inference


class Fitted:
    """A fit, whose numbers are returned as ydata came: arrays, or tensors of its dtype."""

    _inference: Inference

    def _one(self, what: str) -> None:
        """Refuse what is of one fit where there are many."""
        if self._inference.lead:
            raise InputError(f"{what} is of one fit: choose it first, fit.at(index).{what}.")

    def _band(self, band: Band) -> Band:
        return Band(*(self._out(side) for side in band))

    def _out(self, value: Tensor) -> Any:
        """Convert a result to NumPy if ydata was, otherwise to the dtype of ydata."""
        data = self._inference.fitter.data
        return to_array(value) if data.numpy else value.to(data.y.dtype)

    def _number(self, value: Tensor) -> Any:
        if value.ndim == 0:
            return value.item()
        return to_array(value) if self._inference.fitter.data.numpy else value

    def _lead(self, value: Any) -> Any:
        return value.reshape(self._inference.lead) if self._inference.lead else value
