"""How the derivatives of a term are taken: from which sources, and how many samples at a time."""

import math
from typing import Any

import torch

from .. import _memory
from .._arrays import tensor_of
from .._errors import InputError
from ..jacobians.autograd import Autograd
from ..jacobians.base import JacobianSource
from ..jacobians.dual_numbers import DualNumbers
from ..jacobians.forward import Forward
from ..jacobians.given import GivenJacobian
from ..jacobians.layerwise import LayerWise
from ..jacobians.per_sample import PerSample
from ..jacobians.products import Products
from ..jacobians.reverse import Reverse
from .facts import Facts
from .members import DIFFERENCES
from .options import SMALL

# rows of a column on a CPU where few parameters have many: several columns fit the cache of a core
COLUMN = 16384
GRAPHS = 4  # intermediate results of an evaluation that J v and Jᵀw together keep


def black_box(jacobian: Any) -> bool:
    """Whether derivatives are not torch's: by differences, or the user's own."""
    return differences(jacobian) in DIFFERENCES or isinstance(jacobian, GivenJacobian)


def differences(jacobian: Any) -> str:
    """The formula of finite differences, if they are asked for."""
    return jacobian if isinstance(jacobian, str) else getattr(jacobian, "method", "")


def slope_error(jacobian: Any, precision: torch.dtype) -> float:
    """The relative error of the derivatives beyond round-off, which finite differences have."""
    method, eps = differences(jacobian), torch.finfo(precision).eps
    if method not in DIFFERENCES:
        return 0.0
    order = 1 if method == "2-point" else 2
    step = getattr(jacobian, "step", None)
    if step is None:
        return eps ** (order / (order + 1))
    step = float(tensor_of(step).abs().max())
    return step**order + eps / step


def chunks(
    facts: Facts, jacobian: Any, limit: int | None, dtype: torch.dtype
) -> tuple[int, int, str]:
    """How many samples are evaluated together, and of how many rows of J are made together.

    Reverse mode keeps intermediate results of many samples, and makes their rows, which are larger,
    a few at a time; other sources make the rows of all that they evaluate at once. A row counts
    twice: as made, and in the workspace.

    Returns:
        Both, and the numbers behind them.
    """
    count = facts.samples or facts.leading
    if count is None:
        return 0, 0, ""
    k = max(1, facts.residuals // count)
    row = k * facts.parameters * (dtype.itemsize + facts.dtype.itemsize)
    if facts.samples is None:
        rows = _memory.stream_rows(row, facts.device, limit, _memory.CACHE_ROWS)
        return 0, _even(count, rows), ""
    each, most = 2 * k * facts.activations, facts.samples
    if facts.functional and facts.parameters <= SMALL and jacobian == "auto":
        rows, each = facts.samples, each + row
        if facts.device.type == "cpu":
            most = max(1, COLUMN // k)
    elif _reverse(facts, jacobian):
        rows = _memory.stream_rows(row, facts.device, limit, _memory.CACHE_ROWS)
    else:
        rows, each = facts.samples, each + row
    chunk = _even(facts.samples, min(most, _memory.stream_rows(each, facts.device, limit)))
    rows = _even(chunk, rows)
    return (
        chunk,
        rows,
        f"{each / 2**10:.3g} KiB each; rows of J for {rows} at once, {row * rows / 2**20:.3g} MiB",
    )


def _even(count: int, most: int) -> int:
    """The size of the fewest equal parts of so many samples that are not larger than `most`."""
    return -(-count // -(-count // most))


def _reverse(facts: Facts, jacobian: Any) -> bool:
    """Whether derivatives of samples are taken in reverse mode."""
    k = max(1, facts.residuals // (facts.samples or 1))
    if jacobian in ("auto", "per_sample"):
        return facts.parameters > k
    return jacobian == "reverse"


def by_products(
    facts: Facts, limit: int | None, share: float | None
) -> tuple[tuple[JacobianSource, ...], str]:
    """The source of products: of the factors of layers, or of the graph of an evaluation.

    Either is kept where it fits; otherwise every product evaluates the residuals again.

    Args:
        facts: of a term.
        limit: bytes that one allocation may take.
        share: of the samples that the products are of; None: all.
    """
    if facts.streams:
        return (Products(True),), "J v and J^T w: each product is a pass over the loader"
    count = math.ceil((facts.samples or 1) * (share or 1.0))
    touched = GRAPHS * facts.activations * count
    keep = _memory.fits(touched, facts.device, limit)
    what = "kept" if keep else "made anew for each product"
    why = f"J v and J^T w: graphs of {touched / 2**20:.3g} MiB are {what}"
    if keep and facts.samples is not None:
        return (LayerWise(), Products(keep)), f"{why}, or the factors of linear layers"
    return (Products(keep),), why


def sources(
    facts: Facts, jacobian: Any, limit: int | None, chunk: int, rows: int
) -> tuple[tuple[JacobianSource, ...], str]:
    """The chosen source, then those that are tried where it fails; and why it was chosen."""
    n, m, given = facts.parameters, facts.residuals, jacobian
    k = m if facts.samples is None else m // facts.samples
    part = m if facts.samples is None else k * chunk
    touched = facts.activations * (1 if facts.samples is None else chunk)
    columns, rows_at_once = (
        _memory.most(2 * touched + part * 8, count, facts.device, limit) for count in (n, m)
    )
    forward, reverse = Forward(columns), Reverse(rows_at_once)
    last, slow = Autograd(rows_at_once), Autograd(rows_at_once, batched=False)
    if not isinstance(given, str):
        return (given if isinstance(given, JacobianSource) else GivenJacobian(given),), "given"
    if given in DIFFERENCES:
        return (DIFFERENCES[given],), "given"
    if given == "autograd":
        return (last, slow), "given"
    if given == "per_sample" and facts.samples is None:
        raise InputError(
            "jacobian='per_sample' needs the samples: call step(closure, *batch) with the batch."
        )
    by_rows: tuple[JacobianSource, ...] = (
        (reverse,) if facts.samples is None else (LayerWise(rows), PerSample(rows))
    )
    rungs = (*by_rows, last, slow)
    if not _reverse(facts, jacobian):
        rungs = (forward, *rungs)
    if given in ("forward", "reverse"):
        return rungs, "given"
    if facts.functional and n <= SMALL and facts.samples is not None:
        layers, *others = rungs if n > k else (LayerWise(rows), *rungs)
        return (layers, DualNumbers(), *others), (
            f"n <= {SMALL} and many rows: those of linear layers, otherwise value and columns from "
            "one evaluation"
        )
    if facts.functional and n <= SMALL:
        return (DualNumbers(), *rungs), f"n <= {SMALL}: value and columns from one evaluation"
    if (
        facts.samples is None
        and facts.leading is not None
        and facts.leading > 1
        and m // facts.leading < n
    ):
        why = (
            f"{facts.leading} blocks of rows, perhaps of independent samples: "
            f"{m // facts.leading} VJPs"
        )
        return (LayerWise(rows), *rungs), why
    what = "residuals" if facts.samples is None else "residuals of a sample"
    if n <= k:
        return rungs, f"n = {n} <= {k} {what}: {n} JVPs rather than {k} VJPs"
    return rungs, f"n = {n} > {k} {what}: {k} VJPs rather than {n} JVPs"
