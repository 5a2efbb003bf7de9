"""What a layer makes of its input, and the rows of J in its parameters that follow from it.

    linear         z = W a + b                    Σ_t g_t a_tᵀ         over the places t of a sample
    convolution    the same at every place, of the patch that the kernel covers there
    embedding      z_t = E[i_t]                   Σ_t e(i_t) g_tᵀ      for unit vectors e
    normalisation  z_t = w ∘ x̂_t + b              Σ_t g_t ∘ x̂_t        of normalised inputs x̂
    PReLU          z = max(x, 0) + w min(x, 0)    Σ_t g_t ∘ min(x_t, 0)

g is the gradient of a residual in the layer's output z, and Σ_t g_t the row in a bias.

Reference: Goodfellow, Efficient per-example gradient computations (2015); Rochette, Manoel &
Tramel, Efficient per-example gradient computations in convolutional neural networks (2019).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..rows.factors import at_once


class Kind(Protocol):
    """How a layer acts. Gradients g are (s, k, *output of a sample)."""

    def weight_rows(self, g: Tensor, a: Tensor, weight: torch.Size) -> Tensor:
        """The rows in its weight, (s, k, *weight)."""

    def bias_rows(self, g: Tensor) -> Tensor:
        """The rows in its bias, (s, k, c)."""


@dataclass(frozen=True)
class Linear:
    """z = W a + b at all places of a sample; a: (s, ..., q)."""

    def factors(self, g: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Output gradients (s, k, t, p) and inputs (s, t, q)."""
        return _places(g, 2), _places(a, 1)

    def places(self, g: Tensor) -> int:
        """How many places of a sample there are."""
        return g.shape[2:-1].numel()

    def weight_rows(self, g: Tensor, a: Tensor, weight: torch.Size) -> Tensor:
        """Σ_t g aᵀ."""
        left, right = self.factors(g, a)
        return left.mT @ right[:, None]

    def bias_rows(self, g: Tensor) -> Tensor:
        """Σ_t g."""
        return g if g.ndim == 3 else g.flatten(2, -2).sum(2)


@dataclass(frozen=True)
class Convolution:
    """A linear layer of the patches of its input; a: (s, channels, *space)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # before and after
    dilation: tuple[int, ...]
    groups: int

    def patches(self, a: Tensor) -> Tensor:
        """What the kernel covers at each place, (s, channels · kernel, places)."""
        given = [side for pair in reversed(self.padding) for side in pair]
        seen = F.pad(a, given) if any(given) else a
        for dim, (size, stride, dilation) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True), 2
        ):
            seen = seen.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
        d = len(self.kernel)  # (s, channels, *places, *kernel)
        seen = seen.permute(0, 1, *range(2 + d, 2 + 2 * d), *range(2, 2 + d))
        return seen.flatten(2 + d).flatten(1, 1 + d)

    def factors(self, g: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Output gradients (s, k, t, p) and patches (s, t, q), of one group."""
        return g.flatten(3).mT, self.patches(a).mT

    def places(self, g: Tensor) -> int:
        """How many places the kernel has."""
        return g.shape[3:].numel()

    def weight_rows(self, g: Tensor, a: Tensor, weight: torch.Size) -> Tensor:
        """Σ_t g aᵀ, of each group of channels by itself, some samples at a time."""
        s, k = g.shape[:2]
        rows = g.new_empty(s, k, *weight)
        each = self.places(g) * a.shape[1] * weight[2:].numel()
        step = at_once(each, g.device)
        for begin in range(0, s, step):
            some = slice(begin, begin + step)
            seen = self.patches(a[some]).unflatten(1, (self.groups, -1))[:, None]
            left = g[some].flatten(3).unflatten(2, (self.groups, -1))  # (s, k, groups, p, t)
            found = rows[some].view(-1, k, *left.shape[2:4], seen.shape[3])
            torch.matmul(left, seen.mT, out=found) if k == 1 else found.copy_(left @ seen.mT)
        return rows

    def bias_rows(self, g: Tensor) -> Tensor:
        """Σ_t g."""
        return g.flatten(3).sum(-1)


