"""The exceptions and warnings of lmtorch.

Bad input is an `InputError`, raised before any work. What happens inside an iteration (a singular matrix, a NaN at a
trial) is never an exception: it is a mask, and at last a `Status`.
"""

import sys

INSIDE = ("lmtorch", "torch")


class InputError(ValueError):
    """What was passed cannot be a least-squares problem; the message says what came, what was needed and what to do.

    Example:
        >>> issubclass(InputError, ValueError)
        True
    """


class NotConvergedError(RuntimeError):
    """A curve fit came to no minimum, and has no parameters to return; the message says where it ended, and what helps.

    Example:
        >>> issubclass(NotConvergedError, RuntimeError)
        True
    """


class FallbackWarning(UserWarning):
    """The chosen way to the Jacobian does not work for this model, and another one serves instead.

    The message names the operator that refused and what was chosen. It comes once for each optimizer.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", FallbackWarning)   # if the fallback is fine with you
    """


def level() -> int:
    """The `stacklevel` at which a warning points to the user's line: the nearest outside lmtorch and torch."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in INSIDE:
        frame, depth = frame.f_back, depth + 1
    return depth
