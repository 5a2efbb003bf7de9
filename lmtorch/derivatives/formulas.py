"""Formulas of torch that are wrong, without an error, in nested derivatives; what replaces them.

Every operator of torch 2.13 that has derivatives was compared with differences of exact gradients,
at points of no special kind (others were reported by users, and `compared.py` looks for more):
forward mode twice, forward mode over reverse mode and below it, and reverse mode three times.
Reverse mode twice is right for all of them, and so is forward mode over it while autograd records.
The exceptions are:

- some formulas of forward mode are wrong at first order (`WRONG`);
- some formulas of forward mode treat what was kept from the forward pass (the factor of a matrix,
  say) as a constant (`FROZEN`): they are right once, and wrong when differentiated again. An
  `autograd.Function` with a `jvp` is one of them, as torch runs that function with forward mode
  switched off, so that an outer derivative would be zero;
- norms with a kernel of their own do the same in forward mode and in the backward pass of their
  backward pass, so that third derivatives are wrong in reverse mode, too. They are replaced by the
  plain operators that they are made of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from .._modes import FunctionMode
from ..calculus.rules import name_of
from .bends import refuse_batch_norm

WRONG = frozenset(
    {
        "cholesky_inverse",
        "cholesky_solve",
        "logcumsumexp",
        "scatter_reduce",
        "scatter_reduce_",
        "triangular_solve",
        # zero where the matrix is singular
        "det",
        "linalg_det",
        "_linalg_det",
    }
)
_FACTORED = (
    "det",
    "eig",
    "eigvals",
    "householder_product",
    "slogdet",
    "solve",
    "solve_ex",
    "tensorsolve",
)
_NORMS = ("batch_norm", "instance_norm", "layer_norm", "native_batch_norm", "native_layer_norm")
FROZEN = frozenset(
    {prefix + name for prefix in ("", "linalg_", "_linalg_") for name in _FACTORED}
    | {"custom_function_call", "logdet", "orgqr", *_NORMS}
)


def layer_norm(
    z: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm, in plain operators."""
    dims = tuple(range(-len(normalized_shape), 0))
    normed = _normed(z, dims, eps)
    normed = normed if weight is None else normed * weight
    return (normed if bias is None else normed + bias).to(z.dtype)


def batch_norm(
    z: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm in plain operators; running statistics move as they do in torch's own."""
    if training:
        if running_mean is not None:
            with torch.no_grad():
                functional.batch_norm(
                    z.detach(), running_mean, running_var, None, None, True, momentum, eps
                )
        normed = _normed(z, tuple(d for d in range(z.ndim) if d != 1), eps)
    else:
        assert running_mean is not None
        assert running_var is not None
        normed = (z - _channels(running_mean, z)) * _channels((running_var + eps).rsqrt(), z)
    return _scaled(normed, z, weight, bias)


def instance_norm(
    z: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Instance norm in plain operators; running statistics move as they do in torch's own."""
    if not use_input_stats:
        return batch_norm(z, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        with torch.no_grad():
            functional.instance_norm(
                z.detach(), running_mean, running_var, None, None, True, momentum, eps
            )
    return _scaled(_normed(z, tuple(range(2, z.ndim)), eps), z, weight, bias)


def _normed(z: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """(z − mean) / √(variance + ε), half precision computed in single as torch's kernels do."""
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    centred = z - z.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


def _scaled(normed: Tensor, z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    normed = normed if weight is None else normed * _channels(weight, z)
    return (normed if bias is None else normed + _channels(bias, z)).to(z.dtype)


def _channels(of_each: Tensor, z: Tensor) -> Tensor:
    """Reshape one number for each channel so that it broadcasts to z."""
    return of_each.reshape(1, -1, *(1,) * (z.ndim - 2))


def _whole_cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
    """The linear layer, then the loss: fused in chunks, they have no second derivatives."""
    result: Tensor = functional.linear_cross_entropy(*args, **kwargs | {"options": None})
    return result


PLAINLY: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.layer_norm: layer_norm,
    functional.batch_norm: batch_norm,
    functional.instance_norm: instance_norm,
}
if hasattr(functional, "linear_cross_entropy"):  # from torch 2.12 or 2.13 on
    PLAINLY[functional.linear_cross_entropy] = _whole_cross_entropy


class Plainly(FunctionMode):
    """Evaluates a function in operators whose derivatives are right at all orders."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        called: Callable[..., Any] = PLAINLY.get(func, func)
        return called(*args, **(kwargs or {}))


def frozen(name: str) -> str:
    """Say what is wrong with an operator of `FROZEN`."""
    return f"torch's forward formula of {name!r} is not differentiable itself"


class Constants(FunctionMode):
    """Stops tangents where reverse mode would stop gradients, and refuses wrong forward formulas.

    Args:
        again: whether the result may be differentiated again.
        nested: whether a transform of torch.func around it will do that.
        batch: how many leading dimensions are independent samples.
    """

    def __init__(self, again: bool, nested: bool, batch: int = 0) -> None:
        super().__init__()
        self.batch = batch
        self.again = again
        self.nested = nested
        self.frozen = ""  # an operator that was met and must not be differentiated again

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self.batch and name_of(func) == "batch_norm":
            refuse_batch_norm(*args, **(kwargs or {}))
        if self.again and func in PLAINLY:
            with self:
                return PLAINLY[func](*args, **(kwargs or {}))
        name = name_of(func).partition(".")[0]  # an overload's name follows it
        if name in WRONG:
            raise RuntimeError(f"torch's forward formula of {name!r} is wrong")
        if name in FROZEN:
            if self.nested:
                raise RuntimeError(frozen(name))
            self.frozen = name
        with forward_ad._set_fwd_grad_enabled(
            name not in ("detach", "data") and torch.is_grad_enabled()
        ):
            return args[0].detach() if name == "data" else func(*args, **(kwargs or {}))
