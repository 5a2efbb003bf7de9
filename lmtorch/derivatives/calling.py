"""What operators ask of a function and its inputs, and the way on where a mode of differentiation is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack

from .. import _memory
from .._autodiff import history
from .._errors import InputError
from .._modules import batch_statistics
from ..residuals.watching import Touched
from .formulas import KERNELS, Constants, Plainly

Function = Callable[[Tensor], Tensor]
T = TypeVar("T")


class RefusedError(InputError):
    """A mode that was asked for by name does not work."""


FEW = 16  # directions that are taken at once without asking how much memory they need
# bytes of as many gradients, beyond which that is asked for a reverse pass nevertheless
LARGE = 16 * 2**20


def transformed() -> bool:
    """Whether we are inside vmap, grad, jvp or another transform of torch.func."""
    return bool(torch._C._are_functorch_transforms_active())


def followed() -> bool:
    """Whether what is found may be differentiated again."""
    return torch.is_grad_enabled() or transformed()


@dataclass(frozen=True)
class Call:
    """A function with the point at which it is differentiated.

    Args:
        function: as a user wrote it, for a batch.
        x: (*batch, *in).
        batch: how many dimensions of x are samples.
        again: whether what is found may be differentiated again.
    """

    function: Function
    x: Tensor
    batch: int
    again: bool = field(default_factory=followed)

    @property
    def samples(self) -> torch.Size:
        """Shape of the batch."""
        return self.x.shape[: self.batch]

    @property
    def inputs(self) -> torch.Size:
        """Shape of one sample's input."""
        return self.x.shape[self.batch :]

    @property
    def size(self) -> int:
        """d, numbers in one sample's input."""
        return self.inputs.numel()

    def __call__(self, x: Tensor) -> Tensor:
        """The function, held to its shape, in operators that may be differentiated as often as need be."""
        y = self.held(self.function(x))
        if not self.again:
            return y
        with torch._C.DisableTorchFunction():  # Taylor mode would look at the question
            fused = any(kernel in node.name() for node in history(y) for kernel in KERNELS)
        if not fused:
            return y
        with Plainly():
            return self.held(self.function(x))

    def held(self, y: Any) -> Tensor:
        """What the function returned, if it is a floating tensor with the samples in front.

        Raises:
            InputError: it is not.
        """
        if not isinstance(y, Tensor):
            raise InputError(
                f"the function returned {type(y).__name__} where a tensor was expected. Pick the "
                "output that is to be differentiated: lambda x: f(x)[0], say."
            )
        if not y.is_floating_point():
            raise InputError(
                f"the function returned {y.dtype}, which has no derivatives: "
                "return a floating dtype."
            )
        if y.shape[: self.batch] != self.samples:
            raise InputError(
                f"the function returned shape {tuple(y.shape)} for x of shape "
                f"{tuple(self.x.shape)}: the first {self.batch} dimension(s) of both must be the "
                "samples. For a function of a single sample pass torch.func.vmap(f); for a "
                "derivative across the whole of x use batch_dims=0."
            )
        return y

    def outputs(self, y: Tensor) -> torch.Size:
        """Shape of one sample's output."""
        return y.shape[self.batch :]

    def directions(self, chosen: slice | Sequence[int] = slice(None)) -> Tensor:
        """Unit vectors of a sample's input, the same for all samples: (c, 1 …, *in), to be expanded."""
        units = torch.eye(self.size, dtype=self.x.dtype, device=self.x.device)[chosen]
        return units.reshape(-1, *(1,) * self.batch, *self.inputs)


def checked(function: Any, x: Any, batch_dims: Any, chunk_size: Any = None) -> Call:
    """The call, or an error that says what is wrong with it.

    Raises:
        InputError: it cannot be differentiated as asked.
    """
    check_function(function)
    if not isinstance(x, Tensor):  # whatever a caller without a type checker passes
        raise InputError(
            f"x must be a tensor, and is {type(x).__name__}: torch.as_tensor(x) makes one."
        )
    if not x.is_floating_point():
        raise InputError(
            f"x is {x.dtype}, which has no derivatives. Convert it: x.double() or x.float()."
        )
    check_kind(x, "x")
    if (
        not transformed()
        and forward_ad._current_level >= 0
        and forward_ad.unpack_dual(x).tangent is not None
    ):
        raise InputError(
            "x carries a tangent of torch.autograd.forward_ad, which would be "
            "lost: use torch.func.jvp."
        )
    if (
        isinstance(batch_dims, bool)
        or not isinstance(batch_dims, int)
        or not 0 <= batch_dims <= x.ndim
    ):
        raise InputError(
            f"batch_dims={batch_dims!r} does not fit x of shape {tuple(x.shape)}: it is the number "
            "of leading dimensions that are samples, from 0 (none: x is one input) to all of them."
        )
    if x.shape[batch_dims:].numel() == 0:
        raise InputError(
            f"there is nothing to differentiate in: {'a sample of ' * bool(batch_dims)}x has no "
            f"entries, shape {tuple(x.shape)} with batch_dims={batch_dims}."
        )
    check_chunk(chunk_size)
    if batch_dims and isinstance(function, nn.Module):
        refuse_coupling(function)
    return Call(function, x, batch_dims)


