"""What ends a step on one process ends it on all, with an error that names the process."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lmtorch
from lmtorch.distributed.processes import Processes

from . import failing, fits
from .ranks import SECONDS, Ranks


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    """Two processes that stay for all tests of this module."""
    started = Ranks(2)
    yield started
    started.close()


def test_the_error_is_pickled_with_all_it_says() -> None:
    import pickle

    error = lmtorch.RankError(3, "residuals", "NaN", lost=True)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.rank, again.lost) == (str(error), 3, True)


def test_without_a_group_nothing_is_shared() -> None:
    for given in ("world", object()):
        with pytest.raises(lmtorch.InputError, match="init_process_group"):
            Processes(given)


# the first calls look at the closure, then it is linearized, and tried
@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize(
    "options", [{}, {"solver": "cholesky"}, {"solver": "cg"}, {"solver": "dual", "scaling": "more"}]
)
def test_an_exception_of_one_closure(two: Ranks, at: int, options: dict[str, Any]) -> None:
    good, bad = two.run(failing.raises, at, options)
    if bad["calls"] < at:
        pytest.skip("a step has fewer evaluations")
    for found in (good, bad):
        assert (found["error"], found["rank"]) == ("RankError", 1)
        assert "rank 1" in found["text"]
        assert "no more" in found["text"]
        assert found["untouched"]
        assert found["steps"] == 1
    assert good["again"] == bad["again"]
    assert torch.equal(good["parameters"], bad["parameters"])


def test_an_interrupt(two: Ranks) -> None:
    assert two.run(failing.interrupted) == [("RankError", 1), ("KeyboardInterrupt", None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite(two: Ranks, value: float) -> None:
    good, bad = two.run(failing.not_finite, value)
    for found in (good, bad):
        assert (found["error"], found["rank"]) == ("RankError", 1)
        assert "NaN or infinity" in found["text"]
        assert found["untouched"]
    assert torch.equal(good["parameters"], bad["parameters"])


def test_one_process_falls_back_on_another_source(two: Ranks) -> None:
    first, second = two.run(failing.falls_back)
    assert first["jacobian"] != second["jacobian"]
    assert torch.equal(first["parameters"], second["parameters"])
    model = fits.net(20)
    x, y = fits.data(300)
    opt = lmtorch.LevenbergMarquardt(model)
    losses = [float(opt.step(lambda a, b: model(a) - b, x, y)) for _ in range(3)]
    torch.testing.assert_close(first["losses"], losses)


def test_the_least_memory_decides_for_all(two: Ranks) -> None:
    first, second = two.run(failing.little_memory)
    assert first == second


@pytest.mark.parametrize(
    ("what", "errors", "says"),
    [
        ("parameters", ("InputError", "InputError"), "parameters of rank 1"),
        ("steps", ("InputError", "InputError"), "number of steps of rank 1"),
        ("lr", ("InputError", "InputError"), "lr of rank 1"),
        ("weight_decay", ("InputError", "InputError"), "weight_decay of rank 1"),
        ("upper", ("InputError", "InputError"), "upper of rank 1"),
        ("loss_scale", ("InputError", "InputError"), "loss_scale of rank 1"),
        ("max_trials", ("InputError", "InputError"), "max_trials of rank 1"),
        ("xtol", ("InputError", "InputError"), "xtol of rank 1"),
        ("loader", ("InputError", "InputError"), "a list of one batch"),
        ("options", ("InputError", "InputError"), "damping of rank 1"),
        ("terms", ("InputError", "InputError"), "numbers of terms"),
        ("batch", ("InputError", "InputError"), "some processes pass a batch"),
        ("model", ("InputError", "InputError"), "different models"),
        ("nothing", ("InputError", "InputError"), "no process has residuals"),
        ("residuals", ("RankError", "InputError"), "a single number"),
        ("closure", ("RankError", "InputError"), "needs a closure"),
    ],
)
def test_processes_that_differ(two: Ranks, what: str, errors: tuple[str, str], says: str) -> None:
    found = two.run(failing.differs, what)
    assert tuple(error for error, _, _ in found) == errors
    for error, rank, text in found:
        assert says in text
        assert rank == (1 if error == "RankError" else None)


@pytest.mark.parametrize("what", ["loaded", "pickled", "refused"])
def test_what_one_process_has_forgotten_all_find_out_anew(two: Ranks, what: str) -> None:
    many = two.run(failing.gone_on, what)
    expected = failing.gone_on(0, 1, "nothing")
    for found in many:
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", ["cg", "dual"])
def test_the_first_decides_whether_data_have_changed(two: Ranks, solver: str) -> None:
    first, second = two.run(failing.rounds_otherwise, solver)
    assert torch.equal(first, second)


def test_the_first_decides_whether_a_fit_has_ended(two: Ranks) -> None:
    (x, evaluations), (other, others) = two.run(failing.ends_otherwise)
    assert torch.equal(x, other)
    assert evaluations == others > 3


def test_data_that_are_not_shared_or_repeated_are_warned_of(two: Ranks) -> None:
    for alone, repeated, right in two.run(failing.warned):
        assert len(alone) == len(repeated) == 1
        assert "process_group=" in alone[0]
        assert "drop_last=True" in repeated[0]
        assert right == []


def test_sharded_parameters(two: Ranks) -> None:
    for found in two.run(failing.refused):
        assert [error for error, _, _ in found] == ["InputError"] * 5
        assert all("whole on every process" in text for _, _, text in found[:4])


def test_optimizers_are_pickled(two: Ranks) -> None:
    assert two.run(failing.pickled) == [(True, "TypeError")] * 2


def test_a_checkpoint_goes_on_with_another_number_of_processes(two: Ranks) -> None:
    (checkpoint, expected), _ = two.run(failing.saved)
    for found in (*two.run(failing.restored, checkpoint), failing.restored(0, 1, checkpoint)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    alone, after = failing.saved(0, 1)
    for found in two.run(failing.restored, alone):
        torch.testing.assert_close(found, after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4])
def test_a_killed_process(size: int) -> None:
    ranks = Ranks(size, seconds=10)
    try:
        ranks.ask(failing.killed, "killed")
        for found in ranks.answers(range(size - 1)):
            assert (found["error"], found["rank"]) == ("RankError", size - 1)
            assert "does not answer" in found["text"]
            assert found["seconds"] < SECONDS
            assert found["untouched"]
    finally:
        ranks.close()
