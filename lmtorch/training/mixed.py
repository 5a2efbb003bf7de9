"""Rows of a criterion's curvature mixed by random signs: one or two of a sample in the place of k.

The k rows R J of a sample cost a backward pass each. With a vector v of random signs one row
vᵀR J has, on average over v, the square of all of them,

    E[(vᵀR J)ᵀ vᵀR J] = JᵀR E[v vᵀ] R J = JᵀRᵀR J,

and of so many rows in all, those of many samples say more than the k rows of few, which are much
alike. The cost and its gradient are those of all samples, and exact. Where rows of all samples are
mixed, these are had of the same evaluation by one more backward pass.

References: Hutchinson, A stochastic estimator of the trace of the influence matrix (1990), for
signs; Martens, Sutskever & Swersky, Estimating the Hessian by back-propagating curvature (2012);
Ren & Goldfarb, Efficient subsampled Gauss–Newton and natural gradient methods for training neural
networks (2019), for steps by few rows of a batch.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params, ranges, side_by_side
from ..losses.base import sloped
from ..residuals.base import Part
from .closure import SampleResidual


class MixedResidual:
    """Rows v_iᵀR J/√k of some samples, r of each: on average a share r/k of the JᵀJ of all k.

    Args:
        of: the samples, whose closure returns a criterion's outputs.
        signs: v, (s, r, k).
        whole: whether they are all samples there are, in their order.
    """

    def __init__(self, of: SampleResidual, signs: Tensor, *, whole: bool = False) -> None:
        self.of, self.signs, self.whole = of, signs, whole
        self.draws = of.draws
        # cost and Jᵀℓ′ of the chunks of the last evaluation, by the first sample
        self.noted: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def rows(self) -> int:
        """r of each sample."""
        return self.signs.shape[:2].numel()

    @property
    def losses(self) -> list[Any]:
        """None: the rows have the root of it in them."""
        return []

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.of.params(x)

    def begin(self) -> None:
        """Forget what the last evaluation has shown of all samples."""
        self.noted.clear()

    def of_all(self) -> list[tuple[Tensor, Tensor]] | None:
        """What the last evaluation has shown of all samples.

        Returns:
            Cost and Jᵀℓ′, chunk by chunk; None: it was of some of the samples, or of each alone.
        """
        starts = [chosen.start for chosen in ranges(self.of.samples.count, self.of.chunk)]
        shown = [self.noted[start] for start in starts if start in self.noted]
        return shown if shown and len(shown) == len(starts) else None

    def parts(self) -> Iterable[Part]:
        """Chunks of samples, in order."""
        for chosen in ranges(self.of.samples.count, self.of.chunk):
            tensors, signs = self.of.samples.take(chosen), self.signs[chosen]
            start = chosen.start if self.whole else None
            yield Part(
                partial(self._rows, tensors=tensors, signs=signs, start=start),
                partial(self.of.run, tensors=tensors),
                sample=self._of_one,
                samples=(*tensors, signs),
                random=self.draws.random,
                kept=self.draws.kept,
                whole=self.of.chunk >= self.of.samples.count,
                weight=self.of.weight,
            )

    def replay(self) -> AbstractContextManager[None]:
        """A context for each evaluation: all of a step draw the same random numbers."""
        return self.draws()

    def take(self, places: Tensor) -> "MixedResidual":
        """There is one problem."""
        return self

    def _rows(
        self, params: Params, tensors: Sequence[Tensor], signs: Tensor, start: int | None = None
    ) -> Tensor:
        """The outputs of s samples by weights that belong to the point, (s · r,)."""
        outputs, result = self.of.evaluated(params, tensors)
        with torch.no_grad():
            values, loss = outputs.detach(), result.bound()
            weights = loss.mixed(values.reshape(-1), signs) / signs.shape[-1] ** 0.5
            if start is not None:
                self._note(start, params, outputs, loss)
        with torch.enable_grad():
            return (weights.to(outputs.dtype) * outputs[:, None]).sum(-1).reshape(-1)

    def _note(self, start: int, params: Params, outputs: Tensor, loss: Any) -> None:
        """Keep what a chunk adds to cost and gradient, by a pass through the graph of its rows.

        Within a transform of torch.func there is no such graph, nor where nothing is differentiated
        or the rows are to have second derivatives.
        """
        if torch._C._are_functorch_transforms_active():
            return
        if not (outputs.requires_grad and all(p.requires_grad and p.is_leaf for p in params)):
            return
        value, slope = sloped(loss, outputs.detach().reshape(-1))
        shares = torch.autograd.grad(
            outputs,
            params,
            slope.view(outputs.shape).to(outputs.dtype),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        found = side_by_side([g.to_dense() if g.is_sparse else g for g in shares], 0)
        self.noted[start] = value, found.detach()

    def _of_one(self, params: Params, *sample: Tensor) -> Tensor:
        """Those of one sample, (r,)."""
        *tensors, signs = (t[None] for t in sample)
        return self._rows(params, tensors, signs)


def mixed(
    of: SampleResidual, each: int, generator: torch.Generator, *, whole: bool = False
) -> MixedResidual:
    """The rows of these samples, `each` of a sample; `whole`: they are all samples there are."""
    shape = (of.samples.count, each, of.per_sample)
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
    device = of.samples.tensors[0].device
    return MixedResidual(of, (2 * signs - 1).to(device, non_blocking=True), whole=whole)
