"""What single sources of derivatives promise beyond the laws that all of them keep."""

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.jacobians.base import Workspace
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.given import GivenJacobian
from lmtorch.jacobians.reverse import Reverse
from lmtorch.residuals.function import FunctionResidual

from ..contracts.setting import Model, whole


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6], ids=str)
@pytest.mark.parametrize("method", ["2-point", "3-point"])
def test_differences_take_a_step_in_proportion_to_large_parameters(
    size: float, method: str
) -> None:
    x = torch.tensor([size, -size], dtype=torch.float64)
    residual = FunctionResidual(lambda v: v**2, x)
    (part,) = residual.parts()
    _, jacobian = whole(FiniteDifference(method), part, (x,))
    # 2-point: exactly 2x + h; 3-point: exact but for rounding
    h = torch.finfo(torch.float64).eps ** (1 / 2 if method == "2-point" else 1 / 3) * max(1.0, size)
    torch.testing.assert_close(jacobian, torch.diag(2 * x), rtol=1e-9, atol=1.1 * h)


def test_rows_come_in_chunks_into_the_workspace_they_asked_for() -> None:
    model = Model((3, 4, 2), 5)
    n = sum(p.numel() for p in model.params)
    given: list[Tensor] = []

    def workspace(rows: int) -> Tensor:
        given.append(torch.full((rows, n), torch.nan, dtype=torch.float64))
        return given[-1]

    blocks = list(Reverse(3).blocks(model.part(False), model.params, Workspace(workspace)))
    assert [block.shape[0] for _, block in blocks] == [3, 3, 3, 1]
    assert all(
        block.data_ptr() == place.data_ptr()
        for (_, block), place in zip(blocks, given, strict=True)
    )


def test_a_given_jacobian_of_another_shape_is_refused() -> None:
    model = Model((2, 3), 4)
    with pytest.raises(lmtorch.InputError, match=r"\(12, 9\)"):
        whole(GivenJacobian(lambda params: torch.zeros(9, 12)), model.part(False), model.params)
