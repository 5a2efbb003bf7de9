"""A value with its derivatives along several directions, and the choice of second derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .base import Carrier, Multiply, Multivariate, NoRuleError, Slopes, slopes_by_vjp, values
from .slopes import reciprocal, tanh

FEW = 4  # up to so many directions their products are summed one by one
# so are more directions if each has more entries than this: with fewer, a call of torch costs more
# than what it computes
MANY = 2**15
_times_slope_of_tanh = torch.ops.aten.tanh_backward.default  # (g, t) -> g (1 − t²)
Pairing = Callable[[Tensor, Tensor, Multiply], Tensor]
"""½ (∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb) for the chosen pairs (i, j): from (d, ...) and (d, ...) to (q, ...)."""


@dataclass(frozen=True)
class Jet(Carrier):
    """A value z with its ∂ᵢz and some of its ∂ᵢⱼz, the dimension of the directions in front.

    To pytrees it is a leaf, as a tensor is.
    """

    value: Tensor  # (*shape)
    first: Tensor  # (d, *shape), or what broadcasts to it
    second: Tensor | None = None  # (q, *shape), or what broadcasts to it; None: zero, or not wanted


@dataclass(frozen=True)
class Entries(Jet):
    """A matrix with its derivatives in single entries of itself: `first` is zero but for a one."""

    places: tuple[int, ...] = ()  # of the entries, counted row by row


@dataclass(frozen=True)
class Jets:
    """How jets go through operators, and what stays the same throughout an evaluation."""

    batch: int  # how many leading dimensions of a value are samples
    pairing: Pairing | None  # which second derivatives are carried; None: none
    watched: bool = True  # what `watched()` said when the evaluation began
    # neither another mode nor autograd sees the evaluation: a rule may write over its own results
    fresh: bool = False

    def compared(self, func: Callable[..., Tensor], a: Any, b: Any) -> Tensor:
        """A mask of values."""
        return func(values(a), values(b))

    def bare(self, z: Jet) -> Tensor:
        """The value."""
        return z.value

    def constant(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Every jet has derivatives."""

    # ---- elementwise ---------------------------------------------------------------------------

    def chain(self, z: Jet, slopes: Slopes) -> Jet:
        """The jet of g(z): ∂ᵢy = g′ ∂ᵢz and ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz."""
        value, slope, curvature, relative = slopes
        first = slope * z.first
        if self.pairing is None:
            return Jet(value, first)
        if curvature is None:
            return Jet(value, first, None if z.second is None else slope * z.second)
        bend, pairs = curvature(), self.pairing(z.first, z.first, torch.mul)
        if relative:  # g′ (∂ᵢⱼz + g″/g′ ∂ᵢz ∂ⱼz)
            return Jet(
                value,
                first,
                slope
                * (bend * pairs if z.second is None else torch.addcmul(z.second, bend, pairs)),
            )
        return Jet(
            value,
            first,
            bend * pairs if z.second is None else torch.addcmul(slope * z.second, bend, pairs),
        )

    def multivariate(self, slopes: Callable[..., Multivariate], *operands: Any) -> Jet:
        """The jet of g(a, b, ...), by the chain rule in all."""
        found = slopes(*map(values, operands))
        ndim = found.value.ndim
        firsts = [aligned(z.first, ndim) if isinstance(z, Jet) else None for z in operands]
        first = reduce(
            torch.add,
            [s * t for s, t in zip(found.slopes, firsts, strict=True) if t is not None],
        )
        if self.pairing is None:
            return Jet(found.value, first)
        terms = [
            slope * aligned(z.second, ndim)
            for slope, z in zip(found.slopes, operands, strict=True)
            if isinstance(z, Jet) and z.second is not None
        ]
        pairs = combinations_with_replacement(enumerate(firsts), 2)
        for ((i, a), (j, b)), bend in zip(pairs, found.curvatures(), strict=True):
            if a is not None and b is not None:
                terms.append((1 if i == j else 2) * bend * self.pairing(a, b, torch.mul))
        return Jet(found.value, first, reduce(torch.add, terms))

    def differentiated(self, call: Callable[[Tensor], Tensor], z: Jet) -> Slopes:
        """g′ is the gradient of the sum of g, and g″ that of the sum of g′."""
        return slopes_by_vjp(call, z.value, self.pairing is not None)

    def tanh(self, z: Jet) -> Jet:
        """t = tanh z with g′ = 1 − t² and g″ = −2t (1 − t²)."""
        # torch has a kernel for g (1 − t²), but differentiating it costs more than the parts do
        if not self.fresh:
            return self.chain(z, tanh(z.value))
        t = torch.tanh(z.value)
        first = _times_slope_of_tanh(z.first, t)
        if self.pairing is None:
            return Jet(t, first)
        pairs = self.pairing(z.first, z.first, torch.mul)
        if z.second is None:
            return Jet(t, first, _times_slope_of_tanh(pairs * t * -2, t))
        bent = torch.addcmul(z.second, pairs, t, value=-2)
        return Jet(t, first, _times_slope_of_tanh(bent, t))

    # ---- sums and products -----------------------------------------------------------------------

    def product(self, multiply: Multiply, a: Any, b: Any) -> Jet:
        """A bilinear operator of a and b; one of the two may be a constant."""
        if multiply is torch.matmul and min(values(a).ndim, values(b).ndim) < 2:
            raise NoRuleError("a product with a vector")
        value = multiply(values(a), values(b))
        ndim = max(factor.ndim for factor in (values(a), values(b)) if isinstance(factor, Tensor))
        first, second = [], []
        if isinstance(a, Jet):
            first.append(multiply(aligned(a.first, ndim), values(b)))
            if a.second is not None:
                second.append(multiply(aligned(a.second, ndim), values(b)))
        if isinstance(b, Jet):
            first.append(multiply(values(a), aligned(b.first, ndim)))
            if b.second is not None:
                second.append(multiply(values(a), aligned(b.second, ndim)))
        if self.pairing is not None and isinstance(a, Jet) and isinstance(b, Jet):
            pairs = self.pairing(aligned(a.first, ndim), aligned(b.first, ndim), multiply)
            second.append(2 * pairs)
        return Jet(value, _total(first), _total(second) if second else None)

    def quotient(self, a: Any, b: Any) -> Jet:
        """a / b; one of the two may be a constant."""
        if not isinstance(b, Jet):
            return self.product(torch.div, a, b)
        return self.product(torch.mul, a, self.chain(b, reciprocal(b.value)))

    def added(self, a: Any, b: Any) -> Jet:
        """a + b; one of the two may be a constant."""
        value = values(a) + values(b)
        jets = [jet for jet in (a, b) if isinstance(jet, Jet)]
        first = [aligned(jet.first, value.ndim) for jet in jets]
        second = [aligned(jet.second, value.ndim) for jet in jets if jet.second is not None]
        return Jet(value, _total(first), _total(second) if second else None)

    # ---- linear: the operator itself acts on each derivative -------------------------------------

    def linear(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """y = A z, for one jet or several; all derivatives go through A in one `vmap`."""
        leaves, spec = tree_flatten((args, kwargs))
        jets = [leaf for leaf in leaves if isinstance(leaf, Jet)]

        def call(*parts: Tensor) -> Any:
            given = iter(parts)
            arguments, keywords = tree_unflatten(
                [next(given) if isinstance(a, Jet) else a for a in leaves], spec
            )
            return func(*arguments, **keywords)

        def each(parts: list[Tensor]) -> Any:
            return torch.vmap(call)(*parts)

        value = call(*(jet.value for jet in jets))
        first = each([jet.first.expand(-1, *jet.value.shape) for jet in jets])
        counts = {jet.second.shape[0] for jet in jets if jet.second is not None}
        if self.pairing is None or not counts:
            return tree_map(Jet, value, first)
        seconds = [jet.value.new_zeros(()) if jet.second is None else jet.second for jet in jets]
        second = each(
            [
                part.expand(*counts, *jet.value.shape)
                for part, jet in zip(seconds, jets, strict=True)
            ]
        )
        return tree_map(Jet, value, first, second)

    moved = linear

    # The most usual linear operators need no vmap: in nested derivatives the outer mode can see
    # what these do.

    def reshaped(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Jet:
        """reshape, view, flatten, squeeze and the like: the same entries in another shape."""
        value = func(z.value, *args, **kwargs)
        if value.dtype != z.value.dtype:
            raise NoRuleError("the same bits in another dtype")

        def of(part: Tensor) -> Tensor:
            return part.expand(-1, *z.value.shape).reshape(part.shape[0], *value.shape)

        return Jet(value, of(z.first), None if z.second is None else of(z.second))

    def broadcast(self, func: Callable[..., Tensor], z: Any, *sizes: Any, **kwargs: Any) -> Jet:
        """expand: the value is expanded, and its derivatives broadcast as they are."""
        value = func(z.value, *sizes, **kwargs)
        second = None if z.second is None else aligned(z.second, value.ndim)
        return Jet(value, aligned(z.first, value.ndim), second)

    def permuted(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Jet:
        """movedim, permute, transpose: a probe whose sizes all differ shows the new order."""
        probe = torch.empty(tuple(range(2, 2 + z.value.ndim)), device="meta")
        order = [0, *(size - 1 for size in func(probe, *args, **kwargs).shape)]
        second = None if z.second is None else z.second.permute(order)
        return Jet(func(z.value, *args, **kwargs), z.first.permute(order), second)

    def converted(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Jet:
        """clone, contiguous, another dtype: derivatives are converted as the value is."""
        second = None if z.second is None else func(z.second, *args, **kwargs)
        return Jet(func(z.value, *args, **kwargs), func(z.first, *args, **kwargs), second)

    def reduced(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """sum and mean over given dimensions, counted from the last, behind the directions."""
        dim = kwargs.get("dim", args[0] if args else None)
        dims = (dim,) if isinstance(dim, int) else dim
        if not dims or kwargs.keys() - {"dim", "keepdim"}:
            return self.linear(func, z, *args, **kwargs)
        kept = bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
        behind = tuple(d if d < 0 else d - z.value.ndim for d in dims)

        def of(part: Tensor) -> Tensor:
            result: Tensor = func(part.expand(-1, *z.value.shape), dim=behind, keepdim=kept)
            return result

        return Jet(
            func(z.value, dim=behind, keepdim=kept),
            of(z.first),
            None if z.second is None else of(z.second),
        )

    def unbound(self, func: Callable[..., Any], z: Any, dim: int = 0) -> tuple[Jet, ...]:
        """unbind along a dimension counted from the last, as directions stand in front."""
        behind = dim if dim < 0 else dim - z.value.ndim
        parts = [
            z.value,
            *(part.expand(-1, *z.value.shape) for part in (z.first, z.second) if part is not None),
        ]
        return tuple(
            Jet(*pieces) for pieces in zip(*(part.unbind(behind) for part in parts), strict=True)
        )

    def join(self, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any) -> Any:
        """cat and stack; the derivatives of members that are constants are zero."""
        (count,) = {member.first.shape[0] for member in members if isinstance(member, Jet)}
        if func in (torch.hstack, torch.vstack):
            whole = [
                m if isinstance(m, Jet) else Jet(m, m.new_zeros(()).expand(count, *m.shape))
                for m in members
            ]
            return self.linear(func, whole)
        if kwargs.keys() - {"dim", "axis"}:
            raise NoRuleError("a join into a given tensor")
        dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else 0))
        value = func([values(member) for member in members], *args, **kwargs)
        behind = dim if dim < 0 else dim - value.ndim

        def of(parts: list[Tensor | None], count: int) -> Tensor:
            whole = [
                (values(member).new_zeros(()) if part is None else part).expand(
                    count, *values(member).shape
                )
                for member, part in zip(members, parts, strict=True)
            ]
            result: Tensor = func(whole, behind)
            return result

        first = of([member.first if isinstance(member, Jet) else None for member in members], count)
        seconds = [member.second if isinstance(member, Jet) else None for member in members]
        counts = {second.shape[0] for second in seconds if second is not None}
        return Jet(value, first, of(seconds, *counts) if counts else None)

    def indexed(self, func: Callable[..., Any], z: Any, places: Any) -> Any:
        """z[places]: views if all of places are integers, slices, None or …, otherwise copies."""
        chosen = places if isinstance(places, tuple) else (places,)
        if not all(part is None or part is ... or isinstance(part, int | slice) for part in chosen):
            return self.linear(func, z, places)

        def of(part: Tensor) -> Tensor:
            return part.expand(-1, *z.value.shape)[(slice(None), *chosen)]

        return Jet(z.value[places], of(z.first), None if z.second is None else of(z.second))

    def dense(self, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None) -> Jet:
        """z Wᵀ + b, which is nearly all of the work in most networks: one product for all."""
        # Directions that are the same for all samples stay so, and elementwise operators after it
        # run through long rows of memory (with 20 features 1.5 times as fast as with samples in
        # front). But if another mode watches, samples are put in front, where the Jacobian by
        # linear layers looks for them.
        if isinstance(weight, Jet) or isinstance(bias, Jet):
            return self._dense_of_own(func, z, weight, bias)
        # a product along a direction has named no samples, but may have them all the same
        place = min(max(self.batch, 1), z.value.ndim - 1)

        def of(part: Tensor) -> Tensor:
            if not self.watched:
                return func(aligned(part, z.value.ndim), weight)
            return func(part.expand(-1, *z.value.shape).movedim(0, place), weight).movedim(place, 0)

        second = None if z.second is None else of(z.second)
        return Jet(func(z.value, weight, bias), of(z.first), second)

    def _dense_of_own(self, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any) -> Jet:
        """z Wᵀ + b where derivatives are taken in W or b, too."""
        if (
            isinstance(weight, Entries)
            and not isinstance(z, Jet)
            and z.ndim == 2 == weight.value.ndim
        ):
            # ∂y/∂Wₖⱼ has the one column zⱼ, at place k: a product would multiply by zeros
            rows, columns = zip(
                *(divmod(p, weight.value.shape[1]) for p in weight.places), strict=True
            )
            value = func(z, weight.value)
            first = value.new_zeros(len(rows), *value.shape)
            each, row, column = torch.tensor(
                [range(len(rows)), rows, columns], device=value.device
            ).unbind()
            first.mT[each, row] = z.T[column]
            product: Any = Jet(value, first)
        elif isinstance(weight, Jet):
            second = None if weight.second is None else weight.second.mT
            product = self.product(torch.matmul, z, Jet(weight.value.mT, weight.first.mT, second))
        else:
            product = self.dense(func, z, weight) if isinstance(z, Jet) else func(z, weight)
        return product if bias is None else self.added(product, bias)

    def selected(self, condition: Tensor, a: Any, b: Any) -> Any:
        """where(condition, a, b), with the same choice for derivatives as for values."""
        value = torch.where(condition, values(a), values(b))
        jets = [jet for jet in (a, b) if isinstance(jet, Jet)]

        def of(pick: Callable[[Jet], Tensor | None]) -> Tensor | None:
            parts = [pick(x) if isinstance(x, Jet) else None for x in (a, b)]
            if all(part is None for part in parts):
                return None
            left, right = (
                value.new_zeros(()) if part is None else aligned(part, value.ndim) for part in parts
            )
            return torch.where(condition, left, right)

        first = of(lambda jet: jet.first)
        assert first is not None, jets
        return Jet(value, first, of(lambda jet: jet.second))


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def trace(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries one number, Σᵢ ∂ᵢᵢ: a Laplacian."""
    if multiply is torch.mul and (left.shape[0] <= FEW or left.shape[1:].numel() > MANY):
        parts = left.unbind()  # so that no product with all directions is held
        others = parts if left is right else right.unbind()
        total = parts[0] * others[0]
        for a, b in zip(parts[1:], others[1:], strict=True):
            total = torch.addcmul(total, a, b)
        return total[None]
    return multiply(left, right).sum(0, keepdim=True)


def diagonal(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries ∂ᵢᵢ for each direction."""
    return multiply(left, right)


def every(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries ∂ᵢⱼ for i ≤ j, in the order of `torch.triu_indices`."""
    # views: an index would copy, and its gradient would be summed entry by entry
    parts, others = left.unbind(), right.unbind()
    pairs = [(i, j) for i in range(len(parts)) for j in range(i, len(parts))]
    if left is right and multiply is torch.mul:  # not for matrices, which do not commute
        if not watched() and not torch.is_grad_enabled():
            result = left.new_empty(len(pairs), *left.shape[1:])
            blocks = result.split(list(range(len(parts), 0, -1)))
            for i, block in enumerate(blocks):
                torch.mul(left[i:], parts[i], out=block)
            return result
        return torch.stack([parts[i] * parts[j] for i, j in pairs])
    return torch.stack(
        [(multiply(parts[i], others[j]) + multiply(parts[j], others[i])) / 2 for i, j in pairs]
    )


def among(chosen: Sequence[int]) -> Pairing:
    """A pairing that carries ∂ᵢⱼ, as `every` does, for some of the directions alone."""
    first, last = min(chosen), max(chosen) + 1
    consecutive = list(chosen) == list(range(first, last))  # then a view does, without a copy

    def pairs(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
        some, others = (
            side[first:last] if consecutive else torch.stack([side[i] for i in chosen])
            for side in (left, right)
        )
        return every(some, some if left is right else others, multiply)

    return pairs


def watched() -> bool:
    """Whether another mode sees what we do: nested Taylor mode, the Jacobian by linear layers."""
    return torch._C._len_torch_function_stack() > 0


def aligned(part: Tensor, ndim: int) -> Tensor:
    """Insert dimensions of one behind d into (d, *shape), to broadcast like a value of `ndim`."""
    missing = ndim + 1 - part.ndim
    return part if missing <= 0 else part.reshape(part.shape[0], *(1,) * missing, *part.shape[1:])
