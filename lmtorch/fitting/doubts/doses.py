"""What to say where x looks like something else than the model takes: the logarithms of doses.

A Hill curve of doses and a logistic curve of their logarithms are the same, and are mistaken for
each other. A power or a logarithm of a negative number is none, and a logistic curve of doses that
differ by powers of ten is a constant.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of
from ..._errors import InputError, warn_of_fit
from ...arrays import quiet
from ...models.base import Model
from ...models.growth import Hill, Hill5
from ...models.sums import Combined
from ..fitter import Fitter
from ..measurements.data import Data

DECADES = 100.0  # largest x over the smallest, from which they are taken for doses
NUDGED = 1.0137  # times a parameter: none that was whole stays so
LEVEL = 1e-3  # of the range of the data: a curve that changes by less is the same everywhere
CROWDED = 0.1  # of the range of x: half of the points lie in it if they are doses


def warn_of_doses(f: Any, data: Data) -> None:
    """Warn where a dose–response curve of doses meets negative ones."""
    if not isinstance(f, Model) or not isinstance(data.x, Tensor):
        return
    hills = [term for term in _terms(f) if isinstance(term, Hill | Hill5)]
    below = int((data.x < 0).sum()) if hills else 0
    if below:
        name = type(hills[0]).__name__
        warn_of_fit(
            f"{name} is a curve of doses, x ≥ 0, and {below} of {data.x.numel()} x are negative, "
            "where it is the response to no dose. If x are logarithms of doses, fit "
            f"{'Logistic4' if name == 'Hill' else 'Logistic5'}, which is {name} of log x; or give "
            "the doses, 10**x."
        )


def _terms(model: Model) -> Iterator[Model]:
    if isinstance(model, Combined):
        yield from _terms(model.left)
        yield from _terms(model.right)
    else:
        yield model


def mistaken(fitter: Fitter) -> str:
    """Say what x may be, where a single fit has failed: logarithms of doses, or doses.

    Args:
        fitter: of a fit that came to no minimum.

    Returns:
        Words; "": nothing points to it.
    """
    x = _numbers(fitter.data)
    if x is None or x.numel() < 2:
        return ""
    low, high = float(x.min()), float(x.max())
    if low < 0:
        return _undefined(fitter, x)
    if not (high > DECADES * low > 0 and float(x.median()) < low + CROWDED * (high - low)):
        return ""
    curve, y = _curve(fitter, x, fitter.start.detach()), fitter.data.y.detach()
    if curve is None or not bool(curve.max() - curve.min() < LEVEL * (y.max() - y.min())):
        return ""
    return (
        f"x spans powers of ten, from {low:.3g} to {high:.3g}, and f is the same at all of them "
        "where it starts: if its parameters are of the logarithm of x, such as logEC50, give "
        "log10(x)."
    )


@contextmanager
def explained(fitter: Fitter) -> Iterator[None]:
    """Say what x may be, where a single fit is refused because it starts at what is no number.

    Raises:
        InputError: the fit was refused.
    """
    try:
        yield
    except InputError as error:
        if "not finite at the start" in str(error) and (why := mistaken(fitter)):
            raise InputError(f"the residuals are not finite at the start: {why}") from error
        raise


def _undefined(fitter: Fitter, x: Tensor) -> str:
    """Say that f is no number where x is negative, and there alone; "": that is not so.

    A power of a negative number may be one while the exponent is whole, as it is at many a start,
    so that parameters a little off are looked at, too.

    Returns:
        Words.
    """
    below, start = x < 0, fitter.start.detach()
    for p in (start, start * NUDGED):
        here, beyond = (_curve(fitter, values, p) for values in (x, x.abs()))
        if here is None or beyond is None or here.numel() != x.numel():
            return ""
        if bool(((~here.isfinite()) == below).all()) and bool(beyond.isfinite().all()):
            return (
                f"f is no number at the {int(below.sum())} of {x.numel()} points where x is "
                "negative, and is one at |x|, as with a power or a logarithm of x. If x are "
                "logarithms of doses, give the doses, 10**x, or fit a curve in the logarithm; "
                "otherwise leave these points out, or keep to where f is defined."
            )
    return ""


def _curve(fitter: Fitter, x: Tensor, p: Tensor) -> Tensor | None:
    """The model (m,) at other points; None where it cannot be called so."""
    try:
        with torch.no_grad(), quiet():
            return tensor_of(fitter.model(x, p)).reshape(-1)
    except Exception:  # whatever the user's function raises: a hint must not hide the first error
        return None


def _numbers(data: Data) -> Tensor | None:
    """The x of a single fit, a row of real numbers; None: it is something else."""
    x = data.x
    alone = isinstance(x, Tensor) and x.ndim == 1 and x.is_floating_point() and not data.lead
    return x.detach() if alone else None
