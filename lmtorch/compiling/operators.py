"""The operators of torch that can be written as expressions, by name."""

from . import adding, elementwise, moving
from .rules import Rule

RULES: dict[str, Rule] = {**elementwise.RULES, **moving.RULES, **adding.RULES}
