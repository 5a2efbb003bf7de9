"""What is remembered of a fit is never another's: addresses, threads and numbers that change hands.

The model is linear in its parameter, so that every minimum is known in closed form.
"""

import contextvars
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.fitting import fronts
from lmtorch.jacobians.learned import AGREED
from lmtorch.minimising import kinds, repeated_eager

T = torch.linspace(1, 2, 12, dtype=torch.float64)
Y = 3 * T + 0.1 * torch.cos(9 * T)
BEST = float((T * Y).sum() / T.square().sum())
FITS = repeated_eager.LEARNING + AGREED + 4  # after which evaluations are replayed
FACTOR = 1.0


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered of the fits of other tests."""
    monkeypatch.setattr(kinds, "_KNOWN", type(kinds._KNOWN)())
    monkeypatch.setattr(fronts, "_FRONTS", type(fronts._FRONTS)())
    monkeypatch.setattr(repeated_eager, "_CHANGED", {})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The fits that were made as one that is remembered."""
    found: list[Any] = []
    plain = repeated_eager.RepeatedEager.solve

    def solve(self: Any, *args: Any) -> Any:
        solution = plain(self, *args)
        if solution is not None:
            found.append(solution)
        return solution

    monkeypatch.setattr(repeated_eager.RepeatedEager, "solve", solve)
    return found


def solve(function: Callable[..., Any], **options: Any) -> float:
    return float(lmtorch.least_squares(function, [1.0], **options).x[0])


# ---- functions and objects at an address where there was another ---------------------------------


def function_of(factor: float) -> Callable[..., Any]:
    space: dict[str, Any] = {"T": T, "Y": Y}
    exec(f"def f(p): return {factor} * p[0] * T - Y", space)
    made: Callable[..., Any] = space["f"]
    return made


