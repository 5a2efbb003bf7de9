"""The rules for D, by their formulas."""

import torch

from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import CurrentNorms, Levenberg, More

from ..contracts.setting import path, start_of
from ..problems import CLASSICAL


def test_scalings_are_the_running_maximum_ones_and_the_current_norms() -> None:
    first, second = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])
    for scaling, expected in (
        (More(), [2.0, 4.0]),
        (Levenberg(), [1.0, 1.0]),
        (CurrentNorms(), [2.0, 3.0]),
    ):
        assert scaling.update(scaling.update(None, first), second).tolist() == expected


def test_without_it_they_do_not() -> None:
    fun, x = CLASSICAL["wood"].residual, start_of("wood")
    units = 2.0 ** torch.arange(4, dtype=torch.float64)
    mine = path(fun, x, Nielsen(), scaling=Levenberg(), trials=1)[0][2].x
    theirs = path(lambda z: fun(z / units), x * units, Nielsen(), scaling=Levenberg(), trials=1)[0][
        2
    ].x
    assert not torch.allclose(mine, theirs / units, rtol=1e-3)
