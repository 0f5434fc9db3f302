"""Run lengths become exactly the attended slots, or a fault that says why not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_trio.errors import GuestFault
from pie_trio.wasm.host.masks import attended_intervals, is_causal


def _attended(runs: list[int]) -> list[int]:
    """The plain meaning of run lengths: the first run attends, then they alternate."""
    bits = [number % 2 == 0 for number, run in enumerate(runs) for _ in range(run)]
    return [slot for slot, attends in enumerate(bits) if attends]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_intervals_name_the_slots_that_the_runs_attend(runs: list[int]) -> None:
    slots = _attended(runs)
    if not slots:
        with pytest.raises(GuestFault, match="attends to nothing"):
            attended_intervals(runs, sum(runs), 0)
        return
    intervals = attended_intervals(runs, sum(runs), 0)
    named = [
        slot
        for start, end in zip(intervals[::2], intervals[1::2], strict=True)
        for slot in range(start, end)
    ]
    assert named == slots


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_intervals_are_in_order_apart_and_not_empty(runs: list[int]) -> None:
    if not _attended(runs):
        return
    intervals = attended_intervals(runs, sum(runs), 0)
    assert all(a < b for a, b in pairwise(intervals))


def test_the_first_run_attends() -> None:
    assert attended_intervals([2, 3], 5, 0) == (0, 2)


def test_a_first_run_of_nought_starts_masked() -> None:
    assert attended_intervals([0, 3, 2], 5, 0) == (3, 5)


@pytest.mark.parametrize("runs", [[], [4], [6], [2, 2], [2, 2, 2], [2**32 - 1, 6]])
def test_a_row_of_another_length_is_refused_with_both_numbers(runs: list[int]) -> None:
    with pytest.raises(GuestFault, match=rf"row 3 covers {sum(runs)} slots.* are 5"):
        attended_intervals(runs, 5, 3)


def test_a_row_that_attends_to_nothing_is_refused() -> None:
    with pytest.raises(GuestFault, match="row 1 attends to nothing"):
        attended_intervals([0, 5], 5, 1)


def test_full_rows_are_causal() -> None:
    assert is_causal([(0, 3), (0, 4)], context=2)


@pytest.mark.parametrize("mask", [[(0, 3), (0, 3)], [(1, 3), (0, 4)], [(0, 1, 2, 3), (0, 4)]])
def test_rows_with_a_hole_are_not_causal(mask: list[tuple[int, ...]]) -> None:
    assert not is_causal(mask, context=2)
