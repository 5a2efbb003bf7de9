"""What is summed: squares, robust functions of them, or a likelihood of outputs and targets."""

from .base import Expansion as Expansion
from .base import Loss as Loss
from .base import Rho as Rho
from .classes import BCEWithLogitsLoss as BCEWithLogitsLoss
from .classes import CrossEntropyLoss as CrossEntropyLoss
from .counts import BinomialNLLLoss as BinomialNLLLoss
from .counts import NegativeBinomialNLLLoss as NegativeBinomialNLLLoss
from .counts import PoissonNLLLoss as PoissonNLLLoss
from .criterion import Criterion as Criterion
from .densities import GaussianNLLLoss as GaussianNLLLoss
from .densities import MSELoss as MSELoss
from .linear import Linear as Linear
from .robust import Barron as Barron
from .robust import Robust as Robust
