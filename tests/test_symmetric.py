"""Symmetric products of which one triangle is made."""

import pytest
import torch

from lmtorch._symmetric import add_gram_, mirror_


@pytest.mark.parametrize("n", [1, 127, 128, 129, 300, 1100])
def test_the_mirrored_triangle_is_the_product(n: int) -> None:
    rows = torch.randn(5, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    found = torch.zeros(n, n, dtype=torch.float64)
    add_gram_(found, rows)
    found += torch.ones_like(found).triu(1)  # what stands above the diagonal does not count
    mirror_(found)
    torch.testing.assert_close(found, rows.mT @ rows)
