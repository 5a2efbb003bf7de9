"""Evaluations of a function of one tensor, recorded operator by operator.

Between the operators of a small model lies more work than in them: Python that calls them, shapes
and types that are looked at, results that get memory. A record keeps the operators alone, as torch
dispatches them, with the tensors between them. `replayed` runs them again.

What a function does may depend on its numbers. A record is refused as soon as a number is read on
which that could depend, wherever the number comes from: the parameters, or an argument that may be
another in the next fit. What depends on neither is a constant, and whoever uses a record sees to it
that the constants are as they were.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .._modes import DispatchMode, FunctionMode
from ..calculus.base import Carrier
from ..calculus.rules import CONSTANT, RULES, name_of
from ..recording.operators import UnrecordableError

MOST = 400  # operators of a record, if nothing else is said
BYTES = 2**21  # of all values of a record, at most: they are kept
CONSTANTS, ARGUMENTS, PARAMETERS = 0, 1, 2  # what a value depends on, at most
# what a function may ask of a tensor beside its rules: it does not depend on the numbers
FACTS = (
    "shape ndim dtype device layout requires_grad size dim numel is_floating_point is_complex "
    "is_cuda is_leaf grad_fn __len__ stride is_contiguous requires_grad_ grad"
)
COMPARED = (
    "lt le gt ge eq ne less less_equal greater greater_equal logical_and logical_or logical_not "
    "logical_xor isnan isfinite isinf __and__ __or__ __xor__ __invert__ __lt__ __le__ __gt__ "
    "__ge__ __eq__ __ne__"
)
PURE = CONSTANT | frozenset([*FACTS.split(), *COMPARED.split(), *RULES])
# of these only shape and dtype of the argument matter
SHAPED = frozenset(["full_like", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full"])
UNMADE = frozenset(["empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"])


class Value:
    """Stands for a tensor in the arguments of an operator.

    Attributes:
        place: its number.
    """

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class Operator:
    """A call of one of torch's operators.

    Attributes:
        func: as it is dispatched.
        args: with a `Value` for each tensor.
        kwargs: likewise.
        outs: the numbers of its results.
        level: what they depend on.
        view: whether they lie in the memory of an argument.
    """

    __slots__ = ("args", "func", "kwargs", "level", "outs", "view")

    def __init__(
        self, func: Any, args: Any, kwargs: Any, outs: Sequence[int], level: int, view: bool
    ) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.outs, self.level, self.view = tuple(outs), level, view

    @property
    def name(self) -> str:
        """As it is called in torch."""
        name: str = self.func._schema.name
        return name.split("::")[1]


class Evaluation:
    """What a function has computed.

    Attributes:
        operators: in order, those of constants left out.
        tensors: every value at the point where the record was made.
        levels: what each depends on.
        inputs: the numbers of the parameters, and of the arguments that are tensors.
        outputs: the numbers of the results; None stays None.
    """

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.tensors: list[Tensor] = []
        self.levels: list[int] = []
        self.inputs: list[int] = []
        self.outputs: list[int | None] = []
        self.refused = ""
        self._places: dict[int, int] = {}

    def place(self, tensor: Tensor, level: int = CONSTANTS) -> int:
        """The number of a tensor; one that is not known yet is a constant."""
        found = self._places.get(id(tensor))
        if found is None:
            found = self._places[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)  # which keeps it, so that no other gets its address
            self.levels.append(level)
        return found

    def level(self, tensor: Tensor) -> int:
        """What a tensor depends on."""
        found = self._places.get(id(tensor))
        return CONSTANTS if found is None else self.levels[found]

    def refuse(self, why: str) -> None:
        """Note that there can be no record: a function may catch the exception that says so.

        Raises:
            UnrecordableError: always.
        """
        self.refused = why
        raise UnrecordableError(why)


def tensors_in(arguments: Any) -> Iterator[Any]:
    """The tensors, and what carries derivatives, in nested arguments."""
    if isinstance(arguments, Tensor | Carrier):
        yield arguments
    elif isinstance(arguments, tuple | list):
        for one in arguments:
            yield from tensors_in(one)
    elif isinstance(arguments, dict):
        yield from tensors_in(list(arguments.values()))


def places_in(arguments: Any) -> Iterator[int]:
    """The numbers of the values in nested arguments of an operator."""
    if isinstance(arguments, Value):
        yield arguments.place
    elif isinstance(arguments, tuple | list):
        for one in arguments:
            yield from places_in(one)
    elif isinstance(arguments, dict):
        yield from places_in(list(arguments.values()))


class _Reads(FunctionMode):
    """Refuses what reads numbers by ways on which no operator is dispatched, as `tolist` does."""

    def __init__(self, record: Evaluation) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = name_of(func)
        if name not in PURE and any(map(self._depends, tensors_in((args, kwargs or {})))):
            self.record.refuse(f"{name} of what may be another number next time")
        return func(*args, **(kwargs or {}))

    def _depends(self, found: Any) -> bool:
        return isinstance(found, Carrier) or self.record.level(found) > CONSTANTS


class _Operators(DispatchMode):
    """Notes every operator."""

    def __init__(self, record: Evaluation, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch 2.13 annotates no types on it
        self.record, self.most = record, most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        record, schema, kwargs = self.record, func._schema, kwargs or {}
        name = schema.name.split("::")[1]
        drawn = torch.Tag.nondeterministic_seeded in func.tags
        if schema.is_mutable or drawn or name in UNMADE or len(record.operators) >= self.most:
            record.refuse(f"the operator {name}")
        given = list(tensors_in((args, kwargs)))
        level = max(map(record.level, given), default=CONSTANTS)
        level = CONSTANTS if name in SHAPED else level
        if level > CONSTANTS and self._shapes(func, args):
            record.refuse(f"the shape of what {name} gives")
        noted = _values(record, args), _values(record, kwargs)
        result = func(*args, **kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        if not all(type(one) is Tensor and one.device.type == "cpu" for one in results):
            if level > CONSTANTS:
                record.refuse(f"{name} gives no tensors")
            return result
        view = any(one.alias_info is not None for one in schema.returns)
        if view and name in SHAPED:
            record.refuse(f"the operator {name}")
        outs = [record.place(one, level) for one in results]
        if level > CONSTANTS:
            record.operators.append(Operator(func, *noted, outs, level, view))
        return result

    def _shapes(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether the shape of the result may depend on what is no constant."""
        if torch.Tag.dynamic_output_shape not in func.tags:
            return False
        if func is not torch.ops.aten.index.Tensor:
            return True
        masks = [one for one in tensors_in(args[1]) if one.dtype in (torch.bool, torch.uint8)]
        return any(self.record.level(mask) > CONSTANTS for mask in masks)


