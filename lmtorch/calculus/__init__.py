"""The chain rule, operator by operator: one table of formulas for all that carries derivatives."""

from .dual_algebra import Duals as Duals
