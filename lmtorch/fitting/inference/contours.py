"""Where a function on a grid is zero: marching squares, with vertices on the grid's edges.

A cell whose corners differ in sign has a piece of the line. Pieces meet at the edges that they have
in common. Cells with a corner that is NaN have none.

Reference: Lorensen & Cline, Marching cubes (1987), in two dimensions.
"""

from typing import NamedTuple

import numpy as np

Node = tuple[int, int]
Edge = tuple[Node, Node]  # neighbours, the first has the smaller numbers


class Lines(NamedTuple):
    """Lines through edges of a grid."""

    edges: list[Edge]
    lines: list[list[int]]  # numbers of edges, in order
    closed: list[bool]


def lines_of(values: np.ndarray) -> Lines:
    """The lines on which values change their sign.

    Args:
        values: on the nodes of a grid, (k, l).

    Returns:
        The lines.
    """
    inside = values < 0
    known = np.isfinite(values)
    cells = known[:-1, :-1] & known[1:, :-1] & known[:-1, 1:] & known[1:, 1:]
    count = inside[:-1, :-1].astype(int) + inside[1:, :-1] + inside[:-1, 1:] + inside[1:, 1:]
    meets: dict[Edge, list[Edge]] = {}
    for i, j in np.argwhere(cells & (count > 0) & (count < 4)).tolist():
        for one, other in _pieces(values, i, j):
            meets.setdefault(one, []).append(other)
            meets.setdefault(other, []).append(one)
    edges = list(meets)
    number = {edge: place for place, edge in enumerate(edges)}
    lines, closed = [], []
    left = set(edges)
    # those that end at the border first, from their ends; what is left goes round
    for first in sorted(edges, key=lambda edge: len(meets[edge])):
        if first not in left:
            continue
        line = [first]
        left.discard(first)
        while following := [edge for edge in meets[line[-1]] if edge in left]:
            line.append(following[0])
            left.discard(following[0])
        lines.append([number[edge] for edge in line])
        closed.append(len(line) > 2 and first in meets[line[-1]])
    return Lines(edges, lines, closed)


def _pieces(values: np.ndarray, i: int, j: int) -> list[tuple[Edge, Edge]]:
    """The pieces of the line in a cell, each between two of its edges."""
    corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]  # round the cell
    sides = [_edge(corners[k], corners[(k + 1) % 4]) for k in range(4)]
    inside = [values[corner] < 0 for corner in corners]
    crossed = [k for k in range(4) if inside[k] != inside[(k + 1) % 4]]
    if len(crossed) == 2:
        return [(sides[crossed[0]], sides[crossed[1]])]
    # a saddle: whether the corners inside belong together, the middle tells
    middle = sum(values[corner] for corner in corners) < 0
    # cut off the corners that are not as the middle is; corner k lies between sides k − 1 and k
    return [(sides[k - 1], sides[k]) for k in range(4) if inside[k] != middle]


def _edge(one: Node, other: Node) -> Edge:
    return (one, other) if one < other else (other, one)
