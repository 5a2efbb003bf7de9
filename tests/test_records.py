"""Numbers and trees in the terms of JSON, and back with the same bits."""

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lmtorch import InputError, _records
from lmtorch._records import decoded, encoded

ODD = [0.1, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 1 / 3]


def there_and_back(value: Any) -> Any:
    return decoded(json.loads(json.dumps(encoded(value), allow_nan=False)))


def same(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return bool(
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
        and all(
            np.array_equal(np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b))
            for a, b in ((one.real, other.real), (one.imag, other.imag))
        )
    )


@pytest.mark.parametrize("large", [1, 10_000], ids=["bytes", "decimals"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "complex128", "complex64"])
def test_floats_come_back_with_all_bits(
    dtype: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_records, "LARGE", large)
    with np.errstate(over="ignore"):
        array = np.array(ODD).astype(dtype)
    if array.dtype.kind == "c":
        array.imag[...] = array.real[::-1].copy()
    assert same(there_and_back(array), array)
    tensor = there_and_back(torch.as_tensor(array))
    assert isinstance(tensor, torch.Tensor)
    assert same(tensor.numpy(), array)


@given(arrays(np.float64, array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_any_array_comes_back(array: np.ndarray) -> None:
    assert same(there_and_back(array), array)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
))  # fmt: skip
def test_any_tree_comes_back(tree: Any) -> None:
    assert repr(there_and_back(tree)) == repr(tree)


@pytest.mark.parametrize(
    "value",
    [
        np.array([True, False]),
        np.array([2**63 - 1, -(2**63)]),
        np.array([1, 255], dtype=np.uint8),
        np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
        np.array([3, 4], dtype="timedelta64[ns]"),
        np.zeros((0, 3)),
        np.array(2.5),
    ],
    ids=lambda value: str(value.dtype),
)
def test_other_arrays_come_back(value: np.ndarray) -> None:
    back = there_and_back(value)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(back, value)
    back[...] = back  # may be written to


def test_bfloat16_comes_back() -> None:
    value = torch.tensor([1 / 3, 1e38, float("nan")], dtype=torch.bfloat16)
    back = there_and_back(value)
    assert back.dtype == torch.bfloat16
    torch.testing.assert_close(back, value, rtol=0, atol=0, equal_nan=True)


def test_a_table_comes_back() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"u": [1.0, np.nan], "who": ["a", "b"]})
    pandas.testing.assert_frame_equal(there_and_back(frame), frame)


def test_what_is_written_can_be_read_without_this_package() -> None:
    array = np.array([[0.1, np.inf], [np.nan, 2.0]])
    found = json.loads(json.dumps(encoded(array)))["array"]
    rows = [[float(number) for number in row] for row in found["values"]]
    np.testing.assert_array_equal(np.array(rows), array)
    large = json.loads(json.dumps(encoded(np.arange(20_000.0))))["array"]
    raw = np.frombuffer(base64.b64decode(large["base64"]), large["dtype"])
    np.testing.assert_array_equal(raw, np.arange(20_000.0))


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {1, 2}, np.array([object()])], ids=lambda v: type(v).__name__
)
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="cannot be saved"):
        encoded(value)


@pytest.mark.parametrize(
    "value",
    [
        {"array": {"dtype": "float64", "shape": [3], "values": [1.0]}},
        {"array": {"dtype": "float64", "shape": [1], "values": ["much"]}},
        {"array": {"dtype": "object", "shape": [1], "values": [1]}},
        {"array": {"dtype": "float64"}},
        {"tensor": {"dtype": "float64", "shape": [1], "values": [1.0]}, "dtype": "load"},
        {"unknown": 1},
    ],
    ids=["shape", "word", "objects", "empty", "dtype", "key"],
)
def test_what_is_damaged_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="damaged"):
        decoded(value)
