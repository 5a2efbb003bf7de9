"""Every option of `curvefit` with values that cannot work: named before any work."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from xarray_stacks import decay, stack

from lmtorch import InputError, models
from lmtorch.xarray import curvefit


class Thing:
    """Of no use as anything."""

    def __repr__(self) -> str:
        return "a thing"


THING, PAIR, NAN = Thing(), np.ones(2), float("nan")
FLAGS = [None, "x", 2, 0.5, PAIR, THING]
OTHER = xr.DataArray(np.ones(3), dims="z")
TABLE: dict[str, list[Any]] = {
    "obj": [None, 3, PAIR, THING],
    "coords": ["z", 3, THING, [], ["t", "z"]],
    "func": [None, 3, "x", PAIR, THING],
    "reduce_dims": ["z", 3, ["t", "z"], THING],
    "skipna": FLAGS,
    "p0": [3, "x", [1.0, 2.0], {"c": 1.0}, {"a": "x"}, {"a": THING}, {"a": OTHER}, {"a": NAN}],
    "bounds": [3, (0, 1), {"c": (0, 1)}, {"a": 3}, {"a": (2, 1)}, {"a": (NAN, 1)},
               {"a": (0, THING)}, {"a": (0, OTHER)}],
    "param_names": [3, THING, [], ["a", "a"], ["a b"]],
    "errors": [None, "warn", 3, PAIR, THING],
    "kwargs": [3, "x", THING, {"p0": {}}, {"callback": print}],
    "sigma": ["x", 0.0, -1.0, NAN, THING, PAIR, OTHER],
    "mask": ["x", 3, THING, [True, False], OTHER, xr.DataArray("x")],
    "total_count": ["x", 3, THING, OTHER],  # without likelihood="binomial", any
    "start": ["left", 3, PAIR, THING],
    "store": [3, 2.5, THING, PAIR],
    "resume": FLAGS,
    "progress": FLAGS,
}  # fmt: skip
# what a message calls an option where that is not its name
WORDS = {
    "obj": "obj",
    "p0": r"p0|Initial guess",
    "bounds": r"bounds?|Upper bound",
    "func": r"func|\bf\b",
    "param_names": r"param_names|parameters",
    "kwargs": r"kwargs|p0|callback",
}


def test_the_table_has_every_option() -> None:
    given = inspect.signature(curvefit).parameters.values()
    assert {p.name for p in given if p.kind is not p.VAR_KEYWORD} == set(TABLE)


@pytest.mark.parametrize("option", TABLE)
def test_a_wrong_value_is_told_by_name(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = []

    def noting(t, a, b):
        calls.append(1)
        return decay(t, a, b)

    for value in TABLE[option]:
        given: dict[str, Any] = {"obj": stack(2, 3), "coords": "t", "func": noting, option: value}
        with pytest.raises(InputError) as caught:
            curvefit(**given)
        said = WORDS.get(option, rf"\b{option}\b")
        assert re.search(said, str(caught.value)), (value, str(caught.value))
        assert not calls, value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"sigma": np.ones(200)},
            r"sigma is of shape \(200,\), .*DataArray\(sigma, dims=\['t'\]",
        ),
        ({"mask": np.ones(200, dtype=bool)}, r"mask is of shape \(200,\): it must be a DataArray"),
        ({"func": models.Gaussian}, r"write Gaussian\(\), or with a prefix"),
        ({"absolutesigma": True}, "no option 'absolutesigma'.*Is 'absolute_sigma' meant"),
        ({"p0": {"aa": 1.0}}, "Is 'a' meant"),
        ({"coords": "T"}, r"which the data do not have: .*\.$"),
        ({"coords": "tt"}, "Is 't' meant"),
    ],
)
def test_a_first_mistake_is_answered(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        curvefit(**{"obj": stack(2, 3), "coords": "t", "func": decay, **given})
