"""The dual equations without damping, where there may be no step."""

import pytest
import torch

from lmtorch.linearizations.base import Prior
from lmtorch.solvers.dual import Dual

from ..contracts.setting import System


@pytest.mark.parametrize(
    "penalized", [[], [0], [0, 1, 2]], ids=["plain", "prior on one", "prior on some"]
)
def test_the_dual_without_damping_gives_no_step_where_its_weights_or_rows_do_not_determine_one(
    penalized: list[int],
) -> None:
    # rows of whole numbers, whose products have no rounding: the third is the sum of the others
    system = System((3, 5))
    system.jacobian = torch.tensor(
        [[1.0, 2, 0, 1, 3], [0, 1, 1, 2, 1], [1, 3, 1, 3, 4]], dtype=torch.float64
    )
    system.scale = torch.ones(5, dtype=torch.float64)
    if penalized:
        root = torch.zeros(5, dtype=torch.float64)
        root[penalized] = 1.0
        system.prior = Prior(root, root)
    factor = Dual().factor(system.linearization(Dual()), system.scale)
    zero = torch.zeros((), dtype=torch.float64)
    assert factor.step(zero).isnan().all()
    assert factor.length(zero)[0].isnan()
    damping = torch.tensor(0.1, dtype=torch.float64)
    torch.testing.assert_close(system.matrix(damping) @ factor.step(damping), -system.gradient)


def test_the_dual_takes_no_pivot_of_round_off_for_one() -> None:
    # four rows of rank three: the last pivot of JJᵀ is round-off, in about half
    # of the problems positive
    system = System((4, 6), (64,))
    system.jacobian[..., 3, :] = system.jacobian[..., :3, :].sum(-2)
    factor = Dual().factor(system.linearization(Dual()), system.scale)
    zero = torch.zeros(64, dtype=torch.float64)
    assert factor.step(zero).isnan().all()
    assert factor.length(zero)[0].isnan().all()
