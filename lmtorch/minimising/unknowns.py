"""x0 as its user has it, an array, a tensor or a tree of them, and as the loop's flat vector."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

from .._arrays import all_finite, tensor_of
from .._autodiff import Params
from .._errors import InputError
from ..residuals.layout import Layout


class Unknowns:
    """The parameters that are fitted.

    Args:
        x0: numbers in any form: a number, a list, an array, a tensor, or a dict, list or tuple of
            arrays or tensors.
        dims: the dimension of each of its tensors that counts problems; None: the same x0 for all,
            or one problem. In the form of `torch.vmap`'s: an int, or a tree of them.
        count: how many problems the other arguments are of; None: they are of one.

    Attributes:
        numpy: whether it came as NumPy or plain numbers, and results are to go back so.
        layout: of the x of one problem.
        start: (n,), or (b, n) where `dims` names dimensions.

    Raises:
        InputError: no parameters, parameters that are no real numbers, or not finite, or of several
            sizes of a batch.
    """

    def __init__(self, x0: Any, dims: Any = None, count: int | None = None) -> None:
        self.tree: TreeSpec | None = None
        if _is_tree(x0):
            paths, self.tree = tree_flatten_with_path(x0)
            names, given = [f"x0{keystr(path)}" for path, _ in paths], [leaf for _, leaf in paths]
        else:
            names, given = ["x0"], [x0]
        if not given:
            raise InputError("x0 is empty: there is nothing to fit.")
        self.numpy = not any(isinstance(leaf, Tensor) for leaf in given)
        leaves = [_tensor(leaf, name) for leaf, name in zip(given, names, strict=True)]
        self.scalar = self.tree is None and self.numpy and leaves[0].ndim == 0
        if self.scalar:  # as scipy: a number is a vector of one
            leaves = [leaves[0].reshape(1)]
        flat_dims = spread(dims, x0)
        self.batched = any(dim is not None for dim in flat_dims)
        if self.batched:
            own = batch_size(leaves, flat_dims, names)
            if count not in (None, own):
                raise InputError(
                    f"x0 is of {own} problems by in_dims, the other arguments of {count}."
                )
            count = own
            leaves = [
                leaf.expand(count, *leaf.shape) if dim is None else leaf.movedim(dim, 0)
                for leaf, dim in zip(leaves, flat_dims, strict=True)
            ]
        self.layout = Layout([leaf[0] if self.batched else leaf for leaf in leaves], names)
        lead = 1 if self.batched else 0
        flat = [
            leaf.detach().flatten(lead) if leaf.ndim > lead else leaf.detach()[..., None]
            for leaf in leaves
        ]
        self.start = torch.cat(flat, -1) if len(flat) > 1 else flat[0].clone()
        if count is not None and not self.batched:
            self.batched = True
            self.start = self.start.expand(count, -1)
        if not all_finite(self.start):
            raise InputError("x0 has entries that are NaN or infinite. Start from finite numbers.")

    def named(self, names: Any) -> list[str]:
        """A name for each entry of the flat x.

        Raises:
            InputError: not as many as there are entries.
        """
        if names is None:
            return [
                f"{name}[{entry}]"
                for name, size in zip(self.layout.names, self.layout.sizes, strict=True)
                for entry in range(size)
            ]
        given = (
            [names]
            if isinstance(names, str)
            else list(names)
            if isinstance(names, Iterable)
            else []
        )
        if len(given) != self.layout.n:
            raise InputError(
                f"names={names!r} has {len(given)} entries for {self.layout.n} parameters."
            )
        return [str(name) for name in given]

    def restore(self, params: Params) -> Any:
        """The structure of x0 with other tensors in it, which may have leading dimensions."""
        return params[0] if self.tree is None else tree_unflatten(list(params), self.tree)

    def vector(self, values: Any, name: str, fill: float) -> Tensor:
        """A vector (n,) or (b, n) from one number, an array that fits x, or a tree like x0.

        Raises:
            InputError: it does not fit.
        """
        if values is None:
            return torch.full_like(self.start, fill)
        like = self.start
        if self.tree is not None and _is_tree(values):
            given, tree = tree_flatten(values)
            if tree != self.tree:
                raise InputError(
                    f"{name} has another structure than x0. Give it the same keys, or one number."
                )
            # leading dimensions of a leaf beyond those of one problem's count problems
            parts = [self._numbers(value, name) for value in given]
            shaped = []
            for part, shape, leaf in zip(parts, self.layout.shapes, self.layout.names, strict=True):
                try:
                    whole = part.expand((*like.shape[:-1], *shape))
                except RuntimeError as error:
                    raise InputError(
                        f"{name} of shape {tuple(part.shape)} does not fit {leaf}."
                    ) from error
                shaped.append(whole.reshape(*like.shape[:-1], -1))
            return torch.cat(shaped, -1)
        value = self._numbers(values, name)
        own = self.layout.shapes[0]
        lead = value.ndim - len(own)
        if self.tree is None and value.ndim > 0 and lead >= 0 and value.shape[lead:] == own:
            # leading dimensions beyond those of one x count problems
            value = value.reshape(*value.shape[:lead], -1)
        # a vector of one entry is not meant for all: scipy refuses it, too
        fits = value.ndim == 0 or value.shape[-1] == self.layout.n
        if not fits or value.shape[:-1] not in ((), (1,), like.shape[:-1]):
            raise InputError(
                f"{name} of shape {tuple(value.shape)} does not fit x0 of {tuple(like.shape)}: "
                "give one number, or one for each parameter."
            )
        return value.expand(like.shape).clone()

    def _numbers(self, values: Any, name: str) -> Tensor:
        """Bring a tensor to the dtype and device of the parameters.

        Raises:
            InputError: no real numbers.
        """
        try:
            return torch.as_tensor(
                values, dtype=self.start.dtype, device=self.start.device
            ).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name}={values!r} is not made of real numbers.") from error


def spread(dims: Any, value: Any) -> list[int | None]:
    """The dimension of each leaf of `value` that counts problems, from in_dims as of `vmap`.

    Raises:
        InputError: another structure.
    """
    if not _is_tree(value):
        if dims is not None and not isinstance(dims, int):
            raise InputError(f"in_dims has {dims!r} for a single tensor: give an int or None.")
        return [dims]
    leaves = tree_flatten(value)[0]
    if dims is None or isinstance(dims, int):
        return [dims if _is_array(leaf) else None for leaf in leaves]
    fits = isinstance(dims, dict) == isinstance(value, dict) and isinstance(
        dims, dict | list | tuple
    )
    if not fits or len(dims) != len(value) or (isinstance(dims, dict) and set(dims) != set(value)):
        raise InputError(
            f"in_dims has {dims!r} for a {type(value).__name__}: give an int, None, or the same "
            "structure."
        )
    keys = value if isinstance(value, dict) else range(len(value))
    return [dim for key in keys for dim in spread(dims[key], value[key])]


def batch_size(leaves: list[Tensor], dims: list[int | None], names: list[str]) -> int:
    """How many problems there are.

    Raises:
        InputError: none, or different numbers.
    """
    sizes: dict[str, int] = {}
    for leaf, dim, name in zip(leaves, dims, names, strict=True):
        if dim is None:
            continue
        if not -leaf.ndim <= dim < leaf.ndim:
            raise InputError(f"in_dims names dimension {dim} of {name}, which has {leaf.ndim}.")
        sizes[name] = leaf.shape[dim]
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"in_dims names dimensions of different sizes: {sizes}. Each counts the problems."
        )
    count = next(iter(sizes.values()))
    if count == 0:
        raise InputError("there are no problems: in_dims names dimensions of size 0.")
    return count


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_tree(value: Any) -> bool:
    """A structure of tensors, not an array written as nested lists of numbers."""
    return isinstance(value, dict) or (
        isinstance(value, list | tuple)
        and any(_is_array(item) or isinstance(item, dict) for item in value)
    )


def _tensor(value: Any, name: str) -> Tensor:
    """A floating-point tensor; integers and plain numbers become float64.

    Raises:
        InputError: no real numbers.
    """
    try:
        tensor = value if isinstance(value, Tensor) else tensor_of(np.array(value))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {type(value).__name__}, not numbers: {error}") from error
    if tensor.is_complex():
        raise InputError(
            f"{name} is complex. Fit real and imaginary parts as parameters of their own."
        )
    if tensor.is_floating_point():
        return tensor.detach()
    return tensor.detach().to(torch.float64 if tensor.device.type != "mps" else torch.float32)
