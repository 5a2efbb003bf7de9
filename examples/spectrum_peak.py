"""Which line shape has a peak on a flat background? Gaussian, Lorentzian, pseudo-Voigt compared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import lmtorch

DATA = Path(__file__).parent / "data" / "peak.csv"
START = {"center": 9.0, "fwhm": 2.0, "offset": 0.0}


def gaussian(x, height, center, fwhm, offset):
    """What many small causes together make of a line."""
    return height * torch.exp2(-(((x - center) / (fwhm / 2)) ** 2)) + offset


def lorentzian(x, height, center, fwhm, offset):
    """What a finite lifetime makes of it: wider wings."""
    return height / (1 + ((x - center) / (fwhm / 2)) ** 2) + offset


def pseudo_voigt(x, height, center, fwhm, offset, mixing):
    """Both: a share `mixing` of the Lorentzian and the rest of the Gaussian, of one width."""
    line = height, center, fwhm, offset
    return mixing * lorentzian(x, *line) + (1 - mixing) * gaussian(x, *line)


def fit(shape: Callable[..., torch.Tensor], **options: object) -> lmtorch.CurveFit:
    """One of the shapes; all start from the same rough guess."""
    x, y = np.loadtxt(DATA, delimiter=",", skiprows=1, unpack=True)
    start = START | {"height": y.max()} | ({"mixing": 0.5} if shape is pseudo_voigt else {})
    return lmtorch.curve_fit(shape, x, y, p0=start, **options)


def main(output: Path = Path("output")) -> float:
    """Fit all three, compare, report the best, draw.

    Returns by how much its AIC is better than the runner-up's.
    """
    fits = {shape.__name__: fit(shape) for shape in (gaussian, lorentzian, pseudo_voigt)}
    best, second = sorted(fits.values(), key=lambda one: one.aic)[:2]
    print(
        f"{'':14}{'parameters':>11}{'chi-square':>12}{'AIC':>10}{'BIC':>10}"
        f"{'full width':>14}{'offset':>12}"
    )
    for name, one in fits.items():
        print(
            f"{name:14}{one.nvarys:11}{one.chisqr:12.3f}{one.aic:10.1f}{one.bic:10.1f}"
            f"{one['fwhm']:14.4f}{one['offset']:12.4f}"
        )
    print(best.report())

    x, y = np.loadtxt(DATA, delimiter=",", skiprows=1, unpack=True)
    _, lower, upper = best.prediction_band(x)
    inside = np.mean((lower < y) & (y < upper))
    print(f"{inside:.1%} of the points lie in the 95% prediction band")
    print("picture:", draw(x, y, fits, output / "spectrum_peak.png"))
    return second.aic - best.aic


def draw(x: np.ndarray, y: np.ndarray, fits: dict[str, lmtorch.CurveFit], path: Path) -> Path:
    """Data and the best curve in its bands, the tip enlarged; residuals of all three shapes."""
    import matplotlib.pyplot as plt

    best = min(fits.values(), key=lambda one: one.aic)
    grid = np.linspace(x.min(), x.max(), 500)
    curve, lower, upper = best.confidence_band(grid)
    _, least, most = best.prediction_band(grid)
    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    left, *right = figure.subplot_mosaic("ab;ac;ad", width_ratios=(1.35, 1)).values()
    inset = left.inset_axes((0.63, 0.44, 0.36, 0.54))
    for axes in (left, inset):
        axes.fill_between(
            grid, least, most, color="C3", alpha=0.12, lw=0, label="95% of new points"
        )
        axes.plot(x, y, "o", ms=3, mfc="none", mew=0.8, color="C0", label="data, 401 points")
        axes.fill_between(
            grid, lower, upper, color="C3", alpha=0.4, lw=0, label="95% band of the curve"
        )
        axes.plot(grid, curve, color="C3", lw=1.2, label="pseudo-Voigt")
    inset.set(xlim=(8.6, 9.9), ylim=(9.0, 10.7), xticks=[9.0, 9.5], yticks=[9, 10])
    inset.tick_params(labelsize=8)
    left.indicate_inset_zoom(inset, edgecolor="0.4")
    left.set(xlabel="x", ylabel="signal", ylim=(-0.8, 12.5))
    left.legend(frameon=False, loc="upper left", fontsize=9)
    for axes, (name, one) in zip(right, fits.items(), strict=True):
        axes.axhline(0, color="0.6", lw=0.8)
        axes.plot(x, -one.residual, ".", ms=3, color="C3" if one is best else "0.45")
        axes.set(ylim=(-0.95, 1.15), yticks=[-0.5, 0, 0.5])
        axes.tick_params(labelbottom=one is fits["pseudo_voigt"])
        label = f"{name.title().replace('_', '-')}:  AIC −{-one.aic:.0f},  χ² {one.chisqr:.1f}"
        axes.text(0.02, 0.95, label, transform=axes.transAxes, va="top", fontsize=9)
    right[1].set(ylabel="data − fit")
    right[2].set(xlabel="x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
