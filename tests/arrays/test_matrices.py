"""Factorisations of many matrices on a GPU, and of two columns by a formula."""

import numpy as np
import pytest
import torch

from lmtorch.arrays import matrices, scaled_svd


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


def of_two(matrix, vector):
    """What `scaled_svd` gives for a tall matrix of two columns, and the matrix that it makes."""
    both = np.vstack([matrix.T, vector])
    singular, squares, vh, moved = scaled_svd(both, np.ones(2))
    return singular, squares, vh, moved


SIZES = (1.0, 1e-3, 1e-9, 1e-17, 1e40, 1e-90, 1e-160, 1e140, 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("angle", [1.0, 1e-3, 1e-8, 1e-15, 0.0])
def test_two_columns_are_decomposed_as_by_lapack(size, angle):
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, apart, vector = generator.standard_normal((3, 9))
        matrix = np.stack([one, size * (one + angle * apart)], 1)
        singular, squares, vh, moved = of_two(matrix, vector)
        expected = np.linalg.svd(matrix, compute_uv=False)
        largest = expected[0]
        unit = np.finfo(float).eps * largest
        assert np.abs(singular - expected).max() <= 16 * unit
        assert np.allclose(squares, singular**2, rtol=1e-15, atol=0)
        assert np.abs(vh @ vh.T - np.eye(2)).max() < 1e-15
        # the columns of J V are at right angles, and as long as the singular values
        turned = matrix @ vh.T
        assert np.abs(turned.T @ (turned / largest) - np.diag(squares / largest)).max() <= 64 * unit
        assert np.abs(moved - turned.T @ vector).max() <= 64 * unit * np.linalg.norm(vector)


def test_the_smaller_of_two_singular_values_has_all_its_digits():
    # of a triangle with nearly dependent columns: the larger is known to all digits, and their
    # product is the determinant
    for h in (1e-3, 1e-8, 1e-12, 1e-16):
        matrix = np.zeros((4, 2))
        matrix[0], matrix[1] = (1.0, 1.0), (0.0, h)
        singular = of_two(matrix, np.ones(4))[0]
        larger = np.linalg.norm(matrix, 2)
        assert abs(singular[1] * larger / h - 1) < 1e-14
