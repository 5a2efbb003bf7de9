"""How the Jacobian is had: a source writes blocks of its rows into a workspace, and evaluates residuals alike."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._autodiff import Params
from .._outer import Outer
from ..residuals.base import Part

# a wrong formula is off by more than this share; what half precision inside the closure costs is less
GROSS = 0.03
NOISE = 0.75  # power of ε: share of the largest column to which the smallest ones are known

Workspace = Callable[[int], Tensor]  # rows -> (..., rows, n), to be filled


class Block(NamedTuple):
    """Some rows; a source may also give the first two alone, as a pair."""

    residual: Tensor  # (..., rows)
    jacobian: Tensor  # (..., rows, n)
    outer: tuple[Outer, ...] = ()  # columns known to be outer products, in order


def disagrees(jacobian: Tensor, weights: Tensor, expected: Tensor, eps: float) -> bool:
    """Whether Jᵀw is far from what a plain backward pass has found for it, where all is finite.

    With random normal weights an error E of a column shows as about ‖E‖₂, however smooth it is.

    Args:
        jacobian: (..., m, n).
        weights: (m,), or (..., m).
        expected: (..., n).
        eps: round-off of the residuals, relative.
    """
    found = (jacobian.mT @ weights.to(jacobian.dtype)[..., None])[..., 0]
    size = torch.linalg.vector_norm(jacobian, dim=-2)
    allowed = GROSS * size + eps**NOISE * size.amax(-1, keepdim=True)
    far = (found - expected.to(found.dtype)).abs() > allowed
    return bool(found.isfinite().all() & far.any())


class DescendedError(Exception):
    """The source gave up and another stands in its place: what was begun must begin again."""


@runtime_checkable
class JacobianSource(Protocol):
    """One way to take derivatives."""

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[Block | tuple[Tensor, Tensor]]:
        """Residuals (..., rows) and Jacobian rows (..., rows, n), block by block; together they are the part's."""

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The part's residuals (..., m) alone, equal to those of `blocks` also where random numbers are drawn."""


@runtime_checkable
class Bending(Protocol):
    """A source that has second derivatives along a direction as well."""

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0 of a part, (..., m); None where derivatives do not give it."""
