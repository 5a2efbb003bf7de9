"""A function of tensors, read as expressions while it runs.

The function is run once, on the numbers of one fit, under a mode that sees every operator, those of
`torch.func`'s derivatives and of backward passes as well; beside each tensor that it makes stand
the expressions of its entries. Where it reads a number to decide what to do next the trace ends in
an error, as it must: another fit would take the other branch.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._modes import DispatchMode
from .expressions import Expression, Expressions
from .grids import Grid, Grids, UnsupportedError
from .operators import RULES
from .rules import Call

LARGEST = 20_000  # numbers in a tensor, written out, up to which a program is written
MOST_POINTS = 4096
READS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select")
# what operators take and return tensors in; torch's walk through any tree took a third of a trace
LISTS = (list, tuple)
# arguments that say how a result is held, and nothing of its numbers
HOLDING = ("dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking")


class Traced(NamedTuple):
    """What a function computes.

    Attributes:
        outputs: for each tensor that it returns, its entries.
        constants: tensors that the function itself holds, which are read like arguments.
    """

    outputs: list[Grid]
    constants: list[Tensor]


def trace(
    function: Callable[..., Sequence[Tensor]],
    arguments: Sequence[Tensor],
    points: int,
    make: Expressions,
    constants: list[Tensor] | None = None,
) -> Traced:
    """Read the outputs of a function of tensors as expressions in the numbers of its arguments.

    Returns:
        What it computes.

    Raises:
        UnsupportedError: it has an operator that no rule is for.
        Exception: the function's own.
    """
    reader = _Reader(points, make, [] if constants is None else constants)
    # one tensor in two places is two arguments
    given = [argument.clone() for argument in arguments]
    for number, argument in enumerate(given):
        reader.enter(argument, reader.grids.read(number, argument.shape, argument.dtype))
    with reader:
        results = function(*given)
    return Traced([reader.grid(result) for result in results], reader.constants)


class _Reader(DispatchMode):
    """Keeps the expressions of every tensor that there is."""

    def __init__(self, points: int, make: Expressions, constants: list[Tensor]) -> None:
        # torch 2.13 has no types for it
        start: Callable[[DispatchMode], None] = DispatchMode.__init__
        start(self)
        self.grids = Grids(make, points)
        self.constants = constants
        self._known: dict[int, Grid] = {}
        self._alive: list[Tensor] = []  # so that no number of a tensor is used twice

    def enter(self, tensor: Tensor, grid: Grid) -> None:
        """Note the expressions of a tensor."""
        self._known[id(tensor)] = grid
        self._alive.append(tensor)

    def grid(self, tensor: Tensor) -> Grid:
        """The expressions of a tensor; one that nobody made here is the function's own."""
        if id(tensor) not in self._known:
            self.enter(tensor, self._constant(tensor))
        return self._known[id(tensor)]

    def _constant(self, tensor: Tensor) -> Grid:
        """A tensor that the function holds: its numbers, or where they are read."""
        known = self.grids.known(tensor)
        if known is not None:
            return known
        number = next((i for i, t in enumerate(self.constants) if t is tensor), None)
        if number is None:
            number = len(self.constants)
            self.constants.append(tensor)
        return self.grids.read(-1 - number, tensor.shape, tensor.dtype)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name, plain, mutable, says, random = _about(func)
        given = [*_tensors(args), *_tensors(kwargs.values())]
        depends = any(map(self._depends, given))
        if name in READS and depends:
            raise UnsupportedError("a branch or an index that depends on numbers of the fit")
        if random:
            raise UnsupportedError("random numbers")
        # what is no tensor, and what is made of constants alone, is what it is
        written = mutable and bool(given)
        if says or not (depends or written or name in RULES):
            return func(*args, **kwargs)
        rule = RULES.get(plain)
        if rule is None:
            return self._decomposed(func, args, kwargs)
        if mutable and name == plain:
            raise UnsupportedError(f"the operator {func}, which writes to its arguments")
        before = self._read(args)
        named = {
            key: self.grid(value) if isinstance(value, Tensor) else value
            for key, value in kwargs.items()
            if key not in HOLDING
        }
        result = func(*args, **kwargs)
        if next(_tensors((result,)), None) is None:
            return result
        if _named(rule):
            named["name"] = plain
        grids = rule(Call(self.grids, result), *before, **named)
        if mutable:
            self._write(func, self.grid(args[0]), grids)
            self._known[id(result)] = self.grid(args[0])
            self._alive.append(result)
            return result
        pairs = [(result, grids)] if isinstance(result, Tensor) else zip(result, grids, strict=True)
        for tensor, grid in pairs:
            self._check(func, grid, tensor)
            self.enter(tensor, grid)
        return result

    def _read(self, value: Any) -> Any:
        """An argument, or a list of them, with grids in the place of tensors."""
        if isinstance(value, Tensor):
            return self.grid(value)
        return type(value)(map(self._read, value)) if type(value) in LISTS else value

    def _depends(self, tensor: Tensor) -> bool:
        """Whether the numbers of a tensor come from the arguments."""
        grid = self._known.get(id(tensor))
        return grid is not None and any(
            one.operator != "constant" for one in np.ravel(grid.entries)
        )

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator by simpler ones, as torch itself writes it."""
        from torch._decomp import decomposition_table

        rule = decomposition_table.get(func)
        if rule is None:
            raise UnsupportedError(f"the operator {func}")
        with self:
            return rule(*args, **kwargs)

    def _write(self, func: Any, target: Grid, result: Grid) -> None:
        """Write the result of an operator into its argument: arrays are views where tensors are.

        Raises:
            UnsupportedError: it writes points where there were none.
        """
        if result.points is not None and target.at(0) != result.at(0):
            raise UnsupportedError(f"the operator {func} along points")
        target.entries[...] = result.entries

    def _check(self, func: Any, grid: Grid, value: Tensor) -> None:
        """Hold the shape to torch's own."""
        sizes = [
            self.grids.points if i == grid.points else size
            for i, size in enumerate(grid.entries.shape)
        ]
        if list(value.shape) != sizes:
            raise UnsupportedError(f"the operator {func} on {tuple(value.shape)}")
        if grid.entries.size > LARGEST:
            raise UnsupportedError("too many numbers for a program without loops")


