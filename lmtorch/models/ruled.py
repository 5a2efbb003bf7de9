"""What a user knows of the parameters of a model before a fit, set by methods that change nothing.

Each returns another model, so that one may stand in several sums. What the rules are is in
`rules.py`.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Self

from .adding import Terms
from .rules import Rules, Tie, dict_of, held_in

Pair = tuple[float, float]


class Ruled(Terms):
    """Gives a model its bounds, fixed values, ties and starts."""

    _rules: Rules
    _limits: Any

    @property
    def bounds(self) -> dict[str, Pair]:
        """(lower, upper) by name, of those parameters that have bounds."""
        return {**self._limits(), **self._rules.bounds}

    @property
    def fixed(self) -> dict[str, float | None]:
        """The fixed parameters with their values; None: it is held where the fit starts."""
        return dict(self._rules.fixed)

    @property
    def ties(self) -> dict[str, Tie]:
        """By name, what computes a parameter from the others."""
        return dict(self._rules.ties)

    @property
    def starts(self) -> dict[str, float]:
        """Start values that were set, by name; the others are guessed."""
        return dict(self._rules.starts)

    @property
    def _all_rules(self) -> Rules:
        """The rules, with the bounds that belong to the formula."""
        return replace(self._rules, bounds=self.bounds)

    def with_bounds(self, given: Mapping[str, Pair] | None = None, /, **pairs: Pair) -> Self:
        """Another model with bounds, which hold in place of those of the formula.

        Args:
            given: (lower, upper) by name, in a dict; None for an end that is open.
            pairs: or as arguments.

        Returns:
            The model; this one stays as it is.

        Raises:
            InputError: a name is not known or is tied, or it is no pair, or a fixed value is
                outside.

        Example:
            >>> from lmtorch import models
            >>> models.Gaussian("g").with_bounds(g_center=(0, 5)).bounds
            {'g_sigma': (0.0, inf), 'g_center': (0.0, 5.0)}
        """
        return self._ruled(self._rules.bounded({**dict_of(given, "bounds"), **pairs}))

    def with_fixed(self, /, *held: str | Mapping[str, float], **values: float) -> Self:
        """Another model, some of whose parameters are not fitted.

        Args:
            held: names of parameters that stay where the fit starts; or a dict of values.
            values: values to hold parameters at, by name.

        Returns:
            The model; this one stays as it is.

        Raises:
            InputError: a name is not known, or a value is no number or outside its bounds.

        Example:
            >>> from lmtorch import models
            >>> models.Gaussian("g").with_fixed(g_sigma=0.5).fixed
            {'g_sigma': 0.5}
        """
        return self._ruled(self._rules.held({**held_in(held), **values}))

    def with_ties(self, /, *equations: str | Mapping[str, Tie | str], **ties: Tie | str) -> Self:
        """Another model, some of whose parameters follow from others.

        Args:
            equations: such as "v_center = g_center + 2.3". On the right stand numbers, names of
                parameters, + − * / **, brackets, and functions such as sqrt, exp, log, abs, min,
                max; it is read, not run as code.
                Or a dict as `ties`.
            ties: right-hand sides by name, or functions of a dict of the other values.

        Returns:
            The model; this one stays as it is.

        Raises:
            InputError: an equation cannot be read, names a parameter that is not there, or goes in
                a circle.

        Example:
            >>> from lmtorch import models
            >>> two = models.Gaussian("a") + models.Gaussian("b")
            >>> two.with_ties("b_sigma = 2 * a_sigma", b_center="a_center + 1").ties
            {'b_sigma': 2 * a_sigma, 'b_center': a_center + 1}
        """
        return self._ruled(self._rules.tied(equations, ties, self.names))

    def with_start(self, given: Mapping[str, float] | None = None, /, **values: float) -> Self:
        """Another model, some of whose parameters start from given values and not from a guess.

        Args:
            given: numbers by name, in a dict.
            values: or as arguments.

        Returns:
            The model; this one stays as it is.

        Raises:
            InputError: a name is not known, or a value is no number.
        """
        return self._ruled(self._rules.started({**dict_of(given, "starts"), **values}))

    def with_free(self, *names: str) -> Self:
        """Another model, some of whose parameters have no rules but the limits of the formula.

        Args:
            names: of the parameters.

        Returns:
            The model; this one stays as it is.

        Raises:
            InputError: a name is not known.
        """
        self._rules.known(names, self.names, "with_free")
        return self._ruled(self._rules.without(names))

    def _ruled(self, rules: Rules) -> Self:
        """This model with other rules, if they hold together."""
        rules.check(self.names, self._limits())
        other = copy(self)
        other._rules = rules
        return other
