"""Products and factorisations of matrices (..., m, n).

LAPACK is called by itself for NumPy's: for a few columns `numpy.linalg` spends more on its checks.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import module_from_spec
from math import copysign, inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sums import dot

_ndarray: Any = np.ndarray


# matrices at once on a GPU: cuSOLVER fails for some more (CUDA 13: 10⁵, not 10⁴)
TOGETHER = 2**14
SMALL = 9  # entries of a matrix whose products are summed one by one, see `sums`
TWO = 2  # columns of which a triangle is decomposed by a formula
FAR_FROM_ZERO = 1e-200  # squares above this have all their digits, and so have products of roots
USED = ("dgeqrf", "dgesdd", "dsyevd", "dpotrf")  # of LAPACK


@cache
def _lapack() -> Any:
    """scipy's LAPACK, at the first use."""
    # Its extension alone takes 10 ms, and the package around it 0.2 s, which a first fit would
    # wait for. The extension has a private name, that of scipy 1.17: else the package is taken.
    with suppress(Exception):
        import scipy

        folder = Path(scipy.__file__).parent / "linalg"
        loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES)
        spec = FileFinder(str(folder), loaders).find_spec("_flapack")
        assert spec is not None
        assert spec.loader is not None
        found = module_from_spec(spec)
        spec.loader.exec_module(found)
        if all(hasattr(found, name) for name in USED):
            return found
    from scipy.linalg import lapack

    return lapack


@cache
def _upper(n: int) -> Any:
    """Ones on and above the diagonal: a product with them takes a third of the time of `triu`."""
    return np.triu(np.ones((n, n)))


@cache
def ones(m: int) -> Any:
    """Ones (m,), to be read only: products with them are sums, at half the cost of NumPy's own."""
    return np.ones(m)


def apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector, (..., a, b) and (..., b)."""
    if type(matrix) is _ndarray:
        array: Any = matrix
        found: Any
        if array.size > SMALL or array.dtype.char != "d":
            found = array.dot(vector)
            return found
        entries = vector.tolist()
        found = np.array([dot(row, entries) for row in array.tolist()])
        return found
    return (matrix @ vector[..., None])[..., 0]


def along(columns: Tensor, vector: Tensor) -> Tensor:
    """Products of the columns of a matrix (..., m, k) with a vector (..., m), (..., k)."""
    if type(columns) is _ndarray:
        found: Any = columns.T.dot(vector)
        return found
    return apply(columns.mT, vector)


def beside(columns: Sequence[Tensor | None]) -> Tensor:
    """Columns (..., m) as a matrix (..., m, n), column after column in memory; None: zeros."""
    like: Any = next(column for column in columns if column is not None)
    if type(like) is _ndarray:
        matrix: Any = np.empty((len(like), len(columns)), like.dtype, order="F")
        put_beside(columns, matrix)
        return matrix
    there = [column for column in columns if column is not None]
    if len(there) < len(columns):
        zero = torch.zeros_like(like)
        there = [zero if column is None else column for column in columns]
    return torch.stack(there, -2).mT


def put_beside(columns: Sequence[Tensor | None], matrix: Tensor) -> None:
    """Write columns (..., m), None for zeros, into a matrix (..., m, n)."""
    if type(matrix) is not _ndarray:
        matrix.copy_(beside(columns))
        return
    for place, column in enumerate(columns):
        matrix[:, place] = 0.0 if column is None else column


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Arrays one after the other along a dimension."""
    if type(parts[0]) is _ndarray:
        found: Any = np.concatenate(parts, dim)
        return found
    return torch.cat(list(parts), dim)


def room(like: Tensor, *shape: int) -> Tensor:
    """An array to be filled, of the dtype and on the device of `like`."""
    if type(like) is _ndarray:
        found: Any = np.empty(shape, like.dtype, order="F")  # columns are read and written alone
        return found
    return like.new_empty(*shape)


def transposed(matrix: Tensor) -> Tensor:
    """Rows and columns exchanged, a view."""
    return matrix.T if type(matrix) is _ndarray else matrix.mT


def diagonal(matrix: Tensor) -> Tensor:
    """The diagonal (..., n), a view that is to be read only."""
    if type(matrix) is _ndarray:
        found: Any = matrix.diagonal()
        return found
    return matrix.diagonal(dim1=-2, dim2=-1)


def diagonal_matrix(vector: Tensor) -> Tensor:
    """The matrix (..., n, n) with this diagonal."""
    if type(vector) is _ndarray:
        found: Any = np.diag(vector)
        return found
    return torch.diag_embed(vector)


def identity(like: Tensor) -> Tensor:
    """The identity of the size, dtype (NumPy: float64) and device of a square matrix."""
    if type(like) is _ndarray:
        found: Any = np.eye(like.shape[-1])
        return found
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def column_norms(matrix: Tensor) -> Tensor:
    """‖M e_j‖, (..., n)."""
    if type(matrix) is _ndarray:
        array: Any = matrix
        return ones(len(array)).dot(array * array) ** 0.5
    return torch.linalg.vector_norm(matrix, dim=-2)


def norms_along(entries: Tensor, dim: int) -> Tensor:
    """Lengths of the vectors that lie along a dimension of an array of any shape."""
    if type(entries) is _ndarray:
        found: Any = (entries * entries).sum(dim) ** 0.5
        return found
    return torch.linalg.vector_norm(entries, dim=dim)


