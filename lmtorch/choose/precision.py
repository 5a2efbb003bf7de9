"""In which dtype sums over rows and factors of the equations are made."""

from dataclasses import replace

import torch

from .._errors import InputError
from ..linearizations.normal import NormalForm
from ..solvers.base import Solver
from ..solvers.cholesky import Cholesky
from .facts import Facts
from .options import SMALL, Options


def arithmetic(facts: Facts, options: Options) -> tuple[torch.dtype, str]:
    """The dtype of the linear algebra, and why.

    Raises:
        InputError: it is asked for what the parameters or the device do not have.
    """
    asked, small = options.precision, facts.parameters <= SMALL
    own = str(facts.dtype).removeprefix("torch.")
    if facts.dtype == torch.float64:
        if asked in ("single", "mixed"):
            raise InputError(
                f"precision={asked!r} is for parameters in float32 or less, and these are float64, "
                "whose digits it would throw away. Leave it out, or convert the model: "
                "model.float()."
            )
        return torch.float64, "as the parameters"
    if facts.device.type == "mps":
        if asked in ("mixed", "double"):
            raise InputError(f"precision={asked!r} needs float64, which {facts.device} has not.")
        return torch.float32, "the device has no float64"
    if asked == "mixed":
        return torch.float64, f"given: sums and factors, of products in {own}"
    if asked != "auto":
        return torch.float64 if asked == "double" else torch.float32, "given"
    if small:
        return torch.float64, f"n <= {SMALL}: products of {own} numbers are exact in it, and cheap"
    return torch.float32, f"n > {SMALL}"


def mixed(solver: Solver) -> Cholesky:
    """The solver with sums in its own dtype, of products in float32.

    Raises:
        InputError: it sums no products of rows.
    """
    if not isinstance(solver, Cholesky):
        raise InputError(
            "precision='mixed' sums products of rows, and "
            f"{type(solver).__name__} has none: choose solver='cholesky', or precision='double'."
        )
    return replace(solver, form=NormalForm(torch.float32))
