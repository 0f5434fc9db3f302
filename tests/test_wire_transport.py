"""A message travels as one frame, and whatever else arrives is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.wire import (
    Batch,
    BatchArrays,
    Drained,
    Heartbeat,
    OutputRow,
    Request,
    SamplerKind,
    WireError,
    from_frame,
    only_frame,
    to_frame,
)

PASS = Request((7, 8), (0, 1), (3,), 2, None, (OutputRow(1, SamplerKind.MULTINOMIAL, 0.0),), (), 5)
FRAME = to_frame(Batch(1, 2, (), (PASS, PASS)))


def test_a_batch_arrives_as_it_was_sent() -> None:
    arrived = from_frame(FRAME)

    assert isinstance(arrived, BatchArrays)
    assert arrived.to_batch().requests == (PASS, PASS)


def test_a_message_of_one_part_arrives_as_it_was_sent() -> None:
    assert from_frame(to_frame(Heartbeat(3, None, 0.5))) == Heartbeat(3, None, 0.5)


def test_numbers_of_eight_bytes_lie_at_multiples_of_eight() -> None:
    arrived = from_frame(FRAME)

    assert isinstance(arrived, BatchArrays)
    assert arrived.seeds.flags.aligned


def test_reading_copies_no_column() -> None:
    data = bytearray(FRAME)
    arrived = from_frame(data)
    assert isinstance(arrived, BatchArrays)
    place = data.index((7).to_bytes(4, "little") + (8).to_bytes(4, "little"))
    data[place] = 9

    assert arrived.tokens[0] == 9


@pytest.mark.parametrize("size", range(len(FRAME)))
def test_a_frame_that_is_cut_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        from_frame(FRAME[:size])


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(WireError, match="came as"):
        from_frame(FRAME + bytes(8))


def test_lengths_beyond_the_frame_are_refused() -> None:
    huge = (1).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(WireError):
        from_frame(huge)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_are_refused(data: bytes) -> None:
    with suppress(WireError):
        assert from_frame(data) is not None


@pytest.mark.parametrize("frames", [[], [to_frame(Drained()), b""]])
def test_a_message_is_one_frame(frames: list[bytes]) -> None:
    with pytest.raises(WireError, match="one frame"):
        only_frame(frames)
