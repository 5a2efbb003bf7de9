"""Labelled stacks: the tensor of diffusion in every voxel of a brain, with xarray, Dask and Zarr.

Water diffuses along nerve fibres more easily than across them. The signal with a weighting b along
a unit vector g is s0 exp(−b gᵀDg), where D is a symmetric tensor (Basser, Mattiello & Le Bihan,
1994); its mean and its anisotropy tell tissues and fibres apart. A volume of 10 × 10 × 10 voxels
with 65 images is fitted block by block, and streams to a store; a second run finds it there.
"""

import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import lmtorch.xarray  # noqa: F401  # to import it gives every DataArray its accessor .lm

DATA = Path(__file__).parent / "data" / "dwi_64d.npz"
DARK = 130  # signals that noise hides
ENTRIES = ("xx", "yy", "zz", "xy", "xz", "yz")


def signal(at, s0, xx, yy, zz, xy, xz, yz):
    """Signal at weightings b (ms/µm²) along (x, y, z); D in µm²/ms."""
    b, x, y, z = at
    along = xx * x * x + yy * y * y + zz * z * z
    across = xy * x * y + xz * x * z + yz * y * z
    return s0 * torch.exp(-b * (along + 2 * across))


def stack() -> xr.DataArray:
    """The images, with the weighting and direction of each as coordinates."""
    data = np.load(DATA)
    mm = data["voxel_mm"]
    labels = {
        axis: (axis, size * np.arange(10), {"units": "mm"})
        for axis, size in zip("xyz", mm, strict=True)
    }
    per_image = {"b": ("image", data["bval"] / 1000, {"units": "ms/um^2"})}
    per_image |= {f"g{axis}": ("image", data["bvec"][:, k]) for k, axis in enumerate("xyz")}
    dims = ("x", "y", "z", "image")
    return xr.DataArray(data["signal"].astype(float), labels | per_image, dims, name="signal")


def anisotropy(d: torch.Tensor) -> torch.Tensor:
    """The fractional anisotropy of a tensor with the entries `ENTRIES`: 0 of a sphere, 1 of a line.

    √(3/2) ‖D − mean‖ / ‖D‖.
    """
    mean = d[:3].mean()
    off = 2 * d[3:].square().sum()
    apart = (d[:3] - mean).square().sum() + off
    return (1.5 * apart / (d[:3].square().sum() + off)).sqrt()


def maps(fit: xr.Dataset) -> xr.Dataset:
    """Mean diffusivity and anisotropy with their errors, which the covariance carries over."""
    entries = list(ENTRIES)
    d = fit.curvefit_coefficients.sel(param=entries)
    covariance = fit.curvefit_covariance.sel(cov_i=entries, cov_j=entries).values
    flat = torch.as_tensor(d.values).reshape(-1, 6)
    slopes = torch.func.vmap(torch.func.jacrev(anisotropy))(flat).numpy().reshape(d.shape)
    mean = np.array([1, 1, 1, 0, 0, 0]) / 3
    voxels = d.dims[:-1]
    found = {
        "diffusivity": (d.values @ mean, mean),
        "anisotropy": (torch.func.vmap(anisotropy)(flat).numpy().reshape(d.shape[:-1]), slopes),
    }
    result = xr.Dataset(coords=fit.coords)
    for name, (value, slope) in found.items():
        slope = np.broadcast_to(slope, d.shape)
        error = np.sqrt(np.einsum("...i,...ij,...j", slope, covariance, slope))
        result[name], result[f"{name}_error"] = (voxels, value), (voxels, error)
    return result


def main(output: Path = Path("output")) -> tuple[float, float]:
    """Fit the volume and draw two slices of it.

    Returns the share of bright voxels with a successful fit, and how far the mean diffusivity is
    from that of a linear regression of the logarithms, in units of its error, at the
    median voxel.
    """
    images = stack().chunk({"z": 5})  # in work on a cluster: blocks of some ten thousand voxels
    start = dict.fromkeys(ENTRIES, 0.0) | {"xx": 0.8, "yy": 0.8, "zz": 0.8}
    unweighted = images.isel(image=0, drop=True)
    begun = time.perf_counter()
    fit = images.lm.curvefit(
        ["b", "gx", "gy", "gz"],
        signal,
        reduce_dims="image",
        p0=start | {"s0": unweighted},
        bounds={"s0": (0, np.inf)},
        mask=unweighted > DARK,
        start="neighbour",
        store=output / "diffusion_tensor.zarr",
        resume=True,
    ).load()
    seconds = time.perf_counter() - begun
    good = (fit.curvefit_status > 0).sum() / (unweighted > DARK).sum()
    print(f"{fit.curvefit_status.size} voxels in {seconds:.1f} s, {float(good):.1%} of the bright")
    found = maps(fit)
    for name in ("diffusivity", "anisotropy"):
        value, error = found[name].median(), found[f"{name}_error"].median()
        print(f"{name:12} median {float(value):.3f}, its error {float(error):.3f}")
    print("picture:", draw(images, fit, found, output / "diffusion_tensor.png"))
    apart = abs(found.diffusivity - linear(images)) / found.diffusivity_error
    return float(good), float(apart.median())


def linear(images: xr.DataArray) -> np.ndarray:
    """The mean diffusivity by linear regression of log signal, which noise biases a little."""
    b, x, y, z = (images[name].values for name in ("b", "gx", "gy", "gz"))
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    matrix = np.stack([np.ones_like(b), *(-b * column for column in columns)], 1)
    logs = np.log(np.maximum(images.values, 1)).reshape(-1, len(b))
    entries = np.linalg.lstsq(matrix, logs.T, rcond=None)[0]
    return entries[1:4].mean(0).reshape(images.shape[:-1])


def draw(images: xr.DataArray, fit: xr.Dataset, found: xr.Dataset, path: Path) -> Path:
    """Two slices: the image without weighting, both maps, the error of one, and the status."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 5, figsize=(12, 4.6), layout="compressed")
    shown = (
        ("signal at b = 0", images.isel(image=0), "gray", None),
        ("mean diffusivity (µm²/ms)", found.diffusivity, "viridis", (0, 3)),
        ("fractional anisotropy", found.anisotropy, "viridis", (0, 1)),
        ("its standard error", found.anisotropy_error, "magma", (0, 0.2)),
    )
    flags, words = (fit.curvefit_status.attrs[f"flag_{name}"] for name in ("values", "meanings"))
    meanings = dict(zip(np.ravel(flags).tolist(), words.split(), strict=True))
    seen = np.unique(fit.curvefit_status)
    for row, place in zip(axes, (3, 7), strict=True):
        for axis, (title, values, colours, limits) in zip(row[:4], shown, strict=True):
            low, high = limits or (None, None)
            image = axis.imshow(
                values.isel(z=place).values.T, plt.get_cmap(colours), vmin=low, vmax=high,
                origin="lower",
            )  # fmt: skip
            figure.colorbar(image, ax=axis, shrink=0.9)
            axis.set_title(title if place == 3 else "", fontsize=10)
        order = np.searchsorted(seen, fit.curvefit_status.isel(z=place).values.T)
        colours = plt.get_cmap("Pastel1", len(seen))
        image = row[4].imshow(order, colours, vmin=-0.5, vmax=len(seen) - 0.5, origin="lower")
        bar = figure.colorbar(image, ax=row[4], shrink=0.9, ticks=range(len(seen)))
        bar.ax.set_yticklabels([meanings[int(status)] for status in seen])
        row[4].set_title("status of the fit" if place == 3 else "", fontsize=10)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"z = {float(images.z[place]):.0f} mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
