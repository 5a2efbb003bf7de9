"""A fit that outliers do not move: muons that lose their spin, one bin in ten lost in the read-out.

The points are measured: the asymmetry of muon decay in a sample where the muons' spins turn in the
random fields of nuclei, which is the relaxation of Kubo and Toyabe. Here a tenth of the bins, at
random, is set to zero. What the undamaged data tell is known, so that one sees what each loss makes
of the damaged ones.
"""

from pathlib import Path

import numpy as np
import torch

import lmtorch

DATA = Path(__file__).parent / "data" / "muon.csv"
START = {"amplitude": 0.1, "rate": 0.3, "background": -0.2}
LOSSES = ("linear", "soft_l1", "tukey")


def kubo_toyabe(t, amplitude, rate, background):
    """Muons at rest in normally distributed static fields.

    The asymmetry dips, and a third of it comes back.
    """
    z = (rate * t) ** 2
    return amplitude * (1 / 3 + 2 / 3 * (1 - z) * torch.exp(-z / 2)) + background


def damaged(asymmetry: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A share of the bins set to zero, and which they are."""
    lost = np.random.default_rng(seed).random(len(asymmetry)) < share
    return np.where(lost, 0.0, asymmetry), lost


def main(output: Path = Path("output"), share: float = 0.1, seed: int = 0) -> float:
    """Fit with each loss, compare with the undamaged data, draw.

    Returns how many times nearer Tukey's loss comes than least squares, in the worst parameter.
    """
    time, asymmetry, error = np.loadtxt(DATA, delimiter=",", skiprows=1, unpack=True)
    spoiled, lost = damaged(asymmetry, share, seed)
    known = lmtorch.curve_fit(kubo_toyabe, time, asymmetry, p0=START, sigma=error)
    fits = {
        loss: lmtorch.curve_fit(
            kubo_toyabe, time, spoiled, p0=START, sigma=error, loss=loss, f_scale="mad"
        )
        for loss in LOSSES
    }
    print(
        f"{len(time)} points, reduced chi-square {known.redchi:.3f} before {lost.sum()} "
        "of them were set to zero"
    )
    print(
        f"{'':12}{'amplitude':>20}{'rate (1/µs)':>20}{'background':>21}   off by (in "
        "errors of the undamaged fit)"
    )
    distance = {}
    for name, fit in [("undamaged", known), *fits.items()]:
        distance[name] = float(np.abs((fit.popt - known.popt) / known.stderr).max())
        values = "".join(f"{v:11.4f} ± {e:.4f}" for v, e in zip(fit.popt, fit.stderr, strict=True))
        print(f"{name:12}{values}{distance[name]:12.1f}")
    print("picture:", draw(time, spoiled, error, lost, known, fits, output / "robust_fit.png"))
    return distance["linear"] / distance["tukey"]


def draw(
    time: np.ndarray,
    spoiled: np.ndarray,
    error: np.ndarray,
    lost: np.ndarray,
    known: lmtorch.CurveFit,
    fits: dict[str, lmtorch.CurveFit],
    path: Path,
) -> Path:
    """The damaged data with every curve; how far each is from that of the undamaged data."""
    import matplotlib.pyplot as plt

    grid = np.linspace(0.1, 10, 400)
    truth, lower, upper = known.confidence_band(grid)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.2), width_ratios=(1.35, 1), layout="constrained"
    )
    good = ~lost
    left.errorbar(
        time[good], spoiled[good], error[good], fmt=".", ms=2.5, lw=0.5, color="0.7", zorder=1
    )
    left.plot(
        time[lost], spoiled[lost], "x", ms=4, color="C3", label=f"{lost.sum()} bins set to zero"
    )
    left.plot(grid, truth, color="0.2", lw=4, alpha=0.35, label="fit of the undamaged data")
    right.fill_between(
        grid, lower - truth, upper - truth, color="0.2", alpha=0.2, lw=0, label="its 95% band"
    )
    for (loss, fit), colour, style in zip(
        fits.items(), ("C1", "C0", "C2"), ("--", "-.", "-"), strict=True
    ):
        curve = fit(grid)
        left.plot(grid, curve, style, color=colour, lw=1.6, label=loss)
        right.plot(grid, curve - truth, style, color=colour, lw=1.6, label=loss)
    left.set(xlabel="time (µs)", ylabel="asymmetry", xlim=(0, 10), ylim=(-0.31, 0.12))
    left.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
    right.axhline(0, color="0.2", lw=0.8)
    right.set(
        xlabel="time (µs)", ylabel="distance from the fit of the undamaged data", xlim=(0, 10)
    )
    right.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
