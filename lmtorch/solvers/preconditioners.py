"""What conjugate gradients divide by: approximations M of JᵀJ for which M + λD² is easy to invert.

The nearer M is to JᵀJ, or the fewer directions it is far from it in, the fewer iterations a step
takes. M belongs to a point and serves every λ there. It changes how fast a step is found, and what
of it is found first, but not the equations.

References: Nocedal & Wright, Numerical Optimization (2006), §5.1; Frangella, Tropp & Udell,
Randomized Nyström preconditioning (2023), algorithms 2.1 and 5.1; Martens & Grosse, Optimizing
neural networks with Kronecker-factored approximate curvature (2015).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._errors import InputError
from ..arrays import where
from ..linearizations.products import ByProducts
from ..rows.factors import Weight
from ..rows.layers import LayerRows

Divide = Callable[[Tensor], Tensor]  # w (..., n) -> (M + λD²)⁻¹ w, up to a factor


class Prepared(Protocol):
    """M at one point.

    It may have a method `grown`, from the iterations that were made to an M that is worth making
    after so many, or None.
    """

    def at(self, damping: Tensor) -> Divide:
        """w ↦ (M + λD²)⁻¹ w, up to a factor, for λ (...,), positive."""


class Preconditioner(Protocol):
    """A choice of M."""

    def prepare(self, model: ByProducts, scale: Tensor) -> Prepared:
        """M at the point of a linear model, with D = `scale` (..., n), positive."""


class Diagonal(NamedTuple):
    """A diagonal M."""

    squares: Tensor  # (..., n)
    scale: Tensor  # D², (..., n)

    def at(self, damping: Tensor) -> Divide:
        """Divide by M + λD²."""
        divisor = self.squares + damping[..., None].to(self.scale.dtype) * self.scale
        return lambda w: w / divisor


@dataclass(frozen=True)
class Scales:
    """M = 0: only D² is divided by. It costs nothing, and suits parameters of like influence."""

    def prepare(self, model: ByProducts, scale: Tensor) -> Diagonal:
        """D² alone."""
        return Diagonal(torch.zeros_like(scale), scale.square())


@dataclass(frozen=True)
class Jacobi:
    """The diagonal of JᵀJ: for parameters whose influence differs by orders of magnitude.

    The linear model has it already: exactly where rows or their factors are known, otherwise as an
    estimate from eight products, each entry good to a factor of about two.
    """

    def prepare(self, model: ByProducts, scale: Tensor) -> Diagonal:
        """The squares of the column norms."""
        return Diagonal(model.column_norms.square(), scale.square())


@dataclass(frozen=True)
class Nystrom:
    """The leading eigenvectors of D⁻¹JᵀJD⁻¹, from products with random vectors.

    For spectra that fall fast, as those of networks and inverse problems do: what is left of the
    condition is that of the eigenvalues beyond `rank`. It takes `rank` products at every point and
    keeps as many vectors of n numbers.

    Args:
        rank: random vectors.
        seed: of them.
    """

    rank: int = 20
    seed: int = 0

    def prepare(self, model: ByProducts, scale: Tensor) -> "LowRank":
        """Eigenvectors and eigenvalues, with the shift that makes them stable taken off again."""
        n = scale.shape[-1]
        rank = min(self.rank, n)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn((n, rank), generator=generator, device="cpu").to(scale)
        moving = (model.column_norms > 0)[..., None]
        test = torch.linalg.qr(drawn * moving).Q * moving
        columns = [model.normal_times(v / scale) / scale for v in test.unbind(-1)]
        image = torch.stack(columns, -1)
        size = torch.linalg.matrix_norm(image)[..., None, None]
        shift = torch.finfo(scale.dtype).eps * size
        image = image + shift * test
        core = test.mT @ image
        # zero columns leave fewer directions than asked for: those of length zero get an empty row
        lonely = torch.diag_embed((core.diagonal(dim1=-2, dim2=-1) <= 0).to(core.dtype))
        triangle, _ = torch.linalg.cholesky_ex((core + core.mT) / 2 + lonely)
        root = torch.linalg.solve_triangular(triangle.mT, image, upper=True, left=False)
        usable = torch.isfinite(root).all(-1).all(-1)[..., None, None]
        vectors, lengths, _ = torch.linalg.svd(where(usable, root, 0.0), full_matrices=False)
        values = (lengths.square() - shift[..., 0]).clamp_min(0)
        return LowRank(vectors * moving, values, scale)


class LowRank(NamedTuple):
    """D U Λ Uᵀ D."""

    vectors: Tensor  # U, (..., n, rank), orthonormal
    values: Tensor  # Λ, (..., rank), falling
    scale: Tensor  # D, (..., n)

    def at(self, damping: Tensor) -> Divide:
        """Λ + λ along the vectors, and what the last of them has everywhere else."""
        wide = damping[..., None].to(self.scale.dtype)
        share = (self.values[..., -1:] + wide) / (self.values + wide) - 1

        def divide(w: Tensor) -> Tensor:
            w = w / self.scale
            along = (w[..., None, :] @ self.vectors)[..., 0, :]
            return (w + (self.vectors @ (share * along)[..., None])[..., 0]) / self.scale

        return divide


@dataclass(frozen=True)
class KroneckerFactors:
    """The blocks of linear layers as Kronecker products, Σ G Gᵀ ⊗ mean A Aᵀ; the rest by Jacobi.

    For networks whose rows are known by the factors of their layers, the inputs A and the gradients
    G in the outputs. In a layer p × q it takes the eigenvectors of a p × p and a q × q matrix, and
    2 p q (p + q) products an iteration.
    """

    def prepare(self, model: ByProducts, scale: Tensor) -> "Kronecker":
        """The factors, summed over samples and uses.

        Raises:
            InputError: rows are not known by factors.
        """
        here = isinstance(model.blocks, tuple) and model.across is None
        blocks = []
        for rows in model.blocks if here else (None,):
            if not isinstance(rows, LayerRows):
                raise InputError(
                    "KroneckerFactors needs a model of linear layers on samples, "
                    "step(closure, *batch), in one process, whose rows are known by their factors. "
                    "Leave preconditioner out, or choose Nystrom()."
                )
            blocks += list(rows.blocks)
        found: dict[int, list[Weight]] = {}
        for block in blocks:
            for factor in block.factors:
                if isinstance(factor, Weight):
                    found.setdefault(factor.start, []).append(factor)
        layers = tuple(_layer(weights, model.factor) for weights in found.values())
        return Kronecker(layers, model.column_norms.square(), scale.square())


class KroneckerLayer(NamedTuple):
    """The block of a weight, and of a bias used with it: G ⊗ A by eigenvectors."""

    weight: int  # the first column
    bias: int | None
    outputs: Tensor  # eigenvectors of G, (p, p)
    inputs: Tensor  # eigenvectors of A, (q, q), or (q + 1, q + 1) with the bias
    values: Tensor  # eigenvalues of G ⊗ A, (p, q) or (p, q + 1)


def _layer(weights: list[Weight], factor: float) -> KroneckerLayer:
    """The block of a weight from its uses in all terms."""
    left = torch.cat([w.left.flatten(0, 2) for w in weights])
    right = torch.cat([w.right.flatten(0, 1) for w in weights])
    bias = weights[0].bias if all(w.bias == weights[0].bias for w in weights) else None
    if bias is not None:
        right = torch.cat([right, right.new_ones(len(right), 1)], 1)
    of_inputs, inputs = torch.linalg.eigh(right.mT @ right / len(right))
    of_outputs, outputs = torch.linalg.eigh(factor * (left.mT @ left))
    values = of_outputs.clamp_min(0)[:, None] * of_inputs.clamp_min(0)
    return KroneckerLayer(weights[0].start, bias, outputs, inputs, values)


class Kronecker(NamedTuple):
    """A block for each weight, and a diagonal."""

    layers: tuple[KroneckerLayer, ...]
    squares: Tensor  # (n,), the diagonal of JᵀJ
    scale: Tensor  # D², (n,)

    def at(self, damping: Tensor) -> Divide:
        """Each block by its eigenvectors, with the mean of D² in it."""
        added = damping.to(self.scale.dtype) * self.scale
        diagonal, moving = self.squares + added, self.squares > 0
        places = [self._places(layer) for layer in self.layers]
        divisors = [
            layer.values + added[place].mean()
            for layer, place in zip(self.layers, places, strict=True)
        ]

        def divide(w: Tensor) -> Tensor:
            found = w / diagonal
            for layer, place, divisor in zip(self.layers, places, divisors, strict=True):
                turned = layer.outputs.mT @ w[place] @ layer.inputs / divisor
                found[place] = layer.outputs @ turned @ layer.inputs.mT
            return where(moving, found, w / diagonal)

        return divide

    def _places(self, layer: KroneckerLayer) -> Tensor:
        """Where the entries of the block stand in x, (p, q) or (p, q + 1)."""
        p, q = layer.values.shape
        if layer.bias is None:
            count = torch.arange(p * q, device=self.scale.device)
            return layer.weight + count.view(p, q)
        count = torch.arange(p * (q - 1), device=self.scale.device)
        own = torch.arange(p, device=self.scale.device)[:, None]
        return torch.cat([layer.weight + count.view(p, q - 1), layer.bias + own], 1)
