"""A table that is read from its file in every pass, by a `DataLoader` with a worker.

Nothing of it is kept in memory but JᵀJ and Jᵀr, so the file may be as large as the disk.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import lmtorch

DATA = Path(__file__).parent / "data" / "concrete.csv"


class Rows(IterableDataset[tuple[Tensor, Tensor]]):
    """The rows of the file, one after another: eight numbers of a concrete and its strength."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        with self.path.open() as lines:
            next(lines)  # the names of the columns
            for line in lines:
                row = torch.tensor([float(entry) for entry in line.split(",")])
                yield row[:8], row[8:]


def moments(loader: DataLoader[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column, by one pass."""
    count, sums, squares = 0, torch.zeros(9, dtype=torch.float64), torch.zeros(9)
    for x, y in loader:
        table = torch.cat([x, y], 1).double()
        count, sums, squares = count + len(x), sums + table.sum(0), squares + (table**2).sum(0)
    mean = sums / count
    return mean.float(), (squares / count - mean**2).sqrt().float()


def main(steps: int = 15, workers: int = 1) -> float:
    """Train a network, print the error of the fit in MPa and return it."""
    loader = DataLoader(Rows(DATA), batch_size=256, num_workers=workers)
    mean, deviation = moments(loader)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 1))

    def residuals(x: Tensor, y: Tensor) -> Tensor:
        return net((x - mean[:8]) / deviation[:8]) - (y - mean[8:]) / deviation[8:]

    opt = lmtorch.LevenbergMarquardt(net, weight_decay=0.1)
    for number in range(steps):
        loss = opt.step(residuals, loader)
        print(f"step {number + 1:2}: {float(loss):8.2f}, {opt.report.trials} trials")
    opt.explain()
    with torch.no_grad():
        squares = [residuals(x, y).square().flatten() for x, y in loader]
    error = float(deviation[8] * torch.cat(squares).mean().sqrt())
    print(f"root mean square error {error:.2f} MPa, of a deviation of {float(deviation[8]):.1f}")
    return error


if __name__ == "__main__":
    main()