def _values(record: Evaluation, arguments: Any) -> Any:
    """Arguments with a `Value` for each tensor."""
    if isinstance(arguments, Tensor):
        return Value(record.place(arguments))
    if isinstance(arguments, tuple | list):
        return type(arguments)(_values(record, one) for one in arguments)
    if isinstance(arguments, dict):
        return {key: _values(record, one) for key, one in arguments.items()}
    return arguments


def _room(tensors: Sequence[Tensor]) -> int:
    """How many bytes tensors take, some of which are views of others."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def recorded(
    function: Callable[[], Sequence[Tensor | None]],
    x: Tensor,
    arguments: Sequence[Tensor],
    most: int = MOST,
) -> Evaluation:
    """Record what a function computes.

    Args:
        function: evaluates it, and returns a vector for each result, or None.
        x: the parameters, as the function is given them.
        arguments: tensors of which it is given others next time.
        most: operators that it may have.

    Returns:
        The record.

    Raises:
        UnrecordableError: there is none. Other exceptions come from the function.
    """
    record = Evaluation()
    record.inputs = [record.place(x, PARAMETERS)]
    record.inputs += [record.place(argument, ARGUMENTS) for argument in arguments]
    given = (x, *arguments)
    with _Operators(record, most), _Reads(record):
        results = function()
    if record.refused:
        raise UnrecordableError(record.refused)
    if _room(record.tensors) > BYTES:
        raise UnrecordableError("many numbers")
    record.outputs = [None if one is None else record.place(one) for one in results]
    for place, tensor in zip(record.inputs, given, strict=True):
        record.tensors[place] = tensor.clone()  # what is given may be written into later
    return record
