"""Expressions as a program without a compiler: NumPy's operations in a row, each on many fits.

A number of a fit is a vector over the fits here, and a number of a point a plane (points, fits).
The program is Python, a line for each expression, and a line costs what a call of NumPy does, a
fifth of what one of torch costs with all that the loop does around it. What differs between points
is made for some fits at a time, whose planes stay in the cache, and leaves vectors of sums.

Choices are most of what a traced loop has and a plain one has not: most masks hold for all fits or
for none, which is looked at once, and then nothing is chosen, nor made that nobody would take.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .emitting import SYMBOLS, Block, apart
from .expressions import REAL, SINGLE, TRUTH, WHOLE, Expression
from .grids import UnsupportedError
from .point_loops import SUMS
from .tracing import ordered

TYPES: dict[str, Any] = {REAL: np.float64, SINGLE: np.float32, WHOLE: np.int64, TRUTH: np.bool_}
MUCH = 2  # expressions from which on it is asked whether any fit needs them
ORDERS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
# NumPy's names for functions of C
NAMES = {
    "fabs": "absolute", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh",
    "acosh": "arccosh", "atanh": "arctanh", "atan2": "arctan2", "pow": "power",
    "finite": "isfinite",
}  # fmt: skip
SPECIAL = {"erf": "erf", "erfc": "erfc", "lgamma": "gammaln"}  # and SciPy's
REDUCED = {
    "sum": "add", "amax": "maximum", "amin": "minimum", "any": "logical_or", "all": "logical_and",
}  # fmt: skip


def program(points: int, **blocks: Block) -> str:
    """The functions, in Python.

    Args:
        points: of a fit.
        blocks: what each function computes, by its name.

    Returns:
        Their text.
    """
    return "\n\n".join(_Writer(name, block, points).text() for name, block in blocks.items())


def functions(text: str) -> dict[str, Any]:
    """The functions of a program, by their names."""
    scope: dict[str, Any] = {
        "where": np.where, "empty": np.empty, "full": np.full, "held": _held, "eigen": _eigen,
        "constant": _constant, **{f"type_{kind}": dtype for kind, dtype in TYPES.items()},
    }  # fmt: skip
    for name in REDUCED.values():
        scope[f"reduce_{name}"] = getattr(np, name).reduce
    scope.update({name: one for name, one in vars(np).items() if isinstance(one, np.ufunc)})
    if any(f"{name}(" in text for name in SPECIAL):
        from scipy import special  # which takes as long to import as a thousand fits

        scope.update({name: getattr(special, other) for name, other in SPECIAL.items()})
    # names of functions and numbers stand in its lines, and nothing else
    exec(compile(text, "<planes>", "exec"), scope)
    return scope


def _held(mask: Any) -> int:
    """Whether a mask holds nowhere (0), everywhere (1), or for some (2)."""
    entries = mask.tobytes()
    if b"\1" not in entries:
        return 0
    return 2 if b"\0" in entries else 1


def _constant(text: str, dtype: Any) -> Any:
    """A number as an array without dimensions, which NumPy need not look at any more."""
    return np.array(float.fromhex(text) if dtype in (np.float64, np.float32) else int(text), dtype)


def _eigen(n: int, lower: Sequence[Any]) -> Any:
    """Eigenvalues, rising, and eigenvectors of matrices by their lower triangles; NaN of NaN."""
    count = max(np.size(entry) for entry in lower)
    whole = np.zeros((count, n, n), np.result_type(*lower))
    entries = iter(lower)
    for i in range(n):
        for j in range(i + 1):
            whole[:, i, j] = next(entries)
    bad = ~np.isfinite(whole).all((1, 2))
    whole[bad] = np.eye(n)
    values, vectors = np.linalg.eigh(whole, UPLO="L")
    values[bad], vectors[bad] = np.nan, np.nan
    return SimpleNamespace(
        values=[values[:, i] for i in range(n)],
        vectors=[[vectors[:, i, j] for j in range(n)] for i in range(n)],
    )


class _Unit(NamedTuple):
    """What is written at one place."""

    made: list[Expression]  # one; or a choice after what only one of its sides needs; or sums
    points: tuple[Expression, ...] = ()  # what sums are made of, operands first

    def uses(self) -> Iterator[Expression]:
        """What it reads."""
        for one in (*self.points, *self.made):
            yield from one.operands


class _Writer:
    """One function.

    Args:
        name: its name.
        block: what it computes.
        points: of a fit.
    """

    def __init__(self, name: str, block: Block, points: int) -> None:
        self.name, self.block, self.points = name, block, points
        self.every = ordered(block.outputs)
        self.apart = apart(self.every, block.outputs, MUCH)
        # whether numbers differ between fits; others are one number for all
        self.varying: dict[int, bool] = {}
        for one in self.every:
            own = one.operator == "input" and not block.where(one).shared
            self.varying[id(one)] = own or any(self.varying[id(o)] for o in one.operands)
        self.names: dict[int, str] = {}
        self.lines: list[str] = []
        self.constants: list[str] = []
        self.looked: dict[int, str] = {}  # masks that are looked at, and what holds the answer
        self.masks = {
            id(one.operands[0]) for one in self.every if one.operator == "where" and not one.point
        }
        self.free: list[str] = []
        self.registers = 0

    def text(self) -> str:
        """The lines of the function."""
        units = list(self._units())
        outputs = self.block.outputs
        last = {id(one): number for number, unit in enumerate(units) for one in unit.uses()}
        last |= {id(one): len(units) for one in outputs}
        for one in self.every:
            if one.operator == "constant":
                self._constant(one)
            elif one.operator == "input" and not one.point:
                self._input(one)
        for number, unit in enumerate(units):
            over = {id(one) for one in (*unit.uses(), *unit.made) if last.get(id(one)) == number}
            self._write(unit, over)
        results = [self._output(one) for one in outputs]
        head = f"def {self.name}(p, r, d, count, pieces):"
        body = [*self.lines, f"return [{', '.join(results)}]"]
        return "\n".join([*self.constants, head, *("    " + line for line in body)])

    def _units(self) -> Iterator[_Unit]:
        """What is written, in its order: of each stage numbers of fits, then sums over points."""
        within = {id(one) for found in self.apart.values() for one in found}
        for stage in range(1 + max((e.stage for e in self.every), default=0)):
            for one in self.every:
                plain = one.operator not in (*SUMS, "constant", "input")
                if one.stage == stage and plain and not one.point and id(one) not in within:
                    yield _Unit([*self.apart.get(id(one), ()), one])
            sums = [e for e in self.every if e.operator in SUMS and e.stage == stage + 1]
            if sums:
                roots = [e.operands[0] for e in sums]
                yield _Unit(sums, tuple(one for one in ordered(roots) if one.point))

    # ---- what stands anywhere --------------------------------------------------------------------

    def _constant(self, one: Expression) -> None:
        name = f"{self.name}_c{len(self.constants)}"
        value: Any = one.value
        known = float(value).hex() if one.kind in (REAL, SINGLE) else str(int(value))
        self.constants.append(f"{name} = constant({known!r}, type_{one.kind})")
        self.names[id(one)] = name

    def _input(self, one: Expression) -> None:
        source, number, offset, _, _ = self.block.where(one)
        read = f"d[{number}][{offset}]" if source == "d" else f"{source}[{number}]"
        self.names[id(one)] = read
        if id(one) in self.masks:
            self._mark(one, self.lines)

    def _mark(self, mask: Expression, into: list[str]) -> None:
        """Look at a mask, once it is there."""
        name = self.looked[id(mask)] = f"k{len(self.looked)}"
        into.append(f"{name} = held({self.names[id(mask)]})")

    def _register(self) -> str:
        if self.free:
            return self.free.pop()
        self.registers += 1
        return f"x{self.registers - 1}"

    def _written(self, one: Expression, names: dict[int, str]) -> str:
        operands = [names[id(o)] for o in one.operands]
        symbol = SYMBOLS.get(one.operator) or ORDERS.get(one.operator)
        if symbol:
            return f"{operands[0]} {symbol} {operands[1]}"
        if one.operator in ("neg", "not"):
            return ("-" if one.operator == "neg" else "~") + operands[0]
        if one.operator == "where":
            return self._choice(one, operands)
        if one.operator == "eigen":
            return f"eigen({one.value}, [{', '.join(operands)}])"
        if one.operator == "of_eigen":
            return f"{operands[0]}.{one.value}"
        if one.operator.startswith("to_"):
            return f"{operands[0]}.astype(type_{one.kind})"
        name = NAMES.get(one.operator, one.operator)
        if not (name in SPECIAL or isinstance(getattr(np, name, None), np.ufunc)):
            raise UnsupportedError(f"the function {name} on NumPy's arrays")
        return f"{name}({', '.join(operands)})"

    def _choice(self, one: Expression, operands: list[str]) -> str:
        """One of two numbers; all of one of them, where the mask holds for all or for none."""
        mask, first, second = operands
        found, looked = f"where({mask}, {first}, {second})", self.looked.get(id(one.operands[0]))
        if looked is None or one.point:
            return found
        if self.varying[id(one.operands[1])]:
            found = f"{first} if {looked} == 1 else {found}"
        if self.varying[id(one.operands[2])]:
            found = f"{found} if {looked} else {second}"
        return found

    def _output(self, one: Expression) -> str:
        name = self.names[id(one)]
        return name if self.varying[id(one)] else f"full(count, {name})"

    # ---- units -----------------------------------------------------------------------------------

    def _write(self, unit: _Unit, over: set[int]) -> None:
        if unit.points:
            self._sums(unit, over)
            return
        *members, one = unit.made
        if members:
            self._choose(members, one, over)
        else:
            self._line(one, self.lines)
        for operand in (*one.operands, *(o for member in members for o in member.operands)):
            if id(operand) in over:
                self._let_go(operand, over)

    def _choose(self, members: list[Expression], choice: Expression, over: set[int]) -> None:
        """A choice, one side of which is only made where a fit takes it."""
        mask, first, second = choice.operands
        looked, within = self.looked[id(mask)], set(map(id, members))
        end = {id(o): place for place, one in enumerate([*members, choice]) for o in one.operands}
        lines = list[str]()
        for place, one in enumerate(members):
            self._line(one, lines)
            for operand in dict.fromkeys(one.operands):
                if id(operand) in within and end[id(operand)] == place:
                    self._let_go(operand, over)
        written, name = self._written(choice, self.names), self._register()
        inside = id(first) in within
        plain = self._as(choice, second if inside else first)
        self.names[id(choice)] = name
        self.lines.append(f"if {looked}:" if inside else f"if {looked} != 1:")
        self.lines += ["    " + line for line in [*lines, f"{name} = {written}"]]
        self.lines += ["else:", f"    {name} = {plain}"]
        if id(choice) in self.masks:
            self._mark(choice, self.lines)

    def _as(self, like: Expression, one: Expression) -> str:
        """A number, as a vector where another is."""
        name, both = self.names[id(one)], self.varying[id(one)] or not self.varying[id(like)]
        return name if both else f"full(count, {name})"

    def _line(self, one: Expression, into: list[str]) -> None:
        written = self._written(one, self.names)
        name = self.names[id(one)] = self._register()
        into.append(f"{name} = {written}")
        if id(one) in self.masks:
            self._mark(one, into)

    def _let_go(self, one: Expression, over: set[int]) -> None:
        name = self.names.get(id(one), "")
        over.discard(id(one))
        if name[:1] == "x":
            self.free.append(name)

    def _sums(self, unit: _Unit, over: set[int]) -> None:
        """A loop over some fits at a time, in which planes are made and added up."""
        names, lines = dict(self.names), list[str]()
        rows = {id(o): o for o in unit.uses() if not o.point and self.varying[id(o)]}
        for place, one in enumerate(rows.values()):
            lines.append(f"z{place} = {self.names[id(one)]}[s]")
            names[id(one)] = f"z{place}"
        last = {id(o): at for at, one in enumerate(unit.points) for o in one.operands}
        sums: dict[int, list[Expression]] = {}
        for one in unit.made:
            sums.setdefault(id(one.operands[0]), []).append(one)
            name = self.names[id(one)] = self._register()
            if self.varying[id(one)]:
                self.lines.append(f"{name} = empty(count, type_{one.kind})")
        free, planes = list[str](), 0
        for at, one in enumerate(unit.points):
            written = self._plane(one) if one.operator == "input" else self._written(one, names)
            for operand in dict.fromkeys(one.operands):
                if operand.point and last[id(operand)] == at:
                    free.append(names[id(operand)])
            if free:
                name = free.pop()
            else:
                name, planes = f"y{planes}", planes + 1
            names[id(one)] = name
            lines.append(f"{name} = {written}")
            for total in sums.get(id(one), ()):
                reduced, into = f"reduce_{REDUCED[total.operator]}", self.names[id(total)]
                if self.varying[id(total)]:
                    lines.append(f"{reduced}({name}, 0, None, {into}[s])")
                else:
                    lines.append(f"{into} = {reduced}({name}, 0)[0]")
            if id(one) not in last:
                free.append(name)
        self.lines.append("for s in pieces:")
        self.lines += ["    " + line for line in lines]
        for one in unit.uses():
            if id(one) in over:
                self._let_go(one, over)
        for one in unit.made:
            if id(one) in self.masks:
                self._mark(one, self.lines)

    def _plane(self, one: Expression) -> str:
        """A number of each point, as it is read: (points, some fits), or (points, 1)."""
        _, number, offset, step, shared = self.block.where(one)
        rows = f"{offset}:{offset + (self.points - 1) * step + 1}:{step}"
        return f"d[{number}][{rows}, None]" if shared else f"d[{number}][{rows}, s]"
