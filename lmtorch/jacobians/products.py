"""No rows at all: J v and Jᵀw by automatic differentiation, for steps that hold no matrix.

J v is reverse mode twice, which asks less of the operators than forward mode does.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._autodiff import Graph, Params
from ..residuals.base import Part
from ..residuals.replay import Replay
from ..rows.matrix import DenseRows
from ..rows.products import ProductRows
from .base import Block, Workspace

_NOTHING = nullcontext()


@dataclass(frozen=True)
class Products:
    """Rows by their products alone.

    Args:
        keep: whether the graph of an evaluation stays for the next product. It takes memory in
            proportion to all samples; otherwise every product evaluates the residuals again, a part
            at a time.
    """

    keep: bool = True
    kinds: ClassVar[tuple[type, ...]] = (ProductRows, DenseRows)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """The residuals of a part and their rows, written out only where nothing else is taken."""
        differential = Differential(part, params, keep=self.keep)
        rows = ProductRows(differential)
        if ProductRows in workspace.kinds:
            yield Block(differential.values, rows)
        else:
            matrix = workspace(rows.shape[-2])
            yield Block(differential.values, DenseRows(matrix.copy_(rows.dense())))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The part's residuals."""
        return part.evaluate(params)


class Differential:
    """J of a part at a point.

    Args:
        part: whose residuals. Every evaluation draws the same random numbers, and leaves what it
            writes to as it was.
        params: where.
        keep: whether the graph stays for the next product.
    """

    def __init__(self, part: Part, params: Params, *, keep: bool) -> None:
        self.part, self.params = part, params
        self.sizes = [p.shape[part.batch :].numel() for p in params]
        self.replay = None
        if part.random or part.kept:
            self.replay = Replay(params[0].device, part.random, part.kept)
        graph = self._evaluated()
        self.values = graph.values.detach()
        self.graph = graph if keep else None

    @property
    def shape(self) -> torch.Size:
        """(..., m, n)."""
        return torch.Size((*self.values.shape, sum(self.sizes)))

    @property
    def like(self) -> Tensor:
        """The residuals."""
        return self.values

    def push(self, v: Tensor) -> Tensor:
        """J v, (..., m), in the dtype of v."""
        return self._pushed(self._at_hand(), v)

    def pull(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n), in the dtype of w."""
        return self._at_hand().pull(w).to(w.dtype)

    def around(self, v: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """Jᵀ weigh(J v), (..., n), of one evaluation."""
        graph = self._at_hand()
        return graph.pull(weigh(self._pushed(graph, v))).to(v.dtype)

    def _pushed(self, graph: Graph, v: Tensor) -> Tensor:
        parts = v.split(self.sizes, -1)
        pairs = zip(parts, self.params, strict=True)
        return graph.push(tuple(part.reshape(p.shape).to(p.dtype) for part, p in pairs)).to(v.dtype)

    def _at_hand(self) -> Graph:
        return self._evaluated() if self.graph is None else self.graph

    def _evaluated(self) -> Graph:
        with _NOTHING if self.replay is None else self.replay():
            return Graph(self.part.function, self.params, self.part.batch)
