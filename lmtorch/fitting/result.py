"""A fitted curve: parameters with their errors, what they predict, and how well."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.optimize import OptimizeWarning
from torch import Tensor

from .._errors import InputError
from ..core.termination import Status
from ..functional.calling import to_array
from ..functional.solution import Solution
from ..losses.robust import Robust
from . import report as reports
from .bands import Band, about, variance
from .bootstrap import Bootstrap, resample
from .covariance import Covariance, combinations, inverse_normal, sandwich
from .data import points_of
from .fitter import Fitter
from .profile import Profile, trace


class CurveFit:
    """The result of `curve_fit`: unpacks to `popt, pcov`, and knows the names.

    NumPy if ydata was, tensors on the device of ydata if it was a tensor. With leading dimensions of ydata every number
    has them in front; `fit.at(i)` is one of the fits by itself.

    Attributes:
        names: of the parameters, in the order of popt.
        popt: their values (..., P), fixed and tied ones included.
        solution: of `least_squares`, in the variables that were fitted.
        notes: what a reader of the errors should know: undetermined combinations, parameters at a bound.

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
        self, fitter: Fitter, solution: Solution, *, absolute_sigma: bool, full_output: bool, loss: Robust | None
    ) -> None:
        self._fitter = fitter
        self._absolute = absolute_sigma
        self._full = full_output
        self._x_error: Tensor | None = None  # (m, k), where there are errors in x
        self._loss = loss
        self.solution = solution
        self.names = list(fitter.model.names)
        lead = fitter.data.lead
        u = torch.as_tensor(solution.x)
        self._u = u.reshape(*lead, u.shape[-1])
        self._p = fitter.parameters.outward(self._u, fitter.start)
        self.popt = self._out(self._p)
        self.notes: list[str] = []
        self._note()

    # ---- as scipy's tuple ----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """popt, pcov; with full_output also infodict, mesg, ier."""
        yield from self._tuple()

    def __len__(self) -> int:
        """As of scipy's tuple."""
        return len(self._tuple())

    def __getitem__(self, key: Any) -> Any:
        """A parameter by its name, or an item of scipy's tuple by its number."""
        if isinstance(key, str):
            if key not in self.names:
                raise InputError(f"there is no parameter {key!r}: {self.names}.")
            place = self.names.index(key)
            return self.popt[place] if self.popt.ndim == 1 else self.popt[..., place]
        return self._tuple()[key]

    def _tuple(self) -> tuple[Any, ...]:
        if not self._full:
            return self.popt, self.pcov
        info = {"nfev": self.nfev, "fvec": self.solution.fun, "fjac": self.solution.jac}
        return self.popt, self.pcov, info, self.message, self.solution.status

    # ---- how it ended --------------------------------------------------------------------------------------------

    @property
    def success(self) -> Any:
        """Whether a minimum was found, (...,) bool."""
        return self._lead(self.solution.success)

    @property
    def status(self) -> Any:
        """A `Status`, or (...,) of their numbers."""
        return self._lead(self.solution.status)

    @property
    def message(self) -> Any:
        """The status in words, or a list of them."""
        return self.solution.message

    @property
    def nfev(self) -> Any:
        """Evaluations of the residuals, (...,)."""
        return self._lead(self.solution.nfev)

    # ---- errors --------------------------------------------------------------------------------------------------

    @cached_property
    def pcov(self) -> Any:
        """Covariance of popt, (..., P, P), in units of (parameter × parameter).

        Infinite for parameters that the data do not determine, NaN for those held at a bound, zero for fixed ones.
        With a robust loss it is the sandwich estimate.
        """
        return self._out(self._pcov)

    @cached_property
    def stderr(self) -> Any:
        """Standard errors, the square roots of the diagonal of pcov, (..., P)."""
        return self._out(self._pcov.diagonal(dim1=-2, dim2=-1).sqrt())

    @cached_property
    def correlation(self) -> Any:
        """pcov over the product of the standard errors, (..., P, P); NaN where there are none."""
        error = self._pcov.diagonal(dim1=-2, dim2=-1).sqrt()
        both = error[..., :, None] * error[..., None, :]
        return self._out(torch.where((both > 0) & both.isfinite(), self._pcov / both, torch.nan))

    @cached_property
    def undetermined(self) -> list[str]:
        """Combinations of parameters that can be changed without changing the curve, in words; of one fit."""
        self._one("undetermined")
        return combinations(self._covariance.null @ self._slopes.mT, self.names)

    # ---- goodness ------------------------------------------------------------------------------------------------

    @cached_property
    def residual(self) -> Any:
        """(f(x) − y)/σ, (..., m)."""
        return self._out(self._residual)

    @property
    def best_fit(self) -> Any:
        """The curve at the data, (..., m)."""
        return self._out(self._curve)

    @property
    def ndata(self) -> Any:
        """Points that count, (...,)."""
        return self._number(self._fitter.data.count.to(torch.int64))

    @property
    def nvarys(self) -> int:
        """Parameters that are fitted."""
        return self._n

    @property
    def nfree(self) -> Any:
        """Degrees of freedom, ndata − nvarys, (...,)."""
        return self._number(self._freedom.to(torch.int64))

    @property
    def chisqr(self) -> Any:
        """χ² = Σ ((f(x) − y)/σ)², (...,)."""
        return self._number(self._chisqr)

    @property
    def redchi(self) -> Any:
        """χ² over the degrees of freedom, (...,): near 1 if σ is right."""
        return self._number(self._chisqr / self._freedom)

    @property
    def rsquared(self) -> Any:
        """1 − χ² over that of the weighted mean, (...,)."""
        return self._number(1 - self._chisqr / self._about_mean())

    @property
    def aic(self) -> Any:
        """Akaike's criterion, m ln(χ²/m) + 2n, (...,)."""
        count = self._fitter.data.count
        return self._number(count * (self._chisqr / count).log() + 2 * self._n)

    @property
    def bic(self) -> Any:
        """Schwarz's criterion, m ln(χ²/m) + n ln m, (...,)."""
        count = self._fitter.data.count
        return self._number(count * (self._chisqr / count).log() + self._n * count.log())

    # ---- prediction ----------------------------------------------------------------------------------------------

    def __call__(self, x: Any, dataset: int | None = None) -> Any:
        """The fitted curve at x.

        Args:
            x: new points (k,), in the layout of xdata, the same for all fits.
            dataset: of a global fit, whose curve.

        Returns:
            (..., k).
        """
        return self.confidence_band(x, dataset=dataset).curve

    def confidence_band(self, x: Any, level: float = 0.95, dataset: int | None = None) -> Band:
        """Where the true curve is, point by point, with this probability: by the delta method.

        Args:
            x: points (k,), in the layout of xdata, the same for all fits.
            level: probability. Default: 0.95.
            dataset: of a global fit, whose curve.

        Returns:
            `Band`: curve, lower, upper, (..., k) each.

        Raises:
            InputError: a level that is no probability.
        """
        return self._band(x, level, dataset, None)

    def prediction_band(self, x: Any, level: float = 0.95, sigma: Any = None, dataset: int | None = None) -> Band:
        """Where a new measurement will be, point by point, with this probability: the scatter is added.

        Args:
            x: as for `confidence_band`.
            level: as there.
            sigma: deviation of the new measurements, in the units of ydata (relative ones if sigma was relative).
                Default: 1, as of data without sigma.
            dataset: as there.

        Returns:
            `Band`.

        Raises:
            InputError: as there.
        """
        return self._band(x, level, dataset, 1.0 if sigma is None else sigma)

    def profile(self, names: Any = None, level: float = 0.95, points: int = 15) -> Profile:
        """Likelihood profiles and intervals: how the fit worsens as one parameter is moved, the others refitted.

        All points of all parameters are fitted as one batch. The intervals need no linear model, so they may be
        lopsided, or open to one side.

        Args:
            names: parameters. Default: all that vary.
            level: probability of the intervals. Default: 0.95.
            points: on each side. Default: 15.

        Returns:
            `Profile`, with `intervals` and `plot()`.

        Raises:
            InputError: parameters that do not vary, a robust loss, a batch, no degrees of freedom.

        Reference: Bates & Watts, Nonlinear regression analysis (1988), §6.1.
        """
        self._one("profile")
        if self._loss is not None:
            raise InputError("a profile needs a likelihood, which a robust loss is not: use bootstrap().")
        return trace(self, names, level, points)

    def bootstrap(self, samples: int = 1000, kind: str = "residuals", seed: int = 0) -> Bootstrap:
        """Refit resampled data, as one batch.

        Args:
            samples: how many. Default: 1000.
            kind: "residuals" are exchanged between points, "cases" draws points with replacement, "normal" adds noise
                of the deviations of the fit. Default: "residuals".
            seed: of the random generator. Default: 0.

        Returns:
            `Bootstrap`: samples of the parameters, standard errors, intervals.

        Raises:
            InputError: a kind that is not known, a batch.

        Reference: Efron & Tibshirani, An introduction to the bootstrap (1993), §9.
        """
        self._one("bootstrap")
        return resample(self, samples, kind, seed)

    # ---- showing -------------------------------------------------------------------------------------------------

    def report(self, min_correl: float = 0.1) -> str:
        """The fit in words and numbers, in the manner of lmfit's report.

        Args:
            min_correl: correlations smaller than that are left out. Default: 0.1.

        Returns:
            The text; of a batch, a summary.
        """
        return reports.report(self, min_correl)

    def __repr__(self) -> str:
        """The values with their errors; of a batch, its size."""
        lead = self._fitter.data.lead
        if lead:
            good = int(np.sum(to_array(torch.as_tensor(self.success))))
            return f"CurveFit({self._fitter.model.label}, {lead} fits, {good} converged)"
        values = zip(self.names, self._p.tolist(), np.atleast_1d(to_array(self.stderr)), strict=True)
        return f"CurveFit({', '.join(f'{name}={reports.with_error(value, error)}' for name, value, error in values)})"

    def plot(self, level: float = 0.95, dataset: int | None = None) -> Any:
        """Data, curve and confidence band, with the residuals below (needs matplotlib).

        Args:
            level: of the band. Default: 0.95.
            dataset: of a global fit, which one to draw. Default: all, a colour each.

        Returns:
            The matplotlib figure.

        Raises:
            InputError: matplotlib is not installed, x is not one number for each point, or a batch.
        """
        from .plot import draw

        self._one("plot")
        return draw(self, level, dataset)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the data, in plain numbers, ready for JSON.

        Returns:
            Model, parameters with values, errors, starts, bounds and roles, covariance, statistics, message.
        """
        return reports.as_dict(self)

    def to_json(self, **options: Any) -> str:
        """`to_dict` as text; infinities and NaN become null.

        Args:
            options: of `json.dumps`.

        Returns:
            The text.
        """
        return json.dumps(self.to_dict(), allow_nan=False, **options)

    def at(self, index: int | tuple[int, ...]) -> "CurveFit":
        """One of a batch of fits by itself.

        Args:
            index: of the leading dimensions of ydata.

        Returns:
            A `CurveFit` without a batch.

        Raises:
            InputError: there is no batch, or no such fit.
        """
        data = self._fitter.data
        index = index if isinstance(index, tuple) else (index,)
        inside = len(index) == len(data.lead) and all(-n <= i < n for i, n in zip(index, data.lead, strict=True))
        if not inside or not data.lead:
            raise InputError(f"at({index}) does not name one of {data.lead} fits.")
        index = tuple(i % n for i, n in zip(index, data.lead, strict=True))

        def one(value: Any, kept: int) -> Any:
            return value[index] if isinstance(value, Tensor) and value.ndim > kept else value

        single = replace(
            data,
            x=data.x[index] if data.each_x else data.x,
            y=data.y[index],
            weights=one(data.weights, 1),
            root=one(data.root, 2),
            count=data.count[index],
        )
        place = int(np.ravel_multi_index(index, data.lead))
        parts = {
            key: value if not hasattr(value, "__len__") or key in ("f_scale", "history", "starts") else value[place]
            for key, value in self.solution.items()
        }
        parts |= {"status": Status(int(parts["status"])), "success": bool(parts["success"])}
        fitter = replace(self._fitter, data=single, start=one(self._fitter.start, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            return CurveFit(
                fitter, Solution(**parts), absolute_sigma=self._absolute, full_output=self._full, loss=self._loss
            )

    # ---- inside --------------------------------------------------------------------------------------------------

    @property
    def _n(self) -> int:
        return len(self._fitter.parameters.variables)

    @cached_property
    def _freedom(self) -> Tensor:
        return self._fitter.data.count - self._n

    @cached_property
    def _residual(self) -> Tensor:
        fun = torch.as_tensor(self.solution.fun).detach()
        return fun.reshape(*self._fitter.data.lead, -1)

    @cached_property
    def _curve(self) -> Tensor:
        data = self._fitter.data
        if data.root is not None:
            return data.y.detach() + torch.linalg.solve(data.root, self._residual[..., None])[..., 0]
        if data.weights is None:
            return data.y.detach() + self._residual
        return torch.where(data.weights > 0, data.y.detach() + self._residual / data.weights, torch.nan)

    @cached_property
    def _chisqr(self) -> Tensor:
        return self._residual.double().square().sum(-1)

    @cached_property
    def _variance(self) -> Tensor:
        """σ̂² of a residual, (...,): one for absolute errors."""
        if self._absolute:
            return torch.ones_like(self._chisqr)
        return torch.where(self._freedom > 0, self._chisqr / self._freedom.clamp(min=1), torch.inf)

    @cached_property
    def _held(self) -> Tensor:
        """Variables at a bound, (..., n) bool: fixed by equal bounds, or pushed against one."""
        mask = torch.as_tensor(self.solution.active_mask).reshape(self._u.shape)
        return mask != 0

    @cached_property
    def _covariance(self) -> Covariance:
        """Of the variables, without σ̂²."""
        jacobian = torch.as_tensor(self.solution.jac).detach().double()
        jacobian = jacobian.reshape(*self._fitter.data.lead, *jacobian.shape[-2:])
        if self._loss is None:
            return inverse_normal(jacobian, self._held)
        scale = torch.as_tensor(self.solution.f_scale, dtype=torch.float64)
        scale = scale.reshape(self._fitter.data.lead) if scale.ndim else scale.expand(self._fitter.data.lead)
        residual = self._residual.double()
        rho = self._loss.rho((residual / scale[..., None]).square())
        bend = (rho.first + 2 * (residual / scale[..., None]).square() * rho.second).clamp(
            min=torch.finfo(self._u.dtype).eps
        )
        return sandwich(jacobian / bend.sqrt()[..., None], residual, rho, scale, self._freedom, self._held)

    @cached_property
    def _slopes(self) -> Tensor:
        """∂p/∂u, (..., P, n), in float64."""
        parameters, u = self._fitter.parameters, self._u.detach().double()
        start = self._fitter.start.double()
        columns = [
            torch.func.jvp(lambda v: parameters.outward(v, start), (u,), (unit.expand(u.shape).to(u),))[1]
            for unit in torch.eye(u.shape[-1])
        ]
        return torch.stack(columns, -1)

    @cached_property
    def _factor(self) -> Tensor:
        """What `_covariance` is to be multiplied by, (...,): σ̂², which a sandwich has inside."""
        return self._variance if self._loss is None else torch.where(self._variance.isinf(), torch.inf, 1.0)

    @cached_property
    def _ucov(self) -> Tensor:
        """Covariance of the variables that move, (..., n, n), zero where they are held or undetermined."""
        return self._factor[..., None, None] * self._covariance.matrix

    @cached_property
    def _pcov(self) -> Tensor:
        slopes, factor = self._slopes, self._factor
        covariance = factor[..., None, None] * (slopes @ self._covariance.matrix @ slopes.mT)
        moved = (self._covariance.null @ slopes.mT).abs().sum(-2) > 0
        moved |= factor.isinf()[..., None]
        undetermined = moved[..., :, None] | moved[..., None, :]
        pinned = ((slopes != 0) & (self._held & ~self._equal_bounds)[..., None, :]).any(-1)
        unknown = pinned[..., :, None] | pinned[..., None, :]
        fixed = ((slopes == 0) | (self._held & self._equal_bounds)[..., None, :]).all(-1)
        certain = fixed[..., :, None] | fixed[..., None, :]
        covariance = torch.where(unknown, torch.nan, torch.where(undetermined, torch.inf, covariance))
        return torch.where(certain, 0.0, covariance)

    @property
    def _equal_bounds(self) -> Tensor:
        lower, upper = self._fitter.bounds
        return lower == upper

    def _about_mean(self) -> Tensor:
        """χ² of the best constant, (...,)."""
        data = self._fitter.data
        y, one = data.y.detach().double(), torch.ones_like(data.y, dtype=torch.float64)
        if data.root is not None:
            y, one = ((data.root.double() @ v[..., None])[..., 0] for v in (y, one))
        elif data.weights is not None:
            y, one = y * data.weights, one * data.weights
        level = (y * one).sum(-1) / one.square().sum(-1)
        return (y - level[..., None] * one).square().sum(-1)

    def _band(self, x: Any, level: float, dataset: int | None, sigma: Any) -> Band:
        if not 0 < level < 1:
            raise InputError(f"level={level} must be a probability between 0 and 1.")
        points, count = self._points(x, dataset)
        curve, slopes = self._fitter.sensitivity(self._u.detach(), points, count, dataset)
        spread = variance(slopes, self._covariance, self._factor)
        if sigma is not None:
            deviation = torch.as_tensor(sigma, dtype=curve.dtype, device=curve.device)
            scatter = self._variance if self._loss is None else self._spread()
            spread = spread + deviation.square() * scatter[..., None]
        return Band(*(self._out(side) for side in about(curve, spread, self._quantile(level))))

    def _spread(self) -> Tensor:
        """σ̂² of a residual where outliers are to have no say: from the median, (...,)."""
        weights = self._fitter.data.weights
        size = self._residual.double().abs()
        size = size if weights is None else torch.where(weights > 0, size, torch.nan)
        return (1.4826 * size.nanquantile(0.5, -1)).square()

    def _quantile(self, level: float) -> Tensor:
        """Of Student's t, or of the normal distribution for absolute errors, (...,)."""
        if self._absolute:
            return torch.full_like(self._chisqr, stats.norm.ppf((1 + level) / 2))
        freedom = np.maximum(to_array(self._freedom), 1)
        return torch.as_tensor(np.asarray(stats.t.ppf((1 + level) / 2, freedom))).to(self._chisqr)

    def _points(self, x: Any, dataset: int | None) -> tuple[Any, int]:
        """x as f takes it, and how many points it has."""
        if self._fitter.data.sizes and dataset is None:
            raise InputError("a global fit has a curve for each data set: name one with dataset=0, 1, ...")
        data = self._fitter.data
        if dataset is not None and not 0 <= dataset < len(data.sizes):
            raise InputError(f"dataset={dataset} does not name one of {len(data.sizes)} data sets.")
        return points_of(x, data.x if dataset is None else data.x[dataset], data)

    def _note(self) -> None:
        """Warn of what the errors do not tell; of one fit."""
        if self._fitter.data.lead:
            return
        pinned = self._held & ~self._equal_bounds
        names = [name for name, at in zip(self._fitter.parameters.variables, pinned.tolist(), strict=True) if at]
        if names:
            self.notes.append(
                f"{', '.join(names)} ended at a bound: no error is given for it, and those of the others hold with it "
                "there"
            )
        if not self._absolute and float(self._freedom) <= 0:
            self.notes.append("as many parameters as points: no degrees of freedom are left to tell the errors from")
        missing = self.undetermined
        self.notes += [f"undetermined: changing {text} does not change the curve" for text in missing]
        if missing or float(self._freedom) <= 0 < (not self._absolute):
            warnings.warn(
                f"the covariance of the parameters is infinite in part: {'; '.join(self.notes)}.",
                OptimizeWarning,
                stacklevel=4,
            )

    def _one(self, what: str) -> None:
        if self._fitter.data.lead:
            raise InputError(f"{what} is of one fit: choose it first, fit.at(index).{what}.")

    def _out(self, value: Tensor) -> Any:
        """As the user's data: NumPy, or the dtype of ydata."""
        data = self._fitter.data
        return to_array(value) if data.numpy else value.to(data.y.dtype)

    def _number(self, value: Tensor) -> Any:
        if value.ndim == 0 and self._fitter.data.numpy:
            return value.item()
        return value.item() if value.ndim == 0 else to_array(value) if self._fitter.data.numpy else value

    def _lead(self, value: Any) -> Any:
        lead = self._fitter.data.lead
        return value.reshape(lead) if lead else value
