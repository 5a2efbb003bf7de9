"""Ties as text, "v_center = g_center + 2.3": read as an expression, never run as code.

Python's own parser reads the text; what is computed is a walk over the tree that it gives. Only
numbers, names of parameters, arithmetic and the functions of a list are understood; all else, such
as an attribute, an index that is no number or any other call, is refused when the text is read.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from .._arrays import is_tensor
from .._errors import InputError, InputTypeError
from .._names import meant

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
CONSTANTS = {"pi": math.pi, "e": math.e}  # unless a parameter is called so
# of tensors, and of numbers alone, as in sqrt(2)
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    **{
        name: (getattr(torch, name), getattr(math, name))
        for name in ("sqrt", "exp", "expm1", "log", "log10", "log2", "log1p", "sin", "cos", "tan",
                     "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf", "erfc")
    },
    **{
        f"arc{name}": (getattr(torch, f"a{name}"), getattr(math, f"a{name}"))
        for name in ("sin", "cos", "tan")
    },
    "abs": (torch.abs, abs),
    "max": (torch.maximum, max),
    "min": (torch.minimum, min),
}  # fmt: skip
TWO = ("max", "min")  # functions of two values
LONGEST = 2000  # characters; a tree that is too deep would end the process


@dataclass(frozen=True)
class Expression:
    """A right-hand side that has been read: a function of a dict of values by name.

    Args:
        text: as written.
        constants: the names in it that are constants and no parameters, as "pi".

    Raises:
        InputError: it cannot be read.
    """

    text: str
    constants: tuple[str, ...] = ()

    @cached_property
    def tree(self) -> ast.expr:
        """What it says, checked in all of its parts."""
        return _parsed(self.text, self.text)

    @property
    def names(self) -> list[str]:
        """The names that it needs, each once."""
        found = dict.fromkeys(filter(None, map(_name_of, _leaves(self.tree))))
        return [name for name in found if name not in self.constants]

    @property
    def compiled_by(self) -> tuple[Any, ...]:
        """What tells whether compiled code of it may be used again."""
        return self.text, self.constants

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value, a number or a tensor.

        Raises:
            KeyError: a name has no value.
        """
        return _value(self.tree, values, self.constants)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text alone, without the tree."""
        return type(self), (self.text, self.constants)

    def __repr__(self) -> str:
        """The text."""
        return self.text


def equation(text: str, names: Sequence[str]) -> tuple[str, Expression]:
    """Read "name = right-hand side", for a model with parameters of these names.

    Raises:
        InputError: it cannot be read, or names a parameter that is not there.
        InputTypeError: it is no text.
    """
    if not isinstance(text, str):
        raise InputTypeError(f"a tie is {text!r}: write it as a text, 'b = 2 * a'.")
    left, sign, right = text.partition("=")
    if not sign or right.startswith("="):
        raise InputError(
            f"the tie {text!r} has no single '=': write 'name = what it follows from'."
        )
    name = left.strip()
    if name not in names:
        raise InputError(
            f"the tie {text!r} sets {name!r}, which is no parameter{_nearest(name, names)}"
        )
    return name, expression(right.strip(), names, name)


def expression(text: str, names: Sequence[str], target: str) -> Expression:
    """Read the right-hand side of the tie of a parameter.

    Raises:
        InputError: it cannot be read, or names a parameter that is not there, or itself.
    """
    whole = f"{target} = {text}"
    tree = _parsed(text, whole)
    constants = []
    for leaf in _leaves(tree):
        name = _name_of(leaf) or ""
        if name in names:
            continue
        if name not in CONSTANTS:
            raise InputError(
                _mistake(
                    whole, text, leaf, f"there is no parameter {name!r}{_nearest(name, names)}"
                )
            )
        constants.append(name)
    found = Expression(text, tuple(dict.fromkeys(constants)))
    if target in found.names:
        raise InputError(f"the tie {whole!r} sets {target!r} to something of itself.")
    return found


def circle(ties: Mapping[str, Any]) -> None:
    """Check that ties do not go in a circle; what a function needs is not known.

    Raises:
        InputError: they do; the message says which.
    """
    needs = {name: tie.names for name, tie in ties.items() if isinstance(tie, Expression)}
    for first, nearest in needs.items():
        path, waiting = [first], [iter(nearest)]
        seen = {first}
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                path.pop()
                waiting.pop()
            elif name == first:
                raise InputError(f"ties go in a circle: {' ← '.join([*path, first])}.")
            elif name in needs and name not in seen:
                seen.add(name)
                path.append(name)
                waiting.append(iter(needs[name]))


def _parsed(text: str, whole: str) -> ast.expr:
    """The tree of a text, all of whose parts are allowed."""
    if len(text) > LONGEST:
        raise InputError(f"a tie has {len(text)} characters: give a function instead.")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = getattr(error, "offset", None)
        raise InputError(
            f"the tie {whole!r} cannot be read: {getattr(error, 'msg', error)}"
            + (f", at {text[place - 1 :]!r}." if place and text[place - 1 :] else ".")
        ) from error
    try:
        _check(tree, text, whole)
    except RecursionError as error:
        raise InputError(f"the tie {whole!r} is nested too deep.") from error
    return tree


def _check(node: ast.AST, text: str, whole: str) -> None:
    """Refuse what is not understood.

    Raises:
        InputError: there is some of it.
    """
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise InputError(_mistake(whole, text, node, f"{node.value!r} is no real number"))
    elif isinstance(node, ast.BinOp | ast.UnaryOp):
        if type(node.op) not in OPERATORS:
            hint = ": write ** for a power" if isinstance(node.op, ast.BitXor) else ""
            raise InputError(
                _mistake(
                    whole, text, node, f"{type(node.op).__name__} is no operator of ties{hint}"
                )
            )
    elif isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            called = ast.unparse(node.func)
            raise InputError(_mistake(
                whole, text, node, f"{called!r} may not be called: the functions are "
                f"{', '.join(FUNCTIONS)}",
            ))  # fmt: skip
        count = 2 if node.func.id in TWO else 1
        if node.keywords or len(node.args) != count:
            raise InputError(_mistake(whole, text, node, f"{node.func.id} takes {count} value(s)"))
    elif _name_of(node) is None:
        kind = "a comparison" if isinstance(node, ast.Compare) else f"{ast.unparse(node)!r}"
        raise InputError(_mistake(
            whole, text, node, f"{kind} is not understood: numbers, names of parameters, "
            f"+ - * / ** and functions are",
        ))  # fmt: skip
    for part in _parts(node):
        _check(part, text, whole)
    if not isinstance(node, ast.Constant) and not _leaves(node):
        try:
            _value(node, {}, ())
        except (ArithmeticError, ValueError) as error:
            raise InputError(_mistake(whole, text, node, str(error))) from error


def _name_of(node: ast.AST) -> str | None:
    """The name that a node stands for: of a parameter, as `a`, `a[0]` or `w[0,1]`."""
    if isinstance(node, ast.Name):
        return node.id
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return None
    index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    numbers = [one.value for one in index if isinstance(one, ast.Constant)]
    if len(numbers) != len(index) or any(type(number) is not int for number in numbers):
        return None
    return f"{node.value.id}[{','.join(map(str, numbers))}]"


def _leaves(node: ast.AST) -> list[ast.AST]:
    """The nodes of a checked tree that stand for names."""
    if isinstance(node, ast.Name | ast.Subscript):
        return [node]
    return [leaf for part in _parts(node) for leaf in _leaves(part)]


def _parts(node: ast.AST) -> list[ast.expr]:
    """What an operator or a function is applied to."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    return node.args if isinstance(node, ast.Call) else []


