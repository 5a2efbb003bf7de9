"""Stacks that Dask holds: lazy, block by block, and the same bits however they are cut."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from xarray_stacks import decay, same_bits, stack

import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch import InputError, NotConvergedError
from lmtorch.xarray import task
from lmtorch.xarray.task import TILE, tile_of, tiles
from lmtorch.xarray.threads import one_thread


def lost(da: xr.DataArray) -> xr.DataArray:
    """Starts from which the fits of some pixels fail, in corners of blocks, inside, and across."""
    far = np.zeros(da.shape[:2], bool)
    far[3, 3:6] = far[4, 4] = far[0, 0] = far[6:9, 2:5] = True
    return xr.DataArray(np.where(far, 1e5, 1.0), dims=("y", "x"))


@pytest.mark.parametrize("start", [None, "neighbour"])
def test_blocks_give_the_bits_of_the_whole(
    start: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "TILE", 16)  # tiles of 4 x 4
    da = stack(12, 8)
    da[2, 3, 4] = np.nan
    options = {
        "p0": {"a": 2.0, "b": lost(da)}, "bounds": {"a": (xr.DataArray(np.ones(12), dims="y"), 9)},
        "sigma": xr.DataArray(np.linspace(1, 2, 8), dims="x"), "second_opinion": False,
        "start": start,
    }  # fmt: skip
    plain = da.lm.curvefit("t", decay, **options)
    assert (plain.curvefit_status <= 0).sum() == (0 if start else 14)
    for chunks in ({"y": 4, "x": 4}, {"y": 8, "x": -1}):
        lazy = da.chunk(chunks).lm.curvefit("t", decay, **options)
        assert lazy.curvefit_status.chunksizes["y"] == da.chunk(chunks).chunksizes["y"]
        same_bits(plain, lazy.compute(scheduler="synchronous"))


def test_what_is_fixed_stays_in_the_second_pass() -> None:
    da = stack()
    height = xr.DataArray(np.linspace(2, 3, 12), dims="y")
    fit = da.lm.curvefit(
        "t", decay, p0={"a": height, "b": lost(da)}, fixed="a", second_opinion=False,
        start="neighbour",
    )  # fmt: skip
    assert fit.curvefit_from_neighbour.sum() == 14
    found = fit.curvefit_coefficients
    np.testing.assert_array_equal(found.sel(param="a"), height.broadcast_like(found[..., 0]))
    plain = da.lm.curvefit("t", decay, p0={"a": height}, fixed="a")
    np.testing.assert_allclose(found, plain.curvefit_coefficients, rtol=1e-9)


def test_nothing_runs_before_it_is_computed() -> None:
    ran = []

    def noting(t, a, b):
        ran.append(1)
        return decay(t, a, b)

    fit = stack(4, 4).chunk({"y": 2}).lm.curvefit("t", noting, start="neighbour")
    assert not ran
    part = fit.curvefit_coefficients.isel(y=slice(0, 2))
    part.compute(scheduler="synchronous")
    assert ran


def test_errors_come_when_it_is_computed() -> None:
    da = stack()
    fit = da.chunk({"y": 4}).lm.curvefit(
        "t", decay, p0={"b": lost(da)}, second_opinion=False, errors="raise"
    )
    with pytest.raises(NotConvergedError, match="fits failed"):
        fit.compute(scheduler="synchronous")


def test_points_in_several_chunks_are_refused_with_what_to_do() -> None:
    da = stack(4, 4).chunk({"t": 5})
    with pytest.raises(InputError, match=r"\.chunk\(\{'t': -1, 'y': 'auto'\}\)") as error:
        da.lm.curvefit("t", decay)
    assert "3 chunks along 't'" in str(error.value)
    da.chunk({"t": -1, "y": "auto"}).lm.curvefit("t", decay)


def test_a_bar_of_what_is_lazy_is_refused() -> None:
    with pytest.raises(InputError, match="ProgressBar"):
        stack(4, 4).chunk({"y": 2}).lm.curvefit("t", decay, progress=True)


def test_torch_has_one_thread_in_tasks_and_then_its_own() -> None:
    seen = []

    def noting(t, a, b):
        seen.append(torch.get_num_threads())
        return decay(t, a, b)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        da = stack(4, 4).chunk({"y": 2})
        da.lm.curvefit("t", noting).compute(scheduler="synchronous")
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with one_thread(), one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(), (5,), (10**6,), (3000, 2000), (7, 512, 512), (1, 1, 10**5)])
def test_tiles_cover_every_pixel_once(shape: tuple[int, ...]) -> None:
    tile = tile_of(shape)
    assert np.prod(tile) <= max(TILE, 1)
    assert np.prod(np.minimum(tile, shape)) >= min(np.prod(shape), TILE) / 2
    small = tuple(min(size, 2 * side + 1) for size, side in zip(shape, tile, strict=True))
    count = np.zeros(small, int)
    for place in tiles(small, tile):
        count[place] += 1
    assert (count == 1).all()


def test_other_block_sizes_change_round_off_at_most() -> None:
    # tiles are cut at other places: the same minima, to the last digits
    da = stack(40, 10)
    plain = da.lm.curvefit("t", decay)
    for rows in (3, 7):
        part = da.isel(y=slice(0, rows)).lm.curvefit("t", decay)
        np.testing.assert_allclose(
            part.curvefit_coefficients, plain.curvefit_coefficients[:rows], rtol=1e-12
        )


WRONG = {
    "loss": {"loss": "none such"},
    "max_nfev": {"max_nfev": -3},
    "fixed": {"fixed": "q"},
    "ties": {"ties": {"q": "a"}},
    "method": {"method": "none such"},
    "total_count": {"likelihood": "binomial"},
    "absolute_sigma": {"absolute_sigma": "x"},
    "compile": {"compile": "x"},
}


@pytest.mark.parametrize("option", WRONG)
def test_options_are_tried_before_anything_runs_elsewhere(option: str, tmp_path: Path) -> None:
    ran = []

    def noting(t, a, b):
        ran.append(1)
        return decay(t, a, b)

    lazy = stack(4, 4).chunk({"y": 2})
    for options in (WRONG[option], {**WRONG[option], "store": tmp_path / "fit.zarr"}):
        with pytest.raises(InputError, match=option):
            lazy.lm.curvefit("t", noting, **options)
    assert not ran
    assert not list(tmp_path.iterdir())


RIGHT: list[dict] = [
    {"likelihood": "poisson", "bounds": {"a": (-5, -1)}, "p0": {"a": -2}},
    {"likelihood": "binomial", "total_count": xr.DataArray(3)},
    {"likelihood": "negative_binomial", "total_count": 4},
    {"loss": "soft_l1", "f_scale": 0.1, "absolute_sigma": True, "sigma": 0.1},
    {"fixed": {"a": -1e30}, "max_nfev": 1},
    {"ties": {"a": "2 * b"}, "bounds": {"b": (1e-300, 1e300)}},
    {"transforms": {"b": "positive"}, "p0": {"b": 1e-9}},
    {"jac": lambda *args: 1 / 0},
    {"compile": True, "n_starts": 3},
]


@pytest.mark.parametrize("options", RIGHT, ids=" ".join)
def test_a_trial_refuses_nothing_that_can_work(options: dict) -> None:
    stack(2, 3).chunk({"y": 1}).lm.curvefit("t", decay, **options)


# ---- a cluster ----------------------------------------------------------------------------------


LIMIT = 180.0  # seconds, of which a quiet machine takes ten


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit(tmp_path: Path) -> None:
    script, said = Path(__file__).with_name("losing_a_worker.py"), tmp_path / "said"
    paths = os.pathsep.join(path for path in sys.path if path)
    with said.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, script, tmp_path, str(LIMIT)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = running.wait(timeout=LIMIT + 30)
    finally:
        with suppress(ProcessLookupError):  # of workers that are left
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert code == 0, said.read_text()
    assert said.read_text().endswith("the same bits\n")
