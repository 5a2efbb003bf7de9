"""A device that is none: its tensors refuse to meet those of the CPU, and count what waits.

It stands in for a GPU where there is none. What it shows: that no tensor is made on the wrong
device, and how often the host waits for the device (`counted`). What it cannot show: speed, memory,
the arithmetic and the missing kernels of a GPU, its random generators, streams and graphs.

A tensor here is a tensor of the CPU in a wrapper, on the dispatch key that torch keeps for the
backends of others; so vmap, jvp, autograd, modules and optimizers run on it. torch's registration
of such backends from Python is experimental: where it is missing there is no stand-in (`MISSING`
says why). Where there is a GPU there is none either: torch has room for one accelerator, and the
GPU shows more.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.utils.backend_registration as registration
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "stand_in"
PACKAGE = Path(__file__).parents[1] / "lmtorch"
CPU = torch.device("cpu")
MISSING = (
    "there is a GPU, and room for one accelerator"
    if torch.cuda.is_available()
    else None
    if hasattr(registration, "_setup_privateuseone_for_python_backend")
    else f"torch {torch.__version__} cannot register a device from Python, and there is no GPU"
)

aten = torch.ops.aten
# operators whose result the host must know before it can go on
READING = {
    "_local_scalar_dense": "read", "equal": "read", "nonzero": "size", "masked_select": "size",
    "_unique2": "size",
    "unique_dim": "size", "unique_consecutive": "size", "repeat_interleave": "size",
    "bincount": "size",
}  # fmt: skip
# factorisations that torch documents to wait on a GPU, for their own check of convergence
FACTORISATIONS = {
    "_linalg_svd",
    "_linalg_eigh",
    "linalg_eig",
    "_linalg_eigvals",
    "_linalg_check_errors",
}
# views whose values are made when they are read; within, they are made at once
LAZY = {"_conj": torch.conj_physical, "_neg_view": torch.neg}
NUMBERS = {int, float, bool}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# beside pointwise operators, those that take a number in a 0-d tensor of the CPU
WITH_NUMBERS = {"fill_", "fill", "masked_fill", "masked_fill_", *INDEXING}

_counters: list[Counter[str]] = []


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what makes the host wait within: how often, by what and from which line.

    Factorisations that wait within torch are counted apart: see `waits`.
    """
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def waits(counter: Counter[str]) -> tuple[int, int]:
    """Reads and copies; and factorisations, SVD and eigh, that wait by themselves."""
    within = sum(number for key, number in counter.items() if key.startswith("factorisation"))
    return counter.total() - within, within


def _count(what: str) -> None:
    for counter in _counters:
        counter[f"{what}, {_place()}"] += 1


def _place() -> str:
    """The line of the package that is being run, or of whoever called it."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if name := _name(frame.f_code.co_filename):
            return f"{name}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return "outside the package"


@cache
def _name(file: str) -> str:
    """The name of a file of the package, but for helpers that read for others."""
    path = Path(file)
    inside = PACKAGE in path.parents and path.parent.name != "arrays"
    return "/".join(path.parts[-2:]) if inside else ""


@cache
def _device() -> torch.device:
    return torch.device(NAME, 0)


class Elsewhere(Tensor):
    """A tensor of the CPU that says it is on the stand-in."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> "Elsewhere":
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=_device(), requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, inner: Tensor, requires_grad: bool = False) -> None:
        self.inner = inner

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}({self.inner})"

    @property
    def data(self) -> "Elsewhere":
        """The same numbers, unknown to autograd."""
        return Elsewhere(self.inner)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Elsewhere):
            raise RuntimeError("data of another device cannot be put in place.")
        self.inner = value.inner

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        _count("read")
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Elsewhere":
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.inner.clone(), self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuilt, (self.inner, self.requires_grad, isinstance(self, Parameter))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _rebuilt(inner: Tensor, requires_grad: bool, parameter: bool) -> Tensor:
    """From a pickle."""
    return (
        Parameter(Elsewhere(inner), requires_grad) if parameter else Elsewhere(inner, requires_grad)
    )


