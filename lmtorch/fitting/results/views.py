"""A fit as text, table, picture and plain numbers."""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from ..._arrays import tensor_of
from ..._checks import flag
from ..._elsewhere import Elsewhere
from ..inference.derived import Derived, derived_of
from ..saving.saving import record_of
from . import table
from .fitted import Fitted


class Views(Fitted, Elsewhere):
    """Reports, tables and pictures of a fit, or of a batch of fits."""

    # lmfit's names, those of scipy's results, and others that are written first
    _elsewhere: ClassVar[Mapping[str, str]] = {
        "best_values": "fit.params",
        "values": "fit.params",
        "fit_report": "fit.report()",
        "eval": "fit.predict(x)",
        "eval_components": "fit.components(x)",
        "eval_uncertainty": "fit.confidence_band(x)",
        "conf_interval": "fit.profile().intervals",
        "ci_report": "fit.profile().intervals",
        "confint": "fit.profile().intervals",
        "covar": "fit.pcov",
        "cov": "fit.pcov",
        "covariance": "fit.pcov",
        "correl": "fit.correlation",
        "residuals": "fit.residual",
        "chi2": "fit.chisqr",
        "r2": "fit.rsquared",
        "pvalues": "fit.params and fit.errors: their quotients are t with fit.nfree",
        "tvalues": "fit.params and fit.errors: their quotients are t with fit.nfree",
        "summary": "fit.report()",
        "to_latex": "fit.to_dataframe().to_latex()",
        "cov_beta": "fit.pcov",
        "perr": "fit.stderr",
        "sd_beta": "fit.stderr",
        "beta": "fit.popt",
        "x": "fit.popt",
        "uvars": "fit.to_uncertainties()",
        "plot_fit": "fit.plot()",
        "init_fit": "fit.predict(x) of the start, model.plot(x, y)",
    }

    names: list[str]
    solution: Any
    _failed: bool

    @cached_property
    def notes(self) -> list[str]:
        """What a reader of the errors should know: what is undetermined, what ended at a bound."""
        inference = self._inference
        return list(inference.lost) if inference.lead or self._failed else inference.notes()

    @cached_property
    def derived(self) -> dict[str, Derived]:
        """What models of the library derive from their parameters, as the height of a peak.

        By name, (value, stderr) each, (...,), with errors by the delta method: infinite where it
        depends on what the data do not determine, NaN where on a parameter at its bound. Peaks have
        `fwhm`, the full width at half height, and `height`; a model of your own what its method
        `derived` returns. Of other functions it is empty.
        """
        return {
            name: Derived(*map(self._number, pair))
            for name, pair in derived_of(self._inference).items()
        }

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

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from .notebook import html_of

        return html_of(self._inference, self.notes)

    def plot(
        self,
        level: float = 0.95,
        dataset: int | None = None,
        *,
        components: bool = True,
        ax: Any = None,
        xlabel: str | None = None,
        ylabel: str | None = None,
        title: str | None = None,
        xscale: str | None = None,
        yscale: str | None = None,
    ) -> Any:
        """Draw data, curve and confidence band, with the residuals below (needs matplotlib).

        Residuals are drawn as data − fit, so that a point above the curve is above zero; of counts
        they are those of deviance.

        Args:
            level: the probability of the band. Default: 0.95.
            dataset: for a global fit, the data set to draw. Default: all, a colour each.
            components: whether the terms of a sum of `lmtorch.models` are drawn, dashed. Default:
                True.
            ax: matplotlib's axes for data and curve, or a pair of axes, the second for the
                residuals. Default: a new figure with both.
            xlabel: of the lower axes. Default: none.
            ylabel: of the axes with the curve. Default: none.
            title: of the axes with the curve. Default: none.
            xscale: "linear", "log" or another of matplotlib's. Default: that of the axes.
            yscale: of the axes with the curve, as xscale. Default: that of the axes.

        Returns:
            The matplotlib figure.

        Raises:
            InputError: matplotlib is not installed, x is not one number for each point, the fit is
                a batch, or the axes are none.
        """
        self._one("plot")
        words = {
            "xlabel": xlabel, "ylabel": ylabel, "title": title, "xscale": xscale, "yscale": yscale,
        }  # fmt: skip
        given = {key: value for key, value in words.items() if value is not None}
        return self._drawn(level, dataset, ax, given, flag(components, "components"))

    def _drawn(
        self, level: float, dataset: int | None, ax: Any, words: dict[str, str], components: bool
    ) -> Any:
        from .plot import draw

        return draw(self._inference, level, dataset, ax, words, components)

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

    def to_dataframe(self, per: str = "parameter") -> Any:
        """Parameters and their errors as a table of pandas.

        Args:
            per: "parameter" for a row for each parameter (of a batch: for each fit and parameter),
                with value, stderr, start, bounds and role; "fit" for a row for each fit, with a
                column for each parameter and for its error (`name_stderr`), statistics and status.
                Default: "parameter".

        Returns:
            A `pandas.DataFrame`. Its index has the names of the parameters ("parameter"), or the
            places of the fits in the leading dimensions ("fit", or "fit_0", "fit_1", ...), or both.
            Where ydata was a table of pandas, its index, by its name, stands for the places.

        Raises:
            InputError: pandas is not installed, or `per` is neither of the two.
        """
        from .frames import frame_of

        return frame_of(self._inference, per)

    def to_uncertainties(self) -> dict[str, Any]:
        """Values with errors for the package `uncertainties`, with their correlations.

        What is computed from them has the error of the delta method. A parameter that is not
        determined has the error infinity, one at a bound NaN, without correlations; a fixed one
        zero.

        Returns:
            By name, an `uncertainties` number each.

        Raises:
            InputError: the package is not installed, or the fit is a batch.
        """
        from .frames import with_uncertainties

        self._one("to_uncertainties")
        return with_uncertainties(self._inference)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to a file of JSON, from which `lmtorch.load` reads it.

        The file has values, errors and covariance in front, for any reader of JSON, and all that
        the fit knows behind them: data, options, statistics, the end of the minimisation. Functions
        are written as where they can be imported from, never as code; of a lambda, of a function
        that is defined inside another, and of a module only the names are saved, and
        `lmtorch.load(path, f=...)` takes them. Gradients are not saved, nor `history` and `starts`
        of the solution.

        Args:
            path: of the file; one that is there is replaced.

        Raises:
            InputError: xdata are something that cannot be written as JSON.
        """
        from ..._files import write

        write(record_of(self), path)
