"""NIST's problems of nonlinear regression: data, two starts, certified values, models in torch.

The certified values were computed by NIST in 128-bit arithmetic and are printed to 11 digits, so
the agreement of a fit with them, `log_relative_error`, counts its correct digits.

Reference: NIST Statistical Reference Datasets, Nonlinear Regression,
https://www.itl.nist.gov/div898/strd/nls/
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]

DIRECTORY = Path(__file__).parent / "data" / "nist"
PRINTED_DIGITS = 11


@dataclass(frozen=True, eq=False)
class NistProblem:
    """One problem: fit `model(b, x)` to `y` from either of two starts.

    The residual is model − data. For Nelson `x` is (2, m), a row for each predictor, and `y` is the
    logarithm of the response, which is what NIST fits.
    """

    name: str
    difficulty: str  # NIST's word: "Lower", "Average" or "Higher"
    model: Model = field(repr=False)
    x: Tensor = field(repr=False)  # (m,) or (2, m), float64
    y: Tensor = field(repr=False)  # (m,), float64
    starts: tuple[tuple[float, ...], tuple[float, ...]]  # far, near
    certified: Tensor  # (n,), float64
    certified_std: Tensor  # (n,), float64
    certified_rss: float

    @property
    def n(self) -> int:
        """Number of parameters."""
        return len(self.certified)

    @property
    def m(self) -> int:
        """Number of observations."""
        return len(self.y)

    def residual(
        self,
        b: Tensor,  # (n,)
    ) -> Tensor:  # (m,)
        """Model − data, in the dtype and on the device of `b`."""
        x, y = (data.to(dtype=b.dtype, device=b.device) for data in (self.x, self.y))
        return self.model(b, x) - y


def log_relative_error(estimate: Tensor | np.ndarray | Sequence[float], certified: Tensor) -> float:
    """Correct digits of the worst parameter, 0 to 11: −log₁₀ |estimate − certified| / |certified|.

    Estimates that are not finite have no correct digit.

    Reference: McCullough, Assessing the reliability of statistical software: Part I (1998), eq. 1.
    """
    estimate = torch.as_tensor(estimate, dtype=torch.float64).detach().cpu()
    if not estimate.isfinite().all():
        return 0.0
    error = ((estimate - certified).abs() / certified.abs()).max().item()
    return (
        min(max(-math.log10(error), 0.0), float(PRINTED_DIGITS))
        if error > 0
        else float(PRINTED_DIGITS)
    )


def bennett5(b: Tensor, x: Tensor) -> Tensor:
    """Magnetisation of a superconductor."""
    return b[0] * (b[1] + x) ** (-1 / b[2])


def saturation(b: Tensor, x: Tensor) -> Tensor:
    """Exponential approach to b[0]: BoxBOD and Misra1a."""
    return b[0] * (1 - torch.exp(-b[1] * x))


def chwirut(b: Tensor, x: Tensor) -> Tensor:
    """Ultrasonic response, exponential over linear: Chwirut1 and Chwirut2."""
    return torch.exp(-b[0] * x) / (b[1] + b[2] * x)


def danwood(b: Tensor, x: Tensor) -> Tensor:
    """Radiated energy, a power of the temperature."""
    return b[0] * x ** b[1]


def enso(b: Tensor, x: Tensor) -> Tensor:
    """El Niño: the annual cycle and two cycles of unknown period b[3], b[6]."""
    annual, first, second = 2 * math.pi * x / 12, 2 * math.pi * x / b[3], 2 * math.pi * x / b[6]
    return (
        b[0]
        + b[1] * torch.cos(annual)
        + b[2] * torch.sin(annual)
        + b[4] * torch.cos(first)
        + b[5] * torch.sin(first)
        + b[7] * torch.cos(second)
        + b[8] * torch.sin(second)
    )


def eckerle4(b: Tensor, x: Tensor) -> Tensor:
    """Transmittance, a Gaussian of area ∝ b[0]."""
    return b[0] / b[1] * torch.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def two_gaussians(b: Tensor, x: Tensor) -> Tensor:
    """Two Gaussians on a decaying baseline: Gauss1, Gauss2 and Gauss3."""
    return (
        b[0] * torch.exp(-b[1] * x)
        + b[2] * torch.exp(-((x - b[3]) ** 2) / b[4] ** 2)
        + b[5] * torch.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    )


def cubic_over_cubic(b: Tensor, x: Tensor) -> Tensor:
    """Hahn1 and Thurber."""
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (
        1 + b[4] * x + b[5] * x**2 + b[6] * x**3
    )


def kirby2(b: Tensor, x: Tensor) -> Tensor:
    """Quadratic over quadratic."""
    return (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)


def lanczos(b: Tensor, x: Tensor) -> Tensor:
    """Three exponentials: Lanczos1, Lanczos2 and Lanczos3."""
    return b[0] * torch.exp(-b[1] * x) + b[2] * torch.exp(-b[3] * x) + b[4] * torch.exp(-b[5] * x)


def mgh09(b: Tensor, x: Tensor) -> Tensor:
    """Kowalik and Osborne's enzyme reaction."""
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def mgh10(b: Tensor, x: Tensor) -> Tensor:
    """Meyer's thermistor."""
    return b[0] * torch.exp(b[1] / (x + b[2]))


