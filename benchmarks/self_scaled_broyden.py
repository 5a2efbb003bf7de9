"""SSBroyden: a self-scaled quasi-Newton method with an n × n matrix, to be compared with.

Written from the formulas of Urbán, Stefanou & Pons, Unveiling the optimization process of
physics informed neural networks: how accurate and competitive can PINNs be? (J. Comput. Phys.,
2025), eqs. 13 to 23, after Al-Baali (1998); the update is that which the authors' own program names
SSBroyden2. The line search is scipy's, strong Wolfe.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import line_search
from scipy.optimize._linesearch import LineSearchWarning

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def updated(inverse: Matrix, s: Vector, y: Vector, curvature: float) -> Matrix:
    """The inverse Hessian H after a step s along which the gradient has changed by y.

    Args:
        inverse: H, (n, n), symmetric.
        s: the step.
        y: the change of the gradient, yᵀs > 0.
        curvature: sᵀBs with B = H⁻¹, which is −α sᵀg of a step s = −α H g.

    Returns:
        H⁺ with H⁺ y = s.
    """
    image = inverse @ y
    along, size = float(y @ s), float(y @ image)
    b, h = curvature / along, size / along
    a = max(b * h - 1, 1e-14)  # zero where s and H y are parallel
    lowest = min(1.0, h * (1 - math.sqrt(a / (1 + a))))
    theta = max((lowest - 1) / a, min(1 / lowest, (1 - b) / b))
    sigma = 1 + theta * a
    root = abs(sigma) ** (1 / (1 - len(s)))
    shrink = min(1.0, 1 / b)
    tau = shrink * min(root, 1 / theta) if theta > 0 else min(shrink * root, sigma)
    phi = (1 - theta) / sigma
    v = math.sqrt(size) * (s / along - image / size)
    inner = inverse - np.outer(image, image) / size + phi * np.outer(v, v)
    found: Matrix = inner / tau + np.outer(s, s) / along
    return found


class SelfScaledBroyden:
    """Iterations on one loss, or on several, one after the other.

    Args:
        n: parameters.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.inverse: Matrix = np.eye(n)

    def iterate(
        self,
        x: Vector,
        value: Callable[[Vector], float],
        gradient: Callable[[Vector], Vector],
        count: int,
    ) -> Vector:
        """The point after so many iterations; without progress the matrix begins anew."""
        g = gradient(x)
        for _ in range(count):
            direction = -self.inverse @ g
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LineSearchWarning)  # length is None then
                length, *_, ahead = line_search(value, gradient, x, direction, g)
            if length is None:
                if np.array_equal(self.inverse, np.eye(self.n)):
                    break
                self.inverse = np.eye(self.n)
                continue
            s = length * direction
            x, y = x + s, ahead - g
            if y @ s > 0:
                self.inverse = updated(self.inverse, s, y, float(-length * (s @ g)))
            g = ahead
        return x
