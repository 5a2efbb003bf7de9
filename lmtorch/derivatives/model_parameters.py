"""Which parameters of a model are meant, and whether it can be called on the inputs."""

from collections.abc import Sequence, Set
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._errors import InputError
from .calling import check_kind

Index = int | tuple[int, ...]  # a place in a tensor


def chosen_parameters(model: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    """The parameters that are meant by their names, or all that require a gradient.

    Raises:
        InputError: there is no module, no such parameter, or one without a shape yet.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            "the model must be an nn.Module, whose parameters have names; this is "
            f"{type(model).__name__}."
        )
    if isinstance(model, nn.DataParallel):
        raise InputError(
            "nn.DataParallel copies the model for each device, and has no parameters of its own: "
            "pass model.module."
        )
    there: dict[str, Tensor] = dict(model.named_parameters())
    lazy = next((name for name, p in there.items() if is_lazy(p)), None)
    if lazy is not None:
        raise InputError(
            f"the parameter {lazy!r} has no shape yet: call the model once on data, then "
            "differentiate."
        )
    if names is None:
        chosen = {name: p for name, p in there.items() if p.requires_grad}
        if not chosen:
            raise InputError(
                "no parameter of the model requires a gradient. Name those that are meant: "
                "names=[...]."
            )
        return chosen
    names = [names] if isinstance(names, str) else names_given(names, "names")
    if not names:
        raise InputError(
            "names is empty: name the parameters that are meant, or leave it out for all."
        )
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InputError(
            f"the model has no parameter {unknown[0]!r}. Its parameters: "
            f"{', '.join(there) or 'none'}."
        )
    return {name: there[name] for name in names}


def names_given(names: Any, option: str) -> list[str]:
    """Make a list of the names of parameters.

    Returns:
        A list.

    Raises:
        InputError: it is none.
    """
    if not isinstance(names, Sequence | Set) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{option}={names!r} is no name of a parameter and no list of names.")
    return list(names)


def check_inputs(inputs: tuple[Any, ...]) -> None:
    """Check that a model is called on tensors that autograd can follow.

    Raises:
        InputError: an input is no tensor, or a sparse one, or was made in inference mode.
    """
    for place, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise InputError(
                f"inputs must be tensors; number {place} is {type(t).__name__}: torch.as_tensor "
                "makes one."
            )
        check_kind(t, f"input {place}")


def single_output(y: Any) -> Tensor:
    """What a model has returned, if it is one tensor.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(y, Tensor):
        raise InputError(
            f"the model returned {type(y).__name__}. Wrap it in a module that returns the one "
            "tensor meant."
        )
    return y
