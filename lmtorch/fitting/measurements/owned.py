"""The data of a fit as they were, whatever is written into the user's tensors afterwards.

What is asked of a fit is made when it is asked for: a curve, R², a bootstrap. Arrays are copied
when they become tensors, and so are tensors of few numbers. Of many the memory would be missed:
there the fit notes the versions that torch counts, and refuses to compute with others. What NumPy
writes into the memory of a large tensor is not counted.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_is_leaf, tree_leaves, tree_map

from ..._errors import InputError

LITTLE = 2**22  # bytes of all data of a fit up to which it has tensors of its own


def leaves_of(tree: Any) -> list[Any]:
    """The leaves of a tree, which is mostly one."""
    return [tree] if isinstance(tree, Tensor) or tree_is_leaf(tree) else tree_leaves(tree)


def little(*trees: Any) -> bool:
    """Whether the tensors in trees are small together."""
    held = 0
    for tree in trees:
        for one in [tree] if type(tree) is Tensor else leaves_of(tree):
            if isinstance(one, Tensor):
                held += one.numel() * one.element_size()
    return held <= LITTLE


def owned(*trees: Any) -> tuple[Any, ...]:
    """Trees with copies of their tensors, through which gradients pass, where these are small."""
    return tuple(map(_copied, trees)) if little(*trees) else trees


def _copied(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.clone()
    return tree if tree_is_leaf(tree) else tree_map(_copied, tree)


class Versions:
    """Tells whether tensors have been written into.

    Args:
        tensors: of the data, those of inference mode among them, of which torch counts no versions.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._noted = [(one, one._version) for one in tensors if not one.is_inference()]
        self._written = False

    @property
    def written(self) -> bool:
        """Whether that has happened to one of them."""
        return self._written or any(one._version != then for one, then in self._noted)

    def check(self) -> None:
        """Refuse to go on with other data than those of the fit.

        Raises:
            InputError: they have been written into.
        """
        if self.written:
            raise InputError(
                "xdata or ydata were changed in place after the fit, and what is asked for is made "
                "of them: ask for it before, or give the fit a copy (ydata.clone())."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the fit, or one that was pickled, has tensors of its own."""
        return _of_copies, (self.written,)


def _of_copies(written: bool) -> Versions:
    found = Versions()
    found._written = written
    return found


def versions_of(*trees: Any) -> Versions:
    """The versions of tensors that are the user's own; none are noted where they are copies."""
    if little(*trees):
        return NONE
    return Versions(one for tree in trees for one in leaves_of(tree) if isinstance(one, Tensor))


NONE = Versions()
