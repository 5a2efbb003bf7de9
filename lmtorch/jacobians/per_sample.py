"""Per sample: `vmap` over independent samples of the reverse-mode Jacobian of one.

A batch of s samples with k residuals each has s·k rows, but only s blocks of (k, n) that are not zero: k VJPs for
each sample, all samples at once, in chunks that stay in cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vjp, vmap

from .._autodiff import Params
from .._errors import InputError
from ..residuals.base import Part
from .base import Workspace


@dataclass(frozen=True)
class PerSample:
    """Rows of J sample by sample, in reverse mode; the parts of the residual are the chunks."""

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """One block for the part."""
        if part.sample is None:
            raise InputError(
                "a per-sample Jacobian needs the samples: call step(closure, *batch), or choose another source."
            )
        function = part.sample

        def rows_of(params: Params, *sample: Tensor) -> tuple[Params, Tensor]:
            residual, pullback = vjp(lambda p: function(p, *sample), params)[:2]
            if residual.shape[0] == 1:  # one VJP needs no vmap over the rows of a sample, which would cost a fifth
                return pullback(torch.ones_like(residual))[0], residual
            directions = torch.eye(residual.shape[0], dtype=residual.dtype, device=residual.device)
            return vmap(lambda w: pullback(w)[0])(directions), residual

        over = (None, *(0 for _ in part.samples))
        parts, residual = vmap(rows_of, over, randomness="different")(params, *part.samples)
        residual = residual.reshape(-1)
        rows = workspace(residual.shape[0])
        start = 0
        for gradient, param in zip(parts, params, strict=True):
            stop = start + param.numel()
            rows[:, start:stop] = gradient.reshape(residual.shape[0], -1)
            start = stop
        yield residual, rows

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Under the same `vmap` where random numbers are drawn: a plain call would draw them in another order."""
        if not part.random or part.sample is None:
            return part.function(params)
        over = (None, *(0 for _ in part.samples))
        residual: Tensor = vmap(part.sample, over, randomness="different")(params, *part.samples)
        return residual.reshape(-1)
