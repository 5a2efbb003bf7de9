"""A fit in every pixel: two diffusion coefficients of the brain from 21 images, in one call.

Intravoxel incoherent motion (Le Bihan et al., 1988): a share of the signal is from blood in
capillaries, and is soon lost as the diffusion weighting b grows; the rest is from water in the
tissue, and lasts. Such pairs of exponentials are hard to tell apart: where the data do not, a
parameter ends at its bound, and gets no error instead of a wrong one.
"""

import time
from pathlib import Path

import numpy as np
import torch
from scipy import optimize

import lmtorch

DATA = Path(__file__).parent / "data" / "ivim_mri.npz"
# free water diffuses by 3e-3 mm²/s: tissue slower, blood faster
BOUNDS = ([0, 0, 3e-3, 0], [np.inf, 1, 0.3, 3e-3])
TIGHT = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12}  # at its defaults SciPy stops on the way
NAMES = (
    "signal without weighting",
    "share of blood",
    "D of blood (10⁻³ mm²/s)",
    "D of tissue (10⁻³ mm²/s)",
)


def ivim(b, s0, share, d_blood, d_tissue):
    """Signal at the weighting b (s/mm²)."""
    return s0 * (share * torch.exp(-b * d_blood) + (1 - share) * torch.exp(-b * d_tissue))


def ivim_numpy(b, s0, share, d_blood, d_tissue):
    """The same for SciPy."""
    return s0 * (share * np.exp(-b * d_blood) + (1 - share) * np.exp(-b * d_tissue))


def main(output: Path = Path("output"), copies: int = 30) -> float:
    """Fit the image, then noisy copies of it; time that beside a loop over SciPy; draw.

    Returns the share of pixels in which the sum of squares is no larger than SciPy's.
    """
    stack = np.load(DATA)
    b, signal = stack["bval"], stack["signal"].astype(float)  # (21,), (10, 10, 21)
    # s0: of each pixel
    start = {"s0": signal[..., :5].mean(-1), "share": 0.2, "d_blood": 0.02, "d_tissue": 8e-4}

    fit = lmtorch.curve_fit(ivim, b, signal, p0=start, bounds=BOUNDS)
    print(fit.report())

    noise = (
        np.random.default_rng(0).standard_normal((copies, *signal.shape))
        * np.sqrt(fit.redchi)[..., None]
    )
    starts = start | {"s0": np.tile(start["s0"], (copies, 1, 1))}
    begun = time.perf_counter()
    again = lmtorch.curve_fit(ivim, b, fit.best_fit + noise, p0=starts, bounds=BOUNDS)
    ours = copies * 100 / (time.perf_counter() - begun)

    begun, rival = time.perf_counter(), np.empty_like(fit.popt)
    for pixel in np.ndindex(10, 10):
        p0 = [start["s0"][pixel], 0.2, 0.02, 8e-4]
        rival[pixel], _ = optimize.curve_fit(
            ivim_numpy, b, signal[pixel], p0, bounds=BOUNDS, x_scale=[100, 0.1, 0.01, 1e-3], **TIGHT
        )
    theirs = 100 / (time.perf_counter() - begun)

    print(f"{copies * 100} fits of noisy copies in one call: {ours:.0f} a second", end="; ")
    print(f"a loop over scipy.optimize.curve_fit: {theirs:.0f} a second")
    print("medians    " + "".join(f"{name:>12}" for name in fit.names))
    known = np.where(np.isfinite(fit.stderr), fit.stderr, np.nan)
    rows = {
        "value": fit.popt,
        "error": known,
        "of copies": again.popt.std(0, ddof=1),
        "SciPy": rival,
    }
    for name, values in rows.items():
        # where a pixel has no blood, its D may be anything: the median is of those that know it
        medians = np.nanmedian(np.where(np.isfinite(known), values, np.nan), (0, 1))
        print(f"{name:11}" + "".join(f"{value:12.4g}" for value in medians))
    print("picture:", draw(b, signal, fit, known, output / "image_stack.png"))
    left = ivim_numpy(b, *np.moveaxis(rival, -1, 0)[..., None]) - signal
    return float(np.mean(fit.chisqr < 1.001 * (left**2).sum(-1)))


def draw(
    b: np.ndarray, signal: np.ndarray, fit: lmtorch.CurveFit, error: np.ndarray, path: Path
) -> Path:
    """Three of the pixels with their curves; maps of the parameters above maps of their errors."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm, Normalize

    figure, axes = plt.subplots(2, 4, figsize=(10.5, 5), layout="compressed")
    image, curves = axes[:, 0]
    figure.colorbar(image.imshow(signal[..., 0], cmap="gray"), ax=image, shrink=0.9)
    image.set_title("signal at b = 0", fontsize=10)
    grid = np.linspace(0, b.max(), 300)
    for (row, column), colour in (((5, 3), "C2"), ((2, 1), "C0"), ((9, 7), "C1")):
        one = fit.at((row, column))
        curve, lower, upper = (side / one["s0"] for side in one.confidence_band(grid))
        curves.fill_between(grid, lower, upper, color=colour, alpha=0.25, lw=0)
        curves.plot(grid, curve, color=colour, lw=1.3)
        curves.plot(b, signal[row, column] / one["s0"], "o", ms=3, mfc="white", color=colour)
        image.plot(column, row, "s", ms=9, mfc="none", mew=2, color=colour)
    curves.set(xlabel="b (s/mm²)", xlim=(0, b.max()), ylim=(0, 1.25), box_aspect=1)
    curves.set_title("signal/s0, fit, 95% band", fontsize=10)

    for i, unit, scale in ((1, 1, Normalize), (2, 1e3, LogNorm), (3, 1e3, Normalize)):
        for place, values, colours in (
            (0, unit * fit.popt[..., i], "viridis"),
            (1, unit * error[..., i], "magma"),
        ):
            low, high = np.nanquantile(values, (0.03, 0.95))
            shown = axes[place, i].imshow(
                values, plt.get_cmap(colours).with_extremes(bad="0.85"), scale(low, high)
            )
            figure.colorbar(shown, ax=axes[place, i], shrink=0.9)
        axes[0, i].set_title(NAMES[i], fontsize=10)
        axes[1, i].set_title("its standard error", fontsize=10)
    for axis in (image, *axes[:, 1:].flat):
        axis.set(xticks=[], yticks=[])
    axes[1, 2].set_xlabel("grey: at a bound or undetermined, no error is given", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
