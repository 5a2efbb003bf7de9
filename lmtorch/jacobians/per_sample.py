"""Per sample: `vmap` over independent samples of the reverse-mode Jacobian of one.

A batch of s samples with k residuals each has s·k rows, but only s blocks of (k, n) that are not
zero: k VJPs for each sample, all samples at once, in chunks that stay in cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from .._autodiff import Params, ranges
from .._errors import InputError
from ..residuals.base import Part
from .base import Workspace

Single = Callable[..., Tensor]  # residuals (k,) of the parameters and one sample


@dataclass(frozen=True)
class PerSample:
    """Rows of J sample by sample, in reverse mode.

    Args:
        chunk: samples at once. Default: by the cache in the optimizer, elsewhere all of a part.
    """

    chunk: int | None = None

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One block for each chunk of the part."""
        for function, samples in self._chunks(part):

            def rows_of(
                params: Params, *sample: Tensor, function: Single = function
            ) -> tuple[Params, Tensor]:
                residual, pullback = vjp(lambda p: function(p, *sample), params)[:2]
                # one VJP needs no vmap over the rows of a sample, which would cost a fifth
                if residual.shape[0] == 1:
                    return pullback(torch.ones_like(residual))[0], residual
                directions = torch.eye(
                    residual.shape[0], dtype=residual.dtype, device=residual.device
                )
                return vmap(lambda w: pullback(w)[0])(directions), residual

            def of_all(*tensors: Tensor, rows_of: Any = rows_of) -> tuple[Params, Tensor]:
                own, samples = tensors[: len(params)], tensors[len(params) :]
                return vmap(rows_of, _over(samples), randomness="different")(own, *samples)

            parts, residual = part.pure("per sample", of_all, (*params, *samples))
            residual = residual.reshape(-1)
            rows = workspace(residual.shape[0])
            start = 0
            for gradient, param in zip(parts, params, strict=True):
                stop = start + param.numel()
                rows[:, start:stop] = gradient.reshape(residual.shape[0], -1)
                start = stop
            yield residual, rows

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Use the same `vmap` if random numbers are drawn: a plain call draws in another order."""
        if not part.random:
            return part.evaluate(params)
        values = [
            vmap(function, _over(samples), randomness="different")(params, *samples).reshape(-1)
            for function, samples in self._chunks(part)
        ]
        return torch.cat(values)

    def _chunks(self, part: Part) -> Iterator[tuple[Single, tuple[Tensor, ...]]]:
        if part.sample is None:
            raise InputError(
                "a per-sample Jacobian needs the samples: call step(closure, *batch), or "
                "choose another source."
            )
        count = part.samples[0].shape[0]
        for chosen in ranges(count, self.chunk or count):
            yield part.sample, tuple(t[chosen] for t in part.samples)


def _over(samples: tuple[Tensor, ...]) -> tuple[int | None, ...]:
    """in_dims of `vmap`: the parameters are the same for all."""
    return (None, *(0 for _ in samples))
