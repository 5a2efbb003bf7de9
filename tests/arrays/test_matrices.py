"""More matrices than a GPU's library takes at once."""

import torch

from lmtorch.arrays import matrices


def test_more_matrices_than_a_gpu_takes_at_once_are_taken_in_parts(elsewhere: torch.device) -> None:
    count = 3 * matrices.TOGETHER // 2
    half = torch.randn(2, count // 2, 2, 2, dtype=torch.float64)
    symmetric = half + half.mT
    values, vectors = matrices.eigh(symmetric.to(elsewhere))
    expected = torch.linalg.eigvalsh(symmetric)
    torch.testing.assert_close(values.cpu(), expected)
    torch.testing.assert_close(matrices.eigvalsh(symmetric.to(elsewhere)).cpu(), expected)
    back = (vectors * values[..., None, :] @ vectors.mT).cpu()
    torch.testing.assert_close(back, symmetric)
