"""`compile="auto"`: a program is made once fits have been, or are going to be, as much work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.compiling import descent
from lmtorch.minimising import effort
from lmtorch.minimising.effort import Effort, Work
from lmtorch.minimising.watch import Watcher

from ..programs import T, compiler, decays, forget

pytestmark = pytest.mark.usefixtures("own_programs", "empty_disk")


@pytest.fixture
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is on the disk."""
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))


@pytest.fixture
def price(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the work that a program of two parameters costs."""

    def of(work: float) -> None:
        monkeypatch.setattr(effort, "PROGRAM", work / 2)
        monkeypatch.setattr(effort, "PROGRAM_SQUARED", 0.0)

    return of


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each program that is traced."""
    found: list[int] = []
    written = descent.written

    def counted(*args: Any) -> Any:
        found.append(1)
        return written(*args)

    monkeypatch.setattr(descent, "written", counted)
    return found


def decay(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.exp(-p[1] * t) - y


def fit(count: int, compile: bool | str, fun: Any = decay, **options: Any) -> Any:
    x0, y = decays(count)
    return lmtorch.least_squares(
        fun, x0, args=(T, y), in_dims=(0, None, 0), compile=compile, **options
    )


@compiler
def test_a_batch_whose_first_block_shows_that_it_pays_is_compiled_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, price: Any, made: list[int]
) -> None:
    monkeypatch.setattr("lmtorch.minimising.minimise.AT_ONCE", 16)
    price(0.02)  # less than ten iterations, more than is expected of 50 fits that nobody has seen
    shown: list[int] = []
    ended = Watcher.ended
    monkeypatch.setattr(
        Watcher, "ended", lambda self, status: (ended(self, status), shown.append(self.done))
    )
    found = fit(50, "auto", progress=True)
    assert made
    compiled = fit(50, True)
    for name in ("x", "cost", "status", "nfev", "grad"):
        assert torch.equal(getattr(found, name), getattr(compiled, name)), name
    loop = fit(50, False)
    torch.testing.assert_close(found.x, loop.x, rtol=1e-10, atol=0)
    assert torch.equal(found.success, loop.success)
    # the bar began anew: no fit is counted twice
    assert shown[0] < 16 + 1
    assert shown[1] == 50


def test_what_is_nearly_done_is_ended_without_a_program(price: Any, made: list[int]) -> None:
    price(0.02)  # reached in this call, but with its last fits alone
    found = fit(50, "auto")
    assert torch.equal(found.x, fit(50, False).x)
    assert not made
    (known,) = effort._EFFORTS.values()
    assert known.pays(0.0, 2)


@compiler
def test_single_fits_are_compiled_once_they_have_cost_as_much_as_a_program(
    price: Any, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    price(0.06)
    monkeypatch.setattr(effort, "LOADED", 0.03)
    x0, y = decays(60)

    def one(place: int, compile: bool | str) -> Any:
        return lmtorch.least_squares(decay, x0[place], args=(T, y[place]), compile=compile)

    when = []
    for place in range(60):
        found, loop = one(place, "auto"), one(place, False)
        torch.testing.assert_close(found.x, loop.x, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(found.cost, loop.cost, rtol=1e-10, atol=0)
        assert found.success
        assert loop.success
        when.append(len(made))
    assert when[10] == 0
    assert when[-1] == 1
    forget()  # as in another process, which takes it from the disk and makes none
    for place in range(60):
        one(place, "auto")
    assert len(made) == 1
    assert any(known.made for known in effort._EFFORTS.values())


@pytest.mark.parametrize("count", [50, None], ids=["batch", "single"])
def test_without_a_compiler_nothing_is_traced_or_said(
    count: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, price: Any, made: list[int]
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    price(0.0)
    x0, y = decays(3)
    for place in range(3):  # a warning would be an error
        if count is None:
            args: dict[str, Any] = {"args": (T, y[place])}
            found = lmtorch.least_squares(decay, x0[place], compile="auto", **args)
            loop = lmtorch.least_squares(decay, x0[place], **args)
        else:
            found, loop = fit(count, "auto"), fit(count, False)
        assert torch.equal(found.x, loop.x)
    assert not made


def test_what_cannot_be_written_is_tried_once_and_in_silence(price: Any, made: list[int]) -> None:
    def sorting(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (p[0] * torch.exp(-p[1] * t)).sort(descending=True).values - y

    price(0.0)
    for _ in range(2):
        found = fit(20, "auto", sorting)
        assert torch.equal(found.x, fit(20, False, sorting).x)
    assert len(made) == 1


def test_small_batches_are_compiled_only_after_many_of_them(made: list[int]) -> None:
    for _ in range(3):
        fit(20, "auto")
    (known,) = effort._EFFORTS.values()
    assert known.fits == 60
    assert 0 < known.spent < effort.price(2, doubts=False) / 5
    assert not made


def test_a_function_that_is_another_each_time_is_never_compiled(
    price: Any, made: list[int]
) -> None:
    price(0.3)
    x0, y = decays(30)
    for place in range(30):
        data = y[place]

        def own(p: Tensor, data: Tensor = data) -> Tensor:
            return decay(p, T, data)

        assert lmtorch.least_squares(own, x0[place], compile="auto").success
    assert len(effort._EFFORTS) == 30
    assert not made


@pytest.mark.parametrize("ahead", [0.0, 0.5])
def test_nothing_costs_more_than_twice_what_is_best_for_one_who_knows_how_many_will_come(
    ahead: float,
) -> None:
    program = effort.price(4, doubts=False)
    known, bought = Effort(), None
    work = Work(0.01, 0.03)
    for call in range(1000):
        if bought is None and known.pays(0.04 * (1 + ahead), 4):
            bought = call
        if bought is None:
            known.add(work, 10)
        spent = known.spent + (program if bought is not None else 0.0)
        assert spent <= 2 * min(0.04 * (call + 1), program) + 0.04 * (1 + ahead)
    assert bought is not None


def test_work_that_is_expected_follows_what_earlier_fits_were() -> None:
    known = Effort()
    prior = known.expected(1000, 20, 3)
    assert prior == pytest.approx(1000 * effort.FIRST * effort.each(20, 3))
    trials, runs = torch.full((100,), 10), torch.ones(100, dtype=torch.int64)
    known.add(effort.of_batch(trials, runs, 20, 3), 100)
    # ten times the fits are ten times the trials, and as many iterations
    more = effort.of_batch(trials.repeat(10), None, 20, 3)
    assert known.expected(1000, 20, 3) == pytest.approx(more.fixed + more.varying)
    runs[:10] = 4  # of a tenth there were further runs
    doubted = effort.of_batch(trials, runs, 20, 3)
    assert doubted.varying == pytest.approx(more.varying / 10 * (0.9 + 0.1 * effort.FURTHER))
