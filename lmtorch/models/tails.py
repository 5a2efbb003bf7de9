"""A Gaussian convolved with an exponential, without overflow."""

import math
from typing import Any

import torch


def exponential_tail(x: Any, sigma: Any, rate: Any) -> Any:
    """∫₀^∞ e^(−kt) G(x − t; σ) dt = ½ e^(−kx + k²σ²/2) erfc((kσ² − x)/(σ√2)), G of area one.

    Where the erfc is small the exponential is large; their product is e^(−x²/2σ²) erfcx(u) there.
    k may be negative, a rise.

    Args:
        x: distance from the centre of the Gaussian.
        sigma: its standard deviation.
        rate: k. Tensors that broadcast.

    Returns:
        The convolution, dimensionless times x.
    """
    u = (rate * sigma - x / sigma) / math.sqrt(2)
    small = u > 0
    distance = x / sigma
    bell = torch.exp(-0.5 * distance * distance)
    before = bell * torch.special.erfcx(torch.where(small, u, 0.0))
    # the exponent is u² − x²/2σ², and for u ≤ 0 it is not above zero unless the rate is negative
    exponent = torch.where(small, 0.0, rate * (0.5 * rate * sigma * sigma - x))
    after = torch.exp(exponent) * torch.erfc(torch.where(small, 0.0, u))
    return 0.5 * torch.where(small, before, after)