def reduced(matrix: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """R (..., n, n) and Qᵀv (..., n) of a tall matrix = Q R and a vector (..., m)."""
    if type(matrix) is _ndarray:
        m, n = matrix.shape
        # the factor of the matrix with the vector beside it has Qᵀv in its last column: Q is not
        # made
        both: Any = np.empty((m, n + 1), order="F")
        both[:, :n], both[:, n] = matrix, vector
        return _factored(both, overwrite=True)
    q, r = torch.linalg.qr(matrix)
    return r, apply(q.mT, vector)


def scaled_svd(both: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of an array with the columns of a tall M one above the other, and below them a vector v.

    Args:
        both: the array, (n + 1, m).
        scale: D, (n,).

    Returns:
        The singular values of M D⁻¹ = U S Vᵀ, (n,), falling, their squares, Vᵀ (n, n), and
        S Uᵀv (n,).
    """
    packed, n = _lapack().dgeqrf(both.T)[0], len(scale)
    if n == TWO:
        (a, b, p), (_, d, q) = packed[:n].tolist()
        one, other = scale.tolist()
        found = _of_two(a / one, b / other, d / other, p, q)
        if found is not None:
            return found
    triangle = packed[:n, :n] / scale
    for row in range(1, n):  # below the diagonal LAPACK leaves numbers of its own
        triangle[row, :row] = 0.0
    u, singular, vh = svd(triangle)
    return singular, singular * singular, vh, singular * along(u, packed[:n, n])


def _of_two(f: float, g: float, h: float, p: float, q: float) -> Any:
    """The results of `scaled_svd` for the triangle (f g, 0 h) and Qᵀv = (p, q).

    One rotation of Jacobi's makes two columns orthogonal. The longer one gives the larger singular
    value and a left vector, to which the other is at right angles; the smaller value follows from
    the determinant, to all its digits.

    Returns:
        The results; None where squares leave the range of the dtype.

    Reference: Golub & Van Loan, Matrix Computations (2013), §8.6.3.
    """
    left, right, inner = f * f, g * g + h * h, f * g
    clear = (left == 0 or left > FAR_FROM_ZERO) and (right == 0 or right > FAR_FROM_ZERO)
    if not (clear and 0 < left + right < inf):
        return None
    cosine, sine = 1.0, 0.0
    if inner:
        cotangent = (right - left) / (2 * inner)  # of twice the angle
        tangent = copysign(1 / (abs(cotangent) + sqrt(1 + cotangent * cotangent)), cotangent)
        cosine = 1 / sqrt(1 + tangent * tangent)
        sine = cosine * tangent
    if right >= left:
        v, w = (sine, cosine), (-cosine, sine)
        x, y = sine * f + cosine * g, cosine * h
    else:
        v, w = (cosine, -sine), (sine, cosine)
        x, y = cosine * f - sine * g, -sine * h
    larger = sqrt(x * x + y * y)
    smaller = f * h / larger  # its sign is that of its left vector
    squares = larger * larger, smaller * smaller
    moved = x * p + y * q, smaller * (x * q - y * p) / larger
    return (
        np.array((larger, abs(smaller))), np.array(squares), np.array((v, w)), np.array(moved),
    )  # fmt: skip


def reduced_of(both: Tensor) -> tuple[Tensor, Tensor]:
    """As `reduced`, of an array with the columns one above the other and below them the vector."""
    return _factored(both.T, overwrite=False)


def _factored(both: Any, overwrite: bool) -> tuple[Any, Any]:
    """R and Qᵀv from the matrix with the vector beside it, column after column in memory."""
    packed, n = _lapack().dgeqrf(both, overwrite_a=overwrite)[0], both.shape[1] - 1
    return packed[:n, :n] * _upper(n), packed[:n, n]


def gram(rows: Tensor) -> Tensor:
    """The products of all rows of an array (n, m) with each other, (n, n)."""
    found: Any = rows.dot(rows.T)
    return found


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (..., m, k), the singular values (..., k), falling, and Vᵀ (..., k, n); k = min(m, n)."""
    if type(matrix) is _ndarray:
        u, singular, vh, info = _lapack().dgesdd(matrix, full_matrices=0)
        if info:
            u, singular, vh = (np.full_like(part, np.nan) for part in (u, singular, vh))
        return u, singular, vh
    found = torch.linalg.svd(matrix, full_matrices=False)
    return found.U, found.S, found.Vh


def cholesky(matrix: Tensor) -> Tensor | None:
    """The diagonal (n,) of the Cholesky factor of an array (n, n); None: it has none."""
    factor, failed = _lapack().dpotrf(matrix, clean=0)
    return None if failed else factor.diagonal()


def eigvalsh(matrix: Tensor) -> Tensor:
    """Eigenvalues (..., n), rising, of a symmetric matrix."""
    if type(matrix) is _ndarray or _too_many(matrix):
        return eigh(matrix)[0]
    return torch.linalg.eigvalsh(matrix)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), rising, and eigenvectors (..., n, n) of a symmetric matrix."""
    if type(matrix) is _ndarray:
        values, vectors, info = _lapack().dsyevd(matrix, lower=1)
        if info:
            values, vectors = np.full_like(values, np.nan), np.full_like(vectors, np.nan)
        return values, vectors
    if _too_many(matrix):
        parts = [torch.linalg.eigh(part) for part in matrix.flatten(0, -3).split(TOGETHER)]
        lead = matrix.shape[:-2]
        return (
            torch.cat([part.eigenvalues for part in parts]).unflatten(0, lead),
            torch.cat([part.eigenvectors for part in parts]).unflatten(0, lead),
        )
    found = torch.linalg.eigh(matrix)
    return found.eigenvalues, found.eigenvectors


def _too_many(matrix: Tensor) -> bool:
    """Whether there are more matrices than a GPU takes at once."""
    return matrix.device.type != "cpu" and matrix.shape[:-2].numel() > TOGETHER
