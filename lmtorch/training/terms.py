"""What is passed to `step`: a closure with its batch, or several such terms."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any, NamedTuple

import torch

from .._autocast import users_own
from .._errors import InputError
from .loaders import Loaders, Stream, is_loader
from .samples import Samples

Closure = Callable[..., Any]


class Term(NamedTuple):
    """A term as it was passed to `step`."""

    closure: Closure
    batch: tuple[Any, ...]
    samples: Samples | None  # None: a closure without a batch; of a loader, a few of them
    loader: Any = None  # what yields the batches, if they are read anew in each pass
    stream: Stream | None = None  # its passes in this step

    @property
    def sample_count(self) -> int | None:
        """How many samples there are; None: a closure without a batch."""
        if self.stream is not None:
            return self.stream.count
        return None if self.samples is None else self.samples.count

    @property
    def shape(self) -> Any:
        """What distinguishes the term from others that look different to the plan."""
        tensors = () if self.samples is None else self.samples.tensors
        closure = users_own(self.closure)
        code = getattr(closure, "__code__", None) or id(closure)
        shapes = tuple((t.shape, t.dtype) for t in tensors)
        return code, shapes, self.samples is None, self.stream and self.stream.count

    def opened(self, device: torch.device, loaders: Loaders) -> "Term":
        """The term at the start of a step, with the passes over its loader, if it has one.

        Raises:
            InputError: the loader yields no samples.
        """
        if self.loader is None:
            return self
        stream = Stream(self.loader, device, loaders)
        return self._replace(samples=stream.first, stream=stream)

    def batches(self) -> Iterable[tuple[Any, ...]]:
        """The arguments of the closure, batch after batch."""
        if self.stream is None:
            return (self.batch,)
        return (samples.arguments(samples.tensors) for samples in self.stream.read())


def _takes_too_few(closure: Any, rest: list[Any]) -> bool:
    """Whether a function is among the batch, and the closure takes less than all of it.

    Then the function is the closure of a next term. A closure that takes it has it as a constant.
    """
    if not any(map(callable, rest)):
        return False
    try:
        signature(closure).bind(*rest)
    except TypeError:
        return True
    except ValueError:  # one of C, which shows no signature
        return False
    return False


def terms_of(closure: Any, batch: tuple[Any, ...], empty: bool = False) -> tuple[Term, ...]:
    """What was passed to `step` as terms.

    Args:
        closure: as passed.
        batch: as passed.
        empty: whether a term may be without samples, as other processes have them.

    Raises:
        InputError: something that is no closure, or a mixture of a closure and terms.
    """
    passed = [(closure, *batch)]
    if isinstance(closure, tuple | list):
        passed = [
            tuple(term) if isinstance(term, tuple | list) else (term,) for term in (closure, *batch)
        ]
    terms = []
    for term in passed:
        first, *rest = term or ((),)
        if not callable(first):
            what = "an empty term" if first == () else type(first).__name__
            raise InputError(
                f"step needs a closure that returns the residuals, and got {what}. For example "
                "opt.step(lambda: model(x) - y), opt.step(lambda x, y: model(x) - y, x, y), or for "
                "several terms opt.step((equation, inside), (condition, boundary)), each a closure "
                "followed by its batch."
            )
        if (
            any(isinstance(a, tuple | list) and a and callable(a[0]) for a in rest)
            or (rest and all(map(callable, rest)))
            or _takes_too_few(first, rest)
        ):
            raise InputError(
                "a closure is followed by its batch, and here by another closure or term. For "
                "several terms each is a tuple: opt.step((equation, inside), (condition, "
                "boundary)), opt.step((first,), (second,))."
            )
        if is_loader(tuple(rest)):
            terms.append(Term(first, (), None, rest[0]))
            continue
        terms.append(Term(first, tuple(rest), Samples(rest, empty=empty) if rest else None))
    return tuple(terms)
