"""Stop and go on: a run that is saved and resumed has the same bits as one that never stopped."""

from pathlib import Path

import torch

import lmtorch

from .sinc_network import data, network


def main(output: Path = Path("output"), samples: int = 2_000, steps: int = 6) -> bool:
    """Train at once, and in two halves by way of a file. Returns whether the bits agree."""
    x, y = data(samples)
    whole = network()
    opt = lmtorch.LevenbergMarquardt(whole)
    for _ in range(2 * steps):
        opt.step(lambda x, y: whole(x) - y, x, y)

    first = network()
    opt = lmtorch.LevenbergMarquardt(first)
    for _ in range(steps):
        opt.step(lambda x, y: first(x) - y, x, y)
    path = output / "checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": first.state_dict(), "optimizer": opt.state_dict()}, path)

    second = network(seed=1)  # anything: what counts is in the file
    opt = lmtorch.LevenbergMarquardt(second)
    saved = torch.load(path, weights_only=True)
    second.load_state_dict(saved["model"])
    opt.load_state_dict(saved["optimizer"])
    for _ in range(steps):
        opt.step(lambda x, y: second(x) - y, x, y)

    equal = all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True)
    )
    print(
        f"after {2 * steps} steps, resumed at {steps}: "
        f"{'the same bits' if equal else 'DIFFERENT'}; {opt.report}"
    )
    return equal


if __name__ == "__main__":
    main()
