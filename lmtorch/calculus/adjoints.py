"""Reverse mode over the rule table: all outputs of all samples pulled back through a model at once.

Every value that depends on a parameter is a node, which knows how gradients in it become gradients
in what it was made of:

    linear        y = W a + b    ḡ ↦ Wᵀ ḡ        and ∂r/∂W = ḡ aᵀ, ∂r/∂b = ḡ
    elementwise   y = g(z)       ḡ ↦ g′ ḡ

A gradient ḡ is (s, k, *features) for the k outputs of each of s samples: one sweep makes what k
backward passes would. Operators are let through only where no sample meets another, so that what
comes out is right without a comparison, and is differentiable where autograd records.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base import Carrier, NoRuleError, Slopes, slopes_by_vjp, values
from .slopes import tanh

Pull = Callable[[Tensor], Tensor]  # gradients in a node, (s or 1, k, ...), to those in a source


@dataclass(frozen=True, eq=False)
class Node(Carrier):
    """A value (s, *features), with the nodes it was made of; or a parameter, which has a place."""

    value: Tensor
    sources: tuple[tuple["Node", Pull], ...] = ()
    place: int = -1  # among the parameters; −1: it is none of them


class Use(NamedTuple):
    """One use of a linear layer that has a parameter in it."""

    weight: int  # place among the parameters; −1: not one of them
    bias: int
    input: Tensor  # (s, ..., in)
    made: Node


class Adjoints:
    """How nodes go through operators; what is not here is refused.

    Args:
        count: samples.

    Attributes:
        uses: of linear layers, in the order of their evaluation.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.uses: list[Use] = []
        self._made: list[Node] = []

    def pulled(self, y: Node, gradient: Tensor) -> list[Tensor | None]:
        """Gradients in the output of each of `uses`, (s, k, ..., out), from that in y."""
        found = {y: gradient}
        kept = {use.made for use in self.uses}
        for node in reversed(self._made):
            g = found.get(node) if node in kept else found.pop(node, None)
            if g is None:
                continue
            for source, pull in node.sources:
                part = pull(g)
                found[source] = found[source] + part if source in found else part
        return [None if (g := found.get(use.made)) is None else self._whole(g) for use in self.uses]

    def _whole(self, g: Tensor) -> Tensor:
        """A gradient that is the same for all samples, for each of them."""
        return g if g.shape[0] == self.count else g.expand(self.count, *g.shape[1:])

    def _node(self, value: Tensor, *sources: tuple[Any, Pull]) -> Node:
        """A new node, if its value still has the samples in front."""
        parents = tuple((node, pull) for node, pull in sources if isinstance(node, Node))
        if value.ndim == 0 or value.shape[0] != self.count:
            raise NoRuleError("samples that do not come first")
        if value.is_complex():
            raise NoRuleError("complex numbers, whose gradients are conjugated")
        if any(node.place >= 0 for node, _ in parents):
            raise NoRuleError("a parameter acts elsewhere than in a linear layer")
        node = Node(value, parents)
        self._made.append(node)
        return node

    # ---- operators, as `base.Algebra` has them ---------------------------------------------------

    def refused(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What might lead from one sample to another, or is seldom met in networks."""
        raise NoRuleError(f"{getattr(func, '__name__', 'an operator')} is not pulled back here")

    bivariate = broadcast = compared = converted = join = linear = moved = refused
    permuted = reduced = selected = unbound = refused

    def bare(self, z: Node) -> Tensor:
        """The value."""
        return z.value

    def constant(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Every node has derivatives."""

    def chain(self, z: Node, slopes: Slopes) -> Node:
        """g(z), elementwise."""
        if slopes.value.shape != z.value.shape:
            raise NoRuleError("a function that broadcasts")
        slope = slopes.slope.unsqueeze(1)
        return self._node(slopes.value, (z, lambda g: g * slope))

    def tanh(self, z: Node) -> Node:
        """The hyperbolic tangent."""
        return self.chain(z, tanh(z.value))

    def differentiated(self, call: Callable[[Tensor], Tensor], z: Node) -> Slopes:
        """The slope of an elementwise function, by torch."""
        return slopes_by_vjp(call, z.value, False)

    def dense(self, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None) -> Node:
        """z Wᵀ + b, where W and b may be parameters."""
        matrix = values(weight)
        own = [part for part in (weight, bias) if isinstance(part, Node)]
        if matrix.ndim != 2 or values(z).ndim < 2 or any(part.place < 0 for part in own):
            raise NoRuleError("a linear layer whose weights are functions of others")
        node = self._node(func(values(z), matrix, values(bias)), (z, lambda g: g @ matrix))
        if own:
            of_weight, of_bias = (
                part.place if isinstance(part, Node) else -1 for part in (weight, bias)
            )
            self.uses.append(Use(of_weight, of_bias, values(z), node))
        return node

    def added(self, a: Any, b: Any) -> Node:
        """a + b, of nodes of one shape or of a node and a constant."""
        value = values(a) + values(b)
        if any(isinstance(part, Node) and part.value.shape != value.shape for part in (a, b)):
            raise NoRuleError("a sum that broadcasts")
        return self._node(value, (a, lambda g: g), (b, lambda g: g))

    def product(self, multiply: Callable[[Any, Any], Tensor], a: Any, b: Any) -> Node:
        """A node times a constant, or over one, entry by entry."""
        node, factor = (a, b) if isinstance(a, Node) else (b, a)
        if isinstance(factor, Node) or multiply not in (torch.mul, torch.div):
            raise NoRuleError("a product of two, or of matrices")
        if multiply is torch.div and node is b:
            raise NoRuleError("over a function of the parameters")
        value = multiply(values(a), values(b))
        if value.shape != node.value.shape:
            raise NoRuleError("a product that broadcasts")
        if isinstance(factor, Tensor) and factor.ndim:
            factor = factor.expand(value.shape).unsqueeze(1)
        return self._node(value, (node, lambda g: multiply(g, factor)))

    def quotient(self, a: Any, b: Any) -> Node:
        """a / b."""
        return self.product(torch.div, a, b)

    def reshaped(self, func: Callable[..., Tensor], z: Node, *args: Any, **kwargs: Any) -> Node:
        """Features in another shape, the samples as they were."""
        value = func(z.value, *args, **kwargs)
        shape = z.value.shape[1:]
        if value.dtype != z.value.dtype:
            raise NoRuleError("the same bits in another dtype")
        return self._node(value, (z, lambda g: g.reshape(*g.shape[:2], *shape)))

    def indexed(self, func: Callable[..., Tensor], z: Node, places: Any) -> Node:
        """z[:, places], of integers and slices."""
        first, *behind = places if isinstance(places, tuple) else (places,)
        if not all(type(part) in (int, slice) for part in behind):
            raise NoRuleError("an index with tensors")
        if first is ... and len(behind) < z.value.ndim:
            behind = [..., *behind]
        elif type(first) is not slice or first != slice(None):
            raise NoRuleError("an index over samples")

        def pull(g: Tensor) -> Tensor:
            wide = g.new_zeros(*g.shape[:2], *z.value.shape[1:])
            wide[(slice(None), slice(None), *behind)] = g
            return wide

        return self._node(z.value[places], (z, pull))
