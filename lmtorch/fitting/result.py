"""The result of a curve fit: parameters with their errors, predictions, goodness of fit."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._arrays import tensor_of, to_array
from .._errors import InputError
from . import table
from .bands import Band
from .bootstrap import Bootstrap, resample
from .inference import Inference
from .models import by_name
from .profile import Profile, trace


class CurveFit:
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
        self, inference: Inference, *, full_output: bool = False, failed: bool = False
    ) -> None:
        self._inference = inference
        self._full = full_output
        self._failed = failed
        self.solution = inference.solution
        self.names = inference.names
        self.popt = self._out(inference.p)

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
                raise InputError(f"there is no parameter {key!r}: {self.names}.")
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
        return self._out(self._inference.pcov)

    @cached_property
    def stderr(self) -> Any:
        """Standard errors, the square roots of the diagonal of pcov, (..., P)."""
        return self._out(self._inference.stderr)

    @cached_property
    def correlation(self) -> Any:
        """pcov over the product of the standard errors, (..., P, P); NaN where there are none."""
        return self._out(self._inference.correlation)

    @cached_property
    def notes(self) -> list[str]:
        """What a reader of the errors should know: what is undetermined, what ended at a bound."""
        return [] if self._inference.lead or self._failed else self._inference.notes()

    @cached_property
    def undetermined(self) -> list[str]:
        """Combinations of parameters, in words, whose change does not change the curve."""
        self._one("undetermined")
        return self._inference.undetermined()

    # ---- goodness --------------------------------------------------------------------------------

    @cached_property
    def residual(self) -> Any:
        """The residuals (f(x) − y)/σ, (..., m).

        Of a likelihood Pearson's: (μ − y)/√V(μ) with the variance of counts of mean μ.
        """
        return self._out(self._inference.residual)

    @cached_property
    def deviance_residual(self) -> Any:
        """Of a likelihood ±√d with the share d of each point in the deviance, (..., m).

        They are nearer to normal numbers than Pearson's. Of squares they are `residual`.
        """
        return self._out(self._inference.deviance_residual)

    @property
    def best_fit(self) -> Any:
        """The fitted curve at xdata, (..., m)."""
        return self._out(self._inference.curve)

    @property
    def ndata(self) -> Any:
        """How many points were fitted, without those that were left out, (...,)."""
        return self._number(self._inference.fitter.data.count.to(torch.int64))

    @property
    def nvarys(self) -> int:
        """How many parameters are fitted: neither tied nor fixed, by name or by equal bounds."""
        return self._inference.n

    @property
    def nfree(self) -> Any:
        """Degrees of freedom, (...,): ndata less the fitted parameters that are not at a bound."""
        return self._number(self._inference.freedom.to(torch.int64))

    @property
    def chisqr(self) -> Any:
        """χ² = Σ ((f(x) − y)/σ)², (...,); of a likelihood Pearson's, Σ (y − μ)²/V(μ)."""
        return self._number(self._inference.chisqr)

    @property
    def deviance(self) -> Any:
        """2 log (L of a curve through all points / L of the fit), (...,); of squares χ²."""
        return self._number(self._inference.deviance)

    @property
    def loglikelihood(self) -> Any:
        """The logarithm of the likelihood, (...,).

        Of squares that of normal data, with the σ̂² that makes it largest unless `absolute_sigma`;
        NaN with a robust loss, which is no likelihood, and of `odr`. Of a criterion of your own
        without the constants that it leaves out.
        """
        return self._number(self._inference.loglikelihood)

    @property
    def pvalue(self) -> Any:
        """The probability that data of this model have a larger χ², (...,).

        It tells something where the scatter is known: of a likelihood (of means of about one and
        more), or with `absolute_sigma`. Otherwise NaN.
        """
        return self._number(self._inference.pvalue)

    @property
    def redchi(self) -> Any:
        """χ² over the degrees of freedom, (...,): near 1 if σ is right."""
        return self._number(self._inference.redchi)

    @property
    def rsquared(self) -> Any:
        """R², 1 − χ² over the χ² of the weighted mean, (...,); of a likelihood by deviances."""
        return self._number(self._inference.rsquared)

    @property
    def aic(self) -> Any:
        """Akaike's criterion, m ln(χ²/m) + 2n, (...,); of a likelihood 2n − 2 log L."""
        return self._number(self._inference.aic)

    @property
    def bic(self) -> Any:
        """Schwarz's criterion, m ln(χ²/m) + n ln m, (...,)."""
        return self._number(self._inference.bic)

    # ---- prediction ------------------------------------------------------------------------------

    def __call__(self, x: Any, dataset: int | None = None) -> Any:
        """The fitted curve at x.

        Args:
            x: new points (k,), in the layout of xdata, the same for all fits.
            dataset: for a global fit, the number of the data set.

        Returns:
            The curve, (..., k).
        """
        return self.confidence_band(x, dataset=dataset).curve

    def confidence_band(self, x: Any, level: float = 0.95, dataset: int | None = None) -> Band:
        """The band in which the true curve lies at each point with this probability (delta method).

        Args:
            x: points (k,), in the layout of xdata, the same for all fits.
            level: the probability. Default: 0.95.
            dataset: for a global fit, the number of the data set.

        Returns:
            `Band`: curve, lower, upper, (..., k) each.

        Raises:
            InputError: the level is no probability.
        """
        return self._band(self._inference.band(x, level, dataset, None))

    def prediction_band(
        self, x: Any, level: float = 0.95, sigma: Any = None, dataset: int | None = None
    ) -> Band:
        """The band in which a new measurement lies at each point with this probability.

        Args:
            x: points (k,), in the layout of xdata, the same for all fits.
            level: the probability. Default: 0.95.
            sigma: standard deviations of the new measurements, relative ones if those of the data
                were. Default: 1, as for data without sigma.
            dataset: for a global fit, the number of the data set.

        Of counts the variance of a Poisson or negative binomial count of that mean is taken, and
        its distribution for normal: of small means the band is rough.

        Returns:
            `Band`: curve, lower, upper, (..., k) each.

        Raises:
            InputError: the level is no probability; of a likelihood, sigma, or a scatter that is
                not known.
        """
        if sigma is not None and self._inference.fitter.likelihood is not None:
            raise InputError("sigma does not go with a likelihood, whose scatter is known.")
        return self._band(self._inference.band(x, level, dataset, 1.0 if sigma is None else sigma))

    def profile(self, names: Any = None, level: float = 0.95, points: int = 15) -> Profile:
        """Likelihood profiles: how a fit worsens as one parameter is moved, the others refitted.

        All points of all parameters are fitted as one batch. The intervals assume no linear model,
        so that they may be lopsided, or open to one side.

        Args:
            names: the parameters. Default: all that vary.
            level: the probability of the intervals. Default: 0.95.
            points: how many points on each side. Default: 15.

        Returns:
            `Profile`, with `intervals` and `plot()`.

        Raises:
            InputError: a parameter does not vary, the loss is robust, the fit is a batch, or there
                are no degrees of freedom.

        Reference: Bates & Watts, Nonlinear regression analysis (1988), §6.1.
        """
        self._one("profile")
        if self._inference.loss is not None:
            raise InputError(
                "a profile needs a likelihood, which a robust loss is not: use bootstrap()."
            )
        return trace(self._inference, names, level, points)

    def bootstrap(self, samples: int = 1000, kind: str | None = None, seed: int = 0) -> Bootstrap:
        """Refit resampled data, as one batch.

        Args:
            samples: how many refits. Default: 1000.
            kind: "residuals" adds residuals drawn with replacement to the curve, "cases" draws
                points with replacement, "normal" adds normal noise with the standard deviations of
                the fit, and "parametric" draws counts from the likelihood of the fit. Default:
                "residuals", of counts "parametric".
            seed: the seed of the random generator. Default: 0.

        Returns:
            `Bootstrap`: samples of the parameters, standard errors, intervals.

        Raises:
            InputError: the kind is not known or does not go with the likelihood, or the fit is a
                batch.

        Reference: Efron & Tibshirani, An introduction to the bootstrap (1993), §9.
        """
        self._one("bootstrap")
        return resample(self._inference, samples, kind, seed)

    # ---- showing ---------------------------------------------------------------------------------

    def report(self, min_correl: float = 0.1) -> str:
        """The fit in words and numbers, in the style of lmfit's report.

        Args:
            min_correl: smaller correlations are left out. Default: 0.1.

        Returns:
            The text; for a batch a summary.
        """
        return table.report(self._inference, min_correl, self.notes)

    def __repr__(self) -> str:
        """The values with their errors; for a batch its size."""
        inference = self._inference
        if inference.lead:
            good = int(tensor_of(self.solution.success).sum())
            return (
                f"CurveFit({inference.fitter.model.label}, {inference.lead} fits, {good} converged)"
            )
        numbers = zip(inference.p.tolist(), inference.stderr.tolist(), strict=True)
        values = zip(self.names, (table.with_error(*pair) for pair in numbers), strict=True)
        return f"CurveFit({', '.join(f'{name}={value}' for name, value in values)})"

    def plot(self, level: float = 0.95, dataset: int | None = None) -> Any:
        """Draw data, curve and confidence band, with the residuals below (needs matplotlib).

        Args:
            level: the probability of the band. Default: 0.95.
            dataset: for a global fit, the data set to draw. Default: all, a colour each.

        Returns:
            The matplotlib figure.

        Raises:
            InputError: matplotlib is not installed, x is not one number for each point, or the fit
                is a batch.
        """
        from .plot import draw

        self._one("plot")
        return draw(self._inference, level, dataset)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the data, in plain numbers, ready for JSON.

        Returns:
            A dict of the model, the parameters (values, errors, starts, bounds and roles), the
            covariance, the statistics and the message.
        """
        return table.as_dict(self._inference, self.notes)

    def to_json(self, **options: Any) -> str:
        """`to_dict` as text; infinities and NaN become null.

        Args:
            options: options of `json.dumps`.

        Returns:
            The text.
        """
        return json.dumps(self.to_dict(), allow_nan=False, **options)

    def at(self, index: int | tuple[int, ...]) -> "CurveFit":
        """One fit of a batch.

        Args:
            index: its index in the leading dimensions of ydata.

        Returns:
            A `CurveFit` without a batch.

        Raises:
            InputError: there is no batch, or no such fit.
        """
        one = self._inference.at(index if isinstance(index, tuple) else (index,))
        return CurveFit(one, full_output=self._full)

    # ---- inside ----------------------------------------------------------------------------------

    def _one(self, what: str) -> None:
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
