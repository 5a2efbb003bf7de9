"""What the first evaluations of a function or closure show: how can it be differentiated?"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._autodiff import Pulled


class Probe(NamedTuple):
    """The facts about one function of the parameters."""

    rows: int  # residuals; of one sample where there are samples, of one problem in a batch
    activations: int  # bytes of all intermediate results of one evaluation, of so many residuals
    random: bool = False  # an evaluation draws random numbers
    written: tuple[Tensor, ...] = ()  # what an evaluation writes to
    differentiates: bool = False  # it takes derivatives by itself
    leading: int | None = None  # the first dimension of the residuals, if they are one tensor
    # stand-ins for the parameters do not reach its backward pass: they must carry the values
    in_place: bool = False
    targeted: bool = False  # they are outputs of a criterion, with targets
    black_box: bool = False  # no derivatives lead through it
    looped: bool = False  # torch.vmap refuses it
    finite: bool = True  # the residuals at the start of the first problem are
    size: float = 0.0  # the largest of them, absolute; 0: nobody looked
    precision: torch.dtype | None = None  # the coarser of the parameters' and the residuals'
    residual: Tensor | None = None  # (m,), at the start of the first problem; None: not kept
    pulled: Pulled | None = None  # by a plain backward pass there
