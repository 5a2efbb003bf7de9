"""JᵀJ of columns that are outer products: a sum of Kronecker products of small symmetric matrices.

Where the rows of a sample are g_o aᵀ, flattened, for its residuals o = 1 … k,

    JᵀJ = Σ_s G_s ⊗ A_s,   G_s = Σ_o g_o g_oᵀ (p × p),   A_s = a aᵀ (q × q).

Both factors are symmetric: only about a quarter of the (pq)² entries are distinct, and the sum over
samples is one product of a matrix of the pairs in G with one of the pairs in A. That is half
the work of a symmetric product of the rows, and 1/k of that where samples have k residuals.

Reference: Martens & Grosse, Optimizing neural networks with Kronecker-factored approximate
curvature (2015), §2.2, where E[G ⊗ A] is then replaced by E[G] ⊗ E[A]; here it is exact.
"""

from functools import cache

import torch
from torch import Tensor

from ..rows.outer import Outer

STRIPS = 12  # at most: more come closer to the triangle, in more and smaller operations


class KroneckerSum:
    """Σ_s G_s ⊗ A_s, summed over blocks of samples.

    Args:
        p: size of G.
        q: size of A.
        like: dtype and device of the sum.
    """

    def __init__(self, p: int, q: int, like: Tensor) -> None:
        self.p, self.q = p, q
        self.packed = like.new_zeros(pairs(p), pairs(q))

    def add(self, outer: Outer) -> None:
        """Take the samples of a block."""
        dtype = self.packed.dtype
        G = symmetric_products(outer.left.to(dtype).permute(1, 2, 0).contiguous())
        A = symmetric_products(outer.right.to(dtype).mT.contiguous()[None])
        self.packed.addmm_(G, A.mT)

    def whole(self) -> Tensor:
        """The matrix (pq, pq)."""
        G, A = (places(size, self.packed.device) for size in (self.p, self.q))
        return self.packed[G[:, None, :, None], A[None, :, None, :]].reshape(self.p * self.q, -1)


def worth_it(p: int, q: int, k: int) -> bool:
    """Whether the sum takes clearly fewer products than half of the rows' own, k by sample."""
    return pairs(p) * pairs(q) < 0.35 * k * (p * q) ** 2 and p * q >= 128


def strips(size: int) -> list[slice]:
    """Rows of a symmetric matrix that are taken together, from the diagonal on."""
    width = -(-size // STRIPS)
    return [slice(start, min(start + width, size)) for start in range(0, size, width)]


def pairs(size: int) -> int:
    """Entries that `symmetric_products` makes: the upper triangle and the corners of strips."""
    return sum((strip.stop - strip.start) * (size - strip.start) for strip in strips(size))


def symmetric_products(z: Tensor) -> Tensor:
    """The distinct entries of Σ_o z_o z_oᵀ for each sample, (pairs, s); z: (k, size, s)."""
    k, size, count = z.shape
    products = z.new_empty(pairs(size), count)
    begin = 0
    for strip in strips(size):
        left = z[:, strip, None]  # (k, strip, 1, s)
        right = z[:, None, strip.start :]  # (k, 1, rest, s)
        end = begin + left.shape[1] * right.shape[2]
        place = products[begin:end].view(left.shape[1], right.shape[2], count)
        torch.mul(left[0], right[0], out=place)
        for o in range(1, k):
            place.addcmul_(left[o], right[o])
        begin = end
    return products


@cache
def places(size: int, device: torch.device) -> Tensor:
    """The place of entry (i, j) of the matrix among `symmetric_products`, (size, size)."""
    table = torch.empty(size, size, dtype=torch.long)
    begin = 0
    for strip in strips(size):
        shape = strip.stop - strip.start, size - strip.start
        end = begin + shape[0] * shape[1]
        numbers = torch.arange(begin, end).view(shape)
        table[strip.start :, strip] = numbers.mT
        table[strip, strip.start :] = numbers
        begin = end
    return table.to(device)
