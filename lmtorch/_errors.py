"""The exceptions and warnings of lmtorch.

Bad input is an `InputError`, raised before any work. What happens inside an iteration (a singular matrix, a NaN at a
trial) is never an exception: it is a mask, and at last a `Status`.
"""


class InputError(ValueError):
    """What was passed cannot be a least-squares problem; the message says what came, what was needed and what to do.

    Example:
        >>> issubclass(InputError, ValueError)
        True
    """


class FallbackWarning(UserWarning):
    """The chosen way to the Jacobian does not work for this model, and another one serves instead.

    The message names the operator that refused and what was chosen. It comes once for each optimizer.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", FallbackWarning)   # if the fallback is fine with you
    """
