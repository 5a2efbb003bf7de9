"""Ways to do the same, called in turns in one process: least processor time and wall time."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """Seconds: of all processors, and on the wall."""

    processor: float
    wall: float

    def per(self, count: float) -> "Spent":
        """A share of them, as of one fit of many."""
        return Spent(self.processor / count, self.wall / count)


class Turns(NamedTuple):
    """What the ways gave at their first call, what that took, and the least that any took later."""

    results: dict[str, Any]
    first: dict[str, Spent]
    least: dict[str, Spent]

    def ratio(self, of: str, over: str) -> float:
        """Processor time of one over that of another."""
        return self.least[of].processor / self.least[over].processor


def timed(call: Callable[[], Any]) -> tuple[Any, Spent]:
    """What a call returns, and what it took."""
    processor, wall = time.process_time(), time.perf_counter()
    found = call()
    return found, Spent(time.process_time() - processor, time.perf_counter() - wall)


def in_turns(
    ways: Mapping[str, Callable[[], Any]], seconds: float = 10.0, most: int = 200
) -> Turns:
    """Call all ways in turn until `seconds` are over, twice at least and `most` times at most.

    The first calls are not counted among the least: they import, trace and compile. What takes
    longer than `seconds` in its second call is not called again, and that call counts.
    """
    results, first, least = {}, {}, {}
    for name, way in ways.items():
        results[name], first[name] = timed(way)
        _, least[name] = timed(way)
    going = [name for name in ways if least[name].wall <= seconds]
    begun, turns = time.perf_counter(), 0
    gc.collect()
    while turns < most and (turns < 2 or time.perf_counter() - begun < seconds):
        for name in going:
            _, spent = timed(ways[name])
            least[name] = Spent(*map(min, spent, least[name]))
        turns += 1
    return Turns(results, first, least)


def shown(seconds: float) -> str:
    """Seconds with three digits, in the unit that suits them."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-6:.2g} µs"
