"""Classes from logits: the softmax of several outputs, the sigmoid of each.

With p the softmax, y the distribution that is asked for, and A the weight of the sample,

    ℓ = −A Σ y log p,    ℓ′ = A (p − y),    ℓ″ = A (diag p − ppᵀ) = RᵀR,
    R = √A (diag √p − √p pᵀ),    R⁻ᵀℓ′ = ℓ′ / √(A p),

the last because ℓ′ sums to zero. Any other distribution q in the place of p in R leaves Rᵀ R⁻ᵀℓ′
what it is: so what is hopelessly wrong gets a curvature that is not too far below its slope.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .base import wide
from .criterion import FLOOR, Criterion, Targeted, check_range, mismatch, raised


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ), which is zero where eˣ is nothing beside one.

    So a run on separable data ends, as it does with log_softmax: costs without end in sight, of
    1e-100 and less, are of no use.
    """
    return x.clamp(min=0) + (1 + (-x.abs()).exp()).log()


def by_sum(reduction: str) -> None:
    """See that no other reduction is asked for.

    Raises:
        InputError: one is.
    """
    if reduction != "sum":
        raise InputError(
            f"reduction={reduction!r}: costs of samples are summed here, reduction='sum'. Divide "
            "what `step` returns by the number of samples for a mean; a weight_decay is on the "
            "scale of the sum."
        )


