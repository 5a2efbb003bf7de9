"""What is minimised, seen from the loop: a cost, a linear model of it, and a way to move.

    F(x) = ½ Σ C² ρ((r(x)/C)²) + ½ Σ w x²   over the box   lower ≤ x ≤ upper

Robust loss, prior, bounds, learning rate and the dtype of the parameters are properties of the
problem; the loop does not know of them. x has the dtype of the parameters, matrices and vectors
that of the linear algebra, costs float64.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._autodiff import Params, ranges
from .._errors import InputError
from ..arrays import (
    always,
    at_least,
    heard,
    join,
    joined,
    maximum,
    on_numpy,
    resolution,
    room,
    seen,
    sqrt,
    tensor_from,
    to_type,
    with_shape_of,
    with_type_of,
    zeros,
)
from ..distributed.processes import Processes
from ..jacobians.base import DescendedError, JacobianSource, as_block, pull
from ..linearizations.base import Exact, Form, Linearization, Prior, Sharing
from ..losses.base import Loss, half_sum, sloped
from ..residuals.base import Part, Residual
from ..rows.base import Rows
from .bounds import Bounds
from .clock import Clock, timed
from .one_block import model_from_one_block
from .sums import Streamed, nothing, total

T = TypeVar("T")
TOGETHER = 64  # shares of a sum that wait for each other
REMEMBERED = 64  # parameters up to which the latest linear model is remembered, if it has no rows


@dataclass(frozen=True)
class Problem:
    """A sum of squares with everything that belongs to it."""

    residual: Residual
    source: JacobianSource
    form: Form
    loss: Loss
    dtype: torch.dtype  # of the linear algebra
    penalty: Tensor | None = None  # w, (n,): ½ Σ w x², weight decay
    bounds: Bounds | None = None
    rate: Tensor | None = None  # (n,): learning rates, factors of the step
    # some of the rows, of which JᵀJ is made, or rows and residuals alike where a form keeps them,
    # see `modelled`; None: all
    sample: Residual | None = None
    differences: bool = False  # bends along a step from differences of the residuals
    precision: torch.dtype | None = None  # of the residuals, where coarser than the parameters'
    clock: Clock | None = None  # measures linear models and costs
    keep: bool = False  # r(x) stays with the linear model, for what asks how the residuals bend
    # problems of a batch that are evaluated together, so that what is made of them stays in the
    # cache; None: all
    together: int | None = None
    ahead: bool = False  # of one problem whose rows cost little more than its residuals
    # what NumPy says in the user's function, where the loop runs on its arrays; None: it does not
    noises: dict[str, Any] | None = None
    # the processes over which all that is summed over rows is added; None: there is but this one
    across: Processes | None = None
    counts: tuple[int, int] | None = None  # of all rows, and of those sampled, on all processes

    @property
    def rows(self) -> int:
        """m, of all parts on all processes."""
        return self.residual.rows if self.counts is None else self.counts[0]

    @property
    def modelled(self) -> "Problem":
        """The rows that the linear model is made of, as a problem.

        A form that sums over rows takes JᵀJ of a sample and Jᵀr of all rows. One that keeps the
        rows, fewer than there are parameters, takes the residuals of the sample as well: in the
        directions in which the sample says nothing Jᵀr of all rows would move far, and only by λ.
        """
        if self.sample is None or self.form.sampled:
            return self
        return replace(self, residual=self.sample, sample=None)

    def fused(self, kept: Tensor) -> bool:
        """Whether the linear model of a trial is made at once, with its cost.

        Of many small problems most trials are kept, and another evaluation costs more than what is
        wasted. What may not move is known only at x: bounds forbid it. Of a single one the rows
        must cost little more than the residuals, and after a trial that was refused the next often
        is, too.

        Args:
            kept: whether the last trials were kept, (...,) bool.
        """
        if on_numpy(kept):
            return getattr(self.source, "rows_are_cheap", False)
        if self.bounds is not None:
            return False
        return self.together is not None or (self.ahead and seen(kept))

    # ---- the cost ----------------------------------------------------------------------------

    def cost(self, x: Tensor) -> Tensor:
        """F(x), (...,)."""
        if self.apart(x):
            return self.of_some(x, Problem.cost)
        if self.across is None:
            return self.with_penalty(self._cost(x), x)
        _, costs = self.across.telling("residuals", lambda: self._cost(x), _number, 1)
        return self.with_penalty(_sum_of(costs, x), x)

    def _cost(self, x: Tensor) -> Tensor:
        """What the rows of this process cost."""
        params, costs = self.residual.params(tensor_from(x)), []
        with timed(self.clock, "trial"), self.residual.replay():
            for part in self.residual.parts():
                with heard(self.noises):
                    values = self.source.evaluate(part, params)
                cost = self.loss_of(part).cost(with_type_of(values, x))
                costs.append(cost if part.weight == 1 else part.weight * cost)
        return total(costs) if costs else nothing(x)

    def loss_of(self, part: Part) -> Loss:
        """What the rows of a part cost: their own loss, of outputs with targets, or the common."""
        return self.loss if part.loss is None else part.loss

    def slope(self, values: Sequence[Tensor]) -> Tensor:
        """ℓ′ at r(x) as `values` gives it, of all parts side by side, (..., m)."""
        pairs = zip(self.residual.parts(), values, strict=True)
        return joined([self.loss_of(part).expand(value).slope for part, value in pairs], -1)

    def values(self, x: Tensor) -> list[Tensor]:
        """r(x), part by part, (..., m) each."""
        params = self.residual.params(tensor_from(x))
        with self.residual.replay(), heard(self.noises):
            parts = [self.source.evaluate(part, params) for part in self.residual.parts()]
        return [with_type_of(values, x) for values in parts]

    # ---- a linear model of it ----------------------------------------------------------------

    def linearize(self, x: Tensor) -> Linearization:
        """r ≈ r + J s at x, with the variables that may not move frozen."""
        model = self.model(x)
        return model if self.bounds is None else model.freeze(self.free(x, model.gradient))

    def free(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Which variables may move, (..., n) bool: descent pushes the others out of the box."""
        if self.bounds is None:
            return always(x)
        return self.bounds.free(x, gradient)

    def model(self, x: Tensor) -> Linearization:
        """r ≈ r + J s at x, whatever may move."""
        if self._once is not None:
            known = self._once(x)
            if known is not None:
                self._latest[:] = [(x, known)]  # a small one
                return known
        if self.apart(x):
            return self.of_some(x, Problem.model)
        rows = self.residual if self.sample is None else self.sample
        params = rows.params(tensor_from(x))
        if self.across is not None:
            return self._model_of_all(self.across, rows, params, x)
        streamed = self._streamed(rows, params, x)
        accumulator = streamed.accumulator
        accumulator.sums = total([accumulator.sums])
        cost, values, exact = streamed.cost(x), streamed.values, None
        if self.sample is not None and self.form.sampled:
            cost, gradient, values = self._of_all_rows(x)
            exact = Exact(gradient, self.residual.rows / self.sample.rows)
        elif self.sample is not None:
            cost = self._cost(x)
        whole = self.with_penalty(cost, x)
        kept = tuple(values) if self.keep else None
        found = accumulator.finish(whole, self.prior(x), exact, kept)
        if found.rows is None and x.ndim == 1 and len(x) <= REMEMBERED:
            self._latest[:] = [*self._latest[-1:], (x, found)]  # a trial's may be refused
        return found

    @cached_property
    def _latest(self) -> list[tuple[Tensor, Linearization]]:
        return []

    def model_at_end(self, x: Tensor) -> Linearization:
        """`model` at the point where a run has ended, which is often that of the last model.

        An end is looked at for several reasons, and for many rows of few parameters a linear model
        costs as much as an iteration.
        """
        for place, found in self._latest:
            if place is x or _same(place, x):
                return found
        return self.model(x)

    def _model_of_all(
        self, across: Processes, rows: Residual, params: Params, x: Tensor
    ) -> Linearization:
        """The linear model of the rows of all processes.

        Where the curvature is that of a sample, its sums are on their way while cost and gradient
        of all rows are found.

        Raises:
            InputError: the form of the linear model is for one process alone.
        """
        streamed, costs = across.telling(
            "linear model",
            lambda: self._streamed(rows, params, x),
            lambda found: _number(found.cost(x)),
            1,
        )
        accumulator = streamed.accumulator
        if not isinstance(accumulator, Sharing):
            raise InputError(
                f"{type(self.form).__name__} cannot be shared by several processes: its "
                "accumulator has no share(processes). Choose solver='cholesky', or leave "
                "process_group out."
            )
        arrived = accumulator.share(across)
        cost, exact = _sum_of(costs, x), None
        if self.sample is not None:
            (_, gradient, _), costs = across.telling(
                "gradient", lambda: self._of_all_rows(x), lambda found: _number(found[0]), 1
            )
            cost, factor = _sum_of(costs, x), self.rows / self.counts[1] if self.counts else 1.0
            exact = Exact(across.added([gradient])[0], factor)
        arrived()
        # r(x) of one process goes with no rows that all of them share: it is not kept
        return accumulator.finish(self.with_penalty(cost, x), self.prior(x), exact)

    def finite(self, x: Tensor) -> bool:
        """Whether the rows of this process and their derivatives are finite."""
        cost, gradient, _ = self._value_and_gradient(x)
        return bool(cost.isfinite() & gradient.isfinite().all())

    def _room_for(self, rows: int, x: Tensor) -> Streamed:
        """Sums over so many rows, of which none is there yet."""
        like = to_type(room(x, 0), self.dtype)
        accumulator = self.form.accumulator(tuple(x.shape), rows, like)
        return Streamed(accumulator, self.keep, on_numpy(x))

    def _streamed(self, rows: Residual, params: Params, x: Tensor) -> Streamed:
        """The rows of this process, block by block."""
        streamed = None
        while streamed is None:
            streamed = self._room_for(rows.rows, x)
            if hasattr(rows, "begin"):
                rows.begin()
            if getattr(rows, "streams", False) and hasattr(streamed.accumulator, "anew"):
                streamed.accumulator.anew = partial(self._anew, rows, x)
            try:
                with timed(self.clock, "linearize"), rows.replay():
                    for place, part in enumerate(rows.parts()):
                        weight = 1.0 if self.form.sampled else part.weight
                        streamed.begin(place, self.loss_of(part), weight)
                        blocks = self.source.blocks(part, params, streamed.workspace)
                        for found in blocks if self.noises is None else self._heard(blocks):
                            streamed.add(*as_block(found))
                            del found  # it need not be there beside the next
            except DescendedError:  # another source stands in the place of the one that gave up
                streamed = None
            except RuntimeError as error:
                # a generator makes it of the StopIteration of a user's function (PEP 479)
                if isinstance(error.__cause__, StopIteration):
                    raise error.__cause__ from None
                raise
        return streamed

    @cached_property
    def _once(self) -> Callable[[Tensor], Linearization | None] | None:
        return model_from_one_block(self)

    def _of_all_rows(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The same as `_value_and_gradient`, from the evaluation of a sample that is of all rows.

        The sample was evaluated at x just before.
        """
        ask = getattr(self.sample, "of_all", None)
        shown = None if ask is None or self.keep else ask()
        if shown is None:
            return self._value_and_gradient(x)
        return *total([(cost, gradient.to(self.dtype)) for cost, gradient in shown]), []

    def _value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The cost and Jᵀℓ′ of all rows, without the prior's, and r(x) of each part.

        The gradient says where to go and must be exact; JᵀJ says how far, and an estimate of it
        from a tenth of the samples is almost as good for a tenth of the work.

        Reference: Byrd, Chin, Neveitt & Nocedal, On the use of stochastic Hessian information in
        optimization methods for machine learning (2011), §2.
        """
        params = self.residual.params(x)
        sums: list[tuple[Tensor, Tensor]] = []
        kept: list[Tensor] = []
        with timed(self.clock, "linearize"), self.residual.replay():
            for part in self.residual.parts():
                cost, gradient, values = self._share_of_gradient(part, params)
                sums.append((cost, gradient))
                kept += [values] if self.keep else []
                if len(sums) >= TOGETHER:
                    sums = [total(sums)]
        if not sums:  # another process has them
            return nothing(x), to_type(zeros(x), self.dtype), []
        return *total(sums), kept

    def _anew(self, rows: Residual, x: Tensor) -> Iterator[Rows]:
        """The rows at x once more, block by block, as the loss scales them."""
        params = rows.params(tensor_from(x))
        with rows.replay():
            for place, part in enumerate(rows.parts()):
                streamed = self._room_for(0, x)
                streamed.begin(place, self.loss_of(part))
                for found in self.source.blocks(part, params, streamed.workspace):
                    yield streamed.scaled(*as_block(found))[1]

    def _share_of_gradient(self, part: Part, params: Params) -> tuple[Tensor, Tensor, Tensor]:
        """What one part adds to the cost and to Jᵀℓ′, and its r(x); its graph is left behind."""
        values, along = pull(self.source, part, params)
        value, slope = sloped(self.loss_of(part), values)
        return value, along(slope.to(values.dtype)).to(self.dtype), values

    def _heard(self, blocks: Iterable[Any]) -> Iterator[Any]:
        """The blocks, each made under the user's settings of NumPy."""
        coming = iter(blocks)
        while True:
            with heard(self.noises):
                found = next(coming, None)
            if found is None:
                return
            yield found

    # ---- a way to move -----------------------------------------------------------------------

    def move(self, x: Tensor, step: Tensor) -> Tensor:
        """x + rate · step, inside the box and rounded to the dtype of the parameters."""
        moved = to_type(x, self.dtype) + (step if self.rate is None else self.rate * step)
        return to_type(moved if self.bounds is None else self.bounds.project(moved), x.dtype)

    # ---- what belongs to all processes -------------------------------------------------------

    def summed(self, name: str, work: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """What `work` makes of the rows of this process, added over all processes.

        Args:
            name: of the work, for messages.
            work: tensors of the same shapes on all processes; it must not itself add anything.
        """
        return work() if self.across is None else self.across.summed(name, work)

    def agreed(self, decided: T) -> T:
        """What the first process has decided, a tree of tensors, for all to go on with."""
        return decided if self.across is None else self.across.first(decided)

    # ---- what belongs to it ------------------------------------------------------------------

    def eps(self, x: Tensor) -> float:
        """Round-off of the residuals, relative."""
        return resolution(self.precision or x.dtype)

    def sizes(self, x: Tensor) -> Tensor:
        """Sizes of the parameters, (..., n); steps of finite differences are a share of them."""
        (part, *_) = self.residual.parts()
        if part.sizes is None:
            return at_least(abs(x), 1.0)
        return maximum(abs(x), with_type_of(part.sizes, x))

    def apart(self, x: Tensor) -> bool:
        """Whether the problems of a batch are too many to be evaluated together."""
        return self.together is not None and x.ndim == 2 and len(x) > self.together

    def of_some(self, x: Tensor, of: "Callable[[Problem, Tensor], T]") -> T:
        """What is found of so many problems of a batch at a time as are evaluated together."""
        chosen = ranges(len(x), self.together or len(x))
        return join([of(self.take(some), x[some]) for some in chosen])

    def take(self, places: Any) -> "Problem":
        """The problems at `places` of a batch (b,): numbers (k,), or a slice, which is a view."""
        bounds = self.bounds and self.bounds.take(places)
        return replace(
            self,
            residual=self.residual.take(places),
            loss=self.loss.take(places) if hasattr(self.loss, "take") else self.loss,
            bounds=bounds,
        )

    def prior(self, x: Tensor) -> Prior | None:
        """The penalty as rows √w · x; None if there is none."""
        if self.penalty is None:
            return None
        wide = to_type(x, self.dtype)
        root = with_shape_of(sqrt(to_type(self.penalty, self.dtype)), wide)
        return Prior(root, root * wide)

    def with_penalty(self, cost: Tensor, x: Tensor) -> Tensor:
        """The cost of the residuals (...,) with that of the penalty added."""
        if self.penalty is None:
            return cost
        return cost + half_sum(self.penalty * to_type(x, self.dtype) ** 2)


def _same(place: Any, x: Any) -> bool:
    """Whether two points are the same, on a CPU: elsewhere the host would wait for the device."""
    if on_numpy(x):
        return bool(place.tobytes() == x.tobytes())
    return x.device.type == "cpu" and torch.equal(place, x)


def _number(cost: Tensor) -> list[float]:
    """The cost of one problem, as it is told to other processes."""
    return [float(cost)]


def _sum_of(costs: Tensor, x: Tensor) -> Tensor:
    """The sum of what all processes have told, the same on each of them."""
    return costs.sum().to(x.device, x.dtype if x.device.type == "mps" else torch.float64)
