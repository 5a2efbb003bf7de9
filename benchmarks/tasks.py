"""The networks and data of the benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

PYPOSE = "PyPose LM"  # its vectorized Jacobian of 10,000 rows at once takes more than 12 GiB
CONCRETE = Path(__file__).parents[1] / "examples" / "data" / "concrete.csv"


@dataclass(frozen=True)
class Task:
    """Fit a network to data; loss is the mean of the squared residuals."""

    name: str
    widths: tuple[int, ...]
    data: Callable[[], tuple[Tensor, Tensor]]
    targets: tuple[float, ...]  # losses to reach
    seconds: float  # given to each rival
    without: tuple[str, ...] = ()  # rivals that it is too large for

    def network(self, seed: int) -> nn.Module:
        """A tanh network, float32."""
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for wide, next_wide in zip(self.widths, self.widths[1:], strict=False):
            layers += [nn.Linear(wide, next_wide), nn.Tanh()]
        return nn.Sequential(*layers[:-1])


def noisy_sinc() -> tuple[Tensor, Tensor]:
    """10⁴ samples of sinc on [−3, 3] with Gaussian noise of variance 0.01."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(10_000, 1, generator=generator) * 6 - 3
    return x, torch.sinc(x) + 0.1 * torch.randn(x.shape, generator=generator)


def concrete() -> tuple[Tensor, Tensor]:
    """Compressive strength of 1,030 concretes from 8 numbers (Yeh 1998), standardised."""
    values = np.genfromtxt(CONCRETE, delimiter=",", skip_header=1)
    table = torch.as_tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)
    return table[:, :8], table[:, 8:]


def wide_table() -> tuple[Tensor, Tensor]:
    """20,640 synthetic rows of 8 numbers, the shape of the usual housing table: many rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_640, 8, generator=generator)
    y = torch.sin(x[:, :4].sum(1, keepdim=True)) + 0.5 * x[:, 4:5] * x[:, 5:6]
    return x, y + 0.2 * torch.randn(y.shape, generator=generator)


SINC = Task(
    "noisy sinc, 1-20-20-1, 10,000 rows",
    (1, 20, 20, 1),
    noisy_sinc,
    (0.02, 0.0105, 0.0102, 0.01013),
    5.0,
    (PYPOSE,),
)
CONCRETE_TABLE = Task(
    "concrete, 8-32-32-1, 1,030 rows", (8, 32, 32, 1), concrete, (0.1, 0.05, 0.02, 0.01), 6.0
)
WIDE = Task(
    "synthetic table, 8-32-32-1, 20,640 rows",
    (8, 32, 32, 1),
    wide_table,
    (0.2, 0.1, 0.06, 0.05),
    20.0,
    (PYPOSE,),
)
