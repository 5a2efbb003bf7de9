"""How much work fits of a kind have been, so that "auto" compiles them where that pays.

To make a program costs what thousands of fits cost without. Who knows how many are still to come
compiles at once or never; who does not does best to go on as before until as much has been spent as
a program costs, and to make it then: the whole is never more than twice what it could have been
(the rental of skis: Karlin et al. 1988, Competitive snoopy caching). So the work of all calls of a
process adds up, and with it what is known to lie ahead in the call.

Work is counted, in trials, problems and parameters, and never timed: the same calls choose the same
on every machine. One unit is about a second of a processor of 2026 that does nothing else; the
counts below were fitted to peaks, spots, decays and pixels of diffusion MRI (docs/benchmarks.md).
"""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import read

# of a batch: an iteration, however many fits it is of, and a trial of each fit, which grows with
# the entries of its Jacobian and residuals
ITERATION, TRIAL, ENTRY = 5e-3, 1e-6, 1e-8
LONGEST = 400  # iterations of a batch at most: runs go side by side, or a few fits by themselves
# trials of further runs cost so many times as much: they are of few fits, with solvers that have
# all digits
FURTHER = 4
# what further runs cost before they begin: iterations of their batches, and trials of each fit
ROUNDS, ASKED = 300, 200
# of a single fit: the look at it and at its end, and a trial
ALONE, TRIAL_ALONE = 5e-3, 7e-4
ALIKE, TRIAL_ALIKE = 1.5e-3, 6e-5  # likewise where an earlier one of the kind is remembered
PROGRAM, PROGRAM_SQUARED = 0.4, 0.14  # of a program, for each parameter, and for each pair
LOADED = 0.1  # to read one from the disk, and to hold it to the loop
FIRST = 5  # trials of a fit of which nothing is known yet: few have less
KEPT = 1024  # kinds


class Work(NamedTuple):
    """Work on a batch or a fit: what it costs whatever the number of fits, and the rest."""

    fixed: float
    varying: float

    def of(self, share: float) -> float:
        """The work on as many times the fits."""
        return self.fixed + share * self.varying


class Effort:
    """Work on fits of a kind in this process.

    Attributes:
        spent: on all of them, without a program.
        fits: how many they were, of batches.
        varying: the part that grew with their number.
        fixed: the other part of the last batch.
        doubts: whether further runs were asked for.
        made: whether this process has their program.
        refused: whether there can be no program.
        missed: whether one was looked for on the disk, in vain.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.fits = 0
        self.varying = self.fixed = 0.0
        self.doubts = False
        self.made = False
        self.refused = False
        self.missed = False

    def add(self, work: "Work", fits: int = 0) -> None:
        """Count work, of a batch or of a single fit."""
        self.spent += work.fixed + work.varying
        self.fits += fits
        self.varying += work.varying
        self.fixed = work.fixed

    def expected(self, fits: int, rows: int, n: int) -> float:
        """The work on a batch of so many more fits, as far as earlier ones tell it."""
        if self.fits:
            return self.fixed + self.varying / self.fits * fits
        return fits * FIRST * each(rows, n)

    def due(self, n: int) -> bool:
        """Whether the next single fit of n parameters is to look for a program, or to make it."""
        found = not (self.missed or self.refused or self.seldom)
        return found or self.pays(0.0, n)

    @property
    def seldom(self) -> bool:
        """Whether so little was done so far that a program is not worth to be read."""
        return self.spent < LOADED

    def pays(self, ahead: float, n: int) -> bool:
        """Whether to make a program for fits of n parameters, with so much work ahead."""
        return not self.refused and self.spent + ahead >= price(n, self.doubts)


_EFFORTS: OrderedDict[str, Effort] = OrderedDict()
_LOCK = threading.Lock()


def effort_of(key: str) -> Effort:
    """The work on fits whose program has this key."""
    with _LOCK:
        found = _EFFORTS.setdefault(key, Effort())
        _EFFORTS.move_to_end(key)
        while len(_EFFORTS) > KEPT:
            _EFFORTS.popitem(last=False)
    return found


def price(n: int, doubts: bool) -> float:
    """The work of making a program for n parameters, and another for further runs."""
    return (1 + doubts) * (PROGRAM * n + PROGRAM_SQUARED * n * n)


def each(rows: int, n: int) -> float:
    """The work of a trial of one fit of a batch."""
    return TRIAL + ENTRY * rows * (n + 1)


def of_batch(trials: Tensor, runs: Tensor | None, rows: int, n: int) -> Work:
    """The work on a batch, from the trials (b,) and the runs (b,) of each fit."""
    again = torch.zeros_like(trials) if runs is None else torch.where(runs > 1, trials, 0)
    most, whole, further = read(trials.amax(), trials.sum(), again.sum())
    varying = each(rows, n) * (whole + (FURTHER - 1) * further)
    return Work(ITERATION * min(most, LONGEST), varying)


def of_doubts(fits: float, rows: int, n: int) -> Work:
    """The work of second opinions on so many fits of a batch, before they are asked for."""
    return Work(ITERATION * ROUNDS * (fits > 0), FURTHER * ASKED * each(rows, n) * fits)


def of_one(trials: Any, alike: bool = False) -> Work:
    """The work on a single fit; `alike`, where an earlier one of its kind is remembered."""
    if alike:
        return Work(ALIKE, TRIAL_ALIKE * int(trials))
    return Work(ALONE, TRIAL_ALONE * int(trials))
