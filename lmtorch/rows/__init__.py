"""Rows of the Jacobian, by what is known of their structure."""

from .base import Rows as Rows
from .columns import Columns as Columns
from .matrix import DenseRows as DenseRows
from .outer import Outer as Outer
from .outer import OuterRows as OuterRows
from .own import OwnRows as OwnRows
