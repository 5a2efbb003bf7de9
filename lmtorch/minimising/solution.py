"""What a minimisation found, in scipy's words."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.termination import Status

FIRST = ("message", "success", "status", "fun", "x")  # entries that are shown before the others


@dataclass(slots=True)
class Later:
    """An entry of a solution that is made when it is first asked for.

    Attributes:
        make: gives it. Nothing that it needs may change until then.
        part: gives it for some problems of a batch (b,) alone, chosen by a slice; entries that are
            tensors also by numbers (k,).
    """

    make: Callable[[], Any]
    part: Callable[[Any], Any] | None = None


class Solution(dict[str, Any]):
    """The result of `least_squares`: a dict whose entries are attributes too, as scipy's.

    It has all that a `scipy.optimize.OptimizeResult` has, and is none itself: to import scipy's
    optimizers would take longer than most fits.

    Arrays are NumPy if x0 was, tensors on the device of x0 if it was a tensor. With `in_dims` every
    field has the batch (b,) in front, and `message` is a list.

    Attributes:
        x: the solution, in the structure, dtype and device of x0.
        cost: ½Σρ(r²) there, in squared units of the residuals.
        fun: the residuals r (m,), flat. Of a batch beyond `memory_limit` made as `jac` is.
        jac: J (m, n), with the rows of a robust loss rescaled, so that JᵀJ is the Gauss–Newton
            matrix of the cost; columns in the order of the flattened x. None where it does not fit
            the memory. Of a batch, or of a compiled fit whose like was fitted before, it is made
            when it is first asked for, by the function as it is then: an error says so where the
            function gives other residuals by then or, of a batch, its arguments were changed.
        grad: the gradient of the cost, (n,).
        optimality: largest entry of the gradient in the variables that are free to move.
        active_mask: −1 or 1 where a variable is at its lower or upper bound, else 0; int (n,).
        nfev: evaluations of the residuals: one at each start, and those at trial points, of all
            runs together; not those of finite differences, as in scipy.
        njev: Jacobians, one at each start and at each point that was kept; not those of small
            problems that were made along with the residuals of a trial that was refused.
        calls: how often `fun` was called in all, for whatever purpose: to look at it, for trials,
            for differences, for what is asked about the end; of all problems of a batch together.
        status: a `Status`, which is an int with scipy's numbers: positive for success alone.
        message: the status in words, with its evidence.
        success: whether a minimum was found, to the tolerances, and certified where the problem is
            small.
        promise: share of the cost that a model of it without damping still promises at x; NaN where
            it was not made.
        lost: whether a parameter has lost its influence, (n,) bool, flat.
        f_scale: the scale C of the loss; what "mad" estimated, or as given.
        history: reports of all iterations, if asked for.
        starts: of a multi-start, the solutions from all starts, with the batch in front.

    Example:
        >>> import torch, lmtorch
        >>> start = torch.tensor([1.0], dtype=torch.float64)
        >>> solution = lmtorch.least_squares(lambda x: x**2 - 2, start)
        >>> solution.success, solution["x"]
        (True, tensor([1.4142], dtype=torch.float64))
    """

    def __getitem__(self, name: str) -> Any:
        """An entry, made now if it is one that waits until it is asked for."""
        value = super().__getitem__(name)
        if isinstance(value, Later):
            made = value.make()
            self[name] = made
            if made is None and value.part is not None:  # too large as a whole, but not in parts
                self.__dict__.setdefault("_parts", {})[name] = value.part
            return made
        return value

    def __getattr__(self, name: str) -> Any:
        """An entry, by its name."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an entry."""
        self[name] = value

    def __delattr__(self, name: str) -> None:
        """Remove an entry."""
        try:
            del self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __dir__(self) -> list[str]:
        """The entries, and what belongs to every solution."""
        return sorted({*super().__dir__(), *self})

    def __repr__(self) -> str:
        """A line for each entry, long arrays shortened; those of a solution within it indented."""
        return _table(self) if self else f"{type(self).__name__}()"

    def __iter__(self) -> Iterator[str]:
        """The names of the entries; as it is a method of its own, `dict(solution)` makes them."""
        return super().__iter__()

    def waits(self, name: str) -> bool:
        """Whether an entry of a batch is not there, and can be made in parts.

        Args:
            name: of the entry.
        """
        return self._maker(name) is not None

    def _maker(self, name: str) -> Callable[[Any], Any] | None:
        """What makes parts of an entry that is not there as a whole."""
        value = super().__getitem__(name)
        if isinstance(value, Later):
            return value.part
        made: Callable[[Any], Any] | None = self.__dict__.get("_parts", {}).get(name)
        return made if value is None else None

    def part(self, name: str, chosen: Any) -> Any:
        """An entry of some problems of a batch; what waits is made for these alone.

        Args:
            name: of the entry.
            chosen: the problems, a slice; of entries that are tensors also their numbers (k,).
        """
        make = self._maker(name)
        return self[name][chosen] if make is None else make(chosen)

    def get(self, name: str, default: Any = None) -> Any:
        """An entry, or what stands in for it.

        Args:
            name: of the entry.
            default: where there is none.
        """
        there = name in self
        return self[name] if there else default

    def items(self) -> Any:
        """Names and entries."""
        return super(Solution, self._made()).items()

    def values(self) -> Any:
        """The entries."""
        return super(Solution, self._made()).values()

    def pop(self, name: str, *default: Any) -> Any:
        """Take an entry out.

        Args:
            name: of the entry.
            default: where there is none.
        """
        return super(Solution, self._made()).pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        """Take the last entry out, with its name."""
        return super(Solution, self._made()).popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        """An entry, which is set where there is none.

        Args:
            name: of the entry.
            default: what it is set to.
        """
        return super(Solution, self._made()).setdefault(name, default)

    def copy(self) -> dict[str, Any]:
        """A plain dict of the entries, as scipy's result gives one."""
        return dict(self)

    def _made(self) -> "Solution":
        """The solution, with no entry that waits."""
        for name in self:
            self[name]
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the entries to a file of JSON, from which `lmtorch.load` reads them.

        `history` and `starts` are left out, and gradients, and what explains the solution is kept
        as text. An x that is neither an array nor a tensor comes back as lists, tuples and dicts of
        them.

        Args:
            path: of the file; one that is there is replaced.

        Raises:
            InputError: an entry cannot be written as JSON.
        """
        from .._files import head_of, write
        from .._records import encoded

        left_out = ("history", "starts")
        entries = {name: self[name] for name in self if name not in left_out}
        status = entries.get("status")
        if isinstance(status, Status):
            entries["status"] = int(status)
        told = {"explanation": None if (text := self.explanation) is None else text}
        write(head_of(self) | {name: encoded(v) for name, v in entries.items()} | told, path)

    @property
    def explanation(self) -> str | None:
        """What `explain` prints of how the solution was found; None: nothing is known."""
        make = self.__dict__.get("_explanation")
        return None if make is None else str(make())

    @property
    def reasons(self) -> list[Status]:
        """The status of each problem; of a single one, in a list of one."""
        status: Any = self["status"]
        return [
            Status(int(s)) for s in (status.tolist() if hasattr(status, "tolist") else [status])
        ]

    def explained(self, make: Callable[[], str]) -> None:
        """Keep what `explain` prints, beside the entries.

        Args:
            make: gives the table.
        """
        self.__dict__["_explanation"] = make

    def remembered(self, normal: Any, kind: Any) -> None:
        """Keep what is known of a fit of a kind that is remembered, beside the entries.

        Args:
            normal: JᵀJ (n, n), where J itself is made later; else None.
            kind: where the kind is remembered.
        """
        self.__dict__.update(_normal=normal, _kind=kind)

    @property
    def kind(self) -> Any:
        """Where its kind of fit is remembered; None: nowhere."""
        return self.__dict__.get("_kind")

    @property
    def normal(self) -> Any:
        """JᵀJ (n, n) of such a fit, in float64; None of others, which have J itself."""
        return self.__dict__.get("_normal")

    def __getstate__(self) -> dict[str, Any]:
        """What a copy keeps beside the entries: the explanation, in words, and JᵀJ."""
        kept = {} if (text := self.explanation) is None else {"_explanation": partial(str, text)}
        return kept if self.normal is None else {**kept, "_normal": self.normal}

    def explain(self) -> None:
        """Print what was chosen, the numbers behind it, and how the run ended."""
        message = self["message"]
        ended = message if isinstance(message, str) else f"{len(message)} problems"
        known = self.explanation or "nothing is known of how it was found"
        sys.stdout.write(f"{known}\n{ended}\n")


def _table(entries: dict[str, Any], begin: int = 0, margin: int = 1) -> str:
    """Entries as scipy shows them, from a column on: names to the right, values to the left."""
    width = margin + max(map(len, entries))
    order = sorted(entries, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    lines = []
    for name in order:
        text = _shown(entries[name], begin + width + 2).replace("\n", "\n" + (width + 2) * " ")
        lines.append(f"{name:>{width}}: {text}")
    return "\n".join(lines)


def _shown(value: Any, begin: int) -> str:
    """A value in a table, from this column on."""
    if isinstance(value, dict) and value:
        return _table(value, begin, 0)
    if isinstance(value, np.ndarray):
        return np.array2string(
            value,
            max_line_width=76 - begin,
            edgeitems=2,
            threshold=12,
            formatter={"float_kind": lambda number: f"{number:>10.3e}"},
        )
    return str(value)
