"""What is passed to `step`: a closure with its batch, or several such terms."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .._autocast import users_own
from .._errors import InputError
from .samples import Samples

Closure = Callable[..., Any]


class Term(NamedTuple):
    """A term as it was passed to `step`."""

    closure: Closure
    batch: tuple[Any, ...]
    samples: Samples | None  # None: a closure without a batch

    @property
    def sample_count(self) -> int | None:
        """How many samples there are; None: a closure without a batch."""
        return None if self.samples is None else self.samples.count

    @property
    def shape(self) -> Any:
        """What distinguishes the term from others that look different to the plan."""
        tensors = () if self.samples is None else self.samples.tensors
        closure = users_own(self.closure)
        code = getattr(closure, "__code__", None) or id(closure)
        return code, tuple((t.shape, t.dtype) for t in tensors), self.samples is None


def terms_of(closure: Any, batch: tuple[Any, ...]) -> tuple[Term, ...]:
    """What was passed to `step` as terms.

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
        if any(isinstance(a, tuple | list) and a and callable(a[0]) for a in rest) or (
            rest and all(map(callable, rest))
        ):
            raise InputError(
                "a closure is followed by its batch, and here by another closure or term. For "
                "several terms each is a tuple: opt.step((equation, inside), (condition, "
                "boundary)), opt.step((first,), (second,))."
            )
        terms.append(Term(first, tuple(rest), Samples(rest) if rest else None))
    return tuple(terms)