class CrossEntropyLoss(Criterion):
    """−Σ log softmax(f)[y], as `torch.nn.CrossEntropyLoss` with reduction="sum".

    Outputs are logits (N, C), (N, C, d₁, …) or (C,); the target has class numbers, (N), (N, d₁, …)
    or (), or probabilities of the shape of the outputs.

    Where the data are separable there is no minimum: the logits grow without end, and so does a
    run, until the loss is zero to round-off. `weight_decay` gives it a minimum.

    Args:
        weight: (C,), of each class. Default: all ones.
        ignore_index: class number that counts as no sample. Default: −100.
        label_smoothing: share of the target that is spread evenly over all classes. Default: 0.
        reduction: "sum", the only one.

    Raises:
        InputError: a smoothing outside of 0 to 1, another reduction.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.tensor([[0.0], [1], [2], [3], [4], [5]], dtype=torch.float64)
        >>> y = torch.tensor([0, 0, 1, 0, 1, 1])
        >>> model = torch.nn.Linear(1, 2, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model, weight_decay=1e-3)
        >>> criterion = lmtorch.CrossEntropyLoss()
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: criterion(model(x), y), x, y)
        >>> model(x).argmax(1).tolist()
        [0, 0, 0, 1, 1, 1]
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "sum",
    ) -> None:
        by_sum(reduction)
        if not 0 <= label_smoothing <= 1:
            raise InputError(f"label_smoothing={label_smoothing} must be from 0 to 1.")
        self.weight = weight
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Any, target: Tensor) -> Targeted:
        """Logits with classes in the second dimension (of one sample in the first), and target.

        Raises:
            InputError: shapes that do not go together.
        """
        shape, found = tuple(outputs.shape), tuple(target.shape)
        classes = min(1, len(shape) - 1)
        lead = shape[:classes] + shape[classes + 1 :]
        if not shape or found != (shape if target.is_floating_point() else lead):
            raise InputError(mismatch(self, shape, found, _remedy(target, shape, lead)))
        if shape[classes] == 1:
            raise InputError(
                f"CrossEntropyLoss was given outputs {shape}, of one class, which is certain "
                "whatever they are. Of two classes with one output use BCEWithLogitsLoss, whose "
                "targets are 0 and 1, or give the model an output for each class."
            )
        if self.weight is not None and self.weight.shape != (shape[classes],):
            raise InputError(
                f"weight has shape {tuple(self.weight.shape)}, and there are {shape[classes]} "
                "classes: one weight for each."
            )
        return Targeted(self, outputs.movedim(classes, -1), (target,))

    def prepare(self, shape: torch.Size, target: Tensor) -> tuple[Tensor, ...]:
        """Class numbers as they are; of probabilities those of a sample side by side."""
        if target.is_floating_point():
            check_range(self, target, 0, math.inf)
            return (target.movedim(min(1, target.ndim - 1), -1),)
        classes = shape[-1]
        number = target.long()  # scatter takes no other integers
        check_range(
            self,
            torch.where(number == self.ignore_index, 0, number),
            0,
            classes - 1,
            f" The outputs have {classes} classes, the second dimension; what counts as no sample "
            f"is {self.ignore_index}, the ignore_index.",
        )
        return (number,)

    def cost(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Σ a log(a/(A p)) with the weight a of each class and A their sum, (s,)."""
        share, whole = self._shares(outputs.shape[-1], target)
        log = torch.log_softmax(outputs, -1)
        found = torch.where(share == 0, 0.0, -share * log).sum(-1)
        return (found - self._entropy(share, whole)).clamp(min=0)

    def least(self, k: int, target: Tensor) -> Tensor:
        """A times the entropy of the target, (s,); zero of class numbers without smoothing."""
        if not target.is_floating_point() and not self.label_smoothing:
            return super().least(k, target)
        return self._entropy(*self._shares(k, target))

    def slope(self, outputs: Tensor, target: Tensor) -> Tensor:
        """A p − a, (s, C)."""
        share, whole = self._shares(outputs.shape[-1], target)
        return whole * torch.softmax(outputs, -1) - share

    def root(self, outputs: Tensor, target: Tensor) -> Tensor:
        """√A (diag √q − √q qᵀ), (s, C, C)."""
        whole, q = self._spread(outputs, target)
        root = q.sqrt()
        found = torch.diag_embed(root) - root[..., :, None] * q[..., None, :]
        return whole.sqrt()[..., None] * found

    def residual(self, outputs: Tensor, target: Tensor) -> Tensor:
        """ℓ′ / √(A q), (s, C)."""
        slope = self.slope(outputs, target)
        whole, q = self._spread(outputs, target)
        return torch.where(slope == 0, 0.0, slope / (whole * q).sqrt())

    def curvature(self, outputs: Tensor, target: Tensor) -> Tensor:
        """A (diag p − ppᵀ), (s, C, C)."""
        _, whole = self._shares(outputs.shape[-1], target)
        p = torch.softmax(outputs, -1)
        return whole[..., None] * (torch.diag_embed(p) - p[..., :, None] * p[..., None, :])

    def _shares(self, classes: int, target: Tensor) -> tuple[Tensor, Tensor]:
        """The weight a of every class in each sample, (s, C), and their sum A, (s, 1)."""
        if target.is_floating_point():
            there, share = None, target
        else:
            there = (target != self.ignore_index)[..., None]
            number = torch.where(there, target[..., None], 0)
            share = wide(torch.zeros_like(number).expand(-1, classes))
            share = share.scatter(-1, number, 1.0)
        if self.label_smoothing:
            share = (1 - self.label_smoothing) * share + self.label_smoothing / classes
        if there is not None:
            share = share * there
        if self.weight is not None:
            share = share * self.weight.to(share)
        return share, share.sum(-1, keepdim=True)

    def _spread(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A, and the distribution q of the curvature: p but for classes that are missed by far."""
        share, whole = self._shares(outputs.shape[-1], target)
        p = torch.softmax(outputs, -1)
        missed = (p - share / torch.where(whole > 0, whole, 1)).abs()
        q = torch.maximum(p, FLOOR * missed)
        return whole, q / q.sum(-1, keepdim=True)

    def _entropy(self, share: Tensor, whole: Tensor) -> Tensor:
        """Σ a log(A/a), (s,)."""
        return -torch.xlogy(share, share / torch.where(whole > 0, whole, 1)).sum(-1)


def _remedy(target: Tensor, outputs: tuple[int, ...], numbers: tuple[int, ...]) -> str:
    """What to do about a target that is neither class numbers nor probabilities, or "".

    Args:
        target: what was given.
        outputs: their shape.
        numbers: that of class numbers.
    """
    found = tuple(target.shape)
    if target.is_floating_point():
        of_numbers = found == numbers
        return "class numbers have to be integers, target.long()." if of_numbers else ""
    if found == outputs:
        return "probabilities have to be floats, target.float()."
    if found[:1] + found[2:] == numbers and found[1:2] == (1,):
        return "class numbers have no dimension for the classes, target.squeeze(1)."
    return ""


class BCEWithLogitsLoss(Criterion):
    """−Σ (y log σ(f) + (1 − y) log σ(−f)), as torch's namesake with reduction="sum".

    Outputs are logits of any shape, targets from 0 to 1 of the same shape. Where the data are
    separable there is no minimum, see `CrossEntropyLoss`.

    Args:
        weight: factor of each cost, a shape that broadcasts to that of the outputs: of a class, or
            of a sample if the criterion is made in the closure. Default: 1.
        pos_weight: factor of the first term, for classes that are rare; broadcasts likewise.
            Default: 1.
        reduction: "sum", the only one.

    Raises:
        InputError: another reduction; in the closure, shapes that do not go together.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.tensor([[0.0], [1], [2], [3], [4], [5]], dtype=torch.float64)
        >>> y = torch.tensor([[0.0], [0], [1], [0], [1], [1]], dtype=torch.float64)
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> opt = lmtorch.LevenbergMarquardt(model)
        >>> criterion = lmtorch.BCEWithLogitsLoss()
        >>> while not opt.status.final:
        ...     loss = opt.step(lambda x, y: criterion(model(x), y), x, y)
        >>> [round(value, 4) for p in model.parameters() for value in p.flatten().tolist()]
        [1.214, -3.0351]
    """

    elementwise = True

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        pos_weight: Tensor | None = None,
        reduction: str = "sum",
    ) -> None:
        by_sum(reduction)
        self.weight = weight
        self.pos_weight = pos_weight

    def check(self, outputs: Any, *targets: Any) -> None:
        """See whether outputs, targets and weights go together.

        Raises:
            InputError: they do not.
        """
        super().check(outputs, *targets)
        for name, weight in (("weight", self.weight), ("pos_weight", self.pos_weight)):
            if weight is None:
                continue
            ends = zip(reversed(weight.shape), reversed(outputs.shape), strict=False)
            if weight.ndim > len(outputs.shape) or any(a not in (1, b) for a, b in ends):
                raise InputError(
                    f"{name} of shape {tuple(weight.shape)} does not broadcast to outputs "
                    f"{tuple(outputs.shape)}."
                )

    def prepare(self, shape: torch.Size, target: Tensor) -> tuple[Tensor, ...]:
        """The weights of log σ(f) and of log σ(−f), (*lead, 1) each."""
        y = wide(target)
        check_range(self, y, 0, 1, " Of -1 and 1 make (y + 1) / 2.")
        ones, others = y, 1 - y
        if self.pos_weight is not None:
            ones = ones * self.pos_weight.to(y)
        if self.weight is not None:
            ones, others = ones * self.weight.to(y), others * self.weight.to(y)
        return ones[..., None], others[..., None]

    def cost(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """Above the entropy of the target."""
        wrong = torch.where(ones == 0, 0.0, ones * softplus(-outputs))
        found = wrong + torch.where(others == 0, 0.0, others * softplus(outputs))
        return (found - self._entropy(ones, others)).clamp(min=0)

    def least(self, k: int, ones: Tensor, others: Tensor) -> Tensor:
        """The entropy of the target, weighted; zero of targets 0 and 1."""
        return self._entropy(ones, others)

    def slope(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """(a + b) σ(f) − a, without cancellation."""
        return others * torch.sigmoid(outputs) - ones * torch.sigmoid(-outputs)

    def root(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """√((a + b) σ(f) σ(−f))."""
        found = self._curvature(outputs, ones, others)
        return raised(found, self.slope(outputs, ones, others)).sqrt()

    def curvature(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        """(a + b) σ(f) σ(−f), (s, 1, 1)."""
        return self._curvature(outputs, ones, others)[..., None]

    def _entropy(self, ones: Tensor, others: Tensor) -> Tensor:
        whole = ones + others
        safe = torch.where(whole > 0, whole, 1)
        return -torch.xlogy(ones, ones / safe) - torch.xlogy(others, others / safe)

    def _curvature(self, outputs: Tensor, ones: Tensor, others: Tensor) -> Tensor:
        return (ones + others) * torch.sigmoid(outputs) * torch.sigmoid(-outputs)
