"""Every operator that has a rule, as a function of some numbers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lmtorch.calculus.special import voigt_profile

F64 = torch.float64


def points(*shape: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    """Between 0.5 and 1.5, where roots, logarithms and quotients are smooth."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=F64).add(0.5).to(dtype)


Rule = Callable[[Tensor, Tensor], Tensor]

W = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=F64)
ROW = points(3, seed=4)
KERNEL = torch.randn(2, 1, 2, generator=torch.Generator().manual_seed(5), dtype=F64)
BIAS = points(2, seed=6)


def bent(x: Tensor) -> Tensor:
    """z (b, 3) with first and second derivatives of all kinds; between 0.5 and 4.5."""
    return x * x + x[:, :1] * x


def constant(x: Tensor) -> Tensor:
    """(b, 3), another row for no sample: a constant in the same shape."""
    return ROW.expand(len(x), 3)


def paired(x: Tensor, z: Tensor) -> Tensor:
    """z + ix."""
    return torch.view_as_complex(torch.stack([z, x], -1))


# by the name under which torch shows the operator: of x and z = bent(x), each (b, 3)
LINEAR: dict[str, Rule] = {
    "T": lambda x, z: z.T.T,
    "broadcast_tensors": lambda x, z: torch.broadcast_tensors(z, z[:, :1] * x[:, :1])[1],
    "broadcast_to": lambda x, z: torch.broadcast_to(z[:, :1], z.shape),
    "chunk": lambda x, z: z.chunk(2, 1)[0],
    "clone": lambda x, z: z.clone(),
    "contiguous": lambda x, z: z.mT.contiguous().mT,
    "cumsum": lambda x, z: z.cumsum(-1),
    "double": lambda x, z: z.double(),
    "expand": lambda x, z: z[:, None].expand(-1, 2, -1),
    "flatten": lambda x, z: z[:, :, None].flatten(1),
    "flip": lambda x, z: z.flip(1),
    "float": lambda x, z: z.float(),
    "imag": lambda x, z: paired(x, z).imag,
    "mT": lambda x, z: z[:, None].mT,
    "mean": lambda x, z: z.mean(1),
    "movedim": lambda x, z: z[:, None].movedim(1, -1),
    "narrow": lambda x, z: z.narrow(1, 1, 2),
    "permute": lambda x, z: z[:, None].permute(0, 2, 1),
    "ravel": lambda x, z: z.ravel().reshape(-1, 3),
    "real": lambda x, z: paired(x, z).real * 1.0,
    "repeat": lambda x, z: z.repeat(1, 2),
    "reshape": lambda x, z: z.reshape(-1, 1, 3),
    "roll": lambda x, z: z.roll(1, -1),
    "select": lambda x, z: z.select(1, 1),
    "split": lambda x, z: z.split(2, dim=1)[1],
    "squeeze": lambda x, z: z[:, :, None].squeeze(-1),
    "sum": lambda x, z: z.sum(-1, keepdim=True),
    "swapaxes": lambda x, z: z[:, None].swapaxes(1, 2),
    "t": lambda x, z: z.t().t(),
    "tile": lambda x, z: z.tile((1, 2)),
    "to": lambda x, z: z.to(z.dtype),
    "transpose": lambda x, z: z[:, None].transpose(-1, -2),
    "unbind": lambda x, z: z.unbind(1)[2],
    "unflatten": lambda x, z: z.unflatten(1, (3, 1)),
    "unsqueeze": lambda x, z: z.unsqueeze(-1),
    "view_as_complex": lambda x, z: torch.view_as_real(paired(x, z)),
    "view_as_real": lambda x, z: torch.view_as_real(paired(x, z) * 1.0),
    "view": lambda x, z: z.view(-1).view(-1, 3),
}


def shifted(name: str) -> Rule:
    """An elementwise function of z, on both sides of zero where it may be."""
    f = F.logsigmoid if name == "log_sigmoid" else getattr(torch, name, None) or getattr(F, name)
    if name in INSIDE:
        return lambda x, z: f(z / 5)
    return lambda x, z: f(z + ABOVE.get(name, -2))


ABOVE = {
    **dict.fromkeys(["log", "log10", "log1p", "log2", "rsqrt", "sqrt", "lgamma"], 0),
    # of sinc torch's formulas lose digits near zero: 1e-12 at 0.01
    **dict.fromkeys(("acosh", "arccosh", "sinc"), 1),
}
INSIDE = [
    "acos",
    "arccos",
    "arcsin",
    "arctanh",
    "asin",
    "atanh",
    "erfinv",
    "logit",
]  # (−1, 1), or (0, 1)
NAMES = (
    "abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh "
    "celu cos cosh elu erf erfc erfinv exp exp2 expm1 gelu hardtanh leaky_relu lgamma log log10 "
    "log1p log2 log_sigmoid logit mish reciprocal relu rsqrt selu sigmoid silu sin sinc sinh "
    "softplus softsign sqrt square tan tanh tanhshrink"
)
SPECIAL = "erf erfc erfcx exp2 expit expm1 log1p"
ELEMENTWISE: dict[str, Rule] = {name: shifted(name) for name in NAMES.split()}


