"""A callback of a fit with errors in x sees the parameters; where points move is not shown."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..._arrays import tensor_of, to_array
from ...core.state import State
from ...minimising.results import Results
from ...minimising.unknowns import Unknowns
from ...minimising.watch import Iterate, Watcher


class Onlooker:
    """Shows the states of all runs of a fit to whoever asked.

    Args:
        callback: gets each `Iterate`, and may raise StopIteration; None: nobody looks.
        u: the variables at the start, (n,) or (b, n).
        names: of the variables.
        numpy: whether it is shown arrays.

    Attributes:
        watch: what the loop is given.
        spent: evaluations before the run, (...,).
    """

    def __init__(
        self, callback: Callable[..., Any] | None, u: Tensor, names: list[str], numpy: bool
    ) -> None:
        self.spent: Tensor | int = 1
        self.watch: Watcher | None = None
        if callback is not None:
            self._n, batched = u.shape[-1], u.ndim > 1
            given = to_array(u) if numpy else u
            unknowns = Unknowns(given, 0, len(u)) if batched else Unknowns(given)
            self._results = Results(unknowns, (len(u),) if batched else (), None, 1.0, names)
            self.watch = Watcher(self._iterate, callback, history=False, table=False, bar=None)

    @property
    def stopped(self) -> bool:
        """Whether the callback has ended the fit."""
        return self.watch is not None and self.watch.stopped

    def _iterate(self, state: State, number: int) -> Iterate:
        before = tensor_of(self.spent).to(state.trials) - 1  # `Results` counts the start itself
        seen = state._replace(x=state.x[..., : self._n], trials=state.trials + before)
        return self._results.iterate(seen, number)
