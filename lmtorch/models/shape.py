"""`Shape`: what the models of the library have in common."""

from .base import Model


class Shape(Model):
    """A model of the library, which takes a prefix and nothing else.

    Args:
        prefix: is set before the names of the parameters, see `Model`. Default: none.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__(prefix)
