"""Taylor mode: value, first and second derivatives along several directions in one evaluation.

Every intermediate result z of the function carries, beside its value, its derivatives ∂ᵢz along
d directions and some second derivatives. What an operator does to them follows from the chain
rule alone (`calculus/rules.py`):

    linear        y = A z     ∂ᵢy = A ∂ᵢz            ∂ᵢⱼy = A ∂ᵢⱼz
    elementwise   y = g(z)    ∂ᵢy = g′ ∂ᵢz           ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz
    product       y = a b     ∂ᵢy = a ∂ᵢb + b ∂ᵢa    ∂ᵢⱼy = a ∂ᵢⱼb + b ∂ᵢⱼa + ∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb

∂ᵢⱼ enters linearly. So a Laplacian needs no Hessian: Σᵢ ∂ᵢᵢ is carried as one number, at the cost
of d + 2 evaluations in all. A `Pairing` says which second derivatives are carried.

Everything is computed by ordinary torch operations on ordinary tensors, so that one backward pass
differentiates the result in the parameters of a model. A `TorchFunctionMode` sees the operators of
the function. What it cannot see (an `autograd.Function`, a scripted or compiled function,
torch.func inside the function) must not be lost: the function is given leaves that require a
gradient, so that autograd tells when such a path was taken. Then, and where an operator has no
rule, `NoRuleError` is raised, and another mode is used.

References: Griewank & Walther, Evaluating Derivatives (2008), ch. 13; Li et al., A
computational framework for neural network-based variational Monte Carlo with Forward Laplacian
(2024), on the collapsed sum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from .._autodiff import history
from .._errors import from_within
from .._modes import FunctionMode
from ..calculus.base import Carrier, NoRuleError
from ..calculus.jets import Jet, Jets, Pairing, watched
from ..calculus.rules import CONSTANT, RULES, name_of
from .bends import COMPARISONS, CUTS, KINKS, MODULUS, ROUNDINGS, Noted, refuse_batch_norm
from .uncompiled import Uncompiled

IN_PLACE = frozenset({"__setitem__", "__set__", "__delete__"})
# the attribute of a tensor that the function sees: (the evaluation, the tensor's jet); it lives as
# long as the tensor does
MARK = "_lmtorch_jet"
STEP = "_lmtorch_step"  # of a tensor that is piecewise constant in x: the operator that made it so
CONTAINERS = (tuple, list, dict)
# a result of one of these types carries no derivative; a tuple is a torch.Size here
PLAIN = (bool, int, float, complex, str, tuple, torch.dtype, torch.device, torch.layout)


def expand(
    function: Callable[[Tensor], Tensor],
    start: Jet,
    batch: int,
    pairing: Pairing | None = None,
    noted: Noted | None = None,
) -> Jet:
    """The function's jet at x: value (*out), first (d, *out) and, with a pairing, second (q, *out).

    Args:
        function: takes one tensor and returns one tensor.
        start: the point x, with the directions (d, *x.shape), or what broadcasts to it, as first
            derivatives.
        batch: how many leading dimensions of x are samples.
        pairing: which second derivatives are carried. None: none.
        noted: where it is noted by what derivatives are zero.

    Raises:
        NoRuleError: an operator has no rule, or cannot be seen.
    """
    seen = watched()
    setting = Jets(batch, pairing, seen, fresh=not seen and not torch.is_grad_enabled())
    directions = start.first
    count = directions.shape[0]
    expansion = Expansion(setting, batch)
    jet = expansion.evaluate(function, start)
    if noted is not None:
        expansion.note(noted, jet)
    if not isinstance(jet, Jet):  # it does not depend on x
        jet = Jet(jet, jet.new_zeros(()).expand(count, *(1,) * jet.ndim))
    shape = jet.value.shape
    first = jet.first.expand(count, *shape)
    if pairing is None:
        return Jet(jet.value, first)
    pairs = pairing(
        directions.new_zeros(count, 0), directions.new_zeros(count, 0), torch.mul
    ).shape[0]
    second = jet.value.new_zeros(()) if jet.second is None else jet.second
    return Jet(jet.value, first, second.expand(pairs, *shape))


class Expansion(FunctionMode):
    """A mode that carries the derivatives of all that is computed from the tensors it has shown.

    Args:
        algebra: how what carries derivatives goes through operators.
        batch: how many leading dimensions of what it shows are samples, which are independent.
    """

    def __init__(self, algebra: Any, batch: int = 0) -> None:
        super().__init__()
        self.algebra = algebra
        self.batch = batch
        self.record = torch.is_grad_enabled()
        self.kinks: dict[str, None] = {}  # operators that were met
        self.cuts: dict[str, None] = {}
        self.stepped = False  # whether there is a tensor with the mark STEP

    def evaluate(self, function: Callable[..., Tensor], *starts: Carrier) -> Any:
        """Evaluate the function of as many tensors as there are carriers.

        Returns:
            The carrier of the result, or a tensor if it depends on none of them.

        Raises:
            NoRuleError: an operator has no rule, or cannot be seen.
        """
        seen = [self._show(start) for start in starts]
        with torch.enable_grad(), Uncompiled(), self:
            result = function(*seen)
        if not isinstance(result, Tensor):
            raise NoRuleError(f"the function returned {type(result).__name__}")
        self._refuse_unseen(result)
        jet = self._jet(result)
        if jet is not None:
            return jet
        if self.stepped and (step := getattr(result, STEP, None)) is not None:
            self.kinks[step] = None
        return result if self.record else result.detach()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        leaves, spec = tree_flatten((args, kwargs)) if kwargs or _nested(args) else (args, None)
        jets = [self._jet(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
        if jets.count(None) == len(jets):
            result = func(*args, **kwargs)
            if self.stepped:
                step = next(filter(None, (getattr(leaf, STEP, None) for leaf in leaves)), None)
                if step is not None and isinstance(result, Tensor):
                    setattr(result, STEP, step)
            return result
        name = name_of(func)
        if name == "requires_grad":
            return True
        # under no_grad results are constants, as they are to autograd
        constant = name in CONSTANT or not torch.is_grad_enabled()
        rule = None if constant else RULES.get(name)
        if rule is None:
            args, kwargs = _built(
                [
                    leaf if jet is None else jet.value
                    for leaf, jet in zip(leaves, jets, strict=True)
                ],
                spec,
            )
            # not even tried: it may be x that changes
            if not constant and (name in IN_PLACE or _ends_in_place(name)):
                raise NoRuleError(f"{name!r} works in place")
            with torch.no_grad():
                result = func(*args, **kwargs)
            if not constant and not all(_known(leaf) for leaf in tree_leaves(result)):
                if name == "batch_norm" and self.batch:
                    refuse_batch_norm(*args, **kwargs)
                raise NoRuleError(f"no rule for {name!r}")
            self._look_at_constant(name, result)
            return result  # a constant, a shape, a comparison
        if name in KINKS:
            self.kinks[name] = None
        for leaf, jet in zip(leaves, jets, strict=True):
            if jet is None and isinstance(leaf, Tensor):
                self._refuse_unseen(leaf)
                if self.stepped and (step := getattr(leaf, STEP, None)) is not None:
                    self.kinks[step] = None
        args, kwargs = _built(
            [leaf if jet is None else jet for leaf, jet in zip(leaves, jets, strict=True)], spec
        )
        with torch.set_grad_enabled(self.record):
            result = rule(self.algebra, func, *args, **kwargs)
        return self._show(result) if isinstance(result, Carrier) else tree_map(self._show, result)

    def note(self, noted: Noted, result: Any) -> None:
        """Note by which operators the derivatives of a result are zero, all or the second ones."""
        if not isinstance(result, Jet):
            noted.steps.update(self.kinks)
            noted.cuts.update(self.cuts)
            noted.constant = True
        elif self.algebra.pairing is not None and result.second is None:
            # |f| of a whole x is what a loss is made of, whose Hessian may well be zero
            loss = self.batch == 0 and result.value.ndim == 0
            noted.bends.update(
                {name: None for name in self.kinks if not (loss and name in MODULUS)}
            )

    def _look_at_constant(self, name: str, result: Any) -> None:
        """Remember what an operator without derivatives has made of something that has some."""
        if name in COMPARISONS or name in ROUNDINGS:
            if isinstance(result, Tensor):
                self.stepped = True
                setattr(result, STEP, "a comparison" if name in COMPARISONS else name)
        elif name in CUTS:
            # our own modes take values from tensors that they have shown; above are this method and
            # that which called it
            if not from_within(above=2):
                self.cuts[name] = None
        elif not torch.is_grad_enabled() and name in RULES and not from_within(above=2):
            self.cuts["torch.no_grad()"] = None

    def _show(self, leaf: Any) -> Any:
        """What the function sees of a carrier: its value, as a leaf whose uses autograd notes."""
        if not isinstance(leaf, Carrier):
            return leaf
        seen = leaf.value.detach().requires_grad_()
        setattr(seen, MARK, (self, leaf))
        return seen

    def _jet(self, tensor: Tensor) -> Any:
        """The carrier of a tensor that the function was shown; None for any other tensor."""
        mark = getattr(tensor, MARK, None)
        return mark[1] if mark is not None and mark[0] is self else None

    def _refuse_unseen(self, tensor: Tensor) -> None:
        """Raise if a tensor depends on what the function was shown by a path that no rule saw."""
        if tensor.grad_fn is None or self._jet(tensor) is not None:
            return
        for node in history(tensor):
            leaf = getattr(node, "variable", None)  # nodes of leaves, AccumulateGrad, have it
            if leaf is not None and self._jet(leaf) is not None:
                raise NoRuleError(
                    "something that torch functions do not show: an "
                    "autograd.Function, torch.func inside"
                )


def _nested(args: tuple[Any, ...]) -> bool:
    return any(isinstance(a, CONTAINERS) for a in args)


def _built(leaves: Sequence[Any], spec: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put arguments and keywords together again from their leaves."""
    if spec is None:
        return tuple(leaves), {}
    built: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(leaves, spec)
    return built


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _known(leaf: Any) -> bool:
    """Whether this result certainly carries no derivative. Arrays, iterators and None might."""
    if isinstance(leaf, Tensor):
        return not (leaf.is_floating_point() or leaf.is_complex())
    return isinstance(leaf, PLAIN)
