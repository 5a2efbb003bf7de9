"""Recognise handwritten digits by a small network with convolutions and the cross-entropy.

1,797 images of 8 × 8 pixels (UCI), of which 360 are held out. The closure returns a criterion in
the place of residuals, and the step is that of generalised Gauss–Newton: products of a sample of
the curvature with conjugate gradients, the loss and its slope of all images.
"""

import gzip
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lmtorch

DATA = Path(__file__).parent / "data" / "digits.csv.gz"
HELD_OUT = 360
Images = tuple[Tensor, Tensor]


def data(seed: int = 0) -> tuple[Images, Images]:
    """Images (s, 1, 8, 8) from 0 to 1 with their digits, to train with and held out."""
    with gzip.open(DATA) as file:
        table = torch.tensor(np.loadtxt(file, delimiter=","), dtype=torch.float32)
    images, digits = table[:, :64].view(-1, 1, 8, 8) / 16, table[:, 64].long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    out, kept = order[:HELD_OUT], order[HELD_OUT:]
    return (images[kept], digits[kept]), (images[out], digits[out])


def network(seed: int = 0) -> nn.Module:
    """Two convolutions and a linear layer, 1,898 parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@torch.no_grad()
def share_right(net: nn.Module, images: Tensor, digits: Tensor) -> float:
    """The share of images whose digit is found."""
    return (net(images).argmax(1) == digits).float().mean().item()


def optimizer(net: nn.Module, seed: int = 0) -> lmtorch.LevenbergMarquardt:
    """Levenberg–Marquardt, which chooses products of a sample of the curvature by itself.

    A classification begins with small slopes: steps may be long from the first. The penalty keeps
    the weights from growing without end once all images are right.
    """
    damping = lmtorch.damping.Nielsen(initial=1e-5)
    return lmtorch.LevenbergMarquardt(net, damping=damping, weight_decay=0.5, seed=seed)


def main(steps: int = 20, enough: float = 0.98) -> float:
    """Train until so many held-out images are right, and print how it went.

    Returns the share of held-out images that are right.
    """
    (images, digits), held_out = data()
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    opt, begun, right = optimizer(net), time.perf_counter(), 0.0
    for step in range(steps):
        loss = opt.step(lambda x, y: criterion(net(x), y), images, digits)
        right = share_right(net, *held_out)
        print(
            f"step {step:2d}  {time.perf_counter() - begun:5.1f} s  cross-entropy before it "
            f"{float(loss) / len(images):.3f}  right: {share_right(net, images, digits):.1%}, "
            f"held out {right:.1%}"
        )
        if right >= enough:
            break
    opt.explain()
    return right


if __name__ == "__main__":
    main()
