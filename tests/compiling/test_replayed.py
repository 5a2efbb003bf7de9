"""Batches that are run by a program of NumPy's operations: many numbers, and no compiler asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

import lmtorch
from lmtorch.compiling import descent, replayed
from lmtorch.compiling.recipes import Recipe
from lmtorch.compiling.replayed import Replayed
from lmtorch.minimising import compiled

from ..programs import T, decays

pytestmark = pytest.mark.usefixtures("own_programs", "programs")
FITS = 40


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any batch is run by a program, and none is on the disk."""
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "NUMBERS", 0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many fits each run of a program is of."""
    found: list[int] = []
    run = Replayed.run

    def counted(self: Replayed, x: Tensor, *args: Any, **options: Any) -> Any:
        found.append(len(x))
        return run(self, x, *args, **options)

    monkeypatch.setattr(Replayed, "run", counted)
    return found


def decay(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.exp(-p[1] * t) - y


def step(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.erf(p[1] * t - 1) - y


def fit(count: int = FITS, fun: Any = decay, t: Tensor = T, **options: Any) -> Any:
    x0, y = decays(count)
    if "bounds" in options:
        x0 = x0.clamp(*options["bounds"])
    return lmtorch.least_squares(fun, x0, args=(t, y), in_dims=(0, None, 0), **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"bounds": (0.0, 1.5)}, {"loss": "soft_l1", "f_scale": 0.02}],
    ids=["plain", "bounds", "robust"],
)
def test_fits_end_where_scipys_do(options: dict[str, Any], runs: list[int]) -> None:
    found = fit(**options)
    assert FITS in runs
    x0, y = (one.numpy() for one in decays(FITS))
    for place in range(0, FITS, 8):
        theirs = least_squares(
            lambda p, own: p[0] * np.exp(-p[1] * T.numpy()) - own,
            np.clip(x0[place], 0.001, 1.499) if "bounds" in options else x0[place],
            args=(y[place],), xtol=1e-15, ftol=1e-15, gtol=1e-15, **options,
        )  # fmt: skip
        np.testing.assert_allclose(found.x[place], theirs.x, rtol=1e-6)
        assert found.success[place]
        # one evaluation for each trial, and one at the start, which may be a corner of the box
        assert 1 <= found.nfev[place] <= 40


def test_float32_has_its_digits(runs: list[int]) -> None:
    x0, y = (one.float() for one in decays(FITS))
    found = lmtorch.least_squares(decay, x0, args=(T.float(), y), in_dims=(0, None, 0))
    assert FITS in runs
    assert found.success.all()
    wide = lmtorch.least_squares(
        decay, x0.double(), args=(T, y.double()), in_dims=(0, None, 0), compile=False
    )
    torch.testing.assert_close(found.x.double(), wide.x, rtol=1e-5, atol=0)


def test_few_points_and_a_function_that_numpy_lacks(runs: list[int]) -> None:
    t = torch.linspace(0, 3, 7, dtype=torch.float64)
    truth = torch.linspace(0.8, 1.4, 2 * FITS, dtype=torch.float64).reshape(FITS, 2)
    y = torch.stack([step(p, t, torch.zeros(())) for p in truth])
    found = lmtorch.least_squares(
        step, torch.ones(2, dtype=torch.float64), args=(t, y), in_dims=(None, None, 0)
    )
    assert FITS in runs
    torch.testing.assert_close(found.x, truth, rtol=1e-10, atol=0)


def test_neither_neighbours_nor_the_number_at_work_change_a_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit()
    monkeypatch.setattr(replayed, "WIDE", 7)  # the others wait, and take the places of the first
    monkeypatch.setattr(replayed, "PLANE", 64 * len(T))
    waiting = fit()
    x0, y = decays(FITS)
    half = lmtorch.least_squares(decay, x0[:20], args=(T, y[:20]), in_dims=(0, None, 0))
    for name in ("x", "cost", "status", "nfev"):
        assert torch.equal(whole[name], waiting[name]), name
        assert torch.equal(whole[name][:20], half[name]), name


def test_no_more_trials_than_are_allowed() -> None:
    found = fit(max_nfev=4)
    assert int(found.nfev.max()) <= 4
    assert (found.status[found.nfev == 4] == 0).any()


class Hidden:
    """A number that nobody sees who looks at attributes."""

    power = 1.0

    def __call__(self) -> float:
        return Hidden.power


def test_a_function_that_has_changed_unseen_is_fitted_without(
    monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    def bent(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return p[0] * torch.exp(-p[1] * t ** Hidden()()) - y

    monkeypatch.setattr(Recipe, "key", lambda *_: "the same")  # nothing is ever seen
    truth, _ = decays(FITS)
    for power in (1.0, 1.5):
        monkeypatch.setattr(Hidden, "power", power)
        y = truth[:, :1] * torch.exp(-truth[:, 1:] * T**power)
        found = lmtorch.least_squares(
            bent, torch.ones(2, dtype=torch.float64), args=(T, y), in_dims=(None, None, 0)
        )
        torch.testing.assert_close(found.x, truth, rtol=1e-7, atol=0)
    assert FITS in runs


def test_a_function_that_prints_is_called(runs: list[int], capsys: Any) -> None:
    def spoken(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        print("called")
        return decay(p, t, y)

    fit(fun=spoken)
    assert not runs
    assert capsys.readouterr().out


def test_functions_that_close_over_their_data_are_traced_some_times_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def new(*_: Any) -> str:
        made.append(1)
        return "refused"

    monkeypatch.setattr(descent, "_new", new)
    truth, _ = decays(FITS)
    for power in torch.linspace(0.8, 1.2, 9, dtype=torch.float64):

        def closed(p: Tensor, y: Tensor, power: Tensor = power) -> Tensor:
            return p[0] * torch.exp(-p[1] * T**power) - y

        y = truth[:, :1] * torch.exp(-truth[:, 1:] * T**power)
        found = lmtorch.least_squares(
            closed, torch.ones(2, dtype=torch.float64), args=(y,), in_dims=(None, 0)
        )
        torch.testing.assert_close(found.x, truth, rtol=1e-7, atol=0)
    assert 0 < len(made) <= 6


def test_few_numbers_are_run_by_the_loop(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    entries = FITS * len(T) * 3  # of Jacobians and residuals
    monkeypatch.setattr(compiled, "NUMBERS", entries + 1)
    fit()
    assert not runs