# of what operators take and return, tensors and lists of them, a general walk through trees costs
# more than everything else here together
def _inner(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return value.inner
    return type(value)(map(_inner, value)) if type(value) in (list, tuple) else value


def _outer(value: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, Elsewhere):
        return Elsewhere(value)
    return type(value)(map(_outer, value)) if type(value) in (list, tuple) else value


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator of torch: on the tensors within, after a look at where they say they are."""
    name, aliased, plain = _known(func)
    if plain and not kwargs:
        # nine of ten operators, and tests wait for nothing longer than for this function
        within = []
        for value in args:
            if type(value) is Elsewhere:
                within.append(value.inner)
            elif value is None or type(value) in NUMBERS:
                within.append(value)
            else:
                break
        else:
            result = func(*within)
            return Elsewhere(result) if type(result) is Tensor else _outer(result)
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": CPU if _is_there(device) else device}
    if name == "copy_":
        return _copy(args[1], args[0], kwargs.get("non_blocking", len(args) > 2 and args[2]))
    tensors = list(_tensors((*args, *kwargs.values())))
    here = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if name == "_to_copy":
        if (
            device is not None
            and _is_there(device) != here
            and not (kwargs.get("non_blocking") and not here)
        ):
            _count("copy")
        there = here if device is None else _is_there(device)
        result = func(*map(_inner, args), **kwargs)
        return _outer(result) if there else result
    if here:
        _check(func, name, tensors)
        _note(name, args)
    named = {key: _inner(value) for key, value in kwargs.items()}
    result = LAZY.get(name, func)(*map(_inner, args), **named)
    if not (here or _is_there(device)):
        return result
    result = _outer(result)
    return return_and_correct_aliasing(func, args, kwargs, result) if aliased else result


@cache
def _known(func: Any) -> tuple[str, bool, bool]:
    """The name of an operator, whether it returns what it was given, or a view of it; is it plain.

    A plain one makes new tensors of tensors and numbers, and nothing of it is counted.
    """
    name = func._schema.name.split("::")[1]
    # of lists torch's function does not know
    lists = name.startswith("_foreach")
    aliased = not lists and any(one.alias_info for one in func._schema.returns)
    counts = {"copy_", "_to_copy", *READING, *FACTORISATIONS, *INDEXING, *LAZY}
    return name, aliased, not (aliased or lists or func._schema.is_mutable or name in counts)


def _check(func: Any, name: str, tensors: list[Tensor]) -> None:
    """Refuse tensors of the CPU, as a GPU does, but for numbers and indices where it takes them."""
    strangers = [t for t in tensors if not isinstance(t, Elsewhere) and t.device.type == "cpu"]
    if not strangers:
        return
    numbers = torch.Tag.pointwise in func.tags or name in WITH_NUMBERS
    indices = name in INDEXING
    if not all(
        (numbers and t.ndim == 0) or (indices and t.dtype in (torch.int64, torch.bool))
        for t in strangers
    ):
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} met {NAME} and cpu, "
            f"{[tuple(t.shape) for t in strangers]}."
        )
    if name == "where" or (indices and any(t.ndim > 0 for t in strangers)):
        _count("copy")


def _note(name: str, args: Any) -> None:
    """Count what waits."""
    if name in READING:
        _count(READING[name])
    elif name in FACTORISATIONS:
        _count("factorisation")
    elif name in INDEXING:
        masks = [
            i for i in args[1] if isinstance(i, Elsewhere) and i.dtype in (torch.bool, torch.uint8)
        ]
        if masks:
            _count("boolean index")


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """A copy; to the device it may go on without the host, if that is asked for."""
    here = isinstance(source, Elsewhere)
    if here != isinstance(target, Elsewhere) and (here or not non_blocking):
        _count("copy")
    _inner(target).copy_(_inner(source))
    return target


class _Module:
    """What torch asks a device for, `torch.stand_in`."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Numbers are drawn by the generator of the CPU."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _register() -> list[torch.library.Library]:
    """Tell torch of the device, of how tensors are made there, and of copies."""
    registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.serialization.add_safe_globals([_rebuilt])
    library = torch.library.Library("aten", "IMPL")

    def made_by(overload: Any) -> Any:
        return lambda *args, **kwargs: Elsewhere(overload(*args, **{**kwargs, "device": CPU}))

    for overload in (aten.empty.memory_format, aten.empty_strided.default):
        library.impl(overload, made_by(overload), "PrivateUse1")
    library.impl(aten._efficientzerotensor.default, made_by(aten.zeros.default), "PrivateUse1")
    library.impl("_copy_from", _copy, "PrivateUse1")
    # nothing is cast on the way: which operators are is for each device to say
    all_others = torch.library.Library("_", "IMPL")
    all_others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return [library, all_others]


if MISSING is None:
    LIBRARIES = _register()  # for as long as the process lives
