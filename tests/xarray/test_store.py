"""Results that stream to Zarr: complete, resumed after a kill, refused where they do not belong."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from xarray_stacks import T, decay, same_bits, stack

import lmtorch.xarray.store
from lmtorch import InputError
from lmtorch.xarray.variables import UNFITTED


def marks(store: Path) -> np.ndarray:
    """The marks of blocks that are done."""
    return np.asarray(zarr.open_group(store, path="lmtorch", mode="r")["fitted"][..., 0])


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
    forget(store, (1, 1))
    written = {file: file.stat().st_mtime_ns for file in store.glob("curvefit_redchi/[0-9]*")}
    assert (xr.open_zarr(store, consolidated=False).curvefit_status == UNFITTED).sum() == 20
    again = da.lm.curvefit("t", decay, store=store, resume=True).load()
    same_bits(first, again)
    changed = [file.name for file, then in written.items() if file.stat().st_mtime_ns != then]
    assert changed == ["1.1"]  # what is done is left as it is


def test_blocks_that_are_not_done_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmtorch.xarray.store, "_run", lambda *args: None)
    begun = stack().lm.curvefit("t", decay, store=tmp_path / "fit.zarr").load()
    assert (begun.curvefit_status == UNFITTED).all()
    assert (begun.curvefit_nfev == -1).all()
    for name in ("coefficients", "covariance", "stderr", "redchi"):
        assert begun[f"curvefit_{name}"].isnull().all()


@pytest.mark.parametrize("start", [None, "neighbour"])
def test_a_block_that_lost_files_is_fitted_again(tmp_path: Path, start: str | None) -> None:
    da, store = stack(4, 4).chunk({"y": 2}), tmp_path / "fit.zarr"
    first = da.lm.curvefit("t", decay, store=store, start=start).load()
    names = ("curvefit_coefficients/1.0.0", "curvefit_status/1.0", "lmtorch/fitted/1.0.0")
    for file in (store / name for name in names):
        for what in (b"", file.read_bytes()[:-3], None):
            if what is None:
                file.unlink()
            else:
                file.write_bytes(what)
            again = da.lm.curvefit("t", decay, store=store, start=start, resume=True).load()
            same_bits(first, again)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_a_single_pixel_and_none_at_all(tmp_path: Path, shape: tuple[int, ...]) -> None:
    t = xr.DataArray(T, dims="t", coords={"t": T})
    da = 2 * np.exp(-t) * xr.DataArray(np.ones(shape), dims=("y", "x")[: len(shape)])
    for start in (None, "neighbour"):
        options = {"store": tmp_path / f"{start}.zarr", "start": start, "resume": True}
        for _ in range(2):
            found = da.lm.curvefit("t", decay, **options).load()
            assert found.curvefit_status.shape == shape
            same_bits(da.lm.curvefit("t", decay, start=start), found)


def test_two_passes_go_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    da, store = stack().chunk({"y": 4, "x": 5}), tmp_path / "fit.zarr"
    lost = np.isin(np.arange(10), (4, 5, 6))
    plain = {"p0": {"b": xr.DataArray(np.where(lost, 1e5, 1.0), dims="x")}, "start": "neighbour"}
    plain["second_opinion"] = False
    options = {**plain, "store": store}
    first = da.lm.curvefit("t", decay, **options).load()
    assert first.curvefit_from_neighbour.values[:, 4:7].all()
    # in blocks as well: what is beside a pixel may change the last bit of its numbers
    same_bits(da.lm.curvefit("t", decay, **plain).compute(), first)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    with monkeypatch.context() as done:  # of a block that was fitted twice the last results count
        done.setattr(lmtorch.xarray.store, "fit_block", never)
        done.setattr(lmtorch.xarray.store, "fit_again", never)
        same_bits(first, da.lm.curvefit("t", decay, resume=True, **options).load())
    # the second pass of a block was begun, and its status is what it was before
    zarr.open_group(store, path="lmtorch", mode="r+")["fitted_again"][1, 0] = 0
    zarr.open_group(store, mode="r+")["curvefit_status"][4:8, 4] = -6
    again = da.lm.curvefit("t", decay, resume=True, **options).load()
    same_bits(first, again)


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    store, armed, script = tmp_path / "fit.zarr", tmp_path / "armed", tmp_path / "run.py"
    script.write_text(
        f"""
import os
import signal
import sys
from pathlib import Path

import dask
import torch

sys.path[:0] = {sys.path!r}
import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from xarray_stacks import stack

store, armed = Path({str(store)!r}), Path({str(armed)!r})


def deadly(t, a, b):
    if armed.exists() and len(list((store / "lmtorch" / "fitted").glob("[0-9]*"))) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return a * torch.exp(-b * t)


