"""What is minimised: residuals as pure functions of the parameters."""

from .base import Part as Part
from .base import Residual as Residual
