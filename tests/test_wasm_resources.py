"""The table of a guest's host objects: no number means two things, nothing is closed twice."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_trio.errors import GuestFault
from pie_trio.wasm.resources import HandleTable


@attrs.define(eq=False)
class Thing:
    """Counts how often it was closed; may refuse."""

    closed: int = 0
    error: Exception | None = None

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


def _table(handles_max: int = 100) -> HandleTable:
    return HandleTable(context=0, handles_max=handles_max, call_bytes=1000)


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "take"]), st.integers(0, 99))))
def test_the_table_behaves_like_a_dictionary(steps: list[tuple[str, int]]) -> None:
    table, model = _table(), dict[int, Thing]()
    things: list[Thing] = []
    taken: list[Thing] = []
    for step, choice in steps:
        if step == "put":
            things.append(Thing())
            number = table.put(things[-1])
            assert number not in model
            model[number] = things[-1]
        elif model:
            number = sorted(model)[choice % len(model)]
            thing = model.pop(number)
            assert table.look_up(number) is thing
            if step == "drop":
                table.drop(number)
            else:
                taken.append(table.take(number))
        assert len(table) == len(model)

    table.close()

    assert [thing.closed for thing in things] == [0 if thing in taken else 1 for thing in things]


def test_numbers_stay_small_however_many_objects_come_and_go() -> None:
    table = _table()
    for _ in range(1000):
        number = table.put(object())
        table.drop(number)

    assert number == 1


def test_a_full_table_refuses_and_stays_as_it_was() -> None:
    table = _table(handles_max=1)
    kept = Thing()
    number = table.put(kept)

    with pytest.raises(GuestFault, match="may hold no more"):
        table.put(Thing())

    assert table.look_up(number) is kept


def test_one_close_that_fails_keeps_no_other_from_closing() -> None:
    table = _table()
    things: list[Any] = [Thing(), Thing(error=ZeroDivisionError()), Thing()]
    for thing in things:
        table.put(thing)

    with pytest.raises(ZeroDivisionError):
        table.close()

    assert [thing.closed for thing in things] == [1, 1, 1]
    assert len(table) == 0


def test_an_object_without_close_is_just_forgotten() -> None:
    table = _table()
    table.drop(table.put(object()))

    assert len(table) == 0
