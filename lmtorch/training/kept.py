"""What an optimizer keeps between steps in `Optimizer.state`: λ for all, D and the last step.

The step is the last one that was kept. What does not fit a parameter any more is forgotten.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..choose import Plan
from ..core.state import Start, State, Told
from ..core.termination import Status
from ..residuals.layout import Layout
from .checkpoints import blank_damping, label, restored_damping

BY_PARAMETER = ("scale", "last_step")  # what is kept for each entry of a parameter
COMMON = 0.5  # share of what a sample of rows gains that all rows gain, or the sample doubles
SILENT = frozenset({Status.ZERO, Status.FLAT})  # ends of data that may depend on no parameter
DOUBLING = 0.25  # gain ratio under which the sample of rows for JᵀJ doubles


class Kept:
    """Reads and writes the state of an optimizer.

    Args:
        state: the optimizer's, by parameter.
        param_groups: the optimizer's.
    """

    def __init__(
        self,
        state: MutableMapping[Tensor, dict[str, Any]],
        param_groups: Sequence[dict[str, Any]],
    ) -> None:
        self.state = state
        self.param_groups = param_groups

    @property
    def common(self) -> dict[str, Any]:
        """State that belongs to no parameter, under one, where `torch.optim.LBFGS` keeps its own.

        The holder is the first that is not frozen: of others torch's checkpoints take none.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        holder = next((p for p in parameters if "step" in self.state.get(p, {})), None)
        if holder is None:
            holder = next((p for p in parameters if p.requires_grad), parameters[0])
        return self.state[holder]

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        steps: int = self.common.get("step", 0)
        return steps

    def share(self, plan: Plan) -> float | None:
        """The share of the samples that JᵀJ is made of in the next step; None: all."""
        return None if plan.share is None else self.common.get("share") or plan.share

    def judge_share(
        self,
        plan: Plan,
        told: Told,
        before: Start,
        gained: float | None = None,
        changed: Tensor | None = None,
    ) -> None:
        """Double the share after a step that gained much less than its sample had promised.

        Of rows that are mixed only on the data of the step before: on others the step is no better
        for more rows of a batch, whose slope is as rough as its curvature.

        Args:
            plan: of the step.
            told: of it.
            before: what it began with.
            gained: what all rows have gained over what the sample itself has; None: the model has
                known the gradient of all of them.
            changed: whether the data are others than those of the step before, () bool; None: there
                was none.
        """
        share = self.share(plan)
        if share is None or told.resting or told.ended == Status.NOT_FINITE:
            return
        if told.gain < DOUBLING or (gained is not None and not gained >= COMMON):
            if plan.mixes and (changed is None or bool(changed)):
                return
            # equations of more than half of the rows cost nearly as much as those of all of them
            most = 1.0 if gained is None else 0.5
            self.common["share"] = 2 * share if 2 * share <= most else 1.0
            if gained is not None:
                self._forget_damping(before)

    def _forget_damping(self, before: Start) -> None:
        """Have the next step begin with no more damping than this one did.

        Trials refused because a sample does not stand for all rows raise λ without end, but say
        nothing of the equations of more rows.
        """
        if before.damping is None:
            del self.common["damping"]  # it begins afresh
        elif bool(before.damping.damping < self.common["damping"]["damping"]):
            self.common["damping"] = before.damping._asdict()

    def prepare(self, layout: Layout, plan: Plan) -> None:
        """Before the first step, fill in blanks of the shapes that the state will have."""
        x = layout.flatten()
        damping = blank_damping(plan.method.damping, x.new_empty(0, dtype=plan.dtype))
        nothing = torch.full((), torch.nan, dtype=torch.float64, device=x.device)
        self.common.update(step=0, strategy=0, share=0.0, damping=damping._asdict(), loss=nothing)
        for tensor, scale in zip(layout.tensors, layout.split(x), strict=True):
            for name in BY_PARAMETER:
                self.state[tensor][name] = torch.zeros_like(scale, dtype=plan.dtype)

    def start(self, layout: Layout, plan: Plan, x: Tensor) -> Start:
        """Where the loop starts: at the parameters, with λ, D and the step of before."""
        common = self.common
        nothing = torch.zeros_like(x, dtype=plan.dtype)
        if not self.steps:
            return Start(x, step=nothing)
        scale, step = (self._by_parameter(name, layout, nothing) for name in BY_PARAMETER)
        damping = None
        if "damping" in common and common.get("strategy") == label(plan.method.damping):
            like = x.new_empty(0, dtype=plan.dtype)
            kind = type(blank_damping(plan.method.damping, like))
            damping = restored_damping(common["damping"], kind)
        if damping is None:  # under another strategy all begins afresh
            return Start(x, scale, step=nothing)
        step = nothing if step is None else step
        return Start(x, scale, damping, step=step, cost=common.get("loss"))

    def _by_parameter(self, name: str, layout: Layout, like: Tensor) -> Tensor | None:
        """What is kept for each parameter, zero where nothing fits; None: nothing is kept."""
        known = []
        for tensor, shape in zip(layout.tensors, layout.shapes, strict=True):
            kept = self.state[tensor].get(name) if tensor in self.state else None
            known.append(kept if kept is not None and kept.shape == shape else None)
        if all(part is None for part in known):
            return None
        return layout.vector(known, 0.0, like)

    def keep(
        self, layout: Layout, plan: Plan, state: State, told: Told, before: Start | None = None
    ) -> None:
        """Remember what the next step needs, of a step that began with `before`."""
        common = self.common
        common["step"] = self.steps + 1
        common.setdefault("share", 0.0)  # none yet
        if told.ended == Status.NOT_FINITE:
            return  # it says nothing of the scale or damping of the next batch
        if before is not None and before.damping is None and told.ended in SILENT:
            return  # as if it had not been: λ of rows of zeros would be refused for many steps
        for name, kept in zip(BY_PARAMETER, (state.scale, state.step), strict=True):
            assert kept is not None  # the start has asked for the step
            for tensor, part in zip(layout.tensors, layout.split(kept), strict=True):
                self.state[tensor][name] = part.clone()
        common["strategy"] = label(plan.method.damping)
        common["damping"] = state.damping._asdict()
        common["loss"] = state.cost.clone()
