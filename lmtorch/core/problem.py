"""What is minimised, seen from the loop: a cost, a linear model of it, and a way to move.

    F(x) = ½ Σ C² ρ((r(x)/C)²) + ½ Σ w x²   over the box   lower ≤ x ≤ upper

Robust loss, prior, bounds, learning rate and the dtype of the parameters are properties of the problem; the loop does
not know of them. x has the dtype of the parameters, matrices and vectors that of the linear algebra, costs float64.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._autodiff import Curved, Params, hessian
from .._errors import as_raised
from .._outer import Outer
from ..jacobians.base import Bending, Block, DescendedError, JacobianSource, Workspace
from ..linearizations.base import Accumulator, Exact, Form, Linearization, Prior
from ..losses.base import Loss, half_sum
from ..residuals.base import Part, Residual
from .bounds import Bounds

TENTH = 0.1  # of a step
FEW = 4  # units of the last digit, by which parameters are moved to see how far round-off alone moves the residuals


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
    sample: Residual | None = None  # some of the rows, of which JᵀJ is made; None: all
    differences: bool = (
        False  # second derivatives along a step from differences of the residuals, not forward mode
    )
    precision: torch.dtype | None = (
        None  # of the residuals, where it is coarser than that of the parameters
    )

    def eps(self, x: Tensor) -> float:
        """Round-off of the residuals, relative."""
        return torch.finfo(self.precision or x.dtype).eps

    def sizes(self, x: Tensor) -> Tensor:
        """Of the parameters, (..., n), of which the steps of finite differences are a share."""
        (part, *_) = self.residual.parts()
        return x.abs().clamp(min=1) if part.sizes is None else torch.maximum(x.abs(), part.sizes)

    def take(self, places: Tensor) -> "Problem":
        """Those at `places` (k,) of a batch (b,) of problems."""
        bounds = self.bounds and self.bounds.take(places)
        return replace(
            self, residual=self.residual.take(places), loss=self.loss.take(places), bounds=bounds
        )

    def cost(self, x: Tensor) -> Tensor:
        """F(x), (...,)."""
        params = self.residual.params(x)
        with self.residual.replay():
            costs = [
                self.loss.cost(self.source.evaluate(part, params)) for part in self.residual.parts()
            ]
        return self._with_penalty(total(costs), x)

    def linearize(self, x: Tensor) -> Linearization:
        """r ≈ r + J s at x, with the variables that may not move frozen."""
        model = self.model(x)
        return model if self.bounds is None else model.freeze(self.free(x, model.gradient))

    def free(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Which variables may move, (..., n) bool: all but those that descent would push out of the box."""
        return (
            torch.ones_like(x, dtype=torch.bool)
            if self.bounds is None
            else self.bounds.free(x, gradient)
        )

    def model(self, x: Tensor) -> Linearization:
        """r ≈ r + J s at x, whatever may move."""
        if self.sample is not None:
            return self._estimate(x, self.sample)
        accumulator, cost = self._accumulate(self.residual, x)
        return accumulator.finish(self._with_penalty(cost, x), self.prior(x))

    def hessian(self, x: Tensor) -> Curved | None:
        """The exact Hessian of F, curvature of the residuals included, and its gradient; None where it cannot be had.

        A black box has none, nor has an operator whose backward pass torch cannot differentiate.

        Raises:
            OutOfMemoryError: the memory does not hold it.
        """
        params = self.residual.params(x)
        matrix = torch.zeros(*x.shape, x.shape[-1], dtype=self.dtype, device=x.device)
        gradient = torch.zeros_like(x, dtype=self.dtype)
        try:
            with self.residual.replay():
                for part in self.residual.parts():
                    share = None if part.black_box else self._share_of_hessian(part, params)
                    if share is None:
                        return None
                    matrix, gradient = matrix + share.matrix, gradient + share.gradient
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # torch's word for a derivative that is not implemented
            return None
        prior = self.prior(x)
        if prior is None:
            return Curved(matrix, gradient)
        return Curved(
            matrix + torch.diag_embed(prior.root.square()), gradient + prior.root * prior.residual
        )

    def residual_curvature(self, x: Tensor, size: Tensor) -> Tensor | None:
        """Σ ρ′r ∇²r, what JᵀJ leaves out of the Hessian, by differences of the residuals, (..., n, n).

        None where they would leave the box. Steps of ε^¼ times the size (..., n) of the parameters, positive, balance
        truncation and round-off.

        Reference: Nocedal & Wright (2006), §8.1, eq. 8.21.
        """
        n = x.shape[-1]
        step = self.eps(x) ** 0.25 * size
        if self.bounds is not None and bool(
            ((x - step < self.bounds.lower) | (x + step > self.bounds.upper)).any()
        ):
            return None
        moves = torch.diag_embed(step)

        middle = self._residuals(x)
        ahead = [self._residuals(x + moves[..., i, :]) for i in range(n)]
        weights = self.loss.influence(middle)
        found = torch.zeros(*x.shape, n, dtype=self.dtype, device=x.device)
        for i in range(n):
            for j in range(i + 1):
                both = -moves[..., i, :] if i == j else moves[..., i, :] + moves[..., j, :]
                far = self._residuals(x + both)
                bend = ahead[i] + far - 2 * middle if i == j else far - ahead[i] - ahead[j] + middle
                entry = (weights * bend).sum(-1) / (step[..., i] * step[..., j]).to(self.dtype)
                found[..., i, j] = found[..., j, i] = entry
        return found

    def trembling(self, x: Tensor) -> Tensor:
        """How far the residuals move, ‖Δr‖ (...,), when every parameter is moved by a few units of its last digit.

        A black box may be noisier than round-off alone would have it.

        Reference: Moré & Wild, Estimating computational noise (2011).
        """
        moved = x * (1 + FEW * self.eps(x))
        if self.bounds is not None:
            moved = self.bounds.project(moved.to(self.dtype)).to(x.dtype)
        here, there = self._residuals(x), self._residuals(moved)
        return torch.linalg.vector_norm((there - here).nan_to_num(), dim=-1)

    def _residuals(self, x: Tensor) -> Tensor:
        """r(x) of all parts, (..., m)."""
        params = self.residual.params(x)
        with self.residual.replay():
            values = [self.source.evaluate(part, params) for part in self.residual.parts()]
        return torch.cat(values, -1).to(self.dtype)

    def _share_of_hessian(self, part: Part, params: Params) -> Curved | None:
        """What the rows of one part add to the Hessian and the gradient."""
        loss = self.loss
        if not hasattr(loss, "curvature"):  # a loss of the user's own
            return None
        return hessian(
            lambda p: self.source.evaluate(part, p),
            params,
            part.batch,
            loss.influence,
            loss.curvature,
        )

    def _estimate(self, x: Tensor, sample: Residual) -> Linearization:
        """JᵀJ from some of the rows, cost and gradient from all.

        The gradient says where to go and must be exact; JᵀJ says how far, and an estimate from a tenth of the samples
        serves almost as well for a tenth of the work.

        Reference: Byrd, Chin, Neveitt & Nocedal, On the use of stochastic Hessian information in optimization methods
        for machine learning (2011), §2.
        """
        accumulator, _ = self._accumulate(sample, x)
        cost, gradient = self._value_and_gradient(x)
        exact = Exact(gradient, self.residual.rows / sample.rows)
        return accumulator.finish(self._with_penalty(cost, x), self.prior(x), exact)

    @as_raised
    def _accumulate(self, residual: Residual, x: Tensor) -> tuple[Accumulator, Tensor]:
        """Stream the rows of J into the form that the solver takes, and sum the cost."""
        accumulator = self.form.accumulator(
            tuple(x.shape), residual.rows, x.new_empty(0, dtype=self.dtype)
        )
        params = residual.params(x)
        costs = []
        try:
            with residual.replay():
                for part in residual.parts():
                    for pair in self.source.blocks(part, params, accumulator.workspace):
                        values, jacobian, outer = Block(*pair)
                        costs.append(self.loss.cost(values))
                        accumulator.add(
                            *self.loss.rescale(values, jacobian),
                            [self._rescaled(values, known) for known in outer],
                        )
        except DescendedError:
            return self._accumulate(residual, x)
        return accumulator, total(costs)

    def _rescaled(self, values: Tensor, outer: Outer) -> Outer:
        """The same outer products in rescaled rows."""
        rows = self.loss.rescale(values, outer.left.flatten(0, 1))[1]
        return outer._replace(left=rows.view(outer.left.shape))

    def _value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cost and Jᵀ(ρ′r) of all rows, without the prior's, by one reverse pass over each part."""
        gradient = torch.zeros_like(x, dtype=self.dtype)
        costs = []
        with self.residual.replay():
            for part in self.residual.parts():
                with torch.enable_grad():
                    params = tuple(p.detach().requires_grad_() for p in self.residual.params(x))
                    values = self.source.evaluate(part, params)
                costs.append(self.loss.cost(values.detach()))
                influence = self.loss.influence(values.detach())
                shares = torch.autograd.grad(
                    values, params, influence, allow_unused=True, materialize_grads=True
                )
                gradient += torch.cat([share.reshape(-1) for share in shares])
        return total(costs), gradient

    def move(self, x: Tensor, step: Tensor) -> Tensor:
        """x + rate · step, inside the box and rounded to the dtype of the parameters."""
        moved = x.to(self.dtype) + (step if self.rate is None else self.rate * step)
        return (moved if self.bounds is None else self.bounds.project(moved)).to(x.dtype)

    def second_order(self, x: Tensor, direction: Tensor) -> Tensor:
        """Jᵀ r_vv, the second derivative of the residuals along v pulled back, (..., n)."""
        along = direction.to(x.dtype)
        bends = None if self.differences else self._bends_by_forward(x, along)
        if bends is None:
            bends = self._bends_by_differences(x, along)
        params = self.residual.params(x)
        result = torch.zeros_like(direction)
        with self.residual.replay():
            for part, bend in zip(self.residual.parts(), bends, strict=True):
                result = result + self._pulled_back(part, params, bend)
        return result

    def _bends_by_forward(self, x: Tensor, along: Tensor) -> list[Tensor] | None:
        """r_vv of each part by forward mode twice; None for what has no forward mode, or a wrong one."""
        if not isinstance(self.source, Bending):
            return None
        params, tangents = self.residual.params(x), self.residual.params(along)
        bends = []
        with self.residual.replay():
            for part in self.residual.parts():
                bend = None if part.black_box else self.source.bend(part, params, tangents)
                if bend is None:
                    return None
                bends.append(bend)
        return bends

    def _bends_by_differences(self, x: Tensor, along: Tensor) -> list[Tensor]:
        """r_vv of each part by a central difference, for each problem of a batch; zero where it would leave the box.

        It is taken over a tenth of the step, whose bend is wanted, but over no less than what still resolves: ε^¼ of
        the size of the parameters, whose square is ε^½.

        Reference: Transtrum & Sethna (2012), §III, on the tenth.
        """

        def at(point: Tensor) -> list[Tensor]:
            params = self.residual.params(point)
            with self.residual.replay():  # all three draw the same random numbers
                return [self.source.evaluate(part, params) for part in self.residual.parts()]

        middle = at(x)
        eps = max(torch.finfo(t.dtype).eps for t in (x, *middle))
        size, length = (torch.linalg.vector_norm(t, dim=-1) for t in (x, along))
        inside = length > 0
        h = (eps**0.25 * size.clamp(min=1) / torch.where(inside, length, 1)).clamp(
            min=TENTH
        )  # (...,)
        if self.bounds is not None:
            reach = h[..., None] * along.abs()
            inside &= (
                (x - reach >= self.bounds.lower) & (x + reach <= self.bounds.upper) | (reach == 0)
            ).all(-1)
        step = torch.where(inside, h, 0.0)[..., None] * along
        ahead, behind = at(x + step), at(x - step)
        square = h[..., None].square()
        return [
            (a - 2 * r + b) / square.to(r.dtype)
            for a, r, b in zip(ahead, middle, behind, strict=True)
        ]

    @as_raised
    def _pulled_back(self, part: Part, params: Params, bend: Tensor) -> Tensor:
        """Jᵀ bend, rows of J and bend rescaled by the loss, (..., n): by one reverse pass where there is one."""
        with torch.enable_grad():
            twins = tuple(p.detach().requires_grad_() for p in params)
            values = None if part.black_box else self.source.evaluate(part, twins)
        if values is not None and values.requires_grad:
            ones = torch.ones_like(bend)[..., None]
            weight = self.loss.rescale(values.detach(), ones)[1][..., 0].square() * bend
            shares = torch.autograd.grad(
                values, twins, weight, allow_unused=True, materialize_grads=True
            )
            return torch.cat(
                [share.reshape(*share.shape[: part.batch], -1) for share in shares], -1
            ).to(self.dtype)
        result, start = bend.new_zeros(()).to(self.dtype), 0
        fresh = self._workspace(params, part.batch)
        for pair in self.source.blocks(part, params, fresh):
            residual, jacobian, _ = Block(*pair)
            rows = residual.shape[-1]
            weighted = self.loss.rescale(residual, bend[..., start : start + rows, None])[1][
                ..., 0
            ].to(self.dtype)
            result = (
                result + (self.loss.rescale(residual, jacobian)[1].mT @ weighted[..., None])[..., 0]
            )
            start += rows
        return result

    def _workspace(self, params: Params, batch: int) -> Workspace:
        """Blocks of their own, where nothing is accumulated."""
        n = sum(p.shape[batch:].numel() for p in params)
        problems = params[0].shape[:batch]

        def fresh(rows: int) -> Tensor:
            return params[0].new_empty(*problems, rows, n, dtype=self.dtype)

        return fresh

    def prior(self, x: Tensor) -> Prior | None:
        """The penalty as rows √w · x."""
        if self.penalty is None:
            return None
        root = self.penalty.to(self.dtype).sqrt().expand(x.shape)
        return Prior(root, root * x.to(self.dtype))

    def _with_penalty(self, cost: Tensor, x: Tensor) -> Tensor:
        return (
            cost
            if self.penalty is None
            else cost + half_sum(self.penalty * x.to(self.dtype).square())
        )


def total(costs: list[Tensor]) -> Tensor:
    """Their sum, (...,)."""
    return costs[0] if len(costs) == 1 else torch.stack(costs).sum(0)
