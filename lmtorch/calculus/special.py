"""Special functions that torch lacks, on any device, with exact derivatives of any order.

They are made of what `faddeeva.py` computes by operators of torch, which autograd and `torch.func`
go through; dual numbers and jets have the derivatives of `voigt_profile` in closed form, from
`rules.py`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .._arrays import is_tensor
from .._errors import InputError, InputTypeError
from .faddeeva import profiles


def voigt_profile(x: Any, sigma: Any, gamma: Any) -> Any:
    """Return a Gaussian of standard deviation σ, convolved with a Lorentzian of half width γ.

    V(x; σ, γ) = Re w(z) / (σ√(2π)) with z = (x + iγ)/(σ√2); its area is 1, and its units are those
    of 1/x. At σ = 0 it is the Lorentzian, at γ = 0 the Gaussian, with the derivatives that belong
    to them; it is even in σ, and is continued to γ < 0. With σ = γ = 0 it is zero, at x = 0 NaN.

    Args:
        x: distance from the centre, a tensor.
        sigma: σ, a number or a tensor.
        gamma: γ, a number or a tensor. The three broadcast.

    Returns:
        A tensor in the dtype and on the device of the arguments. V and its first derivatives have
        all but the last digit or two of their dtype, also far from the centre.

    Raises:
        InputTypeError: all are arrays or numbers, and one is an array.

    Source: see `faddeeva`; NIST Digital Library of Mathematical Functions, 7.19.

    Example:
        >>> import torch
        >>> from lmtorch.models import voigt_profile
        >>> voigt_profile(torch.tensor([0.0, 2.0], dtype=torch.float64), 1.0, 0.5)
        tensor([0.2790, 0.0824], dtype=torch.float64)
    """
    like = next((z for z in (x, sigma, gamma) if is_tensor(z)), None)
    if like is None and any(getattr(z, "ndim", 0) for z in (x, sigma, gamma)):
        raise InputTypeError("voigt_profile takes tensors: of an array make one, torch.tensor(x).")
    like = torch.zeros(()) if like is None else like
    operands = tuple(
        z if is_tensor(z) else torch.as_tensor(z, dtype=like.dtype, device=like.device)
        for z in (x, sigma, gamma)
    )
    if has_torch_function(operands):
        return handle_torch_function(voigt_profile, operands, *operands)
    x, sigma, gamma = _alike(*operands)
    return profiles(x, gamma, math.sqrt(2) * sigma, 1)[0][0]


def _alike(*operands: Tensor) -> list[Tensor]:
    """Tensors in one dtype and shape."""
    dtype = operands[0].dtype
    for z in operands[1:]:
        dtype = torch.promote_types(dtype, z.dtype)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    return list(torch.broadcast_tensors(*(z.to(dtype) for z in operands)))


def faddeeva(z: Any) -> Tensor:
    """Return the Faddeeva function w(z) = e^(−z²) erfc(−iz) of complex numbers.

    scipy.special.wofz, for tensors on any device, with derivatives of any order: w′ = −2zw + 2i/√π.
    In the upper half plane the error is some 1e-15 of |w| in double precision, and that of the real
    and of the imaginary part some 5e-15 of each. In the lower half plane, where
    w(z) = 2e^(−z²) − w(−z), it is that of e^(−z²), which overflows below −26i.

    Args:
        z: complex, or real, any shape.

    Returns:
        Complex, in the shape of z, on its device.

    Raises:
        InputError: z is no tensor of real or complex numbers.

    Source: Al Azah & Chandler-Wilde, SIAM J. Numer. Anal. 59 (2021) 2346; see also Poppe & Wijers,
    ACM Trans. Math. Softw. 16 (1990) 38, and Zaghloul & Ali, ibid. 38 (2011) 15.

    Example:
        >>> import torch
        >>> from lmtorch.models import faddeeva
        >>> faddeeva(torch.tensor([0.0, 1 + 1j, 3j], dtype=torch.complex128))
        tensor([1.0000+0.0000j, 0.3047+0.2082j, 0.1790+0.0000j], dtype=torch.complex128)
    """
    if not isinstance(z, Tensor) or not (z.is_complex() or z.is_floating_point()):
        kind = f"a tensor of {z.dtype}" if isinstance(z, Tensor) else f"a {type(z).__name__}"
        raise InputError(f"faddeeva got {kind}. Give it a tensor of complex or real numbers.")
    real = z.real if z.is_complex() else z
    imag = z.imag if z.is_complex() else torch.zeros_like(z)
    ((u, v),) = profiles(real, imag, torch.ones_like(real), 1)
    return torch.complex(u, v) * math.sqrt(math.pi)
