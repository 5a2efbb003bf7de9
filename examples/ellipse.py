"""An ellipse through points with errors in both coordinates, by true distances: an implicit fit."""

from pathlib import Path

import numpy as np
import torch

import lmtorch

TRUE = {"center_x": 0.4, "center_y": -0.3, "major": 3.0, "minor": 1.4, "angle": 0.5}
NOISE = 0.12


def ellipse(x, center_x, center_y, major, minor, angle):
    """Zero on the ellipse with these half axes, the major one turned by `angle` (radians)."""
    right, up = x[0] - center_x, x[1] - center_y
    along = torch.cos(angle) * right + torch.sin(angle) * up
    across = torch.cos(angle) * up - torch.sin(angle) * right
    return (along / major) ** 2 + (across / minor) ** 2 - 1


def curve(values, phase):
    """Points (2, k) of an ellipse, for drawing."""
    center_x, center_y, major, minor, angle = values
    along, across = major * np.cos(phase), minor * np.sin(phase)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.stack([along, across]) + np.array([[center_x], [center_y]])


def measured() -> np.ndarray:
    """Thirty positions (2, 30) on two thirds of the ellipse, with errors in both coordinates."""
    rng = np.random.default_rng(7)
    clean = curve(list(TRUE.values()), np.linspace(-0.4, 3.6, 30))
    return clean + NOISE * rng.standard_normal(clean.shape)


def main(output: Path = Path("output")) -> float:
    """Fit, print, draw; with a hundred ellipses of resampled points.

    Returns the largest error of a parameter in units of its standard error.
    """
    points = measured()
    start = [*points.mean(1), 2.0, 1.0, 0.0]
    fit = lmtorch.odr(ellipse, points, None, p0=start, sx=NOISE, absolute_sigma=True)
    print(fit.report())
    others = fit.bootstrap(100, "normal")
    for name, error, spread in zip(fit.names, fit.stderr, others.stderr, strict=True):
        print(f"{name:>9}: error {error:.3f} by the linear model, {spread:.3f} by resampling")

    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    phase = np.linspace(0, 2 * np.pi, 300)
    for values in others.samples:
        axis.plot(*curve(values, phase), color="C0", lw=0.6, alpha=0.15)
    axis.plot(*curve(TRUE.values(), phase), color="0.4", ls="--", lw=1, label="true ellipse")
    axis.plot(*curve(fit.popt, phase), color="C3", lw=1.8, label="fit")
    for place, way in enumerate(np.stack([points, fit.x_fit], -1).swapaxes(0, 1)):
        axis.plot(*way, color="0.3", lw=0.8, label=None if place else "way to the curve")
    axis.errorbar(*points, NOISE, NOISE, fmt="o", ms=3.5, mfc="none", lw=0.7, label="measured")
    axis.plot([], [], color="C0", lw=0.6, label="100 resampled fits")
    axis.set(aspect="equal", xlabel="x", ylabel="y")
    axis.legend(frameon=False, loc="upper left", fontsize=8)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "ellipse.png", dpi=90)
    plt.close(figure)
    return float(np.abs((fit.popt - list(TRUE.values())) / fit.stderr).max())


if __name__ == "__main__":
    main()
