"""In which form the linear model is held."""

from .base import Accumulator as Accumulator
from .base import Exact as Exact
from .base import Form as Form
from .base import Linearization as Linearization
from .base import Prior as Prior
from .blocks import Blocks as Blocks
from .blocks import BlocksForm as BlocksForm
from .dense import Dense as Dense
from .dense import DenseForm as DenseForm
from .layered import Layered as Layered
from .layered import LayeredForm as LayeredForm
from .normal import Normal as Normal
from .normal import NormalForm as NormalForm
from .products import ByProducts as ByProducts
from .products import ProductsForm as ProductsForm
