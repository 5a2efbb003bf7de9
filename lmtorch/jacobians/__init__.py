"""Where the Jacobian comes from."""

from .autograd import Autograd as Autograd
from .base import Bending as Bending
from .base import Block as Block
from .base import JacobianSource as JacobianSource
from .base import Workspace as Workspace
from .dual_numbers import DualNumbers as DualNumbers
from .finite_difference import FiniteDifference as FiniteDifference
from .forward import Forward as Forward
from .given import GivenJacobian as GivenJacobian
from .layerwise import LayerWise as LayerWise
from .per_sample import PerSample as PerSample
from .products import Products as Products
from .reverse import Reverse as Reverse