def mgh17(b: Tensor, x: Tensor) -> Tensor:
    """Osborne's two exponentials on a constant."""
    return b[0] + b[1] * torch.exp(-x * b[3]) + b[2] * torch.exp(-x * b[4])


def misra1b(b: Tensor, x: Tensor) -> Tensor:
    """Adsorption, approach as an inverse square."""
    return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


def misra1c(b: Tensor, x: Tensor) -> Tensor:
    """Adsorption, approach as an inverse square root."""
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def misra1d(b: Tensor, x: Tensor) -> Tensor:
    """Adsorption, hyperbolic approach."""
    return b[0] * b[1] * x / (1 + b[1] * x)


def nelson(b: Tensor, x: Tensor) -> Tensor:
    """Logarithm of the breakdown strength after x[0] weeks at x[1] °C."""
    return b[0] - b[1] * x[0] * torch.exp(-b[2] * x[1])


def rat42(b: Tensor, x: Tensor) -> Tensor:
    """Logistic growth of pasture."""
    return b[0] / (1 + torch.exp(b[1] - b[2] * x))


def rat43(b: Tensor, x: Tensor) -> Tensor:
    """Richards' growth curve of onions."""
    return b[0] / (1 + torch.exp(b[1] - b[2] * x)) ** (1 / b[3])


def roszman1(b: Tensor, x: Tensor) -> Tensor:
    """Quantum defects of iodine."""
    return b[0] - b[1] * x - torch.atan(b[2] / (x - b[3])) / math.pi


MODELS: dict[str, Model] = {
    "Bennett5": bennett5,
    "BoxBOD": saturation,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": danwood,
    "ENSO": enso,
    "Eckerle4": eckerle4,
    "Gauss1": two_gaussians,
    "Gauss2": two_gaussians,
    "Gauss3": two_gaussians,
    "Hahn1": cubic_over_cubic,
    "Kirby2": kirby2,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": mgh09,
    "MGH10": mgh10,
    "MGH17": mgh17,
    "Misra1a": saturation,
    "Misra1b": misra1b,
    "Misra1c": misra1c,
    "Misra1d": misra1d,
    "Nelson": nelson,
    "Rat42": rat42,
    "Rat43": rat43,
    "Roszman1": roszman1,
    "Thurber": cubic_over_cubic,
}


def load(name: str) -> NistProblem:
    """Read one of NIST's files."""
    text = (DIRECTORY / f"{name}.dat").read_text(encoding="ascii")
    header, table = text[: text.rindex("Data:")], text[text.rindex("Data:") :]

    parameters = re.findall(r"^ *b\d+ *= +(\S+) +(\S+) +(\S+) +(\S+) *$", header, re.MULTILINE)
    far, near, certified, certified_std = (
        tuple(map(float, column)) for column in zip(*parameters, strict=True)
    )

    rows = [
        [float(word) for word in line.split()] for line in table.splitlines()[1:] if line.strip()
    ]
    y, *predictors = torch.tensor(rows, dtype=torch.float64).T.contiguous()

    return NistProblem(
        name=name,
        difficulty=_find(r"(Lower|Average|Higher) Level of Difficulty", header),
        model=MODELS[name],
        x=predictors[0] if len(predictors) == 1 else torch.stack(predictors),
        y=y.log() if name == "Nelson" else y,
        starts=(far, near),
        certified=torch.tensor(certified, dtype=torch.float64),
        certified_std=torch.tensor(certified_std, dtype=torch.float64),
        certified_rss=float(_find(r"Residual Sum of Squares: +(\S+)", header)),
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no line like {pattern!r} in a file of NIST's; is it the original?")
    return match.group(1)


PROBLEMS: dict[str, NistProblem] = {name: load(name) for name in MODELS}

# of each difficulty, with an exact solution, a plateau and a start far off among them: for the
# faces that share their loop with `curve_fit`, which is run on all
SIX = ("Misra1a", "Lanczos1", "MGH17", "BoxBOD", "MGH10", "Thurber")
