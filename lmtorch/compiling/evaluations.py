"""An evaluation of a network, recorded as operators of torch and compiled by torch's inductor.

The function is run once under `make_fx`, which records every operator that runs, those of backward
passes and of `torch.func`'s transforms as well. `torch.compile` over the function itself fails on
these (torch 2.13), and drops a derivative that an `autograd.Function` brings with it; the record
holds what has really run.

What is recorded is one path through the function. Numbers that are read out of a tensor, to decide
what to do next, would be those of that one run for ever: they are refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from .._modes import FunctionMode

REASON = 160  # characters of torch's own words


class RefusedError(Exception):
    """The evaluation cannot be compiled; the message says why."""


class Evaluation:
    """A function of tensors as compiled code.

    Args:
        function: returns tensors in any structure of tuples, lists and dicts.
        inputs: what it is called with.
        held: tensors that it may take from elsewhere. Those that it takes are given to the compiled
            code at each call, so that it sees what stands in their place then.

    Raises:
        RefusedError: it cannot be recorded or compiled.
        OutOfMemoryError: torch's own.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[Tensor], held: Sequence[Tensor]
    ) -> None:
        own = [t.detach().clone() for t in inputs]
        try:
            with torch.no_grad():
                graph, self.spec, self.others = _recorded(function, own)
                self.places = _given(graph, own, held)
                given = [*own, *(held[place].detach() for place in self.places)]
                self.code = _compiled(graph, given)
        except (torch.OutOfMemoryError, RefusedError):
            raise
        except Exception as error:
            raise RefusedError(_reason(error)) from error

    def __call__(self, inputs: Sequence[Tensor], held: Sequence[Tensor]) -> Any:
        """What the function returns for these inputs, with these tensors held."""
        with torch.no_grad():
            given = [*inputs, *(held[place].detach() for place in self.places)]
            found = self.code(*given)
        leaves = iter(found)
        return tree_unflatten(
            [next(leaves) if own is None else own[0] for own in self.others], self.spec
        )


def agree(found: Any, expected: Any, precision: torch.dtype | None = None) -> bool:
    """Whether two results are the same but for round-off, tensor by tensor.

    Args:
        found: of compiled code.
        expected: of the function itself.
        precision: of what lies between, if coarser than that of the results.

    Returns:
        Whether they are.
    """
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    return all(
        _near(a, b, precision or b.dtype) if isinstance(b, Tensor) else a == b for a, b in pairs
    )


def _near(found: Tensor, expected: Tensor, precision: torch.dtype) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    size = expected.abs().nan_to_num(0.0, 0.0, 0.0).amax() if expected.numel() else 0.0
    allowed = torch.finfo(precision).eps ** 0.5 * float(size)
    return torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True)


def _recorded(
    function: Callable[..., Any], inputs: Sequence[Tensor]
) -> tuple[fx.GraphModule, Any, list[tuple[Any] | None]]:
    """Record the operators that run.

    Returns:
        Their graph, the structure of what the function returns, and what in it is no tensor: a
        tuple of one, and None for each tensor.
    """
    # imported when it is needed: it takes half a second
    from torch.fx.experimental.proxy_tensor import make_fx

    seen: list[Any] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        with NoNumbers():
            found, tree = tree_flatten(function(*tensors))
        seen[:] = [tree, [None if isinstance(leaf, Tensor) else (leaf,) for leaf in found]]
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    graph = make_fx(flat)(*inputs)
    return graph, seen[0], seen[1]


def _given(
    graph: fx.GraphModule, inputs: Sequence[Tensor], held: Sequence[Tensor]
) -> tuple[int, ...]:
    """Make inputs of the held tensors that the graph has taken for constants.

    Returns:
        Their places among the held ones.

    Raises:
        RefusedError: a constant is another view of something that may change.
    """
    place_of = {id(t): place for place, t in enumerate(held)}
    memory = {_memory(t) for t in (*inputs, *held)}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    inputs_of: dict[int, fx.Node] = {}
    for node in [n for n in graph.graph.nodes if n.op == "get_attr"]:
        constant = getattr(graph, node.target)
        place = place_of.get(id(constant))
        if place is None:
            if isinstance(constant, Tensor) and _memory(constant) in memory:
                raise RefusedError("it uses the memory of a tensor past torch's operators")
            continue
        if place not in inputs_of:
            with graph.graph.inserting_after(last):
                inputs_of[place] = last = graph.graph.placeholder(f"held_{place}")
        node.replace_all_uses_with(inputs_of[place])
        graph.graph.erase_node(node)
    graph.recompile()
    return tuple(inputs_of)


def _compiled(graph: fx.GraphModule, given: Sequence[Tensor]) -> Callable[..., Any]:
    """Machine code for a graph."""
    from torch.fx.experimental.proxy_tensor import make_fx

    # without views and writing: what is returned stands by itself
    pure = make_fx(torch.func.functionalize(graph, remove="mutations_and_views"))(*given)
    code: Callable[..., Any] = torch._inductor.compile(pure, list(given))
    return code


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:REASON]


# what a tensor is asked beside its numbers: the key of what a closure holds says it
ASKED = frozenset(
    ["ndim", "names", "itemsize", "nbytes", "requires_grad", "grad_fn", "output_nr", "_version",
     "_base", "_is_view", "size", "_is_zerotensor", "dim", "ndimension", "numel", "nelement",
     "stride", "element_size", "storage_offset", "get_device", "dim_order", "can_cast",
     "iter_length", "__len__", "__hash__"]
)  # fmt: skip
FORMS = (torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format)
READING = frozenset(["is_nonzero"])
PAST = frozenset(["data", "grad"])  # tensors that no operator makes


class NoNumbers(FunctionMode):
    """Refuses what reads the numbers of a tensor, or its memory, past torch's operators."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name in PAST:
                raise RefusedError(f"it uses .{name} of a tensor, which no operator makes")
        result = func(*args, **(kwargs or {}))
        if name in ASKED or (name.startswith("is_") and name not in READING):
            return result
        if isinstance(result, FORMS) or any(isinstance(r, Tensor) for r in tree_leaves(result)):
            return result
        if result is not None and any(isinstance(a, Tensor) for a in tree_leaves((args, kwargs))):
            raise RefusedError(f"it reads numbers out of a tensor, by {name}")
        return result
