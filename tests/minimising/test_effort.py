"""Work is counted, over calls and with what is ahead, and compared with the price of a program."""

import pytest

from lmtorch.minimising.effort import Effort, Work, each, price

N, ROWS = 4, 50


def test_what_is_ahead_counts_as_what_was_done() -> None:
    effort, cost = Effort(), price(N, doubts=False)
    assert not effort.pays(0.9 * cost, N)
    assert effort.pays(cost, N)
    effort.add(Work(0.2 * cost, 0.3 * cost), fits=10)
    assert effort.pays(0.51 * cost, N)
    assert not effort.pays(0.49 * cost, N)


def test_further_fits_are_expected_to_be_as_much_work_as_earlier_ones_were() -> None:
    effort = Effort()
    before = effort.expected(100, ROWS, N)
    assert before == pytest.approx(100 * 5 * each(ROWS, N))  # few fits have fewer trials
    effort.add(Work(0.5, 2.0), fits=10)
    effort.add(Work(0.25, 4.0), fits=20)
    assert effort.expected(60, ROWS, N) == pytest.approx(0.25 + 6.0 / 30 * 60)


def test_where_there_can_be_no_program_none_pays() -> None:
    effort = Effort()
    effort.refused = True
    assert not effort.pays(1e6, N)


def test_fits_in_doubt_need_two_programs() -> None:
    effort = Effort()
    effort.doubts = True
    assert price(N, doubts=True) == 2 * price(N, doubts=False)
    assert not effort.pays(1.5 * price(N, doubts=False), N)


def test_a_program_is_looked_for_once_and_made_when_it_pays() -> None:
    effort = Effort()
    assert not effort.due(N)  # so little was done that none is worth to be read
    effort.add(Work(0.2, 0.0))
    assert effort.due(N)
    effort.missed = True
    assert not effort.due(N)
    effort.add(Work(price(N, doubts=False), 0.0))
    assert effort.due(N)
