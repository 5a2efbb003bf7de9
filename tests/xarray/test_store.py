"""Results that stream to Zarr: complete, resumed after a kill, refused where they do not belong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from xarray_stacks import decay, same_bits, stack

import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch import InputError
from lmtorch.xarray.variables import UNFITTED


def marks(store: Path) -> np.ndarray:
    """The marks of blocks that are done."""
    return np.asarray(zarr.open_group(store, path="lmtorch", mode="r")["fitted"][...])


def forget(store: Path, place: tuple[int, int]) -> None:
    """Make a store look as if a block was never fitted."""
    zarr.open_group(store, path="lmtorch", mode="r+")["fitted"][place] = 0
    group = zarr.open_group(store, mode="r+")
    group["curvefit_status"][4 * place[0] : 4 * place[0] + 4, 5 * place[1] : 5 * place[1] + 5] = (
        UNFITTED
    )


def test_a_store_holds_what_comes_back_otherwise(tmp_path: Path) -> None:
    da = stack()
    plain = da.lm.curvefit("t", decay)
    for name, data in (("numpy", da), ("dask", da.chunk({"y": 4, "x": 5}))):
        store = tmp_path / name
        found = data.lm.curvefit("t", decay, store=store)
        same_bits(plain, found.compute())
        assert found.curvefit_status.attrs["flag_meanings"].startswith("not_fitted")
        assert found.attrs == da.attrs
        assert found.x.attrs == da.x.attrs
        assert found.param.values.tolist() == ["a", "b"]
        assert (marks(store) > 0).all()
    assert found.curvefit_coefficients.chunksizes["y"] == (4, 4, 4)


def test_only_missing_blocks_are_fitted_again(tmp_path: Path) -> None:
    da, store = stack().chunk({"y": 4, "x": 5}), tmp_path / "fit.zarr"
    first = da.lm.curvefit("t", decay, store=store).load()
    group = zarr.open_group(store, mode="r+")
    group["curvefit_redchi"][:] = -1.0  # what is done is left as it is
    forget(store, (1, 1))
    assert (xr.open_zarr(store, consolidated=False).curvefit_status == UNFITTED).sum() == 20
    again = da.lm.curvefit("t", decay, store=store, resume=True).load()
    block = {"y": slice(4, 8), "x": slice(5, 10)}
    same_bits(first.isel(block), again.isel(block))
    assert (again.curvefit_redchi == -1).sum() == 100
    np.testing.assert_array_equal(first.curvefit_status, again.curvefit_status)


def test_two_passes_go_on_too(tmp_path: Path) -> None:
    da, store = stack().chunk({"y": 4, "x": 5}), tmp_path / "fit.zarr"
    lost = np.isin(np.arange(10), (4, 5, 6))
    plain = {"p0": {"b": xr.DataArray(np.where(lost, 1e5, 1.0), dims="x")}, "start": "neighbour"}
    plain["second_opinion"] = False
    options = {**plain, "store": store}
    first = da.lm.curvefit("t", decay, **options).load()
    assert first.curvefit_from_neighbour.values[:, [4, 6]].all()
    # the column between has no neighbour that the first pass has fitted, in whatever order
    # blocks are written
    assert (first.curvefit_status.values[:, 5] <= 0).all()
    same_bits(stack().lm.curvefit("t", decay, **plain), first)
    # the second pass of a block was begun, and its status is what it was before
    zarr.open_group(store, path="lmtorch", mode="r+")["fitted_again"][1, 0] = 0
    zarr.open_group(store, mode="r+")["curvefit_status"][4:8, 4] = -6
    again = da.lm.curvefit("t", decay, resume=True, **options).load()
    same_bits(first, again)


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    store, script = tmp_path / "fit.zarr", tmp_path / "run.py"
    script.write_text(
        f"""
import sys
import time

import dask
import torch

sys.path[:0] = {sys.path!r}
import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from xarray_stacks import stack


def slow(t, a, b):
    time.sleep({{wait}})
    return a * torch.exp(-b * t)


with dask.config.set(scheduler="synchronous"):
    stack().chunk({{{{"y": 2, "x": 5}}}}).lm.curvefit("t", slow, store={str(store)!r}, resume=True)
