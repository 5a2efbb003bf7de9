"""JJᵀ by few of its columns: steps of thousands of rows at the cost of some hundreds.

Of K = J D⁻² Jᵀ the eigenvalues often fall so fast that a few hundred of thousands exceed λ, as for
residuals of differential equations. A partial Cholesky decomposition K ≈ FᵀF of s columns, each
drawn with a probability in proportion to what its diagonal still lacks, finds nearly as much of K
as its leading eigenvectors, and takes only those columns. With it as the preconditioner conjugate
gradients solve

    (K + λI) w = r,   w ↦ (FᵀF + λI)⁻¹ w = (w − Fᵀ(FFᵀ + λI)⁻¹ F w) / λ,

in few iterations, since the condition is at most 1 + tr(K − FᵀF) / λ, and that trace is known.
Products with K come from the factors of layers. F serves every λ at its point.

References: Chen, Epperly, Tropp & Webber, Randomly pivoted Cholesky: practical approximation of a
kernel matrix with few entry evaluations (2023), algorithm 2; Díaz, Epperly, Frangella, Tropp &
Webber, Robust, randomized preconditioning for kernel ridge regression (2023), §2.
"""

import torch
from torch import Tensor

from ..rows.base import Rows
from ..rows.layers import LayerRows
from .conjugate_gradients import Enough, iterated

ENOUGH = 1024  # rows from which K as a whole costs more than calls do
BLOCK = 32  # part of the rows that are drawn at once
MOST = 8  # part of the rows with whose columns K as a whole is not much more
NEAR = 100  # tr(K − FᵀF) / λ with which some iterations are enough
FAR = 1e3  # the same, beyond which they are too many
LEFT = 1e-4  # share of the length of a step that its error may be
LEAST = 1e-9  # the same of the right-hand side, where hardly anything of it moves a parameter
LIMIT = 40  # iterations that cost about as much as K as a whole
TRIES = 4  # to raise what is added to the diagonal of a block of round-off


def pivoted(rows: Rows, squares: Tensor) -> "Pivoted | None":
    """The decomposition, where it may spare most of K; None: it does not.

    The host looks at how far it has come, which on other devices would wait for them.
    """
    if not isinstance(rows, LayerRows) or rows.shape[0] < ENOUGH or rows.like.device.type != "cpu":
        return None
    return Pivoted(rows, squares)


class Pivoted:
    """F with FᵀF ≈ K = J D⁻² Jᵀ, as much of it as a λ has asked for.

    Args:
        rows: J.
        squares: D², (n,), one number in each parameter.
    """

    def __init__(self, rows: LayerRows, squares: Tensor) -> None:
        self.rows, self.squares = rows, squares
        self.missing = rows.squared_lengths(squares)  # (m,), the diagonal of K − FᵀF
        self.rounding = torch.finfo(self.missing.dtype).eps * self.missing.sum()
        self.root = rows.like.new_zeros(0, len(self.missing))  # F, (s, m)
        self.generator = torch.Generator().manual_seed(0)
        self.enough = bool(self.rounding.isfinite())  # whether more columns may help

    def solved(self, rhs: Tensor, damping: Tensor) -> Tensor | None:
        """(K + λI)⁻¹ rhs, (m,); None where K as a whole is the better way."""
        if not (bool(damping > 0) and self._near(float(damping))):
            return None
        level = damping.to(rhs.dtype)
        core = self.root @ self.root.mT
        core.diagonal().add_(level)
        triangle, info = torch.linalg.cholesky_ex(core)
        if bool(info):
            return None

        def divide(w: Tensor) -> Tensor:
            inner = torch.cholesky_solve((self.root @ w)[:, None], triangle)[:, 0]
            return (w - self.root.mT @ inner) / level

        def product(w: Tensor) -> Tensor:
            return self.rows.times(self.rows.transposed_times(w) / self.squares) + level * w

        # a remainder ρ leaves ρᵀ(K + λI)⁻¹K(K + λI)⁻¹ρ ≤ ρᵀ(FᵀF + λI)⁻¹ρ of the square of the step
        w = divide(rhs)
        step, size = (self.root @ w).square().sum(), torch.linalg.vecdot(rhs, w)
        enough = Enough(torch.maximum(LEFT**2 * step, LEAST**2 * size), torch.zeros_like(size))
        found = iterated(product, rhs, divide, enough, LIMIT)
        return found.step if bool(found.reached) else None

    def _near(self, damping: float) -> bool:
        """Whether FᵀF is near enough to K for a λ, after as many columns as that takes."""
        m = len(self.missing)
        block = m // BLOCK
        # of no columns the length of a step could not be told
        while (before := float(self.missing.sum())) > NEAR * damping or not len(self.root):
            left = m // MOST - len(self.root)
            if not self.enough or left < block:
                return before <= FAR * damping
            first = len(self.root) == 0
            self.enough = self._grow(block)
            # what each block takes off falls from one to the next
            after = float(self.missing.sum())
            if not first and after * (after / before) ** (left // block - 1) > FAR * damping:
                return False
        return True

    def _grow(self, count: int) -> bool:
        """Take so many columns more; whether there were any that are not of round-off."""
        ends = torch.tensor([block.samples * block.residuals for block in self.rows.blocks])
        shares = self.missing.split(ends.tolist())
        weights = torch.cat(
            [
                share.view(block.samples, block.residuals).sum(1)
                for share, block in zip(shares, self.rows.blocks, strict=True)
            ]
        )
        count = max(1, count * len(weights) // len(self.missing))
        count = min(count, int((weights > self.rounding).sum()))
        if count == 0:
            return False
        drawn = torch.multinomial(weights, count, generator=self.generator).sort().values
        some, places = self.rows.of_samples(drawn)
        columns = self.rows.products(some, self.squares) - self.root.mT @ self.root[:, places]
        core = columns[places]
        shift = self.rounding
        for _ in range(TRIES):
            eye = torch.eye(len(core), dtype=core.dtype)
            triangle, info = torch.linalg.cholesky_ex(core + shift * eye)
            if not bool(info):
                break
            shift = 100 * shift
        else:
            return False
        new = torch.linalg.solve_triangular(triangle, columns.mT, upper=False)
        self.root = torch.cat([self.root, new])
        self.missing = (self.missing - new.square().sum(0)).clamp(min=0)
        self.missing[places] = 0
        return True