torch.set_num_threads(1)
with dask.config.set(scheduler="synchronous"):
    stack().chunk({{"y": 4, "x": 5}}).lm.curvefit("t", deadly, store=store, resume=True)
"""
    )
    armed.touch()
    run = subprocess.run([sys.executable, script], timeout=150, check=False)
    assert run.returncode == -signal.SIGKILL
    assert (marks(store) > 0).sum() == 2
    armed.unlink()
    # the same function, which this process finds in the same file
    space: dict = {"__name__": "__main__"}
    code = script.read_text().split("torch.set_num_threads")[0]
    exec(compile(code, str(script), "exec"), space)
    da = stack().chunk({"y": 4, "x": 5})
    found = da.lm.curvefit("t", space["deadly"], store=store, resume=True).load()
    assert (marks(store) > 0).all()
    same_bits(da.lm.curvefit("t", decay).compute(), found)


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
        ({"later": 1e-12}, "with other data: those at y="),
        ({"order": ("x", "y", "t"), "chunks": {"y": 5, "x": 4}}, "with other dimensions of the"),
        ({"shift": 100}, "with other labels of the pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_store_of_something_else_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    given = {"func": decay, "chunks": {"y": 4, "x": 5}, "more": 0.0, "shift": 0, "later": 0.0}
    given["order"] = ("y", "x", "t")
    store = tmp_path / "fit.zarr"

    def fit(func, chunks, more, shift, later, order, **options):
        da = (stack(10, 10) + more).transpose(*order).chunk(chunks)
        da = da.assign_coords(y=da.y + shift, t=da.t + later)
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


OWN = {
    "a function of a module": """
other = types.ModuleType("other")
exec("def g(t, b): return t * b * {number}", other.__dict__)
def make(): return lambda t, a, b: a * other.g(t, b)
""",
    "another method": """
class Curve:
    def inner(self, t, b): return t * b * {number}
    def __call__(self, t, a, b): return a * self.inner(t, b)
make = Curve
""",
    "a method of a base": """
class Base:
    def inner(self, t, b): return t * b * {number}
class Curve(Base):
    def __call__(self, t, a, b): return a * self.inner(t, b)
make = Curve
""",
    "a class that is used": """
class Scale:
    factor = {number}
    @staticmethod
    def of(t): return t * Scale.factor
def make(): return lambda t, a, b: a * b * Scale.of(t)
""",
    "slots": """
class Curve:
    __slots__ = ("factor",)
    def __call__(self, t, a, b): return a * t * b * self.factor
def make():
    curve = Curve()
    curve.factor = {number}
    return curve
""",
    "a range": """
places = range({number})
def make(): return lambda t, a, b: a * t * b * len(places)
""",
    "a model": """
class Curve(Model):
    parameters = ("a", "b")
    @staticmethod
    def formula(x, a, b): return a * x * b * {number}
    @staticmethod
    def start(x, y): return {{"a": 1.0, "b": 1.0}}
make = Curve
""",
    "a chain of functions": """
def link(function): return lambda t: function(t)
last = lambda t: t * {number}
for _ in range(20): last = link(last)
def make(): return lambda t, a, b: a * b * last(t)
""",
}  # fmt: skip


@pytest.mark.parametrize("source", OWN.values(), ids=OWN.keys())
def test_functions_that_differ_in_what_they_stand_on_are_told_apart(source: str) -> None:
    from lmtorch.models import Model
    from lmtorch.xarray.fingerprint import told

    def make(number):
        space = {"__name__": "of_a_user", "types": types, "Model": Model}
        exec(source.format(number=number), space)
        return space["make"]()

    assert told(make(2)) == told(make(2))
    assert told(make(2)) != told(make(3))


def test_a_store_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    da, store = stack(2, 2), tmp_path / "fit.zarr"
    da.lm.curvefit("t", decay, store=store)
    with pytest.raises(InputError, match="is there already: resume=True"):
        da.lm.curvefit("t", decay, store=store)
    other = tmp_path / "other.zarr"
    da.rename("v").to_dataset().to_zarr(other, zarr_format=2, consolidated=False)
    with pytest.raises(InputError, match="was not begun by curvefit"):
        da.lm.curvefit("t", decay, store=other, resume=True)


def test_chunks_of_several_sizes_and_labels_of_several_levels_are_refused(tmp_path: Path) -> None:
    levels = stack().stack(pixel=("y", "x"))
    with pytest.raises(InputError, match=r"reset_index\('pixel'\)"):
        levels.lm.curvefit("t", decay, store=tmp_path / "fit.zarr")
    assert not list(tmp_path.iterdir())
    levels.reset_index("pixel").lm.curvefit("t", decay, store=tmp_path / "levels.zarr")
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
