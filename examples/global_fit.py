"""One planet, two nights, two telescopes: a global fit of transits with more or less in common.

HATS-46b dims its star for two hours every 4.74 days. Neither night saw a whole transit with the sky
on both sides, so that each leaves something open which both together tell. What the nights have in
common is for AIC and BIC to say.
"""

from pathlib import Path

import numpy as np
import torch

import lmtorch

DATA = Path(__file__).parent / "data" / "hats46_transit.csv"
NIGHTS = ("LCOGT", "SWOPE")
FIRST, PERIOD = 2457376.68539, 4.7423729  # of mid-transit, days: Brahm et al. (2018)
START = {"mid": 0.0, "depth": 10.0, "duration": 2.0, "ingress": 0.3, "base": 0.0}
SHARED = {
    "separate fits": [],
    "shape in common": ["depth", "duration", "ingress"],
    "shape and time": ["depth", "duration", "ingress", "mid"],
}


def transit(t, mid, depth, duration, ingress, base):
    """A transit: `base` outside, lower by `depth` inside, `duration` long at half of its depth."""
    return base - depth * torch.sigmoid(4 * (duration / 2 - (t - mid).abs()) / ingress)


def read() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """By night: hours from the predicted mid-transit, flux − 1 in parts per thousand, its error."""
    table = np.genfromtxt(DATA, delimiter=",", names=True, dtype=None, encoding="utf-8")
    days = table["bjd"] - FIRST
    hours = 24 * (days - PERIOD * np.round(days / PERIOD))
    nights = [table["telescope"] == name for name in NIGHTS]
    return tuple(
        [values[night] for night in nights]
        for values in (hours, 1e3 * (table["flux"] - 1), 1e3 * table["flux_err"])
    )


def main(output: Path = Path("output")) -> float:
    """Fit with ever more in common, compare, draw.

    Returns the factor by which the error of the duration shrinks.
    """
    hours, flux, error = read()
    fits = {
        name: lmtorch.curve_fit(transit, hours, flux, p0=START, sigma=error, shared=shared)
        for name, shared in SHARED.items()
    }
    print(f"{'':18}{'parameters':>10}{'AIC':>8}{'BIC':>8}   duration (h)")
    for name, fit in fits.items():
        durations = [
            f"{fit[p]:.3f} ± {e:.3f}"
            for p, e in zip(fit.names, fit.stderr, strict=True)
            if p.startswith("duration")
        ]
        print(f"{name:18}{fit.nvarys:10}{fit.aic:8.1f}{fit.bic:8.1f}   {', '.join(durations)}")
    best = fits["shape and time"]
    print(best.report(min_correl=0.4))
    print("picture:", draw(hours, flux, error, fits, output / "global_fit.png"))
    worst = max(
        fits["separate fits"].stderr[fits["separate fits"].names.index(f"duration[{i}]")]
        for i in range(2)
    )
    return worst / best.stderr[best.names.index("duration")]


def draw(
    hours: list[np.ndarray],
    flux: list[np.ndarray],
    error: list[np.ndarray],
    fits: dict[str, lmtorch.CurveFit],
    path: Path,
) -> Path:
    """Each night fitted by itself, beside both fitted at once."""
    import matplotlib.pyplot as plt

    apart, together = fits["separate fits"], fits["shape and time"]
    grid = np.linspace(-2.5, 2.5, 600)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for side, fit in zip(axes, (apart, together), strict=True):
        for i, (night, colour) in enumerate(zip(NIGHTS, ("C0", "C1"), strict=True)):
            down = -22 * i
            side.errorbar(
                hours[i], flux[i] + down, error[i], fmt="o", ms=3, mfc="white", lw=0.7, color=colour
            )
            curve, lower, upper = fit.confidence_band(grid, dataset=i)
            side.fill_between(grid, lower + down, upper + down, color="C3", alpha=0.25, lw=0)
            side.plot(grid, curve + down, color="C3", lw=1.4)
            side.text(-2.4, down + 3.4, night, color=colour, weight="bold")
        side.set(xlabel="hours from the predicted mid-transit", ylim=(-42, 9))
    axes[0].set(ylabel="flux − 1 (parts per thousand, the second night shifted)")
    axes[0].set_title(
        f"each night by itself: {apart.nvarys} parameters, BIC {apart.bic:.0f}", fontsize=11
    )
    axes[1].set_title(
        f"one shape, one time: {together.nvarys} parameters, BIC {together.bic:.0f}", fontsize=11
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
