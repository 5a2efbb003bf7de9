"""Lines on a grid."""

import numpy as np
import pytest

from lmtorch.fitting.inference.contours import lines_of

K = np.linspace(-1, 1, 21)
X, Y = np.meshgrid(K, K, indexing="ij")


def test_round_a_disc_goes_one_closed_line_whose_neighbours_share_cells() -> None:
    found = lines_of(np.hypot(X, Y) - 0.7)
    assert found.closed == [True]
    middle = np.array(found.edges).mean(1)[found.lines[0]]
    steps = np.abs(np.diff(np.concatenate([middle, middle[:1]]), axis=0))
    assert steps.max() <= 1
    assert len(set(found.lines[0])) == len(found.lines[0]) == len(found.edges)


@pytest.mark.parametrize("values", [X - 0.03, Y + 0.26, X + Y - 0.05])
def test_a_line_that_leaves_is_open_from_border_to_border(values: np.ndarray) -> None:
    found = lines_of(values)
    assert found.closed == [False]
    ends = [found.edges[found.lines[0][k]] for k in (0, -1)]
    for (i, j), (k, m) in ends:
        assert (i == k and i in (0, 20)) or (j == m and j in (0, 20))


def test_two_discs_have_two_lines() -> None:
    apart = np.minimum(np.hypot(X - 0.5, Y), np.hypot(X + 0.5, Y)) - 0.3
    assert lines_of(apart).closed == [True, True]
    nested = np.abs(np.hypot(X, Y) - 0.6) - 0.15
    assert lines_of(nested).closed == [True, True]


@pytest.mark.parametrize(
    ("shift", "cut"), [(0.1, [(0, 0), (1, 1)]), (-0.1, [(0, 1), (1, 0)])], ids=["apart", "joined"]
)
def test_in_a_saddle_the_middle_tells_what_belongs_together(
    shift: float, cut: list[tuple[int, int]]
) -> None:
    found = lines_of(np.array([[-1.0, 1.0], [1.0, -1.0]]) + shift)
    corners = [set.intersection(*({*found.edges[edge]} for edge in line)) for line in found.lines]
    assert sorted(corner for (corner,) in map(tuple, corners)) == cut  # which each line goes round


def test_where_nothing_is_known_there_is_no_line() -> None:
    values = np.hypot(X, Y) - 0.7
    values[12, 12] = np.nan  # inside: the line does not come near it
    assert lines_of(values).closed == [True]
    values[17, 10] = np.nan  # on the line
    assert lines_of(values).closed == [False]
    assert lines_of(np.ones((3, 3))).lines == lines_of(np.full((3, 3), np.nan)).lines == []