class _About(NamedTuple):
    """What an operator is, whatever it is given.

    Attributes:
        name: without that of its library.
        plain: without the mark of those that write to their arguments.
        mutable: whether it writes to them.
        says: whether what it returns is no tensor.
        random: whether it draws numbers.
    """

    name: str
    plain: str
    mutable: bool
    says: bool
    random: bool


@cache
def _about(func: Any) -> _About:
    schema = func._schema
    name = schema.name.split("::")[-1]
    return _About(
        name,
        name if name.startswith("__") else name.removesuffix("_"),
        schema.is_mutable,
        not any("Tensor" in str(returned.type) for returned in schema.returns),
        torch.Tag.nondeterministic_seeded in func.tags,
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among what operators take and return, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in LISTS:
            yield from _tensors(value)


@cache
def _named(rule: Callable[..., Any]) -> bool:
    """Whether a rule is for several operators, and asks which it is."""
    return "name" in inspect.signature(rule).parameters


def ordered(roots: Sequence[Expression], known: Collection[int] = frozenset()) -> list[Expression]:
    """All expressions that lead to these, operands first; not those of which is `known` (by id)."""
    found: dict[int, Expression] = {}
    stack: list[tuple[Expression, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        one, ready = stack.pop()
        if id(one) in found:
            continue
        if ready:
            found[id(one)] = one
            continue
        stack.append((one, True))
        if id(one) not in known:
            stack.extend((o, False) for o in reversed(one.operands) if id(o) not in found)
    return list(found.values())


def entries(grids: Sequence[Grid]) -> list[Expression]:
    """The expressions of grids, one after the other."""
    return [e for grid in grids for e in np.ravel(grid.entries)]
