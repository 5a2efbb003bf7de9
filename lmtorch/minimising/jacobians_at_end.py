"""The Jacobians of many problems or of a tall one at the end, made when somebody asks for them.

They are larger than all data together: the loop has used them up block by block, and most callers
never look at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import _memory
from .._autodiff import ranges
from .._errors import InputError
from ..core.problem import Problem
from ..linearizations.dense import Dense, DenseForm


@dataclass(frozen=True)
class Jacobians:
    """J at the end of every problem of a batch (b,) or of one problem, rescaled by the loss.

    Attributes:
        problem: what was minimised.
        x: where it ended, (b, n) or (n,).
        cost: there, (b,) or ().
        unit: by which the residuals were multiplied.
        block: problems that fit the memory together.
        limit: bytes that one allocation may take.
        written: the arguments that no one may write into before J is made, with their versions.
    """

    problem: Problem
    x: Tensor
    cost: Tensor
    unit: float
    block: int
    limit: int | None
    written: Sequence[tuple[Tensor, int]]

    def of(self, chosen: slice | Tensor | None) -> Tensor:
        """Make J of some of the problems, a slice or numbers (k,); None: of the only one.

        Returns:
            (k, m, n) or (m, n), in the dtype of x.

        Raises:
            InputError: an argument was written into after the fit, or the function is another one.
        """
        self._check("Jacobian", "jac")
        with torch.no_grad():
            some = self.problem if chosen is None else self.problem.take(chosen)
            x = self.x if chosen is None else self.x[chosen]
            model = replace(some, form=DenseForm()).model(x)
        assert isinstance(model, Dense)
        self._compare(chosen, model)
        jacobian = model.jacobian if self.unit == 1 else model.jacobian / self.unit
        return jacobian.to(self.x.dtype)

    def residuals_of(self, chosen: slice) -> Tensor:
        """Make the residuals of some of the problems.

        Returns:
            (k, m), in the dtype of x.

        Raises:
            InputError: an argument was written into after the fit.
        """
        self._check("residuals", "fun")
        problem = self.problem.take(chosen)
        with torch.no_grad():
            (values,) = problem.values(self.x[chosen])
        return values if self.unit == 1 else values / self.unit

    def residuals(self) -> Tensor:
        """The residuals of all of them, (b, m)."""
        blocks = ranges(len(self.x), self.block)
        return torch.cat([self.residuals_of(chosen) for chosen in blocks])

    def _check(self, what: str, name: str) -> None:
        """Refuse to make what would not be that of the fit."""
        if any(tensor._version != version for tensor, version in self.written):
            raise InputError(
                f"the arguments of the function were changed in place after the fit: the {what} "
                f"at its end cannot be made any more. Ask for it (solution.{name}) before, or give "
                "the fit a copy."
            )

    def _compare(self, chosen: slice | Tensor | None, model: Dense) -> None:
        """Refuse J of a function that is no longer that of the fit: its cost would be another."""
        place = slice(None) if chosen is None else chosen
        then, now = self.cost.reshape(-1)[place], model.cost.reshape(-1)
        eps = torch.finfo(self.x.dtype).eps
        # a cost that is nothing but round-off is never the same again
        sizes = (self.x if chosen is None else self.x[chosen]) * model.column_norms
        lengths = sizes.square().sum(-1).reshape(-1)
        rounding = eps**1.5 * lengths
        known = then.isfinite() & now.isfinite() & rounding.isfinite()
        if bool((((now - then).abs() > 1e-3 * then + rounding) & known).any()):
            raise InputError(
                "the function gives other residuals than in the fit: something that it uses has "
                "changed, as a variable of a loop does. Ask for the Jacobian or the errors before "
                "that, or bind what it uses (a default argument, functools.partial)."
            )

    def all(self) -> Tensor | None:
        """J of all of them, (..., m, n); None where it does not fit the memory."""
        entries = self.x.numel() * self.problem.residual.rows
        if not _memory.fits(entries * self.problem.dtype.itemsize, self.x.device, self.limit):
            return None
        if self.x.ndim == 1:
            return self.of(None)
        return torch.cat([self.of(chosen) for chosen in ranges(len(self.x), self.block)])