def special(name: str) -> Rule:
    """A function of `torch.special`."""
    f = getattr(torch.special, name)
    return lambda x, z: f(z if name == "log1p" else z - 2)


OTHER: dict[str, Rule] = {
    **{f"special_{name}": special(name) for name in SPECIAL.split()},
    "clamp": lambda x, z: z.clamp(min=1.0, max=2.0) * z,
    "clip": lambda x, z: z.clip(1.0, 2.0) * z,
    "special_sinc": lambda x, z: torch.special.sinc(z + 1),
    "pow": lambda x, z: z**2.5,
    "prod": lambda x, z: z.prod(1),
    "__rpow__": lambda x, z: 2**z,
    "atan2": lambda x, z: torch.atan2(z, x) * torch.atan2(ROW, z) * z.atan2(ROW),
    "arctan2": lambda x, z: torch.arctan2(z - 2, x),
    "hypot": lambda x, z: torch.hypot(z, x) * torch.hypot(ROW, z),
    "logaddexp": lambda x, z: torch.logaddexp(z, x),
    "voigt_profile": lambda x, z: voigt_profile(z - 2, x, ROW) * voigt_profile(ROW, z - 2, x),
    "maximum": lambda x, z: torch.maximum(z, x + 1) * torch.maximum(z, ROW),
    "minimum": lambda x, z: torch.minimum(z, x + 1) * torch.minimum(ROW, z),
    "add": lambda x, z: torch.add(z, x, alpha=2),
    "sub": lambda x, z: torch.sub(x, z, alpha=3),
    "subtract": lambda x, z: torch.subtract(z, 1),
    "rsub": lambda x, z: torch.rsub(z, x, alpha=2),
    "__rsub__": lambda x, z: 1 - z,
    "neg": lambda x, z: -z,
    "negative": lambda x, z: z.negative(),
    "mul": lambda x, z: z * z.sin(),
    "multiply": lambda x, z: torch.multiply(z, x),
    "div": lambda x, z: x / z,
    "divide": lambda x, z: torch.divide(z, 3),
    "true_divide": lambda x, z: torch.true_divide(ROW, z),
    "__rdiv__": lambda x, z: 2 / z,
    "addcmul": lambda x, z: torch.addcmul(z, z, x, value=3),
    "matmul": lambda x, z: z[:, :, None] @ x[:, None],
    "mm": lambda x, z: z.mm(W),
    "bmm": lambda x, z: torch.bmm(z[:, None], x[:, :, None]),
    "__rmatmul__": lambda x, z: z[:, :, None].__rmatmul__(W),
    "einsum": lambda x, z: torch.einsum("bi,ij->bj", z, W),
    "cat": lambda x, z: torch.cat([z, constant(x), x], -1),
    "concat": lambda x, z: torch.concat([z, z], 1),
    "concatenate": lambda x, z: torch.concatenate([z, x], 1),
    "stack": lambda x, z: torch.stack((z, constant(x)), dim=-1),
    "hstack": lambda x, z: torch.hstack([x, z]),
    "vstack": lambda x, z: torch.vstack([z, x])[: len(x)],
    "conv1d": lambda x, z: F.conv1d(z[:, None], KERNEL, BIAS, padding=1),
    "conv2d": lambda x, z: F.conv2d(z[:, None, None], KERNEL[:, :, None], BIAS),
    "conv3d": lambda x, z: F.conv3d(z[:, None, None, None], KERNEL[:, :, None, None]),
    "norm": lambda x, z: z.norm(dim=1),
    "linalg_norm": lambda x, z: torch.linalg.norm(z, dim=-1, keepdim=True),
    "linalg_vector_norm": lambda x, z: torch.linalg.vector_norm(z, dim=-1),
    "__getitem__": lambda x, z: z[:, 1:],
    "where": lambda x, z: torch.where(z > 2, z * z, x),
    "linear": lambda x, z: F.linear(z, W, ROW),
    "dropout": lambda x, z: F.dropout(z, 0.5, training=False),
    "softmax": lambda x, z: torch.softmax(z, -1),
    "layer_norm": lambda x, z: F.layer_norm(z, (3,), ROW, ROW),
}
TABLE = {**LINEAR, **ELEMENTWISE, **OTHER}
# rows of the second are those of no samples
OF_VECTORS: dict[str, Rule] = {
    "dot": lambda x, z: x[0].dot(z[1]),
    "mv": lambda x, z: x.mv(z[0]),
}
# what torch has no second derivatives of, and the same in other operators
BY_HAND: dict[str, tuple[Rule, Rule]] = {
    "cdist": (
        lambda x, z: torch.cdist(z[:, None], 9 + W[None])[:, 0],
        lambda x, z: (z[:, None] - 9 - W).square().sum(-1).sqrt(),
    ),
    "hardsigmoid": (
        lambda x, z: F.hardsigmoid(2 * z - 4) * z,
        lambda x, z: ((2 * z - 4) / 6 + 0.5).clamp(0, 1) * z,
    ),
}
