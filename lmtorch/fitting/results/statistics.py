"""How well a fit goes with its data, in numbers: the part of a result that is called goodness."""

from functools import cached_property
from typing import Any

import torch

from .fitted import Fitted


class Statistics(Fitted):
    """Residuals, χ², and what follows from them, in lmfit's words."""

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
    def runs(self) -> Any:
        """How many runs of one sign the residuals have in the order of x, (...,).

        NaN where x has none: several coordinates, a table, an image; and for likelihoods but
        Poisson's. Residuals below a tenth of their root mean square, points that are left out and
        counts with a mean below 5 are passed over.
        """
        return self._number(self._inference.runs)

    @property
    def runs_pvalue(self) -> Any:
        """The probability of so few `runs` where the signs are left to chance, (...,).

        Below 0.001 `notes` and `report` say so: the model lacks something, or there is a lower
        minimum elsewhere. The test of Wald and Wolfowitz (1940); errors need not be known.
        """
        return self._number(self._inference.runs_pvalue)

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
