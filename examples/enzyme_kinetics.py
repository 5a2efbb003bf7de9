"""How sure is an enzyme's Michaelis constant? Standard errors, profiles and a bootstrap compared.

The data are the twelve rates of Puromycin-treated cells that Bates & Watts (1988, p. 269)
print from Treloar (1974): the textbook's case of intervals that are nearly, but not quite,
those of a linear model.
"""

from pathlib import Path

import numpy as np

import lmtorch

# ppm
CONCENTRATION = np.array([0.02, 0.02, 0.06, 0.06, 0.11, 0.11, 0.22, 0.22, 0.56, 0.56, 1.10, 1.10])
RATE = np.array([76.0, 47, 97, 107, 123, 139, 159, 152, 191, 201, 207, 200])  # counts/min²
KNOWN = {"v_max": 212.684, "k_m": 0.064121}  # the digits that R's nls gives


def michaelis_menten(concentration, v_max, k_m):
    """Half of v_max is reached at the concentration k_m."""
    return v_max * concentration / (k_m + concentration)


def main(output: Path = Path("output"), samples: int = 1000) -> float:
    """Fit, print three kinds of 95% intervals, draw.

    Returns the largest relative distance from the known fit.
    """
    fit = lmtorch.curve_fit(michaelis_menten, CONCENTRATION, RATE, p0={"v_max": 200, "k_m": 0.1})
    print(fit.report())

    profile = fit.profile()
    linear = {  # value ± t · stderr: the interval of a linear model
        name: (fit[name] - profile.limit * error, fit[name] + profile.limit * error)
        for name, error in zip(fit.names, fit.stderr, strict=True)
    }
    bootstrap = fit.bootstrap(samples)
    print("\n95% intervals")
    for name in fit.names:
        print(f"{name}: {fit[name]:.6g}, known {KNOWN[name]:g}")
        for kind, ends in (
            ("linear", linear[name]),
            ("profile", profile.intervals[name]),
            (f"bootstrap, {samples} refits", bootstrap.interval()[name]),
        ):
            below, above = fit[name] - ends[0], ends[1] - fit[name]
            print(f"    {kind:24} {ends[0]:9.4g} to {ends[1]:<9.4g} −{below:.3g} +{above:.3g}")

    print("picture:", draw(fit, profile, linear, bootstrap, output / "enzyme_kinetics.png"))
    return max(abs(fit[name] / value - 1) for name, value in KNOWN.items())


def draw(
    fit: lmtorch.CurveFit,
    profile: object,
    linear: dict[str, tuple[float, float]],
    bootstrap: object,
    path: Path,
) -> Path:
    """Draw the curve in its band, and both profiles, which are straight for a linear model."""
    import matplotlib.pyplot as plt

    figure, (left, *right) = plt.subplots(
        1, 3, figsize=(10, 3.8), width_ratios=(1.5, 1, 1), layout="constrained"
    )
    grid = np.linspace(0, 1.2, 300)
    curve, lower, upper = fit.confidence_band(grid)
    _, least, most = fit.prediction_band(grid)
    left.fill_between(grid, least, most, color="C3", alpha=0.10, lw=0, label="95% of new points")
    left.fill_between(
        grid, lower, upper, color="C3", alpha=0.30, lw=0, label="95% band of the curve"
    )
    left.plot(grid, curve, color="C3", lw=1.5, label="Michaelis–Menten")
    left.plot(CONCENTRATION, RATE, "o", ms=5, mfc="white", color="C0", label="Treloar (1974)")
    left.plot([0, fit["k_m"], fit["k_m"]], [fit["v_max"] / 2] * 2 + [0], ":", color="0.4", lw=1)
    left.annotate("$K_m$", (fit["k_m"], 6), (5, 0), textcoords="offset points", color="0.3")
    left.set(xlabel="substrate (ppm)", ylabel="rate (counts/min²)", xlim=(0, 1.2), ylim=(0, 245))
    left.legend(frameon=False, loc="lower right")

    limit = profile.limit
    for axes, name, label in zip(
        right, fit.names, ("$v_{max}$ (counts/min²)", "$K_m$ (ppm)"), strict=True
    ):
        axes.axhspan(-limit, limit, color="C0", alpha=0.10, lw=0)
        axes.plot(linear[name], (-limit, limit), "--", color="0.5", lw=1.2, label="linear")
        axes.plot(profile.values[name], profile.tau[name], color="C3", lw=1.8, label="profile")
        axes.plot(profile.intervals[name], (-limit, limit), "o", ms=5, mfc="white", color="C3")
        density = axes.twinx()
        density.hist(
            bootstrap.samples[:, fit.names.index(name)],
            24,
            color="C2",
            alpha=0.25,
            label="bootstrap",
        )
        density.set(yticks=[], ylim=(0, density.get_ylim()[1] * 2.5))
        width = profile.intervals[name][1] - profile.intervals[name][0]
        axes.set(
            xlabel=label,
            xlim=(fit[name] - 0.85 * width, fit[name] + 0.85 * width),
            ylim=(-3.6, 3.6),
        )
        axes.set_zorder(density.get_zorder() + 1)
        axes.patch.set_visible(False)
    right[0].set(ylabel="τ: root of the rise of χ², in σ")
    handles = [
        *right[0].get_legend_handles_labels()[0],
        plt.Rectangle((0, 0), 1, 1, color="C2", alpha=0.25, lw=0),
    ]
    right[0].legend(handles, ["linear", "profile", "bootstrap"], frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
