"""What all operators share: checks of arguments, sizes of chunks, choice of a mode that works."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import _get_current_function_mode_stack
from torch.utils._pytree import tree_map_only

from .. import _memory
from .._errors import InputError
from .._modules import batch_statistics
from ..calculus.jets import watched
from ..residuals.watching import Operators
from .bends import BATCH, COUPLED, CURVE, FUSED, KINK, Noted, contents, coupled, note, tell
from .branches import look_at_branches
from .coupling import refuse_meeting
from .formulas import Constants, Plainly

Function = Callable[[Tensor], Tensor]
T = TypeVar("T")


class RefusedError(InputError):
    """A mode that was asked for by name does not work for this function."""


GRAD, VMAP = torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Vmap
FEW = 16  # up to so many directions are taken at once, and the memory they need is not measured
# above so many bytes of gradients that memory is measured for a reverse pass all the same
LARGE = 16 * 2**20


def transformed() -> bool:
    """Whether we are inside vmap, grad, jvp or another transform of torch.func."""
    return bool(torch._C._are_functorch_transforms_active())


def followed() -> bool:
    """Whether the result may be differentiated again."""
    return torch.is_grad_enabled() or transformed()


@dataclass(frozen=True, eq=False)  # dynamo asks for the hash of one that has no fields yet
class Call:
    """A function and the point at which it is differentiated.

    Args:
        function: the user's function, written for a batch.
        x: (*batch, *in).
        batch: how many dimensions of x are samples.
        again: whether the result may be differentiated again.
        noted: by what derivatives are zero, as far as it was seen.
        meeting: whether samples may meet in the function.
        asked: the user's function, of which `function` may be made.
    """

    function: Function
    x: Tensor
    batch: int
    again: bool = field(default_factory=followed)
    noted: Noted = field(default_factory=Noted)
    meeting: bool = False
    asked: Any = None

    @property
    def samples(self) -> torch.Size:
        """The shape of the batch."""
        return self.x.shape[: self.batch]

    @property
    def inputs(self) -> torch.Size:
        """The shape of one sample's input."""
        return self.x.shape[self.batch :]

    @property
    def size(self) -> int:
        """d, how many numbers one sample's input has."""
        return self.inputs.numel()

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate and check, in plain operators where the derivatives of fused ones are wrong."""
        y = self.held(self.function(x))
        with torch._C.DisableTorchFunction():  # Taylor mode would intercept each attribute access
            found = contents(y)
            # in Taylor mode y is a leaf
            if found & KINK or (not found & CURVE and not (y.requires_grad and y.grad_fn is None)):
                note(self.noted, y, x, self.batch == 0 and y.ndim == 0)
            if found & BATCH and self.batch and coupled(y):
                raise InputError(
                    COUPLED.format("a batch norm in training mode, within the function,")
                )
            if not (found & FUSED and self.again):
                return y
        with Plainly(), sdpa_kernel(SDPBackend.MATH):
            return self.held(self.function(x))

    def held(self, y: Any) -> Tensor:
        """Check that the function returned a floating tensor with the samples in front.

        Raises:
            InputError: it returned something else.
        """
        if not isinstance(y, Tensor):
            raise InputError(
                f"the function returned {type(y).__name__} where a tensor was expected. Pick the "
                "output that is to be differentiated: lambda x: f(x)[0], say."
            )
        if y.is_complex():
            raise InputError(
                f"the function returned {y.dtype}: derivatives are of real numbers. Return its "
                "real and imaginary parts, torch.view_as_real(f(x))."
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
        """The shape of one sample's output."""
        return y.shape[self.batch :]

    def directions(self, chosen: slice | Sequence[int] = slice(None)) -> Tensor:
        """Unit vectors in a sample's input, (c, 1 …, *in): they broadcast over the samples."""
        if not isinstance(chosen, slice) and len(chosen) == 1:  # an index with a list copies
            chosen = slice(chosen[0] % self.size, chosen[0] % self.size + 1)
        units = torch.eye(self.size, dtype=self.x.dtype, device=self.x.device)[chosen]
        return units.reshape(-1, *(1,) * self.batch, *self.inputs)


