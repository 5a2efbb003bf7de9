"""Rows of the Jacobian, by what is known of their structure."""

from .base import Rows as Rows
from .columns import Columns as Columns
from .layers import LayerBlock as LayerBlock
from .layers import LayerRows as LayerRows
from .layers import Plain as Plain
from .layers import Weight as Weight
from .matrix import DenseRows as DenseRows
from .outer import Outer as Outer
from .outer import OuterRows as OuterRows
from .own import OwnRows as OwnRows
from .products import ProductRows as ProductRows
