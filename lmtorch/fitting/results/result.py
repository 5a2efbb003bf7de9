"""The result of a curve fit: parameters with their errors, predictions, goodness of fit."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from ..._errors import InputError
from ..._names import meant
from ..inference.inference import Inference
from ..measurements.coarse_data import warn_if_beyond
from ..models import by_name
from ..saving.reading import inference_of
from ..saving.saving import record_of
from ..saving.specs import has_nameless_code
from .predictions import Predictions
from .statistics import Statistics
from .views import Views


class CurveFit(Statistics, Predictions, Views):
    """The result of `curve_fit`: unpacks to `popt, pcov`, and knows the parameters' names.

    Results are NumPy arrays if ydata was one, and tensors on the device of ydata if it was a
    tensor. If ydata has leading dimensions, so has every result; `fit.at(i)` is a single fit.

    Attributes:
        names: the names of the parameters, in the order of popt.
        popt: the values of the parameters (..., P), including fixed and tied ones.
        solution: what `least_squares` found, in the variables that were fitted.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> t = np.linspace(0, 4, 40)
        >>> rng = np.random.default_rng(0)
        >>> y = 2.5 * np.exp(-1.3 * t) + 0.02 * rng.standard_normal(40)
        >>> def decay(t, amplitude, rate):
        ...     return amplitude * torch.exp(-rate * t)
        >>> fit = lmtorch.curve_fit(decay, t, y)
        >>> popt, pcov = fit
        >>> popt.shape, pcov.shape, fit.success
        ((2,), (2, 2), True)
        >>> bool(abs(fit["rate"] - 1.3) < 3 * fit.stderr[1])
        True
    """

    def __init__(
        self,
        inference: Inference,
        *,
        full_output: bool = False,
        failed: bool = False,
        popt: Any = None,
    ) -> None:
        self._inference = inference
        self._full = full_output
        self._failed = failed
        self.solution = inference.solution
        self.names = inference.names
        self.popt = self._out(inference.p) if popt is None else popt

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the fit; what cannot be imported where it is read is left out, as by `save`."""
        if not has_nameless_code(self._inference.fitter):
            return super().__reduce_ex__(protocol)
        return _unpickled, (type(self), record_of(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy; numbers that carry a graph are shared, as torch copies none of them."""
        inference, data = self._inference, self._inference.fitter.data
        for part in (vars(self), vars(inference), vars(data), dict(inference.solution)):
            shared = (v for v in part.values() if isinstance(v, Tensor) and not v.is_leaf)
            memo.update((id(value), value) for value in shared)
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(deepcopy(vars(self), memo))
        return twin

    # ---- as scipy's tuple ------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Unpack to popt, pcov; with full_output also to infodict, mesg, ier."""
        yield from self._tuple()

    def __len__(self) -> int:
        """The length of the tuple that scipy would return."""
        return len(self._tuple())

    def __getitem__(self, key: Any) -> Any:
        """The value of a parameter by its name, or an item of scipy's tuple by its number."""
        if isinstance(key, str):
            if key not in self.names:
                follows = f" It is derived: fit.derived[{key!r}]." if key in self.derived else ""
                raise InputError(
                    f"there is no parameter {key!r}: {self.names}."
                    f"{follows or meant([key], self.names)}"
                )
            return by_name(self.names, self.popt)[key]
        return self._tuple()[key]

    def _tuple(self) -> tuple[Any, ...]:
        if not self._full:
            return self.popt, self.pcov
        info = {"nfev": self.nfev, "fvec": self.solution.fun, "fjac": self.solution.jac}
        return self.popt, self.pcov, info, self.message, self.solution.status

    @property
    def params(self) -> dict[str, Any]:
        """Values by name; those of a module or dict have their shapes, for `load_state_dict`."""
        return self._inference.fitter.model.named(self.popt)

    @property
    def errors(self) -> dict[str, Any]:
        """Standard errors by name, in the form of `params`."""
        return self._inference.fitter.model.named(self.stderr)

    # ---- how it ended ----------------------------------------------------------------------------

    @property
    def success(self) -> Any:
        """Whether a minimum was found, (...,) bool."""
        return self._lead(self.solution.success)

    @property
    def status(self) -> Any:
        """How the fit ended: a `Status`, or for a batch their numbers (...,)."""
        return self._lead(self.solution.status)

    @property
    def message(self) -> Any:
        """The status in words; for a batch a list."""
        return self.solution.message

    @property
    def nfev(self) -> Any:
        """How often the residuals were evaluated, (...,)."""
        return self._lead(self.solution.nfev)

    # ---- errors ----------------------------------------------------------------------------------

    @cached_property
    def pcov(self) -> Any:
        """Covariance of popt, (..., P, P), in units of (parameter × parameter).

        It is infinite for parameters that the data do not determine, NaN for those held at a bound
        and zero for fixed ones. With a robust loss it is the sandwich estimate.
        """
        covariance = self._inference.pcov
        found = self._out(covariance)
        if isinstance(found, Tensor) and found.device.type == "cpu":  # nobody waits for a device
            warn_if_beyond(covariance, found.dtype)
        return found

    @cached_property
    def stderr(self) -> Any:
        """Standard errors, the square roots of the diagonal of pcov, (..., P)."""
        return self._out(self._inference.stderr)

    @cached_property
    def correlation(self) -> Any:
        """pcov over the product of the standard errors, (..., P, P); NaN where there are none."""
        return self._out(self._inference.correlation)

    @cached_property
    def undetermined(self) -> list[str]:
        """Combinations of parameters, in words, whose change does not change the curve."""
        self._one("undetermined")
        return self._inference.undetermined()

    def at(self, *index: int | tuple[int, ...]) -> Self:
        """One fit of a batch.

        Args:
            index: its place in the leading dimensions of ydata, `at(3, 4)` or `at((3, 4))`.

        Returns:
            A result without a batch.

        Raises:
            InputError: there is no batch, or no such fit.
        """
        place: Any = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
        return type(self)(self._inference.at(place), full_output=self._full)


def _unpickled(kind: type[CurveFit], record: dict[str, Any]) -> CurveFit:
    """The fit of a record that came through a pickle, as its code could not."""
    inference = inference_of(record, None, imports=True, device=None, told=False)
    return kind(inference, full_output=record["full_output"], failed=record["failed"])
