"""What all dampings are told."""

import pytest
import torch

from lmtorch.damping.base import gain_ratio


@pytest.mark.parametrize(
    ("actual", "predicted", "expected"),
    [
        (1.0, 2.0, 0.5),
        (-1.0, 2.0, -0.5),
        (torch.nan, 1.0, -1.0),
        (1.0, 0.0, -1.0),
        (-torch.inf, 1.0, -1.0),
        (1.0, -1.0, -1.0),
    ],
)
def test_the_gain_ratio_is_minus_one_where_it_says_nothing(
    actual: float, predicted: float, expected: float
) -> None:
    assert gain_ratio(torch.tensor(actual), torch.tensor(predicted)) == expected
