"""What every rule for D promises: a diagonal, positive where it must be, for each problem."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch.damping.scaling import Scaling, positive

from .members import SCALINGS
from .on_numpy import on_both

both = on_both(SCALINGS)
scalings = pytest.mark.parametrize("scaling", both.values(), ids=both)
# of four problems with three parameters: any sizes, and columns of zeros
NORMS = torch.tensor(
    [[1e-30, 2.0, 0.0], [3.0, 1e20, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 7.0]], dtype=torch.float64
)
LATER = torch.tensor(
    [[1.0, 1e-5, 2.0], [3.0, 0.0, 0.1], [1.0, 0.0, 2.0], [2.0, 0.5, 9.0]], dtype=torch.float64
)


def taken(scaling: Scaling, places: Tensor) -> Scaling:
    """The rule of some problems; most rules are the same for all and have no `take`."""
    take: Any = getattr(scaling, "take", None)
    return scaling if take is None else take(places)


@scalings
def test_it_is_finite_and_positive_where_a_column_is_not_zero(scaling: Scaling) -> None:
    scale = None
    for norms in (NORMS, LATER):
        scale = scaling.update(scale, norms)
        assert scale.shape == norms.shape
        assert scale.dtype == norms.dtype
        assert scale.isfinite().all()
        assert (scale >= 0).all()
        assert (scale[norms > 0] > 0).all()
        assert (positive(scale) > 0).all()


@scalings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_has_the_dtype_of_the_columns(scaling: Scaling, dtype: torch.dtype) -> None:
    norms = NORMS.clamp(max=1e10).to(dtype)
    first = scaling.update(None, norms)
    assert first.dtype == scaling.update(first, norms).dtype == dtype


@scalings
def test_zeros_of_the_one_before_count_as_none(scaling: Scaling) -> None:
    assert torch.equal(scaling.update(torch.zeros_like(LATER), LATER), scaling.update(None, LATER))


@scalings
@pytest.mark.parametrize("places", [[0], [3, 1], [0, 1, 2, 3]], ids=str)
def test_some_problems_have_the_rows_of_their_own(scaling: Scaling, places: list[int]) -> None:
    chosen = torch.tensor(places)
    first = scaling.update(None, NORMS)
    second = scaling.update(first, LATER)
    rule = taken(scaling, chosen)
    assert torch.equal(rule.update(None, NORMS[chosen]), first[chosen])
    assert torch.equal(rule.update(first[chosen], LATER[chosen]), second[chosen])
    # and some of those that are left
    again = taken(rule, torch.tensor([0]))
    assert torch.equal(again.update(None, NORMS[chosen[:1]]), first[chosen[:1]])


@scalings
@given(decades=st.lists(st.integers(-6, 6), min_size=3, max_size=3))
def test_units_of_the_parameters_change_it_as_they_change_the_columns_or_not_at_all(
    scaling: Scaling, decades: list[int]
) -> None:
    units = 2.0 ** torch.tensor(decades, dtype=torch.float64)  # powers of two round nothing
    first = scaling.update(None, NORMS)
    second = scaling.update(first, LATER)
    in_units = scaling.update(scaling.update(None, NORMS * units), LATER * units)
    assert torch.equal(in_units, second * units) or torch.equal(in_units, second)


@scalings
def test_it_writes_to_none_of_its_arguments(scaling: Scaling) -> None:
    before, norms = torch.full((4, 3), 1.0), torch.full((4, 3), 2.0)
    scaling.update(before, norms)
    assert (before == 1).all()
    assert (norms == 2).all()
