"""Rows of the Jacobian, by what is known of their structure."""

from .base import Rows as Rows
from .columns import Columns as Columns
from .factors import Factor as Factor
from .factors import Lookup as Lookup
from .factors import Plain as Plain
from .factors import Weight as Weight
from .layers import LayerBlock as LayerBlock
from .layers import LayerRows as LayerRows
from .matrix import DenseRows as DenseRows
from .outer import Outer as Outer
from .outer import OuterRows as OuterRows
from .own import OwnRows as OwnRows
from .products import ProductRows as ProductRows
