"""Records of the same function that part where a mask is read, as one function in Python."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from .numbers import Line, Read

NAME = re.compile(r"\bv\d+\b")  # of a record
LONG = 400  # characters of a line into which no other is written any more
MISSING = object()  # what the function returns where no record has gone this way


class Tree:
    """What is computed until a mask is read, and what follows either answer."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.read = ""  # the mask
        self.after: dict[bool, Tree] = {}
        self.result = ""  # where no mask is read any more
        self.uses: tuple[str, ...] = ()  # names in the result

    def add(self, entries: Sequence[Line | Read], result: str, uses: tuple[str, ...]) -> None:
        """Add a record: names are given in order, so that what is common has the same."""
        tree: Tree = self
        lines: list[Line] = []
        self._changed()
        for entry in entries:
            if isinstance(entry, Line):
                lines.append(entry)
                continue
            tree.lines, tree.read = lines, entry.name
            tree = tree.after.setdefault(entry.found, Tree())
            tree._changed()
            lines = []
        tree.lines, tree.result, tree.uses = lines, result, uses

    def _changed(self) -> None:
        """Forget what a new record may change; what is off its way is written as it was."""
        for known in ("needed", "written", "levels"):
            self.__dict__.pop(known, None)

    def source(self, name: str, arguments: Sequence[str]) -> str:
        """The function."""
        body: list[str] = []
        self._write(body, "    ")
        return f"def {name}({', '.join(arguments)}):\n" + "\n".join(body)

    @cached_property
    def needed(self) -> set[str]:
        """The names that something needs which follows from here."""
        found = set(self.uses).union(*(tree.needed for tree in self.after.values()))
        if self.read:
            found.add(self.read)
        for line in reversed(self.lines):
            if line.asked or not found.isdisjoint(line.targets):
                found.update(line.uses)
        return found

    def _write(self, body: list[str], indent: str) -> None:
        lines, last = self.written
        body += [f"{indent}{line}" for line in lines]
        if not self.read:
            body.append(f"{indent}return {last}")
            return
        # Python has no more than a hundred levels of indentation: the way with fewer is indented
        ways = [(last, self.after.get(True)), (f"not ({last})", self.after.get(False))]
        (asked, inner), (_, outer) = sorted(ways, key=lambda way: _levels(way[1]))
        body.append(f"{indent}if {asked}:")
        for way, place in ((inner, indent + " "), (outer, indent)):
            if way is None:
                body.append(f"{place}return MISSING")
            else:
                way._write(body, place)

    @cached_property
    def written(self) -> tuple[list[str], str]:
        """The lines that are needed, and what is read or returned after them."""
        # A value that is used once stands where it is used: to give it a name costs a third of what
        # it takes to compute it.
        # of this way: on another the same name may be something else
        lines = [one for one in self.lines if one.asked or not self.needed.isdisjoint(one.targets)]
        last = self.read or self.result
        later = set[str]().union(*(tree.needed for tree in self.after.values()))
        times = Counter(NAME.findall(" ".join([*(one.text for one in lines), last])))
        inside: dict[str, str] = {}

        def whole(text: str) -> str:
            return NAME.sub(lambda found: inside.get(found[0], found[0]), text)

        written = []
        for line in lines:
            text, (target, *others) = whole(line.text), line.targets
            once = times[target] == 1 and target not in later
            if once and not (others or line.asked) and len(text) < LONG:
                inside[target] = f"({text})"
            else:
                written.append(f"{', '.join(line.targets)} = {text}")
        return written, whole(last)

    @cached_property
    def levels(self) -> int:
        """How many levels of indentation it takes: the logarithm of its number of ways at most."""
        if not self.read:
            return 0
        few, many = sorted(_levels(self.after.get(answer)) for answer in (True, False))
        return max(few + 1, many)


def _levels(tree: Tree | None) -> int:
    return 0 if tree is None else tree.levels


def function_of(tree: Tree, name: str, arguments: Sequence[str], known: dict[str, Any]) -> Any:
    """The function of a tree, compiled.

    Args:
        tree: what it computes.
        name: of the function.
        arguments: their names.
        known: what stands in lines beside names of the record.

    Returns:
        The function, which returns `MISSING` where no record has gone.
    """
    scope = {**known, "MISSING": MISSING}
    # its lines are made of the patterns in `numbers`, and of numbers
    exec(compile(tree.source(name, arguments), f"<recorded {name}>", "exec"), scope)
    return scope[name]
