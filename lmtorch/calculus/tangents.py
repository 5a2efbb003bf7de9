"""Arithmetic of derivatives: tensors, or numbers where they are the same everywhere."""

from typing import Any

import torch
from torch import Tensor

from .duals import Firsts, Seconds, Tangent

FLOATING = (torch.float64, torch.float32)
REMEMBERED = 256  # numbers that are kept as tensors, at most
_NUMBERS: dict[tuple[float, torch.dtype], Tensor] = {}


def like(factor: Any, value: Tensor) -> Any:
    """A factor in the dtype of the product; an integer's quotient by a number would be float32."""
    if isinstance(factor, Tensor) and factor.dtype != value.dtype:
        return factor.to(value.dtype)
    return factor


def number_as_tensor(number: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor, on the CPU, which operators take beside those of any device."""
    made = _NUMBERS.get((number, dtype))
    if made is None:
        made = torch.tensor(number, dtype=dtype, device="cpu")
        if type(made) is Tensor and len(_NUMBERS) < REMEMBERED:  # no mode's stand-in is kept
            _NUMBERS[number, dtype] = made
    return made


def times(part: Tangent, factor: Any) -> Tangent:
    """Part · factor; by ±1 nothing is multiplied."""
    product: Tangent
    if type(part) is float:
        product = factor if part == 1 else -factor if part == -1 else factor * part
    else:
        product = factor * part
    return product


def fused(known: Tangent, part: Tangent, factor: Tensor) -> Tangent:
    """Known + part · factor."""
    if isinstance(known, Tensor) and isinstance(part, Tensor):
        return torch.addcmul(known, part, factor)
    return known + times(part, factor)


def add_(parts: dict[Any, Tangent], more: dict[Any, Tangent]) -> None:
    """Add derivatives to others."""
    for key, part in more.items():
        known = parts.get(key)
        parts[key] = part if known is None else known + part


def add_outer_(
    second: Seconds, left: Firsts, right: Firsts, bend: Tensor | None, symmetric: bool = False
) -> None:
    """Add bend · (∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb); with `symmetric`, bend · ∂ᵢz ∂ⱼz."""
    for i, one in left.items():
        weighted = one if bend is None else times(one, bend)
        for j, other in right.items():
            if symmetric and j < i:
                continue
            term = times(other, weighted) if isinstance(weighted, Tensor) else weighted * other
            if not symmetric and i == j:
                term = 2 * term
            key = (i, j) if i <= j else (j, i)
            known = second.get(key)
            second[key] = term if known is None else known + term