def check_kind(tensor: Tensor, name: str) -> None:
    """A tensor that autograd can follow.

    Raises:
        InputError: it is sparse, or was made in inference mode.
    """
    if tensor.layout != torch.strided:
        raise InputError(
            f"{name} is {tensor.layout}: derivatives are in dense tensors, "
            f"{name}.to_dense() makes one."
        )
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise InputError(
            f"{name} was made under torch.inference_mode(), and autograd cannot follow it: "
            f"{name}.clone() can be used."
        )


def check_function(function: Any) -> None:
    """Something that can be called.

    Raises:
        InputError: it cannot.
    """
    if not callable(function):
        raise InputError(
            f"the first argument must be a function or module, and is {type(function).__name__}."
        )


def refuse_coupling(module: nn.Module) -> None:
    """A layer that mixes samples has no derivatives per sample.

    Raises:
        InputError: a BatchNorm in training mode.
    """
    layer = batch_statistics(module)
    if layer is not None:
        raise InputError(
            f"{layer}, makes every output depend on all samples of the batch: there are no "
            "derivatives per sample. Use model.eval(), a norm without batch statistics (GroupNorm, "
            "LayerNorm), or batch_dims=0 for the derivatives across the whole batch."
        )


def check_chunk(chunk_size: Any) -> None:
    """A positive number, or None.

    Raises:
        InputError: something else.
    """
    if chunk_size is not None and (
        isinstance(chunk_size, bool) or not (isinstance(chunk_size, int) and chunk_size > 0)
    ):
        raise InputError(
            f"chunk_size={chunk_size!r} must be a positive number of directions or samples, or "
            "None."
        )


def chunk_of(call: Call, directions: int, chunk_size: int | None, least: int = FEW) -> int:
    """How many directions to take at once: what is asked for, or what stays in cache and in the memory budget.

    At least so many: each chunk of a forward pass evaluates the function anew, one of
    a reverse pass does not.
    """
    large = least < FEW and directions * call.x.numel() * call.x.element_size() > LARGE
    return at_once(
        lambda: call(call.x),
        directions,
        chunk_size,
        call.x.device,
        few=0 if large else FEW,
        least=least,
    )


def at_once(
    evaluate: Callable[[], Any],
    directions: int,
    chunk_size: int | None,
    device: torch.device,
    few: int = FEW,
    least: int = FEW,
) -> int:
    """The same, of anything that is evaluated for each direction; up to `few` of them without a look at its memory."""
    if chunk_size is not None or transformed():
        return min(directions, chunk_size or directions)
    if directions <= few:
        return directions
    with torch.no_grad(), Touched() as touched:
        evaluate()
    return min(directions, max(least, _memory.stream_rows(2 * touched.bytes, device)))


def first_that_works(ways: Sequence[tuple[str, Callable[[], T]]], mode: str) -> T:
    """The result of the first way that is not refused, or of the one that is asked for by name.

    Torch says by an exception that an operator has no forward formula or no batching rule,
    and there are many kinds.

    Raises:
        InputError: an unknown mode, or inference mode.
        RefusedError: a mode that was asked for by name.
        OutOfMemoryError: no other mode would need less.
    """
    # a path that autograd does not record would be a silent zero
    if torch.is_inference_mode_enabled():
        raise InputError(
            "under torch.inference_mode() derivatives cannot be had. Use torch.no_grad() instead."
        )
    if not transformed():
        return _first_that_works(ways, mode)
    # outer derivatives of forward mode are not always right; those of reverse mode
    # are, while autograd records
    ways = sorted(ways, key=lambda way: way[0] == "forward")
    with torch.set_grad_enabled(torch.is_grad_enabled() or not _silenced()):
        return _first_that_works(ways, mode)


def _silenced() -> bool:
    """Whether autograd's records were switched off inside a function that is differentiated, and not round it all."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    modes = _get_current_function_mode_stack()
    # both had switched them on for the function
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in levels) or any(
        isinstance(mode, Constants) for mode in modes
    )


def _first_that_works(ways: Sequence[tuple[str, Callable[[], T]]], mode: str) -> T:
    names = [name for name, _ in ways]
    if mode == "auto":
        for _, way in ways[:-1]:
            try:
                return way()
            except RefusedError:  # of another operator inside the function
                continue
            except (InputError, torch.OutOfMemoryError):
                raise
            except Exception:  # there are many kinds
                continue
        return ways[-1][1]()  # the plainest: what it says is the function's own fault
    if mode not in names:
        raise InputError(
            f"mode={mode!r} is not known here. Use one of {', '.join(map(repr, ('auto', *names)))}."
        )
    try:
        return dict(ways)[mode]()
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise RefusedError(
            f"mode={mode!r} does not work for this function ({first_line(error)}). "
            "mode='auto' takes the next that does."
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, or what it is."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
