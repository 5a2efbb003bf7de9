"""What a minimisation found, in scipy's words."""

import sys
from typing import Any

from scipy.optimize import OptimizeResult

from ..core.termination import Status


class Solution(OptimizeResult):
    """The result of `least_squares`: a dict whose entries are attributes too, as scipy's.

    Arrays are NumPy if x0 was, tensors on the device of x0 if it was a tensor. With `in_dims` every
    field has the batch (b,) in front, and `message` is a list.

    Attributes:
        x: the solution, in the structure, dtype and device of x0.
        cost: ½Σρ(r²) there, in squared units of the residuals.
        fun: the residuals r (m,), flat.
        jac: J (m, n), with the rows of a robust loss rescaled, so that JᵀJ is the Gauss–Newton
            matrix of the cost; columns in the order of the flattened x. None where it does not fit
            the memory.
        grad: the gradient of the cost, (n,).
        optimality: largest entry of the gradient in the variables that are free to move.
        active_mask: −1 or 1 where a variable is at its lower or upper bound, else 0; int (n,).
        nfev: evaluations of the residuals: one at each start, and those at trial points, of all
            runs together; not those of finite differences, as in scipy.
        njev: Jacobians, one at each start and at each point that was kept.
        calls: how often `fun` was called in all, for whatever purpose: to look at it, for trials,
            for differences, for what is asked about the end; of all problems of a batch together.
        status: a `Status`, which is an int with scipy's numbers: positive for success alone.
        message: the status in words, with its evidence.
        success: whether a minimum was found, to the tolerances, and certified where the problem is
            small.
        promise: share of the cost that a model of it without damping still promises at x; NaN where
            it was not made.
        lost: whether a parameter has lost its influence, (n,) bool, flat.
        f_scale: the scale C of the loss; what "mad" estimated, or as given.
        history: reports of all iterations, if asked for.
        starts: of a multi-start, the solutions from all starts, with the batch in front.

    Example:
        >>> import torch, lmtorch
        >>> start = torch.tensor([1.0], dtype=torch.float64)
        >>> solution = lmtorch.least_squares(lambda x: x**2 - 2, start)
        >>> solution.success, solution["x"]
        (True, tensor([1.4142], dtype=torch.float64))
    """

    @property
    def reasons(self) -> list[Status]:
        """The status of each problem; of a single one, in a list of one."""
        status: Any = self["status"]
        return [
            Status(int(s)) for s in (status.tolist() if hasattr(status, "tolist") else [status])
        ]

    def explained(self, text: str) -> None:
        """Keep what `explain` prints, beside the entries.

        Args:
            text: a table.
        """
        object.__setattr__(self, "_explanation", text)

    def explain(self) -> None:
        """Print what was chosen, the numbers behind it, and how the run ended."""
        message = self["message"]
        ended = message if isinstance(message, str) else f"{len(message)} problems"
        known = self.__dict__.get("_explanation", "nothing is known of how it was found")
        sys.stdout.write(f"{known}\n{ended}\n")