class Holder:
    """The model with its factor in an object."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def residual(self, p: Any) -> Any:
        return self.factor * p[0] * T - Y

    __call__ = residual


MAKERS: dict[str, Callable[[float], Callable[..., Any]]] = {
    "functions": function_of,
    "methods": lambda factor: Holder(factor).residual,
    "objects": Holder,
    "partials": lambda factor: partial(Holder.residual, SimpleNamespace(factor=factor)),
}


@pytest.mark.parametrize("kept", [kinds.KEPT, 1], ids=["all are kept", "one is kept"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_where_another_was_freed_is_not_that(
    name: str, kept: int, monkeypatch: pytest.MonkeyPatch, short: list[Any]
) -> None:
    monkeypatch.setattr(kinds, "KEPT", kept)
    for number in range(1, 13):  # of which only the last few are kept
        function = MAKERS[name](float(number))
        for _ in range(3):
            assert solve(function) == pytest.approx(BEST / number, rel=1e-9)
        if kept == 1:  # and the next fit is of another kind: this one is forgotten
            solve(lambda p: p[0] * T - Y)
        del function
        gc.collect()
    assert short


def test_a_function_that_is_remembered_keeps_its_address() -> None:
    function = function_of(2.0)
    for _ in range(2):
        solve(function)
    address = id(function.__code__)
    del function
    gc.collect()
    assert all(id(function_of(float(k)).__code__) != address for k in range(1, 200))


# ---- values that are reached by a detour ---------------------------------------------------------


def cases() -> Iterator[tuple[str, Callable[..., Any], Callable[[float], Any]]]:
    """Functions with a factor of 1, and what sets it."""
    cell = [1.0]

    class Owner:
        shared = 1.0

        @property
        def factor(self) -> float:
            return cell[0]

    owner = Owner()
    yield (
        "a property",
        lambda p: owner.factor * p[0] * T - Y,
        lambda value: cell.__setitem__(0, value),
    )
    yield (
        "a class",
        lambda p: owner.shared * p[0] * T - Y,
        lambda value: setattr(Owner, "shared", value),
    )
    space = SimpleNamespace(factor=1.0)
    yield (
        "a name that is made",
        lambda p: getattr(space, "fac" + "tor") * p[0] * T - Y,
        lambda value: setattr(space, "factor", value),
    )
    held = [1.0]

    @lru_cache
    def cached() -> float:
        return held[0]

    def clear(value: float) -> None:
        held[0] = value
        cached.cache_clear()

    yield "a cache", lambda p: cached() * p[0] * T - Y, clear
    variable = contextvars.ContextVar("variable", default=1.0)
    yield "the context", lambda p: variable.get() * p[0] * T - Y, variable.set
    base = np.ones(24)
    every = base[::2]
    yield "a view", lambda p: torch.tensor(every) * p[0] * T - Y, base.fill
    number = np.array(1.0)
    yield "an array of one", lambda p: torch.tensor(number) * p[0] * T - Y, number.fill
    yield (
        "globals",
        lambda p: globals()["FACTOR"] * p[0] * T - Y,
        lambda value: globals().__setitem__("FACTOR", value),
    )
    module = torch.nn.Linear(1, 1, bias=False).double()
    weight = module.weight.detach()
    weight.fill_(1.0)
    yield "a module", lambda p: module.weight.detach()[0] * p[0] * T - Y, weight.fill_

    def numbers() -> Iterator[float]:
        while True:
            yield cell[0]

    coming = numbers()
    yield (
        "a generator",
        lambda p: next(coming) * p[0] * T - Y,
        lambda value: cell.__setitem__(0, value),
    )


@pytest.mark.parametrize("name", [name for name, *_ in cases()])
@pytest.mark.parametrize("fits", [2, FITS], ids=["remembered", "replayed"])
def test_a_value_that_is_reached_by_a_detour_is_read_anew(name: str, fits: int) -> None:
    (function, write) = next(case[1:] for case in cases() if case[0] == name)
    write(1.0)
    for value in (1.0, 2.0, 1.0):
        write(value)
        for _ in range(fits):
            assert solve(function) == pytest.approx(BEST / value, rel=1e-9)
    write(1.0)


# ---- arrays whose numbers, kinds and shapes change under the same names --------------------------


def slope(x: Any, a: Any) -> Any:
    return FACTOR * a * x


def weighted(x: Any, y: Any, sigma: Any) -> tuple[float, float]:
    """Slope and its variance by weighted least squares, in closed form."""
    x, y = (np.asarray(one, dtype=float) for one in (x, y))
    w = np.ones(len(x)) / np.broadcast_to(1.0 if sigma is None else sigma, x.shape) ** 2
    a = (w * x * y).sum() / (w * x * x).sum()
    return a, (w * (y - a * x) ** 2).sum() / (len(x) - 1) / (w * x * x).sum()


def test_fits_of_one_function_take_turns_with_all_that_may_differ(short: list[Any]) -> None:
    x, y, sigma = T.numpy().copy(), Y.numpy().copy(), np.full(12, 0.1)
    high = np.array([9.0])
    rng = np.random.default_rng(0)
    for turn in range(60):
        ways: list[tuple[Any, Any, dict[str, Any]]] = [
            (x, y, {}),
            (x[:9], y[:9], {}),
            (torch.from_numpy(x), torch.from_numpy(y), {}),
            (torch.from_numpy(x).float(), torch.from_numpy(y).float(), {}),
            (x, y, {"sigma": sigma}),
            (x, y, {"bounds": ([0.0], high)}),
        ]
        given_x, given_y, options = ways[rng.integers(len(ways))]
        fit = lmtorch.curve_fit(slope, given_x, given_y, [1.0], **options)
        coarse = isinstance(given_y, torch.Tensor) and given_y.dtype is torch.float32
        a, variance = weighted(given_x, given_y, options.get("sigma"))
        if "bounds" in options and a > high[0]:
            assert float(fit.popt[0]) == high[0]
        else:
            assert float(fit.popt[0]) == pytest.approx(a, rel=1e-5 if coarse else 1e-9)
            assert float(fit.pcov[0, 0]) == pytest.approx(variance, rel=1e-2 if coarse else 1e-6)
        assert type(fit.popt) is type(given_y)
        changed = turn % 4
        if changed == 0:
            y *= 1.5 if y[0] < 20 else 0.1
        elif changed == 1:
            sigma[3] = 0.4 - sigma[3]
        elif changed == 2:
            high[0] = 3.0 if high[0] == 9 else 9.0
    assert len(short) >= 15


# ---- threads -------------------------------------------------------------------------------------


def together(work: Callable[[int], None], count: int) -> None:
    """Do work in threads that begin at once and change often."""
    begin, failed = threading.Barrier(count), list[BaseException]()

    def run(place: int) -> None:
        begin.wait()
        try:
            work(place)
        except BaseException as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    if failed:
        raise failed[0]


def scaled(factor: float) -> Callable[..., Any]:
    return lambda p: factor * p[0] * T - Y


def test_threads_with_functions_of_one_code_have_their_own_constants(short: list[Any]) -> None:
    for _ in range(FITS):
        solve(scaled(1.0))

    def work(place: int) -> None:
        function = scaled(1.0 + place % 2)
        for _ in range(FITS):
            assert solve(function) == pytest.approx(BEST / (1 + place % 2), rel=1e-9)

    together(work, 4)
    assert len(short) > FITS


def test_a_value_that_is_each_threads_own_is_that_of_the_thread() -> None:
    own = threading.local()

    def residual(p: Any) -> Any:
        return own.factor * p[0] * T - Y

    own.factor = 1.0
    for _ in range(FITS):
        solve(residual)

    def work(place: int) -> None:
        own.factor = 1.0 + place
        for _ in range(6):
            assert solve(residual) == pytest.approx(BEST / (1 + place), rel=1e-9)

    together(work, 3)


def test_curves_in_threads_have_their_own_data(short: list[Any]) -> None:
    x, y = T.numpy(), Y.numpy()
    for _ in range(FITS):
        lmtorch.curve_fit(slope, x, y, [1.0])

    def work(place: int) -> None:
        mine = (1 + place) * y
        for _ in range(6):
            fit = lmtorch.curve_fit(slope, x, mine, [1.0])
            a, variance = weighted(x, mine, None)
            assert fit.popt[0] == pytest.approx(a, rel=1e-9)
            assert fit.pcov[0, 0] == pytest.approx(variance, rel=1e-6)

    together(work, 4)
    assert len(short) > FITS