""".format(wait=0.02)
    )
    running = subprocess.Popen([sys.executable, script])
    try:
        for _ in range(600):
            if store.exists() and len(list((store / "lmtorch" / "fitted").glob("[0-9]*"))) >= 2:
                break
            time.sleep(0.1)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.wait()
    done = marks(store) > 0
    assert 2 <= done.sum() < done.size
    # the same function, which this process finds in the same file
    space: dict = {"__name__": "__main__"}
    code = script.read_text().split("with dask")[0]
    exec(compile(code, str(script), "exec"), space)
    da = stack().chunk({"y": 2, "x": 5})
    found = da.lm.curvefit("t", space["slow"], store=store, resume=True).load()
    assert (marks(store) > 0).all()
    same_bits(stack().lm.curvefit("t", decay), found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p0": {"a": 3.0}}, "with other p0"),
        ({"bounds": {"a": (0, 9)}}, "with other bounds"),
        ({"max_nfev": 7}, "with other options"),
        ({"func": lambda t, a, b: a * torch.exp(-b * t) + 1e-9}, "with other func"),
        ({"skipna": False}, "with other skipna"),
        ({"chunks": {"y": 6, "x": 5}}, "with other chunks"),
        ({"start": "neighbour"}, "with other start"),
        ({"more": 1e-12}, "with other data: those at y="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_store_of_something_else_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    given = {"func": decay, "chunks": {"y": 4, "x": 5}, "more": 0.0}
    store = tmp_path / "fit.zarr"

    def fit(func, chunks, more, **options):
        da = (stack() + more).chunk(chunks)
        return da.lm.curvefit("t", func, store=store, resume=True, **options)

    fit(**given)
    fit(**given)  # the same goes on, with nothing to do
    with pytest.raises(InputError, match=says):
        fit(**{**given, **change})


def test_what_a_function_uses_is_part_of_it() -> None:
    from lmtorch.xarray.fingerprint import told

    def make(shift, place=1):
        def curve(t, a):
            return a * t + shift

        return curve

    assert told(make(1.0)) == told(make(1.0))
    assert told(make(1.0)) != told(make(2.0))
    assert told(make(np.ones(3))) != told(make(np.zeros(3)))
    assert told(make(make(1.0))) != told(make(make(2.0)))
    assert told({"a": 1, "b": (2, None)}) == told({"a": 1, "b": (2, None)})


def test_a_store_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    da, store = stack(2, 2), tmp_path / "fit.zarr"
    da.lm.curvefit("t", decay, store=store)
    with pytest.raises(InputError, match="is there already: resume=True"):
        da.lm.curvefit("t", decay, store=store)
    other = tmp_path / "other.zarr"
    da.rename("v").to_dataset().to_zarr(other, zarr_format=2, consolidated=False)
    with pytest.raises(InputError, match="was not begun by curvefit"):
        da.lm.curvefit("t", decay, store=other, resume=True)


def test_chunks_of_several_sizes_are_refused(tmp_path: Path) -> None:
    da = stack().chunk({"y": (2, 4, 6)})
    with pytest.raises(InputError, match=r"\.chunk\(\{'y': 6\}\)"):
        da.lm.curvefit("t", decay, store=tmp_path / "fit.zarr")


def test_the_bar_counts_fits_blocks_and_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    da = stack()
    far = xr.DataArray(np.where(np.arange(10) < 5, 1e5, 1.0), dims="x")
    options = {"p0": {"b": far}, "second_opinion": False, "progress": True}
    da.chunk({"y": 4}).lm.curvefit("t", decay, store=tmp_path / "fit.zarr", **options)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "120/120" in shown
    assert "failed=50.00%" in shown
    assert "blocks=3/3" in shown
    da.lm.curvefit("t", decay, **options)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "120/120" in shown
    assert "failed=50.00%" in shown


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmtorch.xarray import store

    monkeypatch.setattr(store, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"store= needs zarr: pip install .*\[xarray\]"):
        stack(2, 2).lm.curvefit("t", decay, store=tmp_path / "fit.zarr")
    code = "import sys; sys.modules['xarray'] = None\nimport lmtorch.xarray"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert "ImportError: lmtorch.xarray needs xarray" in done.stderr
