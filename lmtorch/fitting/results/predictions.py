"""What a fit says beyond its data: curves at new points, bands, profiles, refits of new data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._errors import InputError
from ..inference.bands import Band
from ..inference.bootstrap import Bootstrap, resample
from ..inference.evaluating import curve_at
from ..inference.profile import Profile, check, trace
from ..inference.regions import Region, region_of
from .components import components_at
from .fitted import Fitted


class Predictions(Fitted):
    """Curves and bands at new points, and intervals by refits."""

    def __call__(self, x: Any, dataset: int | None = None) -> Any:
        """The fitted curve at x, as `predict` gives it."""
        return self.predict(x, dataset)

    def predict(self, x: Any, dataset: int | None = None) -> Any:
        """The fitted curve at new points.

        Args:
            x: new points (k,), in the layout of xdata, the same for all fits.
            dataset: for a global fit, the number of the data set.

        Returns:
            The curve, (..., k).

        Raises:
            InputError: there is no such data set, or the points are not in the layout of xdata.
        """
        return self._out(curve_at(self._inference, x, dataset))

    def components(self, x: Any = None, dataset: int | None = None) -> dict[str, Any]:
        """The curve of each term of a fitted sum of `lmtorch.models`; together they make the whole.

        Args:
            x: points (k,), in the layout of xdata, the same for all fits. Default: xdata.
            dataset: for a global fit, the number of the data set.

        Returns:
            Curves (..., k) by the prefixes of the terms, or the names of those without.

        Raises:
            InputError: a plain function was fitted, or there is no such data set.

        Example:
            >>> import numpy as np, lmtorch
            >>> from lmtorch import models
            >>> x = np.linspace(0, 9, 40)
            >>> model = models.Gaussian("g") + models.Linear()
            >>> fit = lmtorch.curve_fit(model, x, model(x, 3.0, 4.0, 0.5, 0.1, 2.0))
            >>> {name: curve.shape for name, curve in fit.components(x[::2]).items()}
            {'g': (20,), 'Linear': (20,)}
        """
        found = components_at(self._inference, x, dataset)
        return {label: self._out(curve) for label, curve in found.items()}

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
        self._refits("profile", "a profile")
        return trace(self._inference, names, level, points)

    def confidence_region(
        self, names: Any, level: float | Sequence[float] = 0.95, points: int = 31
    ) -> Region:
        """Joint confidence regions of two parameters, by refits: lmfit's `conf_interval2d`.

        Where χ², with the other parameters fitted anew, rises by what the level allows; the region
        may be bent, lopsided, in parts, or open. The ellipse of the linear model is beside it.

        Args:
            names: of two parameters that vary, as `("a", "b")`.
            level: the probability that both true values are inside, or several. Default: 0.95.
            points: of the grid on each side. All refits of a grid are one batch. Default: 31.

        Returns:
            `Region`, with `contours`, `ellipses`, the `probability` on the grid, and `plot()`.

        Raises:
            InputError: the names are not two that vary, a level is no probability, the loss is
                robust, the fit is a batch, or there are no degrees of freedom.

        Reference: Bates & Watts, Nonlinear regression analysis (1988), §6.1.

        Example:
            >>> import numpy as np, lmtorch
            >>> x = np.array([0.02, 0.06, 0.11, 0.22, 0.56, 1.10])
            >>> y = np.array([61.5, 102.0, 131.0, 155.5, 196.0, 203.5])
            >>> fit = lmtorch.curve_fit(lambda c, v, k: v * c / (k + c), x, y, p0=[200, 0.1])
            >>> region = fit.confidence_region(("v", "k"))
            >>> (outline,) = region.contours[0.95]
            >>> bool((outline[0] == outline[-1]).all()), outline.shape[1]
            (True, 2)
        """
        self._refits("confidence_region", "a region")
        return region_of(self._inference, names, level, points)

    def plot_regions(
        self, names: Any = None, level: float | Sequence[float] = (0.68, 0.95), points: int = 21
    ) -> Any:
        """Draw the confidence regions of all pairs, and the profile of each parameter.

        Args:
            names: of parameters that vary. Default: all.
            level: the probability of a region, or several. Default: 0.68 and 0.95.
            points: of the grid of each pair, on each side. Default: 21.

        Returns:
            The matplotlib figure.

        Raises:
            InputError: as of `confidence_region`, or matplotlib is not installed.
        """
        from .region_plots import draw_matrix

        self._refits("plot_regions", "a region")
        variables = self._inference.fitter.parameters.variables
        chosen = variables if names is None else [names] if isinstance(names, str) else list(names)
        levels = tuple(sorted({float(one) for one in np.atleast_1d(np.asarray(level))}))
        for one in levels:
            check(self._inference, chosen, one)
        return draw_matrix(self._inference, chosen, levels, points)

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

    def _refits(self, what: str, thing: str) -> None:
        """Refuse what takes refits of one fit by squares or by a likelihood."""
        self._one(what)
        if self._inference.loss is not None:
            raise InputError(
                f"{thing} needs a likelihood, which a robust loss is not: use bootstrap()."
            )