@dataclass(frozen=True)
class Table:
    """Rows of a table at given places; a: (s, ...), integers."""

    padding: int | None  # the row that gets no gradient

    def factors(self, g: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Output gradients (s, k, t, q) and places (s, t)."""
        left = g.flatten(2, -2) if g.ndim > 3 else g.unsqueeze(2)
        places = a.reshape(a.shape[0], -1)
        if self.padding is not None:
            left = left * (places != self.padding)[:, None, :, None]
        return left, places

    def weight_rows(self, g: Tensor, a: Tensor, weight: torch.Size) -> Tensor:
        """Each gradient in its row of the table."""
        left, places = self.factors(g, a)
        rows = g.new_zeros(*g.shape[:2], *weight)
        return rows.scatter_add_(2, places[:, None, :, None].expand_as(left), left)

    def bias_rows(self, g: Tensor) -> Tensor:
        """A table has no bias, so that its calls name none and nobody asks for rows of it."""
        raise AssertionError("an embedding has no bias")


@dataclass(frozen=True)
class Scale:
    """z = w ∘ a + b with one weight for each channel, or for each of the last features."""

    last: int  # features are in so many last dimensions; 0: in the second

    def weight_rows(self, g: Tensor, a: Tensor, weight: torch.Size) -> Tensor:
        """Σ_t g ∘ a."""
        rows = self._summed(g * a[:, None])
        if rows.shape[2:] != weight:  # one number for all channels
            rows = rows.flatten(2).sum(2, keepdim=True)
        return rows

    def bias_rows(self, g: Tensor) -> Tensor:
        """Σ_t g."""
        return self._summed(g)

    def _summed(self, g: Tensor) -> Tensor:
        """The sum over all that is neither sample, residual nor feature."""
        if self.last:
            more = g.ndim - self.last
            return g if more == 2 else g.flatten(2, more - 1).sum(2)
        return g if g.ndim == 3 else g.flatten(3).sum(-1)


class Call(NamedTuple):
    """A call of a layer's function."""

    kind: Kind
    weight: Tensor | None
    bias: Tensor | None
    input: Tensor  # detached
    moves: bool = False  # whether the input depends on parameters


class CoupledError(Exception):
    """A layer makes of each sample something that depends on the others."""


def call_of(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Call | None:
    """A call of a function that is a layer's; None: it is not, or it is called in another way.

    Raises:
        CoupledError: samples depend on each other, as by the statistics of a batch.
    """
    known = READERS.get(function)
    if known is None:
        return None
    names, read = known
    given = dict(zip(names, args, strict=False)) | dict(keywords)
    a = given.get(names[0])
    # inside vmap a tensor stands for more than it shows
    if not isinstance(a, Tensor) or torch._C._functorch.is_functorch_wrapped_tensor(a):
        return None
    with torch.no_grad():
        call = read(given, a.detach())
    return call and call._replace(moves=a.requires_grad)


def _linear(given: Mapping[str, Any], a: Tensor) -> Call | None:
    weight = given["weight"]
    return Call(Linear(), weight, given.get("bias"), a) if weight.ndim == 2 <= a.ndim else None


def _convolution(given: Mapping[str, Any], a: Tensor) -> Call | None:
    weight, d = given["weight"], given["weight"].ndim - 2
    if a.ndim != d + 2:
        return None
    kernel = tuple(weight.shape[2:])
    stride, dilation = (_each(given.get(name, 1), d) for name in ("stride", "dilation"))
    padding = given.get("padding", 0)
    if padding == "same":
        total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        sides = tuple((both // 2, both - both // 2) for both in total)
    else:
        sides = tuple((side, side) for side in _each(0 if padding == "valid" else padding, d))
    kind = Convolution(kernel, stride, sides, dilation, given.get("groups", 1))
    return Call(kind, weight, given.get("bias"), a)


def _embedding(given: Mapping[str, Any], a: Tensor) -> Call | None:
    # the one changes the table, the other its gradient
    if given.get("max_norm") is not None or given.get("scale_grad_by_freq"):
        return None
    weight, padding = given["weight"], given.get("padding_idx")
    if padding is not None and padding < 0:
        padding += weight.shape[0]
    return Call(Table(padding), weight, None, a)


def _layer_norm(given: Mapping[str, Any], a: Tensor) -> Call:
    shape = given["normalized_shape"]
    a = F.layer_norm(a, shape, eps=given.get("eps", 1e-5))
    return Call(Scale(len(shape)), given.get("weight"), given.get("bias"), a)


def _rms_norm(given: Mapping[str, Any], a: Tensor) -> Call:
    shape = given["normalized_shape"]
    a = F.rms_norm(a, shape, eps=given.get("eps"))
    return Call(Scale(len(shape)), given.get("weight"), None, a)


def _group_norm(given: Mapping[str, Any], a: Tensor) -> Call:
    a = F.group_norm(a, given["num_groups"], eps=given.get("eps", 1e-5))
    return Call(Scale(0), given.get("weight"), given.get("bias"), a)


def _batch_norm(given: Mapping[str, Any], a: Tensor) -> Call:
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None:
        raise CoupledError("batch norm in training mode: each sample depends on the others")
    a = F.batch_norm(a, mean, variance, eps=given.get("eps", 1e-5))
    return Call(Scale(0), given.get("weight"), given.get("bias"), a)


def _instance_norm(given: Mapping[str, Any], a: Tensor) -> Call:
    if given.get("use_input_stats", True):
        a = F.instance_norm(a, eps=given.get("eps", 1e-5))
        return Call(Scale(0), given.get("weight"), given.get("bias"), a)
    return _batch_norm(given, a)


def _prelu(given: Mapping[str, Any], a: Tensor) -> Call | None:
    weight = given["weight"]
    if weight.ndim != 1 or a.ndim < 2:
        return None
    return Call(Scale(0), weight, None, a.clamp(max=0))


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_STATISTICS = ("input", "running_mean", "running_var", "weight", "bias")
Reader = Callable[[Mapping[str, Any], Tensor], Call | None]
READERS: dict[Any, tuple[tuple[str, ...], Reader]] = {
    F.linear: (("input", "weight", "bias"), _linear),
    F.conv1d: (_CONVOLUTION, _convolution),
    F.conv2d: (_CONVOLUTION, _convolution),
    F.conv3d: (_CONVOLUTION, _convolution),
    F.embedding: (
        (
            "input",
            "weight",
            "padding_idx",
            "max_norm",
            "norm_type",
            "scale_grad_by_freq",
            "sparse",
        ),
        _embedding,
    ),
    F.layer_norm: (("input", "normalized_shape", "weight", "bias", "eps"), _layer_norm),
    F.rms_norm: (("input", "normalized_shape", "weight", "eps"), _rms_norm),
    F.group_norm: (("input", "num_groups", "weight", "bias", "eps"), _group_norm),
    F.batch_norm: ((*_STATISTICS, "training", "momentum", "eps"), _batch_norm),
    F.instance_norm: ((*_STATISTICS, "use_input_stats", "momentum", "eps"), _instance_norm),
    F.prelu: (("input", "weight"), _prelu),
}


def _each(value: Any, d: int) -> tuple[int, ...]:
    """A size for each dimension of space."""
    if isinstance(value, int):
        return (value,) * d
    sizes = tuple(value)
    return sizes * d if len(sizes) == 1 else sizes


def _places(part: Tensor, lead: int) -> Tensor:
    """The places t where a layer is applied, (*lead, t, features); one if to the whole sample."""
    return part.unsqueeze(lead) if part.ndim == lead + 1 else part.flatten(lead, -2)
