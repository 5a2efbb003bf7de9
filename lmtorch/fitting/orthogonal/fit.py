"""The result of `odr`: parameters with their errors, and where the points have moved to."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import all_finite, tensor_of
from ..._errors import InputError, NotConvergedError, warn_of_fit
from ...core.termination import Status
from ...minimising.solution import Solution
from ..doubts.runaways import beyond_infinity, told
from ..inference.bands import Band
from ..inference.bootstrap import Bootstrap
from ..inference.evaluating import curve_at
from ..preparing import failure, warn_of
from ..results.result import CurveFit
from .bootstrap import resample
from .fitter import OrthogonalFitter
from .inference import OrthogonalInference

TOLD_APART = 1e-8  # inverse condition below which an implicit model's parameters are one too many


class OrthogonalFit(CurveFit):
    """The result of `odr`: a `CurveFit` that knows where the points have moved to.

    Errors of the parameters are those of the linear model with each point's errors in x eliminated;
    chisqr counts both errors, and its degrees of freedom are the responses that have a weight less
    the parameters: of q responses q·m − n, where scipy.odr has m − n. R² is NaN.

    With several responses what has a number for each point has the shape of y, (q, m).

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> x, y = np.array([0.0, 1.1, 1.9, 3.0]), np.array([0.1, 2.0, 4.1, 5.9])
        >>> fit = lmtorch.odr(lambda x, a, b: a + b * x, x, y, sx=0.1, sy=0.1)
        >>> print(fit)
        CurveFit(a=0.0(2), b=2.0(1))
        >>> fit.delta.shape, fit.eps.shape
        ((4,), (4,))
    """

    _inference: OrthogonalInference

    @property
    def delta(self) -> Any:
        """The displacements x_fit − x, in the shape of x; scipy.odr's delta."""
        return self._out(self._inference.data.displaced(self._inference.eta))

    @property
    def x_fit(self) -> Any:
        """Where the points are on the curve, in the shape of x, or NaN; scipy.odr's xplus."""
        return self._out(self._inference.moved)

    @property
    def eps(self) -> Any:
        """The fitted y less the measured, in the shape of y; of an implicit model f, about zero."""
        data = self._inference.data
        return self._by_point(self._inference.curve - data.y)

    @property
    def best_fit(self) -> Any:
        """f at x_fit, in the shape of y; NaN for what is left out."""
        return self._by_point(self._inference.curve)

    @cached_property
    def residual(self) -> Any:
        """Distances of the points from the curve in units of their errors, in the shape of y.

        They have a sign, and their squares add up to chisqr.
        """
        return self._by_point(self._inference.residual)

    @property
    def chisqr_x(self) -> Any:
        """The part of χ² that the displacements make, (...,); scipy.odr's sum_square_delta."""
        return self._number(self._inference.chisqr_x)

    @property
    def chisqr_y(self) -> Any:
        """The part of χ² that y makes, (...,); scipy.odr's sum_square_eps."""
        return self._number((self._inference.chisqr - self._inference.chisqr_x).clamp(min=0))

    @property
    def inv_condnum(self) -> Any:
        """Smallest over largest singular value of J, its columns scaled to one, (...,).

        Near ε the data do not tell the parameters apart.
        """
        return self._number(self._inference.condition)

    def resume(self, max_nfev: int | None = None) -> "OrthogonalFit":
        """Go on from where this fit has ended, with its parameters and displacements.

        Args:
            max_nfev: evaluations at most. Default: 1000.

        Returns:
            The fit.

        Raises:
            NotConvergedError: no minimum was found; its `fit` has the best point.

        Example:
            >>> import numpy as np, torch, lmtorch
            >>> x = np.linspace(0.0, 3.0, 9)
            >>> y = np.exp(-x) + 0.01 * np.cos(9 * x)
            >>> def decay(x, a, k):
            ...     return a * torch.exp(-k * x)
            >>> try:
            ...     fit = lmtorch.odr(decay, x, y, p0=[5, 3], max_nfev=4)
            ... except lmtorch.NotConvergedError as stopped:
            ...     fit = stopped.fit.resume()
            >>> fit.success
            True
        """
        from ...minimising.arguments import limits

        inference = self._inference
        fitter = replace(inference.fitter, trials=limits(max_nfev))
        return concluded(fitter, fitter.solve(inference.u.detach()), inference.absolute)

    def bootstrap(self, samples: int = 1000, kind: str | None = None, seed: int = 0) -> Bootstrap:
        """Refit resampled data, as one batch.

        Args:
            samples: how many refits. Default: 1000.
            kind: "residuals" moves the points of the fit off the curve by distances drawn with
                replacement, "cases" draws points with replacement, and "normal" adds normal noise
                to x and y with the deviations of the fit. Default: "residuals".
            seed: the seed of the random generator. Default: 0.

        Returns:
            `Bootstrap`: samples of the parameters, standard errors, intervals.

        Raises:
            InputError: the kind is not known, or the fit is a batch.

        Reference: Efron & Tibshirani, An introduction to the bootstrap (1993), §9.
        """
        self._one("bootstrap")
        return resample(self._inference, samples, kind, seed)

    def predict(self, x: Any, dataset: int | None = None) -> Any:
        """The fitted curve at new points.

        Args:
            x: points in the layout of x, (c,) or (k, c), the same for all fits.
            dataset: not used.

        Returns:
            f there, (..., c), or (..., q, c) of q responses.

        Raises:
            InputError: the points are not in the layout of x, or the model is implicit.
        """
        return self._by_point(curve_at(self._inference, x, dataset))

    def _drawn(
        self, level: float, dataset: int | None, ax: Any, words: dict[str, str], components: bool
    ) -> Any:
        from .plot import draw_implicit, draw_responses

        data = self._inference.data
        if data.implicit:
            return draw_implicit(self._inference, level, ax, words)
        if data.each > 1:
            return draw_responses(self._inference, level, ax, words)
        return super()._drawn(level, dataset, ax, words, components)

    def _by_point(self, values: Tensor) -> Any:
        """Numbers (..., q·c) as (..., q, c), of a single response as they are."""
        each = self._inference.data.each
        return self._out(values if each == 1 else values.unflatten(-1, (each, -1)))

    def _band(self, band: Band) -> Band:
        return Band(*(self._by_point(side) for side in band))


