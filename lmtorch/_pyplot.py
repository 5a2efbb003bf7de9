"""matplotlib, where a picture is asked for."""

from typing import Any

from ._errors import InputError


def pyplot() -> Any:
    """Import matplotlib, or say what is missing.

    Returns:
        `matplotlib.pyplot`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install matplotlib.") from error
    return plt
