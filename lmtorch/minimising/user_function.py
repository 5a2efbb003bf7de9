"""Calls a user's function on tensors or NumPy arrays, with each problem's share of arguments."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_is_leaf,
    tree_leaves,
    tree_map,
    tree_unflatten,
)

from .._arrays import is_tensor, tensor_of, to_array
from .._autodiff import Params
from .._errors import InputError
from ..calculus.duals import Dual
from ..losses.criterion import Targeted
from ..residuals.layout import real
from .unknowns import Unknowns, batch_size, spread

# sizes of residuals whose squares and products are numbers, with room to spare
SMALLEST, LARGEST = (1e-100, 1e100)
RESIDUALS = (
    "Return the residuals, model − data: a tensor or array of any shape, or a tuple, list or dict "
    "of tensors."
)


@dataclass
class Calls:
    """How often a function was called, by whichever of the objects that call it."""

    made: int = 0


class UserFunction:
    """The function of one problem: fun(x, *args, **kwargs).

    Args:
        function: the user's.
        unknowns: the structure of x.
        args: its further arguments; arrays and tensors among them become what `arrays` asks for.
        kwargs: its keyword arguments, the same for all problems.
        dims: for each of `args`, in the form of `torch.vmap`'s in_dims, the dimension that counts
            problems.
        arrays: call it on NumPy arrays, not on tensors.
        calls: counts the calls. Default: a counter of its own, which copies share.

    Attributes:
        rows: how many residuals there are, once that is known.
        targeted: whether it returns outputs of a criterion with their targets, once that is known.
        side: n where it returned a table (n, n) when it was first called; 0: something else.
        unit: by which residuals and Jacobian are multiplied, so that their squares are numbers,
            too.
        copied: whether the function gets copies of the parameters, which it may write to, as
            `a += 1` does; where torch takes derivatives it refuses that itself.
        shares: the arguments that differ between problems, (b, ...) each.

    Raises:
        InputError: `dims` do not fit the arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        unknowns: Unknowns,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dims: tuple[Any, ...],
        arrays: bool,
        calls: Calls | None = None,
    ) -> None:
        self.function = function
        self.calls = Calls() if calls is None else calls
        self.unknowns = unknowns
        self.arrays = arrays
        self.copied = arrays
        self.rows: int | None = None
        self.targeted: bool | None = None
        self.side = 0
        self.unit = 1.0
        device = unknowns.start.device
        # of leaves alone nothing need be rebuilt for a call
        self.tree: TreeSpec | None = None
        leaves = list(args)
        if not all(map(tree_is_leaf, args)):
            leaves, self.tree = tree_flatten(args)
        tensors = [to_tensor(leaf, device) for leaf in leaves]
        flat = [dim for one, arg in zip(dims, args, strict=True) for dim in _spread(one, arg)]
        named = [leaf if isinstance(leaf, Tensor) else torch.empty(0) for leaf in tensors]
        self.places = [place for place, dim in enumerate(flat) if dim is not None]
        self.shares = tuple(named[place].movedim(flat[place] or 0, 0) for place in self.places)
        self.leaves = [to_array(leaf) for leaf in leaves] if arrays else tensors
        self.kwargs = _mapped(
            to_array if arrays else lambda leaf: to_tensor(leaf, device), dict(kwargs)
        )

    @staticmethod
    def count(args: tuple[Any, ...], dims: tuple[Any, ...]) -> int | None:
        """How many problems the arguments are of; None: of one."""
        if all(dim is None for dim in dims):
            return None
        flat = [dim for one, arg in zip(dims, args, strict=True) for dim in _spread(one, arg)]
        if all(dim is None for dim in flat):
            return None
        leaves = [
            leaf
            if isinstance(leaf, Tensor)
            else torch.empty(leaf.shape)
            if isinstance(leaf, np.ndarray)
            else None
            for leaf in tree_leaves(args)
        ]
        for leaf, dim in zip(leaves, flat, strict=True):
            if dim is not None and leaf is None:
                raise InputError(
                    "in_dims names a dimension of an argument that is no array or tensor."
                )
        known = [torch.empty(0) if leaf is None else leaf for leaf in leaves]
        return batch_size(
            known, flat, [f"argument {place} of the function" for place in range(1, len(flat) + 1)]
        )

    def in_unit(self, size: float) -> "UserFunction":
        """The function in a unit in which its residuals can be squared: an exact power of two."""
        if not size > 0 or SMALLEST <= size <= LARGEST:
            return self
        other = copy(self)
        other.unit = 2.0 ** -round(math.log2(size / (1.0 if size < 1 else LARGEST)))
        return other

    def detached(self) -> "UserFunction":
        """The function without the graph of its arguments, for the loop."""
        if not self.differentiable():
            return self
        other = copy(self)
        other.leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        other.kwargs = _mapped(
            lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, self.kwargs
        )
        other.shares = tuple(share.detach() for share in self.shares)
        return other

    def of_rows(self, rows: slice, count: int) -> "UserFunction | None":
        """The function of some of the points: of each argument with `count` entries, these.

        None where no argument has as many, or where arguments are not tensors.
        """
        leaves, sliced = [_some_of(leaf, rows, count) for leaf in self.leaves], copy(self)
        kwargs, tree = tree_flatten(self.kwargs)
        others = [_some_of(leaf, rows, count) for leaf in kwargs]
        if self.arrays or all(
            part is whole
            for part, whole in zip((*leaves, *others), (*self.leaves, *kwargs), strict=True)
        ):
            return None
        sliced.leaves, sliced.kwargs = leaves, tree_unflatten(others, tree)
        sliced.rows = len(range(*rows.indices(count)))
        sliced.calls = self.calls if rows.start == 0 else Calls()  # together they are one call
        return sliced

    def _on_tensors(self) -> "UserFunction":
        """The function, called on tensors."""
        device = self.unknowns.start.device
        other = copy(self)
        other.arrays = other.copied = False
        other.leaves = [to_tensor(leaf, device) for leaf in self.leaves]
        other.kwargs = _mapped(lambda leaf: to_tensor(leaf, device), self.kwargs)
        return other

    def differentiable(self) -> bool:
        """Whether an argument asks for gradients."""
        kwargs = tree_leaves(self.kwargs) if self.kwargs else ()
        return any(isinstance(t, Tensor) and t.requires_grad for t in (*self.leaves, *kwargs))

    def arguments(self, params: Params, shares: Sequence[Tensor]) -> tuple[Any, ...]:
        """What the function of one problem is called with: x, and the arguments with its shares."""
        leaves = self.leaves
        if self.copied:
            params = tuple(to_array(p).copy() if self.arrays else p.clone() for p in params)
        if not (shares or self.arrays) and self.tree is None:
            return self.unknowns.restore(params), *leaves
        if shares:
            leaves = list(leaves)
            for place, share in zip(self.places, shares, strict=True):
                leaves[place] = to_array(share) if self.arrays else share
        rest = leaves if self.tree is None else tree_unflatten(leaves, self.tree)
        return self.unknowns.restore(params), *rest

    def residual(self, params: Params, *shares: Tensor) -> Tensor:
        """The residuals (m,) of one problem, or the outputs where they have targets."""
        result = self.returned(params, *shares)
        targeted = type(result) is Targeted
        if self.targeted is None:
            self.targeted = targeted
        elif self.targeted != targeted:
            raise InputError(
                "the function returned residuals in one evaluation and a criterion's outputs in "
                "another."
            )
        if targeted:
            result = result.values
        elif self.unknowns.layout.n > 1 and _single(result):
            raise InputError(
                f"the function returned a single number for {self.unknowns.layout.n} parameters: "
                f"is it the sum of squares? {RESIDUALS} A single residual is a vector of one."
            )
        vector = from_array(result, params[0]) if self.arrays else self._vector(result)
        if self.rows is None:
            shape: tuple[int, ...] = getattr(result, "shape", ())
            self.side = shape[0] if len(shape) == 2 and shape[0] == shape[1] else 0
        elif self.rows != vector.shape[0]:
            raise InputError(
                f"the function returned {len(vector)} residuals where it had returned {self.rows}. "
                "It must return the same number at every x: use NaN, or a large number, where the "
                "model is not defined."
            )
        return vector if self.unit == 1 else vector * self.unit

    def returned(self, params: Params, *shares: Tensor) -> Any:
        """What the user's function returns for one problem."""
        self.calls.made += 1
        return self.function(*self.arguments(params, shares), **self.kwargs)

    def jacobian(self, function: Callable[..., Any]) -> Callable[..., Tensor]:
        """The user's Jacobian (m, n) as a function of the parameters and shares of one problem."""

        def scaled(params: Params, *shares: Tensor) -> Tensor:
            return self.unit * matrix(params, *shares)

        def matrix(params: Params, *shares: Tensor) -> Tensor:
            try:
                result = function(*self.arguments(params, shares), **self.kwargs)
            except TypeError:  # a function that runs on arrays may have a Jacobian in torch
                if not self.arrays:
                    raise
                other = self._on_tensors()
                result = function(*other.arguments(params, shares), **other.kwargs)
            if isinstance(result, Tensor):
                return result
            if hasattr(result, "toarray"):  # scipy's sparse matrices: held dense here
                result = result.toarray()
            leaves = tree_leaves(result)
            # as torch.func.jacrev of a tree gives it
            if leaves and all(isinstance(leaf, Tensor) for leaf in leaves):
                sizes = self.unknowns.layout.sizes
                blocks = [leaf.reshape(-1, n) for leaf, n in zip(leaves, sizes, strict=True)]
                return torch.cat(blocks, 1)
            try:  # NumPy makes a NaN of None
                filled = (
                    np.ma.filled(result, 0) if isinstance(result, np.ma.MaskedArray) else result
                )
                array = np.asarray("nothing" if filled is None else filled, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"jac returned {type(result).__name__}, not a matrix. Return an array or "
                    "tensor (m, n); products alone (a LinearOperator) are not supported."
                ) from error
            return tensor_of(array).to(params[0].device)

        return scaled

    def _vector(self, result: Any) -> Tensor:
        """The residuals (m,) that a function of tensors returned, complex numbers as pairs."""
        # of dual numbers, whose own attributes take longer, the value is looked at
        value = result.value if type(result) is Dual else result
        if isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point():
            vector: Tensor = result
            return vector
        leaves = [result] if isinstance(result, Tensor) else tree_leaves(result)
        leaves = [leaf for leaf in leaves if leaf is not None]
        if not leaves:
            raise InputError(f"the function returned nothing. {RESIDUALS}")
        for leaf in leaves:
            if isinstance(leaf, Targeted):
                raise InputError(
                    "the function returned a criterion's outputs beside something else. Return one "
                    "criterion(outputs, targets) alone; LevenbergMarquardt takes several terms."
                )
            if not is_tensor(leaf):
                raise InputError(f"the function returned {type(leaf).__name__}. {RESIDUALS}")
            if not (leaf.is_floating_point() or leaf.is_complex()):
                raise InputError(
                    f"the function returned {leaf.dtype}, which has no derivatives. {RESIDUALS}"
                )
        parts = [real(leaf).reshape(-1) for leaf in leaves]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _single(result: Any) -> bool:
    """Whether a function returned a single number."""
    kind = type(result)  # to look at that is quicker than `isinstance`
    if kind is Tensor:
        return bool(result.ndim == 0)
    if kind is Dual:
        return result.value.ndim == 0
    if isinstance(result, Tensor | np.ndarray | Dual):
        single: bool = result.ndim == 0
        return single
    return isinstance(result, float | np.generic)


