"""Models with named parameters that guess their start from data, and that add and multiply."""

from .base import Model as Model
from .functions import from_function as from_function
from .lines import Linear as Linear
from .peaks import Gaussian as Gaussian
from .specs import from_spec as from_spec
