"""The exceptions and warnings of lmtorch.

Bad input is an `InputError`, raised before any work. What happens inside an iteration (a singular
matrix, a NaN at a trial) never raises: a mask marks the problem, and a `Status` says it at the end.
"""

import linecache
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

INSIDE = ("lmtorch", "torch")
# modes and swaps that surround a closure while it runs
AROUND_CLOSURES = ("lmtorch.residuals", "lmtorch.training")
P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """The arguments are no least-squares problem; the message says what came and what is needed.

    Example:
        >>> issubclass(InputError, ValueError)
        True
    """


class InputTypeError(InputError, TypeError):
    """An `InputError` that is also a `TypeError`: a wrong type, or what is one in scipy.

    Example:
        >>> issubclass(InputTypeError, TypeError) and issubclass(InputTypeError, InputError)
        True
    """


class NotConvergedError(RuntimeError):
    """A curve fit came to no minimum; the message says where it ended, and what helps.

    Attributes:
        fit: the `CurveFit` at the best point that was found; None where there is none.

    Example:
        >>> import lmtorch, torch
        >>> x, y = [0.0, 1.0, 2.0], [3.0, 1.0, 0.5]
        >>> try:
        ...     lmtorch.curve_fit(lambda x, a: a * torch.exp(-a * x), x, y, max_nfev=2)
        ... except lmtorch.NotConvergedError as error:
        ...     print(error.fit.status.name, error.fit.nfev)
        EVALUATIONS 2
    """

    def __init__(self, message: str, fit: Any = None) -> None:
        super().__init__(message)
        self.fit = fit

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error with its fit, so that it can leave a pool of processes."""
        return type(self), (self.args[0], self.fit)


class RankError(RuntimeError):
    """Another process of the group, or this one, has failed: the step has ended on all of them.

    The parameters are those from before the step. Where this process itself has failed, what it
    met is the `__cause__`. After a process has ended (`lost`) the group cannot be used any more;
    otherwise the next step may be taken.

    Attributes:
        rank: of the process that failed, in the world; None where nobody could tell.
        reason: what it met, in its own words.
        lost: whether it has ended, or did not answer in the time that the group allows.
        rows_changed: whether it only had other data than before.

    Example:
        >>> from lmtorch import RankError
        >>> error = RankError(1, "residuals", "ZeroDivisionError: division by zero")
        >>> print(error)
        rank 1 has failed (residuals): ZeroDivisionError: division by zero
    """

    def __init__(
        self,
        rank: int | None,
        doing: str,
        reason: str,
        *,
        lost: bool = False,
        rows_changed: bool = False,
    ) -> None:
        who = "a rank" if rank is None else f"rank {rank}"
        what = "has ended or does not answer" if lost else "has failed"
        where = f" ({doing})" if doing else ""
        super().__init__(f"{who} {what}{where}: {reason}")
        self.rank, self.doing, self.reason = rank, doing, reason
        self.lost, self.rows_changed = lost, rows_changed

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error with all that it says."""
        return _rank_error, (self.rank, self.doing, self.reason, self.lost, self.rows_changed)


def _rank_error(
    rank: int | None, doing: str, reason: str, lost: bool, rows_changed: bool
) -> RankError:
    return RankError(rank, doing, reason, lost=lost, rows_changed=rows_changed)


class FallbackWarning(UserWarning):
    """The way to the Jacobian that was chosen does not work for this model; another one is used.

    The message names the operator that refused and the way that is used instead. Each optimizer
    warns once.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", FallbackWarning)   # if the fallback is fine with you
    """


class ZeroDerivativeWarning(UserWarning):
    """All derivatives are zero by how the function is written, which is nearly never meant.

    Second derivatives of a network with ReLU are, for example, as it is piecewise linear. The
    message names the operators and layers by which it is so.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("error", ZeroDerivativeWarning)  # end a training that learns this
        >>> warnings.simplefilter("default", ZeroDerivativeWarning)
    """


def from_within(above: int = 0) -> bool:
    """Whether the nearest caller outside torch is lmtorch, and not the user's function.

    Code that surrounds the user's function, such as modes and swaps, does not count.

    Args:
        above: how many callers to pass over, from the one of this function on.
    """
    frame = sys._getframe(1 + above)
    while (
        frame.f_back is not None
        and (name := frame.f_globals.get("__name__", "")).split(".")[0] in INSIDE
    ):
        if name.split(".")[0] == "lmtorch" and not name.startswith(AROUND_CLOSURES):
            return True
        frame = frame.f_back
    return False


def stopped(error: BaseException) -> bool:
    """Whether an error is a StopIteration, or the RuntimeError that a generator makes of one."""
    return isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration)


def as_raised(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a reader of generators so that the user's StopIteration comes out as it was."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if isinstance(error.__cause__, StopIteration):
                raise error.__cause__ from None
            raise

    return call


def level() -> int:
    """The `stacklevel` at which a warning points to the user's line, outside lmtorch and torch."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in INSIDE:
        frame, depth = frame.f_back, depth + 1
    return depth


def warn_of_fit(text: str) -> None:
    """Warn the user of a fit as scipy does, by its category, which is imported for that alone.

    Args:
        text: what is wrong with the fit.
    """
    from scipy.optimize import OptimizeWarning  # a quarter of a second

    warnings.warn(text, OptimizeWarning, stacklevel=level())


def users_line(error: BaseException) -> str:
    """The user's line that an exception came from, for messages: ", in `F.one_hot(y, 3)`"."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals.get("__name__", "").split(".")[0] not in INSIDE:
            code = linecache.getline(
                frame.f_code.co_filename, trace.tb_lineno, frame.f_globals
            ).strip()
            line = f", in `{code}`" if code else ""
        trace = trace.tb_next
    return line