def _mapped(change: Callable[[Any], Any], values: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with all leaves changed; mostly there are none."""
    changed: dict[str, Any] = tree_map(change, values) if values else values
    return changed


def _some_of(leaf: Any, rows: slice, count: int) -> Any:
    """Some entries of a tensor along its first or last dimension, if it has so many."""
    if not isinstance(leaf, Tensor) or not leaf.ndim or leaf.shape[0] == leaf.shape[-1] != count:
        return leaf
    if leaf.shape[0] == count:
        return leaf[rows]
    return leaf[..., rows] if leaf.shape[-1] == count else leaf


def to_tensor(leaf: Any, device: torch.device) -> Any:
    """NumPy numbers as a tensor on the device; masked arrays and other things as they are."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiubc" and not np.ma.is_masked(leaf):
        return tensor_of(np.array(leaf)).to(device)
    return leaf


def from_array(result: Any, like: Tensor) -> Tensor:
    """The residuals (m,) that a function of NumPy arrays returned; a masked one is zero.

    Raises:
        InputError: it is no array of numbers.
    """
    if result is None:
        raise InputError(f"the function returned nothing. {RESIDUALS}")
    if isinstance(result, Tensor):
        result = to_array(result)
    try:
        array = (
            np.ma.filled(result, 0) if isinstance(result, np.ma.MaskedArray) else np.asarray(result)
        )
        array = array if array.dtype.kind in "fc" else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the function returned {type(result).__name__}, not numbers. {RESIDUALS}"
        ) from error
    vector = real(tensor_of(np.array(array))).reshape(-1)
    return vector.to(like.device)


def _spread(dims: Any, value: Any) -> list[int | None]:
    """One entry for each leaf, as `spread` has it, but None for what is no tensor."""
    if dims is not None:
        return spread(dims, value)
    return [None] if tree_is_leaf(value) else [None] * len(tree_leaves(value))
