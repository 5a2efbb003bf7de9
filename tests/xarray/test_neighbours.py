"""The second pass from the neighbours: how far it goes, the same however a stack is cut."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from xarray_stacks import decay, same_bits, stack

import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch import NotConvergedError
from lmtorch.xarray import neighbours, overlapping, task


def begun_far(far: np.ndarray) -> dict:
    """Options by which the first pass fails in some pixels, whose curve is zero at the start."""
    rate = xr.DataArray(np.where(far, 1e5, 1.0), dims=("y", "x"))
    return {"p0": {"a": 2.0, "b": rate}, "second_opinion": False, "start": "neighbour"}


@pytest.mark.parametrize("chunks", [None, {"y": 4, "x": 8}, {"y": 5, "x": 7}], ids=str)
def test_solutions_spread_by_a_pixel_a_round_also_over_chunks(
    chunks: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "TILE", 16)  # tiles of 4 x 4
    for module in (neighbours, overlapping):
        monkeypatch.setattr(module, "ROUNDS", 3)
    far, da = np.zeros((11, 12), bool), stack(11, 12)
    far[1, 10] = far[3:, :9] = True
    fit = (da if chunks is None else da.chunk(chunks)).lm.curvefit("t", decay, **begun_far(far))
    fit = fit.compute(scheduler="synchronous")
    away = ndimage.distance_transform_cdt(far, "taxicab")
    assert (away > 3).any()
    np.testing.assert_array_equal(fit.curvefit_status > 0, away <= 3)
    np.testing.assert_array_equal(fit.curvefit_from_neighbour, far & (away <= 3))
    # the minima that a good start finds
    good = da.lm.curvefit("t", decay, p0={"a": 2.0}).where(fit.curvefit_status > 0)
    np.testing.assert_allclose(fit.curvefit_coefficients, good.curvefit_coefficients, rtol=1e-8)
    if chunks == {"y": 4, "x": 8}:  # multiples of tiles
        same_bits(da.lm.curvefit("t", decay, **begun_far(far)), fit)


def test_chunks_without_pixels_are_left_out() -> None:
    da, far = stack(6, 4), np.zeros((6, 4), bool)
    far[2, 1] = True
    gaps = xr.concat([da.chunk({"y": 3})[:3], da.chunk({"y": 3})[:0], da.chunk({"y": 3})[3:]], "y")
    assert gaps.chunksizes["y"] == (3, 0, 3) or gaps.chunksizes["y"] == (3, 3)
    fit = gaps.lm.curvefit("t", decay, **begun_far(far)).compute(scheduler="synchronous")
    assert (fit.curvefit_status > 0).all()
    assert int(fit.curvefit_from_neighbour.sum()) == 1


def test_only_what_is_left_of_a_chunk_raises(tmp_path: Path) -> None:
    # in the overlap of the chunks pixels stay without a solution that their own chunk has found
    da, far = stack(2, 6), np.zeros((2, 6), bool)
    far[:, :5] = True
    options = {**begun_far(far), "errors": "raise"}
    plain = da.lm.curvefit("t", decay, **options)
    chunked = da.chunk({"x": 2})
    for fit in (
        chunked.lm.curvefit("t", decay, **options).compute(scheduler="synchronous"),
        chunked.lm.curvefit("t", decay, store=tmp_path / "a.zarr", **options).load(),
    ):
        np.testing.assert_allclose(
            fit.curvefit_coefficients, plain.curvefit_coefficients, rtol=1e-9
        )
        assert (fit.curvefit_status > 0).all()
    options = {**begun_far(far | True), "errors": "raise"}
    with pytest.raises(NotConvergedError, match=r"12 of 12 fits failed, the first at \(0, 0\)"):
        da.lm.curvefit("t", decay, **options)
    with pytest.raises(NotConvergedError, match="4 of 4 fits failed"):
        chunked.lm.curvefit("t", decay, **options).compute(scheduler="synchronous")
    with pytest.raises(NotConvergedError, match="4 of 4 fits failed"):
        chunked.lm.curvefit("t", decay, store=tmp_path / "b.zarr", **options)


def test_a_store_reads_no_data_where_nothing_failed(tmp_path: Path) -> None:
    da, far = stack(24, 2), np.zeros((24, 2), bool)
    far[1, 1] = True
    read = []

    def noting(block: np.ndarray, block_info=None) -> np.ndarray:
        read.append(block_info[None]["chunk-location"][0])
        return block

    lazy = da.chunk({"y": 8}).copy()
    lazy = lazy.copy(data=lazy.data.map_blocks(noting, dtype=float))
    read.clear()
    fit = lazy.lm.curvefit("t", decay, store=tmp_path / "fit.zarr", **begun_far(far))
    # the first pass reads each block, the second the one that has a failure and what lies around
    assert sorted(read) in ([0, 0, 1, 1, 2], [0, 1, 2, 0, 1])
    assert bool(fit.curvefit_from_neighbour[1, 1])
    assert int(fit.curvefit_from_neighbour.sum()) == 1
    read.clear()
    lazy.lm.curvefit("t", decay, store=tmp_path / "fit.zarr", resume=True, **begun_far(far))
    assert sorted(read) == [0, 1, 2]  # to compare, and nothing is fitted
