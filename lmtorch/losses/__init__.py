"""What is summed: squares, or robust functions of them."""

from .base import Expansion as Expansion
from .base import Loss as Loss
from .base import Rho as Rho
from .linear import Linear as Linear
from .robust import Barron as Barron
from .robust import Robust as Robust
