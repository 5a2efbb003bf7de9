"""Bars of tqdm, which the faces show where they are asked for."""

from typing import Any

from ._errors import InputError


def bars() -> Any:
    """The class of tqdm's bars, which go to standard error, and in notebooks are widgets.

    Returns:
        The class.

    Raises:
        InputError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise InputError("progress=True needs tqdm: pip install tqdm.") from error
    return tqdm
