"""`least_squares` by several processes: what they check together before they begin."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .._errors import InputError
from ..choose.agreed import bits, check_numbers, numbers_of, of_all, with_memory
from ..choose.facts import Facts
from ..choose.options import Options
from ..core.bounds import Bounds
from ..distributed.processes import Processes
from ..residuals.probe import Probe
from .probing import probe
from .user_function import UserFunction

P = ParamSpec("P")
R = TypeVar("R")


def ending_together(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that what ends it on one process of its group ends it on all.

    Returns:
        The function, whose `process_group` becomes `Processes`.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("process_group") is None:
            return function(*args, **kwargs)
        processes = Processes(kwargs["process_group"])
        kwargs["process_group"] = processes
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            processes.failed(error)
            raise

    return call


def refuse_batches(
    in_dims: Any, n_starts: int, compile: bool | str, exact: bool | None, f_scale: float | str
) -> None:
    """Check that nothing is asked for that one problem, shared by processes, does not have.

    Raises:
        InputError: something is.
    """
    asked = [
        name
        for name, there in (
            ("in_dims", in_dims is not None),
            ("n_starts", n_starts != 1),
            ("compile", bool(compile)),
            ("finite differences or a function for jac", exact is False),
            ('f_scale="mad"', f_scale == "mad"),
        )
        if there
    ]
    if asked:
        raise InputError(
            f"process_group is for one problem whose rows are spread over processes, with exact "
            f"derivatives, and does not go with {' and '.join(asked)}. Many small problems need no "
            "group: give each process some of them."
        )


def probe_together(
    processes: Processes,
    make: Callable[[bool], UserFunction],
    exact: bool | None,
    box: Bounds | None,
    options: Mapping[str, Any],
) -> tuple[UserFunction, Probe]:
    """Look at the function of this process, which may have no rows, and at that of the others.

    Args:
        processes: those that share the rows.
        make: makes the function.
        exact: whether derivatives are to be torch's, None: as can be.
        box: bounds.
        options: what the fit is asked for, by name.

    Returns:
        The function and the facts about it, with the size and the finiteness of all residuals.

    Raises:
        InputError: it cannot be minimised, or the starts or options differ.
    """

    def own() -> tuple[UserFunction, Probe]:
        calling = make(False)
        unknowns = calling.unknowns
        with torch.no_grad():
            params = unknowns.layout.split(unknowns.start)
            if calling.residual(params).numel() == 0:
                return calling, Probe(0, 0)
        calling, found = probe(make, exact, box)
        if found.black_box or calling.targeted:
            raise InputError(
                "process_group needs residuals that torch can differentiate"
                + (
                    ": a criterion's outputs are for LevenbergMarquardt."
                    if calling.targeted
                    else "."
                )
            )
        if not found.finite:
            raise InputError(
                "the residuals are not finite at the start: NaN or infinity among those of rank "
                f"{processes.names[processes.rank]}."
            )
        return calling, found

    def tell(found: tuple[UserFunction, Probe]) -> list[float]:
        return [found[1].size, bits(found[0].unknowns.start), *numbers.values()]

    numbers = numbers_of({**options, "bounds": None if box is None else list(box)})
    (calling, found), said = processes.telling("function", own, tell, 2 + len(numbers))
    if bool((said[:, 1] != said[0, 1]).any()):
        raise InputError("the processes have different x0: give all of them the same.")
    check_numbers(processes, list(numbers), said[:, 2:])
    if torch.is_grad_enabled() and calling.differentiable():
        raise InputError(
            "a solution by several processes carries no gradients to the arguments, some of which "
            "require them: detach them, or call least_squares under torch.no_grad()."
        )
    return calling, found._replace(size=float(said[:, 0].max()))


def facts_together(
    processes: Processes, facts: Facts, options: Options, x: Tensor
) -> tuple[Facts, Options]:
    """The facts of all processes, and the options with the memory that all have."""
    every = processes.gathered("facts", lambda: [facts])
    return of_all(processes, every)[0], with_memory(processes, options, x.device)