def concluded(
    fitter: OrthogonalFitter, solution: Solution, absolute: bool, start: Tensor | None = None
) -> OrthogonalFit:
    """The result of a solution, which goes on from where that has ended.

    Args:
        fitter: of the fit.
        solution: where it has ended.
        absolute: whether errors are in the units of the data.
        start: of the variables; None: parameters that ran away are not looked for.

    Returns:
        The fit.

    Raises:
        NotConvergedError: there is no minimum.
    """
    data, eta = fitter.data, solution.eta
    fitter = replace(fitter, data=replace(data, eta=eta.reshape(data.eta.shape)))
    inference = OrthogonalInference(fitter, solution, absolute, None)
    away: list[str] = []
    # where the data determine all there is nothing to look for, and no read of a device to spend
    if not (start is None or data.lead or data.implicit or (solution.success and inference.clear)):
        found, places = beyond_infinity(fitter, solution, start)
        if found is not solution:
            return concluded(fitter, found, absolute, tensor_of(found.x))
        away = [fitter.parameters.variables[i] for i in places]
        if places:
            warn_of_fit(told(fitter.parameters.variables, places, solution, start))
    why = failure(solution, data)
    if not why and data.implicit and not data.lead:
        why = trivial(inference)
    if why:
        raise NotConvergedError(why, OrthogonalFit(inference, failed=True))
    warn_of(solution, data)
    if not data.lead:
        inference.warn(away)
    return OrthogonalFit(inference)


def trivial(inference: OrthogonalInference) -> str:
    """Why the end of an implicit fit says nothing of the data; "": it does."""
    advice = (
        "f = 0 is to hold on a curve alone: hold a parameter by fixed, or set a coefficient to one."
    )
    if int(inference.solution.status) == Status.LOST:
        return (
            "no curve was found: f = 0 is not fulfilled where the fit has ended, as if parameters "
            f"make f vanish everywhere. {advice}"
        )
    if not all_finite(tensor_of(inference.solution.jac)):
        return (
            "no curve was found: f does not depend on x any more where points are, and f = 0 says "
            f"nothing there. {advice}"
        )
    names = inference.undetermined()
    if names:
        return f"no curve was found: changing {names[0]} does not change where f = 0. {advice}"
    if float(inference.condition) < TOLD_APART:
        return f"no curve was found: where f = 0 does not tell its parameters apart. {advice}"
    return ""


def refuse_scaled(fitter: OrthogonalFitter, u: Tensor) -> None:
    """Refuse an implicit model that some parameters only rescale: f = 0 does not tell them.

    With them at zero it would hold for every x, a perfect fit that says nothing.

    Raises:
        InputError: it is one.
    """
    data = fitter.data
    first = tuple(0 for _ in data.lead)
    one = data.at(first) if data.lead else data
    start = fitter.start[first] if fitter.start.ndim > 1 else fitter.start
    u = u[first] if u.ndim > 1 else u
    single = replace(fitter, data=one, start=start)
    names = fitter.parameters.variables
    low, high = fitter.bounds
    free = low < high

    def values(v: Tensor) -> np.ndarray:
        theta = torch.cat([v, v.new_zeros(one.predictors)])
        arguments = (theta, one.eta.mT, one.x, one.spread, start)
        try:
            found = single.values_at(*arguments)
        except (TypeError, RuntimeError):  # it takes arrays
            found = single.values_at(*(t.numpy() for t in arguments))
        return found.detach().reshape(-1)[one.counts.reshape(-1)].double().numpy()

    with torch.no_grad():
        before = values(u)
        size = np.abs(before).max(initial=0.0)
        if not 0 < size < np.inf or len(before) < 2:
            return
        for group in [free, *torch.diag(free.to(torch.int8)).bool()]:
            if not bool((group & (u != 0)).any()):
                continue
            after = values(torch.where(group, 0.75 * u, u))
            factor = float(after @ before / (before @ before))
            if abs(factor - 1) > 1e-6 and np.abs(after - factor * before).max() <= 1e-9 * size:
                which = [name for name, one_of in zip(names, group.tolist(), strict=True) if one_of]
                raise InputError(
                    f"{' and '.join(which)} only rescale f: where f(x) = 0 does not depend on "
                    "that, and at zero every x would fulfil it. Hold one of them by fixed, or set "
                    "a coefficient to one."
                )
