"""A batch that is read anew at every pass: a DataLoader, a list of batches, one's own class.

A pass is one reading of all batches. All passes of a step begin with the same states of the random
number generators, so that a loader that shuffles or augments by them yields the same samples, and
every pass is held to the first one by a fingerprint.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import SUPPORTED_NODES
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
)

from .._advice import of_repeated
from .._errors import InputError
from ..residuals.replay import Generators, same_state
from .bar import Bar
from .fingerprints import Fingerprint
from .samples import Samples
from .targets import RowsChangedError

TELLING = 2  # samples that are kept to look at a closure with
WAITING = 32  # small batches that are kept open at most, before they become one


class Known(NamedTuple):
    """What earlier passes over a loader have shown."""

    first: Samples  # a few samples
    samples: int
    batches: int


class RecountedError(RowsChangedError):
    """A pass has shown another number of samples than was expected; it is known now."""


def is_loader(batch: tuple[Any, ...]) -> bool:
    """Whether the arguments of a closure are to be read from a single object, batch by batch.

    Returns:
        Whether they are.

    Raises:
        InputError: the object cannot be read again and again, or yields no batches.
    """
    if any(isinstance(one, DataLoader) for one in batch) and len(batch) > 1:
        raise InputError(
            "a loader is the whole batch of a closure, and here something stands beside it: "
            "opt.step(closure, loader). What is the same for all samples belongs into the closure, "
            "what belongs to a sample into the batches that the loader yields."
        )
    if len(batch) != 1:
        return False
    (one,) = batch
    if isinstance(one, list):
        return _of_batches(one)
    kinds = (Tensor, str, bytes, Mapping, tuple, nn.Module, np.generic)
    if isinstance(one, kinds) or hasattr(one, "__array__") or type(one) in SUPPORTED_NODES:
        return False
    if isinstance(one, Dataset) and not isinstance(one, IterableDataset):
        raise InputError(
            f"the batch is a {type(one).__name__}, which gives samples one by one. Pass a loader "
            "of batches: torch.utils.data.DataLoader(dataset, batch_size=1024)."
        )
    if isinstance(one, Iterator):
        raise InputError(
            f"the batch is a {type(one).__name__}, which can be read once only, and a step reads "
            "its data several times: for the linear model and for every trial. Pass something that "
            "begins anew at each `for`: a DataLoader, a list of batches, or an object of a class "
            "with `__iter__`. Or take a step for each batch: for x, y in batches: "
            "opt.step(closure, x, y)."
        )
    return isinstance(one, Iterable)


def _of_batches(values: list[Any]) -> bool:
    """Whether a list is one of batches: of tuples, lists or dicts of tensors, not of tensors."""
    return bool(values) and all(
        isinstance(value, tuple | list | dict) and _has_tensors(value) for value in values
    )


def _has_tensors(value: Any) -> bool:
    entries = value.values() if isinstance(value, dict) else value
    return any(isinstance(entry, Tensor) and entry.ndim > 0 for entry in entries)


class Loaders:
    """What is known of the loaders that an optimizer was given, as long as they live.

    Args:
        shown: whether passes are shown by a bar.
    """

    def __init__(self, shown: bool = False) -> None:
        self.known: dict[int, Known] = {}
        self.bar = Bar(shown)

    def get(self, loader: Any) -> Known | None:
        """What is known of a loader."""
        return self.known.get(id(loader))

    def put(self, loader: Any, known: Known) -> None:
        """Remember it, if it can be seen when the loader is gone."""
        try:
            if id(loader) not in self.known:
                weakref.finalize(loader, self.known.pop, id(loader), None)
        except TypeError:  # a list: to count it is cheap
            return
        self.known[id(loader)] = known


class Stream:
    """The batches of a loader, pass after pass.

    Args:
        loader: what yields them.
        device: where they are brought.
        loaders: remembers what passes have shown.

    Attributes:
        first: a few samples.
        count: how many samples a pass is expected to have, which it is held to.
        batches: likewise.

    Raises:
        InputError: there are none, or no tensors in them.
    """

    def __init__(self, loader: Any, device: torch.device, loaders: Loaders) -> None:
        self.loader, self.device, self.loaders = loader, device, loaders
        self.generators = Generators(device, [loader])
        self.begin = self.generators.read()
        self.end: list[Any] | None = None
        self.seen: Fingerprint | None = None  # of the first whole pass
        self.spec: Any = None
        self.number = 0  # of the batch that is read
        self.batches = 0  # not known before the first look
        known = loaders.get(loader) or self._look()
        self.first, self.count, self.batches = known
        self.spec = self.first.spec

    # ---- passes ------------------------------------------------------------------------------

    def read(
        self, ordered: bool = False, chosen: Callable[[int], bool] | None = None
    ) -> Iterator[Samples]:
        """One pass, batch by batch.

        Args:
            ordered: whether the order of samples matters as well.
            chosen: whether a batch, by its number, is wanted; the others are read and left out.

        Yields:
            The batches, on the device.

        Raises:
            InputError: the batches are not those of the first pass of the step.
        """
        seen = Fingerprint()
        for number, samples in self._batches():
            wanted = chosen is None or chosen(number)
            moved = samples.on(self.device) if wanted else samples
            seen.add(moved)
            # of more samples than there is room for, no more than the number is wanted
            if wanted and seen.count <= self.count:
                yield moved
        self._compare(seen, ordered)

    def finish(self, *, drawn: bool) -> None:
        """Leave the generators as one pass would: the next step reads other draws.

        Args:
            drawn: whether the closure has drawn from torch's generators as well.
        """
        if self.end is None:
            return
        now = self.generators.read()
        for place, (begin, end) in enumerate(zip(self.begin, self.end, strict=True)):
            torchs = place < self.generators.torchs
            if not (same_state(begin, end) or (torchs and drawn)):
                now[place] = end
        self.generators.write(now)

    def _batches(self) -> Iterator[tuple[int, Samples]]:
        """The batches with their numbers; those without samples are left out."""
        for number, value in enumerate(self._values()):
            samples = self._samples(number, value)
            if samples.count:
                yield number, samples

    def _values(self) -> Iterator[Any]:
        """What the loader yields, under generators of its own.

        The closure draws from the same generators between the batches, and must find them as if no
        data had been read.

        Yields:
            Batches as they come.

        Raises:
            Exception: the loader's own.
        """
        inside = self.begin
        self.number = 0
        self.loaders.bar.begin(self.batches)
        iterator: Any = None
        while True:
            outside = self.generators.read()
            self.generators.write(inside)
            try:
                if iterator is None:
                    iterator = iter(self.loader)
                value = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                error.add_note(
                    f"Raised by the loader ({type(self.loader).__name__}) at its batch "
                    f"{self.number}. The parameters are those from before the step."
                )
                raise
            finally:
                inside = self.generators.read()
                self.generators.write(outside)
            yield value
            self.number += 1
            self.loaders.bar.advance()
        if self.end is None:
            self.end = inside

    def _samples(self, number: int, value: Any) -> Samples:
        """A batch as it is handed to the closure: of a tuple or list, its entries.

        Returns:
            The samples.

        Raises:
            InputError: it has no samples, or not the structure of the first one.
        """
        several = isinstance(value, list) or (
            isinstance(value, tuple) and not hasattr(value, "_fields")
        )
        try:
            samples = Samples(value if several else (value,), empty=True)
        except InputError as error:
            raise InputError(f"batch {number} of the loader: {error}") from error
        if self.spec is None:
            self.spec = samples.spec
        elif samples.spec != self.spec or samples.places != self.first.places:
            raise InputError(
                f"batch {number} of the loader has another structure than the first one: "
                f"{samples.spec} after {self.spec}. All batches need the same tensors in the same "
                "places."
            )
        return samples

    # ---- what is known, and whether passes agree ---------------------------------------------

    def _look(self) -> Known:
        """Look at a few samples, and count them where their number is not told.

        Returns:
            What was found.

        Raises:
            InputError: there are no samples.
        """
        first, told = None, sizes(self.loader)
        count = batches = 0
        for number, samples in self._batches():
            if first is None:
                few = samples.take(slice(TELLING))
                first = Samples(samples.arguments([t.clone() for t in few])).on(self.device)
                self.first = first
                if told is not None:
                    break
            count, batches = count + samples.count, number + 1
        if first is None:
            raise InputError(
                f"the loader ({type(self.loader).__name__}) yields no samples. An iterator inside "
                "it may have run out: each `for` over it must begin anew."
            )
        known = Known(first, *(told or (count, batches)))
        if (repeated := _repeated(self.loader)) > 0:
            of_repeated(repeated)
        self.end = None  # a look may have ended early
        self.loaders.put(self.loader, known)
        return known

    def _compare(self, now: Fingerprint, ordered: bool) -> None:
        """Hold a pass to the first one.

        Raises:
            RecountedError: it is the first one, and has not the number of samples expected.
            InputError: it differs.
        """
        before, self.seen = self.seen, self.seen or now
        if now.count == 0:
            raise InputError(
                f"the loader ({type(self.loader).__name__}) yields nothing when it is read again: "
                "an iterator inside it has run out. Each `for` over it must begin anew, as a step "
                "reads its data several times."
            )
        if before is None:
            expected, self.count, self.batches = self.count, now.count, now.batches
            if now.count != expected:
                self.loaders.put(self.loader, Known(self.first, now.count, now.batches))
                raise RecountedError(
                    f"the loader yields {now.count} samples, and {expected} were expected. Each "
                    "pass must yield the same."
                )
            return
        if now.count != before.count:
            raise InputError(
                f"the loader yields {now.count} samples after {before.count} in the pass before. "
                "All passes of a step must yield the same samples."
            )
        (any_order, this), (first, ordered_first) = now.numbers, before.numbers
        if any_order != first:
            raise InputError(
                "the loader yields other samples at each pass, and a trial cannot be judged by "
                "other data than its start. Random numbers of torch's, NumPy's and Python's global "
                "generators, and of generators that the loader or its dataset hold, are drawn "
                "again in every pass, in workers, too; those of other generators, and of workers "
                "that persist, are not. Draw from these, set persistent_workers=False, or take "
                "batches of data that is drawn outside: opt.step(closure, x, y)."
            )
        if ordered and this != ordered_first:
            raise InputError(
                "the loader yields the samples in another order at each pass, and here each sample "
                "has random numbers of its own (dropout), or batches are chosen by number. Let the "
                "order follow from torch's, NumPy's or Python's global generators or from a "
                "generator that the loader holds."
            )


def sizes(loader: Any) -> tuple[int, int] | None:
    """Samples and batches of a loader, where they are told without reading it."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return None
    if type(loader.batch_sampler) is not BatchSampler or loader.batch_size is None:
        return None
    try:
        count = len(cast(Sized, loader.sampler))  # some have no length: that is a TypeError
    except TypeError:
        return None
    if loader.drop_last:
        count -= count % loader.batch_size
    return (count, len(loader)) if count else None


def _repeated(loader: Any) -> int:
    """How many samples are yielded twice so that all processes have as many."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return 0
    # its length is there: the sampler has made its total size from it
    return sampler.total_size - len(cast(Sized, sampler.dataset))


def pieces(batches: Iterable[Samples], most: int) -> Iterator[Samples]:
    """The samples of batches in pieces of about `most`: small batches become one.

    Args:
        batches: as they come.
        most: samples of a piece, which only a batch that is larger exceeds.

    Yields:
        The pieces, in order.
    """
    waiting: list[Samples] = []
    for batch in batches:
        held = sum(samples.count for samples in waiting)
        if waiting and (held + batch.count > most or not waiting[0].joins(batch)):
            yield _one(waiting)
            waiting = []
        elif len(waiting) >= WAITING:  # batches of workers are open files
            waiting = [_one(waiting)]
        waiting.append(batch)
    if waiting:
        yield _one(waiting)


def _one(batches: list[Samples]) -> Samples:
    if len(batches) == 1:
        return batches[0]
    columns = zip(*(samples.tensors for samples in batches), strict=True)
    return Samples(batches[0].arguments([torch.cat(column) for column in columns]))
