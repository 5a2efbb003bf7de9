"""A descent of many fits as one call of a program."""

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..core.certificate import NEWTON
from ..core.method import Method
from ..core.state import Begun
from ..core.termination import RUNNING
from . import planes
from .building import build
from .emitting import Block, Layout, Place, program
from .expressions import Expression, Expressions
from .fields import Argument
from .given import Given
from .grids import UnsupportedError, kind_of
from .iteration import Rest, Seen, Standing, iterate, look, settle, start, unseen, whole
from .lanes import Lanes
from .recipes import Make
from .single import Single
from .tracing import MOST_POINTS, Traced, entries, trace

MANY = Lanes()  # fits side by side
ALONE = Lanes(2)  # of a single fit, which all lanes repeat: the least that every CPU has
# points up to which each is written out, so that they are not mistaken for parameters
WRITTEN_OUT = 8
PARTS = ("begin", "step", "look", "settle")
SHARE = 2000  # fits whose scratch stays in the cache; no power of two, which would share its lines
T = TypeVar("T")
_TRACING = threading.Lock()


class Descended(NamedTuple):
    """Where fits (b,) have ended, and what is kept of those that are not sure of their minimum."""

    x: Tensor  # (b, n)
    cost: Tensor  # (b,)
    status: Tensor  # (b,) int
    trials: Tensor  # (b,) int
    linearizations: Tensor  # (b,) int
    promise: Tensor  # (b,), of the certificate
    lowest: Tensor  # (b,), likewise
    gradient: Tensor  # (b, n), of all variables
    told: Tensor  # (b,) bool: nothing more is to be seen
    sure: Tensor  # (b,) bool: at a minimum
    cosine: Tensor  # (b,)
    places: Tensor  # (k,), of the others
    standing: Standing  # theirs