def _value(node: ast.AST, values: Mapping[str, Any], constants: Sequence[str]) -> Any:
    """The value of a checked tree.

    Raises:
        KeyError: a name has no value.
    """
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        return float(node.value)
    parts: list[Any] = []
    for part in _parts(node):
        parts.append(_value(part, values, constants))
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return OPERATORS[type(node.op)](*parts)
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        of_tensors, of_numbers = FUNCTIONS[node.func.id]
        like = next((value for value in parts if is_tensor(value)), None)
        if like is None:
            return of_numbers(*parts)
        return of_tensors(*(v if is_tensor(v) else torch.full_like(like, v) for v in parts))
    name = _name_of(node) or ""
    return CONSTANTS[name] if name in constants else values[name]


def _nearest(name: str, names: Sequence[str]) -> str:
    """A question after what may be meant, and the names that there are."""
    return f": the parameters are {list(names)}.{meant([name], names)}"


def _mistake(whole: str, text: str, node: Any, what: str) -> str:
    """A message that shows its place."""
    begin, end = node.col_offset, node.end_col_offset
    # places count bytes of UTF-8
    seen = text.encode()[begin:end].decode(errors="replace")
    where = f", at {seen!r}" if seen != text else ""
    end = "" if what.endswith("?") else "."
    return f"the tie {whole!r} cannot be used{where}: {what.rstrip('.')}{end}"
