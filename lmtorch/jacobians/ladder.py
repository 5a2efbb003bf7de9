"""The chosen source of derivatives, then the next that works for the model.

No batching rule, no forward-mode formula, a branch on data, a write into fresh zeros: each is an
exception of torch, raised when the first block is asked for. Then the next source is tried, one
warning names the operator, and the source that works stays in use.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from .._advice import of_inputs
from .._autodiff import Params, Pulled, bent, random_weights, second_directional, weighted_gradients
from .._errors import FallbackWarning, InputError, level, stopped, users_line
from ..residuals.base import Part
from ..residuals.replay import Replay
from ..rows.base import Rows, richest
from .base import (
    GROSS,
    NOISE,
    Bends,
    Block,
    Curving,
    DescendedError,
    JacobianSource,
    Pull,
    Workspace,
    as_block,
    disagrees,
    kinds_of,
    pull,
    push,
)
from .dual_numbers import DualNumbers
from .layers import NotLayerwiseError
from .layerwise import LayerWise
from .per_sample import PerSample

_NOTHING = nullcontext()
REASON = 200  # characters of torch's own words
# of a wrong column one direction shows less than GROSS in some of a hundred fits
DIRECTIONS = 4


class Ladder:
    """Sources in the order in which they are tried.

    Args:
        rungs: the sources, the chosen one first, the most tolerant last.
    """

    def __init__(self, rungs: Sequence[JacobianSource]) -> None:
        self.rungs = list(rungs)
        self.refusals: list[str] = []
        self.warned = False
        self.verified = False
        self._untold = ""
        self.bends: bool | None = None  # whether forward mode twice is right; None: not tried yet

    @property
    def current(self) -> JacobianSource:
        """The source in use."""
        return self.rungs[0]

    @property
    def curves(self) -> bool:
        """Whether the source in use has second derivatives as well."""
        return hasattr(self.current, "second")  # asked of the protocol it takes 5 µs

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """Blocks of rows from the source in use.

        Yields:
            Residuals with rows of the richest kind that is taken.

        Raises:
            DescendedError: the source has failed, and another is in use now: begin again.
            OutOfMemoryError: torch's own.
        """
        kind = richest(kinds_of(self.current), workspace.kinds)
        asked = Workspace(workspace.make, (kind,), workspace.together)
        unsure = len(self.rungs) > 1 and not self.verified
        if unsure:  # what is not known to be right is not compiled
            part = replace(part, through=None)
        blocks = self.current.blocks(part, params, asked)
        # to read the state of the generators costs as much as a small model
        replay = None
        if unsure or part.random or part.kept:
            replay = Replay(params[0].device, part.random, part.kept)
        try:
            with _NOTHING if replay is None else replay():
                first = as_block(next(blocks))
            if unsure and replay is not None:
                with replay():
                    self.verify(part, params, first)
                replay.finish()
                self.verified = True
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._give_way(error)
            raise DescendedError from error
        self._tell()
        yield first
        yield from map(as_block, blocks)

    def columns(self, part: Part, params: Params) -> Block | None:
        """The only block of a part, with columns, where dual numbers are sure to give it.

        It is that of `blocks`, without what a first block and other sources need.

        Returns:
            The block; None: it is to be had of `blocks`.

        Raises:
            DescendedError: dual numbers have failed there, and another source is in use now.
            OutOfMemoryError: torch's own.
        """
        source = self.rungs[0]
        if not self.verified or type(source) is not DualNumbers or part.random or part.kept:
            return None
        try:
            return source.block(part, params)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._give_way(error)
            raise DescendedError from error

    def _give_way(self, error: Exception) -> None:
        """Let the next source take the place of the one in use, unless the error is to be heard."""
        # under vmap shapes may mislead an operator, and dual numbers are no tensors; elsewhere a
        # closure that returns no residuals is at fault
        misled = isinstance(self.current, PerSample | DualNumbers)
        if isinstance(error, InputError) and not misled:
            raise error
        if stopped(error):  # the closure's word, not a source's refusal
            raise error
        # whatever the reason: what is the closure's own fault the last source raises as it is
        if len(self.rungs) == 1:
            raise error
        self._descend(error)

    def verify(self, part: Part, params: Params, first: Block) -> None:
        """Compare a first block with a plain backward pass, in more directions where in doubt.

        Raises:
            ArithmeticError: they differ.
        """
        for seed in range(DIRECTIONS):
            sure = _verify(self.current, part, params, first, seed)
            if sure or part.random:  # which would draw anew
                return

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, as the source in use evaluates them."""
        return self.current.evaluate(part, params)

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v of a part, (..., m), by the source in use."""
        return push(self.current, part, params, direction)

    def pull(self, part: Part, params: Params) -> tuple[Tensor, Pull]:
        """Residuals of a part and w ↦ Jᵀw, by the source in use."""
        return pull(self.current, part, params)

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0, (..., m), by forward mode twice, or None if it fails."""
        if self.bends is False:
            return None
        replay = Replay(params[0].device, part.random)
        try:
            with replay():
                found = self._bend(part, params, direction)
            if self.bends is None:
                for seed in (0, 1):  # one sum alone may agree by chance
                    with replay():
                        self.bends = self.bends is not False and _bends(
                            part, params, direction, found, seed
                        )
                replay.finish()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # torch's word for an operator without a forward-mode formula
            self.bends = False
            return None
        return found if self.bends else None

    def _bend(self, part: Part, params: Params, direction: Params) -> Tensor:
        """d²r/dt² by forward mode twice, in a compiled form when it is known to be right."""
        if self.bends is None:
            return second_directional(part.function, params, direction)

        def bend(*tensors: Tensor) -> Tensor:
            point, along = tensors[: len(params)], tensors[len(params) :]
            return second_directional(part.function, point, along)

        return part.pure("bend", bend, (*params, *direction))

    def second(self, part: Part, params: Params) -> Bends | None:
        """First and second derivatives of a part, if the source in use has them."""
        current = self.current
        if not isinstance(current, Curving):
            return None
        try:
            return current.second(part, params)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # there is another way, which says what is wrong
            if stopped(error):  # the function's word, which no other way may hear
                raise
            return None

    def _descend(self, error: Exception) -> None:
        refused, self.rungs = self.rungs[0], self.rungs[1:]
        self.verified = False
        reason = next(
            (line for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        self.refusals.append(f"{refused!r}: {reason}")
        if isinstance(error, NotLayerwiseError) or isinstance(refused, DualNumbers):
            return  # a shortcut that does not fit this model, nothing to be warned of
        reason, line = reason[:REASON], users_line(error)
        self._untold = (
            self._untold or f"by {refused!r} does not work for this model ({reason}{line})"
        )

    def _tell(self) -> None:
        """Warn once of the source that was refused first, now that it is known which one works."""
        if self._untold and not self.warned:
            self.warned = True
            warnings.warn(
                f"the Jacobian {self._untold}; {self.current!r} is used.",
                FallbackWarning,
                stacklevel=level(),
            )
        self._untold = ""
        if isinstance(self.current, LayerWise) and self.current.inputs is not None:
            of_inputs(self.current.inputs)
            self.current.inputs = None


def _bends(part: Part, params: Params, direction: Params, found: Tensor, seed: int) -> bool:
    """Hold d²r/dt² by forward mode twice to reverse mode twice, in a sum with random weights.

    In torch 2.13 an inner derivative of forward mode takes what an operator has kept for a
    constant: the factors of `solve` and `det`, the statistics of `layer_norm`, all of an
    `autograd.Function`. What is below the square root of round-off beside the first derivative does
    not count.
    """
    weights = random_weights(found, seed)
    first, expected = bent(part.function, params, direction, part.batch, weights)
    size = (
        GROSS * torch.linalg.vector_norm(found, dim=-1)
        + torch.finfo(found.dtype).eps ** 0.5 * first.abs()
    )
    apart = ((weights * found).sum(-1) - expected).abs()
    return bool((apart <= size).logical_or(~apart.isfinite()).all())


def _verify(
    source: JacobianSource, part: Part, params: Params, first: Block, seed: int = 0
) -> bool:
    """Compare the block with one plain backward pass in one direction, as some formulas are wrong.

    In torch 2.13 tangents pass through `detach` and `no_grad`, those of a real exponent of complex
    numbers are half of what they should be, the batched backward of `cdist` leaves a part out, and
    dropout of a strided tensor draws another mask inside torch.func than outside from the same
    seed.

    Returns:
        Whether they agree as far as round-off lets them, or there is nothing to compare with.

    Raises:
        ArithmeticError: they differ.
    """
    twins = tuple(p.detach().clone().requires_grad_() for p in params)
    dual = isinstance(source, DualNumbers)  # which may evaluate residuals in its own way, too
    with torch.enable_grad():
        values = part.function(twins) if dual else source.evaluate(part, twins)
    if dual:  # a model may ask whether it is given tensors
        same_values(values.detach(), first.residual)
    if not values.requires_grad:
        return True
    if part.random and not torch.allclose(
        values.detach()[..., : first.residual.shape[-1]],
        first.residual,
        rtol=GROSS,
        atol=GROSS,
        equal_nan=True,
    ):
        raise ArithmeticError("it draws other random numbers than an evaluation of the residuals")
    block = random_weights(values.detach()[..., : first.residual.shape[-1]], seed)
    direction = torch.zeros_like(values)
    direction[..., : first.residual.shape[-1]] = block  # the block's rows are the part's first
    try:
        gradients = weighted_gradients(values, direction, twins)
    except RuntimeError:
        return True  # nothing to compare with
    columns = [g.to_dense().reshape(*g.shape[: part.batch], -1) for g in gradients]
    return compare(first.rows, params, Pulled(values, block, torch.cat(columns, -1)))


def compare(rows: Rows, params: Params, pulled: Pulled) -> bool:
    """Compare rows with what a plain backward pass has shown.

    Returns:
        Whether they agree as far as round-off lets them.

    Raises:
        ArithmeticError: they differ.
    """
    eps = max(torch.finfo(t.dtype).eps for t in (pulled.values, *params))
    if not disagrees(rows, pulled.weights, pulled.gradient, eps, min(eps**0.5, GROSS)):
        return True
    if disagrees(rows, pulled.weights, pulled.gradient, eps):
        raise ArithmeticError(
            "it disagrees with a plain backward pass: some operator's formula is wrong"
        )
    return False


def same_values(values: Tensor, found: Tensor) -> None:
    """Compare residuals with those of a plain evaluation.

    Raises:
        ArithmeticError: they differ.
    """
    size = values.abs().nan_to_num(posinf=0).amax() * torch.finfo(values.dtype).eps ** NOISE
    if found.shape != values.shape or not torch.allclose(
        found, values, rtol=GROSS, atol=float(size), equal_nan=True
    ):
        raise ArithmeticError("it gives other residuals than a plain evaluation")