@dataclass(frozen=True)
class Program:
    """A compiled descent, for any number of fits.

    Attributes:
        text: the program, in C++.
        leaves: shape of one fit, and dtype, of each tensor that is carried.
        places: the standing of a run, with the number of the leaf in the place of each tensor.
        constants: tensors that the function holds itself.
    """

    text: str
    leaves: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    places: Standing
    constants: tuple[Tensor, ...]

    @cached_property
    def single(self) -> Single:
        """The program, ready for one fit at a time."""
        return Single(self)

    def ready(self, device: torch.device) -> None:
        """Compile it, if it is not there.

        Raises:
            NoCompilerError: there is no compiler, or it has refused.
        """
        build(self.text)

    def run(
        self,
        x: Tensor,
        given: Sequence[Given],
        trials: int,
        *,
        begun: Begun | None = None,
        newton: int = NEWTON,
        everything: bool = False,
    ) -> Descended:
        """Descend from x (b, n), with at most so many trials for each.

        Args:
            x: the starts.
            given: what the problems are made of.
            trials: at most.
            begun: where the first of several runs began; None: this is the first.
            newton: Newton steps at an end that is not sure, at most.
            everything: keep all of all fits, which is for a few of them.

        Returns:
            Where the fits have ended.
        """
        library, count = build(self.text), len(x)
        library.memory.restype = ctypes.c_int64
        size = int(library.memory())
        arguments = [
            x.contiguous(), *(g.tensor.contiguous() for g in given),
            *(c.contiguous() for c in self.constants),
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(arguments))(*(a.data_ptr() for a in arguments))
        state: Any = self.places.state
        wanted = self.wanted
        certain = wanted[-2]
        whole = {place: self._empty(place, count) for place in wanted}
        one = min(count, SHARE)
        # rows are addressed by the number of the fit among all
        scratch = _Scratch(self, whole, one)

        def descend(some: range) -> tuple[Tensor, list[Tensor]] | None:
            """A share of the fits: all is kept in a scratch that stays in the cache."""
            rows, parts = scratch.rows(some.start)
            memory = torch.empty(size, dtype=torch.uint8)
            begin = -(-memory.data_ptr() // 64) * 64
            window = slice(some.start, some.stop)
            for place, value in zip(state.begun, begun or (), strict=False):
                row = whole[place][:, window] if place in whole else parts[place][:, : len(some)]
                row.copy_(value[window].reshape(len(some), -1).T)
            library.descend(
                ctypes.c_int64(len(some)), ctypes.c_int64(some.start), pointers,
                rows.ctypes.data_as(ctypes.c_void_p), 0 if begun is None else 2,
                ctypes.c_int64(trials), ctypes.c_int64(newton), ctypes.c_void_p(begin),
            )  # fmt: skip
            places = torch.arange(some.start, some.stop)
            if not everything:
                places = places[~whole[certain][0, window]]
            if not len(places):
                return None
            return places, [
                whole[place][:, places] if place in whole else part[:, places - some.start]
                for place, part in enumerate(parts)
            ]

        shares = [range(i, min(i + one, count)) for i in range(0, count, one)]
        found = [share for share in _in_threads(descend, shares) if share is not None]
        if found:
            places = torch.cat([one for one, _ in found])
            kept = [torch.cat(parts, -1) for parts in zip(*(k for _, k in found), strict=True)]
        else:
            places, kept = torch.arange(0), [self._empty(i, 0) for i in range(len(self.leaves))]
        columns = [self._shaped(i, whole[i]) for i in wanted]
        return Descended._make([*columns, places, self._standing(kept)])

    @property
    def wanted(self) -> list[int]:
        """The leaves that are kept of all fits, in the order of `Descended`."""
        state: Any = self.places.state
        linearization: Any = self.places.linearization
        return [
            state.x, state.cost, state.status, state.trials, state.linearizations,
            state.certificate.promise, state.certificate.lowest, linearization.gradient,
            *range(len(self.leaves) - len(Seen._fields), len(self.leaves)),
        ]  # fmt: skip

    def _empty(self, place: int, count: int, device: torch.device | str = "cpu") -> Tensor:
        shape, dtype = self.leaves[place]
        return torch.empty((math.prod(shape), count), dtype=dtype, device=device)

    def _standing(self, kept: Sequence[Tensor]) -> Standing:
        """Where fits stand, from the rows of all leaves."""
        shaped = [self._shaped(i, part) for i, part in enumerate(kept)]
        standing: Standing = tree_map(lambda i: None if i is None else shaped[i], self.places)
        return standing

    def _shaped(self, place: int, part: Tensor) -> Tensor:
        """Rows of a leaf as (b, ...), with the fits last in memory."""
        return part.reshape(*self.leaves[place][0], part.shape[-1]).movedim(-1, 0)


class _Scratch(threading.local):
    """Rows in which a thread keeps what is carried, for a share of the fits at a time."""

    def __init__(self, program: Program, whole: dict[int, Tensor], count: int) -> None:
        self.parts = [program._empty(place, count) for place in range(len(program.leaves))]
        rows = [
            (row.data_ptr(), 0 if place in whole else row.element_size())
            for place, part in enumerate(self.parts) for row in whole.get(place, part)
        ]  # fmt: skip
        self.first, self.sizes = np.array(rows, dtype=np.int64).T.copy()

    def rows(self, start: int) -> tuple[Any, list[Tensor]]:
        """Addresses of all rows, as if that of fit 0 were there, and the rows from fit `start`."""
        return self.first - start * self.sizes, self.parts


def _in_threads(call: Callable[[range], T], shares: Sequence[range]) -> list[T]:
    """Call with each share, in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(shares))
    if threads <= 1:
        return [call(share) for share in shares]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, shares))


def written(
    make: Make,
    method: Method,
    x: Tensor,
    given: Sequence[Given],
    layout: Layout | None = MANY,
    kind: type[Program] = Program,
) -> Program:
    """Trace the descent of one of the fits from x (b, n), and write it as a program.

    Args:
        make: the problem of one fit.
        method: how it is minimised.
        x: starts.
        given: what the problems are made of.
        layout: how fits run beside each other; None: on NumPy's arrays, see `planes`.
        kind: what runs the program.

    Returns:
        The program.

    Raises:
        UnsupportedError: there is an operator that cannot be written.
        Exception: torch's own, where the function cannot be traced.
    """
    one = [x[:1].clone(), *(g.tensor if g.shared else g.tensor[:1].clone() for g in given)]
    first, way = make(one[1:-1]), whole(method, one[-1])
    rows, n = first.residual.rows, x.shape[-1]
    if rows > MOST_POINTS:
        raise UnsupportedError(f"{rows} residuals are more than {MOST_POINTS}")
    points = rows if rows > max(WRITTEN_OUT, n + 1) else 0
    with _TRACING, torch.no_grad():
        begun = start(first, way, one[0])
        flat, tree = tree_flatten(begun)
        present = tuple(isinstance(leaf, Tensor) for leaf in flat)
        nothing = unseen(begun.state.cost)
        carried = [*(leaf for leaf in flat if isinstance(leaf, Tensor)), *nothing]
        number = len(carried)

        _, _, unrest = look(first, way, begun)
        size = number + len(unrest)

        def standing(tensors: Sequence[Tensor]) -> Standing:
            found = iter(tensors)
            return tree_unflatten([next(found) if there else None for there in present], tree)

        def seen(tensors: Sequence[Tensor]) -> Seen:
            return Seen(*tensors[number - len(nothing) : number])

        def tensors(value: Standing, *more: Seen | Rest) -> list[Tensor]:
            return [
                *(t for t in tree_flatten(value)[0] if isinstance(t, Tensor)),
                *(t.clone() for part in more for t in part),
            ]

        def first_(*t: Tensor) -> list[Tensor]:
            return tensors(start(make(t[1:-1]), whole(method, t[-1]), t[0]), nothing)

        def next_(*t: Tensor) -> list[Tensor]:
            problem, way = make(t[number:-1]), whole(method, t[-1])
            return tensors(iterate(problem, way, standing(t[:number])), nothing)

        def last_(*t: Tensor) -> list[Tensor]:
            problem, way = make(t[number:-1]), whole(method, t[-1])
            return tensors(*look(problem, way, standing(t[:number])))

        def settle_(*t: Tensor) -> list[Tensor]:
            problem, way = make(t[size:-1]), whole(method, t[-1])
            known = standing(t[:number]), seen(t), Rest(*t[number:size])
            return tensors(*settle(problem, way, *known))

        expressions, constants = Expressions(), list[Tensor]()
        flag = torch.compiler._is_compiling_flag
        torch.compiler._is_compiling_flag = True  # no mask is read while a trace is made
        try:
            parts = [
                trace(function, arguments, points, expressions, constants)
                for function, arguments in (
                    (first_, one),
                    (next_, [*carried, *one[1:]]),
                    (last_, [*carried, *one[1:]]),
                    (settle_, [*carried, *unrest, *one[1:]]),
                )
            ]
        finally:
            torch.compiler._is_compiling_flag = flag
    leaves = tuple((tuple(leaf.shape[1:]), leaf.dtype) for leaf in carried)
    numbers = iter(range(number - len(nothing)))
    places: Standing = tree_unflatten([next(numbers) if there else None for there in present], tree)
    text = _text(parts, carried, unrest, places, one, given, constants, points, layout)
    return kind(text, leaves, places, tuple(constants))


def _text(
    parts: Sequence[Traced],
    carried: Sequence[Tensor],
    rest: Rest,
    leaves: Standing,  # numbers among what is carried
    one: Sequence[Tensor],
    given: Sequence[Given],
    constants: Sequence[Tensor],
    points: int,
    layout: Layout | None,
) -> str:
    """The program, in C++, CUDA or Python."""
    (places, kinds), (rests, others) = _numbered(carried), _numbered(rest)
    shared = [False, *(g.shared for g in given), *(True for _ in constants)]
    data = [
        Argument(kind_of(t.dtype), t.numel(), common)
        for t, common in zip([*one, *constants], shared, strict=True)
    ]
    first, following, last, settled = parts
    state: Any = leaves.state
    told = places[state.status], places[state.trials], RUNNING
    before = [places[i] + entry for i in state.begun for entry in range(carried[i].numel())]
    given_before = len(one)

    def where(lead: int) -> Callable[[Expression], Place]:
        """How an input is read by a function whose first `lead` arguments are carried."""

        def read(expression: Expression) -> Place:
            place: Any = expression.value
            number, offset, step = place
            if 0 <= number < lead:
                if number >= len(carried):
                    return Place("r", rests[number - len(carried)] + offset)
                return Place("p", places[number] + offset)
            own = number < 0  # a tensor that the function itself holds
            which = given_before - 1 - number if own else number - lead + (lead > 0)
            return Place("d", which, offset, step, shared[which])

        return read

    blocks = (
        Block(entries(first.outputs), where(0)),
        Block(entries(following.outputs), where(len(carried))),
        Block(entries(last.outputs), where(len(carried))),
        Block(entries(settled.outputs), where(len(carried) + len(rest))),
    )
    if layout is None:
        return planes.program(points, **dict(zip(PARTS, blocks, strict=True)))
    return program(layout, max(points, 1), data, kinds, *blocks, others, told, before)


def _numbered(leaves: Sequence[Tensor]) -> tuple[list[int], list[str]]:
    """Which number is the first of each leaf, and the kinds of all numbers."""
    places, kinds = [], list[str]()
    for leaf in leaves:
        places.append(len(kinds))
        kinds += [kind_of(leaf.dtype)] * leaf.numel()
    return places, kinds
