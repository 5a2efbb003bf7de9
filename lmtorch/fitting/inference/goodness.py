"""How well a fit goes with its data: the likelihood of normal data, and how probable a χ² is."""

import math

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..measurements.data import Data

# what is saved, and written as JSON
STATISTICS = (
    "chisqr", "redchi", "deviance", "loglikelihood", "rsquared", "aic", "bic", "pvalue", "runs",
    "runs_pvalue",
)  # fmt: skip


def normal_likelihood(data: Data, chisqr: Tensor, absolute: bool) -> Tensor:
    """How likely normal data are.

    Args:
        data: with their errors.
        chisqr: of the fit, (...,).
        absolute: whether errors are in the units of the data; otherwise they have the common scale
            that makes the likelihood largest.

    Returns:
        The logarithm of the likelihood, (...,).
    """
    count = data.count.double()
    inverse = data.weights if data.root is None else data.root.diagonal(dim1=-2, dim2=-1)
    size = torch.zeros_like(chisqr)  # log Π 1/σ
    if inverse is not None:
        size = torch.where(inverse > 0, inverse.double(), 1.0).log().expand(data.y.shape).sum(-1)
    if absolute:
        return size - chisqr / 2 - count / 2 * math.log(2 * math.pi)
    return size - count / 2 * ((2 * math.pi * chisqr / count).log() + 1)


def exceeded(chisqr: Tensor, freedom: Tensor) -> Tensor:
    """The probability of a larger χ² with so many degrees of freedom, (...,); NaN without any."""
    from scipy.special import gammaincc  # a tenth of a second, for this alone

    half, value = to_array(freedom.double()) / 2, to_array(chisqr.double()) / 2
    found = gammaincc(np.where(half > 0, half, np.nan), value)
    return tensor_of(np.asarray(found)).to(chisqr)
