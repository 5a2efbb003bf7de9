"""Fit a curve: thermal expansion of copper, seven parameters, against NIST's certificate."""

import re
from pathlib import Path

import numpy as np
import torch

import lmtorch

DATA = Path(__file__).parent / "data" / "Hahn1.dat"


def read() -> tuple[torch.Tensor, torch.Tensor, list[float], torch.Tensor]:
    """Temperature (K), expansion coefficient, NIST's first start, certified parameters."""
    lines = DATA.read_text().splitlines()
    rows = [
        re.split(r"\s*=\s*|\s+", line.strip())[1:] for line in lines if re.match(r"\s*b\d+ =", line)
    ]
    values = np.loadtxt(lines[60:])
    table = torch.as_tensor(values, dtype=torch.float64)
    certified = torch.tensor([float(row[2]) for row in rows], dtype=torch.float64)
    return table[:, 1], table[:, 0], [float(row[0]) for row in rows], certified


def model(b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A cubic over a cubic."""
    return (b[0] + t * (b[1] + t * (b[2] + t * b[3]))) / (1 + t * (b[4] + t * (b[5] + t * b[6])))


def main(output: Path = Path("output")) -> float:
    """Fit, print beside the certificate, draw. Returns the correct digits of the worst number."""
    t, y, start, certified = read()
    b = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([b])
    steps = 0
    while not opt.status.final:
        opt.step(lambda: model(b, t) - y)
        steps += 1

    fitted = b.detach()
    error = ((fitted - certified) / certified).abs()
    print(f"Hahn1, {len(t)} points, {steps} steps; {opt.status.message}")
    print(opt.report)
    opt.explain()
    print(f"{'':4}{'fitted':>18}{'certified':>18}{'relative error':>16}")
    for i, (value, known, relative) in enumerate(zip(fitted, certified, error, strict=True), 1):
        print(f"b{i:<3}{value:18.10e}{known:18.10e}{relative:16.1e}")
    print("picture:", draw(t, y, fitted, output / "curve_fit_nist.png"))
    return float(-torch.log10(error.max()))


def draw(t: torch.Tensor, y: torch.Tensor, b: torch.Tensor, path: Path) -> Path:
    """Data, curve and residuals."""
    import matplotlib.pyplot as plt

    grid = torch.linspace(float(t.min()), float(t.max()), 400, dtype=t.dtype)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    above.plot(t, y, "o", ms=3.5, mfc="none", color="C0", label="Hahn (NIST), 236 points")
    above.plot(grid, model(b, grid), color="C3", lw=1.5, label="cubic over cubic, 7 parameters")
    above.set(ylabel="thermal expansion of copper")
    above.legend(frameon=False)
    below.axhline(0, color="C3", lw=1)
    below.plot(t, y - model(b, t), "o", ms=3, mfc="none", color="C0")
    below.set(xlabel="temperature (K)", ylabel="residual")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
