"""Looking on: reports of iterations for a callback or a history, a table, a bar."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._arrays import tensor_of
from .._bars import bars
from .._printing import say
from ..core.state import State
from ..core.termination import Status

THOUSANDS = 10_000  # fits from which on a bar counts in thousands
HEADER = (
    f"{'iteration':>9} {'nfev':>6} {'cost':>14} {'reduction':>11} {'step norm':>11} "
    f"{'optimality':>11} {'damping':>9}"
)


@dataclass(frozen=True, repr=False)
class Iterate:
    """An iteration as a callback sees it: one trial. With `in_dims` fields have the batch (b,).

    Attributes:
        x: where the fit stands after it, in the structure of x0.
        cost: ½Σρ(r²) there.
        nit: number of the iteration, from 1.
        nfev: evaluations of the residuals so far.
        accepted: whether the trial was kept.
        reduction: decrease of the cost by this iteration.
        step_norm: length of the step that was tried.
        optimality: largest cosine between the residuals and a column of J, before it.
        damping: λ of the trial.
        gain_ratio: decrease of the cost over the promised one.
        status: a `Status`, or a tensor of such numbers.
        seconds: since the start.
    """

    x: Any
    cost: Any
    nit: int
    nfev: int
    accepted: Any
    reduction: Any
    step_norm: Any
    optimality: Any
    damping: Any
    gain_ratio: Any
    status: Any
    seconds: float

    def __getitem__(self, name: str) -> Any:
        """Read a field by name, as scipy's `intermediate_result` may be read."""
        return getattr(self, name)

    def __repr__(self) -> str:
        """The state of the fit in one line."""
        if not isinstance(self.status, Status):
            status = tensor_of(self.status)
            running = int((status == Status.RUNNING.value).sum())
            of = f"{running} of {status.numel()} problems running"
            return f"Iterate(nit={self.nit}, {of}, {self.seconds:.3g} s)"
        return (
            f"Iterate(nit={self.nit}, nfev={self.nfev}, cost={float(self.cost):.6g}, "
            f"{'accepted' if self.accepted else 'refused'}, step_norm={float(self.step_norm):.3g}, "
            f"damping={float(self.damping):.3g}, status={Status(int(self.status)).name})"
        )


class Watcher:
    """Shows the loop's states to whoever asked.

    Args:
        convert: a state as the user's iterate.
        callback: gets each `Iterate`, and may raise StopIteration. One whose parameter is named x
            or xk gets x, as scipy's older callbacks.
        history: whether iterates are kept.
        table: whether they are printed.
        bar: a tqdm bar, or None.
    """

    def __init__(
        self,
        convert: Callable[[State, int], Iterate],
        callback: Callable[..., Any] | None,
        *,
        history: bool,
        table: bool,
        bar: Any,
    ) -> None:
        self.convert = convert
        self.callback = None if callback is None else _caller(callback)
        self.history: list[Iterate] | None = [] if history else None
        self.table = table
        self.bar = bar
        self.count = 0
        self.stopped = False
        self.done = 0  # problems of a batch that are done for good
        self.failed = 0  # of these

    def __enter__(self) -> "Watcher":
        """Show the bar, if there is one."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the bar, also where the run has failed."""
        if self.bar is not None:
            self.bar.__exit__(*error)

    @property
    def sees_all(self) -> bool:
        """Whether somebody looks at iterates, which are of all problems, and not at a bar alone."""
        return self.callback is not None or self.history is not None or self.table

    @property
    def idle(self) -> bool:
        """Whether nobody looks."""
        return (
            self.callback is None and self.history is None and not self.table and self.bar is None
        )

    def __call__(self, state: State) -> bool:
        """Show a state, and return whether to stop."""
        self.count += 1
        iterate = self.convert(state, self.count)
        if self.history is not None:
            self.history.append(iterate)
        if self.table:
            if self.count == 1:
                say(
                    HEADER
                    if _single(state)
                    else f"{'iteration':>9} {'running':>9} {'of':>9} {'median cost':>14}"
                )
            say(_row(iterate, state))
        if self.bar is not None:
            _advance(self.bar, state, self.done)
        if self.callback is not None:
            try:
                self.callback(iterate)
            except StopIteration:
                self.stopped = True
        return self.stopped

    def ended(self, status: Tensor) -> None:
        """Count problems of a batch, which have ended so (k,), in the bar: as done, and as failed.

        A bar of a single problem counts iterations, and takes no notice.
        """
        if self.bar is None or status.ndim == 0 or not len(status):
            return
        self.done += len(status)
        self.failed += int((status <= 0).sum())
        self.bar.set_postfix(failed=f"{self.failed / self.done:.2%}", refresh=False)
        self.bar.update(max(0, self.done - self.bar.n))

    def again(self) -> None:
        """Begin to count anew: all problems are run once more, compiled."""
        self.done = self.failed = 0
        if self.bar is not None:
            self.bar.reset()


def bar_of(total: int | None) -> Any:
    """Make a tqdm bar of finished fits, with their number a second; of iterations without a total.

    Raises:
        InputError: tqdm is not installed.
    """
    if total is None:
        return bars()(unit="it")
    # blocks end at once, and the last fits are slow: of all so far, the rate is steady
    return bars()(total=total, unit="fit", unit_scale=total >= THOUSANDS, smoothing=0)


def _caller(callback: Callable[..., Any]) -> Callable[[Iterate], Any]:
    """A function of the iterate that calls the callback in the way of its signature."""
    try:
        names = list(inspect.signature(callback).parameters)
    except (TypeError, ValueError):
        names = []
    if names == ["intermediate_result"]:
        return lambda iterate: callback(intermediate_result=iterate)
    if names in (["x"], ["xk"]):
        return lambda iterate: callback(iterate.x)
    return callback


def _single(state: State) -> bool:
    return state.x.ndim == 1


def _row(iterate: Iterate, state: State) -> str:
    if not _single(state):
        running = int((state.status == Status.RUNNING.value).sum())
        median = float(state.cost.nanmedian())
        return f"{iterate.nit:>9} {running:>9} {len(state.x):>9} {median:>14.6e}"
    return (
        f"{iterate.nit:>9} {iterate.nfev:>6} {float(iterate.cost):>14.6e} "
        f"{float(iterate.reduction):>11.2e} {float(iterate.step_norm):>11.2e} "
        f"{float(iterate.optimality):>11.2e} {float(iterate.damping):>9.1e}"
    )


def _advance(bar: Any, state: State, done: int) -> None:
    """Move the bar on by finished problems, or by one iteration of a single problem."""
    if _single(state):
        bar.set_postfix(cost=f"{float(state.cost):.6g}", refresh=False)
        bar.update()
        return
    # of a second opinion the state is that of a few problems, some of which are counted already
    finished = done + int((state.status != Status.RUNNING.value).sum())
    bar.update(max(0, min(finished, bar.total) - bar.n))
