"""How the flat vector x is made of a user's tensors: order, shapes, complex ones as pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._autodiff import Params
from .._errors import InputError


class Layout:
    """Flattens tensors into x (n,), in their order, and back.

    Args:
        tensors: the parameters, of one real dtype (complex ones count as that of their
            parts) and on one device.
        names: what to call them in messages.

    Raises:
        InputError: several dtypes or devices, or a dtype that has no derivatives.
    """

    def __init__(self, tensors: Sequence[Tensor], names: Sequence[str]) -> None:
        self.tensors = tuple(tensors)
        self.names = tuple(names)
        for kind, values in (
            ("dtypes", [real(t).dtype for t in tensors]),
            ("devices", [t.device for t in tensors]),
        ):
            if len(set(values)) > 1:
                odd = next(i for i, v in enumerate(values) if v != values[0])
                raise InputError(
                    f"the parameters have several {kind}: {names[0]!r} {values[0]}, {names[odd]!r} "
                    f"{values[odd]}. One step solves for all of them together: bring them to one, "
                    "or freeze some with requires_grad_(False)."
                )
        if tensors[0].is_meta:
            raise InputError(
                f"{names[0]!r} is on the meta device, where nothing has a value: "
                "bring it to another one."
            )
        self.shapes = [real(t).shape for t in tensors]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.n = sum(self.sizes)

    def flatten(self, tensors: Sequence[Tensor] | None = None) -> Tensor:
        """The tensors (the parameters themselves, unless given) as one new vector (n,)."""
        chosen = self.tensors if tensors is None else tensors
        return torch.cat([real(t.detach()).reshape(-1) for t in chosen])

    def split(self, x: Tensor) -> Params:
        """Views of x (..., n) in the shapes of tensors, complex ones as pairs (*shape, 2)."""
        if len(self.shapes) == 1 and x.shape == self.shapes[0]:
            return (x,)
        batch = x.shape[:-1]
        if len(self.shapes) == 1:
            return (x.reshape((*batch, *self.shapes[0])),)
        parts = zip(x.split(self.sizes, -1), self.shapes, strict=True)
        return tuple(part.reshape((*batch, *shape)) for part, shape in parts)

    def twins(self, params: Params) -> list[Tensor]:
        """What stands in for each tensor: complex where it is complex."""
        return [
            torch.view_as_complex(p) if t.is_complex() else p
            for t, p in zip(self.tensors, params, strict=True)
        ]

    def vector(self, values: Sequence[Tensor | float | None], fill: float, like: Tensor) -> Tensor:
        """A number for each entry of x, from one or a tensor by parameter; None: `fill`."""
        parts = []
        for value, shape in zip(values, self.shapes, strict=True):
            number = fill if value is None else value
            if isinstance(number, Tensor) and number.ndim == 0 and number.device.type == "cpu":
                number = number.item()  # a copy to the device would wait for it
            # made in the dtype: a float32 on the way would round 0.1
            part = (
                number.detach().to(like)
                if isinstance(number, Tensor)
                else like.new_full((), number)
            )
            parts.append(part.expand(shape).reshape(-1))
        return torch.cat(parts)


def real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of reals, others as they are."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