def checked(function: Any, x: Any, batch_dims: Any, chunk_size: Any = None) -> Call:
    """Check the arguments of an operator and make a `Call` of them.

    Raises:
        InputError: the function cannot be differentiated as asked.
    """
    check_function(function)
    if not isinstance(x, Tensor):  # whatever a caller without a type checker passes
        raise InputError(
            f"x must be a tensor, and is {type(x).__name__}: torch.as_tensor(x) makes one."
        )
    if x.is_complex():
        raise InputError(
            f"x is {x.dtype}: derivatives are in real numbers. Take those in its real and "
            "imaginary parts, of lambda z: f(torch.view_as_complex(z)) at torch.view_as_real(x)."
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
    return Call(function, x, batch_dims, asked=function)


def check_kind(tensor: Tensor, name: str) -> None:
    """Check that autograd can follow a tensor.

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
    """Check that the first argument can be called.

    Raises:
        InputError: it cannot.
    """
    if not callable(function):
        raise InputError(
            f"the first argument must be a function or module, and is {type(function).__name__}."
        )


def refuse_coupling(module: nn.Module) -> None:
    """Refuse a module that mixes samples: it has no derivatives per sample.

    Raises:
        InputError: a BatchNorm is in training mode.
    """
    layer = batch_statistics(module)
    if layer is not None:
        raise InputError(COUPLED.format(f"{layer},"))


def check_chunk(chunk_size: Any) -> None:
    """Check that chunk_size is a positive whole number or None.

    Raises:
        InputError: it is something else.
    """
    if chunk_size is not None and (
        isinstance(chunk_size, bool) or not (isinstance(chunk_size, int) and chunk_size > 0)
    ):
        raise InputError(
            f"chunk_size={chunk_size!r} must be a positive number of directions or samples, or "
            "None."
        )


def chunk_of(call: Call, directions: int, chunk_size: int | None, least: int = FEW) -> int:
    """How many directions of a `Call` to take at once.

    Forward passes take at least `FEW`, as each chunk evaluates the function anew; a reverse pass
    evaluates it once and may take fewer, down to `least`.
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
    """How many directions to take at once.

    That is `chunk_size` if it is given, otherwise what stays in cache and in the memory budget, but
    no less than `least`. Up to `few` directions the memory is not measured.
    """
    if chunk_size is not None or transformed():
        return min(directions, chunk_size or directions)
    if directions <= few:
        return directions
    with torch.no_grad(), Operators() as touched:
        evaluate()
    return min(directions, max(least, _memory.stream_rows(2 * touched.bytes, device)))


def answered(
    f: Function, call: Call, order: int, ways: Sequence[tuple[str, Callable[[], T]]], mode: str
) -> T:
    """What `first_that_works` finds; the user is told where it is zero by how f is written.

    Args:
        f: the user's function.
        call: what was made of it.
        order: of the derivatives.
        ways: as in `first_that_works`.
        mode: as in `first_that_works`.

    Raises:
        InputError: as in `first_that_works`, or the function has changed x, or samples meet in it.
    """
    check_mode(ways, mode)
    if not call.meeting and not within():
        refuse_meeting(f, (call.x,), call.batch)
    version = call.x._version
    found = first_that_works(ways, mode)
    if call.x._version != version:
        raise InputError(
            "the function writes over its input in place, and x is no longer what it was. Let it "
            "work on a copy, x.clone()."
        )
    if call.noted.constant or (order == 2 and call.noted.linear):
        look_at_branches(f, call.x, call.batch, call.noted, watched=within())
    tell(call.noted, order, f)
    return found


def within() -> bool:
    """Whether a transform, a mode or a compiler watches, to which what we try would be a part."""
    return (
        torch.compiler.is_compiling()
        or transformed()
        or watched()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def check_mode(ways: Sequence[tuple[str, Any]], mode: str) -> None:
    """Refuse a name that no way has.

    Raises:
        InputError: the mode is not known.
    """
    names = ["auto", *(name for name, _ in ways)]
    if mode not in names:
        raise InputError(
            f"mode={mode!r} is not known here. Use one of {', '.join(map(repr, names))}."
        )


def first_that_works(ways: Sequence[tuple[str, Callable[[], T]]], mode: str) -> T:
    """The result of the first way that works, or of the one that was asked for by name.

    Torch raises an exception where an operator has no forward formula or no batching rule; there
    are many kinds of them.

    Raises:
        InputError: the mode is not known, or inference mode is on.
        RefusedError: the mode that was asked for by name does not work.
        OutOfMemoryError: it is passed on, as no other mode would need less.
    """
    # autograd records nothing here, and derivatives would be zero without a word
    if torch.is_inference_mode_enabled():
        raise InputError(
            "under torch.inference_mode() derivatives cannot be had. Use torch.no_grad() instead."
        )
    if not transformed():
        return _first_that_works(ways, mode)
    # an outer transform does not always differentiate forward mode rightly, but reverse mode it
    # does, as long as autograd records
    ways = sorted(ways, key=lambda way: way[0] == "forward")
    record = torch.is_grad_enabled()
    with torch.set_grad_enabled(record or not _silenced()):
        found = _first_that_works(ways, mode)
    # under no_grad, and with nothing but vmap around, no derivative of the result will be asked for
    if not record and all(level.key() == VMAP for level in _levels()):
        found = tree_map_only(Tensor, Tensor.detach, found)
    return found


def _levels() -> Sequence[Any]:
    """The transforms of torch.func that we are inside of."""
    return torch._C._functorch.get_interpreter_stack() or ()


def _silenced() -> bool:
    """Whether autograd was switched off inside a function that is being differentiated.

    Elsewhere the caller has switched it off around everything.
    """
    levels = _levels()
    modes = _get_current_function_mode_stack()
    # both switch autograd on before they call the function
    return any(level.key() == GRAD for level in levels) or any(
        isinstance(mode, Constants) for mode in modes
    )


def _first_that_works(ways: Sequence[tuple[str, Callable[[], T]]], mode: str) -> T:
    if mode == "auto":
        for _, way in ways[:-1]:
            try:
                return way()
            except RefusedError:  # an operator of ours inside the function was asked for a mode
                continue
            except (InputError, torch.OutOfMemoryError):
                raise
            except Exception:  # torch has many kinds for what it cannot differentiate
                continue
        try:
            return ways[-1][1]()  # the plainest way: what it raises is the function's own fault
        except RuntimeError as error:
            if "derivative for" not in str(error):
                raise
            raise RefusedError(  # nor has any other way, then
                f"torch has no such derivatives of an operator of the function: "
                f"{first_line(error)} Write it in other operators, or use "
                "finite_difference_jacobian for first derivatives."
            ) from error
    check_mode(ways, mode)
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
    """The first line of an error's message, or its type if it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
