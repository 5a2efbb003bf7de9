"""Evaluations of a kind of fit that are recorded, held to the function, and then replayed.

The first evaluation of a fit is recorded; the next ones are made by the function and from the
record, until they have been the same to the last bit often enough. What is not the same once is
never replayed. The fit itself looks at its end with the function once more.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..recording.operators import UnrecordableError
from .recorded import Evaluation, recorded
from .replayed import Replay
from .signs import simplified

AGREED = 4  # evaluations that are the same from a record before one is replayed alone
POINTS = 3  # of which the results are remembered

Results = Sequence[Tensor | None]  # vectors (m,); None: zeros
Evaluate = Callable[[Tensor], Results]


class Learned:
    """What is known of one kind of evaluation."""

    def __init__(self) -> None:
        self.record: Evaluation | None = None
        self.sure = False
        self.refused = False
        self.keys: tuple[Any, ...] = ()  # what the results are, for whoever asks
        self._agreed = 0
        self._idle: list[Replay] = []
        self._lock = threading.Lock()

    def begin(self, arguments: Sequence[Tensor]) -> Replay | None:
        """A replay for a fit with these arguments; None: there is no record yet."""
        if self.record is None or self.refused:
            return None
        try:
            replay = self._idle.pop() if self._idle else Replay(self.record)
        except IndexError:  # another thread has taken the last one
            replay = Replay(self.record)
        replay.begin(arguments)
        return replay

    def end(self, replay: Replay) -> None:
        """Take a replay back."""
        self._idle.append(replay)

    def learn(self, evaluate: Evaluate, x: Tensor, arguments: Sequence[Tensor]) -> None:
        """Record an evaluation."""
        with self._lock:
            if self.record is not None or self.refused:
                return
            try:
                record = simplified(recorded(lambda: evaluate(x), x, arguments))
                self._idle.append(Replay(record))
                self.record = record
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever it is: the function itself is there
                self.refused = True

    def compared(self, same: bool) -> None:
        """Note that a replay has given the same as the function, or something else."""
        with self._lock:
            if not same:
                self.refuse()
            self._agreed += 1
            self.sure = not self.refused and self._agreed >= AGREED

    def refuse(self) -> None:
        """Replay nothing any more."""
        self.refused, self.sure = True, False


class Evaluations:
    """The evaluations of a kind of fit: residuals with J, and with second derivatives as well."""

    def __init__(self) -> None:
        self.first, self.second = Learned(), Learned()

    def refuse(self) -> None:
        """Replay nothing any more."""
        self.first.refuse()
        self.second.refuse()

    def of_fit(self, arguments: Sequence[Any]) -> "OfFit":
        """The evaluations of one fit, with its arguments."""
        return OfFit(self, [one for one in arguments if isinstance(one, Tensor)])


class OfFit:
    """The evaluations of one fit.

    Attributes:
        replayed: whether the function was not called for one of them.
    """

    def __init__(self, evaluations: Evaluations, arguments: Sequence[Tensor]) -> None:
        self.evaluations, self.arguments = evaluations, arguments
        self.replayed = False
        self._known: dict[bytes, Any] = {}
        self._replays: dict[Learned, Replay] = {}

    def close(self) -> None:
        """Give back what other fits may use."""
        for learned, replay in self._replays.items():
            learned.end(replay)
        self._replays = {}

    def at(self, x: Any) -> Any:
        """J and r at a point as rows of one array (n + 1, m), to be read only.

        Args:
            x: the point, an array.

        Returns:
            The array; None: the function has to be asked.
        """
        learned = self.evaluations.first
        if not learned.sure:
            return None
        point = x.tobytes()
        found = self._known.get(point)
        if found is None:
            found = self._known[point] = self._replay(learned)(x)
            self.replayed = True
            if len(self._known) > POINTS:
                del self._known[next(iter(self._known))]
        return found

    def remembered(self, x: Any) -> Any:
        """What `at` gave at a point; None: it was not asked, or not lately."""
        return self._known.get(x.tobytes())

    def bent(self, x: Any) -> Any:
        """J, r and second derivatives at a point, (k, m); None: the function has to be asked."""
        learned = self.evaluations.second
        if not learned.sure:
            return None
        self.replayed = True
        return self._replay(learned)(x)

    def saw(self, learned: Learned, x: Any, evaluate: Evaluate, found: Any) -> None:
        """Learn from an evaluation that the function has made.

        Args:
            learned: what is known of its kind.
            x: the point, an array.
            evaluate: makes it once more.
            found: what it gave, (k, m); None: something of another kind.
        """
        if learned.refused or learned.sure:
            return
        if learned.record is None:
            learned.learn(evaluate, torch.from_numpy(x.copy()), self.arguments)
            return
        try:
            replayed = self._replay(learned)(x)
            same = found is not None and replayed.tobytes() == found.tobytes()
        except (RuntimeError, UnrecordableError):
            same = False
        learned.compared(same)

    def _replay(self, learned: Learned) -> Replay:
        replay = self._replays.get(learned)
        if replay is None:
            found = learned.begin(self.arguments)
            assert found is not None
            replay = self._replays[learned] = found
        return replay
